"""A verifier of otpbridge: makes a code, has a local command deliver it, and asks for it."""

from __future__ import annotations

import hmac
import secrets
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from otpbridge.model import Notice, NoticeStyle, Prompt, Verdict
from otpbridge.verify.api import Attempt

PROMPT = Prompt("Code from your mail: ", answer="mailcode")
"""The answer has a name of its own: what was typed for an authenticator is not taken for it."""


@dataclass(frozen=True, kw_only=True)
class MailcodeOptions:
    """How a code is delivered, and how long it holds."""

    command: str
    """The path of a program. It gets three lines on standard input: user, client and code."""
    digits: int = 6
    """Digits of a code, 6 to 10."""
    lifetime: int = 300
    """Seconds in which a code is accepted."""
    tries: int = 3
    """Codes that may be typed, 1 to 5. Each counts as a guess."""
    timeout: int = 8
    """Seconds that the program may take; fewer than `[limits] verifier`, so that it is this that ends it."""

    def __post_init__(self) -> None:
        if not self.command.startswith("/"):
            raise ValueError("command must be a whole path")
        if not 6 <= self.digits <= 10:
            raise ValueError("digits must be 6 to 10")
        if not 1 <= self.tries <= 5:
            raise ValueError("tries must be 1 to 5")
        if self.lifetime < 1 or self.timeout < 1:
            raise ValueError("lifetime and timeout are at least 1 second")


class Mailcode:
    """Accepts a code that was just delivered to the person, once."""

    Options = MailcodeOptions

    def __init__(
        self,
        options: MailcodeOptions,
        *,
        below: Callable[[int], int] = secrets.randbelow,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._below = below
        self._clock = clock

    async def verify(self, attempt: Attempt) -> Verdict:
        """Deliver a code and ask for it. Raises what the command raises: then nobody gets in by this rule."""
        code = f"{self._below(10**self._options.digits):0{self._options.digits}d}"
        self._deliver(attempt, code)
        expires = self._clock() + self._options.lifetime
        for _ in range(self._options.tries):
            # Only a new answer can be the code that was made just now.
            typed = await attempt.ask(PROMPT, again=True)
            if self._clock() > expires:
                await attempt.tell(Notice("That code has expired.", NoticeStyle.ERROR))
                return Verdict.AUTH_ERR
            if hmac.compare_digest(typed.strip().encode(), code.encode()):
                return Verdict.SUCCESS
            await attempt.tell(Notice("That code does not match.", NoticeStyle.ERROR))
        return Verdict.AUTH_ERR

    def _deliver(self, attempt: Attempt, code: str) -> None:
        """Run the command. It may take its time: a verifier has a thread of its own."""
        subprocess.run(
            [self._options.command],
            input=f"{attempt.user}\n{attempt.client}\n{code}\n".encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            timeout=self._options.timeout,
            check=True,
        )
