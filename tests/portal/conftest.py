"""One browser, daemon and portal per module, one profile per test.

Not one browser for all: what drives it has an event loop that runs while it lives, and other tests have their own.
"""

from __future__ import annotations

import pytest
from daemon_rig import private_folder
from playwright.sync_api import sync_playwright
from portal_rig import Person, Portal

SECONDS = 20.0


@pytest.fixture(scope="module")
def playwright():
    """What drives browsers."""
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(playwright):
    """Debian's chromium."""
    found = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    yield found
    found.close()


@pytest.fixture(scope="module")
def portal():
    """A daemon and a portal with the clients acme, globex and local."""
    with private_folder() as folder, Portal(folder) as running:
        yield running


@pytest.fixture
def new_page(browser):
    """Makes pages, each in a profile of its own. What a page loads is ours, and runs as its policy allows."""
    made, wrong = [], []

    def new(**options):
        context = browser.new_context(**options)
        context.set_default_timeout(SECONDS * 1000)
        made.append(context)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text) if "Content Security Policy" in said.text else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        return page

    yield new
    for context in made:
        context.close()
    assert wrong == []


@pytest.fixture
def page(new_page):
    return new_page()


@pytest.fixture
def person(portal, page):
    """Makes a user of acme with a password, at a browser of their own."""

    def make(user, client="acme", page=page):
        portal.add(user, client=client)
        return Person(portal, page, user, client)

    return make
