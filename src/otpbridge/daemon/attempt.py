"""One attempt: the port that verifiers see, and a stack's run that stops at questions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from functools import partial
from typing import Any

from otpbridge.model import Kind, Notice, OtpParameters, Prompt, Secret, State, Token, Verdict
from otpbridge.store.settle import Spend
from otpbridge.store.store import Candidate, Store
from otpbridge.store.tokens import StoredToken
from otpbridge.vault.seal import token_identity


class Question:
    """A stack waits for the person. Awaiting it hands it to whoever runs the stack."""

    __slots__ = ("prompt",)

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt

    def __await__(self) -> Generator[Question, str, str]:
        return (yield self)


class StoreAttempt:
    """The attempt of one user on the tokens of one store (see verify.api.Attempt)."""

    __slots__ = (
        "_decoy",
        "_response",
        "_responses",
        "_store",
        "candidate",
        "deliver",
        "notices",
        "now",
        "reason",
        "spends",
    )

    def __init__(self, store: Store, candidate: Candidate, decoy: StoredToken, now: float) -> None:
        self._store = store
        self._decoy = decoy
        self._responses: list[str] = []
        self._response: str | None = None
        self.candidate = candidate
        self.now = now
        self.spends: list[tuple[str, Spend]] = []
        self.notices: list[Notice] = []
        """What the person has yet to be told, where it cannot be told at once."""
        self.deliver: Callable[[Notice], Awaitable[None]] | None = None
        self.reason = "wrong code"
        if candidate.enforcement is None:
            self.reason = "wrong code: user not in the store"
        elif not candidate.tokens:
            self.reason = "wrong code: no token"

    def answer(self, responses: Sequence[str]) -> None:
        """Responses that prompts have not asked for yet."""
        self._responses += responses

    def tokens(self, kind: Kind) -> Sequence[Token]:
        """See verify.api. Who has no token at all costs the same work as who has one."""
        if not self.candidate.tokens:
            return [self._decoy.token] if kind is self._decoy.token.kind else []
        return [stored.token for stored in self.candidate.tokens if stored.token.kind is kind]

    def seed(self, token: Token) -> Secret:
        """See verify.api."""
        return self._store.seed(self._stored(token))

    async def ask(self, prompt: Prompt) -> str:
        """See verify.api."""
        if self._response is None:
            self._response = self._responses.pop(0) if self._responses else await Question(prompt)
        return self._response

    async def tell(self, notice: Notice) -> None:
        """See verify.api."""
        if self.deliver is not None:
            await self.deliver(notice)
        else:
            self.notices.append(notice)

    async def advance(self, token: Token, moving_factor: int, drift: int) -> bool:
        """See verify.api."""
        stored = self._stored(token)
        if stored is self._decoy:
            return False
        if moving_factor < token.moving_factor:
            self.reason = "code already used"
            return False
        self.spends.append((token.id, Spend(stored.seq, moving_factor + 1, drift)))
        return True

    def _stored(self, token: Token) -> StoredToken:
        for stored in self.candidate.tokens:
            if stored.token is token:
                return stored
        if token is self._decoy.token:
            return self._decoy
        raise ValueError("a verifier may only use the tokens of its attempt")


class Run:
    """A stack at work on one attempt: goes on until it asks or has a verdict.

    A question suspends the stack between two calls of the client; all else it may wait for is the event loop's.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Verdict]) -> None:
        self._coroutine = coroutine

    async def resume(self, answer: str | None = None) -> Question | Verdict:
        """Go on, with the answer to the last question."""
        return await _Resumed(self._coroutine, answer)

    def close(self) -> None:
        """Give up."""
        self._coroutine.close()


class _Resumed:
    """Drives the coroutine, handing what it waits for on to the event loop, until it asks or ends."""

    __slots__ = ("_answer", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, Verdict], answer: str | None) -> None:
        self._coroutine = coroutine
        self._answer = answer

    def __await__(self) -> Generator[Any, Any, Question | Verdict]:
        step: Callable[[], Any] = partial(self._coroutine.send, self._answer)
        while True:
            try:
                waiting = step()
            except StopIteration as end:
                return _verdict(end.value)
            if isinstance(waiting, Question):
                return waiting
            try:
                step = partial(self._coroutine.send, (yield waiting))
            except BaseException as error:  # noqa: BLE001 - cancellation belongs to the coroutine
                step = partial(self._coroutine.throw, error)


def _verdict(value: object) -> Verdict:
    return value if isinstance(value, Verdict) else Verdict.AUTHINFO_UNAVAIL


def make_decoy(store: Store, random: Callable[[int], bytes]) -> StoredToken:
    """A token that is nobody's: judged instead of none, so that having none takes as long as a wrong code."""

    token = Token("", "", "", Kind.TOTP, State.ACTIVE, OtpParameters())
    return StoredToken(token, 0, store.vault.seal(Secret(random(20)), token_identity(token)))
