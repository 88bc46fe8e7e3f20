"""Run a verifier that may block, hang or misbehave: in a thread of its own, with an event loop of its own.

All that it does to its attempt is done on the daemon's event loop, one thing after the other, while the thread waits.
What takes too long is left behind with its thread: it cannot be stopped, but nothing that it does counts any more.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Generic, TypeVar

from otpbridge.daemon.attempt import StoreAttempt
from otpbridge.errors import OtpBridgeError
from otpbridge.model import Context, Kind, Notice, Prompt, Secret, Token, Verdict
from otpbridge.verify.api import Attempt, Enrolment, Verifier
from otpbridge.verify.registry import Made

log = logging.getLogger(__name__)

T = TypeVar("T")

LEFT_BEHIND = 16
"""With so many threads that never came back, a verifier is not asked any more."""


class TimeUpError(OtpBridgeError):
    """A verifier has taken too long."""


class AttemptOverError(OtpBridgeError):
    """The attempt that a verifier still works on has ended."""


class Outside:
    """A verifier, wrapped so that the daemon is safe from it. Raises TimeUpError where it takes too long.

    `seconds` is the time that it may take, without that of the person. It works on `made.at_once` attempts at a time;
    those that wait for a person are none of them.
    """

    def __init__(self, made: Made, seconds: float) -> None:
        self._name = made.name
        self._verifier = made.verifier
        self._first = made.first_prompt
        self._seconds = seconds
        self._room = asyncio.Semaphore(made.at_once)
        self._left_behind = 0

    async def verify(self, attempt: Attempt) -> Verdict:
        """See verify.api."""
        assert isinstance(attempt, StoreAttempt)
        if self._left_behind >= LEFT_BEHIND:
            raise TimeUpError(f"{self._left_behind} calls of it never came back; restart the daemon")
        if self._first is not None:
            await attempt.ask(self._first)
        work = _Work(self._name, self._verifier, attempt)
        left = self._seconds
        clock = asyncio.get_running_loop().time
        holding = await self._enter(left)
        try:
            work.start()
            while True:
                begun = clock()
                wanted = await work.next(left)
                left -= clock() - begun
                if isinstance(wanted, _End):
                    return wanted.result()
                if wanted.waits:
                    # The person may take long; others must not wait for them.
                    self._room.release()
                    holding = False
                    await wanted.run()
                    holding = await self._enter(left)
                else:
                    await wanted.run()
                wanted.hand_over()
        except TimeUpError:
            self._left_behind += 1
            work.on_return(self._came_back)
            raise
        finally:
            work.close()
            if holding:
                self._room.release()

    async def _enter(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                return await self._room.acquire()
        except TimeoutError:
            raise TimeUpError("it is busy with other attempts") from None

    def _came_back(self) -> None:
        self._left_behind -= 1


class _End:
    """The thread is through."""

    def __init__(self, outcome: concurrent.futures.Future[Verdict]) -> None:
        self._outcome = outcome

    def result(self) -> Verdict:
        """What the verifier said, or raised."""
        return self._outcome.result()


class _Wish(Generic[T]):
    """Something that the thread wants done on the event loop, while it waits for it."""

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
        """Let the thread go on."""
        if not self.future.set_running_or_notify_cancel():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._result)  # type: ignore[arg-type]  # run() has set it


class _Work:
    """One verifier at work on one attempt."""

    def __init__(self, name: str, verifier: Verifier, attempt: StoreAttempt) -> None:
        self._name = name
        self._verifier = verifier
        self._loop = asyncio.get_running_loop()
        self._wishes: asyncio.Queue[_Wish[Any] | _End] = asyncio.Queue()
        self._port = _Port(attempt, self)
        self._lock = threading.Lock()
        self._pending: _Wish[Any] | None = None
        self._closed = False
        self._returned: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin, in a new thread."""
        threading.Thread(target=self._run, name=f"verifier-{self._name}", daemon=True).start()

    async def next(self, seconds: float) -> _Wish[Any] | _End:
        """What the thread wants next. Raises TimeUpError."""
        try:
            async with asyncio.timeout(max(seconds, 0.0)):
                return await self._wishes.get()
        except TimeoutError:
            raise TimeUpError("it took too long") from None

    def on_return(self, call: Callable[[], None]) -> None:
        """What to do on the event loop when a thread that was left behind comes back after all."""
        self._returned = call

    def close(self) -> None:
        """Nothing that the thread does counts from now on."""
        with self._lock:
            self._closed = True
            pending = self._pending
        if pending is not None and not pending.future.done():
            pending.future.set_exception(AttemptOverError("the attempt is over"))

    def wish(self, make: Callable[[], Coroutine[Any, Any, T]], *, waits: bool = False) -> asyncio.Future[T]:
        """Called in the thread: have something done on the daemon's event loop."""
        wish = _Wish(make, waits=waits)
        with self._lock:
            if self._closed:
                raise AttemptOverError("the attempt is over")
            self._pending = wish
        self._loop.call_soon_threadsafe(self._wishes.put_nowait, wish)
        return asyncio.wrap_future(wish.future)

    def _run(self) -> None:
        outcome: concurrent.futures.Future[Verdict] = concurrent.futures.Future()
        try:
            outcome.set_result(asyncio.run(self._verifier.verify(self._port)))
        except BaseException as error:  # noqa: BLE001 - SystemExit too: whatever it raises is a refusal
            outcome.set_exception(error if isinstance(error, Exception) else RuntimeError(type(error).__name__))
        try:
            self._loop.call_soon_threadsafe(self._end, outcome)
        except RuntimeError:
            log.debug("verifier %s came back after the daemon had stopped", self._name)

    def _end(self, outcome: concurrent.futures.Future[Verdict]) -> None:
        self._wishes.put_nowait(_End(outcome))
        if self._returned is not None:
            self._returned()


class _Port:
    """The attempt as a verifier in a thread sees it (see verify.api.Attempt)."""

    def __init__(self, attempt: StoreAttempt, work: _Work) -> None:
        self._attempt = attempt
        self._work = work
        self.now = attempt.now
        self.user = attempt.user
        self.client = attempt.client
        self.context: Context = attempt.context

    def tokens(self, kind: Kind) -> Sequence[Token]:
        """See verify.api."""
        return self._attempt.tokens(kind)

    def secret(self, token: Token) -> Secret:
        """See verify.api."""
        return self._attempt.secret(token)

    async def ask(self, prompt: Prompt, *, again: bool = False) -> str:
        """See verify.api. What it does with an answer cannot be undone, so a miss is counted first."""

        async def asked() -> str:
            text = await self._attempt.ask(prompt, again=again)
            if not self._attempt.reserved:
                await self._attempt.reserve_now()
            self.now = self._attempt.now
            return text

        return await self._work.wish(asked, waits=True)

    async def tell(self, notice: Notice) -> None:
        """See verify.api."""
        await self._work.wish(lambda: self._attempt.tell(notice))

    def tell_on_success(self, notice: Notice) -> None:
        """See verify.api."""
        self._attempt.tell_on_success(notice)

    async def advance(self, token: Token, moving_factor: int, drift: int = 0) -> bool:
        """See verify.api."""
        return await self._work.wish(lambda: self._attempt.advance(token, moving_factor, drift))

    async def strike(self, token: Token, place: int) -> bool:
        """See verify.api."""
        return await self._work.wish(lambda: self._attempt.strike(token, place))

    async def enrol(self, *, trust_caller: bool = False) -> Enrolment | None:
        """See verify.api. Only for verifiers that run on the daemon's event loop."""
        return None
