"""What the daemon could not do, in the words of the person who asked for it."""

from __future__ import annotations

from otpbridge.client import ProtocolError, RemoteError, UnavailableError
from otpbridge.portal.texts import Texts

_STATUS = {
    "NoSuchUser": 404,
    "UserExists": 409,
    "NoSuchToken": 409,
    "WrongState": 409,
    "NoAuthenticator": 409,
    "LastToken": 409,
    "NotConfirmed": 409,
    "BadParameters": 400,
    "Busy": 429,
    "InvalidParameter": 404,
}


def name_of(error: RemoteError) -> str:
    """The name of an error without its interface."""
    return error.name.rpartition(".")[2]


def told(texts: Texts, error: ProtocolError) -> tuple[int, str]:
    """The status of the reply, and what the person is told."""
    if isinstance(error, UnavailableError) or not isinstance(error, RemoteError):
        return 503, texts("error.unavailable")
    name = name_of(error)
    status = _STATUS.get(name)
    if status is None:
        # A fault of the set-up (PermissionDenied, UnknownStack) or of the daemon: the log has it.
        return 503, texts("error.unavailable")
    if name == "BadParameters":
        return status, texts("error.BadParameters", reason=error.parameters.get("reason", ""))
    if name == "Busy":
        return status, texts("error.Busy", seconds=error.parameters.get("retryAfter", 1))
    return status, texts(f"error.{name}")
