"""The verifier of Yubico OTPs, on Yubico's published presses."""

from __future__ import annotations

import pytest
from fake_attempt import FakeAttempt, judge, token

from otpbridge.model import Kind, Secret, Verdict
from otpbridge.otp.yubiotp import YubiKey
from otpbridge.verify.builtin.yubiotp import YubiOtp

EARLY, LATER, LAST = (
    "ccccccccccccdvgtiblfkbgturecfllberrvkinnctnn",
    "ccccccccccccrnibcnfhdninbrdebccrndfhjgnhftee",
    "cccccccccccciikkijbdknrrdhfdrjltvgrbkkjblcbh",
)
OTHER = "dteffujehknhfjbrjnlnldnhcujvddbikngjrtgh"
FIRST_KEY = YubiKey(bytes(6), Secret(bytes.fromhex("010203040506")), Secret(bytes(range(16)))).pack()
SECOND_KEY = YubiKey(
    bytes.fromhex("2d344e83"),
    Secret(bytes.fromhex("8792ebfe26cc")),
    Secret(bytes.fromhex("ecde18dbe76fbd0c33330f1c354871db")),
).pack()


def attempt(typed, moving_factor=0):
    held = [
        (token(Kind.YUBIOTP, id="first", moving_factor=moving_factor), FIRST_KEY),
        (token(Kind.YUBIOTP, id="second"), SECOND_KEY),
    ]
    return FakeAttempt(held, [typed])


@pytest.mark.parametrize(
    ("typed", "spent"),
    [
        (EARLY, {"first": 0x0101}),
        (LATER, {"first": 0x0102}),
        (LAST, {"first": 0xFFF01}),
        (OTHER, {"second": 0x1311}),
        (OTHER.upper(), {"second": 0x1311}),
    ],
)
def test_each_of_the_users_keys_lets_in(typed, spent):
    """The user touches either key and need not say which; usage and session counter are spent as one."""
    trying = attempt(typed)
    assert judge(YubiOtp(), trying) is Verdict.SUCCESS
    assert trying.spends == spent
    assert trying.asked == ["Verification code: "]


@pytest.mark.parametrize(("typed", "passes"), [(EARLY, False), (LATER, True), (LAST, True)])
def test_a_touch_at_or_before_the_last_one_is_refused(typed, passes):
    """After session 1 of the first usage was spent, only later touches pass."""
    trying = attempt(typed, moving_factor=0x0102)
    assert (judge(YubiOtp(), trying) is Verdict.SUCCESS) is passes
    assert bool(trying.spends) is passes


@pytest.mark.parametrize("typed", ["", "123456", OTHER[2:], OTHER[:-1] + "c", "dteffujd" + OTHER[8:], "x" * 65536])
def test_anything_else_is_refused(typed):
    """Other codes, a press that was cut or changed, a wrong public id: refused, nothing spent."""
    trying = attempt(typed)
    assert judge(YubiOtp(), trying) is Verdict.AUTH_ERR
    assert trying.spends == {}


def test_a_key_of_another_user_is_refused():
    """A right press of a key that is not among the user's is refused, and all the user's keys are tried."""
    trying = FakeAttempt([(token(Kind.YUBIOTP), SECOND_KEY)], [EARLY])
    assert judge(YubiOtp(), trying) is Verdict.AUTH_ERR
    assert [held.id for held in trying.revealed] == ["t1"]


def test_who_has_no_key_is_refused_after_the_same_question_and_work():
    """Without a key the decoy is judged."""
    trying = FakeAttempt(answers=[EARLY])
    assert judge(YubiOtp(), trying) is Verdict.AUTH_ERR
    assert (trying.asked, len(trying.revealed)) == (["Verification code: "], 1)


def test_a_code_already_given_is_not_asked_for_again():
    """One prompt serves a chain of verifiers."""
    trying = FakeAttempt([(token(Kind.YUBIOTP), SECOND_KEY)], given={"code": OTHER})
    assert judge(YubiOtp(), trying) is Verdict.SUCCESS
    assert trying.asked == []
