"""The attempt as a verifier in a thread sees it (see verify.api.Attempt): what comes from there is checked here."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from otpbridge.daemon.attempt import StoreAttempt
from otpbridge.model import Context, Kind, Notice, NoticeStyle, Prompt, PromptStyle, RelyingParty, Secret, Token
from otpbridge.verify.api import Enrolment

T = TypeVar("T")

_LONGEST_PROMPT = 512
_LONGEST_NOTICE = 4096
_LONGEST_OPTIONS = 32 * 1024
_LARGEST = 2**62
_PLACES = 63
_UNFIT = frozenset({"Cc", "Cs"})


class Errands(Protocol):
    """Has things done for a thread, while its attempt lasts; after it, all of them raise AttemptOverError."""

    def check(self) -> None:
        """Nothing, while the attempt lasts."""

    async def send(self, make: Callable[[], Coroutine[Any, Any, T]], *, waits: bool = False) -> T:
        """Have something done on the daemon's event loop; with `waits`, it waits for a person."""

    def do(self, call: Callable[[], T]) -> T:
        """Do something here and now."""


class Port:
    """What a verifier in a thread is given."""

    def __init__(self, attempt: StoreAttempt, errands: Errands) -> None:
        self._attempt = attempt
        self._errands = errands

    @property
    def now(self) -> float:
        """See verify.api."""
        return self._attempt.now

    @property
    def user(self) -> str:
        """See verify.api."""
        return self._attempt.user

    @property
    def client(self) -> str:
        """See verify.api."""
        return self._attempt.client

    @property
    def context(self) -> Context:
        """See verify.api."""
        return self._attempt.context

    def tokens(self, kind: Kind) -> Sequence[Token]:
        """See verify.api."""
        self._errands.check()
        return self._attempt.tokens(kind)

    def secret(self, token: Token) -> Secret:
        """See verify.api."""
        self._errands.check()
        return self._attempt.secret(token)

    async def ask(self, prompt: Prompt, *, again: bool = False) -> str:
        """See verify.api. What is done with an answer here cannot be undone, so a miss is counted first."""
        check_prompt(prompt)

        async def asked() -> str:
            text = await self._attempt.ask(prompt, again=bool(again))
            if not self._attempt.reserved:
                await self._attempt.reserve_now()
            return text

        return await self._errands.send(asked, waits=True)

    async def tell(self, notice: Notice) -> None:
        """See verify.api."""
        _check_notice(notice)
        await self._errands.send(lambda: self._attempt.tell(notice))

    def tell_on_success(self, notice: Notice) -> None:
        """See verify.api."""
        _check_notice(notice)
        self._errands.do(lambda: self._attempt.tell_on_success(notice))

    async def advance(self, token: Token, moving_factor: int, drift: int = 0) -> bool:
        """See verify.api."""
        _check_number("moving_factor", moving_factor, 0, _LARGEST)
        _check_number("drift", drift, -_LARGEST, _LARGEST)
        return await self._errands.send(lambda: self._attempt.advance(token, moving_factor, drift))

    async def strike(self, token: Token, place: int) -> bool:
        """See verify.api."""
        _check_number("place", place, 0, _PLACES)
        return await self._errands.send(lambda: self._attempt.strike(token, place))

    async def present(self, token: Token) -> bool:
        """See verify.api."""
        return await self._errands.send(lambda: self._attempt.present(token))

    def note(self, reason: str) -> None:
        """See verify.api."""
        _check_text("a reason", reason, _LONGEST_PROMPT)
        self._errands.do(lambda: self._attempt.note(reason))

    def random(self, length: int) -> bytes:
        """See verify.api."""
        _check_number("length", length, 1, _LONGEST_PROMPT)
        return self._attempt.random(length)

    @property
    def relying_party(self) -> RelyingParty | None:
        """See verify.api."""
        return self._attempt.relying_party

    @property
    def reaches_keys(self) -> bool:
        """See verify.api."""
        return self._attempt.reaches_keys

    async def assertion(self, options: str) -> str:
        """See verify.api."""
        _check_text("what a security key is asked", options, _LONGEST_OPTIONS)
        return await self._errands.send(lambda: self._attempt.assertion(options), waits=True)

    async def enrol(self, *, trust_caller: bool = False) -> Enrolment | None:
        """See verify.api. Only otpbridge's own verifier enrols."""
        return None


def check_prompt(prompt: object) -> None:
    """Raises TypeError or ValueError where a prompt does not fit into a reply."""
    if not isinstance(prompt, Prompt) or not isinstance(prompt.style, PromptStyle):
        raise TypeError("a verifier asks with an otpbridge.model.Prompt")
    _check_text("the text of a prompt", prompt.text, _LONGEST_PROMPT)
    _check_text("the name of an answer", prompt.answer, _LONGEST_PROMPT)
    _check_text("the notice of a prompt", prompt.notice, _LONGEST_NOTICE)


def _check_notice(notice: object) -> None:
    if not isinstance(notice, Notice) or not isinstance(notice.style, NoticeStyle):
        raise TypeError("a verifier tells with an otpbridge.model.Notice")
    _check_text("the text of a notice", notice.text, _LONGEST_NOTICE)


def _check_text(what: str, text: object, longest: int) -> None:
    """A text that fits into a message: anything else would break the reply to the whole attempt."""
    if not isinstance(text, str):
        raise TypeError(f"{what} is a str")
    if len(text) > longest:
        raise ValueError(f"{what} has at most {longest} characters")
    if any(unicodedata.category(character) in _UNFIT and character not in "\n\t" for character in text):
        raise ValueError(f"{what} has a control character, or one that UTF-8 does not have")


def _check_number(what: str, number: object, least: int, below: int) -> None:
    """A number that fits into the store: anything else would break the commit that it is a part of."""
    if not isinstance(number, int):
        raise TypeError(f"{what} is an int")
    if not least <= number < below:
        raise ValueError(f"{what} is out of range")
