"""The daemon's numbers in Prometheus' text format (0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

import msgspec

from otpbridge.model import MetricKind
from otpbridge.wire.messages import Family, ReadReply, Series

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def whole(replies: Iterable[ReadReply]) -> list[Family]:
    """The families of all replies, each in one piece."""
    found: dict[str, Family] = {}
    for reply in replies:
        for piece in reply.families:
            so_far = found.get(piece.name)
            series = piece.series if so_far is None else so_far.series + piece.series
            found[piece.name] = msgspec.structs.replace(piece, series=series)
    return list(found.values())


def up(*, reached: bool) -> Family:
    """Whether there are any numbers."""
    said = "Whether the daemon could be asked."
    series = (Series(labels=(), value=float(reached)),)
    return Family(name="otpbridge_up", kind=MetricKind.GAUGE, help=said, labels=(), series=series)


def text(families: Iterable[Family]) -> str:
    """All of it, lines ended."""
    return "".join(f"{line}\n" for family in families for line in _lines(family))


def buckets(family: Family, series: Series) -> list[tuple[str, int]]:
    """The buckets of a histogram by their upper bounds; each holds those below it too, as Prometheus has it."""
    bounds = [*(_number(bound) for bound in family.bounds or ()), "+Inf"]
    return list(zip(bounds, accumulate(series.counts or ()), strict=True))


def _lines(family: Family) -> Iterator[str]:
    name = family.name
    yield f"# HELP {name} {_escaped(family.help)}"
    yield f"# TYPE {name} {family.kind}"
    for series in family.series:
        labels = list(zip(family.labels, series.labels, strict=True))
        if series.value is not None:
            yield f"{name}{_labels(labels)} {_number(series.value)}"
            continue
        held = buckets(family, series)
        for bound, count in held:
            yield f"{name}_bucket{_labels([*labels, ('le', bound)])} {count}"
        yield f"{name}_sum{_labels(labels)} {_number(series.sum or 0.0)}"
        yield f"{name}_count{_labels(labels)} {held[-1][1]}"


def _labels(labels: list[tuple[str, str]]) -> str:
    if not labels:
        return ""
    said = ",".join(f'{name}="{_quoted(value)}"' for name, value in labels)
    return f"{{{said}}}"


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)


def _escaped(words: str) -> str:
    return words.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', '\\"')
