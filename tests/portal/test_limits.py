"""What ends by itself: sessions, pictures, questions to keys; and how far a portal with a user of its own comes."""

from __future__ import annotations

import pytest
from daemon_rig import as_user, need_root, plain_user, private_folder
from portal_rig import DAEMON, Plain, Portal

from otpbridge.portal.pictures import Pictures
from otpbridge.portal.sessions import Asked, Sessions
from otpbridge.portal.waiting import Waiting


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def sessions(clock):
    """Sessions that end after a minute without a click or an hour, three at a time; `sessions.gone` are who ended."""
    gone = []
    made = Sessions(idle=60, absolute=3600, most=3, clock=clock, ended=lambda session: gone.append(session.user))
    made.gone = gone
    return made


def test_a_session_ends_when_nobody_clicks(sessions, clock):
    """Each click starts the time anew."""
    name, session = sessions.start("acme", "alice", by_token=False)
    for _ in range(5):
        clock.now += 59
        assert sessions.find(name, "acme") is session
    clock.now += 60
    assert sessions.find(name, "acme") is None
    assert sessions.gone == ["alice"]


def test_a_session_ends_however_busy_it_is(sessions, clock):
    """After the absolute time."""
    name, _ = sessions.start("acme", "alice", by_token=False)
    for _ in range(3600 // 50 - 1):
        clock.now += 50
        assert sessions.find(name, "acme") is not None
    clock.now += 50
    assert sessions.find(name, "acme") is None


def test_sessions_are_bounded_and_the_idlest_makes_room(sessions, clock):
    """Also those whose time is up without anybody coming back to them are let go."""
    names = {user: sessions.start("acme", user, by_token=False)[0] for user in ("alice", "bob", "cora")}
    clock.now += 1
    sessions.find(names["alice"], "acme")
    sessions.start("acme", "dora", by_token=False)
    assert sessions.gone == ["bob"]
    clock.now += 100
    sessions.start("acme", "eva", by_token=False)
    assert len(sessions) == 1


def test_nobody_pushes_the_others_out_by_logging_in(clock):
    """A user has 32 sessions at most; the one that is too many ends that user's idlest."""
    gone = []
    sessions = Sessions(idle=60, absolute=3600, most=40, clock=clock, ended=gone.append)
    other, _ = sessions.start("acme", "bob", by_token=False)
    names = [sessions.start("acme", "alice", by_token=False)[0] for _ in range(50)]
    assert sessions.find(other, "acme") is not None
    assert [sessions.find(name, "acme") is not None for name in names] == [False] * 18 + [True] * 32
    assert {session.user for session in gone} == {"alice"}


def test_a_session_is_found_at_its_own_client_alone(sessions):
    """And is not ended by who tries it elsewhere."""
    name, session = sessions.start("acme", "alice", by_token=False)
    assert sessions.find(name, "globex") is None
    assert sessions.find(name, "acme") is session
    assert sessions.find("", "acme") is None


def test_nothing_of_a_session_shows_in_its_repr(sessions):
    """Tracebacks and logs hold no form tokens."""
    _, session = sessions.start("acme", "alice", by_token=False)
    assert session.csrf not in repr(session)


def test_a_picture_dies_after_its_time(clock):
    """After the usual time, or when the token's is over, if that is earlier."""
    pictures = Pictures(300, clock)
    long, short = pictures.keep("acme", "alice", b"1", 600), pictures.keep("acme", "bob", b"2", 100)
    clock.now += 99
    assert (pictures.find("acme", long), pictures.find("acme", short)) == (b"1", b"2")
    clock.now += 1
    assert (pictures.find("acme", long), pictures.find("acme", short)) == (b"1", None)
    clock.now += 200
    assert pictures.find("acme", long) is None


class Talk:
    """A conversation that says whether it was given up."""

    given_up = False

    def cancel(self):
        self.given_up = True


def test_a_key_is_waited_for_a_while_and_answers_once(clock):
    """What waits is given up when its time is over, and when the same browser asks again."""
    waiting, talks = Waiting(clock), [Talk() for _ in range(3)]
    for talk in talks[:2]:
        waiting.put("browser", Asked(talk, "alice", "{}", clock.now + 150))
    assert talks[0].given_up
    assert waiting.take("browser").talk is talks[1]
    assert waiting.take("browser") is None
    waiting.put("browser", Asked(talks[2], "alice", "{}", clock.now + 150))
    clock.now += 150
    assert waiting.take("browser") is None
    assert talks[2].given_up


@pytest.mark.system
def test_a_portal_with_the_rights_of_the_guide_does_all_of_it_for_its_clients():
    """As a user of its own, named as a caller of one client: another client, though it has pages, is out of reach."""
    need_root()
    user = plain_user()
    caller = (
        f'[[callers]]\nuser = {user.pw_uid}\nclients = ["acme"]\nmay = ["verify", "enrol", "manage", "notices"]\n'
    )
    prefix = as_user(user.pw_uid, user.pw_gid)
    with private_folder() as folder, Portal(folder, config=caller + DAEMON, prefix=prefix) as portal:
        boss = Plain(portal)
        assert boss.log_in("boss") == 303
        form = {"form": boss.token(), "name": "alice", "new": "alice"}
        assert boss.post("/users", form)[0] == 303
        assert b"alice" in boss.get("/users")[2]
        assert boss.post("/user/security-token", form)[0] == 200
        assert b"Registration code of alice" in boss.post("/user/invite", form)[2]
        assert boss.post("/user/reset", form)[0] == 303
        assert b"Reset by an administrator" in boss.get("/user/activity?name=alice")[2]
        assert Plain(portal, "globex").log_in("boss") == 503
        assert not any("notices" in line for line in portal.log)
