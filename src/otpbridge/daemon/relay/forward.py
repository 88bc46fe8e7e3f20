"""org.otpbridge.Verify at a relay: the same rights for processes as everywhere, and a centre that judges."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import msgspec

from otpbridge.client.requests import context_fields
from otpbridge.daemon.judge import Subject
from otpbridge.daemon.policy import Authority, Rights
from otpbridge.daemon.relay.centres import Asked, Central, Centres
from otpbridge.daemon.relay.line import Line, LostError
from otpbridge.daemon.verify_handlers import subject_of
from otpbridge.errors import RemoteError
from otpbridge.model import Caller, Verdict
from otpbridge.wire import messages
from otpbridge.wire.calls import SERVICE
from otpbridge.wire.messages import (
    RELAY,
    VERIFY,
    Account,
    AccountReply,
    Begin,
    Cancel,
    Check,
    CheckReply,
    Continue,
    Empty,
    Origin,
    Step,
    StepReply,
)
from otpbridge.wire.service import Call, VarlinkError

log = logging.getLogger(__name__)

_CONVERSATIONS = "conversations"
_MOST_CONVERSATIONS = 4
_MOST_OWN = 256
_PASSED_ON = {
    f"{RELAY}.{name}": f"{VERIFY}.{name}" for name in ("NoSuchSession", "UnknownStack", "Busy", "Unavailable")
}
_PASSED_ON[f"{SERVICE}.InvalidParameter"] = f"{SERVICE}.InvalidParameter"


@dataclass(frozen=True, slots=True)
class _Talk:
    """A conversation: its connection to a centre, which no other call uses, and what the centre calls it.

    `own` says whether somebody holds it about their own user.
    """

    central: Central
    line: Line
    session: str
    own: bool


@dataclass(slots=True)
class House:
    """What the counters of a relay share. `rights` are replaced on reload.

    `own` are the conversations that people hold about themselves: together they may not use up the connections that
    this host may have, which logins need.
    """

    rights: Rights
    centres: Centres
    own: int = 0

    def hang_up(self, talk: _Talk) -> None:
        """A conversation has ended without a verdict: so does its connection."""
        self.own -= talk.own
        self.centres.give_back(talk.central, talk.line, keep=False)


class ForwardCounter:
    """Handlers of org.otpbridge.Verify for one socket of a relay."""

    def __init__(self, house: House, *, admin: bool) -> None:
        self._house = house
        self._admin = admin

    async def check(self, call: Call, asked: Check) -> CheckReply:
        """Have an attempt judged, by one centre, once."""
        subject = await self._subject(call, asked)
        if subject is None:
            return CheckReply(verdict=Verdict.PERM_DENIED, notices=())
        request = messages.RelayedCheck(
            user=subject.user,
            responses=asked.responses,
            client=subject.client,
            stack=subject.stack,
            context=context_fields(subject.context),
            combined=subject.combined or None,
            nullok=subject.nullok or None,
            origin=_origin(subject),
        )
        try:
            found = await self._house.centres.once(request)
        except LostError as error:
            log.error("Check: %s", error)  # noqa: TRY400 - no traceback: it is the network
            return CheckReply(verdict=Verdict.AUTHINFO_UNAVAIL, notices=())
        except RemoteError as error:
            _pass_on(error)
        self._house.centres.give_back(found.central, found.line)
        return found.reply

    async def begin(self, call: Call, asked: Begin) -> StepReply:
        """Start a conversation with a centre. Nothing is answered yet, so another one may be asked."""
        subject = await self._subject(call, asked)
        if subject is None:
            return _refused("", Verdict.PERM_DENIED)
        own = subject.authority is Authority.SELF
        if len(self._conversations(call)) >= _MOST_CONVERSATIONS or (own and self._house.own >= _MOST_OWN):
            raise VarlinkError(f"{VERIFY}.Busy", {"retryAfter": 1})
        request = messages.RelayedBegin(
            user=subject.user,
            client=subject.client,
            stack=subject.stack,
            context=context_fields(subject.context),
            combined=subject.combined or None,
            nullok=subject.nullok or None,
            webauthn=subject.browser or None,
            origin=_origin(subject),
        )
        number = int(call.connection.state.get("session", 0)) + 1
        call.connection.state["session"] = number
        going = self._house.centres.safely(request, more=call.more)
        return await self._stepped(call, str(number), going, request, own=own)

    async def proceed(self, call: Call, asked: Continue) -> StepReply:
        """Hand the answers on, once: where the outcome stays unknown, it is a refusal."""
        # Out of the list meanwhile: a second answer cannot be given to the same question.
        talk = self._conversations(call).pop(asked.session, None)
        if talk is None:
            raise VarlinkError(f"{VERIFY}.NoSuchSession")
        request = messages.RelayedContinue(session=talk.session, responses=asked.responses)
        self._house.own -= talk.own
        going = self._house.centres.go_on(talk.central, talk.line, request, more=call.more)
        return await self._stepped(call, asked.session, going, request, own=talk.own)

    async def cancel(self, call: Call, asked: Cancel) -> Empty:
        """Give up a conversation. The centre gives it up with its connection."""
        talk = self._conversations(call).pop(asked.session, None)
        if talk is None:
            raise VarlinkError(f"{VERIFY}.NoSuchSession")
        self._house.hang_up(talk)
        return Empty()

    async def account(self, call: Call, asked: Account) -> AccountReply:
        """PAM's account phase, which asks nothing: it may be repeated."""
        subject = await self._subject(call, asked)
        if subject is None:
            return AccountReply(verdict=Verdict.PERM_DENIED)
        request = messages.RelayedAccount(
            user=subject.user,
            client=subject.client,
            stack=subject.stack,
            context=context_fields(subject.context),
            nullok=subject.nullok or None,
            origin=_origin(subject),
        )
        try:
            found = await self._house.centres.safely(request, more=False)
        except LostError as error:
            log.error("Account: %s", error)  # noqa: TRY400 - no traceback: it is the network
            return AccountReply(verdict=Verdict.AUTHINFO_UNAVAIL)
        except RemoteError as error:
            _pass_on(error)
        self._house.centres.give_back(found.central, found.line)
        return found.reply

    # --- parts ---

    async def _subject(self, call: Call, asked: Check | Begin | Account) -> Subject | None:
        peer = call.peer
        caller = Caller(peer.uid, peer.gid, peer.pid, admin_socket=self._admin)
        return await subject_of(self._house.rights, caller, asked)

    async def _stepped(
        self,
        call: Call,
        session: str,
        going: Awaitable[Asked[StepReply]],
        request: messages.Request[StepReply],
        *,
        own: bool,
    ) -> StepReply:
        """What comes of a call of a conversation: notices as they arrive, then prompts or a verdict."""
        centres = self._house.centres
        try:
            found = await going
            try:
                reply = await self._last(call, session, found, type(request))
            except BaseException as error:
                centres.give_back(found.central, found.line, keep=isinstance(error, RemoteError))
                raise
        except LostError as error:
            log.error("%s: %s", call.method, error)  # noqa: TRY400 - no traceback: it is the network
            return _refused(session, Verdict.AUTHINFO_UNAVAIL)
        except RemoteError as error:
            _pass_on(error)
        if reply.step.verdict is not None:
            centres.give_back(found.central, found.line)
        else:
            self._keep(call, session, _Talk(found.central, found.line, reply.session, own))
        return msgspec.structs.replace(reply, session=session)

    async def _last(
        self, call: Call, session: str, found: Asked[StepReply], kind: type[messages.Request[StepReply]]
    ) -> StepReply:
        reply, follows = found.reply, found.follows
        while follows:
            await call.send(msgspec.structs.replace(reply, session=session))
            reply, follows = await found.line.reply(kind, self._house.centres.seconds)
        return reply

    def _keep(self, call: Call, session: str, talk: _Talk) -> None:
        state = call.connection.state
        if _CONVERSATIONS not in state:
            open_now: dict[str, _Talk] = {}
            state[_CONVERSATIONS] = open_now
            call.connection.on_close(lambda: self._hang_up_all(open_now))
        state[_CONVERSATIONS][session] = talk
        self._house.own += talk.own

    def _hang_up_all(self, conversations: dict[str, _Talk]) -> None:
        for talk in conversations.values():
            self._house.hang_up(talk)

    def _conversations(self, call: Call) -> dict[str, _Talk]:
        found: dict[str, _Talk] | None = call.connection.state.get(_CONVERSATIONS)
        return {} if found is None else found


def elsewhere(centres: Centres, interface: str) -> Callable[[Call, Any], Awaitable[Any]]:
    """A handler for what only centres do."""

    async def refuse(_call: Call, _asked: Any) -> NoReturn:
        raise VarlinkError(f"{interface}.AtCentre", {"centres": [central.address for central in centres.all]})

    return refuse


def _origin(subject: Subject) -> Origin:
    caller = subject.caller
    return Origin(uid=caller.uid, pid=caller.pid, own=subject.authority is Authority.SELF)


def _refused(session: str, verdict: Verdict) -> StepReply:
    return StepReply(session=session, step=Step(notices=(), prompts=(), verdict=verdict))


def _pass_on(error: RemoteError) -> NoReturn:
    """Answer as the centre did, in the words of the interface that was called here."""
    name = _PASSED_ON.get(error.name)
    if name is None:
        log.error("a centre answered %s", error.name)
        raise VarlinkError(f"{VERIFY}.Unavailable") from None
    raise VarlinkError(name, error.parameters) from None
