"""The blocking client. It does not load asyncio."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from otpbridge.client import requests
from otpbridge.client.dialogue import Dialogue
from otpbridge.client.exchange import IDLE_CONNECTIONS, Exchange, NothingSentError, socket_path
from otpbridge.client.line import Line
from otpbridge.client.results import OnNotice, Verification, verification_of
from otpbridge.model import Algorithm, Context, Enforcement, Kind
from otpbridge.wire.messages import (
    AccountEvent,
    Activity,
    AddManagedUser,
    ChooseEnforcement,
    Confirm,
    ConfirmReply,
    Discard,
    FinishFido2,
    FinishFido2Reply,
    Invite,
    ManagedUser,
    ManagedUsers,
    NewRecoveryCodes,
    R,
    RecoveryCodesReply,
    RegistrationCodeReply,
    Remove,
    RemoveManagedUser,
    Request,
    Reset,
    SetPassword,
    ShowManagedUser,
    Start,
    StartFido2,
    StartFido2Reply,
    StartReply,
    StepReply,
    Tokens,
    TokensReply,
)


class Client:
    """Calls otpbridged, blocking.

        with Client() as otp:
            if otp.verify("alice", "123456"):
                ...

    The socket is `path`, else `verify` (with `admin`: `admin`) in `run_dir`, else in $OTPBRIDGE_RUN_DIR, else that of
    a daemon of this user, else of the system's. `timeout` is in seconds, for each reply.

    Connections are kept: calls one after another use the same one, threads get one each, a forked child opens its
    own. One that the daemon has closed since is replaced before a call is sent; a call of which a byte was sent is
    never sent again.

    Every call raises UnavailableError (no daemon, no answer in time), RemoteError (an error of the daemon's
    interfaces) or ProtocolError (no otpbridged there, or a call over 64 KiB).
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        run_dir: str | os.PathLike[str] | None = None,
        admin: bool = False,
        timeout: float = 10.0,
    ) -> None:
        self._path = socket_path(path, run_dir, admin=admin)
        self._timeout = timeout
        self._idle: list[Line] = []

    def __repr__(self) -> str:
        return f"Client({os.fspath(self._path)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept connections. The client can be used again; it opens new ones."""
        while self._idle:
            self._idle.pop().close()

    # --- any call ---

    def call(self, request: Request[R]) -> R:
        """Call one method and return its reply."""
        exchange = Exchange(request)
        line = self._send(exchange)
        try:
            return next(line.replies(exchange, self._timeout))
        finally:
            self._keep(line, exchange)

    def stream(self, request: Request[R], *, timeout: float | None = None) -> Iterator[R]:
        """Call with `more` and yield each reply as it comes. Leaving the loop early ends the call.

        `timeout` is in seconds from one reply to the next; the client's own when left out, `math.inf` waits for ever.
        """
        exchange = Exchange(request, more=True)
        line = self._send(exchange)
        try:
            yield from line.replies(exchange, self._timeout if timeout is None else timeout)
        finally:
            self._keep(line, exchange)

    # --- org.otpbridge.Verify ---

    def verify(
        self,
        user: str,
        code: str | None = None,
        *,
        client: str | None = None,
        stack: str | None = None,
        context: Context | None = None,
        nullok: bool = False,
    ) -> Verification:
        """Judge one code. The result is true exactly when the code was right.

        Without a code: what policy says of a user who shows none (`ignore` where none is asked for). `client` is
        "local" when left out. With `nullok`, a user who is not in the store is ignored instead of refused.
        """
        codes = () if code is None else (code,)
        return verification_of(self.call(requests.check(user, codes, client, stack, context, nullok=nullok)))

    def check(
        self,
        user: str,
        responses: Sequence[str],
        *,
        client: str | None = None,
        stack: str | None = None,
        context: Context | None = None,
    ) -> Verification:
        """Judge several answers in one call, in the order in which the stack asks: a password and a code, say.

        The result is true exactly when they let in. `token` says which token they were from: None where no second
        factor was shown.
        """
        return verification_of(self.call(requests.check(user, responses, client, stack, context)))

    def begin(
        self,
        user: str,
        *,
        client: str | None = None,
        stack: str | None = None,
        context: Context | None = None,
        nullok: bool = False,
        webauthn: bool = False,
        on_notice: OnNotice | None = None,
    ) -> Conversation:
        """Start a conversation: the daemon says what to ask the person. `on_notice` gets each notice at once.

        With `webauthn`, users who have a security key are asked for it by a prompt of that style: its text is for
        navigator.credentials.get in the browser, the answer what that gives, in JSON; empty: go on without.

        with otp.begin("alice") as talk:
            while talk.verdict is None:
                talk.answer(*[getpass(prompt.text) for prompt in talk.prompts])
        """
        request = requests.begin(user, client, stack, context, nullok=nullok, webauthn=webauthn)
        exchange = Exchange(request, more=on_notice is not None)
        line = self._send(exchange)
        talk = Conversation(line, self._timeout, self._keep, on_notice)
        talk.hear(exchange)
        return talk

    # --- org.otpbridge.Enroll ---

    def enrol(
        self,
        user: str,
        kind: Kind = Kind.TOTP,
        *,
        client: str | None = None,
        label: str | None = None,
        issuer: str | None = None,
        algorithm: Algorithm | None = None,
        digits: int | None = None,
        period: int | None = None,
        reason: str | None = None,
    ) -> StartReply:
        """Make a pending token. The seed is in this reply and never again; `confirm` makes the token active.

        `reason`, here and below, is for the audit log, which knows the caller's uid alone: say who acts, or who
        asked you for it. It is not kept of users who act for themselves.
        """
        return self.call(
            Start(
                user=user,
                kind=kind,
                client=client,
                label=label,
                issuer=issuer,
                algorithm=algorithm,
                digits=digits,
                period=period,
                reason=reason,
            )
        )

    def confirm(self, token: str, code: str, *, serials: Sequence[str] = ()) -> ConfirmReply:
        """Prove a pending token with the code it shows. When `confirmed` is false, `fault` and `hint` say why.

        `serials` are those of the hardware keys that the token was put on.
        """
        return self.call(Confirm(token=token, code=code, serials=tuple(serials) or None))

    def start_fido2(
        self, user: str, *, client: str | None = None, label: str | None = None, reason: str | None = None
    ) -> StartFido2Reply:
        """Begin to register a security key: `options` is for navigator.credentials.create in the browser."""
        return self.call(StartFido2(user=user, client=client, label=label, reason=reason))

    def finish_fido2(self, token: str, credential: str) -> FinishFido2Reply:
        """Prove a pending security key with what the browser gave, in JSON. Each registration is judged once."""
        return self.call(FinishFido2(token=token, credential=credential))

    def new_recovery_codes(self, user: str, *, client: str | None = None) -> RecoveryCodesReply:
        """Make a list of recovery codes in place of the one before. The codes are in this reply and never again."""
        return self.call(NewRecoveryCodes(user=user, client=client))

    def set_password(self, user: str, password: str, *, client: str | None = None) -> None:
        """Set the password that the `password` verifier checks. Users cannot do it for themselves."""
        self.call(SetPassword(user=user, password=password, client=client))

    def discard(self, token: str) -> None:
        """Drop a pending token."""
        self.call(Discard(token=token))

    def tokens(self, user: str, *, client: str | None = None) -> TokensReply:
        """The tokens of a user, and whether a second factor is asked of them."""
        return self.call(Tokens(user=user, client=client))

    def remove(self, token: str, *, reason: str | None = None) -> None:
        """Revoke a token. Users who act for themselves verify with this client first (else `ProofNeeded`)."""
        self.call(Remove(token=token, reason=reason))

    def set_enforcement(
        self, user: str, enforcement: Enforcement, *, client: str | None = None, reason: str | None = None
    ) -> None:
        """Ask a second factor of a user always, or only where the user has one."""
        self.call(ChooseEnforcement(user=user, enforcement=enforcement, client=client, reason=reason))

    def activity(self, user: str, *, client: str | None = None, count: int | None = None) -> tuple[AccountEvent, ...]:
        """What happened to a user's account, newest first, as far as the person may know.

        `count` is 20 when left out, and 100 at most. Why a login was refused is not in it.
        """
        replies = self.stream(Activity(user=user, client=client, count=count))
        return tuple(event for reply in replies for event in reply.events)

    # --- org.otpbridge.Enroll, for who manages users ---

    def users(
        self, *, client: str | None = None, after: str | None = None, count: int | None = None
    ) -> tuple[ManagedUser, ...]:
        """The users of a client in order of name, for callers with the right `manage`.

        The next `count` after the name `after`; without them, all from the first.
        """
        replies = self.stream(ManagedUsers(client=client, after=after, count=count))
        return tuple(user for reply in replies for user in reply.users)

    def show_user(self, user: str, *, client: str | None = None) -> ManagedUser:
        """One user of a client."""
        return self.call(ShowManagedUser(user=user, client=client)).user

    def add_user(self, user: str, *, client: str | None = None, reason: str | None = None) -> ManagedUser:
        """Add a user."""
        return self.call(AddManagedUser(user=user, client=client, reason=reason)).user

    def remove_user(self, user: str, *, client: str | None = None, reason: str | None = None) -> None:
        """Delete a user with all tokens; not one whom an administrator has locked (`Locked`)."""
        self.call(RemoveManagedUser(user=user, client=client, reason=reason))

    def reset(
        self, user: str, *, client: str | None = None, keep_enforcement: bool = False, reason: str | None = None
    ) -> int:
        """For a lost phone: revoke every token but the password; the number of them.

        The user is asked for no second factor then, unless `keep_enforcement`, and is told at the next login.
        """
        request = Reset(user=user, client=client, keep_enforcement=keep_enforcement or None, reason=reason)
        return self.call(request).revoked

    def invite(
        self, user: str, *, client: str | None = None, seconds: int | None = None, reason: str | None = None
    ) -> RegistrationCodeReply:
        """Issue a registration code: it stands in for an authenticator once, within so many seconds (a day).

        It is in this reply and never again.
        """
        return self.call(Invite(user=user, client=client, seconds=seconds, reason=reason))

    # --- connections ---

    def _send(self, exchange: Exchange[R]) -> Line:
        """The connection on which the call was sent."""
        deadline = time.monotonic() + self._timeout
        while True:
            line, kept = self._line(deadline)
            try:
                line.send(exchange, self._timeout)
            except NothingSentError:
                line.close()
                if not kept:
                    raise exchange.cut_off() from None
            except BaseException:
                line.close()
                raise
            else:
                return line

    def _line(self, deadline: float) -> tuple[Line, bool]:
        """A kept connection that still works, else a new one; and whether it was kept."""
        while self._idle:
            try:
                line = self._idle.pop()
            except IndexError:  # another thread took it
                break
            if line.usable:
                return line, True
            line.close()
        return Line(self._path, deadline), False

    def _keep(self, line: Line, exchange: Exchange[R]) -> None:
        if exchange.reusable and len(self._idle) < IDLE_CONNECTIONS:
            self._idle.append(line)
        else:
            line.close()


class Conversation(Dialogue):
    """A conversation on a connection of its own. `with` cancels it when it is left without a verdict."""

    def __init__(
        self,
        line: Line,
        seconds: float,
        keep: Callable[[Line, Exchange[StepReply]], None],
        on_notice: OnNotice | None,
    ) -> None:
        super().__init__(on_notice)
        self._line: Line | None = line
        self._seconds = seconds
        self._keep = keep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def answer(self, *responses: str) -> Self:
        """Answer all prompts, in order; then look at `verdict` and `prompts` again."""
        self._check_open()
        if self._line is None or not self._line.usable:
            self.cancel()
            raise self._ended()
        request = self._continue(responses)
        exchange = Exchange(request, more=self._streams)
        try:
            self._line.send(exchange, self._seconds)
        except NothingSentError:
            self.cancel()
            raise self._ended() from None
        except BaseException:
            self.cancel()
            raise
        self.hear(exchange)
        return self

    def cancel(self) -> None:
        """Give the conversation up, unless it has its verdict: hanging up ends it at the daemon."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def hear(self, exchange: Exchange[StepReply]) -> None:
        """Take the replies to the call just sent."""
        assert self._line is not None
        try:
            for reply in self._line.replies(exchange, self._seconds):
                self._take(reply)
            self._check_step()
        except BaseException:
            self.cancel()
            raise
        if self.verdict is not None:
            self._keep(self._line, exchange)
            self._line = None
