"""Ask the security keys that are plugged in, as a browser would: registration and assertion (WebAuthn level 3).

    ceremony = Ceremony(person, seconds=30)
    answer = ceremony.assertion(options, "https://host.example.org")     # another thread may call ceremony.cancel()

Where several keys are plugged in, those that cannot answer are left out, the others are asked at once, and the one
that is touched is the one. Each key has a thread of its own; the person is spoken to in the caller's.
"""

from __future__ import annotations

import json
import queue
import threading
import time
import unicodedata
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from fido2.client import ClientError, DefaultClientDataCollector, Fido2Client, UserInteraction
from fido2.ctap import CtapDevice, CtapError
from fido2.ctap1 import APDU, ApduError, Ctap1
from fido2.ctap2.base import Ctap2
from fido2.ctap2.pin import ClientPin
from fido2.utils import sha256
from fido2.webauthn import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialCreationOptions,
    PublicKeyCredentialDescriptor,
    PublicKeyCredentialRequestOptions,
    RegistrationResponse,
    UserVerificationRequirement,
)

from otpbridge.devices import fido_find, fido_words
from otpbridge.errors import (
    AccountExistsError,
    DeviceError,
    GivenUpError,
    NoAccountError,
    NoDeviceError,
    PinBlockedError,
    TouchTimeoutError,
)
from otpbridge.model import Secret

T = TypeVar("T")

_LEAVING_SECONDS = 1.0
"""How long we wait for keys that we do not need any more to stop blinking."""


@dataclass(frozen=True, slots=True)
class PinWanted:
    """A key wants its PIN: `tries_left` until it blocks itself; `wrong` says that the last one was not it."""

    key: str
    tries_left: int
    wrong: bool


class Person(Protocol):
    """Who sits before the keys."""

    def touch(self, key: str, seconds: float) -> None:
        """A key waits to be touched, for so many seconds. An empty `key`: several wait, the person chooses."""

    def pin(self, wanted: PinWanted) -> Secret | None:
        """The PIN of a key; None where the person gives none."""


class Node(Protocol):
    """A key that is plugged in; `str` gives what to call it."""

    def open(self, stop: threading.Event) -> CtapDevice:
        """A connection, on which nothing takes long once `stop` is set. Raises DeviceError."""


class Ceremony:
    """One registration or one assertion. It takes `seconds` at most, without the time that a PIN takes."""

    def __init__(self, person: Person, seconds: float, plugged: Callable[[], Sequence[Node]] | None = None) -> None:
        self._person = person
        self._seconds = seconds
        self._deadline = 0.0
        self._plugged = plugged or fido_find.plugged
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._several = False
        self._told: str | None = None

    def cancel(self) -> None:
        """Call it off, from any thread: keys stop blinking, and GivenUpError is raised."""
        self._inbox.put(_Cancelled())

    def register(self, options: str, origin: str) -> str:
        """Make a credential: PublicKeyCredentialCreationOptionsJSON in, RegistrationResponseJSON out.

        Raises DeviceError: AccountExistsError where a key is registered already, PinBlockedError, NoPinError,
        TouchTimeoutError, GivenUpError, DeviceGoneError, NoDeviceError, NotAllowedError.
        """
        asked = _read(PublicKeyCredentialCreationOptions, options)
        present = asked.exclude_credentials or ()

        def make(worker: _Worker) -> str:
            if _holds(worker, asked.rp.id, present):
                raise AccountExistsError(f"{worker.name} is registered for this user already")
            fitting = replace(asked, timeout=None, authenticator_selection=_selection(asked, worker))
            made = worker.client(origin).make_credential(fitting, event=worker.stop)
            return json.dumps(_registration_json(made, worker.transports), separators=(",", ":"))

        with self._keys() as workers:
            chosen = workers[0] if len(workers) == 1 else self._choice(workers)
            return self._first([chosen], make)

    def assertion(self, options: str, origin: str) -> str:
        """Have a key sign: PublicKeyCredentialRequestOptionsJSON in, AuthenticationResponseJSON out.

        Raises DeviceError: NoAccountError where no key is one of this user, else as `register`.
        """
        asked = _read(PublicKeyCredentialRequestOptions, options)
        known = asked.allow_credentials or ()

        def look(worker: _Worker) -> bool:
            worker.verifies = _verifies(worker, asked.user_verification)
            return _holds(worker, asked.rp_id, known)

        def sign(worker: _Worker) -> str:
            fitting = replace(asked, timeout=None, user_verification=_requirement(asked.user_verification, worker))
            signed = worker.client(origin).get_assertion(fitting, event=worker.stop)
            return json.dumps(dict(signed.get_response(0)), separators=(",", ":"))

        with self._keys() as workers:
            holding = [worker for worker, holds in self._all(workers, look) if holds]
            if not holding:
                names = ", ".join(worker.name for worker in workers)
                raise NoAccountError(f"none of the keys that are plugged in is one of this user ({names})")
            if len(holding) > 1 and any(worker.verifies for worker in holding):
                # Nobody wants to give the PIN of each.
                holding = [self._choice(holding)]
            return self._first(holding, sign)

    # --- the keys ---

    def _keys(self) -> _Leaving:
        """Connections to all keys, left when the block ends."""
        nodes = self._plugged()
        if not nodes:
            raise NoDeviceError("no security key is plugged in")
        self._deadline = time.monotonic() + self._seconds
        self._workers = [_Worker(node, self._inbox) for node in nodes]
        return _Leaving(self)

    def _choice(self, workers: Sequence[_Worker]) -> _Worker:
        """The key that is touched."""

        def select(worker: _Worker) -> _Worker:
            worker.blink()
            return worker

        return self._first(workers, select)

    def _first(self, workers: Sequence[_Worker], job: Callable[[_Worker], T]) -> T:
        """What the first key that succeeds gives; the others are told to stop."""
        self._several, self._told = len(workers) > 1, None
        failures: list[DeviceError] = []
        running = set(workers)
        for worker in workers:
            worker.begin(job)
        while running:
            done = self._next_done(running)
            running.discard(done.worker)
            if done.error is None:
                for other in running:
                    other.stop.set()
                return done.result  # type: ignore[no-any-return]  # it is what `job` gave
            failures.append(done.error)
        raise failures[0]

    def _all(self, workers: Sequence[_Worker], job: Callable[[_Worker], T]) -> list[tuple[_Worker, T]]:
        """What each key gives. Keys that fail are left out, unless all of them do."""
        for worker in workers:
            worker.begin(job)
        ended = [self._next_done(workers) for _ in workers]
        found: list[tuple[_Worker, T]] = [(done.worker, done.result) for done in ended if done.error is None]
        if not found and ended[0].error is not None:
            raise ended[0].error
        return found

    def _next_done(self, running: Collection[_Worker]) -> _Done:
        """The end of a job of one of these; until it comes, the person is told what they want."""
        while True:
            try:
                message = self._inbox.get(timeout=max(0.0, self._deadline - time.monotonic()))
            except queue.Empty:
                raise TouchTimeoutError(f"nobody touched the key within {self._seconds:g} s") from None
            if isinstance(message, _Cancelled):
                raise GivenUpError("called off")
            if message.worker not in running:
                # A key that was not chosen has not stopped yet.
                continue
            match message:
                case _Touch(worker):
                    self._tell_touch("" if self._several else worker.name)
                case _Pin(worker, wanted):
                    began = time.monotonic()
                    worker.pins.put(self._person.pin(wanted))
                    self._deadline += time.monotonic() - began
                    self._told = None
                case _Done():
                    return message

    def _tell_touch(self, name: str) -> None:
        """Once, although a key may say so several times while it waits."""
        if self._told != name:
            self._told = name
            self._person.touch(name, max(0.0, self._deadline - time.monotonic()))

    def leave(self) -> None:
        """Have all keys stop, and wait a little until they have."""
        for worker in self._workers:
            worker.leave()
        until = time.monotonic() + _LEAVING_SECONDS
        for worker in self._workers:
            worker.thread.join(max(0.0, until - time.monotonic()))


class _Leaving:
    """Leaves the keys of a ceremony, however it ends."""

    def __init__(self, ceremony: Ceremony) -> None:
        self._ceremony = ceremony

    def __enter__(self) -> list[_Worker]:
        return self._ceremony._workers  # noqa: SLF001 - a part of it

    def __exit__(self, *_: object) -> None:
        self._ceremony.leave()


# --- what the threads of keys say ---


@dataclass(frozen=True, slots=True)
class _Cancelled:
    pass


@dataclass(frozen=True, slots=True)
class _Touch:
    worker: _Worker


@dataclass(frozen=True, slots=True)
class _Pin:
    worker: _Worker
    wanted: PinWanted


@dataclass(frozen=True, slots=True)
class _Done:
    worker: _Worker
    result: Any = None
    error: DeviceError | None = None


_Message = _Cancelled | _Touch | _Pin | _Done
_Job = Callable[["_Worker"], Any]


class _Worker(UserInteraction):
    """The thread of one key: one job after another, until it is told to leave."""

    def __init__(self, node: Node, inbox: queue.SimpleQueue[_Message]) -> None:
        self.name = str(node)
        self.stop = threading.Event()
        self.pins: queue.SimpleQueue[Secret | None] = queue.SimpleQueue()
        self._node = node
        self._inbox = inbox
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._device: CtapDevice | None = None
        self._wrong = False
        self.verifies = False
        """Whether the key will ask who uses it."""
        self.thread = threading.Thread(target=self._run, name="otpbridge-fido", daemon=True)
        self.thread.start()

    def begin(self, job: _Job) -> None:
        """Have the key do this next."""
        self._jobs.put(job)

    def leave(self) -> None:
        """Stop what the key does, and let go of it."""
        self.stop.set()
        self.pins.put(None)
        self._jobs.put(None)

    # --- in the thread ---

    @property
    def device(self) -> CtapDevice:
        """The connection to the key."""
        assert self._device is not None, "a job runs on an open connection"
        return self._device

    @property
    def transports(self) -> list[str]:
        """How the key says it can be reached."""
        ctap = self.ctap2()
        return (list(ctap.info.transports) if ctap is not None else []) or ["usb"]

    def ctap2(self) -> Ctap2 | None:
        """The key as one that speaks CTAP2; None for one that knows only U2F."""
        try:
            return Ctap2(self.device)
        except ValueError:
            return None

    def client(self, origin: str) -> Fido2Client:
        """The client's half of a ceremony."""
        # No extensions: none is asked for.
        return Fido2Client(self.device, DefaultClientDataCollector(origin), user_interaction=self, extensions=[])

    def blink(self) -> None:
        """Wait for a touch that only says: this key."""
        self._inbox.put(_Touch(self))
        self.client("").selection(self.stop)

    def prompt_up(self) -> None:
        """See fido2.client."""
        self._inbox.put(_Touch(self))

    def request_pin(self, _permissions: ClientPin.PERMISSION, _rp_id: str | None) -> str:
        """See fido2.client. Raises DeviceError where there is no use in asking."""
        tries, blocked = ClientPin(Ctap2(self.device)).get_pin_retries()
        if not tries:
            raise PinBlockedError(fido_words.BLOCKED.format(key=self.name))
        if blocked:
            raise PinBlockedError(fido_words.PULL.format(key=self.name))
        self._inbox.put(_Pin(self, PinWanted(self.name, tries, self._wrong)))
        given = self.pins.get()
        if given is None or not len(given):
            raise GivenUpError("no PIN was given")
        # CTAP 2.1 §6.5.1: in normalization form C, so that the same characters are the same PIN on every keyboard.
        return unicodedata.normalize("NFC", given.reveal().decode())

    def _run(self) -> None:
        failed: DeviceError | None = None
        try:
            self._device = self._node.open(self.stop)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises is told in words
            failed = fido_words.of(error, self.name)
        while (job := self._jobs.get()) is not None:
            self._inbox.put(self._done(job) if failed is None else _Done(self, error=failed))
        if self._device is not None:
            # A key that was pulled cannot be left.
            with suppress(OSError):
                self._device.close()

    def _done(self, job: _Job) -> _Done:
        self._wrong = False
        while True:
            try:
                return _Done(self, job(self))
            except ClientError as error:
                if fido_words.wrong_pin(error) and not self.stop.is_set():
                    self._wrong = True
                    continue
                return _Done(self, error=fido_words.of(error, self.name))
            except Exception as error:  # noqa: BLE001 - whatever the library raises is told in words
                return _Done(self, error=fido_words.of(error, self.name))


# --- what a key is asked, and what it can do ---


def _read(kind: type[T], options: str) -> T:
    """Options as the library has them. Raises DeviceError."""
    try:
        return kind.from_dict(json.loads(options))  # type: ignore[attr-defined, no-any-return]  # both kinds have it
    except (ValueError, TypeError, KeyError) as error:
        raise DeviceError("what the key is to be asked cannot be understood") from error


def _holds(worker: _Worker, rp_id: str | None, listed: Sequence[PublicKeyCredentialDescriptor]) -> bool:
    """Whether a credential of these may be on the key. It is asked without a touch; one that will not say so may."""
    ctap = worker.ctap2()
    if not listed or rp_id is None:
        return False
    if ctap is None:
        return any(_u2f_holds(Ctap1(worker.device), rp_id, each.id) for each in listed)
    return any(_fido2_holds(ctap, rp_id, each.id) for each in listed)


def _fido2_holds(ctap: Ctap2, rp_id: str, credential: bytes) -> bool:
    if 0 < ctap.info.max_cred_id_length < len(credential):
        return False
    descriptor = {"type": "public-key", "id": credential}
    try:
        ctap.get_assertion(rp_id, bytes(32), [descriptor], options={"up": False})
    except CtapError as error:
        if error.code in {CtapError.ERR.NO_CREDENTIALS, CtapError.ERR.INVALID_CREDENTIAL}:
            return False
        if error.code == CtapError.ERR.PUAT_REQUIRED:
            return True
        raise
    return True


def _u2f_holds(ctap: Ctap1, rp_id: str, credential: bytes) -> bool:
    try:
        ctap.authenticate(bytes(32), sha256(rp_id.encode()), credential, check_only=True)
    except ApduError as error:
        return error.code == APDU.USE_NOT_SATISFIED
    return True


def _can_verify(worker: _Worker) -> bool:
    """Whether the key can ask who uses it, now: a PIN is set, or a finger is known."""
    ctap = worker.ctap2()
    return ctap is not None and any(ctap.info.options.get(each) for each in ("uv", "clientPin", "bioEnroll"))


def _requirement(asked: UserVerificationRequirement | None, worker: _Worker) -> UserVerificationRequirement:
    """What is asked of this key. The library refuses keys without a PIN where one is only preferred (§5.8.6)."""
    asked = asked or UserVerificationRequirement.PREFERRED
    if asked == UserVerificationRequirement.PREFERRED and not _can_verify(worker):
        return UserVerificationRequirement.DISCOURAGED
    return asked


def _verifies(worker: _Worker, asked: UserVerificationRequirement | None) -> bool:
    """Whether the key will ask who uses it."""
    if _requirement(asked, worker) != UserVerificationRequirement.DISCOURAGED:
        return True
    ctap = worker.ctap2()
    return ctap is not None and bool(ctap.info.options.get("alwaysUv"))


def _selection(asked: PublicKeyCredentialCreationOptions, worker: _Worker) -> AuthenticatorSelectionCriteria:
    criteria = asked.authenticator_selection or AuthenticatorSelectionCriteria()
    return replace(criteria, user_verification=_requirement(criteria.user_verification, worker))


def _registration_json(made: RegistrationResponse, transports: list[str]) -> dict[str, Any]:
    """RegistrationResponseJSON (§5.1, toJSON): the library leaves out what browsers read from the attestation."""
    given = dict(made)
    data = made.response.attestation_object.auth_data
    response = dict(given["response"])
    response["transports"] = transports
    response["authenticatorData"] = fido_words.encoded(bytes(data))
    if data.credential_data is not None:
        response["publicKeyAlgorithm"] = data.credential_data.public_key[3]
    return {**given, "response": response}
