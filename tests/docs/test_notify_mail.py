"""The example of a hook that mails, run as it is printed; only sendmail is another."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from email import message_from_string
from pathlib import Path

import pytest

from otpbridge.model import Happening

DOCS = Path(__file__).resolve().parents[2] / "docs"
EVENT = {
    "sequence": 7,
    "event": "user_locked",
    "text": "alice was locked.",
    "client": "local",
    "by": 0,
    "service": None,
    "rhost": None,
}


@pytest.fixture
def mailed(tmp_path):
    """What the hook mails of an event."""
    if shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    (tmp_path / "sendmail").write_text(f'#!/bin/sh\nprintf "%s " "$@" > {tmp_path}/options\ncat > {tmp_path}/mail\n')
    (tmp_path / "sendmail").chmod(0o755)
    hook = tmp_path / "notify"
    text = (DOCS / "examples/notify-mail.sh").read_text()
    hook.write_text(text.replace("/usr/sbin/sendmail", f"{tmp_path}/sendmail"))

    def run(event):
        subprocess.run(["sh", hook], input=json.dumps(event), text=True, check=True, cwd="/")
        assert (tmp_path / "options").read_text() == "-t -oi "
        return message_from_string((tmp_path / "mail").read_text())

    return run


def test_an_event_becomes_a_mail(mailed):
    """The helpdesk reads what happened, to whom and where."""
    mail = mailed(EVENT)
    assert (mail["To"], mail["Subject"]) == ("helpdesk@example.com", "otpbridge: user_locked")
    assert mail.get_payload().startswith("alice was locked.\n")
    assert "by uid 0, service -, from -" in mail.get_payload()


def test_a_name_steers_neither_the_mail_nor_the_shell(mailed, tmp_path):
    """Line ends, quotes and commands in what people chose stay text of the body."""
    evil = f"x'\"$(touch {tmp_path}/pwned)`touch {tmp_path}/pwned`\nBcc: all@example.com"
    mail = mailed(EVENT | {"text": evil, "event": f"user_locked\r\nBcc: all@example.com {evil}", "service": evil})
    assert mail["Bcc"] is None
    assert mail["Subject"].startswith("otpbridge: user_locked  Bcc: all@example.com")
    assert not (tmp_path / "pwned").exists()
    assert f"$(touch {tmp_path}/pwned)" in mail.get_payload()


@pytest.mark.parametrize("page", ["notices.md", "man/otpbridge-notify.1"])
def test_the_pages_have_every_event(page):
    """Whoever writes a hook finds each event that it may get, and no other."""
    text = (DOCS / page).read_text()
    part = text.partition("## What a hook gets")[2].partition("| event |")[2] if page.endswith("md") else text
    words = (
        re.findall(r"`(\w+)`(?=[^|]*\|[^|]+\|)", part) if page.endswith("md") else re.findall(r"Ql (\w+_\w+)", text)
    )
    assert {word for word in words if "_" in word} == {happening.value for happening in Happening}
