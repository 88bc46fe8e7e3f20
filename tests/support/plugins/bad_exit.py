"""A script without a guard."""

from __future__ import annotations

import sys

sys.exit(3)
