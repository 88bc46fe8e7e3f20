"""The rig that tests hold in their hands: what it offers stands in tests/devices/conftest.py."""

from __future__ import annotations

import atexit
import functools
import gc
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

_PATIENCE = 20
"""Seconds after which something that a test waits for does not come any more."""


@dataclass(frozen=True, slots=True)
class Credential:
    """What is on a key, as it is stored there."""

    id: bytes
    secret: bytes = field(repr=False)
    kind: str
    algorithm: str
    digits: int
    touch: bool
    counter: int


@dataclass(frozen=True, slots=True)
class Slot:
    """What a slot is programmed with."""

    kind: str
    fixed: bytes
    private_id: bytes = field(repr=False)
    secret: bytes = field(repr=False)
    access_code: bytes = field(repr=False)
    digits: int
    enter: bool


@dataclass(frozen=True, slots=True)
class Apdu:
    """A line of a key's log."""

    applet: str
    name: str
    length: int
    status: int


class Key:
    """A virtual key."""

    def __init__(self, rig: Rig, number: int, serial: int | None, version: tuple[int, int, int]):
        self._rig = rig
        self._number = number
        self.serial = serial
        self.version = version

    def __repr__(self) -> str:
        return f"Key({self.serial}, {'.'.join(map(str, self.version))})"

    def _do(self, name, **arguments):
        return self._rig.do(name, key=self._number, **arguments)

    @property
    def reader(self) -> str | None:
        """The name of the reader that it is."""
        return self._do("reader")

    @property
    def credentials(self) -> list[Credential]:
        """What is on it."""
        return [
            Credential(**{**fields, "id": bytes.fromhex(fields["id"]), "secret": bytes.fromhex(fields["secret"])})
            for fields in self._do("credentials")
        ]

    def add(self, id, secret, *, kind="totp", algorithm="sha1", digits=6, touch=False, counter=0):  # noqa: A002
        """Puts a credential on it."""
        name = id.encode() if isinstance(id, str) else id
        options = {"kind": kind, "algorithm": algorithm, "digits": digits, "touch": touch, "counter": counter}
        self._do("add", id=name.hex(), secret=secret.hex(), **options)

    def fill(self, leave: int = 0) -> None:
        """Leaves so many places."""
        self._do("fill", leave=leave)

    def password(self, text: str | None) -> None:
        """Sets the access password."""
        self._do("password", text=text)

    @property
    def locked(self) -> bool:
        """Whether there is an access password."""
        return self._do("locked")

    @property
    def slots(self) -> dict[int, Slot | None]:
        """What the two slots do."""
        return {int(number): slot and _slot(slot) for number, slot in self._do("slots").items()}

    def program(self, slot, *, kind="yubiotp", fixed=b"", private_id=bytes(6), secret, access_code=b"", digits=6):
        """Programs a slot."""
        binary = {"fixed": fixed, "private_id": private_id, "secret": secret, "access_code": access_code}
        arguments = {name: value.hex() for name, value in binary.items()}
        self._do("program", slot=slot, kind=kind, digits=digits, **arguments)

    def press(self, slot: int) -> str:
        """What it types."""
        return self._do("press", slot=slot)

    def touch(self, when: str) -> None:
        """given, late or never."""
        self._do("touch", when=when)

    def blinks(self) -> None:
        """Returns when it waits for a touch."""
        self._do("blinks")

    @property
    def log(self) -> list[Apdu]:
        """What it was told."""
        return [Apdu(*entry) for entry in self._do("log")]


def _slot(fields: dict) -> Slot:
    binary = ("fixed", "private_id", "secret", "access_code")
    return Slot(**{name: bytes.fromhex(value) if name in binary else value for name, value in fields.items()})


class Held:
    """A key in the hands of another program."""

    def __init__(self, rig: Rig, number: int):
        self._rig = rig
        self._number = number

    def release(self) -> None:
        """Lets go of it."""
        self._rig.do("release", holder=self._number)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_exc) -> None:
        self.release()


class Rig:
    """Places for keys, in a process that ends with this one."""

    _SOCKET = "pcscd.comm"
    _COMMAND = (sys.executable, "-m", "virtualkey.service")

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="virtualkey-"))
        self._process: subprocess.Popen[str] | None = None
        atexit.register(self.close)

    @property
    def settings(self) -> dict[str, str]:
        """What leads libpcsclite here."""
        return {"PCSCLITE_CSOCK_NAME": str(self._folder / self._SOCKET)}

    @property
    def environment(self) -> dict[str, str]:
        """For subprocesses."""
        return os.environ | self.settings

    def reset(self) -> None:
        """Nothing plugged in, everything allowed, running."""
        if self._process is None or self._process.poll() is not None:
            self._launch()
        self.do("reset")

    def _launch(self) -> None:
        shutil.rmtree(self._folder)
        self._folder.mkdir(mode=0o700)
        self._process = subprocess.Popen(
            [*self._COMMAND, str(self._folder)],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the process with the virtual keys did not start")

    def close(self) -> None:
        """Ends the process."""
        atexit.unregister(self.close)
        if self._process is not None:
            self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def do(self, name: str, **arguments):
        """Asks the process for something; raises AssertionError where it cannot, TimeoutError where nothing comes."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(str(self._folder / "control"))
            sock.sendall(json.dumps([name, arguments]).encode() + b"\n")
            with sock.makefile("r", encoding="utf-8") as lines:
                result, error = json.loads(lines.readline())
        if error is not None:
            raise AssertionError(f"the rig cannot {name}: {error}")
        return result

    def plug(
        self,
        serial=12345678,
        version=(5, 7, 1),
        *,
        form_factor="usb-a",
        nfc=True,
        oath=True,
        otp=True,
        password=None,
        capacity=None,
    ) -> Key:
        """A new key."""
        features = {"form_factor": form_factor, "nfc": nfc, "oath": oath, "otp": otp, "capacity": capacity}
        number = self.do("make", serial=serial, version=version, **features)
        key = Key(self, number, serial, tuple(version))
        if password is not None:
            key.password(password)
        self.insert(key)
        return key

    def insert(self, key: Key) -> None:
        """A key that was out."""
        self.do("insert", key=key._number)

    def unplug(self, key: Key) -> None:
        """A key goes out."""
        self.do("unplug", key=key._number)

    def pull(self, key: Key, *, after: int = 0, at: str | None = None, executed: bool = False) -> None:
        """A key goes out in the middle of an APDU."""
        self.do("pull", key=key._number, after=after, at=at, executed=executed)

    def hold(self, key: Key, how: str = "exclusive") -> Held:
        """Another program holds it."""
        return Held(self, self.do("hold", key=key._number, how=how))

    def stop(self) -> None:
        """The daemon is down."""
        # What earlier tests left to the garbage collector says goodbye while there is somebody to say it to.
        gc.collect()
        self.do("stop")

    def start(self) -> None:
        """The daemon is up."""
        self.do("start")

    def forbid(self, what: str | None) -> None:
        """What polkit does not allow."""
        self.do("forbid", what=what)

    def waits(self, n: int = 1) -> None:
        """Returns when n clients wait for changes of readers."""
        self.do("waits", count=n)

    def looked(self) -> None:
        """Returns when a client has listed the readers since one came or went, and waits again."""
        self.do("looked")


class RealRig(Rig):
    """The same keys behind a real pcscd in namespaces of its own, for subprocesses: two keys, not one or three."""

    _SOCKET = "run/pcscd.comm"
    _NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount", "--net")
    _COMMAND = (*_NAMESPACES, sys.executable, "-m", "virtualkey.vpcd")

    @classmethod
    def missing(cls) -> str | None:
        """What stands in the way of one on this machine, None if nothing."""
        for needed in ("/usr/sbin/pcscd", "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"):
            if not Path(needed).exists():
                return f"{needed} is not installed (Debian: pcscd, vsmartcard-vpcd)"
        if shutil.which("ip") is None:
            return "ip is not installed (Debian: iproute2)"
        if subprocess.run([*cls._NAMESPACES, "true"], capture_output=True, check=False).returncode:
            return "namespaces of one's own are not allowed here"
        return None


@functools.cache
def shared_rig() -> Rig:
    """The one of this process: libpcsclite reads the path of its socket only once."""
    return Rig()
