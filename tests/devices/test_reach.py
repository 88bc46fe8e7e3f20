"""The way to keys: found or not, held by others, pulled, locked, full, touched or not."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from otpbridge.devices import find, holders
from otpbridge.devices.keys import NewAccount, choose
from otpbridge.devices.oath import open_oath
from otpbridge.devices.otp import HotpSlot, YubiOtpSlot, open_slots
from otpbridge.errors import (
    AccountExistsError,
    CannotError,
    DeviceBusyError,
    DeviceGoneError,
    FullError,
    LockedError,
    NoAccountError,
    NoDeviceError,
    NotAllowedError,
    ReaderServiceError,
    SlotTakenError,
    TouchTimeoutError,
    WrongPasswordError,
)
from otpbridge.model import Algorithm, Kind, OtpParameters, Secret

SEED = b"12345678901234567890"
NOW = 1_790_000_000


def account(kind=Kind.TOTP, name="alice", *, touch=False, seed=SEED, **form):
    """An account to put on a key."""
    return NewAccount(kind, name, "Example", OtpParameters(**form), Secret(seed), touch=touch)


def only():
    """The only key that is plugged in."""
    return choose(find.look(), None)


def oathtool(seed, *options):
    """What oathtool computes."""
    assert shutil.which("oathtool"), "oathtool is missing: apt-get install oathtool"
    secret = base64.b32encode(seed).decode()
    return subprocess.run(
        ["oathtool", "-b", *options, "-"], input=secret, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("version", [(4, 3, 7), (5, 4, 3), (5, 7, 1)])
@pytest.mark.parametrize("algorithm", list(Algorithm))
@pytest.mark.parametrize(("digits", "period"), [(6, 30), (8, 60)])
def test_a_key_computes_what_oathtool_computes(rig, version, algorithm, digits, period):
    """Of every hash, length and period that we write."""
    rig.plug(version=version)
    seed = bytes(range(algorithm.seed_bytes))
    new = account(algorithm=algorithm, digits=digits, period=period, seed=seed)
    with open_oath(only()) as oath:
        oath.put(new)
        code = oath.code(new.id, NOW)
    options = [f"--totp={algorithm.value}", "-d", str(digits), "-s", f"{period}s", "-N", f"@{NOW}"]
    assert code.text == oathtool(seed, *options)
    assert code.valid_from <= NOW < code.valid_to == code.valid_from + period


def test_a_counter_starts_at_nought_and_counts(rig):
    """HOTP codes come in order, each once."""
    rig.plug()
    new = account(Kind.HOTP)
    with open_oath(only()) as oath:
        oath.put(new)
        assert [oath.code(new.id, NOW).text for _ in range(3)] == ["755224", "287082", "359152"]


def test_no_account_is_ever_overwritten(rig):
    """An account of the same name stays as it was."""
    key = rig.plug()
    key.add("Example:alice", bytes(20))
    with open_oath(only()) as oath, pytest.raises(AccountExistsError, match="not overwritten"):
        oath.put(account())
    assert [credential.secret for credential in key.credentials] == [bytes(20)]


def test_a_full_key_says_so(rig):
    """With its number of accounts, before anything is written."""
    key = rig.plug(version=(5, 4, 3))
    key.fill()
    with open_oath(only()) as oath, pytest.raises(FullError, match="32 accounts"):
        oath.put(account())
    assert not any(entry.name == "PUT" for entry in key.log)


def test_a_locked_key_opens_with_its_password_alone(rig):
    """A wrong password is told from none, and does not stand in the way of the right one."""
    rig.plug(password="open sesame")
    with open_oath(only()) as oath:
        assert oath.locked
        with pytest.raises(LockedError):
            oath.accounts()
        with pytest.raises(WrongPasswordError):
            oath.unlock("sesame")
        oath.unlock("open sesame")
        assert oath.accounts() == []
        oath.set_password("other")
    with open_oath(only()) as oath:
        with pytest.raises(WrongPasswordError):
            oath.unlock("open sesame")
        oath.unlock("other")
        oath.clear_password()
    with open_oath(only()) as oath:
        assert not oath.protected


def test_a_touch_that_does_not_come_is_told(rig):
    """And is not taken for a locked key; with the touch there is a code."""
    key = rig.plug()
    new = account(touch=True)
    waits = []
    with open_oath(only()) as oath:
        oath.put(new)
        key.touch("never")
        with pytest.raises(TouchTimeoutError):
            oath.code(new.id, NOW, lambda: waits.append(1))
        key.touch("given")
        assert oath.code(new.id, 59).text == "287082"
    assert waits == [1]


def test_accounts_are_renamed_and_removed(rig):
    """Never over one that is there; what is gone is gone."""
    rig.plug()
    with open_oath(only()) as oath:
        oath.put(account())
        oath.put(account(name="bob"))
        alice, bob = sorted(oath.accounts(), key=str)
        with pytest.raises(AccountExistsError):
            oath.rename(alice, "Example", "bob")
        with pytest.raises(CannotError):
            oath.rename(alice, "", "15/alice")
        oath.rename(alice, "Other", "alice")
        oath.remove(bob.id)
        assert [str(each) for each in oath.accounts()] == ["Other:alice"]
        with pytest.raises(NoAccountError):
            oath.remove(bob.id)


def test_an_old_key_cannot_rename(rig):
    """Firmware before 5.3.1 is told so before it is asked."""
    rig.plug(version=(4, 3, 7))
    with open_oath(only()) as oath:
        oath.put(account())
        with pytest.raises(CannotError, match=r"5\.3\.1"):
            oath.rename(oath.accounts()[0], "", "bob")


@pytest.mark.parametrize("executed", [False, True])
def test_a_key_that_is_pulled_while_it_is_written_is_gone(rig, executed):
    """Whether it still did it or not: the same error, which says that nobody knows."""
    key = rig.plug()
    plugged = only()
    rig.pull(key, at="PUT", executed=executed)
    with open_oath(plugged) as oath, pytest.raises(DeviceGoneError):
        oath.put(account())
    with pytest.raises(NoDeviceError), open_oath(plugged):
        pass
    rig.insert(key)
    with open_oath(plugged) as oath:
        assert oath.accounts() or not executed


def test_a_key_in_use_by_another_program_is_not_taken(rig):
    """Not even shared: what it is in the midst of could be another applet's business."""
    key = rig.plug()
    plugged = only()
    for how in ("exclusive", "shared"):
        with rig.hold(key, how):
            with pytest.raises(DeviceBusyError), open_oath(plugged):
                pass
            (unreadable,) = find.look().unreadable
            assert isinstance(unreadable.error, DeviceBusyError)
    with open_oath(plugged):
        pass


def test_nobodys_process_is_killed(rig, tmp_path):
    """A busy key leaves scdaemon running and names it; it ends only when it is asked to, and politely."""
    program = tmp_path / "scdaemon"
    shutil.copy(shutil.which("sleep"), program)
    key = rig.plug()
    with subprocess.Popen([program, "60"]) as process:
        try:
            with rig.hold(key):
                (unreadable,) = find.look().unreadable
            assert f"scdaemon (pid {process.pid})" in str(unreadable.error)
            assert "--take-over" in str(unreadable.error)
            assert process.poll() is None
            ours = [holder for holder in holders.running() if holder.pid == process.pid]
            assert holders.ask_to_let_go(ours) == ours
            assert process.wait(20) == -signal.SIGTERM
        finally:
            process.kill()


def test_a_reader_service_that_is_away_is_named(rig):
    """With what to install and start."""
    rig.plug()
    rig.stop()
    with pytest.raises(ReaderServiceError, match=r"pcscd\.socket"):
        find.look()
    rig.start()
    assert len(find.look().keys) == 1


@pytest.mark.parametrize("what", ["service", "card"])
def test_a_user_whom_polkit_refuses_is_told(rig, what):
    """And where to allow it."""
    rig.plug()
    rig.forbid(what)
    with pytest.raises(NotAllowedError, match="polkit"):
        find.look()


def test_several_keys_are_told_apart(rig):
    """Each is opened by its own serial number, wherever it is plugged in."""
    first, second = rig.plug(serial=1111111), rig.plug(serial=2222222, version=(5, 4, 3))
    keys = {key.serial: key for key in find.look().keys}
    rig.unplug(first)
    rig.unplug(second)
    rig.insert(second)
    rig.insert(first)
    with open_oath(keys[2222222]) as oath:
        oath.put(account())
    assert (len(first.credentials), len(second.credentials)) == (0, 1)


def test_an_application_that_is_off_is_told(rig):
    """With the command that switches it on."""
    rig.plug(oath=False)
    with pytest.raises(CannotError, match="--enable OATH"), open_oath(only()):
        pass


@pytest.mark.parametrize("slot", [1, 2])
def test_a_slot_is_programmed_once(rig, slot):
    """What is in a slot stays, unless it is to be overwritten."""
    key = rig.plug()
    with open_slots(only()) as slots:
        assert not slots.programmed(slot)
        slots.program(slot, YubiOtpSlot(b"\xff" * 6, Secret(b"123456"), Secret(b"k" * 16)))
        with pytest.raises(SlotTakenError):
            slots.program(slot, HotpSlot(Secret(SEED)))
    assert key.slots[slot].kind == "yubiotp"
    with open_slots(only()) as slots:
        slots.program(slot, HotpSlot(Secret(SEED), 8), force=True)
    assert key.press(slot) == "84755224\n"
    with open_slots(only()) as slots:
        slots.clear(slot)
    assert key.slots[slot] is None


def test_a_slot_is_protected_by_its_access_code(rig):
    """Without it, it can neither be overwritten nor cleared."""
    key = rig.plug()
    code = Secret(b"\1\2\3\4\5\6")
    with open_slots(only()) as slots:
        slots.program(2, HotpSlot(Secret(SEED)), access_code=code)
        for wrong in (None, Secret(b"\1" * 6)):
            with pytest.raises(WrongPasswordError):
                slots.program(2, HotpSlot(Secret(bytes(20))), force=True, access_code=wrong)
            with pytest.raises(WrongPasswordError):
                slots.clear(2, wrong)
        slots.clear(2, code)
    assert key.slots[2] is None


def test_slots_that_are_out_of_reach_are_told(rig):
    """Firmware 4.0 to 5.2 programs slots as a keyboard alone."""
    rig.plug(version=(4, 3, 7))
    with pytest.raises(CannotError, match=r"4\.3\.7"), open_slots(only()):
        pass


def test_a_reader_service_that_hangs_is_not_waited_for(tmp_path):
    """A pcscd that takes a connection and never answers is named, and the command ends."""
    path = tmp_path / "pcscd.comm"
    script = "from otpbridge.devices import find; find.SERVICE_SECONDS = 0.3; find.look()"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PCSCLITE_CSOCK_NAME": str(path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert "ReaderServiceError: the smart card service pcscd did not answer" in done.stderr
