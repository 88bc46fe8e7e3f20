"""Judge a password or PIN that otpbridge keeps itself, as an argon2id hash (RFC 9106)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerifyMismatchError

from otpbridge.errors import EnrolError
from otpbridge.model import PASSWORD, Factor, Kind, Prompt, Secret, Verdict
from otpbridge.verify.api import Attempt

PROMPT = Prompt("Password: ", answer=PASSWORD)
LONGEST = 128
"""Characters. NIST SP 800-63B asks for at least 64."""

# OWASP's parameters (Password Storage Cheat Sheet): 46 MiB, one pass, one lane.
_HASHER = PasswordHasher(time_cost=1, memory_cost=47_104, parallelism=1, hash_len=32, salt_len=16, type=Type.ID)
_AROUND = re.compile(r"[\W\d_]+")


class Password:
    """Accepts the user's password. It is not spent: it is the first factor, and a second one belongs beside it."""

    factor: ClassVar[Factor] = Factor.FIRST
    blocks: ClassVar[bool] = True
    first_prompt: ClassVar[Prompt] = PROMPT
    at_once: ClassVar[int] = 6
    """Each takes 46 MiB."""

    async def verify(self, attempt: Attempt) -> Verdict:
        """Compare the response with the user's password; it takes as long for users who have none."""
        password = await attempt.ask(PROMPT)
        passed = False
        if len(password) <= LONGEST:
            for token in attempt.tokens(Kind.PASSWORD):
                passed |= _matches(attempt.secret(token), password)
        return Verdict.SUCCESS if passed else Verdict.AUTH_ERR


def hash_password(text: str, random: Callable[[int], bytes]) -> Secret:
    """The encoded hash of a password: parameters, salt and hash. `random` gives as many bytes as it is asked for."""
    return Secret(_HASHER.hash(_prepared(text), salt=random(_HASHER.salt_len)).encode())


def check_strength(text: str, user: str, minimum: int) -> None:
    """Refuse a password that is too short, too long, or among the first to be guessed.

    `minimum` is a number of characters, as people see them. No kinds of characters are asked for (NIST SP 800-63B
    §3.1.1.2). Raises EnrolError, which says what to do and holds nothing of the password.
    """
    if len(text) > LONGEST:
        raise EnrolError(f"the password is longer than {LONGEST} characters; choose a shorter one")
    text = unicodedata.normalize("NFKC", text)
    if len(text) < minimum:
        raise EnrolError(f"the password is too short; choose one of at least {minimum} characters")
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise EnrolError("the password has a character that cannot be typed at a prompt; leave it out")
    if _is_row(text):
        raise EnrolError("the password is one character repeated, or a row such as 1234; choose another one")
    letters = _AROUND.sub("", text.casefold())
    if letters and letters in {_AROUND.sub("", name) for name in (user.casefold(), user.casefold()[::-1])}:
        raise EnrolError("the password is the user name, or little more than it; choose another one")


def _matches(encoded: Secret, password: str) -> bool:
    try:
        return _HASHER.verify(encoded.reveal(), _prepared(password))
    except VerifyMismatchError:
        return False


def _prepared(text: str) -> bytes:
    """The bytes that are hashed: NFKC, so that one password typed on two keyboards is one (NIST SP 800-63B)."""
    return unicodedata.normalize("NFKC", text).encode("utf-8", "surrogatepass")


def _is_row(text: str) -> bool:
    """Whether each character follows on the one before it, by the same step of -1, 0 or 1; after 9 comes 0."""
    modulus = 10 if text.isdecimal() else 0x110000
    steps = {(ord(after) - ord(before)) % modulus for before, after in pairwise(text)}
    return len(steps) <= 1 and steps <= {0, 1, modulus - 1}
