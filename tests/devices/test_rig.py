"""The rig itself: that programs see its keys as they see real ones, before other tests trust it."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest
from smartcard.Exceptions import CardConnectionException
from smartcard.pcsc.PCSCExceptions import EstablishContextException
from smartcard.scard import (
    SCARD_E_INVALID_VALUE,
    SCARD_E_NOT_TRANSACTED,
    SCARD_E_SHARING_VIOLATION,
    SCARD_SHARE_EXCLUSIVE,
    SCARD_SHARE_SHARED,
    SCARD_STATE_PRESENT,
    SCARD_STATE_UNKNOWN,
    SCARD_W_SECURITY_VIOLATION,
)
from smartcard.System import readers
from virtualkey.key import VirtualKey
from virtualkey.oath import Stored
from virtualkey.reader import EXCLUSIVE, Failed, Reader
from virtualkey.rig import RealRig
from ykman.pcsc import ScardSmartCardConnection
from yubikit.core import TRANSPORT, ApplicationNotAvailableError, NotSupportedError
from yubikit.core.otp import CommandRejectedError
from yubikit.core.smartcard import SW, ApduError
from yubikit.management import FORM_FACTOR, ManagementSession
from yubikit.oath import HASH_ALGORITHM, OATH_TYPE, CredentialData, OathSession
from yubikit.yubiotp import SLOT, HotpSlotConfiguration, YubiOtpSession, YubiOtpSlotConfiguration

from otpbridge.model import Secret
from otpbridge.otp import yubiotp

YKMAN = str(Path(sys.executable).with_name("ykman"))
SEED = b"12345678901234567890"
"""Of RFC 4226, appendix D."""
VERSIONS = [(4, 3, 7), (5, 4, 3), (5, 7, 1)]
NOW = 1_750_000_000


def ykman(rig, *arguments, **options):
    """What the stock `ykman` prints."""
    return subprocess.run(
        [YKMAN, *arguments], env=rig.environment, text=True, capture_output=True, timeout=60, check=True, **options
    ).stdout


class Card(ScardSmartCardConnection):
    """Of the mode that is asked for: the way of pyscard to an exclusive connection leaves a bad handle behind."""

    def __init__(self, connection, mode):
        connection.connect(mode=mode)
        self.connection = connection
        self._transport = TRANSPORT.USB


@contextmanager
def connected(key, *, alone=True):
    """A connection to a key as ykman makes it, but without its habit of killing who else is there."""
    (reader,) = (reader for reader in readers() if reader.name == key.reader)
    with Card(reader.createConnection(), SCARD_SHARE_EXCLUSIVE if alone else SCARD_SHARE_SHARED) as card:
        yield card


def put(key, name="alice", **options):
    """Writes a time-based credential onto a key."""
    with connected(key) as card:
        OathSession(card).put_credential(CredentialData(name, OATH_TYPE.TOTP, HASH_ALGORITHM.SHA1, SEED), **options)


def oathtool(*arguments):
    """What oathtool computes."""
    return subprocess.run(["oathtool", *arguments], text=True, capture_output=True, check=True).stdout.strip()


def in_background(call):
    """Starts a call in a thread; the event in the list it fills says when it is done."""
    done = []
    thread = threading.Thread(target=lambda: done.append(call()))
    thread.start()
    return thread, done


# What the stock programs see


def test_stock_ykman_sees_a_key_and_its_credentials(rig):
    """A virtual key is a key like any other to Yubico's own command."""
    key = rig.plug(serial=12345678, version=(5, 7, 1))
    key.add("Example:alice", SEED)

    assert ykman(rig, "list").strip() == "YubiKey 5 NFC (5.7.1) [OTP+FIDO+CCID] Serial: 12345678"
    assert ykman(rig, "oath", "accounts", "list").strip() == "Example:alice"


def test_stock_ykman_writes_to_the_key_it_is_told(rig):
    """With two keys plugged in, `--device` chooses; the other one stays as it was."""
    first, second = rig.plug(serial=11111111), rig.plug(serial=22222222, version=(5, 4, 3))

    ykman(rig, "--device", "22222222", "oath", "accounts", "add", "-t", "bob", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")

    assert first.credentials == []
    (credential,) = second.credentials
    assert (credential.id, credential.secret, credential.touch) == (b"bob", SEED, True)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_key_says_what_it_is(rig, version):
    """Version, serial number and form factor, as far as keys of that age tell them."""
    key = rig.plug(serial=4711, version=version, form_factor="usb-c-nano", nfc=False)
    with connected(key) as card:
        info = ManagementSession(card).read_device_info()

    assert (info.serial, tuple(info.version)) == (4711, version)
    assert info.form_factor == (FORM_FACTOR.UNKNOWN if version < (5,) else FORM_FACTOR.USB_C_NANO)
    assert (
        key.reader
        == ("Yubico Yubikey 4 OTP+U2F+CCID" if version < (5,) else "Yubico YubiKey OTP+FIDO+CCID") + " 00 00"
    )


def test_an_application_can_be_off(rig):
    """A key whose OATH application is switched off says so; one that hides its serial number has none."""
    key = rig.plug(serial=None, oath=False)
    with connected(key) as card:
        assert ManagementSession(card).read_device_info().serial is None
        with pytest.raises(ApplicationNotAvailableError):
            OathSession(card)


def test_sixteen_keys_fit(rig):
    """As many as a real pcscd has room for, each under a name of its own."""
    keys = [rig.plug(serial=serial) for serial in range(1, 17)]

    assert [reader.name for reader in readers()] == [key.reader for key in keys]
    assert len({key.reader for key in keys}) == 16


# Codes


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("digits", [6, 8])
def test_timed_codes_are_those_of_oathtool(rig, version, algorithm, digits):
    """A key computes what RFC 6238 says, by another implementation."""
    key = rig.plug(version=version)
    secret = SEED * 3
    with connected(key) as card:
        session = OathSession(card)
        algorithm_id = HASH_ALGORITHM[algorithm.upper()]
        credential = session.put_credential(
            CredentialData("alice", OATH_TYPE.TOTP, algorithm_id, secret, digits=digits, period=60)
        )
        code = session.calculate_code(credential, NOW).value

    assert code == oathtool(f"--totp={algorithm}", f"-d{digits}", "-s60s", f"-N@{NOW}", secret.hex())


def test_counted_codes_are_those_of_oathtool_and_count_on(rig):
    """A counted credential starts where it is told to and never gives a code twice, over pulling and plugging in."""
    key = rig.plug()
    codes = []
    with connected(key) as card:
        session = OathSession(card)
        data = CredentialData("alice", OATH_TYPE.HOTP, HASH_ALGORITHM.SHA1, SEED, counter=7)
        codes.append(session.calculate_code(session.put_credential(data)).value)
    rig.unplug(key)
    rig.insert(key)
    with connected(key) as card:
        session = OathSession(card)
        codes.append(session.calculate_code(session.list_credentials()[0]).value)

    assert codes == oathtool("--hotp", "-c7", "-w1", SEED.hex()).split()
    assert key.credentials[0].counter == 9


def test_long_answers_come_in_pieces(rig):
    """A full key's list is longer than one answer, and still complete."""
    key = rig.plug(version=(5, 7, 1))
    key.fill()
    with connected(key) as card:
        assert len(OathSession(card).list_credentials()) == 64
        assert len(OathSession(card).calculate_all(NOW)) == 64
    assert [entry.name for entry in key.log].count("SEND REMAINING") > 2


# Touch, password, room


@pytest.mark.parametrize("finger", ["given", "never"])
def test_a_credential_that_wants_a_touch_gets_one_or_none(rig, finger):
    """With a touch there is a code; without one the key gives up with the status of a time-out."""
    key = rig.plug()
    key.add("alice", SEED, touch=True)
    key.touch(finger)
    with connected(key) as card:
        session = OathSession(card)
        ((credential, code),) = session.calculate_all(NOW).items()
        assert credential.touch_required
        assert code is None
        if finger == "given":
            assert session.calculate_code(credential, NOW).value == oathtool("--totp", f"-N@{NOW}", SEED.hex())
        else:
            with pytest.raises(ApduError) as error:
                session.calculate_code(credential, NOW)
            assert error.value.sw == SW.SECURITY_CONDITION_NOT_SATISFIED


def test_a_late_touch_is_waited_for(rig):
    """The key blinks until somebody touches it; then the code comes."""
    key = rig.plug()
    key.add("alice", SEED, touch=True)
    key.touch("late")

    def code():
        with connected(key) as card:
            session = OathSession(card)
            return session.calculate_code(session.list_credentials()[0], NOW).value

    thread, done = in_background(code)
    key.blinks()
    assert done == []
    key.touch("given")
    thread.join()
    assert done == [oathtool("--totp", f"-N@{NOW}", SEED.hex())]


def test_a_program_that_gives_up_frees_the_waiting_key(rig):
    """Whoever is killed while a key blinks leaves it usable, as the daemon resets it."""
    key = rig.plug()
    key.add("alice", SEED, touch=True)
    key.touch("late")
    waiting = subprocess.Popen(
        [YKMAN, "oath", "accounts", "code", "alice"], env=rig.environment, stdout=-3, stderr=-3, stdin=-3
    )
    key.blinks()
    waiting.kill()
    waiting.wait()

    key.add("bob", SEED)
    with connected(key, alone=False) as card:
        assert len(OathSession(card).list_credentials()) == 2


def test_a_locked_key_opens_to_its_password_alone(rig):
    """Nothing is told before the password, a wrong one is refused; the next selection finds the lock again."""
    key = rig.plug(password="tea")
    with connected(key) as card:
        session = OathSession(card)
        assert session.locked
        with pytest.raises(ApduError) as error:
            session.list_credentials()
        assert error.value.sw == SW.SECURITY_CONDITION_NOT_SATISFIED
        with pytest.raises(ApduError) as error:
            session.validate(session.derive_key("coffee"))
        assert error.value.sw == SW.INCORRECT_PARAMETERS
        session = OathSession(card)
        session.validate(session.derive_key("tea"))
        assert session.list_credentials() == []
        assert OathSession(card).locked


@pytest.mark.parametrize(("version", "room"), [((4, 3, 7), 32), ((5, 4, 3), 32), ((5, 7, 1), 64)])
def test_a_full_key_takes_no_more(rig, version, room):
    """32 credentials, 64 from 5.7 on; the next one is refused, an old one may be overwritten."""
    key = rig.plug(version=version)
    key.fill(leave=1)
    put(key, "last")
    with pytest.raises(ApduError) as error:
        put(key, "one more")
    put(key, "last", touch_required=True)

    assert error.value.sw == SW.NO_SPACE
    assert len(key.credentials) == room


# Slots


def test_a_slot_types_yubico_otps(rig):
    """Programmed by yubikit, pressed, decrypted with the AES key: uses and touches count on as on a real key."""
    key = rig.plug(version=(5, 4, 3))
    fixed, private_id, secret = bytes.fromhex("ff0000bc614e"), b"\1\2\3\4\5\6", b"K" * 16
    with connected(key) as card:
        YubiOtpSession(card).put_configuration(SLOT.TWO, YubiOtpSlotConfiguration(fixed, private_id, secret))

    typed = [key.press(2), key.press(2)]
    rig.unplug(key)
    rig.insert(key)
    typed.append(key.press(2))

    assert all(line.startswith("vvccccnrhbfu") and line.endswith("\n") for line in typed)
    programmed = yubiotp.YubiKey(fixed, Secret(private_id), Secret(secret))
    opened = [yubiotp.moving_factor(programmed, yubiotp.parse(line.strip())) for line in typed]
    assert opened == [1 << 8, 1 << 8 | 1, 2 << 8]
    assert key.press(1) == ""


def test_a_slot_types_counted_codes(rig):
    """OATH-HOTP as oathtool computes it, from the moving factor it was told."""
    key = rig.plug()
    with connected(key) as card:
        YubiOtpSession(card).put_configuration(SLOT.ONE, HotpSlotConfiguration(SEED).digits8(value=True).imf(32))

    assert [key.press(1), key.press(1)] == [
        f"{code}\n" for code in oathtool("--hotp", "-d8", "-c32", "-w1", SEED.hex()).split()
    ]
    assert (key.slots[1].kind, key.slots[1].secret, key.slots[1].digits) == ("hotp", SEED, 8)


def test_a_slot_with_an_access_code_is_not_overwritten_without_it(rig):
    """A wrong access code changes nothing; the right one deletes."""
    key = rig.plug()
    key.program(1, secret=b"K" * 16, access_code=b"secret")
    with connected(key) as card:
        session = YubiOtpSession(card)
        with pytest.raises(CommandRejectedError):
            session.put_configuration(SLOT.ONE, HotpSlotConfiguration(SEED), cur_acc_code=b"secreT")
        assert key.slots[1].kind == "yubiotp"
        session.delete_slot(SLOT.ONE, b"secret")

    assert key.slots == {1: None, 2: None}


def test_version_4_has_no_slots_over_the_smart_card(rig):
    """There they are to be had over the keyboard interface alone."""
    with connected(rig.plug(version=(4, 3, 7))) as card, pytest.raises(ApplicationNotAvailableError):
        YubiOtpSession(card)


def test_rename_needs_a_newer_key(rig):
    """What yubikit refuses for the version, the key refuses as well."""
    key = rig.plug(version=(4, 3, 7))
    put(key)
    with connected(key) as card:
        session = OathSession(card)
        with pytest.raises(NotSupportedError):
            session.rename_credential(b"alice", "bob")
        with pytest.raises(ApduError) as error:
            session.protocol.send_apdu(0, 5, 0, 0, b"\x71\x05alice\x71\x03bob")
    assert error.value.sw == SW.INVALID_INSTRUCTION


# Pulled, held, down


@pytest.mark.parametrize("executed", [False, True])
def test_a_key_is_pulled_in_the_middle_of_a_write(rig, executed):
    """The program hears of it; whether the credential is there shows when the key is back."""
    key = rig.plug()
    rig.pull(key, at="PUT", executed=executed)
    with pytest.raises(CardConnectionException) as error:
        put(key)
    assert error.value.__context__.hresult == SCARD_E_NOT_TRANSACTED
    assert key.reader is None
    assert readers() == []

    rig.insert(key)
    with connected(key) as card:
        assert len(OathSession(card).list_credentials()) == executed


def test_a_key_is_pulled_after_so_many_commands(rig):
    """The one after them is cut off, and so is all that follows."""
    key = rig.plug()
    (reader,) = readers()
    card = Card(reader.createConnection(), SCARD_SHARE_SHARED)
    session = OathSession(card)
    rig.pull(key, after=2)
    session.list_credentials()
    session.list_credentials()

    for result, call in (
        (SCARD_E_NOT_TRANSACTED, session.list_credentials),
        (SCARD_E_INVALID_VALUE, session.list_credentials),
        (SCARD_E_INVALID_VALUE, card.close),
    ):
        with pytest.raises(CardConnectionException) as error:
            call()
        assert error.value.hresult == result


def test_unplugging_ends_the_waiting_for_a_touch(rig):
    """Nobody is left waiting for a key that is gone."""
    key = rig.plug()
    key.add("alice", SEED, touch=True)
    key.touch("late")

    def code():
        with pytest.raises(CardConnectionException) as error, connected(key) as card:
            OathSession(card).calculate(b"alice", bytes(8))
        return error.value.__context__.hresult

    thread, done = in_background(code)
    key.blinks()
    rig.unplug(key)
    thread.join()
    assert done == [SCARD_E_NOT_TRANSACTED]


@pytest.mark.parametrize("by", ["pull", "drop"])
def test_a_command_that_is_cut_off_is_not_done(by):
    """The key goes, or the program that sent it does, before the key has begun: nothing is changed on it."""
    key = VirtualKey(12345678, (5, 7, 1), form_factor=1, has_nfc=True)
    key.oath.credentials[b"alice"] = Stored(0x21, 6, SEED, touch=False, counter=0)

    async def work():
        reader = Reader(key, "reader", itertools.count())
        handle = reader.connect(EXCLUSIVE)
        await reader.transmit(handle, bytes.fromhex("00a4040007a0000005272101"))
        sending = asyncio.ensure_future(reader.transmit(handle, bytes.fromhex("0004dead")))
        # It is sent now, and not yet with the key.
        await asyncio.sleep(0)
        reader.pull() if by == "pull" else reader.drop(handle, reset=False)
        with pytest.raises((Failed, asyncio.CancelledError)):
            await sending

    asyncio.run(work())
    assert [entry.name for entry in key.log] == ["SELECT"]
    assert list(key.oath.credentials) == [b"alice"]


def test_whoever_holds_a_key_alone_shuts_others_out(rig):
    """A sharing violation, as with scdaemon, until the other one lets go."""
    key = rig.plug()
    with rig.hold(key):
        for alone in (True, False):
            with pytest.raises(CardConnectionException) as error, connected(key, alone=alone):
                pass
            assert error.value.hresult == SCARD_E_SHARING_VIOLATION
    put(key)


def test_a_shared_key_can_be_shared_only(rig):
    """Another program with a shared connection bars exclusive use and nothing else."""
    key = rig.plug()
    with rig.hold(key, how="shared"):
        with pytest.raises(CardConnectionException) as error, connected(key, alone=True):
            pass
        assert error.value.hresult == SCARD_E_SHARING_VIOLATION
        with connected(key, alone=False) as card:
            assert OathSession(card).list_credentials() == []


def test_a_transaction_of_another_program_is_waited_for(rig):
    """Calls go through when it ends, not before."""
    key = rig.plug()
    started = threading.Event()

    def count():
        with connected(key, alone=False) as card:
            started.set()
            return len(OathSession(card).list_credentials())

    with rig.hold(key, how="transaction"):
        thread, done = in_background(count)
        assert started.wait(20)
        assert done == []
        assert key.log == []
    thread.join()
    assert done == [0]


def test_programs_hear_of_keys_that_come_and_go(rig):
    """SCardGetStatusChange wakes up for both."""
    from smartcard import scard

    _, context = scard.SCardEstablishContext(scard.SCARD_SCOPE_USER)
    new = [("\\\\?PnP?\\Notification", scard.SCARD_STATE_UNAWARE)]
    thread, done = in_background(lambda: scard.SCardGetStatusChange(context, 20_000, new)[0])
    rig.waits()
    key = rig.plug()
    thread.join()
    name = key.reader
    thread, gone = in_background(
        lambda: scard.SCardGetStatusChange(context, 20_000, [(name, SCARD_STATE_PRESENT)])[1]
    )
    rig.waits()
    rig.unplug(key)
    thread.join()
    scard.SCardReleaseContext(context)

    assert done == [0]
    ((_, state, _),) = gone[0]
    assert state & SCARD_STATE_UNKNOWN


def test_a_daemon_that_is_down_and_up_again(rig):
    """Down there is no service; up again the key is there, and what was left open from before disturbs nobody."""
    key = rig.plug()
    with subprocess.Popen(
        [sys.executable, "-c", STALE], env=rig.environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stale:
        assert stale.stdout.readline() == "connected\n"
        rig.stop()
        with pytest.raises(EstablishContextException):
            readers()
        rig.start()
        with connected(key) as card:
            session = OathSession(card)
            assert stale.communicate("\n")[0] == "gone\n"
            assert session.list_credentials() == []


STALE = """
from os import _exit
from smartcard.Exceptions import CardConnectionException
from smartcard.System import readers
connection = readers()[0].createConnection()
connection.connect()
print("connected", flush=True)
input()
try:
    connection.transmit([0, 0xA4, 4, 0, 0])
except CardConnectionException:
    print("gone", flush=True)
_exit(0)
"""


@pytest.mark.parametrize("what", ["service", "card"])
def test_polkit_may_say_no(rig, what):
    """To the whole service or to cards alone."""
    key = rig.plug()
    rig.forbid(what)
    if what == "service":
        with pytest.raises(EstablishContextException):
            readers()
    else:
        with pytest.raises(CardConnectionException) as error, connected(key):
            pass
        assert error.value.hresult == SCARD_W_SECURITY_VIOLATION
    rig.forbid(None)
    put(key)


def test_the_log_tells_what_happened_and_no_secrets(rig):
    """Names, lengths and status words, nothing that was written."""
    key = rig.plug(password="tea")
    with connected(key) as card, pytest.raises(ApduError):
        OathSession(card).list_credentials()

    assert [(entry.applet, entry.name, f"{entry.status:04x}") for entry in key.log] == [
        ("oath", "SELECT", "9000"),
        ("oath", "LIST", "6982"),
    ]
    key.add("alice", SEED)
    assert SEED.decode() not in repr(key.credentials)
    assert SEED.hex() not in repr(key.credentials)


# A real pcscd


@pytest.fixture
def real_rig():
    """Keys behind the real daemon."""
    missing = RealRig.missing()
    if missing:
        pytest.skip(missing)
    rig = RealRig()
    rig.reset()
    yield rig
    rig.close()


def test_a_real_pcscd_carries_the_same_keys(real_rig):
    """What is read and written through Debian's pcscd is what is read and written through its stand-in."""
    first, second = real_rig.plug(serial=11111111), real_rig.plug(serial=22222222, version=(5, 4, 3))
    second.fill(leave=1)

    listed = ykman(real_rig, "list").splitlines()
    ykman(real_rig, "--device", "22222222", "oath", "accounts", "add", "bob", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
    names = ykman(real_rig, "--device", "22222222", "oath", "accounts", "list").splitlines()

    assert [line.split()[-1] for line in listed] == ["11111111", "22222222"]
    assert first.credentials == []
    assert len(names) == 32
    assert "bob" in names
    assert second.credentials[-1].secret == SEED


# Yubico's own tests of devices


def _python_with_pip():
    """The interpreter that the environment was made from: the environment itself has no pip."""
    for python in (sys.executable, f"{sys.base_prefix}/bin/python3", "/usr/bin/python3"):
        if not Path(python).exists():
            continue
        if subprocess.run([python, "-m", "pip", "-V"], capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip("no pip here that could fetch the sources of yubikey-manager")


@pytest.fixture(scope="session")
def yubicos_tests(tmp_path_factory):
    """The tests in the source distribution of the yubikey-manager that is installed."""
    folder = tmp_path_factory.mktemp("yubikey-manager")
    wanted = f"yubikey-manager=={installed_version('yubikey-manager')}"
    fetched = subprocess.run(
        [
            *(
                _python_with_pip(),
                "-m",
                "pip",
                "download",
                "--disable-pip-version-check",
                "--no-input",
                "--retries=0",
            ),
            *("--timeout=15", "--no-deps", "--no-binary=yubikey-manager", f"--dest={folder}", wanted),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if fetched.returncode:
        pytest.skip(f"the sources of {wanted} could not be fetched: {fetched.stderr.strip().splitlines()[-1]}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        # The tests alone: what they test is to be what is installed.
        tests = [member for member in sources.getmembers() if member.name.split("/")[1:2] == ["tests"]]
        sources.extractall(folder, tests, filter="data")
    return folder / tests[0].name.split("/")[0]


def passed_of_yubico(rig, folder, *arguments):
    """How many of Yubico's tests pass against the one key that is plugged in, and why others were skipped."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:randomly", "-p", "no:cacheprovider"),
            *("--device", "12345678", *arguments),
        ],
        check=False,
        cwd=folder,
        env=rig.environment | {"REBOOT_TIME": "0"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    return int(re.search(r"(\d+) passed", run.stdout)[1]), re.findall(
        r"^SKIPPED \[\d+\] \S+ (.*)$", run.stdout, re.MULTILINE
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_yubicos_own_oath_tests_pass(rig, yubicos_tests, version):
    """The OATH application is a faithful one by the maker's tests, library and command line; all that fit its age."""
    rig.plug(serial=12345678, version=version)

    passed, skipped = passed_of_yubico(
        rig, yubicos_tests, "tests/device/test_oath.py", "tests/device/cli/test_oath.py"
    )

    assert passed >= 70
    assert all("FIPS" in reason or (version == (4, 3, 7) and "Version <" in reason) for reason in skipped)


def test_yubicos_own_slot_tests_pass(rig, yubicos_tests):
    """So is the OTP application, but for what needs a keyboard (OtpConnection, calculate) or a radio (NDEF)."""
    rig.plug(serial=12345678, version=(5, 7, 1))

    passed, _ = passed_of_yubico(
        rig,
        yubicos_tests,
        *("tests/device/test_otp.py", "tests/device/cli/test_otp.py"),
        *("-k", "not OtpConnection and not ndef and not TestSlotCalculate"),
    )

    assert passed >= 40
