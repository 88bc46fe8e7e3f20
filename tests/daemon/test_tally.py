"""What is counted of verifications: all of it, under so many names and no more."""

from __future__ import annotations

import pytest
from stackrig import SEED, Bench
from storerig import run, running

from otpbridge.daemon.tally import MOST, OTHER, Tally, Why, why_of
from otpbridge.errors import StoreError
from otpbridge.model import Outcome, Secret, Verdict
from otpbridge.store.histogram import Histogram

REFUSED = Outcome(Verdict.AUTH_ERR, "wrong code")


def test_services_that_callers_make_up_are_counted_as_one():
    """Whoever floods the daemon with names of services makes one number grow, and no more numbers."""
    tally = Tally()
    for number in range(500):
        tally.verified("default", f"x{number}\n", None, REFUSED, 0.0)
        tally.account(f"x{number}", REFUSED)
    assert tally.verdicts == {("default", OTHER, "none", "auth_err"): 500}
    assert tally.accounts == {(OTHER, "auth_err"): 500}
    tally.verified("default", "sshd", None, REFUSED, 0.0)
    assert tally.verdicts["default", "sshd", "none", "auth_err"] == 1


def test_there_are_only_so_many_numbers_however_many_stacks():
    """A configuration with any number of stacks keeps the reply bounded, and counts everything."""
    tally = Tally()
    for number in range(MOST + 50):
        tally.verified(f"stack{number}", "sshd", None, REFUSED, 0.0)
    assert len(tally.verdicts) == MOST + 1
    assert sum(tally.verdicts.values()) == MOST + 50
    assert tally.verdicts[OTHER, OTHER, "none", "auth_err"] == 50


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("wrong code", Why.WRONG_CODE),
        ("wrong code; failed: totp, x.y", Why.WRONG_CODE),
        ("a verifier's own words; wrong code: no token", Why.NO_TOKEN),
        ("not judged; failed: slow", Why.NOT_JUDGED),
        ("trusted network 192.0.2.0/24", Why.EXEMPT),
        ("whatever; it was; at all", Why.OTHER),
    ],
)
def test_reasons_of_any_words_are_of_a_known_kind(reason, why):
    """What a verifier or an error adds to a reason makes no number of its own."""
    assert why_of(reason) is why
    tally = Tally()
    tally.verified("default", "sshd", None, Outcome(Verdict.AUTH_ERR, reason), 0.0)
    assert {name: found for name, found in tally.reasons.items() if found} == {why: 1}


def test_a_histogram_holds_each_value_in_the_bucket_that_ends_at_or_above_it():
    """A value on a bound is below it, as Prometheus counts."""
    histogram = Histogram([1, 2, 4])
    for value in (0, 1, 1.5, 2, 4, 5, 100):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1, 2]
    assert histogram.sum == pytest.approx(113.5)


def test_verdicts_without_a_store_are_counted_too(tmp_path, monkeypatch):
    """A store that cannot be read makes numbers: refusals that are no fault of whoever logs in."""

    async def lost(*_):
        raise StoreError("the disk has gone")

    async def whole():
        async with running(tmp_path) as rig:
            await rig.token(seed=Secret(SEED))
            bench = Bench(rig)
            begun, _ = await bench.judge.begin(bench.subject())
            with monkeypatch.context() as patch:
                patch.setattr(rig.store, "candidate", lost)
                assert (await bench.judge.check(bench.subject(), ["123456"])).verdict is Verdict.AUTHINFO_UNAVAIL
                assert (await bench.judge.begin(bench.subject()))[1].verdict is Verdict.AUTHINFO_UNAVAIL
                assert (await bench.judge.answer(begun, ["123456"])).verdict is Verdict.AUTHINFO_UNAVAIL
                assert (await bench.judge.account(bench.subject())).verdict is Verdict.AUTHINFO_UNAVAIL
            return bench.judge.tally

    tally = run(whole())
    assert tally.verdicts == {
        ("none", "sshd", "none", "authinfo_unavail"): 2,
        ("default", "sshd", "none", "authinfo_unavail"): 1,
    }
    assert tally.accounts == {("sshd", "authinfo_unavail"): 1}
    assert tally.reasons[Why.STORE] == 3
    assert sum(tally.seconds.counts) == 3
