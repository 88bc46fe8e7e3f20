"""Verifiers that do everything wrong that a verifier can do."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from otpbridge.errors import OtpBridgeError
from otpbridge.model import Factor, Kind, Notice, OtpParameters, Prompt, State, Token, Verdict

PROMPT = Prompt("Verification code: ")
A_NUMBER = 5


def a_function():
    """No verifier."""


# --- what cannot be made ---


class NoVerify:
    """Cannot judge."""


class RaisesInInit:
    def __init__(self):
        raise RuntimeError("secret-of-the-package")

    async def verify(self, attempt):
        return Verdict.SUCCESS


class WantsMore(RaisesInInit):
    def __init__(self, something):
        self.something = something


class OddFactor:
    factor = "second"

    async def verify(self, attempt):
        return Verdict.SUCCESS


class OddPrompt(OddFactor):
    factor = Factor.SECOND
    first_prompt = "Code: "


class OddPlaces(OddFactor):
    factor = Factor.SECOND
    at_once = 0


class OddOptions(OddFactor):
    factor = Factor.SECOND
    Options = dict


class BrokenOptions(OddFactor):
    factor = Factor.SECOND

    @dataclass(frozen=True)
    class Options:
        def __post_init__(self):
            raise KeyError("secret-of-the-package")


# --- what it raises and returns ---


class Raises:
    """Its errors hold what the person has typed, as errors do."""

    async def verify(self, attempt):
        raise KeyError(await attempt.ask(PROMPT))


class RaisesOurs:
    async def verify(self, attempt):
        raise OtpBridgeError(f"wrong code {await attempt.ask(PROMPT)}")


class RaisesAtOnce:
    async def verify(self, attempt):
        raise ValueError


class Leaves:
    """Raises what ends programs and loops."""

    @dataclass(frozen=True)
    class Options:
        by: str

    def __init__(self, options):
        kinds = (SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, StopIteration)
        self.error = {kind.__name__: kind for kind in kinds}[options.by]

    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        raise self.error


class Says:
    """Returns what is no verdict."""

    @dataclass(frozen=True)
    class Options:
        what: str

    def __init__(self, options):
        self.what = {"None": None, "True": True, "text": "success", "zero": 0, "error": ValueError()}[options.what]

    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        return self.what


class NotAsync:
    def verify(self, attempt):
        return Verdict.SUCCESS


class Looks:
    """A first factor that looks away."""

    factor = Factor.FIRST

    async def verify(self, attempt):
        return Verdict.IGNORE


class LosesATask:
    """Starts a task that fails for nobody to see, with the answer in its error."""

    async def verify(self, attempt):
        code = await attempt.ask(PROMPT)

        async def fail():
            raise KeyError(code)

        task = asyncio.create_task(fail())
        await asyncio.sleep(0)
        del task
        return Verdict.AUTHINFO_UNAVAIL


class LosesAThread:
    """Starts a thread that fails, with the answer in its error."""

    async def verify(self, attempt):
        code = await attempt.ask(PROMPT)

        def fail():
            raise KeyError(code)

        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        return Verdict.AUTHINFO_UNAVAIL


# --- what never ends ---


class Sleeps:
    async def verify(self, attempt):
        time.sleep(1e6)  # noqa: ASYNC251 - it must not, but may


class SleepsAfterAsking:
    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        time.sleep(1e6)  # noqa: ASYNC251 - it must not, but may


class SleepsInThePool:
    """Such a thread is waited for when an interpreter ends."""

    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        await asyncio.to_thread(time.sleep, 1e6)


class Spins:
    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        while True:
            pass


class Awaits:
    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        await asyncio.get_running_loop().create_future()


class Clings:
    """Will not be cancelled."""

    async def verify(self, attempt):
        while True:
            try:
                await attempt.ask(PROMPT)
                await asyncio.get_running_loop().create_future()
            except BaseException:  # noqa: BLE001
                continue


class Waits:
    """Blocks until something is written to `gate`, a pipe; `begun`, a file, says that it does."""

    @dataclass(frozen=True)
    class Options:
        gate: str
        begun: str

    def __init__(self, options):
        self.options = options

    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        self.wait()
        return Verdict.SUCCESS

    def wait(self):
        with Path(self.options.begun).open("a") as begun:
            begun.write("x")
        Path(self.options.gate).read_bytes()


# --- what it does to its attempt ---


class AsksForever:
    async def verify(self, attempt):
        for number in range(1000):
            await attempt.ask(Prompt("More: ", answer=f"answer {number}"))
        return Verdict.SUCCESS


class AsksAtOnce:
    async def verify(self, attempt):
        await asyncio.gather(*(attempt.ask(PROMPT) for _ in range(1000)))
        return Verdict.SUCCESS


class AsksOddly:
    """Every prompt and notice that could break a reply; success if one of them was taken."""

    async def verify(self, attempt):
        for prompt in (
            "Code: ",
            None,
            Prompt(5),
            Prompt("x" * 10_000),
            Prompt("\udc80"),
            Prompt("\x1b[2J"),
            Prompt("x", answer=[]),
            Prompt("x", notice=None),
        ):
            try:
                await attempt.ask(prompt)
            except (TypeError, ValueError):
                continue
            return Verdict.SUCCESS
        for notice in (
            "Hello",
            None,
            Notice(5),
            Notice("x" * 10_000),
            Notice("\udc80"),
            Notice("\x00"),
            Notice("x", "loud"),
        ):
            for tell in (attempt.tell, attempt.tell_on_success):
                try:
                    done = tell(notice)
                    if done is not None:
                        await done
                except (TypeError, ValueError):
                    continue
                return Verdict.SUCCESS
        return Verdict.AUTHINFO_UNAVAIL


class Tells:
    """Will not stop telling."""

    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        for _ in range(100_000):
            try:
                await attempt.tell(Notice("\U0001f600" * 1000))
                attempt.tell_on_success(Notice("\U0001f600" * 1000))
            except OtpBridgeError:
                break
        return Verdict.AUTHINFO_UNAVAIL


class TellsAtOnce:
    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        await asyncio.gather(*(attempt.tell(Notice("again")) for _ in range(100_000)))
        return Verdict.SUCCESS


class AsksFromAThread:
    """Not forbidden: the answer comes, and only `open sesame` is right."""

    async def verify(self, attempt):
        answers = []
        thread = threading.Thread(target=lambda: answers.append(asyncio.run(attempt.ask(PROMPT))))
        thread.start()
        await asyncio.to_thread(thread.join)
        return Verdict.SUCCESS if answers == ["open sesame"] else Verdict.AUTH_ERR


class SpendsAndFails:
    """Spends all tokens as far as it can, and then fails."""

    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        for token in attempt.tokens(Kind.TOTP):
            assert await attempt.advance(token, 2**61)
        attempt.tell_on_success(Notice("You are in."))
        raise ValueError


class SpendsNonsense:
    """Success if a moving factor is taken that the store could not hold."""

    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        (token,) = attempt.tokens(Kind.TOTP)
        for factor in (2**80, -1, 1e9, "9", None):
            try:
                await attempt.advance(token, factor)
            except (TypeError, ValueError):
                continue
            return Verdict.SUCCESS
        return Verdict.AUTHINFO_UNAVAIL


class Steals:
    """Success if the token of another user can be used, or an own one that was altered."""

    @dataclass(frozen=True)
    class Options:
        token: str = "t-other"

    def __init__(self, options):
        self.other = Token(options.token, "bob", "local", Kind.TOTP, State.ACTIVE, OtpParameters())

    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        (own,) = attempt.tokens(Kind.TOTP)
        try:
            attempt.secret(self.other)
        except ValueError:
            pass
        else:
            return Verdict.SUCCESS
        try:
            await attempt.advance(self.other, 2**40)
        except ValueError:
            spent = own.moving_factor > 0 and await attempt.advance(own._replace(moving_factor=0), 0)
            return Verdict.SUCCESS if spent else Verdict.AUTHINFO_UNAVAIL
        return Verdict.SUCCESS


KEPT = []


class Keeps:
    """Keeps its attempt, and uses those that it has kept: success if that is of any use."""

    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        kept, KEPT[:] = KEPT[:], [attempt]
        for old in kept:
            (token,) = attempt.tokens(Kind.TOTP)
            uses = (
                lambda old=old, token=token: old.secret(token),
                lambda old=old: old.tokens(Kind.TOTP),
                lambda old=old: old.tell_on_success(Notice("You are in.")),
            )
            for use in uses:
                try:
                    use()
                except OtpBridgeError:
                    continue
                return Verdict.SUCCESS
            for use in (old.advance(token, 2**40), old.ask(PROMPT), old.tell(Notice("hello"))):
                try:
                    await use
                except OtpBridgeError:
                    continue
                return Verdict.SUCCESS
        return Verdict.AUTHINFO_UNAVAIL


class Changes:
    """Changes what it was given: that is its own to look at."""

    async def verify(self, attempt):
        await attempt.ask(PROMPT)
        for name, value in (("user", "root"), ("client", "other"), ("now", 0.0), ("context", None)):
            try:
                setattr(attempt, name, value)
            except AttributeError:
                continue
            return Verdict.SUCCESS
        tokens = attempt.tokens(Kind.TOTP)
        tokens.clear()
        return Verdict.AUTHINFO_UNAVAIL


# --- what is allowed ---


class OutOfBand:
    """Knows otherwise that it is them."""

    async def verify(self, attempt):
        return Verdict.SUCCESS


class Sesame:
    """Accepts one word."""

    async def verify(self, attempt):
        return Verdict.SUCCESS if await attempt.ask(PROMPT) == "open sesame" else Verdict.AUTH_ERR


class SesameFirst(Sesame):
    """The same, with its prompt known beforehand."""

    first_prompt = PROMPT
