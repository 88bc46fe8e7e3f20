"""What every fuzzing target holds the code to, whatever the input."""

from __future__ import annotations

import traceback

PLANTED = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""The seed in the inputs that are kept, as base32."""
SEED = b"12345678901234567890"
"""The same as bytes."""
_TELLING = 8
"""So many of its characters in a row give a seed away."""

_FORMS = (PLANTED.lower(), SEED.decode(), SEED.hex())
_TRACES = {form[at : at + _TELLING] for form in _FORMS for at in range(len(form) - _TELLING + 1)}


def gives_away(text: str) -> bool:
    """Whether some of the seed stands in a text."""
    text = text.lower()
    return any(trace in text for trace in _TRACES)


def silent(error: BaseException) -> None:
    """Neither an error nor what led to it, as a log would show them, tells the seed that was planted."""
    assert not gives_away("".join(traceback.format_exception(error))), "an error tells a seed"


def text_of(data: bytes) -> str:
    """The input as text, whatever it is."""
    return data.decode(errors="replace")
