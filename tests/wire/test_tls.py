"""What a server over TLS lets in, and what it does about those who do not come in, on either event loop."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
from certificates import CLIENT, SERVER, Ca
from wire_rig import LOOPS, SECONDS, serving

from otpbridge.errors import ConfigError
from otpbridge.model import Verdict
from otpbridge.wire.calls import Host, Limits
from otpbridge.wire.messages import VERIFY, Account, AccountReply, Check, CheckReply
from otpbridge.wire.tls import Tls

CALL = b'{"method":"org.otpbridge.Verify.Account","parameters":{"user":"alice"}}\0'
ANSWER = b'{"parameters":{"verdict":"success"}}\0'
LONGEST = 65_536


@pytest.fixture(scope="module")
def ca():
    """Who issues the certificates of both sides."""
    return Ca()


@pytest.fixture(scope="module")
def certificates(ca, tmp_path_factory):
    """Files with key, certificate and authority: of the server, of two hosts, and what is wrong."""
    folder = tmp_path_factory.mktemp("certificates")
    ca.issue(folder / "centre", "localhost", SERVER)
    ca.issue(folder / "web1", "web1", CLIENT)
    ca.issue(folder / "web2", "web2", CLIENT)
    ca.issue(folder / "banned", "banned", CLIENT)
    ca.issue(folder / "ended", "web1", CLIENT, begins=-3, ends=-1)
    ca.issue(folder / "early", "web1", CLIENT, begins=1, ends=3)
    ca.issue(folder / "for-servers", "web1", SERVER)
    Ca().issue(folder / "foreign", "web1", CLIENT)
    return folder


def identify(der):
    """The host that a certificate names; `banned` is not let in."""
    name = next(word for word in ("web1", "web2", "banned") if word.encode() in der)
    if name == "banned":
        raise ConfigError("it is banned")
    return Host(name, "1", 2_000_000_000)


def server_context(ca, certificates):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=ca.pem)
    context.load_cert_chain(certificates / "centre")
    return context


@pytest.fixture(params=LOOPS)
def serve(request, ca, certificates, tmp_path):
    """Start a server on a port of loopback."""

    def start(handlers=None, *, limits=None, **bounds):
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        rig = serving(
            tmp_path / "unused",
            handlers or {Account: lambda call, _asked: AccountReply(verdict=Verdict.SUCCESS)},
            loop=request.param,
            limits=limits,
            sock=sock,
            tls=Tls(server_context(ca, certificates), identify, **bounds),
            interfaces=[VERIFY],
        )
        return rig, sock.getsockname()[1]

    return start


def connect(ca, port, certificate, *, newest=ssl.TLSVersion.TLSv1_3, source="127.0.0.1"):
    """A client with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.maximum_version = newest
    context.load_verify_locations(cadata=ca.pem)
    if certificate is not None:
        context.load_cert_chain(certificate)
    sock = socket.create_connection(("127.0.0.1", port), SECONDS, source_address=(source, 0))
    try:
        return context.wrap_socket(sock, server_hostname="localhost")
    except BaseException:
        sock.close()
        raise


def answer_of(sock):
    """What the server says up to the end of a message; nothing where it hangs up."""
    said = b""
    try:
        while not said.endswith(b"\0"):
            data = sock.recv(LONGEST)
            if not data:
                break
            said += data
    except (ssl.SSLError, ConnectionError):
        return b""
    return said


def asked(ca, port, certificate, **how):
    """What a client with this certificate is answered."""
    try:
        with connect(ca, port, certificate, **how) as sock:
            sock.sendall(CALL)
            return answer_of(sock)
    except (ssl.SSLError, ConnectionError):
        return b""


def test_a_host_is_known_by_its_certificate(serve, ca, certificates):
    """Handlers see which host calls, and no uid."""
    seen = []

    def account(call, _asked):
        seen.append(call.host)
        with pytest.raises(RuntimeError, match="has no uid here"):
            _ = call.peer
        return AccountReply(verdict=Verdict.SUCCESS)

    rig, port = serve({Account: account})
    with rig:
        assert asked(ca, port, certificates / "web1") == ANSWER
        assert asked(ca, port, certificates / "web2") == ANSWER
    assert [host.name for host in seen] == ["web1", "web2"]


@pytest.mark.parametrize("which", ["ended", "early", "foreign", "for-servers", "banned", None])
def test_who_has_no_right_certificate_is_not_answered(serve, ca, certificates, which):
    """Ended, not valid yet, of another authority, not for clients, not known, none: nothing is handled."""
    handled = []
    rig, port = serve({Account: lambda call, _asked: handled.append(call)})
    with rig:
        assert asked(ca, port, None if which is None else certificates / which) == b""
    assert handled == []


def test_older_tls_and_plain_text_are_not_answered(serve, ca, certificates):
    """TLS 1.2 finds no common version, and plain text is no handshake."""
    rig, port = serve()
    with rig:
        with pytest.raises(ssl.SSLError, match=r"(?i)version"):
            connect(ca, port, certificates / "web1", newest=ssl.TLSVersion.TLSv1_2)
        with socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
            sock.sendall(CALL)
            assert b"verdict" not in answer_of(sock)


def test_the_longest_messages_go_through(serve, ca, certificates):
    """A message of 64 KiB in many records, and a reply as long that is read slowly, arrive whole."""
    longest = "x" * (LONGEST - 200)

    def check(_call, asked):
        assert asked.responses == (longest,)
        return CheckReply(verdict=Verdict.SUCCESS, notices=(), token=longest)

    rig, port = serve({Check: check})
    with rig, connect(ca, port, certificates / "web1") as sock:
        parameters = f'{{"user":"a","responses":["{longest}"]}}'
        call = f'{{"method":"org.otpbridge.Verify.Check","parameters":{parameters}}}\0'
        for _ in range(5):
            for start in range(0, len(call), 1000):
                sock.sendall(call[start : start + 1000].encode())
            assert longest.encode() in answer_of(sock)


def test_half_a_handshake_holds_nobody_up(serve, ca, certificates):
    """Connections that say nothing take all places of their address and nearly all in all; others are let in."""
    rig, port = serve(most=6, most_per_address=4, seconds=600)
    with rig:
        idle = [
            socket.create_connection(("127.0.0.1", port), SECONDS, source_address=(f"127.0.0.{number}", 0))
            for number in (9, 9, 9, 9, 9, 8, 8, 8, 8, 7, 6, 5)
        ]
        try:
            assert asked(ca, port, certificates / "web1") == ANSWER
            assert idle[0].recv(1) == b"", "the oldest had its time"
            assert idle[4].recv(1) == b"", "one more than an address may have"
        finally:
            for sock in idle:
                sock.close()


def test_a_handshake_has_its_time(serve):
    """Whoever does not finish one is hung up on."""
    rig, port = serve(seconds=0.1)
    with rig, socket.create_connection(("127.0.0.1", port), SECONDS) as sock:
        sock.sendall(b"\x16\x03\x01")
        assert sock.recv(1) == b""


def test_half_a_message_has_its_time(serve, ca, certificates):
    """A host that sends a message byte by byte is hung up on, while another one is answered."""
    rig, port = serve(limits=Limits(frame_seconds=0.1))
    with rig, connect(ca, port, certificates / "web1") as slow:
        slow.sendall(CALL[:10])
        assert asked(ca, port, certificates / "web2") == ANSWER
        assert answer_of(slow) == b""


def test_a_host_has_its_share_of_connections(serve, ca, certificates):
    """More than its share are closed as they come; another host is let in."""
    rig, port = serve(limits=Limits(connections_per_uid=2))
    with rig:
        held = [connect(ca, port, certificates / "web1") for _ in range(2)]
        try:
            for sock in held:
                sock.sendall(CALL)
                assert answer_of(sock) == ANSWER
            assert asked(ca, port, certificates / "web1") == b""
            assert asked(ca, port, certificates / "web2") == ANSWER
        finally:
            for sock in held:
                sock.close()


def test_hanging_up_on_a_host_ends_its_calls(serve, ca, certificates):
    """Its connections end, whatever is under way on them, and no others."""
    begun = threading.Event()
    cancelled = threading.Event()

    async def account(call, asked_):
        if asked_.user == "alice" and call.host.name == "web1":
            begun.set()
            try:
                await call.connection._loop.create_future()
            finally:
                cancelled.set()
        return AccountReply(verdict=Verdict.SUCCESS)

    rig, port = serve({Account: account})
    with (
        rig as running,
        connect(ca, port, certificates / "web1") as one,
        connect(ca, port, certificates / "web2") as two,
    ):
        one.sendall(CALL)
        assert begun.wait(SECONDS)

        async def hang_up():
            return running.server.hang_up(lambda peer: isinstance(peer, Host) and peer.name == "web1")

        assert running.run(hang_up()) == 1
        assert answer_of(one) == b""
        assert cancelled.wait(SECONDS)
        two.sendall(CALL)
        assert answer_of(two) == ANSWER


def test_a_host_that_goes_ends_its_call(serve, ca, certificates):
    """A connection that is closed while a call waits is noticed, and the call is cancelled."""
    begun, cancelled = threading.Event(), threading.Event()

    async def account(call, _asked):
        begun.set()
        try:
            await call.connection._loop.create_future()
        finally:
            cancelled.set()

    rig, port = serve({Account: account}, limits=Limits(idle_seconds=1.0))
    with rig:
        with connect(ca, port, certificates / "web1") as sock:
            sock.sendall(CALL * 2)
            assert begun.wait(SECONDS)
        assert cancelled.wait(SECONDS)
