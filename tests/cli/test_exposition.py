"""The text format: prometheus-client's parser reads what we write as what the daemon has said."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from otpbridge.cli import exposition
from otpbridge.model import MetricKind
from otpbridge.wire.messages import Family, ReadReply, Series


def family(name="otpbridge_x_total", kind=MetricKind.COUNTER, *, labels=(), series=(), bounds=None):
    return Family(name=name, kind=kind, help="A \\ and\nanother.", labels=labels, series=series, bounds=bounds)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(st.lists(st.tuples(TEXT, TEXT), max_size=5, unique=True), st.floats(allow_nan=False))
def test_every_label_and_every_number_comes_through(labels, value):
    """Line breaks, quotes and backslashes are escaped, and no number loses a digit."""
    series = tuple(Series(labels=names, value=value) for names in labels)
    page = exposition.text([family(labels=("a", "b"), series=series, kind=MetricKind.GAUGE, name="otpbridge_x")])
    (found,) = text_string_to_metric_families(page)
    assert found.documentation == "A \\ and\nanother."
    assert [(each.labels["a"], each.labels["b"], each.value) for each in found.samples] == [
        (*names, value) for names in labels
    ]


def test_a_histogram_is_cumulative():
    """Each bucket holds those below it; the last is that of all, and the count."""
    series = (Series(labels=(), counts=(3, 0, 2, 1), sum=4.25),)
    page = exposition.text([family("otpbridge_s", MetricKind.HISTOGRAM, series=series, bounds=(0.0001, 0.5, 1.0))])
    (found,) = text_string_to_metric_families(page)
    buckets = {float(each.labels["le"]): each.value for each in found.samples if "le" in each.labels}
    assert (found.type, buckets) == ("histogram", {0.0001: 3, 0.5: 3, 1.0: 5, math.inf: 6})
    rest = {each.name: each.value for each in found.samples if "le" not in each.labels}
    assert rest == {"otpbridge_s_sum": 4.25, "otpbridge_s_count": 6}


def test_a_family_in_pieces_is_one():
    """What came in several replies has one HELP and one TYPE, as the format demands."""
    pieces = [family(labels=("n",), series=(Series(labels=(str(n),), value=float(n)),)) for n in range(3)]
    whole = exposition.whole([ReadReply(families=tuple(pieces[:2])), ReadReply(families=tuple(pieces[2:]))])
    page = exposition.text(whole)
    assert page.count("# TYPE") == 1
    (found,) = text_string_to_metric_families(page)
    assert [each.value for each in found.samples] == [0, 1, 2]


@pytest.mark.parametrize("reached", [True, False])
def test_whether_the_daemon_was_reached_is_a_number(reached):
    """Monitoring tells a daemon that is away from one that has nothing to say."""
    (found,) = text_string_to_metric_families(exposition.text([exposition.up(reached=reached)]))
    assert [(each.name, each.value) for each in found.samples] == [("otpbridge_up", float(reached))]
