"""The reference portal: pages for people in a browser, a caller of the socket like any other."""

from __future__ import annotations
