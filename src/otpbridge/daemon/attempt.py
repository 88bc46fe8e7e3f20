"""One attempt: the port that verifiers see, and a stack's run that stops at questions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from otpbridge.daemon.decoys import Decoys
from otpbridge.errors import OtpBridgeError
from otpbridge.model import (
    CODE,
    PIN,
    WEBAUTHN,
    Context,
    Kind,
    Notice,
    Prompt,
    PromptStyle,
    RelyingParty,
    Secret,
    Token,
    Verdict,
)
from otpbridge.store.settle import Ruling, Spend, Strike
from otpbridge.store.store import Candidate, Store
from otpbridge.store.tokens import StoredToken
from otpbridge.verify.api import Enrolment
from otpbridge.verify.combined import Split
from otpbridge.verify.stack import Finding, Mode


class DeclinedError(OtpBridgeError):
    """The person has left the answer empty."""


class TurnedAwayError(OtpBridgeError):
    """Back-off lets nothing be judged now."""


class TooManyQuestionsError(OtpBridgeError):
    """A verifier asks more often than may be asked in one attempt."""


class TooMuchToldError(OtpBridgeError):
    """A verifier tells the person more than fits into a reply."""


_MOST_TOLD = 8192
"""Characters that a person may be told in one attempt. Each is at most four bytes of the reply's 64 KiB."""
_NOTICE = 64
"""What a notice costs beside its text."""


class Question:
    """A stack waits for the person. Awaiting it hands it to whoever runs the stack."""

    __slots__ = ("prompt",)

    def __init__(self, prompt: Prompt) -> None:
        self.prompt = prompt

    def __await__(self) -> Generator[Question, str, str]:
        return (yield self)


Deliver = Callable[[tuple[Notice, ...]], Awaitable[None]]
"""Takes notices to the person at once; without any, it says that the attempt goes on."""
AskKeys = Callable[["StoreAttempt", str], Awaitable[str]]
"""Has security keys answer in an attempt; empty where none has."""


@dataclass(frozen=True, slots=True)
class Keys:
    """How security keys can be asked in an attempt, and for whom they sign.

    `browser`: the caller has them asked in a browser. `here`: asks those that are plugged in here, where the login is
    here too.
    """

    party: RelyingParty | None
    random: Callable[[int], bytes]
    browser: bool = False
    here: AskKeys | None = None


class StoreAttempt:
    """The attempt of one user on the tokens of one store (see verify.api.Attempt and verify.stack.StackAttempt)."""

    __slots__ = (
        "_answers",
        "_declined",
        "_decoys",
        "_responses",
        "_store",
        "_told",
        "afterwards",
        "blocked",
        "browser",
        "candidate",
        "client",
        "context",
        "deliver",
        "enrolled",
        "enrolment",
        "failed",
        "first_factor",
        "judged",
        "keys",
        "left_out",
        "may_decline",
        "mode",
        "noted",
        "notices",
        "now",
        "questions_left",
        "reason",
        "reserve",
        "reserved",
        "second_factor",
        "spends",
        "split",
        "splitter",
        "turned_away",
        "user",
        "wait",
    )

    def __init__(
        self,
        store: Store,
        candidate: Candidate,
        decoys: Decoys,
        *,
        now: float,
        client: str,
        user: str,
        context: Context,
        mode: Mode,
        may_decline: bool,
        questions: int,
        keys: Keys,
    ) -> None:
        self._store = store
        self._decoys = decoys
        self._answers: dict[str, str] = {}
        self._responses: list[str] = []
        self._declined: str | None = None
        self._told = 0
        self.left_out = False
        """Whether the code was left out by who may leave it out."""
        self.candidate = candidate
        self.now = now
        self.client = client
        self.user = user
        self.context = context
        self.mode = mode
        self.may_decline = may_decline
        self.questions_left = questions
        self.keys = keys
        self.first_factor = False
        self.second_factor = False
        self.blocked = False
        self.failed: list[str] = []
        self.judged = False
        """Whether a verifier has been given an answer: then the attempt is a guess, whatever comes of it."""
        self.reserved: list[int] = []
        """When misses were counted in advance (Unix milliseconds)."""
        self.wait = 0
        """The wait (milliseconds) that a miss counted in advance began."""
        self.turned_away: Ruling | None = None
        """Why a miss could not be counted in advance: then nothing more is judged."""
        # What is called with the attempt holds nothing that holds the attempt: a circle is only freed now and then.
        self.reserve: Callable[[StoreAttempt], Awaitable[bool]] | None = None
        """Counts a miss in advance; says whether the attempt may go on."""
        self.splitter: Callable[[StoreAttempt, str], Awaitable[Split]] | None = None
        """Takes the next answer apart, where it is password and code in one."""
        self.split: Split | None = None
        self.spends: list[tuple[Token, Spend | Strike]] = []
        self.notices: list[Notice] = []
        """What the person has yet to be told, where it cannot be told at once."""
        self.afterwards: list[Notice] = []
        """What the person is told once the attempt has passed."""
        self.deliver: Deliver | None = None
        self.enrolment: Callable[[StoreAttempt], Enrolment] | None = None
        self.enrolled: str | None = None
        """The token that was enrolled in this attempt."""
        self.noted: list[str] = []
        """What verifiers have found that the audit log should know."""
        self.reason = "wrong code"
        if candidate.user is None:
            self.reason = "wrong code: user not in the store"
        elif not candidate.tokens:
            self.reason = "wrong code: no token"

    def answer(self, responses: Sequence[str]) -> None:
        """Responses that prompts have not asked for yet."""
        self._responses += responses

    def answered(self, name: str, text: str) -> None:
        """What is asked for by this name is known."""
        self._answers[name] = text

    # --- what verifiers see ---

    def tokens(self, kind: Kind) -> Sequence[Token]:
        """See verify.api. Who has no such token costs the same work as who has one, and so does who is locked."""
        if self._locked and kind is not Kind.FIDO2:
            # A right answer must not even take another way through the stack than a wrong one.
            return [self._decoys.of(kind).token]
        found = [
            stored.token
            for stored in self.candidate.tokens
            if stored.token.kind is kind and (stored.token.expires_at is None or stored.token.expires_at > self.now)
        ]
        return found or [self._decoys.of(kind).token]

    def secret(self, token: Token) -> Secret:
        """See verify.api."""
        return self._store.seed(self._stored(token))

    async def ask(self, prompt: Prompt, *, again: bool = False) -> str:
        """See verify.api."""
        known = prompt.answer in self._answers
        if known and not again:
            text = self._answers[prompt.answer]
        else:
            if known:
                # Each further answer is a guess of its own.
                await self.reserve_now()
            text = self._responses.pop(0) if self._responses else await self._question(prompt)
            if self.splitter is not None and prompt.answer != WEBAUTHN:
                text = await self._apart(text, prompt.answer)
            self._answers[prompt.answer] = text
        if not text.strip():
            self._declined = prompt.answer
            raise DeclinedError("the answer was left empty")
        self.judged = True
        return text

    async def tell(self, notice: Notice) -> None:
        """See verify.api. Raises TooMuchToldError."""
        self._count(notice)
        if self.deliver is not None:
            await self.deliver((notice,))
        else:
            self.notices.append(notice)

    async def ask_pin(self, text: str) -> str:
        """The PIN of a security key: it goes to the key alone, and no verifier can have it as an answer."""
        if self.judged:
            # Each further answer is a guess of its own.
            await self.reserve_now()
        pin = await self._question(Prompt(text, answer=PIN))
        self.judged = self.judged or bool(pin)
        return pin

    async def keep_alive(self) -> None:
        """Have the caller know that the attempt goes on, though there is nothing to tell."""
        if self.deliver is not None:
            await self.deliver(())

    def tell_on_success(self, notice: Notice) -> None:
        """See verify.api. Raises TooMuchToldError."""
        self._count(notice)
        self.afterwards.append(notice)

    async def advance(self, token: Token, moving_factor: int, drift: int = 0) -> bool:
        """See verify.api."""
        stored = self._stored(token)
        if not stored.seq or self._locked:
            return False
        if moving_factor < stored.token.moving_factor or self._is_spent(token):
            self.reason = "code already used"
            return False
        self.spends.append((token, Spend(stored.seq, moving_factor + 1, drift)))
        return True

    async def strike(self, token: Token, place: int) -> bool:
        """See verify.api."""
        stored = self._stored(token)
        if not stored.seq:
            return False
        bit = 1 << place
        if stored.token.moving_factor & bit or self._is_spent(token):
            self.reason = "code already used"
            return False
        self.spends.append((token, Strike(stored.seq, bit)))
        return True

    async def present(self, token: Token) -> bool:
        """See verify.api. It is struck out of nothing: the statement sees to it that the token is active still."""
        stored = self._stored(token)
        if not stored.seq or self._locked or self._is_spent(token):
            return False
        self.spends.append((token, Strike(stored.seq, 0)))
        return True

    def note(self, reason: str) -> None:
        """See verify.api. Raises TooMuchToldError."""
        self._count(Notice(reason))
        self.noted.append(reason)

    @property
    def why(self) -> str:
        """Why the attempt is refused, if it is: for the audit log."""
        return "; ".join((*self.noted, self.reason))

    def random(self, length: int) -> bytes:
        """See verify.api."""
        return self.keys.random(length)

    @property
    def relying_party(self) -> RelyingParty | None:
        """See verify.api."""
        return self.keys.party

    @property
    def reaches_keys(self) -> bool:
        """See verify.api."""
        return self.keys.browser or self.keys.here is not None

    async def assertion(self, options: str) -> str:
        """See verify.api. Who is asked and has no key at hand leaves the answer empty: then others may be asked."""
        if self.keys.browser:
            return await self.ask(Prompt(options, PromptStyle.WEBAUTHN, WEBAUTHN), again=True)
        return "" if self.keys.here is None else await self.keys.here(self, options)

    async def enrol(self, *, trust_caller: bool = False) -> Enrolment | None:
        """See verify.api."""
        if self.mode is not Mode.ENROL or self.enrolment is None or not (trust_caller or self.first_factor):
            return None
        return self.enrolment(self)

    # --- what the stack sees ---

    def begin_rule(self) -> None:
        """See verify.stack."""
        self._declined = None

    @property
    def declined(self) -> Verdict | None:
        """See verify.stack. Only who need not show a code may leave one out."""
        if self._declined is None:
            return None
        if self.may_decline and self._declined in {CODE, WEBAUTHN}:
            self.left_out = True
            return Verdict.IGNORE
        self.reason = "empty answer"
        return Verdict.AUTH_ERR

    async def reserve_now(self) -> None:
        """Count a miss before more is judged. Raises TurnedAwayError."""
        if self.reserve is not None and not await self.reserve(self):
            self.blocked = True
            raise TurnedAwayError("back-off lets nothing be judged now")

    def trial(self, code: str) -> StoreAttempt:
        """The same attempt with a code that may be the one; nothing comes of it."""
        copy = StoreAttempt(
            self._store,
            self.candidate,
            self._decoys,
            now=self.now,
            client=self.client,
            user=self.user,
            context=self.context,
            mode=Mode.ASK,
            may_decline=False,
            questions=0,
            keys=self.keys,
        )
        copy.answered(CODE, code)
        return copy

    @property
    def _locked(self) -> bool:
        return self.candidate.user is not None and self.candidate.user.locked_at is not None

    def _count(self, notice: Notice) -> None:
        self._told += len(notice.text) + _NOTICE
        if self._told > _MOST_TOLD:
            raise TooMuchToldError("a person is told too much in one attempt")

    async def _question(self, prompt: Prompt) -> str:
        if not self.questions_left:
            raise TooManyQuestionsError("more is asked than `[limits] questions` allows")
        self.questions_left -= 1
        return await Question(prompt)

    async def _apart(self, text: str, asked: str) -> str:
        """Take an answer apart that may hold more than what was asked for."""
        assert self.splitter is not None
        splitter, self.splitter = self.splitter, None
        self.split = await splitter(self, text)
        self._answers[CODE] = self.split.code
        if asked == CODE:
            return self.split.code
        return self.split.password

    def _is_spent(self, token: Token) -> bool:
        return any(token.id == spent.id for spent, _ in self.spends)

    def _stored(self, token: Token) -> StoredToken:
        for stored in self.candidate.tokens:
            if stored.token.id == token.id:
                return stored
        if not token.id:
            return self._decoys.of(token.kind)
        raise ValueError("a verifier may only use the tokens of its attempt")


class Run:
    """A stack at work on one attempt: goes on until it asks or has found something.

    A question suspends the stack between two calls of the client; all else it may wait for is the event loop's.
    """

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, Finding]) -> None:
        self._coroutine = coroutine

    async def resume(self, answer: str | None = None) -> Question | Finding:
        """Go on, with the answer to the last question."""
        return await _Resumed(self._coroutine, answer)

    def close(self) -> None:
        """Give up."""
        self._coroutine.close()


class _Resumed:
    """Drives the coroutine, handing what it waits for on to the event loop, until it asks or ends."""

    __slots__ = ("_answer", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, Finding], answer: str | None) -> None:
        self._coroutine = coroutine
        self._answer = answer

    def __await__(self) -> Generator[Any, Any, Question | Finding]:
        step: Callable[[], Any] = partial(self._coroutine.send, self._answer)
        while True:
            try:
                waiting = step()
            except StopIteration as end:
                found: Finding = end.value
                return found
            if isinstance(waiting, Question):
                return waiting
            try:
                step = partial(self._coroutine.send, (yield waiting))
            except BaseException as error:  # noqa: BLE001 - cancellation belongs to the coroutine
                step = partial(self._coroutine.throw, error)
