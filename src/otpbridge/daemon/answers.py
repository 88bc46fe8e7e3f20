"""Say otpbridge's own errors as the errors of the interface that was called."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from otpbridge.daemon.stacks import UnknownStackError
from otpbridge.errors import EnrolError, OtpBridgeError
from otpbridge.store.relays import NoSuchCertificateError
from otpbridge.store.tokens import LastTokenError, NoSuchTokenError, SpentError, WrongStateError
from otpbridge.store.users import (
    LockedUserError,
    NoAuthenticatorError,
    NoSuchUserError,
    NotConfirmedError,
    UserExistsError,
)
from otpbridge.wire.messages import ADMIN
from otpbridge.wire.service import Call, VarlinkError

log = logging.getLogger(__name__)

_NAMED: dict[type[OtpBridgeError], tuple[str, Callable[[Any], dict[str, Any]]]] = {
    NoSuchUserError: ("NoSuchUser", lambda error: {"user": error.user, "client": error.client}),
    UserExistsError: ("UserExists", lambda error: {"user": error.user, "client": error.client}),
    LockedUserError: ("Locked", lambda error: {"user": error.user, "client": error.client}),
    NotConfirmedError: ("NotConfirmed", lambda error: {"user": error.user, "client": error.client}),
    NoSuchTokenError: ("NoSuchToken", lambda error: {"token": error.token}),
    WrongStateError: ("WrongState", lambda error: {"token": error.token, "state": error.state}),
    NoAuthenticatorError: ("NoAuthenticator", lambda error: {"user": error.user, "client": error.client}),
    UnknownStackError: ("UnknownStack", lambda error: {"stack": error.stack}),
    LastTokenError: ("LastToken", lambda error: {"token": error.token}),
    NoSuchCertificateError: ("NoSuchCertificate", lambda error: {"host": error.host}),
    SpentError: ("BadParameters", lambda error: {"reason": str(error)}),
    EnrolError: ("BadParameters", lambda error: {"reason": str(error)}),
}


def guarded(handler: Callable[[Call, Any], Awaitable[Any]]) -> Callable[[Call, Any], Awaitable[Any]]:
    """A handler whose expected errors are answered as errors of its interface."""

    @functools.wraps(handler)
    async def run(call: Call, parameters: Any) -> Any:
        try:
            return await handler(call, parameters)
        except OtpBridgeError as error:
            if isinstance(error, VarlinkError):
                raise
            raise said(call, error) from None

    return run


def said(call: Call, error: BaseException) -> VarlinkError:
    """The error reply for an exception. Only admins hear what failed inside."""
    interface = call.method.rpartition(".")[0]
    named = _NAMED.get(type(error))  # type: ignore[arg-type]
    if named is not None:
        return VarlinkError(f"{interface}.{named[0]}", named[1](error))
    if isinstance(error, OtpBridgeError):
        log.error("%s: %s", call.method, error)
        reason = str(error)
    else:
        reason = "internal error; the daemon's log has more"
    return (
        VarlinkError(f"{interface}.Failed", {"reason": reason})
        if interface == ADMIN
        else (VarlinkError(f"{interface}.Unavailable"))
    )
