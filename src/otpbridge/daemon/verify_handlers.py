"""org.otpbridge.Verify: the calls, their callers and their conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from otpbridge.config import Right
from otpbridge.daemon.attempt import Deliver, Question
from otpbridge.daemon.desk import Counter, Desk, client_of, invalid, user_of
from otpbridge.daemon.judge import Conversation, Subject
from otpbridge.daemon.local_keys import LocalKeys
from otpbridge.daemon.policy import Authority, Rights
from otpbridge.daemon.tally import NONE
from otpbridge.model import LOCAL, Caller, Context, Notice, Outcome, Verdict
from otpbridge.wire.messages import (
    Account,
    AccountReply,
    Begin,
    Cancel,
    Check,
    CheckReply,
    ContextFields,
    Continue,
    Empty,
    NoticeFields,
    PromptFields,
    Span,
    Step,
    StepReply,
)
from otpbridge.wire.service import Call, VarlinkError

_CONVERSATIONS = "conversations"
_PROVEN = "proven"
_MOST_CONVERSATIONS = 4
_MOST_RESPONSES = 8
_LONGEST_TEXT = 256

_REFUSED = Outcome(Verdict.PERM_DENIED, "not allowed to ask")


class VerifyCounter(Counter):
    """Handlers of org.otpbridge.Verify for one socket. `local_keys` are asked at logins at this machine."""

    def __init__(self, desk: Desk, local_keys: LocalKeys | None = None, *, admin: bool) -> None:
        super().__init__(desk, admin=admin)
        self._local_keys = local_keys

    async def check(self, call: Call, asked: Check) -> CheckReply:
        """Judge an attempt in one call."""
        if len(asked.responses) > _MOST_RESPONSES:
            raise invalid("responses")
        subject = await self.subject(call, asked)
        if subject is None:
            self._denied(asked)
            return CheckReply(verdict=Verdict.PERM_DENIED, notices=())
        outcome = await self.desk.judge.check(subject, asked.responses)
        self._remember(call, subject, outcome)
        return CheckReply(
            verdict=outcome.verdict,
            notices=_notices(outcome.notices),
            token=outcome.token,
            retry_after=outcome.retry_after,
            code=_span(outcome),
        )

    async def begin(self, call: Call, asked: Begin) -> StepReply:
        """Start a conversation."""
        subject = await self.subject(call, asked)
        if subject is None:
            self._denied(asked)
            return _reply("", _REFUSED, ())
        open_now = self._conversations(call)
        if len(open_now) >= _MOST_CONVERSATIONS:
            raise _error(call, "Busy", {"retryAfter": 1})
        number = int(call.connection.state.get("session", 0)) + 1
        session = str(number)
        deliver = _delivery(call, session)
        if deliver is not None and self._local_keys is not None:
            subject = replace(subject, keys_here=self._local_keys.of_login(subject.caller, subject.context))
        conversation, step = await self.desk.judge.begin(subject, deliver)
        if conversation is None or isinstance(step, Outcome):
            return _reply("", step, ())
        if _CONVERSATIONS not in call.connection.state:
            call.connection.on_close(lambda: self._abandon_all(open_now))
            call.connection.state[_CONVERSATIONS] = open_now
        call.connection.state["session"] = number
        open_now[session] = conversation
        return _reply(session, step, _told(conversation))

    async def proceed(self, call: Call, asked: Continue) -> StepReply:
        """Answer the prompts of a conversation."""
        if len(asked.responses) > _MOST_RESPONSES:
            raise invalid("responses")
        # Out of the list while it is judged: a second answer cannot be given to the same question.
        conversation = self._conversations(call).pop(asked.session, None)
        if conversation is None:
            raise _error(call, "NoSuchSession")
        if self.desk.clock() - conversation.started > self.desk.config.limits.conversation:
            self.desk.judge.abandon(conversation)
            raise _error(call, "NoSuchSession")
        conversation.attempt.deliver = _delivery(call, asked.session)
        step = await self.desk.judge.answer(conversation, asked.responses)
        conversation.attempt.deliver = None
        if isinstance(step, Question):
            self._conversations(call)[asked.session] = conversation
        else:
            self._remember(call, conversation.subject, step)
        return _reply(asked.session, step, _told(conversation))

    async def cancel(self, call: Call, asked: Cancel) -> Empty:
        """Give up a conversation."""
        conversation = self._conversations(call).pop(asked.session, None)
        if conversation is None:
            raise _error(call, "NoSuchSession")
        self.desk.judge.abandon(conversation)
        return Empty()

    async def account(self, call: Call, asked: Account) -> AccountReply:
        """PAM's account phase."""
        subject = await self.subject(call, asked)
        if subject is None:
            self.desk.judge.tally.account(_service(asked), _REFUSED)
            return AccountReply(verdict=Verdict.PERM_DENIED)
        return AccountReply(verdict=(await self.desk.judge.account(subject)).verdict)

    async def subject(self, call: Call, asked: Check | Begin | Account) -> Subject | None:
        """Who is to be verified; None where the caller may not ask."""
        return await subject_of(self.desk.rights, self.caller(call), asked)

    def _denied(self, asked: Check | Begin) -> None:
        self.desk.judge.tally.given_up(NONE, _service(asked), _REFUSED)

    def _abandon_all(self, conversations: dict[str, Conversation]) -> None:
        for conversation in conversations.values():
            self.desk.judge.abandon(conversation)

    def _conversations(self, call: Call) -> dict[str, Conversation]:
        found: dict[str, Conversation] | None = call.connection.state.get(_CONVERSATIONS)
        return {} if found is None else found

    def _remember(self, call: Call, subject: Subject, outcome: Outcome) -> None:
        """Note on the connection that this user has just proven to be there, with a token."""
        if outcome.verdict is Verdict.SUCCESS and outcome.token is not None and subject.client == LOCAL:
            call.connection.state[_PROVEN] = (subject.user, self.desk.clock())


async def subject_of(rights: Rights, caller: Caller, asked: Check | Begin | Account) -> Subject | None:
    """Who is to be verified for a process on this machine; None where it may not ask. Raises InvalidParameter."""
    client, user = client_of(asked.client), user_of(asked.user)
    authority = await rights.authority(caller, client, user, Right.VERIFY)
    return None if authority is Authority.NONE else subject_for(caller, authority, asked)


def subject_for(caller: Caller, authority: Authority, asked: Check | Begin | Account) -> Subject:
    """Who is to be verified for a caller that may ask. Raises InvalidParameter."""
    # What people say of themselves is no source: it would let them hide from back-off, or put it on others.
    believed = authority is not Authority.SELF
    return Subject(
        caller,
        authority,
        client_of(asked.client),
        user_of(asked.user),
        _context(asked.context, believed=believed),
        nullok=believed and bool(asked.nullok),
        stack=asked.stack,
        combined=not isinstance(asked, Account) and bool(asked.combined),
        browser=isinstance(asked, Begin) and bool(asked.webauthn),
    )


def proven(call: Call, user: str, now: float, seconds: float) -> bool:
    """Whether this user of client `local` verified on this connection within the last `seconds`."""
    found: tuple[str, float] | None = call.connection.state.get(_PROVEN)
    return found is not None and found[0] == user and 0 <= now - found[1] <= seconds


def _error(call: Call, name: str, parameters: dict[str, int] | None = None) -> VarlinkError:
    """An error of the interface that was called: Verify, or what relays ask."""
    return VarlinkError(f"{call.method.rpartition('.')[0]}.{name}", parameters)


def _service(asked: Check | Begin | Account) -> str:
    return "" if asked.context is None else asked.context.service or ""


def _context(fields: ContextFields | None, *, believed: bool) -> Context:
    if fields is None:
        return Context()
    said = (fields.service, fields.rhost, fields.tty, fields.ruser)
    service, rhost, tty, ruser = ((text or "")[:_LONGEST_TEXT].replace("\0", "") for text in said)
    return Context(service, rhost.lower() if believed else "", tty, ruser, (fields.language or "")[:35])


def _delivery(call: Call, session: str) -> Deliver | None:
    """What takes notices to the person at once; None where the caller waits for the whole step."""
    if not call.more:
        return None

    async def deliver(notices: tuple[Notice, ...]) -> None:
        await call.send(_step(session, notices))

    return deliver


def _told(conversation: Conversation) -> tuple[Notice, ...]:
    notices = tuple(conversation.attempt.notices)
    conversation.attempt.notices.clear()
    return notices


def _reply(session: str, step: Question | Outcome, notices: tuple[Notice, ...]) -> StepReply:
    if isinstance(step, Question):
        asked = step.prompt
        prompt = PromptFields(style=asked.style, text=asked.text, answer=asked.answer)
        if step.prompt.notice:
            notices = (*notices, Notice(step.prompt.notice))
        return _step(session, notices, prompts=(prompt,))
    said = (*notices, *step.notices)
    return _step(
        session, said, verdict=step.verdict, retry_after=step.retry_after, code=_span(step), token=step.token
    )


def _step(
    session: str,
    notices: tuple[Notice, ...],
    *,
    prompts: tuple[PromptFields, ...] = (),
    verdict: Verdict | None = None,
    retry_after: int | None = None,
    code: Span | None = None,
    token: str | None = None,
) -> StepReply:
    step = Step(
        notices=_notices(notices), prompts=prompts, verdict=verdict, retry_after=retry_after, code=code, token=token
    )
    return StepReply(session=session, step=step)


def _notices(notices: Sequence[Notice]) -> tuple[NoticeFields, ...]:
    return tuple(
        NoticeFields(style=notice.style, text=notice.text, name=notice.name or None, count=notice.count)
        for notice in notices
    )


def _span(outcome: Outcome) -> Span | None:
    return None if outcome.code is None else Span(start=outcome.code[0], length=outcome.code[1])
