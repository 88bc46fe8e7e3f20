"""What the verifier promises, without a daemon and without mail."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from otpbridge_verifier_mailcode import Mailcode, MailcodeOptions

from otpbridge.model import Verdict
from otpbridge.verify.testing import EmptyAnswerError, ScriptedAttempt, judge


def program(folder: Path, body: str) -> str:
    """A program in a folder."""
    path = folder / "deliver"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def deliver(tmp_path: Path) -> str:
    """A command that keeps what it is given in `mail` beside itself."""
    return program(tmp_path, f"cat > {tmp_path}/mail")


def verifier(command: str, times: tuple[float, ...] = (0.0,) * 9) -> Mailcode:
    """A verifier whose code is always 004711, with a clock that shows these times."""
    return Mailcode(MailcodeOptions(command=command), below=lambda _: 4711, clock=iter(times).__next__)


def test_the_code_that_was_delivered_lets_in(deliver: str, tmp_path: Path) -> None:
    """The command gets user, client and code on standard input; blanks around the answer do not matter."""
    attempt = ScriptedAttempt(answers=[" 004711 "], user="bob", client="acme")
    assert judge(verifier(deliver), attempt) is Verdict.SUCCESS
    assert (tmp_path / "mail").read_text() == "bob\nacme\n004711\n"
    assert attempt.asked == ["Code from your mail: "]


def test_a_wrong_code_may_be_corrected(deliver: str) -> None:
    """The person is told, and asked again for the same code."""
    attempt = ScriptedAttempt(answers=["004712", "004711"])
    assert judge(verifier(deliver), attempt) is Verdict.SUCCESS
    assert attempt.notices == ["That code does not match."]


def test_tries_are_few(deliver: str) -> None:
    """After three wrong codes it is over, even if the right one would come next."""
    attempt = ScriptedAttempt(answers=["1", "2", "3", "004711"])
    assert judge(verifier(deliver), attempt) is Verdict.AUTH_ERR
    assert len(attempt.asked) == 3


@pytest.mark.parametrize("typed", ["4711", "00471", "0047111", "\uff10\uff10\uff14\uff17\uff11\uff11", "none"])
def test_nothing_but_the_code_is_the_code(deliver: str, typed: str) -> None:
    """Not a part of it, not more than it, not what only looks like it."""
    assert judge(verifier(deliver), ScriptedAttempt(answers=[typed] * 3)) is Verdict.AUTH_ERR


def test_an_old_code_is_refused(deliver: str) -> None:
    """Who answers after the lifetime is told that the code has expired."""
    attempt = ScriptedAttempt(answers=["004711"])
    assert judge(verifier(deliver, (0.0, 300.5)), attempt) is Verdict.AUTH_ERR
    assert attempt.notices == ["That code has expired."]


def test_a_code_for_the_authenticator_is_not_taken_for_it(deliver: str) -> None:
    """The person is asked although other rules have asked before."""
    attempt = ScriptedAttempt(answers=["1", "2", "3"], given={"code": "004711", "mailcode": "004711"})
    assert judge(verifier(deliver), attempt) is Verdict.AUTH_ERR


def test_no_answer_is_no_guess(deliver: str) -> None:
    """An empty answer ends the rule; it is not handed out."""
    with pytest.raises(EmptyAnswerError):
        judge(verifier(deliver), ScriptedAttempt(answers=[""]))


def test_what_is_not_delivered_is_not_asked_for(tmp_path: Path) -> None:
    """A command that fails fails the rule; the person is not asked for a code that never comes."""
    attempt = ScriptedAttempt(answers=["004711"])
    with pytest.raises(subprocess.CalledProcessError):
        judge(verifier(program(tmp_path, "exit 3")), attempt)
    assert attempt.asked == []


@pytest.mark.parametrize(
    "wrong",
    [{"command": "deliver"}, {"digits": 4}, {"tries": 0}, {"tries": 9}, {"lifetime": 0}, {"timeout": 0}],
    ids=str,
)
def test_options_are_checked(wrong: dict[str, object]) -> None:
    """A configuration that would be unsafe is refused when it is read."""
    with pytest.raises(ValueError, match=r"must|at least"):
        MailcodeOptions(**{"command": "/bin/true", **wrong})  # type: ignore[arg-type]  # the test's point
