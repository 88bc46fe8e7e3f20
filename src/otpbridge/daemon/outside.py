"""Run verifiers that may block, hang or misbehave: each call in a thread of its own, with an event loop of its own.

All that it does to its attempt is done on the daemon's event loop, one thing after the other, while the thread waits.
What takes too long is left behind with its thread: it cannot be stopped, but nothing that it does counts any more.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Generic, TypeVar

from otpbridge.daemon.attempt import StoreAttempt
from otpbridge.daemon.port import Port, check_prompt
from otpbridge.daemon.room import Room, Threads
from otpbridge.errors import OtpBridgeError
from otpbridge.model import Verdict
from otpbridge.verify.api import Attempt
from otpbridge.verify.registry import Made

log = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_WISHES = 16
"""What one call may want done at a time."""


class TimeUpError(OtpBridgeError):
    """A verifier has taken too long."""


class AttemptOverError(OtpBridgeError):
    """The attempt that a verifier still works on has ended."""


class FailedError(OtpBridgeError):
    """A verifier has raised something. Says what and where, not more: the text of it may hold an answer."""


class Shelter:
    """Keeps verifiers that may block off the event loop. Outlives the stacks of one configuration."""

    def __init__(self) -> None:
        self._threads = Threads()
        self._rooms: dict[str, Room] = {}

    @property
    def threads(self) -> int:
        """How many threads verifiers have now."""
        return self._threads.count

    @property
    def lost(self) -> int:
        """How many calls of verifiers are overdue and not back."""
        return sum(room.lost for room in self._rooms.values())

    def over(self, made: Made, seconds: float) -> Made:
        """A verifier as it can be asked on the event loop; `seconds` is the time that a call may take."""
        if made.direct:
            return made
        room = self._rooms.setdefault(made.name, Room(made.at_once, self._threads))
        return replace(made, verifier=Outside(made, room, seconds))


class Outside:
    """A verifier, wrapped so that the daemon is safe from it.

    `seconds` is the time that a call may take, without that of the person. Raises what the verifier raises where it
    is one of ours, else FailedError; TimeUpError; NoRoomError.
    """

    def __init__(self, made: Made, room: Room, seconds: float) -> None:
        self._made = made
        self._room = room
        self._seconds = seconds

    async def verify(self, attempt: Attempt) -> Verdict:
        """See verify.api. Where it refuses or fails, what it has spent or would tell on success is dropped."""
        assert isinstance(attempt, StoreAttempt)
        self._room.check()
        if self._made.first_prompt is not None:
            check_prompt(self._made.first_prompt)
            await attempt.ask(self._made.first_prompt)
        spends, notices = len(attempt.spends), len(attempt.afterwards)
        said: Verdict | None = None
        try:
            said = await self._call(attempt)
        finally:
            if said is not Verdict.SUCCESS or attempt.declined is not None:
                del attempt.spends[spends:], attempt.afterwards[notices:]
        return said

    async def _call(self, attempt: StoreAttempt) -> Verdict:
        await self._room.enter(self._seconds)
        call = _Call(self._made, attempt, self._room, self._seconds)
        try:
            call.start()
            while (wish := await call.next()) is not None:
                if wish.waits:
                    # The person may take long; others must not wait for them.
                    call.leave()
                    await wish.run()
                    await call.enter()
                else:
                    await wish.run()
                call.grant(wish)
            return call.result()
        finally:
            call.close()


class _Wish(Generic[T]):
    """Something that a thread wants done on the event loop, while it waits for it."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], *, waits: bool) -> None:
        self._make = make
        self.waits = waits
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self._result: T | None = None
        self._error: Exception | None = None

    async def run(self) -> None:
        """Do it."""
        try:
            self._result = await self._make()
        except Exception as error:  # noqa: BLE001 - raised again where it was asked for
            self._error = error

    def hand_over(self) -> None:
        """Let the thread go on, with what came of it."""
        if not self.future.set_running_or_notify_cancel():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result)  # type: ignore[arg-type]  # run() has set it


class _Call:
    """One verifier at work on one attempt."""

    def __init__(self, made: Made, attempt: StoreAttempt, room: Room, seconds: float) -> None:
        self._made = made
        self._port = Port(attempt, self)
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._left = seconds
        self._has_place = True
        self._started = False
        self._wishes: asyncio.Queue[_Wish[Any] | None] = asyncio.Queue()
        self._outcome: Verdict | OtpBridgeError | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._lost = False
        self._lock = threading.Lock()
        # These three only under the lock.
        self._closed = False
        self._open: set[_Wish[Any]] = set()
        self._task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    # --- on the daemon's event loop ---

    def start(self) -> None:
        """Begin, in a new thread. Raises NoRoomError or RuntimeError where there can be none."""
        self._room.threads.one_more()
        try:
            threading.Thread(target=self._run, name=f"verifier-{self._made.name}", daemon=True).start()
        except BaseException:
            self._room.threads.one_less()
            raise
        self._started = True

    async def next(self) -> _Wish[Any] | None:
        """What the thread wants next; None once it has ended. Raises TimeUpError."""
        begun = self._loop.time()
        try:
            async with asyncio.timeout(max(self._left, 0.0)):
                return await self._wishes.get()
        except TimeoutError:
            raise TimeUpError("it took too long") from None
        finally:
            self._left -= self._loop.time() - begun

    def leave(self) -> None:
        """Give the place to others."""
        self._has_place = False
        self._room.leave()

    async def enter(self) -> None:
        """Take a place again. Raises NoRoomError."""
        await self._room.enter(self._left)
        self._has_place = True

    def grant(self, wish: _Wish[Any]) -> None:
        """Let the thread go on after a wish."""
        with self._lock:
            self._open.discard(wish)
        wish.hand_over()

    def result(self) -> Verdict:
        """What the verifier said, or raised."""
        if isinstance(self._outcome, OtpBridgeError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def close(self) -> None:
        """The attempt goes on without the thread, which is told to stop and takes up a place until it does."""
        with self._lock:
            self._closed = True
            left_open, self._open = self._open, set()
            task = self._task
        for wish in left_open:
            wish.future.cancel()
        if not self._started or self._outcome is not None:
            if self._has_place:
                self._room.leave()
            return
        if not self._has_place:
            self._room.take()
        self._overdue = self._loop.call_later(max(self._left, 0.0), self._lose)
        if task is not None:
            own_loop, judging = task
            _soon(own_loop, judging.cancel)

    def _end(self, outcome: Verdict | OtpBridgeError) -> None:
        """The thread is through."""
        self._outcome = outcome
        self._room.threads.one_less()
        self._wishes.put_nowait(None)
        if self._overdue is not None:
            # It was left behind and has come back.
            self._overdue.cancel()
            self._room.leave()
            if self._lost:
                self._room.find()

    def _lose(self) -> None:
        self._lost = True
        self._room.lose()

    # --- in the thread ---

    def _run(self) -> None:
        outcome: Verdict | OtpBridgeError
        try:
            said: object = asyncio.run(self._judge())
        except BaseException as error:  # noqa: BLE001 - SystemExit too: whatever it raises is a refusal
            plain = isinstance(error, OtpBridgeError) and self._made.own
            outcome = error if plain else FailedError(brief(error))  # type: ignore[assignment]  # it is plain
        else:
            nonsense = f"it returned a {type(said).__name__}, not a verdict"
            outcome = said if isinstance(said, Verdict) else FailedError(nonsense)
        if not _soon(self._loop, self._end, outcome):
            log.debug("verifier %s came back after the daemon had stopped", self._made.name)

    async def _judge(self) -> Verdict:
        own_loop, judging = asyncio.get_running_loop(), asyncio.current_task()
        assert judging is not None
        own_loop.set_exception_handler(self._unheeded)
        with self._lock:
            self._task = (own_loop, judging)
        self.check()
        return await self._made.verifier.verify(self._port)

    def _unheeded(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what a task of a verifier raised for nobody to see; asyncio would log its text."""
        error = context.get("exception")
        log.error("verifier %s: %s", self._made.name, "a task failed" if error is None else brief(error))

    def check(self) -> None:
        """Raises AttemptOverError where the attempt is over."""
        with self._lock:
            self._check()

    def do(self, call: Callable[[], T]) -> T:
        """Do something here and now, while the attempt lasts. Raises AttemptOverError."""
        with self._lock:
            self._check()
            return call()

    async def send(self, make: Callable[[], Coroutine[Any, Any, T]], *, waits: bool = False) -> T:
        """Have something done on the daemon's event loop. Raises AttemptOverError."""
        here = asyncio.get_running_loop()
        wish = _Wish(make, waits=waits)
        with self._lock:
            self._check()
            if len(self._open) >= _MOST_WISHES:
                raise RuntimeError(f"a verifier may want {_MOST_WISHES} things at a time")
            self._open.add(wish)
        if not _soon(self._loop, self._wishes.put_nowait, wish):
            raise AttemptOverError("the daemon has stopped")
        return await asyncio.wrap_future(wish.future, loop=here)

    def _check(self) -> None:
        if self._closed:
            raise AttemptOverError("the attempt is over")


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[..., object], *arguments: object) -> bool:
    """Have a call made on the loop of another thread; says whether that loop still runs."""
    try:
        loop.call_soon_threadsafe(call, *arguments)
    except RuntimeError:
        return False
    return True


def brief(error: BaseException) -> str:
    """The type of an error and where it was raised: all of it that is sure to hold no secret."""
    trace = error.__traceback__
    if trace is None:
        return type(error).__name__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f"{type(error).__name__} in {PurePath(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"
