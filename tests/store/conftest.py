"""Tests of the store are run on both databases, unless they say that they are about one."""

from __future__ import annotations

import pytest
from storerig import backend


def pytest_generate_tests(metafunc):
    """Run a test once for each database that it is about (see storerig.only and BACKENDS of a module)."""
    names = getattr(metafunc.module, "BACKENDS", ("sqlite", "postgresql"))
    names = getattr(metafunc.function, "backends", names)
    metafunc.parametrize("_backend", names, indirect=True)


@pytest.fixture(autouse=True)
def _backend(request):
    if request.param == "sqlite":
        yield
        # A test may have put another in its place.
        backend.url = backend.beside
        return
    from pgcluster import cluster

    server = cluster()
    made = {}

    def url(folder):
        if folder not in made:
            made[folder] = server.create()
        return server.url(made[folder])

    backend.url = url
    yield
    backend.url = backend.beside
    for name in made.values():
        server.give_back(name)
