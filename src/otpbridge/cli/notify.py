"""`otpbridge notify`: hand on what people should hear of, as JSON lines or to a program, and lose nothing."""

from __future__ import annotations

import difflib
import json
import math
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from otpbridge.cli import show
from otpbridge.cli.exits import explain, short_name
from otpbridge.cli.options import example, run_dir_option
from otpbridge.cli.outlets import Hook, LogFile, Outlet, Place, StandardOutput
from otpbridge.cli.session import Session
from otpbridge.errors import RemoteError, UnavailableError
from otpbridge.model import Happening
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.wire.messages import Event, WatchReply

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 30.0
"""Seconds between attempts to reach a daemon that is away: each wait is twice the one before."""


def _happenings(_context: click.Context, _parameter: click.Parameter, value: str | None) -> frozenset[str] | None:
    if value is None:
        return None
    names = frozenset(name.strip() for name in value.split(","))
    known = [happening.value for happening in Happening]
    for name in sorted(names):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            raise click.BadParameter(f"no event is called {name!r}; {hint}")
    return names


@click.command(
    epilog=example(
        "otpbridge notify",
        "otpbridge notify --only user_reset,recovery_code_used",
        "otpbridge notify --state /var/lib/otpbridge-notify/place --exec /etc/otpbridge/notify",
    )
)
@click.option(
    "--exec",
    "program",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="PROGRAM",
    help="Run this for each event, with the event as JSON on its standard input.",
)
@click.option(
    "--timeout",
    "seconds",
    type=click.FloatRange(0, 3600, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="End the program after this time.",
)
@click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Append events as lines of JSON; - is standard output.  [default: -, without --exec]",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep here how far it has come, and go on from there. Without it, start with what happens from now on.",
)
@click.option("--only", metavar="EVENT[,EVENT]", callback=_happenings, help="Only these events.")
@click.option("--client", metavar="C", help="Only events of this client (tenant).")
@run_dir_option
@click.pass_obj
def notify(
    session: Session,
    *,
    program: Path | None,
    seconds: float,
    path: Path | None,
    state: Path | None,
    only: frozenset[str] | None,
    client: str | None,
) -> None:
    """Hand on what happens to users and tokens.

    Each event is a line of JSON. It is handed on at least once and in order, however often this command or the daemon
    is stopped or dies, as long as --state names the same file. It waits for a daemon that is away. SIGTERM ends it.
    """
    outlets: list[Outlet] = []
    if path is not None or program is None:
        outlets.append(StandardOutput() if path in {None, Path("-")} else LogFile(path))
    if program is not None:
        outlets.append(Hook(program, seconds))
    with _signals():
        _Follower(session, Place(state), client, only, outlets).run()


class _Follower:
    """Follows the daemon, over all its restarts."""

    def __init__(
        self,
        session: Session,
        place: Place,
        client: str | None,
        only: Collection[str] | None,
        outlets: Sequence[Outlet],
    ) -> None:
        self._session = session
        self._place = place
        self._client = client
        self._only = only
        self._outlets = outlets
        self._wait = _FIRST_WAIT
        self._permitted = False
        self._trouble = ""

    def run(self) -> NoReturn:
        """Hand on until a signal ends it. Raises OtpBridgeError where waiting would not help."""
        while True:
            try:
                for reply in self._replies():
                    self._well()
                    self._hand_on(reply)
            except UnavailableError as error:
                self._in_trouble(str(error))
            except RemoteError as error:
                self._refused(error)
            time.sleep(self._wait)
            self._wait = min(2 * self._wait, _LONGEST_WAIT)

    def _replies(self) -> Iterator[WatchReply]:
        daemon, _admin = self._session.nearest()
        with daemon:
            request = messages.Watch(after=self._place.sequence, client=self._client)
            yield from daemon.stream(request, timeout=math.inf)

    def _hand_on(self, reply: WatchReply) -> None:
        for event in reply.events:
            if self._only is None or event.event in self._only:
                line = json.dumps(show.plain(event))
                for outlet in self._outlets:
                    outlet.take(line, _named(event))
            self._place.keep(event.sequence)
        self._place.keep(reply.sequence)

    def _refused(self, error: RemoteError) -> None:
        name = short_name(error)
        if name == "BeyondEnd":
            now = int(error.parameters["sequence"])
            show.note(
                f"otpbridge: the log ends at {now}, before {self._place.sequence}, where this came to: the store was"
                f" put back to an older state. Going on from {now}"
            )
            self._place.keep(now)
        elif name in _PASSING or (name == "PermissionDenied" and self._permitted):
            # A daemon that is starting may have opened one socket and not yet the other.
            self._in_trouble(str(explain(error)))
        else:
            raise error

    def _in_trouble(self, trouble: str) -> None:
        if trouble != self._trouble:
            show.note(f"otpbridge: {show.visible(trouble)}. Trying again until it works")
        self._trouble = trouble

    def _well(self) -> None:
        if self._trouble:
            show.note("otpbridge: following again")
        self._trouble, self._permitted, self._wait = "", True, _FIRST_WAIT


_PASSING = frozenset({"Unavailable", "Busy"})


def _named(event: Event) -> str:
    return f"event {event.sequence} ({show.visible(event.event)})"


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _go_on(_number: int, _frame: FrameType | None) -> None:
    """Files are opened for each line, so there is nothing to do when they were moved."""


@contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM ends the program that runs with us, in order; SIGHUP, which log rotation sends, does not end us."""
    chosen: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        signal.SIGTERM: _end,
        signal.SIGHUP: _go_on,
    }
    before = {number: signal.signal(number, handler) for number, handler in chosen.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
