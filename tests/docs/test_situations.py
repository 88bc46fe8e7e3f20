"""Each page in docs/situations, done as written: its files, its commands, and what people are said to see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from daemon_rig import private_folder
from sshdstack import need_machine
from walkthrough import ROOT, Walk, blocks, need_programs

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

SITUATIONS = ROOT / "docs/situations"
PAGES = sorted(SITUATIONS.glob("*.md"))
PASSWORDS = {
    "alice": "correct horse 12",
    "bob": "battery staple",
    "carol": "tr0ub4dor and 3",
    "dave": "plain old password",
    "erin": "seven silver spoons",
    "dora": "twelve or more letters",
    "deploy": "never typed by hand",
    "shop": "not used either",
}
SUDOERS = "Defaults !lecture, passwd_tries=1\n%staff ALL=(ALL:ALL) ALL\n"
GROUPS = "staff:x:50:alice,bob,carol,erin\nautomation:x:3999:deploy\n"
RUN = {"sh", "console", "toml", "py"}


def name(page: Path) -> str:
    return page.stem


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_page_holds_what_it_says(page: Path):
    """From the first command to the last, on a machine with sshd, sudo and the daemon."""
    need_machine()
    if not need_programs():
        pytest.skip("sudo or su is not installed")
    with private_folder() as folder:
        walk = Walk(page, folder, PASSWORDS, SUDOERS, GROUPS)
        walk.go()
    assert walk.terminals >= 3


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_block_is_left_out(page: Path):
    """Every fenced block says what it is; only a screen of another program may not be run."""
    fences = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)
    assert len(fences) == 2 * len(blocks(page))
    assert [block for block in blocks(page) if block.kind not in RUN and not block.about] == []


def test_every_situation_is_in_the_index():
    """docs/README.md names each page."""
    index = (ROOT / "docs/README.md").read_text()
    assert PAGES
    for page in PAGES:
        assert f"](situations/{page.name})" in index
