"""YubiKeys for tests without hardware: the fixture `rig`.

Behind it stand virtual keys (tests/support/virtualkey) in a process of their own that speaks as pcscd does, so that
the real libpcsclite, pyscard, yubikit and the stock `ykman` see readers with cards. One such process serves all tests
of a pytest process, at one socket path (libpcsclite reads PCSCLITE_CSOCK_NAME only once); before each test it is put
back: running, no key plugged in.

    def test_something(rig):
        key = rig.plug(serial=12345678, version=(5, 7, 1))
        subprocess.run([YKMAN, "list"], env=rig.environment)       # or in this process: os.environ is set as well

Keys
    rig.plug(serial=12345678, version=(5, 7, 1), *, form_factor="usb-a", nfc=True, oath=True, otp=True, password=None,
             capacity=None) -> key
        A new key. form_factor: usb-a, usb-a-nano, usb-c, usb-c-nano, lightning; serial=None: a key that does not tell
        it; oath=False, otp=False: switched off; password: OATH access password; capacity: OATH credentials (else 32,
        from version 5.7.0 on 64). Up to 16 keys at once.
    rig.unplug(key)
        Out, now. Calls in flight fail as they do with a real key: SCARD_E_NOT_TRANSACTED, and all later ones, the
        disconnection too, SCARD_E_INVALID_VALUE (pyscard's disconnect raises: it must not hide the first error).
    rig.insert(key)
        The same key in again; its slots count this as a plugging in.
    rig.pull(key, after=3)
        Out in the middle of an APDU: the 4th from now on.
    rig.pull(key, at="PUT", executed=True)
        The same for the next APDU of that name (see key.log). `executed` (default False): whether the key still did
        what it was told, though nobody got its answer. Both together: after=1, at="PUT" is the second PUT.

Another program, and the daemon
    with rig.hold(key): ...
        Another program holds the key: how="exclusive" (default), "shared" (exclusive use is impossible, shared use
        works) or "transaction" (shared, and calls wait until it ends). Or: held = rig.hold(key), held.release().
    rig.stop(), rig.start()
        pcscd is down: its socket is gone, clients are cut off; and up again, with the keys that are plugged in. What
        pyscard objects of this process still hold then fails when they are collected (__del__), which pytest takes as
        an error: where a connection is open at that moment, use a subprocess.
    rig.forbid("service")
        polkit says no: "service" cuts clients off at once, "card" refuses to connect to a card
        (SCARD_W_SECURITY_VIOLATION), None allows all again.
    rig.environment
        A copy of os.environ with PCSCLITE_CSOCK_NAME, for subprocesses.
    rig.waits(n=1)
        Returns when n clients wait for readers to change (SCardGetStatusChange).
    rig.looked()
        Returns when a client has listed the readers since one came or went, and waits again.

A key
    key.serial, key.version
    key.reader
        Its reader's name as pcscd shows it, None while it is out.
    key.credentials
        What is really on it: a list of Credential(id: bytes, secret: bytes, kind "totp" or "hotp", algorithm "sha1",
        "sha256" or "sha512", digits, touch: bool, counter). A secret is as the key got it: filled up to 14 bytes with
        zeros, hashed if longer than the hash's block.
    key.add(id, secret, *, kind="totp", algorithm="sha1", digits=6, touch=False, counter=0)
        Puts a credential on it directly: what was there before your program came.
    key.fill(leave=0)
        Fills it up with other people's credentials but for `leave` places.
    key.password(text)
        Sets the OATH access password, None takes it away. key.locked: whether one is set.
    key.slots
        {1: Slot or None, 2: ...}: Slot(kind "yubiotp", "hotp", "static" or "challenge-response", fixed: bytes,
        private_id: bytes, secret: bytes, access_code: bytes (empty: none), digits, enter: bool).
    key.program(slot, *, kind="yubiotp", fixed=b"", private_id=bytes(6), secret, access_code=b"", digits=6)
        Programs a slot directly, kind "yubiotp" or "hotp".
    key.press(slot)
        What it types: a Yubico OTP or an OATH-HOTP code, with "\\n" if the slot sends Enter; "" for an empty slot.
    key.touch("given")
        The finger is there whenever a credential asks for a touch (the default); a key that waits is touched now.
    key.touch("late")
        It waits, blinking, until touch("given"): from another thread, or while a subprocess waits.
    key.touch("never")
        The key gives up: it answers at once what it would answer after 15 seconds.
    key.blinks()
        Returns when the key waits for a touch (TimeoutError after 20 seconds).
    key.log
        The APDUs it got, oldest first, without contents: Apdu(applet, name, length, status), status 0 where the key
        did not do it; names: SELECT, PUT, LIST, CALCULATE, CALCULATE ALL, DELETE, RENAME, VALIDATE, SET CODE, RESET,
        SEND REMAINING, READ CONFIG, WRITE CONFIG, CONFIG 1, CONFIG 2, UPDATE 1, UPDATE 2, SWAP, STATUS, SERIAL.

RealRig (virtualkey.rig) puts the same keys behind a real pcscd, where it is installed.

Names of readers are those of real keys: "Yubico YubiKey OTP+FIDO+CCID 00 00", for version 4 "Yubico Yubikey 4
OTP+U2F+CCID 00 00". From version 4 to 5.2 slots cannot be programmed over the smart card, as with the real ones.
"""

from __future__ import annotations

import pytest
from virtualkey.rig import shared_rig


@pytest.fixture(scope="session", autouse=True)
def _pcscd_of_the_tests():
    """No test of this folder ever talks to the machine's own pcscd, even where it does not ask for a rig."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in shared_rig().settings.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def rig():
    """Places for virtual YubiKeys: see above."""
    rig = shared_rig()
    rig.reset()
    return rig
