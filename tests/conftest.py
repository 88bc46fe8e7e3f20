"""The order of all tests: long ones first, so that no core stands idle at the end while another is at one of them."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the short forms of long runs and of measurements before the rest, which keeps the order that it has."""
    items.sort(key=lambda item: item.get_closest_marker("campaign") is None and "benchmarks" not in item.path.parts)
