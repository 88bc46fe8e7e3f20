"""Judge attempts: policy before the question, the stack on the answer, and the settlement that makes it count."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from otpbridge.config import Config
from otpbridge.daemon import policy
from otpbridge.daemon.attempt import Question, Run, StoreAttempt, make_decoy
from otpbridge.daemon.policy import Authority
from otpbridge.errors import StoreError
from otpbridge.model import AuditEvent, Caller, Context, Outcome, Verdict
from otpbridge.store import users
from otpbridge.store.settle import Ruling, Settled, Settlement
from otpbridge.store.store import Candidate, Store
from otpbridge.verify.stack import Stack

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is to be verified, for whom, and what the caller said of the attempt."""

    caller: Caller
    authority: Authority
    client: str
    user: str
    context: Context
    nullok: bool

    def event(self, event: str, outcome: Outcome, token: str | None = None) -> AuditEvent:
        """The audit row of an outcome."""
        return AuditEvent(
            event,
            client=self.client,
            user=self.user,
            token=token,
            verdict=outcome.verdict,
            reason=outcome.reason,
            uid=self.caller.uid,
            pid=self.caller.pid,
            service=self.context.service or None,
            rhost=self.context.rhost or None,
        )


class Conversation:
    """One attempt that goes on over several calls."""

    __slots__ = ("attempt", "run", "started", "subject")

    def __init__(self, subject: Subject, attempt: StoreAttempt, run: Run, started: float) -> None:
        self.subject = subject
        self.attempt = attempt
        self.run = run
        self.started = started


class Judge:
    """Holds what all attempts share."""

    def __init__(
        self, store: Store, config: Config, stack: Stack, clock: Callable[[], float], random: Callable[[int], bytes]
    ) -> None:
        self._store = store
        self._config = config
        self._stack = stack
        self._clock = clock
        self._random = random
        self._decoy = make_decoy(store, random)

    async def check(self, subject: Subject, responses: Sequence[str]) -> Outcome:
        """Judge an attempt whose responses are all given."""
        opened = self._open(subject)
        if isinstance(opened, Outcome):
            return await self._note(subject, opened)
        if _is_empty(responses):
            return await self._empty(opened)
        opened.attempt.answer(responses)
        step = await opened.run.resume()
        if isinstance(step, Verdict):
            return await self._settle(opened, step)
        opened.run.close()
        return await self._note(subject, Outcome(Verdict.AUTH_ERR, "not all prompts answered"))

    async def begin(self, subject: Subject) -> tuple[Conversation | None, Question | Outcome]:
        """Start a conversation; there is none where policy decides without a question."""
        opened = self._open(subject)
        if isinstance(opened, Outcome):
            return None, await self._note(subject, opened)
        return opened, await self._stepped(opened, None)

    async def answer(self, conversation: Conversation, responses: Sequence[str]) -> Question | Outcome:
        """Go on with the answers to the last prompts."""
        if _is_empty(responses):
            return await self._empty(conversation)
        try:
            self._refresh(conversation)
        except StoreError as error:
            conversation.run.close()
            return _unavailable(error)
        conversation.attempt.answer(responses[1:])
        return await self._stepped(conversation, responses[0])

    async def account(self, subject: Subject) -> Outcome:
        """The account phase: nothing is asked, nothing is spent."""
        try:
            candidate = self._store.candidate(subject.client, subject.user)
        except StoreError as error:
            return _unavailable(error)
        has_token = bool(candidate.tokens)
        unasked = self._unasked(subject, candidate)
        verdict, reason = policy.account(candidate.enforcement, has_token=has_token, unasked=unasked)
        return await self._note(subject, Outcome(verdict, reason), "account")

    def _open(self, subject: Subject) -> Conversation | Outcome:
        now = self._clock()
        try:
            candidate = self._store.candidate(subject.client, subject.user)
        except StoreError as error:
            return _unavailable(error)
        unasked = self._unasked(subject, candidate)
        if unasked is not None:
            return Outcome(Verdict.IGNORE, unasked)
        if not self._store.vault.is_current(self._decoy.sealed or b""):
            self._decoy = make_decoy(self._store, self._random)
        attempt = StoreAttempt(self._store, candidate, self._decoy, now)
        return Conversation(subject, attempt, Run(self._stack.evaluate(attempt)), now)

    def _unasked(self, subject: Subject, candidate: Candidate) -> str | None:
        return policy.passes_unasked(
            candidate.enforcement,
            has_token=bool(candidate.tokens),
            unknown=self._config.users.unknown,
            nullok=subject.nullok,
        )

    def _refresh(self, conversation: Conversation) -> None:
        """See the tokens and the time as they are when the answer comes, not when the question was asked."""
        attempt, subject = conversation.attempt, conversation.subject
        attempt.now = self._clock()
        attempt.candidate = self._store.candidate(subject.client, subject.user)

    async def _empty(self, conversation: Conversation) -> Outcome:
        conversation.run.close()
        candidate = conversation.attempt.candidate
        verdict, reason = policy.on_empty_answer(candidate.enforcement, has_token=bool(candidate.tokens))
        return await self._note(conversation.subject, Outcome(verdict, reason))

    async def _stepped(self, conversation: Conversation, answer: str | None) -> Question | Outcome:
        step = await conversation.run.resume(answer)
        return step if isinstance(step, Question) else await self._settle(conversation, step)

    async def _settle(self, conversation: Conversation, verdict: Verdict) -> Outcome:
        attempt, subject = conversation.attempt, conversation.subject
        if verdict is Verdict.AUTHINFO_UNAVAIL:
            return await self._note(subject, Outcome(verdict, "a verifier failed"))
        passed = verdict is Verdict.SUCCESS
        source = subject.context.rhost
        return await self._store.settle(
            Settlement(
                subject=users.subject_key(subject.client, subject.user),
                source=users.source_key(source) if source else None,
                passed=passed,
                spends=tuple(spend for _, spend in attempt.spends) if passed else (),
                now=int(attempt.now * 1000),
                conclude=partial(_conclude, subject, attempt),
            )
        )

    async def _note(self, subject: Subject, outcome: Outcome, event: str = "verify") -> Outcome:
        """Write an outcome that spends and counts nothing to the audit log, then give it."""
        row = subject.event(event, outcome)
        try:
            await self._store.change(lambda transaction: transaction.audit(row), int(self._clock() * 1000))
        except StoreError as error:
            return _unavailable(error)
        return outcome


def _is_empty(responses: Sequence[str]) -> bool:
    return not responses or not responses[0].strip()


def _conclude(subject: Subject, attempt: StoreAttempt, ruling: Ruling) -> tuple[AuditEvent, Outcome]:
    """What a ruling means to the audit log, which names the token, and to the caller, who hears of it on success."""
    token = attempt.spends[-1][0] if attempt.spends else None
    match ruling.settled:
        case Settled.PASSED:
            outcome = Outcome(Verdict.SUCCESS, "code accepted", token)
        case Settled.MISSED:
            outcome = Outcome(Verdict.AUTH_ERR, attempt.reason)
        case Settled.SPENT:
            outcome = Outcome(Verdict.AUTH_ERR, "code already used")
        case Settled.BLOCKED:
            outcome = Outcome(Verdict.MAXTRIES, "back-off, not judged", retry_after=-(-ruling.wait // 1000))
        case Settled.FAILED:
            outcome = Outcome(Verdict.AUTHINFO_UNAVAIL, "the store could not be written")
    return subject.event("verify", outcome, token), outcome


def _unavailable(error: StoreError) -> Outcome:
    log.error("verify: %s", error)
    return Outcome(Verdict.AUTHINFO_UNAVAIL, "the store failed")
