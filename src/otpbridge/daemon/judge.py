"""Judge attempts: policy before the question, the stack on the answer, and the settlement that makes it count."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from otpbridge.config import AccountRule, Config, Policy
from otpbridge.daemon import accounts, policy
from otpbridge.daemon.attempt import AskKeys, Deliver, Keys, Question, Run, StoreAttempt
from otpbridge.daemon.decoys import Decoys
from otpbridge.daemon.login_enrolment import LoginEnrolment
from otpbridge.daemon.onefield import take_apart
from otpbridge.daemon.policy import Authority, Circumstances, Standing
from otpbridge.daemon.stacks import Stacks
from otpbridge.daemon.tally import NONE, Tally
from otpbridge.errors import OtpBridgeError, StoreError
from otpbridge.model import (
    LOCAL,
    AuditEvent,
    Backoff,
    Caller,
    Context,
    Kind,
    Notice,
    Outcome,
    Verdict,
)
from otpbridge.otp.recovery import codes_left
from otpbridge.store import users
from otpbridge.store.settle import Ruling, Settled, Settlement, Sighting, Strike
from otpbridge.store.store import Candidate, Store
from otpbridge.verify.stack import Finding, Mode, Stack

log = logging.getLogger(__name__)

Detail = dict[str, str | int | bool]

_LEFT = Outcome(Verdict.AUTH_ERR, "left before the verdict")
_ACCOUNT_MS = 120_000
"""How long before PAM's account phase a success may be, where policy wants one."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is to be verified, for whom, and what the caller said of the attempt."""

    caller: Caller
    authority: Authority
    client: str
    user: str
    context: Context
    nullok: bool
    stack: str | None = None
    """The stack that was asked for; None where the service chooses it."""
    combined: bool = False
    """Whether the first answer is password and code in one."""
    browser: bool = False
    """Whether the caller can have a security key asked in a browser."""
    keys_here: AskKeys | None = None
    """Asks the security keys that are plugged in here, where the login is here too."""
    enrols: bool = True
    """Whether the user may set up a first authenticator here, where the stack does that."""

    @property
    def believed(self) -> bool:
        """Whether what the caller says of the attempt can be relied on."""
        return self.authority is not Authority.SELF

    def event(
        self,
        event: str,
        outcome: Outcome,
        token: str | None = None,
        detail: Detail | None = None,
        *,
        stack: str | None = None,
    ) -> AuditEvent:
        """The audit row of an outcome, with the stack that came to it."""
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
            detail=detail,
            host=self.caller.host,
            stack=stack,
        )


class Case(NamedTuple):
    """An attempt as policy sees it, before anything is asked."""

    candidate: Candidate
    stack: Stack
    policy: Policy
    rule: Backoff
    standing: Standing
    sighting: Sighting | None


class Conversation:
    """One attempt that goes on over several calls."""

    __slots__ = ("attempt", "case", "run", "started", "subject")

    def __init__(self, subject: Subject, case: Case, attempt: StoreAttempt, run: Run, started: float) -> None:
        self.subject = subject
        self.case = case
        self.attempt = attempt
        self.run = run
        self.started = started

    @property
    def waived(self) -> str | None:
        """Why no second factor was needed; None where one was."""
        if self.case.standing.mode is Mode.WAIVED:
            return self.case.standing.reason
        return "optional, empty answer" if self.attempt.left_out and not self.attempt.spends else None


class Judge:
    """Holds what all attempts share."""

    def __init__(
        self,
        store: Store,
        config: Config,
        stacks: Stacks,
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        host: str,
        tally: Tally,
    ) -> None:
        self._store = store
        self.tally = tally
        self._config = config
        self.stacks = stacks
        self._clock = clock
        self._random = random
        self._host = host
        self._decoys = Decoys(store.vault, random)
        self._policies: dict[tuple[str | None, str], tuple[Policy, Backoff]] = {}
        self._relying_party = functools.lru_cache(maxsize=1024)(partial(config.relying_party, host=host))

    async def check(self, subject: Subject, responses: Sequence[str]) -> Outcome:
        """Judge an attempt whose responses are all given. Raises UnknownStackError."""
        begun = perf_counter()
        opened = await self._open(subject)
        if isinstance(opened, Outcome):
            return self._unopened(subject, await self._note(subject, opened), begun)
        opened.attempt.answer(responses or ("",))
        if subject.combined or (len(responses) == 1 and opened.case.stack.both_factors):
            opened.attempt.splitter = partial(take_apart, opened.case.stack)
        try:
            step = await opened.run.resume()
        except BaseException:
            self.abandon(opened)
            raise
        if isinstance(step, Finding):
            return self._counted(opened, await self._conclude(opened, step), begun)
        opened.run.close()
        return self._counted(opened, await self._settle(opened, Verdict.AUTH_ERR, "not all prompts answered"), begun)

    async def begin(
        self, subject: Subject, deliver: Deliver | None = None
    ) -> tuple[Conversation | None, Question | Outcome]:
        """Start a conversation; there is none where nothing is asked. Raises UnknownStackError.

        `deliver` takes notices to the person at once.
        """
        begun = perf_counter()
        opened = await self._open(subject)
        if isinstance(opened, Outcome):
            return None, self._unopened(subject, await self._note(subject, opened), begun)
        opened.attempt.deliver = deliver
        step = await self._stepped(opened, None, begun)
        opened.attempt.deliver = None
        return (opened if isinstance(step, Question) else None), step

    async def answer(self, conversation: Conversation, responses: Sequence[str]) -> Question | Outcome:
        """Go on with the answers to the last prompts."""
        begun = perf_counter()
        attempt = conversation.attempt
        try:
            await self._refresh(conversation)
        except (StoreError, accounts.LookupFailedError) as error:
            self._give_up(conversation)
            return self._counted(conversation, _unavailable(error), begun)
        if conversation.subject.combined and attempt.split is None:
            attempt.splitter = partial(take_apart, conversation.case.stack)
        attempt.answer(responses[1:])
        return await self._stepped(conversation, responses[0] if responses else "", begun)

    def abandon(self, conversation: Conversation) -> None:
        """Give a conversation up. What was judged in it has been counted already; now it is also written down."""
        if conversation.attempt.judged:
            self.tally.given_up(conversation.case.stack.name, conversation.subject.context.service, _LEFT)
        self._give_up(conversation)

    def _give_up(self, conversation: Conversation) -> None:
        attempt = conversation.attempt
        conversation.run.close()
        if attempt.judged:
            wait, stack = _began(attempt, attempt.wait), conversation.case.stack.name
            row = conversation.subject.event("verify", _LEFT, detail=wait, stack=stack)
            noting = self._store.change(lambda transaction: transaction.audit(row), self._now_ms())
            noting.add_done_callback(_forget)

    async def account(self, subject: Subject) -> Outcome:
        """The account phase: nothing is asked, nothing is spent. Raises UnknownStackError."""
        try:
            case = await self.case(subject)
            seen = case.sighting is not None and await self._passed_within(case.sighting, _ACCOUNT_MS)
        except (StoreError, accounts.LookupFailedError) as error:
            return self._account(subject, _unavailable(error))
        verdict, reason = policy.account(
            case.candidate,
            case.standing,
            self._clock(),
            seen=seen,
            wanted=case.policy.account is AccountRule.VERIFIED,
        )
        if verdict is Verdict.ACCT_EXPIRED and not subject.believed:
            verdict = Verdict.PERM_DENIED
        return self._account(
            subject, await self._note(subject, Outcome(verdict, reason), "account", stack=case.stack)
        )

    # --- before the question ---

    async def _open(self, subject: Subject) -> Conversation | Outcome:
        now = self._clock()
        try:
            case = await self.case(subject)
        except (StoreError, accounts.LookupFailedError) as error:
            return _unavailable(error)
        self._decoys.refresh()
        attempt = StoreAttempt(
            self._store,
            case.candidate,
            self._decoys,
            now=now,
            client=subject.client,
            user=subject.user,
            context=subject.context,
            mode=case.standing.mode,
            may_decline=case.standing.may_decline,
            questions=self._config.limits.questions,
            keys=Keys(self._relying_party(subject.client), self._random, subject.browser, subject.keys_here),
        )
        conversation = Conversation(subject, case, attempt, Run(case.stack.evaluate(attempt)), now)
        attempt.reserve = partial(self._reserve, subject, case)
        if case.standing.mode is Mode.ENROL:
            attempt.enrolment = partial(self._enrolment, subject)
        return conversation

    async def case(self, subject: Subject, stack: Stack | None = None) -> Case:
        """What policy makes of an attempt. Raises StoreError, LookupFailedError, UnknownStackError."""
        context = subject.context
        if stack is None:
            stack = self.stacks.choose(subject.stack, context.service)
        held, rule = self._held(subject.client, stack.name)
        group = None
        if held.exempt_groups and subject.client == LOCAL:
            # In a thread, and before the rest is read: where accounts come from a directory it may take long.
            group = await asyncio.to_thread(accounts.member_of, subject.user, held.exempt_groups)
        candidate = await self._store.candidate(subject.client, subject.user)
        remembered = held.grace or held.account is AccountRule.VERIFIED or not candidate.has_authenticator
        sighting = _sighting(subject) if remembered else None
        about = Circumstances(
            known=self._config.users.unknown,
            nullok=subject.nullok,
            trusted=policy.trusted_network(context.rhost, held) if subject.believed else None,
            group=group,
            grace=bool(held.grace and sighting and await self._passed_within(sighting, held.grace * 1000)),
            enrols=stack.enrols and subject.enrols,
        )
        stands = policy.standing(candidate, held, self._clock(), about)
        return Case(candidate, stack, held, rule, stands, sighting)

    def _held(self, client: str, stack: str) -> tuple[Policy, Backoff]:
        """What holds for the users of a client at a stack, with their back-off."""
        # Clients that the configuration does not name are all alike, and there may be many.
        key = (client if client in self._config.clients else None, stack)
        found = self._policies.get(key)
        if found is None:
            held = self._config.policy_of(client, stack)
            found = self._policies[key] = (held, self._config.throttle.per_user(held))
        return found

    async def _passed_within(self, sighting: Sighting, ms: int) -> bool:
        at = await self._store.seen_at(sighting)
        return at is not None and 0 <= self._now_ms() - at <= ms

    # --- while it goes on ---

    async def _refresh(self, conversation: Conversation) -> None:
        """See the user and the time as they are when the answer comes, not when the question was asked."""
        attempt = conversation.attempt
        case = await self.case(conversation.subject, conversation.case.stack)
        conversation.case = case
        attempt.now = self._clock()
        attempt.candidate = case.candidate
        attempt.mode = case.standing.mode
        attempt.may_decline = case.standing.may_decline

    async def _stepped(self, conversation: Conversation, answer: str | None, begun: float) -> Question | Outcome:
        try:
            step = await conversation.run.resume(answer)
            attempt = conversation.attempt
            # Another question tells something of the answers before it: they count now, answered or not.
            counts = isinstance(step, Question) and attempt.judged and not attempt.reserved
            if counts and not await self._reserve(conversation.subject, conversation.case, attempt):
                conversation.run.close()
                step = Finding(Verdict.MAXTRIES, undecided=False)
        except BaseException:
            # Whoever asked has gone: nobody else would give the conversation up.
            self.abandon(conversation)
            raise
        if isinstance(step, Finding):
            return self._counted(conversation, await self._conclude(conversation, step), begun)
        return step

    async def _reserve(self, subject: Subject, case: Case, attempt: StoreAttempt) -> bool:
        """Count a miss in advance, which a success takes back. Says whether the attempt may go on."""
        now = self._now_ms()
        settlement = _settlement(
            subject, case, attempt, passed=False, now=now, conclude=lambda ruling: (None, ruling)
        )
        ruling: Ruling = await self._store.settle(settlement._replace(reserving=True, reserved=()))
        if ruling.settled is not Settled.MISSED:
            attempt.turned_away = ruling
            return False
        attempt.reserved.append(ruling.at)
        attempt.wait = max(attempt.wait, ruling.wait)
        return True

    def _enrolment(self, subject: Subject, attempt: StoreAttempt) -> LoginEnrolment:
        about = subject.event("token confirmed", Outcome(Verdict.SUCCESS, "enrolled at login"))._replace(verdict=None)
        return LoginEnrolment(self._store, self._config, attempt, host=self._host, random=self._random, about=about)

    # --- after the answer ---

    async def _conclude(self, conversation: Conversation, found: Finding) -> Outcome:
        """What a stack's finding amounts to."""
        attempt, subject = conversation.attempt, conversation.subject
        if attempt.turned_away is not None:
            # It was counted as refused when it was turned away.
            _, outcome = self._ruled(conversation, Verdict.AUTH_ERR, attempt.why, attempt.turned_away)
            wait = _began(attempt, attempt.wait)
            return await self._note(subject, outcome, detail=wait, stack=conversation.case.stack)
        waived = conversation.waived
        verdict = policy.amounts_to(
            found, attempt.mode, waived=waived is not None, enrolled=attempt.enrolled is not None
        )
        if verdict is Verdict.IGNORE:
            outcome = self._noticed(conversation, Outcome(verdict, waived or ""))
            return await self._told(conversation, await self._note(subject, outcome, stack=conversation.case.stack))
        if attempt.candidate.user is not None and attempt.candidate.user.locked_at is not None:
            return await self._settle(conversation, Verdict.AUTH_ERR, "user is locked")
        if verdict is Verdict.SUCCESS:
            outcome = await self._settle(conversation, verdict, waived or "code accepted")
            return await self._told(conversation, outcome)
        failed = f"; failed: {', '.join(attempt.failed)}" if attempt.failed else ""
        if verdict is Verdict.AUTHINFO_UNAVAIL:
            return await self._settle(conversation, verdict, f"not judged{failed}")
        owing = found.verdict is Verdict.SUCCESS
        reason = "required, and did not enrol" if owing else attempt.why + failed
        return await self._settle(conversation, verdict, reason)

    async def _settle(self, conversation: Conversation, verdict: Verdict, reason: str) -> Outcome:
        attempt, subject = conversation.attempt, conversation.subject
        if not attempt.judged and verdict is not Verdict.SUCCESS:
            # Nothing was guessed, so nothing is counted.
            left, stack = Outcome(verdict, reason), conversation.case.stack
            return await self._note(subject, left, detail={"unanswered": True}, stack=stack)
        passed = verdict is Verdict.SUCCESS
        outcome: Outcome = await self._store.settle(
            _settlement(
                subject,
                conversation.case,
                attempt,
                passed=passed,
                # Not the time of the answer: seen from before the last miss, the longest wait looks like a stepped
                # clock.
                now=self._now_ms(),
                conclude=partial(self._ruled, conversation, verdict, reason),
            )
        )
        return outcome

    def _ruled(
        self, conversation: Conversation, verdict: Verdict, reason: str, ruling: Ruling
    ) -> tuple[AuditEvent, Outcome]:
        """What a ruling means to the audit log and to the caller, who hears of the token on success alone."""
        attempt = conversation.attempt
        token = attempt.spends[-1][0].id if attempt.spends else attempt.enrolled
        detail, stack = None, conversation.case.stack.name
        match ruling.settled:
            case Settled.PASSED:
                detail = _used(attempt)
                outcome = self._noticed(conversation, Outcome(Verdict.SUCCESS, reason, token))
            case Settled.MISSED if verdict is Verdict.AUTHINFO_UNAVAIL:
                outcome = Outcome(verdict, reason)
            case Settled.MISSED:
                outcome = Outcome(Verdict.AUTH_ERR, reason)
            case Settled.SPENT:
                outcome = Outcome(Verdict.AUTH_ERR, "code already used")
            case Settled.BLOCKED:
                outcome = Outcome(Verdict.MAXTRIES, "back-off, not judged", retry_after=-(-ruling.wait // 1000))
            case Settled.FAILED:
                outcome = Outcome(Verdict.AUTHINFO_UNAVAIL, "the store could not be written")
        if ruling.settled in {Settled.MISSED, Settled.SPENT}:
            detail = _began(attempt, max(ruling.wait, attempt.wait))
        return conversation.subject.event("verify", outcome, token, detail, stack=stack), outcome

    def _noticed(self, conversation: Conversation, outcome: Outcome) -> Outcome:
        """An outcome that lets in, with what the person is told, and which code was in the answer."""
        attempt = conversation.attempt
        user = attempt.candidate.user
        # Resets alone leave one.
        left = (Notice(user.notice, name="user_reset"),) if user is not None and user.notice else ()
        code = attempt.split.span if attempt.split is not None and attempt.split.length else None
        if code is None and not left and not attempt.afterwards:
            return outcome
        return outcome._replace(notices=(*attempt.afterwards, *left), code=code)

    async def _told(self, conversation: Conversation, outcome: Outcome) -> Outcome:
        """The outcome, once what was left for the person to be told is not told again."""
        user = conversation.attempt.candidate.user
        if user is None or not user.notice or outcome.verdict not in {Verdict.SUCCESS, Verdict.IGNORE}:
            return outcome
        try:
            await self._store.change(
                partial(users.leave_notice, client=user.client, name=user.name, notice=None), self._now_ms()
            )
        except OtpBridgeError as error:
            log.warning("a notice for a user will be given again: %s", error)
        return outcome

    async def _note(
        self,
        subject: Subject,
        outcome: Outcome,
        event: str = "verify",
        *,
        detail: Detail | None = None,
        stack: Stack | None = None,
    ) -> Outcome:
        """Write an outcome that spends and counts nothing to the audit log, then give it."""
        row = subject.event(event, outcome, detail=detail, stack=None if stack is None else stack.name)
        try:
            await self._store.change(lambda transaction: transaction.audit(row), self._now_ms())
        except StoreError as error:
            return _unavailable(error)
        return outcome

    def _counted(self, conversation: Conversation, outcome: Outcome, begun: float) -> Outcome:
        """An outcome, counted where it is the caller's to have."""
        spends = conversation.attempt.spends
        service = conversation.subject.context.service
        token = spends[-1][0] if spends else None
        self.tally.verified(conversation.case.stack.name, service, token, outcome, begun)
        return outcome

    def _unopened(self, subject: Subject, outcome: Outcome, begun: float) -> Outcome:
        self.tally.verified(NONE, subject.context.service, None, outcome, begun)
        return outcome

    def _account(self, subject: Subject, outcome: Outcome) -> Outcome:
        self.tally.account(subject.context.service, outcome)
        return outcome

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _settlement(
    subject: Subject,
    case: Case,
    attempt: StoreAttempt,
    *,
    passed: bool,
    now: int,
    conclude: Callable[[Ruling], Any],
) -> Settlement[Any]:
    source = subject.context.rhost
    return Settlement(
        subject=users.subject_key(subject.client, subject.user),
        source=users.source_key(source) if source else None,
        passed=passed,
        spends=tuple([spend for _, spend in attempt.spends]) if passed else (),
        now=now,
        rule=case.rule,
        conclude=conclude,
        reserved=tuple(attempt.reserved),
        sighting=case.sighting if passed and attempt.second_factor else None,
    )


def _sighting(subject: Subject) -> Sighting | None:
    """Where a success counts again; None where that cannot be told for sure."""
    context = subject.context
    source = context.rhost or (f"tty {context.tty}" if context.tty else "")
    if not subject.believed or not source:
        return None
    if subject.caller.host is not None:
        # A success at one host counts there alone: others need not believe what that one says.
        source = f"{subject.caller.host} {source}"
    return Sighting(subject.client, subject.user, context.service, source)


def _used(attempt: StoreAttempt) -> Detail | None:
    """What the audit log says of a success with a code that stands in for an authenticator."""
    for token, spend in attempt.spends:
        if token.kind is Kind.RECOVERY and isinstance(spend, Strike):
            return {"recovery code of": token.id, "left": codes_left(token.moving_factor | spend.bit)}
        if token.kind is Kind.REGISTRATION:
            return {"registration code": token.id}
    return None


def _began(attempt: StoreAttempt, wait: int) -> Detail | None:
    """What the audit log says of the miss that began a wait (milliseconds) of a user who is in the store."""
    if not wait or attempt.candidate.user is None:
        return None
    return {"wait": -(-wait // 1000)}


def _forget(noting: asyncio.Future[None]) -> None:
    if not noting.cancelled() and (error := noting.exception()) is not None:
        log.error("verify: %s", error)


def _unavailable(error: OtpBridgeError) -> Outcome:
    log.error("verify: %s", error)
    return Outcome(Verdict.AUTHINFO_UNAVAIL, "the store failed")
