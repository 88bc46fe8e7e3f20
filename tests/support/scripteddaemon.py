"""A daemon that says what a test tells it to say: the other end of a Varlink client under test."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

Turn = dict[str, Any] | bytes | Callable[[socket.socket], None]
"""What is done with one call: a reply, raw bytes, or anything else with the connection."""


def hidden(text: str) -> dict[str, str]:
    """A prompt whose answer is not shown."""
    return {"style": "hidden", "text": text}


def visible(text: str) -> dict[str, str]:
    """A prompt whose answer is shown."""
    return {"style": "visible", "text": text}


def notice(text: str, style: str = "info") -> dict[str, str]:
    """Something the person is told."""
    return {"style": style, "text": text}


def step(
    *prompts: dict[str, str],
    notices: Sequence[dict[str, str]] = (),
    verdict: str | None = None,
    retry_after: int | None = None,
    code: tuple[int, int] | None = None,
    session: str = "s1",
) -> dict[str, Any]:
    """A reply to Begin or Continue; `code` is where in the combined answer the code stands: (start, length)."""
    fields: dict[str, Any] = {"notices": list(notices), "prompts": list(prompts)}
    if verdict is not None:
        fields["verdict"] = verdict
    if retry_after is not None:
        fields["retryAfter"] = retry_after
    if code is not None:
        fields["code"] = dict(zip(("start", "length"), code, strict=True))
    return {"parameters": {"session": session, "step": fields}}


def streamed(*notices: dict[str, str]) -> dict[str, Any]:
    """A reply that others follow."""
    return step(notices=notices) | {"continues": True}


def error(name: str, **parameters: Any) -> dict[str, Any]:
    """A Varlink error."""
    return {"error": name, "parameters": parameters}


def judged(verdict: str) -> dict[str, Any]:
    """A reply to Account."""
    return {"parameters": {"verdict": verdict}}


def say_nothing(connection: socket.socket) -> None:
    """Leave the client waiting until it hangs up."""
    with contextlib.suppress(ConnectionResetError):
        connection.recv(1)


def hang_up(connection: socket.socket) -> None:
    """Close the connection."""
    connection.shutdown(socket.SHUT_RDWR)


class ScriptedDaemon:
    """Listens on `path` and answers the n-th call with the n-th turn; hangs up when there is none left.

    A turn may be a list of turns. `calls` has every call as it came, `frames` its bytes.
    """

    def __init__(self, path: Path, *turns: Turn | Iterable[Turn]) -> None:
        self.path = path
        self.calls: list[dict[str, Any]] = []
        self.frames: list[bytes] = []
        self._turns = iter(turns)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._listener.bind(os.fspath(self.path))
        self._listener.listen(16)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive(), "a client did not hang up"

    @property
    def methods(self) -> list[str]:
        """The methods called, without the interface's name."""
        return [call["method"].rpartition(".")[2] for call in self.calls]

    @property
    def responses(self) -> list[list[str]]:
        """What each Continue answered."""
        return [call["parameters"]["responses"] for call in self.calls if "responses" in call["parameters"]]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        held = b""
        while chunk := connection.recv(65536):
            held += chunk
            while b"\0" in held:
                frame, _, held = held.partition(b"\0")
                self.frames.append(frame)
                self.calls.append(json.loads(frame))
                turn = next(self._turns, hang_up)
                for part in [turn] if isinstance(turn, dict | bytes) or callable(turn) else turn:
                    _take(part, connection)


def _take(turn: Turn, connection: socket.socket) -> None:
    if callable(turn):
        turn(connection)
    elif isinstance(turn, bytes):
        connection.sendall(turn)
    else:
        connection.sendall(json.dumps(turn).encode() + b"\0")
