"""The asyncio client, for asyncio's own loop and for uvloop."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self

from otpbridge.client import requests
from otpbridge.client.dialogue import Dialogue
from otpbridge.client.exchange import (
    CONNECT_RETRY_SECONDS,
    IDLE_CONNECTIONS,
    READ_BYTES,
    Exchange,
    NothingSentError,
    cannot_connect,
    socket_path,
    still_open,
)
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


class AsyncLine:
    """A connected socket. Every wait has a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._owner = os.getpid()
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, path: Path, deadline: float) -> AsyncLine:
        """Connect. A Unix socket connects at once or says EAGAIN, which loop.sock_connect takes for success."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            while True:
                try:
                    sock.connect(os.fspath(path))
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise
                    await asyncio.sleep(CONNECT_RETRY_SECONDS)
                else:
                    return cls(sock)
        except OSError as error:
            sock.close()
            raise cannot_connect(path, error) from None
        except BaseException:
            sock.close()
            raise

    @property
    def usable(self) -> bool:
        """Whether it can take a call, in this process and this loop."""
        return self._owner == os.getpid() and self._loop is asyncio.get_running_loop() and still_open(self._sock)

    def close(self) -> None:
        """Hang up. The daemon gives up what it still does for this connection."""
        self._sock.close()

    async def send(self, exchange: Exchange[R], seconds: float) -> None:
        """Send the call. Raises NothingSentError if none of it left, UnavailableError if some did."""
        try:
            sent = self._sock.send(exchange.frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            raise NothingSentError from None
        if sent == len(exchange.frame):
            return
        try:
            async with asyncio.timeout(seconds):
                await self._loop.sock_sendall(self._sock, exchange.frame[sent:])
        except TimeoutError:
            raise exchange.timed_out(seconds) from None
        except OSError:
            raise exchange.cut_off() from None

    async def reply(self, exchange: Exchange[R], seconds: float) -> R:
        """The next reply."""
        try:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                while (reply := exchange.take()) is None:
                    exchange.feed(await self._read())
        except TimeoutError:
            raise exchange.timed_out(seconds) from None
        return reply

    async def _read(self) -> bytes:
        try:
            return await self._loop.sock_recv(self._sock, READ_BYTES)
        except ConnectionError:
            return b""


class AsyncClient:
    """Calls otpbridged from asyncio. Everything is as in `Client`, with `await`.

        async with AsyncClient() as otp:
            if await otp.verify("alice", "123456"):
                ...

    Calls that run at the same time get a connection each. Cancelling a call closes its connection, and the daemon
    gives it up.
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
        self._idle: list[AsyncLine] = []

    def __repr__(self) -> str:
        return f"AsyncClient({os.fspath(self._path)!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the kept connections. The client can be used again; it opens new ones."""
        while self._idle:
            self._idle.pop().close()

    # --- any call ---

    async def call(self, request: Request[R]) -> R:
        """Call one method and return its reply."""
        exchange = Exchange(request)
        line = await self._send(exchange)
        try:
            return await line.reply(exchange, self._timeout)
        finally:
            self._keep(line, exchange)

    async def stream(self, request: Request[R], *, timeout: float | None = None) -> AsyncGenerator[R, None]:  # noqa: ASYNC109 — between replies, not of the whole
        """Call with `more` and yield each reply as it comes. Use `contextlib.aclosing` to leave the loop early.

        `timeout` is in seconds from one reply to the next; the client's own when left out, `math.inf` waits for ever.
        """
        exchange = Exchange(request, more=True)
        line = await self._send(exchange)
        try:
            while not exchange.finished:
                yield await line.reply(exchange, self._timeout if timeout is None else timeout)
        finally:
            self._keep(line, exchange)

    # --- org.otpbridge.Verify ---

    async def verify(
        self,
        user: str,
        code: str | None = None,
        *,
        client: str | None = None,
        stack: str | None = None,
        context: Context | None = None,
        nullok: bool = False,
    ) -> Verification:
        """Judge one code. The result is true exactly when the code was right. See `Client.verify`."""
        codes = () if code is None else (code,)
        return verification_of(await self.call(requests.check(user, codes, client, stack, context, nullok=nullok)))

    async def check(
        self,
        user: str,
        responses: Sequence[str],
        *,
        client: str | None = None,
        stack: str | None = None,
        context: Context | None = None,
    ) -> Verification:
        """Judge several answers in one call, in the order in which the stack asks. See `Client.check`."""
        return verification_of(await self.call(requests.check(user, responses, client, stack, context)))

    async def begin(
        self,
        user: str,
        *,
        client: str | None = None,
        stack: str | None = None,
        context: Context | None = None,
        nullok: bool = False,
        webauthn: bool = False,
        on_notice: OnNotice | None = None,
    ) -> AsyncConversation:
        """Start a conversation, to be used with `async with`. See `Client.begin`."""
        request = requests.begin(user, client, stack, context, nullok=nullok, webauthn=webauthn)
        exchange = Exchange(request, more=on_notice is not None)
        line = await self._send(exchange)
        talk = AsyncConversation(line, self._timeout, self._keep, on_notice)
        await talk.hear(exchange)
        return talk

    # --- org.otpbridge.Enroll ---

    async def enrol(
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
        """Make a pending token. The seed is in this reply and never again; `confirm` makes the token active."""
        return await self.call(
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

    async def confirm(self, token: str, code: str, *, serials: Sequence[str] = ()) -> ConfirmReply:
        """Prove a pending token with the code it shows. See `Client.confirm`."""
        return await self.call(Confirm(token=token, code=code, serials=tuple(serials) or None))

    async def start_fido2(
        self, user: str, *, client: str | None = None, label: str | None = None, reason: str | None = None
    ) -> StartFido2Reply:
        """Begin to register a security key: `options` is for navigator.credentials.create in the browser."""
        return await self.call(StartFido2(user=user, client=client, label=label, reason=reason))

    async def finish_fido2(self, token: str, credential: str) -> FinishFido2Reply:
        """Prove a pending security key with what the browser gave, in JSON. Each registration is judged once."""
        return await self.call(FinishFido2(token=token, credential=credential))

    async def new_recovery_codes(self, user: str, *, client: str | None = None) -> RecoveryCodesReply:
        """Make a list of recovery codes in place of the one before. The codes are in this reply and never again."""
        return await self.call(NewRecoveryCodes(user=user, client=client))

    async def set_password(self, user: str, password: str, *, client: str | None = None) -> None:
        """Set the password that the `password` verifier checks. Users cannot do it for themselves."""
        await self.call(SetPassword(user=user, password=password, client=client))

    async def discard(self, token: str) -> None:
        """Drop a pending token."""
        await self.call(Discard(token=token))

    async def tokens(self, user: str, *, client: str | None = None) -> TokensReply:
        """The tokens of a user, and whether a second factor is asked of them."""
        return await self.call(Tokens(user=user, client=client))

    async def remove(self, token: str, *, reason: str | None = None) -> None:
        """Revoke a token. Users who act for themselves verify with this client first (else `ProofNeeded`)."""
        await self.call(Remove(token=token, reason=reason))

    async def set_enforcement(
        self, user: str, enforcement: Enforcement, *, client: str | None = None, reason: str | None = None
    ) -> None:
        """Ask a second factor of a user always, or only where the user has one."""
        await self.call(ChooseEnforcement(user=user, enforcement=enforcement, client=client, reason=reason))

    async def activity(
        self, user: str, *, client: str | None = None, count: int | None = None
    ) -> tuple[AccountEvent, ...]:
        """What happened to a user's account, newest first, as far as the person may know. See `Client.activity`."""
        events: list[AccountEvent] = []
        async with aclosing(self.stream(Activity(user=user, client=client, count=count))) as replies:
            async for reply in replies:
                events += reply.events
        return tuple(events)

    # --- org.otpbridge.Enroll, for who manages users ---

    async def users(
        self, *, client: str | None = None, after: str | None = None, count: int | None = None
    ) -> tuple[ManagedUser, ...]:
        """The users of a client in order of name, for callers with the right `manage`. See `Client.users`."""
        found: list[ManagedUser] = []
        async with aclosing(self.stream(ManagedUsers(client=client, after=after, count=count))) as replies:
            async for reply in replies:
                found += reply.users
        return tuple(found)

    async def show_user(self, user: str, *, client: str | None = None) -> ManagedUser:
        """One user of a client."""
        return (await self.call(ShowManagedUser(user=user, client=client))).user

    async def add_user(self, user: str, *, client: str | None = None, reason: str | None = None) -> ManagedUser:
        """Add a user."""
        return (await self.call(AddManagedUser(user=user, client=client, reason=reason))).user

    async def remove_user(self, user: str, *, client: str | None = None, reason: str | None = None) -> None:
        """Delete a user with all tokens; not one who is locked (`Locked`). See `Client.remove_user`."""
        await self.call(RemoveManagedUser(user=user, client=client, reason=reason))

    async def reset(
        self, user: str, *, client: str | None = None, keep_enforcement: bool = False, reason: str | None = None
    ) -> int:
        """For a lost phone: revoke every token but the password; the number of them. See `Client.reset`."""
        request = Reset(user=user, client=client, keep_enforcement=keep_enforcement or None, reason=reason)
        return (await self.call(request)).revoked

    async def invite(
        self, user: str, *, client: str | None = None, seconds: int | None = None, reason: str | None = None
    ) -> RegistrationCodeReply:
        """Issue a registration code, which stands in for an authenticator once. See `Client.invite`."""
        return await self.call(Invite(user=user, client=client, seconds=seconds, reason=reason))

    # --- connections ---

    async def _send(self, exchange: Exchange[R]) -> AsyncLine:
        """The connection on which the call was sent."""
        deadline = time.monotonic() + self._timeout
        while True:
            line, kept = await self._line(deadline)
            try:
                await line.send(exchange, self._timeout)
            except NothingSentError:
                line.close()
                if not kept:
                    raise exchange.cut_off() from None
            except BaseException:
                line.close()
                raise
            else:
                return line

    async def _line(self, deadline: float) -> tuple[AsyncLine, bool]:
        """A kept connection that still works, else a new one; and whether it was kept."""
        while self._idle:
            line = self._idle.pop()
            if line.usable:
                return line, True
            line.close()
        return await AsyncLine.connect(self._path, deadline), False

    def _keep(self, line: AsyncLine, exchange: Exchange[R]) -> None:
        if exchange.reusable and len(self._idle) < IDLE_CONNECTIONS:
            self._idle.append(line)
        else:
            line.close()


class AsyncConversation(Dialogue):
    """A conversation on a connection of its own. `async with` cancels it when it is left without a verdict."""

    def __init__(
        self,
        line: AsyncLine,
        seconds: float,
        keep: Callable[[AsyncLine, Exchange[StepReply]], None],
        on_notice: OnNotice | None,
    ) -> None:
        super().__init__(on_notice)
        self._line: AsyncLine | None = line
        self._seconds = seconds
        self._keep = keep

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def answer(self, *responses: str) -> Self:
        """Answer all prompts, in order; then look at `verdict` and `prompts` again."""
        self._check_open()
        if self._line is None or not self._line.usable:
            self.cancel()
            raise self._ended()
        request = self._continue(responses)
        exchange = Exchange(request, more=self._streams)
        try:
            await self._line.send(exchange, self._seconds)
        except NothingSentError:
            self.cancel()
            raise self._ended() from None
        except BaseException:
            self.cancel()
            raise
        await self.hear(exchange)
        return self

    def cancel(self) -> None:
        """Give the conversation up, unless it has its verdict: hanging up ends it at the daemon."""
        if self._line is not None:
            self._line.close()
            self._line = None

    async def hear(self, exchange: Exchange[StepReply]) -> None:
        """Take the replies to the call just sent."""
        assert self._line is not None
        try:
            while not exchange.finished:
                self._take(await self._line.reply(exchange, self._seconds))
            self._check_step()
        except BaseException:
            self.cancel()
            raise
        if self.verdict is not None:
            self._keep(self._line, exchange)
            self._line = None
