"""`otpbridge yubikey provision` with virtual keys and a real daemon: a batch, and everything that cuts it in two."""

from __future__ import annotations

import base64
import csv
import json
import os
import random
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

import pytest
from real_daemon import MAIN, real_daemon
from terminal import Terminal

from otpbridge.cli.exits import CommandError
from otpbridge.cli.provision import people
from otpbridge.cli.provision.people import Fault, UnsoundError, Usual
from otpbridge.cli.provision.records import Begun, Records
from otpbridge.client import Client
from otpbridge.model import Kind
from otpbridge.wire import messages

_SECONDS = 60


class Desk:
    """A folder with a list of people and its result, and the daemon beside it."""

    def __init__(self, folder):
        self.folder = folder
        self.run = folder / "run"
        self.list = folder / "people.csv"
        self.result = folder / "people-keys.csv"
        self.journal = folder / "people-keys.csv.journal"

    def people(self, *lines, heading="user"):
        """Write the list."""
        self.list.write_text("".join(f"{line}\n" for line in (heading, *lines)))

    def command(self, *options):
        """What is typed."""
        return ["--run-dir", str(self.run), "yubikey", "provision", str(self.list), *map(str, options)]

    def rows(self):
        """The result."""
        with self.result.open() as file:
            return list(csv.DictReader(file))

    def tokens(self):
        """Every token of the daemon that is not revoked."""
        with Client(run_dir=self.run, admin=True) as daemon:
            return [token for reply in daemon.stream(messages.ListTokens()) for token in reply.tokens]

    def enrol(self, *arguments):
        """Another command, which works."""
        done = subprocess.run(
            [*MAIN, "--run-dir", self.run, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            input="",
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def desk(rig):
    """A desk with a daemon of its own."""
    folder = Path(mkdtemp(prefix="otpb-"))
    try:
        with real_daemon(folder):
            yield Desk(folder)
    finally:
        shutil.rmtree(folder)


class Station:
    """The command, with its lines as they come."""

    def __init__(self, desk, *options, before=""):
        program = f"{before}\nfrom otpbridge.cli.main import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program, *desk.command(*options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._rest = b""
        self.said = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._process.stdin.close()

    def type(self, text):
        """What a key types; None: nothing any more."""
        if text is None:
            self._process.stdin.close()
            return
        self._process.stdin.write(f"{text}\n".encode())
        self._process.stdin.flush()

    def line(self, seconds=_SECONDS):
        """The next line; None at the end, or where none comes for so long."""
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], seconds)
            if not ready:
                return None
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                return None
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        self.said.append(line.decode())
        return self.said[-1]

    def wait_for(self, *words):
        """Read on until a line has all these words."""
        while (line := self.line()) is not None:
            if all(word in line for word in words):
                return line
        raise AssertionError(f"no line with {words}: {self.said}")

    def kill(self):
        """As a power cut does."""
        self._process.kill()
        self._process.wait()

    def interrupt(self):
        """As Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    @property
    def ended(self):
        """Whether it is over."""
        return self._process.poll() is not None

    def finish(self):
        """Read to the end; the exit code."""
        while self.line() is not None:
            pass
        assert select.select([self._process.stdout], [], [], 0)[0], f"it does not end: {self.said}"
        assert not any("Traceback" in line for line in self.said), self.said
        return self._process.wait(_SECONDS)


def out(rig, key):
    """Pull a key, and wait until the station has looked: hands are slower than that."""
    rig.unplug(key)
    rig.looked()


def whole(desk, *options):
    """Run it to its end, for all."""
    with Station(desk, *options) as station:
        assert station.finish() == 0, station.said
    return station.said


def totp(credential, at):
    """What oathtool computes from what is really on a key."""
    secret = base64.b32encode(credential.secret).decode()
    options = [f"--totp={credential.algorithm}", "-b", "-d", str(credential.digits), "-N", f"@{int(at)}", "-"]
    return subprocess.run(
        ["oathtool", *options], input=secret, capture_output=True, text=True, check=True
    ).stdout.strip()


def all_is_well(desk, users, keys):
    """Each user has one token in force, on one key, whose codes let in; nothing else is on a key or in the store."""
    tokens = desk.tokens()
    assert sorted(token.user for token in tokens) == sorted(users)
    assert {token.state.value for token in tokens} == {"active"}
    assert {(row["serial"], row["user"], row["token"]) for row in desk.rows()} == {
        (token.serials[0], token.user, token.id) for token in tokens
    }
    assert len(desk.rows()) == len(users)
    assert not desk.journal.exists()
    owners = {token.serials[0]: token for token in tokens}
    assert len(owners) == len(tokens)
    for key in keys:
        if str(key.serial) not in owners:
            assert key.credentials == [], key
            continue
        user = owners[str(key.serial)].user
        (credential,) = key.credentials
        assert credential.id.decode().endswith(f":{user}")
        # The code that proved the key is spent; where a time step ended meanwhile, the next one is too far ahead.
        now = time.time()
        with Client(run_dir=desk.run) as daemon:
            assert any(daemon.verify(user, totp(credential, at)) for at in (now + 30, now)), (key, user)


# --- who gets which ---


def test_each_key_says_whose_it_is(rig, desk):
    """Two keys at once, and a third: the result, what is on the key and what was said agree. No seed is anywhere."""
    desk.people("alice", "bob", "carol")
    first, second = rig.plug(serial=1111111), rig.plug(serial=2222222, version=(5, 4, 3))
    with Station(desk) as station:
        for _ in range(2):
            station.wait_for("Pull it out")
        out(rig, first)
        third = rig.plug(serial=3333333)
        assert station.finish() == 0
    all_is_well(desk, ["alice", "bob", "carol"], [first, second, third])
    said = "\n".join(station.said)
    for row in desk.rows():
        assert f"{row['serial']} is {row['user']}'s: token {row['token']}" in said
    written = said + "".join(path.read_text() for path in desk.folder.glob("people*"))
    for key in (first, second, third):
        seed = key.credentials[0].secret
        for form in (seed.hex(), base64.b32encode(seed).decode()):
            assert form not in written


def test_a_key_named_in_the_list_goes_to_its_person(rig, desk):
    """Whoever comes first, and whichever key; a key that is nobody's is told so."""
    desk.people("alice,", "bob,2222222", "carol,3333333", heading="user,serial")
    second = rig.plug(serial=2222222)
    with Station(desk) as station:
        station.wait_for("2222222 is bob's")
        first = rig.plug(serial=1111111)
        station.wait_for("1111111 is alice's")
        rig.plug(serial=4444444)
        station.wait_for("4444444", "have a key of their own")
        third = rig.plug(serial=3333333)
        assert station.finish() == 0
    all_is_well(desk, ["alice", "bob", "carol"], [first, second, third])


def test_a_key_that_is_done_is_recognised(rig, desk):
    """In the same run and in the next one; it is not written to again, and nobody else gets it."""
    desk.people("alice", "bob")
    key = rig.plug(serial=1111111)
    with Station(desk) as station:
        station.wait_for("is alice's: token")
        other = rig.plug(serial=9999999, oath=False)
        station.wait_for("9999999", "OATH application", "switched off")
        out(rig, key)
        # The second change is seen in any case, and the first one with it.
        out(rig, other)
        rig.insert(key)
        station.wait_for("1111111: it is alice's already")
        station.interrupt()
        assert station.finish() == 130
    puts = [entry for entry in key.log if entry.name == "PUT"]
    with Station(desk) as station:
        station.wait_for("1111111: it is alice's already")
        second = rig.plug(serial=2222222)
        assert station.finish() == 0
    assert [entry for entry in key.log if entry.name == "PUT"] == puts
    all_is_well(desk, ["alice", "bob"], [key, second])


def test_keys_that_are_in_use_are_not_taken(rig, desk):
    """One on which somebody's token is in force, and one that holds such an account; the person gets the next."""
    used, strange, new = rig.plug(serial=1111111), rig.plug(serial=2222222), rig.plug(serial=3333333)
    desk.enrol("yubikey", "enroll", "zoe", "--serial", 1111111)
    strange.add("Example:alice", bytes(20))
    rig.unplug(new)
    desk.people("alice")
    with Station(desk, "--issuer", "Example") as station:
        told = [station.wait_for("1111111", "no new key"), station.wait_for("2222222")]
        while not any("holds an account Example:alice already" in line for line in told):
            told.append(station.line())
        assert any("of zoe is on it" in line for line in station.said)
        rig.insert(new)
        assert station.finish() == 0
    assert [credential.secret for credential in strange.credentials] == [bytes(20)]
    assert len(used.credentials) == 1
    assert [row["serial"] for row in desk.rows()] == ["3333333"]


def test_who_has_a_key_is_left_out(rig, desk):
    """Even where the result is gone: nobody gets two, and it is said what to do."""
    rig.plug(serial=1111111)
    desk.enrol("yubikey", "enroll", "alice")
    rig.plug(serial=2222222)
    desk.people("alice", "bob")
    with Station(desk) as station:
        assert station.finish() == 1
    assert any("alice gets none: key 1111111 is theirs already" in line for line in station.said)
    assert [(row["serial"], row["user"]) for row in desk.rows()] == [("2222222", "bob")]
    assert len(desk.tokens()) == 2


def test_who_cannot_be_enrolled_holds_up_nobody(rig, desk):
    """What the daemon refuses is told with the name, and the key goes to the next one."""
    desk.people(f"{'ü' * 31}", "bob")
    key = rig.plug(serial=1111111)
    with Station(desk, "--json") as station:
        assert station.finish() == 1
    answer = json.loads(next(line for line in station.said if line.startswith("{")))
    assert [row["user"] for row in answer["done"]] == ["bob"]
    assert len(answer["left_out"]) == 1
    assert len(key.credentials) == 1
    assert [token.user for token in desk.tokens()] == ["bob"]


# --- the list ---


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("user\n", 1, "empty"),
        ("user,name\nalice,Alice\n", 1, "no column 'name'"),
        ("label\nalice\n", 1, "no column 'user'"),
        ("user,user\nalice,bob\n", 1, "twice"),
        ("user,serial\nalice\n", 2, "1 cells"),
        ("user,serial\nalice,1,2\n", 2, "3 cells"),
        ("user\nalice\n\nbob\nalice\n", 5, "line 2 already"),
        ("user,serial\nalice,7\nbob,7\n", 3, "line 2 already"),
        ("user,serial\nalice,12a\n", 2, "no serial number"),
        ("user,serial\nalice,0\n", 2, "no serial number"),
        ("user,label\nalice,15/foo\n", 2, "back differently"),
        ("user,label\nalice,a:b\n", 2, "misread"),
        ("user,label\nalice, b\n", 2, "space"),
        ("user\na\x1bb\n", 2, "cannot be shown"),
        ("user\n" + "ü" * 32 + "\n", 2, "64 bytes"),
        ("user,issuer\nalice," + "i" * 60 + "\n", 2, "66"),
        ("user,client\nalice,A B\n", 2, "no client"),
        ("user,kind\nalice,fido2\n", 2, "no kind"),
        ("user,algorithm\nalice,md5\n", 2, "no hash"),
        ("user,digits\nalice,9\n", 2, "6, 7 or 8"),
        ('user\n"alice\n', 2, "no CSV"),
    ],
)
def test_a_fault_in_the_list_is_told_with_its_line(text, line, words):
    """And what to do; nothing is taken of such a list."""
    with pytest.raises(UnsoundError) as caught:
        people.read(text, Usual(Kind.TOTP))
    (fault,) = caught.value.faults
    assert fault.line == line
    assert words in fault.reason


def test_all_faults_are_told_at_once():
    """In the order of their lines."""
    with pytest.raises(UnsoundError) as caught:
        people.read("user;serial\nalice;x\nbob;7\nbob;7\n", Usual(Kind.TOTP))
    assert [fault.line for fault in caught.value.faults] == [2, 4, 4]
    assert isinstance(caught.value.faults[0], Fault)


def test_a_list_is_read_as_spreadsheets_write_it():
    """A mark at the start, semicolons, quotes, lines that end as in Windows, empty ones between."""
    read = people.read('\ufeffUser;Serial;Kind\r\n"al;ice";7;HOTP\r\n;;\r\nbob;;\r\n', Usual(Kind.TOTP))
    assert [(person.user, person.serial, person.kind) for person in read] == [
        ("al;ice", 7, Kind.HOTP),
        ("bob", None, Kind.TOTP),
    ]


def test_nothing_starts_before_the_list_is_sound(rig, desk):
    """No result, no token, nothing on the key; a check of a sound list starts nothing either."""
    key = rig.plug()
    desk.people("alice", "alice")
    with Station(desk) as station:
        assert station.finish() == 2
    assert "line 3: alice stands in line 2 already; remove one of the two" in station.said
    desk.people("alice")
    with Station(desk, "--check") as station:
        assert station.finish() == 0
    assert "alice: any key" in station.said
    assert (key.log, desk.tokens()) == ([], [])
    assert not desk.result.exists()


def test_a_list_for_slots_takes_what_slots_compute():
    """Yubico OTP where nothing is said; no clock, SHA1 alone, 6 or 8 digits; names need not fit an account."""
    (person, other) = people.read("user,kind\n15/foo,\nbob,hotp\n", Usual(Kind.YUBIOTP, slot=2))
    assert (person.kind, other.kind) == (Kind.YUBIOTP, Kind.HOTP)
    for text, words in [
        ("kind\na,totp", "no kind"),
        ("algorithm\na,SHA256", "SHA1"),
        ("kind,digits\na,hotp,7", "6 or 8"),
    ]:
        with pytest.raises(UnsoundError) as caught:
            people.read(f"user,{text}\n", Usual(Kind.YUBIOTP, slot=2))
        assert words in caught.value.faults[0].reason


# --- slots ---


@pytest.mark.parametrize("kind", ["yubiotp", "hotp"])
def test_slots_are_called_for_one_by_one(rig, desk, kind):
    """Each key by its serial number and person; a touch of the wrong one is told and puts nothing in force."""
    desk.people("alice", "bob")
    keys = {key.serial: key for key in (rig.plug(serial=1111111), rig.plug(serial=2222222))}
    with Station(desk, "--slot", 2, "--kind", kind) as station:
        first = keys[int(station.wait_for("Touch YubiKey 5 NFC", "hold it for 3 seconds").split()[4])]
        station.type("cccccc" if kind == "yubiotp" else "12345")
        station.wait_for(f"Touch YubiKey 5 NFC {first.serial}", "not its code")
        station.type(first.press(2).strip())
        station.wait_for(f"{first.serial} is")
        second = keys[int(station.wait_for("Touch YubiKey 5 NFC").split()[4])]
        assert first is not second
        station.type(second.press(2).strip())
        assert station.finish() == 0
    with Client(run_dir=desk.run) as daemon:
        for row in desk.rows():
            assert daemon.verify(row["user"], keys[int(row["serial"])].press(2).strip())


def test_a_slot_that_was_not_touched_is_emptied(rig, desk):
    """At the end of standard input and after a power cut; one that held something is left alone."""
    desk.people("alice")
    taken = rig.plug(serial=1111111)
    taken.program(2, secret=bytes(16), fixed=b"\1" * 6)
    with Station(desk, "--slot", 2) as station:
        station.wait_for("1111111 (alice): slot 2", "--force")
        key = rig.plug(serial=2222222)
        station.wait_for("Touch YubiKey 5 NFC 2222222")
        assert key.slots[2] is not None
        station.kill()
    rig.unplug(taken)
    with Station(desk, "--slot", 2) as station:
        station.wait_for("Touch YubiKey 5 NFC 2222222")
        station.type(None)
        assert station.finish() == 1
    assert (key.slots[2], desk.tokens(), desk.journal.exists()) == (None, [], False)
    assert taken.slots[2].fixed == b"\1" * 6


# --- what goes wrong ---


@pytest.mark.parametrize("executed", [False, True])
def test_a_key_that_is_pulled_is_cleared_when_it_comes_back(rig, desk, executed):
    """Its person gets another one at once, the pulled one is cleared first and then somebody's."""
    desk.people("alice", "bob")
    first = rig.plug(serial=1111111)
    rig.pull(first, at="PUT", executed=executed)
    with Station(desk) as station:
        told = station.wait_for("1111111", "pulled out before it was done")
        assert "put it in again, and it is taken off" in told
        assert desk.tokens() == []
        assert desk.journal.exists()
        second = rig.plug(serial=2222222)
        station.wait_for("2222222 is alice's")
        rig.insert(first)
        station.wait_for("1111111 is bob's")
        assert station.finish() == 0
    all_is_well(desk, ["alice", "bob"], [first, second])


def test_a_key_that_never_comes_back_is_named(rig, desk):
    """At the end of the run, and of the next one; as soon as it is there it is cleared."""
    desk.people("alice")
    first = rig.plug(serial=1111111)
    rig.pull(first, at="CALCULATE")
    with Station(desk) as station:
        station.wait_for("pulled out")
        second = rig.plug(serial=2222222)
        assert station.finish() == 1
    assert any("key 1111111 may hold what was begun for alice" in line for line in station.said)
    assert len(first.credentials) == 1
    rig.insert(first)
    assert any("1111111: what was left on it is gone" in line for line in whole(desk))
    all_is_well(desk, ["alice"], [first, second])


def test_a_key_that_was_enrolled_otherwise_meanwhile_is_left_alone(rig, desk):
    """What a broken attempt left is not what is on the key now: that account is somebody's token."""
    desk.people("alice")
    key = rig.plug(serial=1111111)
    rig.pull(key, at="PUT")
    with Station(desk) as station:
        station.wait_for("pulled out")
        station.interrupt()
        assert station.finish() == 130
    rig.insert(key)
    desk.enrol("yubikey", "enroll", "alice")
    with Station(desk) as station:
        assert station.finish() == 1
    assert len(key.credentials) == 1
    assert [token.user for token in desk.tokens()] == ["alice"]
    assert not desk.journal.exists()


def test_a_touch_is_asked_for_by_name(rig, desk):
    """With several keys that blink, each is called for with its person; one that is not touched is undone."""
    desk.people("alice", "bob")
    first = rig.plug(serial=1111111)
    first.touch("late")
    with Station(desk, "--touch") as station:
        station.wait_for("Touch YubiKey 5 NFC 1111111 (alice) now")
        second = rig.plug(serial=2222222)
        second.touch("never")
        station.wait_for("Touch YubiKey 5 NFC 2222222 (bob) now")
        station.wait_for("2222222 (bob)", "not touched in time", "Nothing is left")
        assert second.credentials == []
        first.touch("given")
        station.wait_for("1111111 is alice's")
        out(rig, second)
        third = rig.plug(serial=3333333)
        assert station.finish() == 0
    all_is_well(desk, ["alice", "bob"], [first, second, third])


def test_ctrl_c_ends_it_in_order(rig, desk):
    """What is being done is finished, no key is begun any more, and it is told who still waits."""
    desk.people("alice", "bob")
    key = rig.plug(serial=1111111)
    key.touch("late")
    with Station(desk, "--touch") as station:
        key.blinks()
        station.interrupt()
        station.wait_for("Ending")
        rig.plug(serial=2222222)
        key.touch("given")
        assert station.finish() == 130
    assert any("1 still wait: bob" in line for line in station.said)
    all_is_well(desk, ["alice"], [key])


def test_a_second_ctrl_c_leaves_at_once(rig, desk):
    """The next run takes back what the first left."""
    desk.people("alice")
    key = rig.plug(serial=1111111)
    key.touch("late")
    with Station(desk, "--touch") as station:
        key.blinks()
        station.interrupt()
        station.wait_for("Ending")
        station.interrupt()
        assert station.finish() == 130
    assert any("key 1111111 may hold" in line for line in station.said)
    key.touch("given")
    whole(desk)
    all_is_well(desk, ["alice"], [key])


def test_it_waits_for_a_daemon_that_is_away(rig):
    """In the midst of a key, too: what was begun is taken back, and begun again, without anybody doing anything."""
    key = rig.plug(serial=1111111)
    key.touch("late")
    folder = Path(mkdtemp(prefix="otpb-"))
    desk = Desk(folder)
    desk.people("alice")
    try:
        with real_daemon(folder) as process:
            station = Station(desk, "--touch")
            with station:
                key.blinks()
                process.terminate()
                process.wait(20)
                key.touch("given")
                with real_daemon(folder):
                    assert station.finish() == 0
                    all_is_well(desk, ["alice"], [key])
    finally:
        shutil.rmtree(folder)


def test_it_waits_for_pcscd(rig, desk):
    """It says what is missing, and goes on by itself."""
    desk.people("alice", "bob")
    first = rig.plug(serial=1111111)
    with Station(desk) as station:
        station.wait_for("is alice's")
        rig.stop()
        station.wait_for("pcscd is not running")
        rig.start()
        station.wait_for("1111111: it is alice's already")
        second = rig.plug(serial=2222222)
        assert station.finish() == 0
    all_is_well(desk, ["alice", "bob"], [first, second])


# --- passwords of keys ---


def test_keys_get_a_password_each(rig, desk):
    """Written down for the owner alone, different ones, nowhere else; and they open the keys."""
    desk.people("alice", "bob")
    keys = [rig.plug(serial=1111111), rig.plug(serial=2222222)]
    file = desk.folder / "passwords.csv"
    with Station(desk, "--passwords", file) as station:
        assert station.finish() == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with file.open() as lines:
        passwords = {row["serial"]: row["password"] for row in csv.DictReader(lines)}
    assert len(set(passwords.values())) == 2
    elsewhere = "\n".join([*station.said, desk.result.read_text()])
    for key in keys:
        password = passwords[str(key.serial)]
        assert key.locked
        assert password not in elsewhere
        shown = subprocess.run(
            [*MAIN, "--json", "yubikey", "code", "--serial", str(key.serial), "--password-stdin"],
            input=f"{password}\n",
            capture_output=True,
            text=True,
            check=True,
        )
        assert len(json.loads(shown.stdout)) == 1
    all_is_well(desk, ["alice", "bob"], keys)


def test_a_key_that_fails_loses_its_password_again(rig, desk):
    """It is as it was before."""
    desk.people("alice")
    key = rig.plug(serial=1111111)
    key.touch("never")
    with Station(desk, "--touch", "--passwords", desk.folder / "passwords.csv") as station:
        station.wait_for("Nothing is left of it")
        assert (key.locked, key.credentials) == (False, [])
        station.interrupt()
        station.finish()


def test_a_password_that_a_key_has_is_given_once_and_kept(rig, desk):
    """Without it the key is left alone, and it is said what to do."""
    desk.people("alice")
    key = rig.plug(serial=1111111, password="open sesame")
    with Station(desk) as station:
        station.wait_for("1111111", "password that is not known", "--password-stdin")
        station.interrupt()
        station.finish()
    assert key.credentials == []
    done = subprocess.run(
        [*MAIN, *desk.command("--password-stdin", "--passwords", desk.folder / "passwords.csv")],
        input="open sesame\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "open sesame" not in done.stdout + done.stderr
    assert (desk.folder / "passwords.csv").read_text() == "serial,password\n"
    all_is_well(desk, ["alice"], [key])


def test_a_file_for_passwords_that_others_can_read_is_refused(rig, desk):
    """Nothing is started."""
    desk.people("alice")
    file = desk.folder / "passwords.csv"
    file.touch(mode=0o644)
    key = rig.plug()
    with Station(desk, "--passwords", file) as station:
        assert station.finish() == 1
    assert "chmod 600" in station.said[0]
    assert key.credentials == []


# --- what is on disk ---


def test_two_stations_do_not_share_a_result(rig, desk):
    """The second one is told; the first goes on."""
    desk.people("alice")
    with Station(desk) as first:
        first.wait_for("Plug in")
        with Station(desk) as second:
            assert second.finish() == 1
        assert "another station" in second.said[0]
        key = rig.plug()
        assert first.finish() == 0
    all_is_well(desk, ["alice"], [key])


def test_a_file_of_others_is_not_written_to(rig, desk):
    """The list itself, say, given as the result by mistake, stays as it is to the byte."""
    desk.list.write_text("user\nalice")
    with Station(desk, "--result", desk.list) as station:
        assert station.finish() == 2
    assert "is not ours" in station.said[0]
    assert desk.list.read_text() == "user\nalice"


def test_a_thread_that_is_left_over_begins_nothing(tmp_path):
    """When the station has ended, and its journal with it, nothing can be put on a key any more."""
    with Records(tmp_path / "result.csv", None) as records:
        pass
    with pytest.raises(CommandError, match="has ended"):
        records.begin(Begun("token", "alice", "local", 1))
    assert [path.name for path in tmp_path.iterdir()] == ["result.csv"]


def test_without_a_daemon_it_does_not_begin(rig):
    """Nor does it wait in silence, though something is open from the last run."""
    folder = Path(mkdtemp(prefix="otpb-"))
    desk = Desk(folder)
    desk.people("alice")
    try:
        with Records(desk.result, None) as records:
            records.begin(Begun("token", "alice", "local", 1111111, "00"))
        with Station(desk) as station:
            assert station.finish() == 3
        assert "otpbridged" in station.said[0]
        assert desk.journal.exists()
    finally:
        shutil.rmtree(folder)


_KILL = "import os, signal\ndef die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
_POINTS = {
    "before the journal": "from otpbridge.cli.provision.records import Records\nRecords.begin = die\n",
    "after the journal": (
        "from otpbridge.cli.provision.records import Records\nbegin = Records.begin\n"
        "Records.begin = lambda self, begun: (begin(self, begun), die())\n"
    ),
    "half a line of the journal": (
        "from otpbridge.cli.provision.records import _Lines\nappend = _Lines.append\n"
        "def half(self, text):\n"
        "    if 'begun' in text: os.write(self._fd, text[:20].encode()); die()\n"
        "    append(self, text)\n"
        "_Lines.append = half\n"
    ),
    "after the account": (
        "from otpbridge.devices.oath import Oath\nput = Oath.put\n"
        "Oath.put = lambda self, new: (put(self, new), die())\n"
    ),
    "before the judgement": "from otpbridge.cli.provision import bench\nbench.confirm = die\n",
    "after the judgement": "from otpbridge.cli.provision.records import Records\nRecords.done = die\n",
    "half a line of the result": (
        "from otpbridge.cli.provision.records import _Lines\nappend = _Lines.append\n"
        "def half(self, text):\n"
        "    if ',local,' in text: os.write(self._fd, text[:30].encode()); die()\n"
        "    append(self, text)\n"
        "_Lines.append = half\n"
    ),
    "after the result": "from otpbridge.cli.provision.records import Records\nRecords._settle = die\n",
}


@pytest.mark.parametrize("with_password", [False, True])
@pytest.mark.parametrize("point", _POINTS)
def test_a_station_that_is_cut_off_at_any_step_is_resumed(rig, desk, point, with_password):
    """On the same key: alice has one token and it has one account, whether it was in force already or not."""
    desk.people("alice")
    options = ["--passwords", desk.folder / "passwords.csv"] if with_password else []
    key = rig.plug(serial=1111111)
    with Station(desk, *options, before=_KILL + _POINTS[point]) as station:
        assert station.finish() == -signal.SIGKILL
    whole(desk, *options)
    all_is_well(desk, ["alice"], [key])
    assert key.locked == with_password


@pytest.mark.parametrize("point", _POINTS)
def test_a_station_that_is_cut_off_is_resumed_with_another_key(rig, desk, point):
    """The first key stays away for now: alice has one token, and the first key is cleared when it comes."""
    desk.people("alice", "bob")
    first = rig.plug(serial=1111111)
    with Station(desk, before=_KILL + _POINTS[point]) as station:
        assert station.finish() == -signal.SIGKILL
    rig.unplug(first)
    second = rig.plug(serial=2222222)
    with Station(desk) as station:
        station.wait_for("2222222 is")
        rig.insert(first)
        assert station.finish() == 0
    all_is_well(desk, ["alice", "bob"], [first, second])


_COUNT = """
import itertools
from otpbridge.cli.provision import bench
from otpbridge.cli.provision.records import Records
from otpbridge.devices.oath import Oath

steps = itertools.count(1)

def counted(function):
    def step(*arguments, **options):
        if next(steps) >= STEPS: die()
        return function(*arguments, **options)
    return step

bench.confirm = counted(bench.confirm)
for owner, name in ((Oath, "put"), (Oath, "remove"), (Records, "begin"), (Records, "done"), (Records, "_settle")):
    setattr(owner, name, counted(getattr(owner, name)))
"""


@pytest.mark.parametrize("seed", range(3))
def test_sixteen_keys_three_pulled_and_two_power_cuts(rig, desk, seed):
    """Every key ends proven, nobody has two tokens, nothing is left anywhere, and every key lets its person in."""
    chance = random.Random(seed)
    users = [f"user{number}" for number in range(16)]
    desk.people(*users)
    keys = [rig.plug(serial=5000000 + number) for number in range(16)]
    for victim in chance.sample(keys, 3):
        rig.pull(victim, after=chance.randrange(4, 60), executed=chance.random() < 0.5)
    for _ in range(2):
        with Station(desk, before=_KILL + _COUNT.replace("STEPS", str(chance.randrange(5, 30)))) as station:
            assert station.finish() == -signal.SIGKILL
    with Station(desk) as station:
        while not station.ended:
            for key in keys:
                if key.reader is None:
                    rig.insert(key)
            station.line(seconds=0.5)
        assert station.finish() == 0, station.said
    all_is_well(desk, users, keys)


# --- what is seen ---


def test_a_terminal_shows_which_key_is_whose(rig, desk):
    """A picture with serial number, person and what to do; names that would steer the terminal never get there."""
    desk.people("alice", "bob")
    key = rig.plug(serial=1111111)
    key.touch("late")
    with Terminal(*desk.command("--touch"), columns=140) as terminal:
        terminal.wait_for("touch it now (15 s)")
        terminal.wait_for("0 of 2 done, 1 waiting")
        key.touch("given")
        terminal.wait_for("done: pull it out")
        terminal.press("\x03")
        assert terminal.finish() == 130
    assert "1111111" in terminal.text


@contextmanager
def _without_rich(folder):
    (folder / "rich.py").write_text("raise ImportError('not installed')\n")
    yield {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


def test_without_rich_there_are_lines(rig, desk):
    """It is no more than a nicer look."""
    desk.people("alice")
    key = rig.plug(serial=1111111)
    with _without_rich(desk.folder) as environment, Terminal(*desk.command(), environment=environment) as terminal:
        terminal.wait_for("1111111 is alice's")
        assert terminal.finish() == 0
    all_is_well(desk, ["alice"], [key])
