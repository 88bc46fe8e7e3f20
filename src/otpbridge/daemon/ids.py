"""Names for new tokens."""

from __future__ import annotations

import base64
from collections.abc import Callable


def new_token_id(random: Callable[[int], bytes]) -> str:
    """A name for a token: 16 letters and digits, no secret, never given twice."""
    return base64.b32encode(random(10)).decode().lower()
