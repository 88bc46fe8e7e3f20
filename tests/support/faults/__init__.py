"""Faults while many clients log in: what is done, what the clients saw, and who judges it."""

from __future__ import annotations
