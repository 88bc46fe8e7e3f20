"""On a real key: what a virtual one can show only as far as it is like one. See docs/untested-hardware.md."""

from __future__ import annotations

import time

import pytest

from otpbridge.devices.otp import open_slots

PASSWORD = "otpbridge-test"
"""Of the OATH application while the test of it runs; known, in case that is cut off."""


def test_it_is_listed(device):
    """With its serial number, firmware and room, and not locked."""
    (row,) = device.answer("yubikey", "list")["keys"]
    assert (row["serial"], row["firmware"], row["locked"]) == (device.key.serial, device.key.version, False)
    assert len(row["accounts"]) == len(device.accounts())


@pytest.mark.parametrize("form", [(), ("--algorithm", "SHA256", "--digits", "8"), ("--algorithm", "SHA512")])
def test_an_account_is_enrolled_and_lets_in(device, form):
    """The key computes what the daemon expects, now and in the next time step."""
    if "SHA512" in form and device.key.firmware < (4, 3, 1):
        pytest.skip("this firmware has no SHA512")
    user, told = device.enrol(*form)
    assert told["serials"] == [device.key.serial]
    assert device.verdict(user, device.code(user, int(time.time()) + 30)) == "success"


def test_a_counter_is_enrolled_and_lets_in(device):
    """Its next code is the one that the daemon expects, once."""
    user, _told = device.enrol("--kind", "hotp")
    (shown,) = device.answer("yubikey", "code", user)
    assert device.verdict(user, shown["code"]) == "success"
    assert device.verdict(user, shown["code"]) == "auth_err"


def test_nothing_is_overwritten(device):
    """The same name again is refused, and the account computes as before."""
    user, _told = device.enrol()
    at = int(time.time()) + 3600
    before = device.code(user, at)
    done = device.call("yubikey", "enroll", user, "--issuer", device.issuer, code=1)
    assert "not overwritten" in done.stderr
    assert device.code(user, at) == before


def test_an_account_is_renamed_and_removed(device):
    """By its name, and no other is touched."""
    user, told = device.enrol()
    if device.key.firmware >= (5, 3, 1):
        device.call("yubikey", "rename", f"{device.issuer}:{user}", f"{device.issuer}:other")
        assert device.answer("yubikey", "remove", f"{device.issuer}:other")["removed"] == f"{device.issuer}:other"
    else:
        device.call("yubikey", "remove", f"{device.issuer}:{user}")
    assert not any(account.issuer == device.issuer for account in device.accounts())
    rows = device.answer("yubikey", "audit", code=1)
    assert [row["finding"] for row in rows if row["token"] == told["token"]] == ["missing"]


def test_an_audit_finds_what_is_there(device):
    """What was enrolled matches; what others put on the key is said not to be ours."""
    _user, told = device.enrol()
    found = {(row["account"], row["token"]): row["finding"] for row in device.answer("yubikey", "audit", code=None)}
    assert found.pop((told["account"], told["token"])) == "matches"
    assert {finding for (_account, token), finding in found.items() if token is None} <= {"unknown"}


def test_a_touch_is_waited_for(device, tell):
    """The key blinks, the person touches it, and the code counts."""
    if device.key.firmware < (4, 2, 6):
        pytest.skip("this firmware asks for no touch")
    tell("Touch the key when it blinks.")
    _user, told = device.enrol("--touch", shown=True)
    assert told["touch"]


def test_a_touch_that_does_not_come_leaves_nothing(device, tell):
    """After 15 seconds the key gives up, and what was written is taken back."""
    if device.key.firmware < (4, 2, 6):
        pytest.skip("this firmware asks for no touch")
    tell("Do NOT touch the key, for 15 seconds.")
    _user, told = device.enrol("--touch", code=1)
    assert told["error"] == "TouchTimeout"
    assert not any(account.issuer == device.issuer for account in device.accounts())


def test_a_password_is_set_and_cleared(device):
    """Without it the key is locked; afterwards it has none again."""
    try:
        device.call("yubikey", "access", "set", "--password-stdin", text=f"{PASSWORD}\n")
        (row,) = device.answer("yubikey", "list")["keys"]
        assert row["locked"]
        device.call("yubikey", "access", "clear", "--password-stdin", text="wrong\n", code=1)
    finally:
        device.call("yubikey", "access", "clear", "--password-stdin", text=f"{PASSWORD}\n")
    (row,) = device.answer("yubikey", "list")["keys"]
    assert not row["locked"]


@pytest.mark.parametrize("kind", ["yubiotp", "hotp"])
def test_an_empty_slot_types_a_token(device, kind, tell):
    """It is programmed, the person touches the key, and what it types is in force."""
    if (4, 0, 0) <= device.key.firmware < (5, 3, 0):
        pytest.skip("the slots of this firmware are programmed as a keyboard")
    with open_slots(device.key) as slots:
        empty = [slot for slot in (2, 1) if not slots.programmed(slot)]
    if not empty:
        pytest.skip("both slots are programmed, and are left as they are")
    tell(f"Keep this window in front: the key types into it. Slot {empty[0]}.")
    try:
        _user, told = device.enrol("--slot", str(empty[0]), "--kind", kind, typed=True)
        assert told["state"] == "active"
    finally:
        with open_slots(device.key) as slots:
            if slots.programmed(empty[0]):
                slots.clear(empty[0])


def test_a_reset_takes_all_accounts(device):
    """Only where RESET=yes says that the key holds nothing that anybody needs."""
    if not device.reset:
        pytest.skip("RESET=yes was not given")
    device.enrol()
    device.call("yubikey", "reset", text="1\n", code=1)
    assert device.accounts()
    device.call("yubikey", "reset", text=f"{device.key.serial}\n")
    assert device.accounts() == []
