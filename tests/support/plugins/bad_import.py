"""A module that cannot be imported."""

from __future__ import annotations

raise ValueError("secret-of-the-package")
