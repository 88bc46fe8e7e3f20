"""Read a code as people type it."""

from __future__ import annotations

LONGEST = 64
"""Characters after which input is refused unread."""

_ENDS = " "
_BETWEEN = str.maketrans("", "", " -")


def parse_code(text: str, digits: int) -> int | None:
    """Read `digits` ASCII digits as a number; None when `text` is anything else.

    Authenticators show codes in groups, so spaces and dashes may stand between digits and spaces around them.
    All else is refused the same way: other digits (full-width, Arabic-Indic), signs, tabs, line ends, a digit
    too many or too few. Two spellings of one code give one number, so a spelling is never a second code.
    """
    if len(text) > LONGEST:
        return None
    text = text.strip(_ENDS)
    if text.startswith("-") or text.endswith("-"):
        return None
    text = text.translate(_BETWEEN)
    if len(text) != digits or not text.isascii() or not text.isdigit():
        return None
    return int(text)
