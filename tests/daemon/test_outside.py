"""Verifiers in threads: whenever whoever asked leaves, no place, no thread and no promise is left over."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest
from stackrig import Bench
from storerig import run, running

from otpbridge.daemon.attempt import Question
from otpbridge.daemon.outside import Shelter
from otpbridge.daemon.room import MOST_THREADS, NoRoomError, Room, Threads
from otpbridge.model import Notice, Prompt, Verdict

PROMPT = Prompt("Word: ", answer="word")


async def until(holds):
    """Let others run until something holds."""
    while not holds():  # noqa: ASYNC110 - what is waited for happens in another thread
        await asyncio.sleep(0)


class Guarded:
    """A judge with one verifier in a shelter, and the verifier's room."""

    def __init__(self, rig, verifier, *, seconds=60.0, **said):
        self.bench = Bench(
            rig, config='[policy]\nenforcement = "required"', verifiers=[verifier], rules=["required v0"]
        )
        shelter = Shelter()
        stack = self.bench.judge.stacks._stack
        made = {
            place: shelter.over(replace(each, direct=False, at_once=2, **said), seconds)
            for place, each in stack.made.items()
        }
        self.bench.judge.stacks._stack = replace(stack, made=made)
        self.room = shelter._rooms["v0"]
        self.judge = self.bench.judge

    @property
    def idle(self):
        """Whether no thread is there and every place is free."""
        return (self.room._free, self.room.threads._count, self.room._lost) == (2, 0, 0)

    async def becomes_idle(self):
        """Wait until nothing is left over."""
        await until(lambda: self.idle)


class Blocks:
    """Says `success` once it is let go; never asks."""

    def __init__(self):
        self.begun = threading.Event()
        self.go = threading.Event()

    async def verify(self, attempt):
        self.begun.set()
        self.go.wait()
        return Verdict.SUCCESS


class Ends:
    """Does what it was made with, and remembers what it ended with."""

    def __init__(self, work):
        self._work = work
        self.ended = []

    async def verify(self, attempt):
        try:
            await self._work(attempt)
        except BaseException as error:
            self.ended.append(type(error))
            raise
        self.ended.append(None)
        return Verdict.SUCCESS


def guarded(tmp_path, verifier, work, **options):
    """Run `work(guard)`."""

    async def whole():
        async with running(tmp_path) as rig:
            await work(Guarded(rig, verifier, **options))

    run(whole())


# --- leaving ---


def test_who_leaves_while_a_thread_works_leaves_its_place_taken_until_it_ends(tmp_path):
    """However often clients hang up, no more threads work than may, and none is forgotten."""
    verifier = Blocks()

    async def work(guard):
        for _ in range(2):
            verifier.begun.clear()
            asking = asyncio.create_task(guard.bench.check("x"))
            await asyncio.to_thread(verifier.begun.wait)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert (guard.room._free, guard.room.threads._count) == (0, 2)
        third = asyncio.create_task(guard.bench.check("x"))
        await until(lambda: guard.room._queue)
        assert guard.room.threads._count == 2, "the third waits"
        verifier.go.set()
        assert (await third).verdict is Verdict.SUCCESS
        await guard.becomes_idle()

    guarded(tmp_path, verifier, work)


def test_who_leaves_in_a_conversation_wakes_the_thread_that_waits_for_them(tmp_path):
    """It is told by a cancellation, and its place is free again."""

    async def ask(attempt):
        await attempt.ask(PROMPT)

    verifier = Ends(ask)

    async def work(guard):
        conversation, step = await guard.judge.begin(guard.bench.subject())
        assert isinstance(step, Question)
        assert (guard.room._free, guard.room.threads._count) == (2, 1), "who waits for a person has no place"
        guard.judge.abandon(conversation)
        await guard.becomes_idle()
        assert verifier.ended == [asyncio.CancelledError]

    guarded(tmp_path, verifier, work)


def test_threads_that_a_verifier_has_started_are_woken_too(tmp_path):
    """One that asks in an event loop of its own is told that the attempt is over."""

    async def ask(attempt):
        asking = threading.Thread(target=asyncio.run, args=(attempt.ask(PROMPT),))
        asking.start()
        await asyncio.to_thread(asking.join)

    async def work(guard):
        conversation, _ = await guard.judge.begin(guard.bench.subject())
        guard.judge.abandon(conversation)
        await guard.becomes_idle()

    raised = []
    hook, threading.excepthook = threading.excepthook, lambda failed: raised.append(failed.exc_type)
    try:
        guarded(tmp_path, Ends(ask), work)
    finally:
        threading.excepthook = hook
    assert raised == [asyncio.CancelledError]


def test_what_waits_too_long_for_anything_is_cancelled(tmp_path):
    """A verifier that awaits a server which never answers gives its thread back."""

    async def wait(attempt):
        await asyncio.get_running_loop().create_future()

    async def work(guard):
        assert (await guard.bench.check("x")).verdict is Verdict.AUTHINFO_UNAVAIL
        await guard.becomes_idle()

    guarded(tmp_path, Ends(wait), work, seconds=0.01)


def test_who_leaves_while_they_are_told_something_holds_nothing_up(tmp_path):
    """A client that does not read is gone for the thread as for the daemon."""

    async def tell(attempt):
        await attempt.ask(PROMPT)
        await attempt.tell(Notice("Hello"))

    verifier = Ends(tell)

    async def work(guard):
        conversation, _ = await guard.judge.begin(guard.bench.subject())
        reached, never = asyncio.Event(), asyncio.get_running_loop().create_future()

        async def deliver(_notice):
            reached.set()
            await never

        conversation.attempt.deliver = deliver
        answering = asyncio.create_task(guard.judge.answer(conversation, ["word"]))
        await reached.wait()
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
        await guard.becomes_idle()
        assert verifier.ended == [asyncio.CancelledError]
        await until(guard.bench.audit)
        assert guard.bench.audit()[0]["reason"] == "left before the verdict"
        assert guard.bench.rig.misses().misses == 1

    guarded(tmp_path, verifier, work)


def test_what_takes_too_long_is_counted_until_it_comes_back(tmp_path):
    """Its rule refuses; while as many as there are places are out, nobody waits in vain for one."""
    verifier = Blocks()

    async def work(guard):
        for _ in range(2):
            assert (await guard.bench.check("x")).verdict is Verdict.AUTHINFO_UNAVAIL
        await until(lambda: guard.room._lost == 2)
        with pytest.raises(NoRoomError, match="overdue"):
            guard.room.check()
        verifier.go.set()
        await guard.becomes_idle()
        guard.room.check()

    guarded(tmp_path, verifier, work, seconds=0.01)


def test_where_no_thread_can_be_started_the_rule_refuses(tmp_path, monkeypatch):
    """Nothing is left taken by it, and the next attempt works."""

    async def nothing(attempt):
        pass

    def refuse(self):
        raise RuntimeError("can't start new thread")

    async def work(guard):
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            assert (await guard.bench.check("x")).verdict is Verdict.AUTHINFO_UNAVAIL
        assert guard.idle
        assert (await guard.bench.check("x")).verdict is Verdict.SUCCESS
        await guard.becomes_idle()

    guarded(tmp_path, Ends(nothing), work)


def test_a_first_prompt_is_asked_without_a_thread(tmp_path):
    """A verifier that says what it asks first costs nothing while people think."""

    async def ask(attempt):
        assert await attempt.ask(PROMPT) == "word"

    async def work(guard):
        conversation, step = await guard.judge.begin(guard.bench.subject())
        assert step.prompt == PROMPT
        assert guard.idle
        assert (await guard.judge.answer(conversation, ["word"])).verdict is Verdict.SUCCESS
        await guard.becomes_idle()

    guarded(tmp_path, Ends(ask), work, first_prompt=PROMPT)


# --- places ---


def test_places_go_to_who_waits_longest_and_not_to_who_has_left():
    """One place, three who want it; the first in the queue gives up."""

    async def work():
        room, order = Room(1, Threads()), []

        async def enter(name):
            await room.enter(60)
            order.append(name)

        await enter("first")
        waiting = [asyncio.create_task(enter(name)) for name in ("second", "third", "fourth")]
        await asyncio.sleep(0)
        waiting[0].cancel()
        for _ in range(2):
            room.leave()
            await until(lambda: len(order) > 1)
        await asyncio.gather(*waiting, return_exceptions=True)
        assert order == ["first", "third", "fourth"]
        room.leave()
        assert room._free == 1

    run(work())


def test_a_place_given_to_who_leaves_at_that_moment_goes_on():
    """The place was handed over already when the wait was cancelled: it is not lost."""

    async def work():
        room = Room(1, Threads())
        await room.enter(60)
        waiting = asyncio.create_task(room.enter(60))
        await asyncio.sleep(0)
        room.leave()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert room._free == 1

    run(work())


def test_waiting_for_a_place_ends():
    """With none left, the wait ends after its seconds, and takes nothing."""

    async def work():
        room = Room(1, Threads())
        await room.enter(60)
        with pytest.raises(NoRoomError, match="busy"):
            await room.enter(0)
        room.leave()
        assert room._free == 1

    run(work())


def test_threads_of_all_verifiers_together_are_bounded():
    """Whatever their number of places."""
    threads = Threads()
    for _ in range(MOST_THREADS):
        threads.one_more()
    with pytest.raises(NoRoomError):
        threads.one_more()
    threads.one_less()
    threads.one_more()
