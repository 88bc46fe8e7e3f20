"""Exit codes, and the words for what the daemon answers: one table."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from otpbridge.errors import ConfigError, DeviceError, EnrolError, OtpBridgeError, ProtocolError, RemoteError

if TYPE_CHECKING:
    from otpbridge.model import Verdict


class Code(enum.IntEnum):
    """Exit codes, the same for every command."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNAVAILABLE = 3
    NOT_PERMITTED = 4
    INTERRUPTED = 130
    PIPE_CLOSED = 141


class CommandError(OtpBridgeError):
    """A command cannot go on. `name` is for programs, the message for people."""

    def __init__(self, code: Code, message: str, name: str = "Refused") -> None:
        self.code = code
        self.name = name
        super().__init__(message)


class PipeClosedError(OtpBridgeError):
    """Nobody reads the output any more."""


class _Row(NamedTuple):
    code: Code
    words: Callable[[Mapping[str, Any]], str]


def _user(given: Mapping[str, Any]) -> str:
    client = given.get("client", "local")
    return f"{given.get('user')}" if client == "local" else f"{given.get('user')} of client {client}"


def _called(given: Mapping[str, Any]) -> str:
    client = given.get("client", "local")
    return f"{given.get('user')}" if client == "local" else f"{given.get('user')} --client {client}"


_STATE_ADVICE = {
    "pending": "it is not confirmed yet: otpbridge token confirm",
    "active": "it is in force already",
    "disabled": "enable it first: otpbridge token enable",
    "revoked": "it is gone for good; enrol a new one: otpbridge enroll",
}

_LIMITS = {
    "seconds": "; an exemption lasts 30 days at most, a registration code 1 minute to 30 days",
    "reason": "; it has 500 characters at most",
    "client": "; a client is named in lower case letters, digits and . _ -, 64 at most",
    "user": "; a user has a name of 1 to 256 bytes",
    "host": "; a host has a name in lower case, as in web1.example",
    "days": "; a certificate is valid for 1 to 3650 days",
    "serial": "; a serial number is in hexadecimal digits",
}

_OLD_DAEMON = "the daemon does not know this call; it is of another version: restart it"

_TABLE: dict[str, _Row] = {
    "NoSuchUser": _Row(Code.REFUSED, lambda given: f"there is no user {_user(given)}; see: otpbridge user list"),
    "UserExists": _Row(Code.REFUSED, lambda given: f"there is a user {_user(given)} already"),
    "NoSuchToken": _Row(
        Code.REFUSED, lambda given: f"there is no token {given.get('token')}; see: otpbridge token list"
    ),
    "WrongState": _Row(
        Code.REFUSED,
        lambda given: (
            f"token {given.get('token')} is {given.get('state')}:"
            f" {_STATE_ADVICE.get(str(given.get('state')), 'this cannot be done now')}"
        ),
    ),
    "NotConfirmed": _Row(
        Code.REFUSED,
        lambda given: (
            f"{_user(given)} has no confirmed token and would be locked out; enrol one first (otpbridge enroll),"
            " or as an admin use --force"
        ),
    ),
    "Locked": _Row(
        Code.REFUSED, lambda given: f"{_user(given)} is locked; unlock first: otpbridge user unlock {_called(given)}"
    ),
    "NoAuthenticator": _Row(
        Code.REFUSED,
        lambda given: (
            f"{_user(given)} has no authenticator yet, and recovery codes only stand in for one;"
            f" enrol one first: otpbridge enroll totp {_called(given)}"
        ),
    ),
    "LastToken": _Row(
        Code.REFUSED,
        lambda given: (
            f"token {given.get('token')} is the last one and a code is required: without it nobody gets in;"
            " make it optional first (otpbridge user optional), or enrol another"
        ),
    ),
    "BadParameters": _Row(Code.USAGE, lambda given: str(given.get("reason"))),
    "KeyNotRotatable": _Row(Code.REFUSED, lambda given: str(given.get("reason"))),
    "AtCentre": _Row(
        Code.REFUSED,
        lambda given: (
            "this host is a relay and keeps no users, tokens or log; do this at the centre"
            f" ({', '.join(map(str, given.get('centres', ())))})"
        ),
    ),
    "NoRelay": _Row(Code.REFUSED, lambda _given: "this daemon is no relay"),
    "ForeignAuthority": _Row(
        Code.REFUSED,
        lambda _given: (
            "[relays] authority names an authority of your own: have it issue the certificate, for clients"
            " (extendedKeyUsage clientAuth), with the host's name as its only dNSName"
        ),
    ),
    "NoSuchCertificate": _Row(
        Code.REFUSED,
        lambda given: f"no certificate of {given.get('host')} is in force here; see: otpbridge relay list",
    ),
    "Failed": _Row(Code.UNAVAILABLE, lambda given: f"the daemon failed, nothing was changed: {given.get('reason')}"),
    "Unavailable": _Row(
        Code.UNAVAILABLE,
        lambda _given: "the daemon cannot do this now, nothing was changed; see its log: journalctl -u otpbridged",
    ),
    "Busy": _Row(Code.REFUSED, lambda given: f"too many attempts; nothing is judged for {given.get('retryAfter')} s"),
    "ProofNeeded": _Row(
        Code.NOT_PERMITTED, lambda _given: "this needs a code of your present token, and none was given"
    ),
    "UnknownStack": _Row(
        Code.USAGE, lambda given: f"there is no stack {given.get('stack')}; stacks are named in otpbridge.toml"
    ),
    "NoSuchSession": _Row(Code.REFUSED, lambda _given: "the conversation took too long; start again"),
    "PermissionDenied": _Row(
        Code.NOT_PERMITTED,
        lambda _given: (
            "you may not do this: you may act for yourself; for others, be root or in the group otpbridge-admin,"
            " or be named as a caller in otpbridge.toml"
        ),
    ),
    "InvalidParameter": _Row(
        Code.USAGE,
        lambda given: (
            f"the daemon does not take this value: {given.get('parameter')}"
            f"{_LIMITS.get(str(given.get('parameter')), '')}"
        ),
    ),
    "MethodNotFound": _Row(Code.UNAVAILABLE, lambda _given: _OLD_DAEMON),
    "MethodNotImplemented": _Row(Code.UNAVAILABLE, lambda _given: _OLD_DAEMON),
    "InterfaceNotFound": _Row(Code.UNAVAILABLE, lambda _given: _OLD_DAEMON),
    "ExpectedMore": _Row(Code.UNAVAILABLE, lambda _given: _OLD_DAEMON),
}


def short_name(error: RemoteError) -> str:
    """The name of a remote error without its interface."""
    return error.name.rpartition(".")[2]


def explain(error: OtpBridgeError) -> CommandError:
    """Turn any error of the tree into an exit code, a name and a message for people."""
    if isinstance(error, CommandError):
        return error
    if isinstance(error, RemoteError):
        row = _TABLE.get(short_name(error))
        if row is None:
            return CommandError(Code.UNAVAILABLE, f"the daemon answered {error}", short_name(error))
        return CommandError(row.code, row.words(error.parameters), short_name(error))
    if isinstance(error, ProtocolError):
        return CommandError(Code.UNAVAILABLE, str(error), "Unavailable")
    if isinstance(error, DeviceError):
        name = type(error).__name__.removesuffix("Error")
        return CommandError(_DEVICES.get(name, Code.REFUSED), str(error), name)
    usage = isinstance(error, ConfigError | EnrolError)
    return CommandError(Code.USAGE, str(error), "BadParameters") if usage else CommandError(Code.REFUSED, str(error))


_DEVICES = {
    "NoLibrary": Code.UNAVAILABLE,
    "ReaderService": Code.UNAVAILABLE,
    "NotAllowed": Code.NOT_PERMITTED,
    "ManyDevices": Code.USAGE,
}


def code_of(verdict: Verdict) -> Code:
    """The exit code of a verdict: 0 for `success` alone."""
    return _VERDICTS.get(verdict.value, Code.REFUSED)


_VERDICTS = {
    "success": Code.DONE,
    "authinfo_unavail": Code.UNAVAILABLE,
    "perm_denied": Code.NOT_PERMITTED,
}
