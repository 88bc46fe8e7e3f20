"""The verifier of passwords that otpbridge keeps."""

from __future__ import annotations

import os

import argon2
import pytest
from fake_attempt import FakeAttempt, judge, token

from otpbridge.errors import EnrolError
from otpbridge.model import Factor, Kind, Secret, Verdict
from otpbridge.verify.builtin import password
from otpbridge.verify.builtin.password import LONGEST, Password, check_strength, hash_password

RIGHT = "correct horse battery"


def attempt(typed, encoded):
    return FakeAttempt([(token(Kind.PASSWORD), encoded)], [typed])


@pytest.fixture(scope="module")
def encoded():
    return hash_password(RIGHT, os.urandom)


def test_the_right_password_passes_and_nothing_is_spent(encoded):
    """A password is asked for without showing it and is good for the next time too."""
    trying = attempt(RIGHT, encoded)
    assert judge(Password(), trying) is Verdict.SUCCESS
    assert (trying.asked, trying.spends, trying.notices) == (["Password: "], {}, [])


@pytest.mark.parametrize("typed", ["", "Correct horse battery", RIGHT + " ", RIGHT + "\0", "x" * 65536, "\ud800"])
def test_another_password_is_refused(typed, encoded):
    """Another case, a blank more, nothing at all, far too much, half a character: refused."""
    assert judge(Password(), attempt(typed, encoded)) is Verdict.AUTH_ERR


@pytest.mark.parametrize("place", [0, 1])
def test_either_of_two_passwords_passes(place, encoded):
    """Where a password is being replaced, each is compared, whichever comes first."""
    held = [(token(Kind.PASSWORD, id="other"), hash_password("another one", os.urandom))]
    held.insert(place, (token(Kind.PASSWORD), encoded))
    trying = FakeAttempt(held, [RIGHT])
    assert judge(Password(), trying) is Verdict.SUCCESS
    assert len(trying.revealed) == 2


def test_the_answer_to_the_code_prompt_is_not_the_password(encoded):
    """A code that was given is no password: it is asked for on its own."""
    trying = FakeAttempt([(token(Kind.PASSWORD), encoded)], ["wrong"], given={"code": RIGHT})
    assert judge(Password(), trying) is Verdict.AUTH_ERR
    assert trying.asked == ["Password: "]


def test_a_password_typed_on_another_keyboard_is_the_same():
    """Composed or decomposed, half-width or full-width: one password (NFKC)."""
    encoded = hash_password("pa\u0308ssword\uff11", os.urandom)
    assert judge(Password(), attempt("p\u00e4ssword1", encoded)) is Verdict.SUCCESS


def test_hashes_with_other_parameters_still_pass():
    """A hash made before the parameters were changed is verified with its own."""
    for hasher in (
        argon2.PasswordHasher(time_cost=2, memory_cost=64, parallelism=2),
        argon2.PasswordHasher(8, 64, 1),
    ):
        old = hasher.hash(RIGHT).encode()
        assert judge(Password(), attempt(RIGHT, old)) is Verdict.SUCCESS
        assert judge(Password(), attempt("wrong", old)) is Verdict.AUTH_ERR


def test_new_hashes_are_argon2id_with_the_parameters_of_owasp(encoded):
    """46 MiB, one pass; every hash has a salt of its own; it does not show."""
    assert encoded.reveal().startswith(b"$argon2id$v=19$m=47104,t=1,p=1$")
    assert hash_password(RIGHT, os.urandom).reveal() != encoded.reveal()
    assert repr(encoded) == "Secret(***)"


def test_a_damaged_hash_passes_nobody():
    """What is no hash raises, which refuses; it does not pass as an empty password."""
    with pytest.raises(argon2.exceptions.InvalidHashError):
        judge(Password(), attempt("", Secret(b"")))


def test_who_has_no_password_costs_as_much(monkeypatch, encoded):
    """Without a password the decoy is verified, once and with the same parameters, and never passes."""
    verified = []
    verify = argon2.PasswordHasher.verify

    def counting(self, hash_, typed):
        verified.append(argon2.extract_parameters(hash_.decode()))
        return verify(self, hash_, typed)

    monkeypatch.setattr(argon2.PasswordHasher, "verify", counting)
    assert judge(Password(), FakeAttempt(answers=[RIGHT])) is Verdict.AUTH_ERR
    assert judge(Password(), attempt("wrong", encoded)) is Verdict.AUTH_ERR
    assert len(verified) == 2
    assert verified[0] == verified[1]


def test_it_is_a_first_factor():
    """Policy asks for a password whatever it says of the second factor."""
    assert Password.factor is Factor.FIRST


@pytest.mark.parametrize(
    "text",
    [RIGHT, "Tr0ub4dor&3", "27182818", "пароль-слон", "alice in wonderland", "aaaaaaab", "12345679", "x" * 100 + "y"],
)
def test_passwords_without_special_rules_are_taken(text):
    """Length counts; no upper case, digit or sign is asked for."""
    check_strength(text, "alice", 8)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pa5s", "at least 8 characters"),
        ("", "at least 8 characters"),
        ("e\u0301" * 5, "at least 8 characters"),
        ("ab12" * 40, f"longer than {LONGEST} characters"),
        ("aaaaaaaa", "row"),
        ("12345678", "row"),
        ("87654321", "row"),
        ("1234567890", "row"),
        ("abcdefgh", "row"),
        ("alexandra", "user name"),
        ("ALEXANDRA", "user name"),
        ("alexandra2026!", "user name"),
        ("ardnaxela", "user name"),
        ("correct\thorse", "cannot be typed"),
    ],
)
def test_the_passwords_that_are_guessed_first_are_refused(text, why):
    """Too short, too long, one character, a row, the user's name: the error says so without the password."""
    with pytest.raises(EnrolError, match=why) as raised:
        check_strength(text, "alexandra", 8)
    assert not text or text not in str(raised.value)


def test_the_name_of_a_user_without_letters_rules_nothing_out():
    """A user called 1000 may have a password of signs."""
    check_strength("!?!?!?!?==", "1000", 8)


def test_every_password_that_may_be_set_can_be_typed_back():
    """The longest password that is taken is also verified."""
    text = "\u0301x" * (LONGEST // 2)
    check_strength(text, "alice", 8)
    assert judge(Password(), attempt(text, hash_password(text, os.urandom))) is Verdict.SUCCESS
    assert password.LONGEST >= 64
