"""A Varlink service: its interfaces, its handlers, and the calls found in frames.

service = Service(vendor=…, interfaces=[VERIFY], handlers={Check: check}, limits=Limits(), …)
server = Server(service, sock, name="verify")
await server.start()
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from typing import Any

import msgspec

from otpbridge.errors import OtpBridgeError
from otpbridge.wire import idl
from otpbridge.wire.calls import SERVICE, Call, Failure, Handler, Host, Limits, Peer, PeerGoneError, VarlinkError
from otpbridge.wire.connection import Connection
from otpbridge.wire.framing import (
    CallEnvelope,
    FrameTooLongError,
    encode_error,
    parameters_of,
)
from otpbridge.wire.messages import Message, Request
from otpbridge.wire.server import Server

__all__ = [
    "Call",
    "Connection",
    "Failure",
    "FrameTooLongError",
    "Handler",
    "Host",
    "Limits",
    "Peer",
    "PeerGoneError",
    "Server",
    "Service",
    "VarlinkError",
]

log = logging.getLogger(__name__)

_FIELD = re.compile(r"^Object (?:missing required|contains unknown) field `(\w{1,64})`")
_PATH = re.compile(r"at `\$\.(\w{1,64})")


class Info(Message):
    vendor: str
    product: str
    version: str
    url: str
    interfaces: tuple[str, ...]


class GetInfo(Request[Info]):
    METHOD = f"{SERVICE}.GetInfo"
    REPLY = Info


class _Description(Message):
    description: str


class _GetInterfaceDescription(Request[_Description]):
    METHOD = f"{SERVICE}.GetInterfaceDescription"
    REPLY = _Description
    interface: str


class Method:
    """One method as the service runs it, all that can be prepared prepared."""

    __slots__ = ("calls", "decode", "handler", "needs_more")

    def __init__(self, request: type[Request[Any]], handler: Handler, *, needs_more: bool) -> None:
        self.decode: Callable[[bytes], Request[Any]] = msgspec.json.Decoder(request).decode
        self.handler = handler
        self.needs_more = needs_more
        self.calls = 0
        """How often it was called since the start, with parameters that fit."""


class Service:
    """What is offered on a socket. It belongs to no event loop and may serve several sockets.

    `interfaces` are the qualified names offered here; handlers of other interfaces are left out, so one table of
    handlers serves sockets that offer different interfaces. Methods in `streaming` need `more`. `failure` turns an
    exception that is not a VarlinkError into the error reply; without it, or if it raises, the connection is closed.
    """

    def __init__(
        self,
        *,
        vendor: str,
        product: str,
        version: str,
        url: str,
        interfaces: Iterable[str],
        handlers: Mapping[type[Request[Any]], Handler],
        limits: Limits | None = None,
        streaming: Collection[type[Request[Any]]] = (),
        failure: Failure | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._failure = failure
        self._interfaces = {name: idl.load(name) for name in (SERVICE, *interfaces)}
        self._info = Info(
            vendor=vendor, product=product, version=version, url=url, interfaces=tuple(self._interfaces)
        )
        own: dict[type[Request[Any]], Handler] = {
            GetInfo: lambda _call, _parameters: self._info,
            _GetInterfaceDescription: self._describe,
        }
        self._methods = {
            request.METHOD: Method(request, handler, needs_more=request in streaming)
            for request, handler in {**handlers, **own}.items()
            if request.METHOD.rpartition(".")[0] in self._interfaces
        }
        self.errors: dict[tuple[str, str], int] = {}
        """How often each method was answered with each error: names of this service alone, whatever was called."""
        for name in self._methods:
            interface, _, method = name.rpartition(".")
            if method not in self._interfaces[interface].methods:
                raise ValueError(f"{interface} declares no method {method}")

    def find(self, envelope: CallEnvelope) -> tuple[Method, Request[Any]]:
        """The method that a call asks for, and its parameters. Raises VarlinkError when it cannot be called so."""
        method = self._methods.get(envelope.method)
        if method is None:
            raise self._not_found(envelope.method)
        if envelope.upgrade:
            raise VarlinkError(f"{SERVICE}.InvalidParameter", {"parameter": "upgrade"})
        if method.needs_more and not envelope.more:
            raise VarlinkError(f"{SERVICE}.ExpectedMore")
        try:
            parameters = method.decode(parameters_of(envelope.parameters))
        except msgspec.ValidationError as error:
            # The text of the error may quote a value, a code perhaps: only the name of the parameter goes out.
            found = _PATH.search(str(error)) or _FIELD.match(str(error))
            name = found[1] if found else "parameters"
            raise VarlinkError(f"{SERVICE}.InvalidParameter", {"parameter": name}) from None
        method.calls += 1
        return method, parameters

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each method was called since the start."""
        return {name: method.calls for name, method in self._methods.items()}

    def error_frame(self, called: str, error: VarlinkError) -> bytes:
        """An error as a reply to a call. One that its interface does not declare is sent and logged: callers cannot
        know it.
        """
        frame = encode_error(error.name, error.parameters)
        interface, _, name = error.name.rpartition(".")
        declared = self._interfaces[interface].errors.get(name) if interface in self._interfaces else None
        place = (called if called in self._methods else "other", "other" if declared is None else name)
        self.errors[place] = self.errors.get(place, 0) + 1
        if declared is None or declared.fields.keys() != _keys(error.parameters):
            log.error("the error %s is not declared so in its interface", error.name)
        return frame

    def busy(self, method: str) -> VarlinkError:
        """The error for a caller with too many calls in flight."""
        interface = method.rpartition(".")[0]
        return VarlinkError(f"{interface}.Busy", {"retryAfter": 1})

    def failed(self, call: Call, error: BaseException) -> VarlinkError | None:
        """Log an exception of a handler; the error to answer, or None to close the connection.

        Neither values of variables nor the text of a foreign exception are logged: they may hold a code or a seed.
        """
        log.error("%s failed: %s", call.method, _without_values(error))
        if self._failure is None:
            return None
        try:
            return self._failure(call, error)
        except Exception as second:  # noqa: BLE001 — logged; the caller closes the connection
            log.error("the failure hook failed: %s", _without_values(second))  # noqa: TRY400 — as above
            return None

    def _not_found(self, name: str) -> VarlinkError:
        interface, _, method = name.rpartition(".")
        if interface not in self._interfaces:
            return VarlinkError(f"{SERVICE}.InterfaceNotFound", {"interface": interface[:256]})
        if method not in self._interfaces[interface].methods:
            return VarlinkError(f"{SERVICE}.MethodNotFound", {"method": name[:256]})
        return VarlinkError(f"{SERVICE}.MethodNotImplemented", {"method": name})

    def _describe(self, _call: Call, asked: _GetInterfaceDescription) -> Message:
        if asked.interface not in self._interfaces:
            raise VarlinkError(f"{SERVICE}.InterfaceNotFound", {"interface": asked.interface[:256]})
        return _Description(description=self._interfaces[asked.interface].text)


def _keys(parameters: Message | dict[str, Any]) -> Set[str]:
    if isinstance(parameters, dict):
        return parameters.keys()
    return {field.encode_name for field in msgspec.structs.fields(parameters)}


def _without_values(error: BaseException | None) -> str:
    """Types, places and our own messages of an exception and of what caused it."""
    lines = []
    while error is not None:
        text = f": {error}" if isinstance(error, OtpBridgeError) else ""
        lines.append(f"{type(error).__qualname__}{text}\n{''.join(traceback.format_tb(error.__traceback__))}")
        error = error.__cause__ or error.__context__
    return "from ".join(lines).rstrip()
