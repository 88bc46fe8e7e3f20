"""Password and code in one string, for programs that have one field: where may the code be?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

YUBICO_OTP = 44
"""Characters of a Yubico OTP with the public id that keys leave the factory with."""

_DIGITS = (6, 7, 8)


@dataclass(frozen=True, slots=True)
class Split:
    """One way to read an answer: the code is the `length` characters from `start`, the rest is the password."""

    text: str
    start: int
    length: int

    def __repr__(self) -> str:
        return f"Split({self.start}, {self.length})"

    @property
    def code(self) -> str:
        """The code; empty where there is none."""
        return self.text[self.start : self.start + self.length]

    @property
    def password(self) -> str:
        """All that is not the code."""
        return self.text[: self.start] + self.text[self.start + self.length :]

    @property
    def span(self) -> tuple[int, int]:
        """Start and length in bytes of UTF-8."""
        return len(self.text[: self.start].encode()), len(self.code.encode())


def whole(text: str) -> Split:
    """The answer is a password and nothing else."""
    return Split(text, len(text), 0)


def splits(text: str, digits: Iterable[int] = _DIGITS) -> list[Split]:
    """The ways to read an answer, the likeliest first: a Yubico OTP or digits at its end, else at its start.

    `digits` are the lengths that codes may have.
    """
    found: list[Split] = []
    shapes = [rf"[cbdefghijklnrtuv]{{{YUBICO_OTP}}}", *(rf"[0-9]{{{length}}}" for length in sorted(set(digits)))]
    for pattern in [rf"{shape}\Z" for shape in shapes] + [rf"\A{shape}" for shape in shapes]:
        match = re.search(pattern, text)
        if match is not None:
            split = Split(text, match.start(), match.end() - match.start())
            if split not in found:
                found.append(split)
    return found
