"""A slot of a key as a token: programmed, touched, proven by what it types. A failure leaves nothing behind."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from otpbridge.cli import ask, show
from otpbridge.cli.enrolling import required
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.proof import call_with_proof
from otpbridge.cli.yubikey_loop import Enrolled, Undo, confirm
from otpbridge.cli.yubikey_reach import Reach
from otpbridge.devices.keys import Key
from otpbridge.errors import EnrolError
from otpbridge.model import Algorithm, Kind, Secret

if TYPE_CHECKING:
    from otpbridge.client import Client
    from otpbridge.devices.otp import HotpSlot, YubiOtpSlot
    from otpbridge.wire.messages import Start, StartReply

_TRIES = 3
_MODHEX_TO_HEX = str.maketrans("cbdefghijklnrtuv", "0123456789abcdef")
HOW = {1: "a short touch", 2: "hold it for 3 seconds"}
_ACCESS_CODE_DIGITS = 12


def check_usage(kind: Kind, slot: int | None, *, slot_only: bool) -> None:
    """Raise UsageError unless this kind goes with a slot, or with none; `slot_only`: an option that needs one."""
    if slot is None and kind is Kind.YUBIOTP:
        raise click.UsageError("Yubico OTP is typed by a slot: say which with --slot 1 or --slot 2")
    if slot is None and slot_only:
        raise click.UsageError("--force and --access-code are for slots: they go with --slot")
    if slot is not None and kind is Kind.TOTP:
        raise click.UsageError("a slot has no clock: use --kind yubiotp or --kind hotp")


@dataclass(frozen=True, slots=True)
class WantedSlot:
    """What is to be enrolled in which slot of which key."""

    request: Start
    key: Key
    slot: int
    force: bool = False
    access_code: Secret | None = None


def ask_access_code() -> Secret:
    """The access code that protects a slot: asked for, or a line of standard input. Raises CommandError."""
    text = ask.hidden("Access code of the slot (12 hex digits): ").strip()
    try:
        code = bytes.fromhex(text)
    except ValueError:
        code = b""
    if len(text) != _ACCESS_CODE_DIGITS or not any(code):
        raise CommandError(
            Code.USAGE, "an access code is 12 hex digits, not all of them zero", "BadParameters"
        ) from None
    return Secret(code)


def check_codes(kind: Kind, algorithm: Algorithm | None, digits: int | None) -> None:
    """Raise EnrolError unless a slot can compute such codes."""
    if algorithm not in {None, Algorithm.SHA1}:
        raise EnrolError("a slot computes SHA1 alone")
    if kind is Kind.HOTP and digits not in {None, 6, 8}:
        raise EnrolError("a slot shows 6 or 8 digits")


def enrol(reach: Reach, daemon: Client, wanted: WantedSlot) -> Enrolled:
    """Program a slot, and put what it types in force. Raises with nothing left, or says what is."""
    from otpbridge.devices.otp import open_slots  # noqa: PLC0415 - the libraries may be missing

    key, slot = wanted.key, wanted.slot
    check_codes(wanted.request.kind, wanted.request.algorithm, wanted.request.digits)
    with open_slots(key) as slots:
        slots.check(slot, force=wanted.force)
    started = call_with_proof(daemon, wanted.request, wanted.request.user, wanted.request.client)
    what = f"slot {slot}"
    with Undo(reach, daemon, started) as undo:
        program = program_of(started)
        with open_slots(key) as slots:
            slots.check(slot, force=wanted.force)
            undo.also(key, lambda: _clear(wanted), what)
            slots.program(slot, program, force=wanted.force, access_code=wanted.access_code)
        show.note(f"{what} of {key} is programmed.")
        reply = None
        for left in reversed(range(_TRIES if sys.stdin.isatty() else 1)):
            typed = ask.code(f"Touch {key} now, with the cursor here (slot {slot}: {HOW[slot]}): ")
            try:
                reply = confirm(reach, daemon, started, typed.strip(), [key])
                break
            except CommandError as error:
                if not left or error.name != "NotConfirmed":
                    raise
                show.note(f"otpbridge: {error}")
        assert reply is not None
        return Enrolled(started, reply, (key,), what)


def program_of(started: StartReply) -> YubiOtpSlot | HotpSlot:
    """What makes a slot compute the codes of a token. Raises EnrolError."""
    from otpbridge.devices.otp import HotpSlot, YubiOtpSlot  # noqa: PLC0415 - the libraries may be missing

    seed = Secret(bytes.fromhex(started.seed_hex))
    if started.kind is Kind.YUBIOTP:
        public_id = bytes.fromhex(required(started.public_id).translate(_MODHEX_TO_HEX))
        return YubiOtpSlot(public_id, Secret(bytes.fromhex(required(started.private_id))), seed)
    from otpbridge.enroll import otpauth  # noqa: PLC0415 - not needed for --help

    parameters = otpauth.parse(required(started.uri)).parameters
    if parameters.algorithm is not Algorithm.SHA1 or parameters.digits not in {6, 8}:
        raise EnrolError(
            "policy asks for codes that a slot cannot compute; name --algorithm SHA1 and --digits 6 or 8"
        )
    return HotpSlot(seed, parameters.digits)


def _clear(wanted: WantedSlot) -> None:
    """Empty the slot, where it holds anything."""
    from otpbridge.devices.otp import open_slots  # noqa: PLC0415 - the libraries may be missing

    with open_slots(wanted.key) as slots:
        if slots.programmed(wanted.slot):
            slots.clear(wanted.slot, wanted.access_code)
