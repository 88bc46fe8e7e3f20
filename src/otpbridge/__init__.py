"""One second factor for Linux logins and web portals, from one sealed store."""

from __future__ import annotations

__version__ = "0.1.0"
