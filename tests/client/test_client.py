"""What a portal developer may rely on when calling from Python: the blocking client and the asyncio one."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from wire_rig import LOOPS, SECONDS, Rig, bound, new_loop, serving

from otpbridge import client as package
from otpbridge.client import AsyncClient, Client, ProtocolError, RemoteError, UnavailableError, Verification
from otpbridge.client.aio import AsyncLine
from otpbridge.client.exchange import IDLE_CONNECTIONS, Exchange
from otpbridge.client.line import Line
from otpbridge.model import Context, Deed, Enforcement, Kind, Notice, NoticeStyle, Prompt, PromptStyle, State, Verdict
from otpbridge.wire.calls import Call, VarlinkError
from otpbridge.wire.messages import (
    ENROLL,
    VERIFY,
    Account,
    AccountEvent,
    AccountReply,
    Activity,
    ActivityReply,
    AddManagedUser,
    AuditTail,
    AuditTailReply,
    Begin,
    Check,
    CheckReply,
    ChooseEnforcement,
    Confirm,
    ConfirmReply,
    Continue,
    Discard,
    Empty,
    Entry,
    Invite,
    ManagedUser,
    ManagedUserReply,
    ManagedUsers,
    ManagedUsersReply,
    NewRecoveryCodes,
    NoticeFields,
    PromptFields,
    RecoveryCodesReply,
    RegistrationCodeReply,
    Remove,
    RemoveManagedUser,
    Reset,
    ResetReply,
    SetPassword,
    SetPasswordReply,
    ShowManagedUser,
    Start,
    StartReply,
    Step,
    StepReply,
    Tokens,
    TokensReply,
)

CODE = "492039"
SEED = "3132333435363738393031323334353637383930"


EVENTS = (AccountEvent(at=2.5, event=Deed.LOGIN, let_in=False), AccountEvent(at=1.5, event=Deed.USER_RESET))
INVITED = RegistrationCodeReply(token="t5", code=CODE, expires_at=1)
USERS = tuple(
    ManagedUser(
        name=name, client="acme", enforcement=Enforcement.REQUIRED, locked=False, created_at=1, active_tokens=1
    )
    for name in ("alice", "bob", "carol")
)


class Daemon:
    """Handlers that do as otpbridged does, and remember what was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.connections: set[int] = set()
        self.cancelled = threading.Event()
        self.began = threading.Event()

    def handlers(self) -> dict[type, Any]:
        return {
            Account: self.account,
            Check: self.check,
            Begin: self.begin,
            Continue: self.proceed,
            Start: self.start,
            Confirm: self.confirm,
            Discard: self.empty,
            Remove: self.remove,
            ChooseEnforcement: self.empty,
            Tokens: self.tokens,
            AuditTail: self.tail,
            NewRecoveryCodes: lambda call, asked: (
                self.note(call, asked) or RecoveryCodesReply(token="t3", codes=(CODE,))
            ),
            SetPassword: lambda call, asked: self.note(call, asked) or SetPasswordReply(token="t4"),
            Activity: self.activity,
            ManagedUsers: self.users,
            ShowManagedUser: self.answering(ManagedUserReply(user=USERS[0])),
            AddManagedUser: self.answering(ManagedUserReply(user=USERS[0])),
            RemoveManagedUser: self.empty,
            Reset: self.answering(ResetReply(revoked=3)),
            Invite: self.answering(INVITED),
        }

    def note(self, call: Call, asked: Any) -> None:
        self.asked.append(asked)
        self.connections.add(id(call.connection))

    async def account(self, call: Call, asked: Account) -> AccountReply:
        self.note(call, asked)
        self.began.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError

    async def check(self, call: Call, asked: Check) -> CheckReply:
        self.note(call, asked)
        await asyncio.sleep(0)
        if asked.stack is not None:
            raise VarlinkError(f"{VERIFY}.UnknownStack", {"stack": asked.stack})
        if asked.user == "locked":
            return CheckReply(verdict=Verdict.MAXTRIES, notices=(), retry_after=8)
        if not asked.responses:
            return CheckReply(verdict=Verdict.IGNORE, notices=())
        if asked.responses == (CODE,):
            call.connection.state["proof"] = True
            return CheckReply(verdict=Verdict.SUCCESS, notices=(), token="t1")
        return CheckReply(verdict=Verdict.AUTH_ERR, notices=())

    async def begin(self, call: Call, asked: Begin) -> StepReply:
        self.note(call, asked)
        call.connection.on_close(self.cancelled.set)
        touch = (NoticeFields(style=NoticeStyle.TOUCH, text="Touch your key"),)
        if call.more:
            await call.send(StepReply(session="s", step=Step(notices=touch, prompts=())))
        prompts = (PromptFields(style=PromptStyle.HIDDEN, text="Password: ", answer="password"),)
        if asked.user == "mute":
            prompts = ()
        return StepReply(session="s", step=Step(notices=() if call.more else touch, prompts=prompts))

    def proceed(self, call: Call, asked: Continue) -> StepReply:
        self.note(call, asked)
        verdict = Verdict.SUCCESS if asked.responses == (CODE,) else Verdict.MAXTRIES
        ok = verdict is Verdict.SUCCESS
        step = Step(
            notices=(), prompts=(), verdict=verdict, retry_after=None if ok else 4, token="t1" if ok else None
        )
        return StepReply(session=asked.session, step=step)

    def start(self, call: Call, asked: Start) -> StartReply:
        self.note(call, asked)
        return StartReply(
            token="t1",
            user=asked.user,
            client=asked.client or "local",
            kind=asked.kind,
            state=State.PENDING,
            seed_hex=SEED,
            seed_base32="GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
            uri="otpauth://totp/x",
            expires_in=600,
        )

    def confirm(self, call: Call, asked: Confirm) -> ConfirmReply:
        self.note(call, asked)
        return ConfirmReply(confirmed=asked.code == CODE, state=State.ACTIVE, replaced=())

    def empty(self, call: Call, asked: Any) -> Empty:
        self.note(call, asked)
        return Empty()

    def remove(self, call: Call, asked: Remove) -> Empty:
        self.note(call, asked)
        if "proof" not in call.connection.state:
            raise VarlinkError(f"{ENROLL}.ProofNeeded")
        return Empty()

    def tokens(self, call: Call, asked: Tokens) -> TokensReply:
        self.note(call, asked)
        return TokensReply(enforcement=Enforcement.REQUIRED, tokens=())

    async def activity(self, call: Call, asked: Activity) -> ActivityReply:
        self.note(call, asked)
        await call.send(ActivityReply(events=EVENTS[:1]))
        return ActivityReply(events=EVENTS[1:])

    async def users(self, call: Call, asked: ManagedUsers) -> ManagedUsersReply:
        self.note(call, asked)
        await call.send(ManagedUsersReply(users=USERS[:2]))
        return ManagedUsersReply(users=USERS[2:])

    def answering(self, reply: Any) -> Callable[[Call, Any], Any]:
        def answer(call: Call, asked: Any) -> Any:
            self.note(call, asked)
            return reply

        return answer

    async def tail(self, call: Call, asked: AuditTail) -> AuditTailReply:
        self.note(call, asked)
        call.connection.on_close(self.cancelled.set)
        number = 0
        while asked.follow or number < 3:
            await call.send(AuditTailReply(entries=(Entry(sequence=number, at=0.5, event="verify"),)))
            number += 1
            await asyncio.sleep(0)
        return AuditTailReply(entries=())


class Blocking:
    """The asyncio client behind blocking methods, so that one test holds both clients to the same behaviour."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *arguments: Any, **options: Any) -> None:
        self._loop = loop
        self._inner = AsyncClient(*arguments, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._inner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = self._run(method(*arguments, **options))
            return Talk(self._run, result) if name == "begin" else result

        return call

    def _run(self, awaitable: Any) -> Any:
        async def run() -> Any:
            return await awaitable

        return self._loop.run_until_complete(run())

    def stream(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        replies = self._inner.stream(*arguments, **options)
        try:
            while True:
                try:
                    yield self._run(anext(replies))
                except StopAsyncIteration:
                    return
        finally:
            self._run(replies.aclose())

    def __enter__(self) -> Blocking:
        self._run(self._inner.__aenter__())
        return self

    def __exit__(self, *error: Any) -> None:
        self._run(self._inner.__aexit__(*error))


class Talk:
    """The same for its conversations."""

    def __init__(self, run: Callable[[Any], Any], inner: Any) -> None:
        self._run = run
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def answer(self, *responses: str) -> None:
        self._run(self._inner.answer(*responses))

    def __enter__(self) -> Talk:
        return self

    def __exit__(self, *error: Any) -> None:
        self._run(self._inner.__aexit__(*error))


Connect = Callable[..., Any]


@pytest.fixture(params=["blocking", *LOOPS])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Make a client of each kind; all are closed at the end."""
    with contextlib.ExitStack() as stack:
        if request.param == "blocking":
            yield lambda *arguments, **options: stack.enter_context(Client(*arguments, **options))
        else:
            loop = stack.enter_context(contextlib.closing(new_loop(request.param)))
            yield lambda *arguments, **options: stack.enter_context(Blocking(loop, *arguments, **options))


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def rig(daemon: Daemon, tmp_path: Path) -> Iterator[Rig]:
    with serving(tmp_path / "verify", daemon.handlers(), streaming=[AuditTail, Activity, ManagedUsers]) as rig:
        yield rig


def test_only_a_right_code_is_true(connect: Connect, rig: Rig) -> None:
    """`if client.verify(…)` lets in who showed a right code, and nobody else."""
    otp = connect(rig.path)
    right = otp.verify("alice", CODE)
    assert right == Verification(Verdict.SUCCESS, "t1", None)
    assert (bool(right), right.ok, right.ignored) == (True, True, False)
    wrong = otp.verify("alice", "000000")
    assert (bool(wrong), wrong.verdict) == (False, Verdict.AUTH_ERR)
    none = otp.verify("alice")
    assert (bool(none), none.ignored) == (False, True)
    locked = otp.verify("locked", CODE)
    assert (bool(locked), locked.verdict, locked.retry_after) == (False, Verdict.MAXTRIES, 8)


@pytest.mark.parametrize("verdict", Verdict)
def test_no_other_verdict_is_true(verdict: Verdict) -> None:
    """Each verdict but `success` is false."""
    assert bool(Verification(verdict)) is (verdict is Verdict.SUCCESS)


def test_everything_that_was_said_arrives(connect: Connect, rig: Rig, daemon: Daemon) -> None:
    """Client, stack and context reach the daemon; what was not said is left out."""
    otp = connect(rig.path)
    otp.verify("alice", CODE, client="acme", context=Context(service="web", rhost="192.0.2.1"), nullok=True)
    otp.verify("bob", CODE)
    full, bare = daemon.asked
    assert (full.user, full.responses, full.client, full.nullok) == ("alice", (CODE,), "acme", True)
    assert (full.context.service, full.context.rhost, full.context.tty) == ("web", "192.0.2.1", None)
    assert (bare.client, bare.stack, bare.context, bare.nullok) == (None, None, None, None)


def test_the_daemons_errors_are_typed(connect: Connect, rig: Rig) -> None:
    """An error of the interface has its name and its parameters, and the connection stays."""
    otp = connect(rig.path)
    with pytest.raises(RemoteError, match="UnknownStack") as caught:
        otp.verify("alice", CODE, stack="x")
    assert (caught.value.name, caught.value.parameters) == (f"{VERIFY}.UnknownStack", {"stack": "x"})
    assert otp.verify("alice", CODE).ok
    assert rig.connections() == 1


def test_calls_one_after_another_share_a_connection(connect: Connect, rig: Rig, daemon: Daemon) -> None:
    """A proof given with `verify` counts for `remove`, as both go through one connection."""
    otp = connect(rig.path)
    with pytest.raises(RemoteError, match="ProofNeeded"):
        otp.remove("t1")
    assert otp.verify("alice", CODE)
    otp.remove("t1")
    assert len(daemon.connections) == 1


def test_an_enrolment_from_python(connect: Connect, rig: Rig, daemon: Daemon) -> None:
    """The enrolment calls carry what was said, and no repr shows a seed."""
    otp = connect(rig.path)
    started = otp.enrol("alice", Kind.TOTP, client="acme", digits=8)
    assert (started.token, started.seed_hex) == ("t1", SEED)
    assert SEED not in repr(started)
    assert not otp.confirm(started.token, "000000").confirmed
    assert otp.confirm(started.token, CODE, serials=["12345678"]).confirmed
    otp.discard("t2")
    assert otp.tokens("alice").enforcement is Enforcement.REQUIRED
    otp.set_enforcement("alice", Enforcement.OPTIONAL, client="acme")
    assert otp.new_recovery_codes("alice", client="acme").codes == (CODE,)
    otp.set_password("alice", "correct horse", client="acme")
    assert [type(asked) for asked in daemon.asked] == [
        Start,
        Confirm,
        Confirm,
        Discard,
        Tokens,
        ChooseEnforcement,
        NewRecoveryCodes,
        SetPassword,
    ]
    assert [asked.serials for asked in daemon.asked[1:3]] == [None, ("12345678",)]
    assert (daemon.asked[-2].client, daemon.asked[-1].client, daemon.asked[-1].password) == (
        "acme",
        "acme",
        "correct horse",
    )
    assert (daemon.asked[0].digits, daemon.asked[0].period) == (8, None)


def test_a_conversation_asks_and_judges(connect: Connect, rig: Rig) -> None:
    """Prompts and notices come from the daemon; the answers bring the verdict; the connection is kept."""
    otp = connect(rig.path)
    with otp.begin("alice") as talk:
        assert talk.notices == (Notice("Touch your key", NoticeStyle.TOUCH),)
        assert talk.prompts == (Prompt("Password: ", PromptStyle.HIDDEN, "password"),)
        assert talk.verdict is None
        with pytest.raises(ProtocolError, match="no verdict yet"):
            assert talk.result
        with pytest.raises(ProtocolError, match="1 prompts wait, 2 answers"):
            talk.answer(CODE, CODE)
        talk.answer(CODE)
        assert talk.verdict is Verdict.SUCCESS
        assert talk.result.ok
        assert talk.result.token == talk.token == "t1"
        assert talk.prompts == ()
        with pytest.raises(ProtocolError, match="is over"):
            talk.answer(CODE)
    assert rig.connections() == 1
    with otp.begin("alice") as talk:
        talk.answer("000000")
        assert not talk.result
        assert (talk.verdict, talk.retry_after, talk.token) == (Verdict.MAXTRIES, 4, None)
    assert rig.connections() == 1


def test_notices_come_at_once(connect: Connect, rig: Rig) -> None:
    """With `on_notice` each notice is handed over when it comes, before the prompts."""
    told: list[Notice] = []
    with connect(rig.path).begin("alice", on_notice=told.append) as talk:
        assert told == [Notice("Touch your key", NoticeStyle.TOUCH)]
        talk.answer(CODE)
        assert talk.result


def test_a_conversation_left_early_is_cancelled(connect: Connect, rig: Rig, daemon: Daemon) -> None:
    """Leaving without a verdict hangs up, so nothing of it stays at the daemon."""
    with connect(rig.path).begin("alice"):
        pass
    assert daemon.cancelled.wait(SECONDS)


def test_a_conversation_whose_daemon_is_gone_says_so(connect: Connect, rig: Rig) -> None:
    """An answer that cannot be sent is not sent elsewhere: the conversation is over."""
    with connect(rig.path).begin("alice") as talk:
        rig.run(rig.server.drain(0))
        with pytest.raises(UnavailableError, match="Begin again"):
            talk.answer(CODE)
        with pytest.raises(UnavailableError, match="Begin again"):
            talk.answer(CODE)


def test_a_step_without_prompt_or_verdict_is_nonsense(connect: Connect, rig: Rig) -> None:
    """A daemon that neither asks nor judges cannot make a client wait for ever."""
    with pytest.raises(ProtocolError, match="neither asks nor judges"):
        connect(rig.path).begin("mute")


def test_users_are_managed_from_python(connect: Connect, rig: Rig, daemon: Daemon) -> None:
    """Lists come whole, whatever the number of replies; each call carries what was said, and no repr shows a code."""
    otp = connect(rig.path)
    assert otp.activity("alice", client="acme", count=2) == EVENTS
    assert otp.users(client="acme", after="a", count=3) == USERS
    assert otp.show_user("alice", client="acme") == otp.add_user("alice", client="acme") == USERS[0]
    otp.remove_user("alice", client="acme", reason="r")
    assert otp.reset("alice", client="acme", keep_enforcement=True, reason="r") == 3
    invited = otp.invite("alice", client="acme", seconds=60, reason="r")
    assert (invited, CODE in repr(invited)) == (INVITED, False)
    whose = {"user": "alice", "client": "acme"}
    assert daemon.asked == [
        Activity(**whose, count=2),
        ManagedUsers(client="acme", after="a", count=3),
        ShowManagedUser(**whose),
        AddManagedUser(**whose),
        RemoveManagedUser(**whose, reason="r"),
        Reset(**whose, keep_enforcement=True, reason="r"),
        Invite(**whose, seconds=60, reason="r"),
    ]
    assert rig.connections() == 1


def test_both_clients_have_the_same_calls() -> None:
    """Whoever moves from one client to the other finds each call with the same arguments and the same result."""

    def calls(kind: type) -> dict[str, Any]:
        names = [name for name in vars(kind) if not name.startswith("_")]
        return {name: inspect.signature(getattr(kind, name)) for name in names}

    blocking, awaited = calls(Client), calls(AsyncClient)
    assert blocking.keys() == awaited.keys()
    for name, signature in blocking.items():
        assert signature.parameters == awaited[name].parameters, name
        if name not in {"begin", "stream"}:
            assert signature.return_annotation == awaited[name].return_annotation, name


def test_a_stream_yields_each_reply(connect: Connect, rig: Rig) -> None:
    """Pages come one by one, the connection is kept, and other calls may be made between them."""
    otp = connect(rig.path)
    numbers = []
    for page in otp.stream(AuditTail()):
        numbers += [entry.sequence for entry in page.entries]
        assert otp.verify("alice", CODE)
    assert numbers == [0, 1, 2]
    assert rig.connections() == 2


def test_a_stream_left_early_ends_at_the_daemon(connect: Connect, rig: Rig, daemon: Daemon) -> None:
    """Following the audit log ends when the loop is left."""
    replies = connect(rig.path).stream(AuditTail(follow=True), timeout=math.inf)
    assert next(replies).entries[0].sequence == 0
    replies.close()
    assert daemon.cancelled.wait(SECONDS)


def test_a_restarted_daemon_is_called_on_a_new_connection(connect: Connect, tmp_path: Path) -> None:
    """A kept connection that the daemon closed is noticed before the call is sent: the caller notices nothing."""
    path = tmp_path / "verify"
    otp = connect(path)
    for _ in range(3):
        daemon = Daemon()
        with serving(path, daemon.handlers()):
            assert otp.verify("alice", CODE).ok
            assert len(daemon.asked) == 1


def test_a_daemon_that_takes_too_long_is_given_up(connect: Connect, rig: Rig, daemon: Daemon) -> None:
    """After its timeout a call fails and its connection is closed, so a late answer is never taken for another."""
    otp = connect(rig.path, timeout=0.2)
    with pytest.raises(UnavailableError, match=r"did not answer org\.otpbridge\.Verify\.Account within 0\.2 s"):
        otp.call(Account(user="alice"))
    assert daemon.cancelled.wait(SECONDS)
    assert otp.verify("alice", CODE).ok


class Fake:
    """Something that listens on a Unix socket and is no otpbridged: it reads a call and sends what it is told to."""

    def __init__(self, path: Path, *answers: bytes) -> None:
        self.calls: list[bytes] = []
        self._sock = bound(path)
        self._sock.listen()
        self._answers = answers
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._sock.accept()
            with connection:
                connection.settimeout(SECONDS)
                while not (self.calls and self.calls[-1].endswith(b"\0")):
                    self.calls.append(connection.recv(65_536))
                with contextlib.suppress(ConnectionError):
                    connection.sendall(answer)
        self._sock.close()

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("answer", [b"", b'{"parameters":{"verdict":"succ'])
def test_a_call_that_was_sent_is_never_sent_again(connect: Connect, tmp_path: Path, answer: bytes) -> None:
    """A connection that ends before the answer is an error, not a second try: the code may have been judged."""
    path = tmp_path / "verify"
    with Fake(path, answer) as fake, pytest.raises(UnavailableError, match="may have been judged") as caught:
        connect(path).verify("alice", CODE)
    assert CODE not in str(caught.value)
    assert len(fake.calls) == 1


REFUSED = b'{"parameters":{"verdict":"auth_err","notices":[]}}\0'
ACCEPTED = b'{"parameters":{"verdict":"success","notices":[]}}\0'


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\0",
        b"[]\0",
        b"\0",
        b"x" * 70_000,
        b"[" * 30_000 + b"\0",
        b'{"parameters":{}}\0',
        b'{"parameters":{"verdict":"yes","notices":[]}}\0',
        b'{"parameters":{"verdict":"success","notices":[],"token":492039}}\0',
        REFUSED.replace(b"}\0", b',"continues":true}\0') + ACCEPTED,
        b'{"parameters":{"verdict":"success"}}\0',
        b'{"parameters":{"verdict":"\xff"}}\0',
        b'{"error":1}\0',
        b'{"error":"a.B","parameters":[]}\0',
    ],
)
def test_nonsense_is_not_a_verdict(connect: Connect, tmp_path: Path, answer: bytes) -> None:
    """Whatever else than a reply comes back is an error that quotes nothing of it."""
    path = tmp_path / "verify"
    with Fake(path, answer), pytest.raises(ProtocolError) as caught:
        connect(path).verify("alice", CODE)
    assert not isinstance(caught.value, RemoteError)
    assert CODE not in str(caught.value)


@pytest.mark.parametrize("pieces", [[REFUSED + ACCEPTED], [REFUSED, ACCEPTED]], ids=["at once", "later"])
def test_a_reply_that_nobody_asked_for_is_not_the_next_verdict(
    connect: Connect, tmp_path: Path, pieces: list[bytes]
) -> None:
    """A second reply to one call is never taken for the verdict of the next: that goes to a new connection."""
    path = tmp_path / "verify"
    with contextlib.closing(bound(path)) as sock, contextlib.ExitStack() as stack:
        sock.listen()
        first_done = threading.Event()
        sent = threading.Event()

        def serve() -> None:
            first, _ = sock.accept()
            stack.callback(first.close)
            first.recv(65_536)
            first.sendall(pieces[0])
            assert first_done.wait(SECONDS)
            for piece in pieces[1:]:
                first.sendall(piece)
            sent.set()
            second, _ = sock.accept()
            stack.callback(second.close)
            second.recv(65_536)
            second.sendall(REFUSED)

        thread = threading.Thread(target=serve)
        thread.start()
        sock.settimeout(SECONDS)
        otp = connect(path)
        assert not otp.verify("alice", "000000")
        first_done.set()
        assert sent.wait(SECONDS)
        assert not otp.verify("alice", "000000")
        thread.join()


@pytest.mark.parametrize("kind", ["blocking", *LOOPS])
def test_a_call_of_which_a_part_was_sent_is_not_sent_again(kind: str, tmp_path: Path) -> None:
    """When the connection breaks in the middle of a long call, that is an error: no second connection is tried."""
    path = tmp_path / "verify"
    exchange = Exchange(Check(user="alice", responses=("1" * 60_000,)))

    def shrink(line: Any) -> None:
        line._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)

    def send() -> None:
        if kind == "blocking":
            with contextlib.closing(Line(path, math.inf)) as line:
                shrink(line)
                line.send(exchange, SECONDS)
        else:
            with contextlib.closing(new_loop(kind)) as loop:
                loop.run_until_complete(send_async())

    async def send_async() -> None:
        line = await AsyncLine.connect(path, math.inf)
        shrink(line)
        with contextlib.closing(line):
            await line.send(exchange, SECONDS)

    with contextlib.closing(bound(path)) as sock:
        sock.listen()

        def read_a_little() -> None:
            connection, _ = sock.accept()
            with connection:
                connection.recv(100)

        thread = threading.Thread(target=read_a_little)
        thread.start()
        with pytest.raises(UnavailableError, match="may have been judged"):
            send()
        thread.join()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: None, "no such socket.*systemctl status otpbridged.*otpbridge serve"),
        (lambda path: bound(path).close(), "nobody listens there.*systemctl status otpbridged"),
        (lambda path: path.write_text(""), "nobody listens there|not a stream socket"),
    ],
)
def test_a_daemon_that_is_not_there_is_explained(
    connect: Connect, tmp_path: Path, prepare: Callable[[Path], Any], words: str
) -> None:
    """The error names the socket, says what is wrong with it, and what to do."""
    path = tmp_path / "verify"
    prepare(path)
    with pytest.raises(UnavailableError, match=words) as caught:
        connect(path).verify("alice", CODE)
    assert str(path) in str(caught.value)
    assert CODE not in str(caught.value)


def test_a_full_queue_is_waited_for(connect: Connect, tmp_path: Path) -> None:
    """While the daemon's queue of new connections is full, connecting is tried again, until the time is over."""
    path = tmp_path / "verify"
    with contextlib.closing(bound(path)) as sock, contextlib.ExitStack() as stack:
        sock.listen(0)
        first = stack.enter_context(contextlib.closing(socket.socket(socket.AF_UNIX)))
        first.connect(os.fspath(path))
        with pytest.raises(UnavailableError, match="does not take new connections"):
            connect(path, timeout=0.05).verify("alice", CODE)


def test_a_call_that_is_too_long_is_not_sent(connect: Connect, rig: Rig, daemon: Daemon) -> None:
    """A call over 64 KiB is refused here, with a reason."""
    with pytest.raises(ProtocolError, match="longer than 65536 bytes"):
        connect(rig.path).verify("alice", "1" * 70_000)
    assert daemon.asked == []


def test_the_socket_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path wins over a run folder, that over $OTPBRIDGE_RUN_DIR; `admin` is the other socket."""
    monkeypatch.setenv("OTPBRIDGE_RUN_DIR", "/somewhere")
    for kind in (Client, AsyncClient):
        assert repr(kind()) == f"{kind.__name__}('/somewhere/verify')"
        assert repr(kind(admin=True)) == f"{kind.__name__}('/somewhere/admin')"
        assert repr(kind(run_dir=tmp_path)) == f"{kind.__name__}('{tmp_path}/verify')"
        assert repr(kind(tmp_path / "x", run_dir="/y")) == f"{kind.__name__}('{tmp_path}/x')"


def test_threads_do_not_get_each_others_verdicts(rig: Rig) -> None:
    """One client used by many threads gives each its own verdict, and keeps a bounded number of connections."""
    otp = Client(rig.path)
    wrong: list[Any] = []

    def work(number: int) -> None:
        for _ in range(50):
            verdict = otp.verify("alice", CODE if number % 2 else "000000")
            if bool(verdict) is not bool(number % 2):
                wrong.append(verdict)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert rig.connections() <= IDLE_CONNECTIONS
    otp.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_opens_its_own_connection(rig: Rig, daemon: Daemon) -> None:
    """A web server that forks its workers after the first call does not mix up their answers."""
    with Client(rig.path) as otp:
        assert otp.verify("alice", CODE)
        child = os.fork()
        if child == 0:
            os._exit(0 if otp.verify("alice", "000000").verdict is Verdict.AUTH_ERR else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert otp.verify("alice", CODE)
    assert len(daemon.connections) == 2


@pytest.mark.parametrize("kind", LOOPS)
def test_calls_at_the_same_time_get_their_own_verdicts(kind: str, rig: Rig) -> None:
    """Gathered calls of one AsyncClient do not wait for each other and do not get mixed up."""

    async def work() -> list[bool]:
        async with AsyncClient(rig.path) as otp:
            calls = [otp.verify("alice", CODE if number % 3 else "0") for number in range(60)]
            return [bool(verdict) for verdict in await asyncio.gather(*calls)]

    with contextlib.closing(new_loop(kind)) as loop:
        assert loop.run_until_complete(work()) == [bool(number % 3) for number in range(60)]


@pytest.mark.parametrize("kind", LOOPS)
def test_a_cancelled_call_is_given_up_by_the_daemon(kind: str, rig: Rig, daemon: Daemon) -> None:
    """Cancelling a call hangs up; the next one is answered on a connection of its own."""

    async def work() -> None:
        async with AsyncClient(rig.path) as otp:
            task = asyncio.create_task(otp.call(Account(user="alice")))
            await asyncio.to_thread(daemon.began.wait, SECONDS)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(daemon.cancelled.wait, SECONDS)
            assert await otp.verify("alice", CODE)

    with contextlib.closing(new_loop(kind)) as loop:
        loop.run_until_complete(work())
        loop.run_until_complete(loop.shutdown_default_executor())


def test_importing_the_client_is_cheap() -> None:
    """A script that makes one blocking call loads no asyncio; AsyncClient comes when asked for."""
    program = (
        "import sys, otpbridge.client as c\n"
        "c.Client('/nowhere')\n"
        "assert not {'asyncio', 'sqlalchemy', 'cryptography', 'click'} & sys.modules.keys()\n"
        "c.AsyncClient\n"
        "assert 'asyncio' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_is_exported_is_there() -> None:
    """Every name in __all__ can be imported, and no other attribute is made up."""
    assert all(hasattr(package, name) for name in package.__all__)
    assert not hasattr(package, "Nothing")


def test_what_is_exported_is_what_is_documented() -> None:
    """The table in docs/portal.md has every name of otpbridge.client, and no other."""
    page = (Path(__file__).parents[2] / "docs" / "portal.md").read_text()
    section = page.partition("## What `otpbridge.client` has\n")[2].partition("\n## ")[0]
    names = [name for row in section.splitlines() if row.startswith("| `") for name in row.split("|")[1].split(", ")]
    assert sorted(name.strip(" `") for name in names) == sorted(package.__all__)


def test_nothing_is_left_open(connect: Connect, rig: Rig) -> None:
    """A closed client holds no connection, and can be used again."""
    otp = connect(rig.path)
    assert otp.verify("alice", CODE)
    otp.close()
    assert otp.verify("alice", CODE)
    assert rig.connections() == 1
