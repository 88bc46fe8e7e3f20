"""`otpbridge notify` against a daemon that a test scripts."""

from __future__ import annotations

import json

import pytest
from fake_daemon import error

from otpbridge.wire.messages import Event, Watch, WatchReply
from otpbridge.wire.service import VarlinkError

END = error("MethodNotFound")
"""What it gives up at, so that a test ends."""


def event(sequence, name="user_locked"):
    return Event(sequence=sequence, at=1.0, event=name, text="alice was locked.", client="local", user="alice")


def reply(sequence, *events):
    return WatchReply(events=events, sequence=sequence)


@pytest.fixture
def script(daemon):
    """Says what each call of Watch gets."""

    def answers(*each):
        left = iter(each)
        daemon.answers[Watch] = lambda _request: next(left)
        return daemon

    return answers


def afters(daemon):
    return [request.after for request in daemon.requests()]


def test_it_goes_on_from_where_it_was(script, otpbridge, tmp_path):
    """The first call asks for what is new; each later one for what follows the last that was handed on."""
    daemon = script([reply(4), reply(9, event(6))], [reply(9), reply(12, event(11))], END)
    result = otpbridge("notify", "--state", tmp_path / "place")
    assert [json.loads(line)["sequence"] for line in result.out.splitlines()] == [6, 11]
    assert afters(daemon) == [None, 9, 12]
    assert (tmp_path / "place").read_text() == "12\n"
    script(END)
    otpbridge("notify", "--state", tmp_path / "place")
    assert afters(daemon)[-1] == 12


def test_only_what_was_asked_for_is_handed_on(script, otpbridge):
    """Other events pass by, and are done with."""
    daemon = script([reply(4), reply(6, event(5), event(6, "user_reset"))], END)
    result = otpbridge("notify", "--only", "user_reset", "--client", "acme")
    assert [json.loads(line)["sequence"] for line in result.out.splitlines()] == [6]
    assert afters(daemon) == [None, 6]
    assert daemon.requests()[0].client == "acme"


def test_an_event_that_does_not_exist_is_refused(script, otpbridge):
    """A misspelt name is named, with the nearest: it would silence what it was meant for."""
    daemon = script(END)
    result = otpbridge("notify", "--only", "user_rest")
    assert result.code == 2
    assert "did you mean user_reset?" in result.err
    assert daemon.requests() == []


def test_a_place_that_holds_something_else_is_refused(script, otpbridge, tmp_path):
    """Another file given by mistake is left as it is."""
    script(END)
    (tmp_path / "place").write_text("precious\n")
    assert otpbridge("notify", "--state", tmp_path / "place").code == 2
    assert (tmp_path / "place").read_text() == "precious\n"


def test_a_line_that_cannot_be_written_is_not_passed_over(script, otpbridge, tmp_path):
    """Where the disk is full it ends, and the event counts as not handed on."""
    script([reply(4), reply(5, event(5))], END)
    result = otpbridge("notify", "--file", "/dev/full", "--state", tmp_path / "place")
    assert result.code == 1
    assert "No space left" in result.err
    assert (tmp_path / "place").read_text() == "4\n"


def test_who_is_refused_at_first_gives_up(script, otpbridge):
    """Without the right there is nothing to wait for; once it was there, a daemon that reloads is waited for."""
    denied = VarlinkError("org.varlink.service.PermissionDenied")
    script(denied)
    assert otpbridge("notify").code == 4
    daemon = script([reply(4), reply(4)], denied, END)
    result = otpbridge("notify")
    assert result.code == 3
    assert "Trying again" in result.err
    assert afters(daemon)[-2:] == [4, 4]
