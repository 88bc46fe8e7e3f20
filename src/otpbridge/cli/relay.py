"""`otpbridge relay`: certificates of the hosts that ask this daemon over the network."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otpbridge.cli import show
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.options import everywhere, example
from otpbridge.cli.session import Session
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.wire.messages import IssueRelayReply, RelayCertificate

_LARGEST_REQUEST = 32_768


@click.group(epilog=example("otpbridge relay issue web1.example", "otpbridge relay revoke web1.example"))
def relay() -> None:
    """Let hosts ask this daemon over the network.

    Each needs a certificate, and an entry in the configuration: docs/relay.md.
    """


@relay.command(
    epilog=example("otpbridge relay issue web1.example", "otpbridge relay issue web1.example --request web1.csr")
)
@click.argument("host")
@click.option("--days", type=click.IntRange(1, 3650), default=365, show_default=True, metavar="N", help="How long.")
@click.option(
    "--request",
    type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="The host's own request (PKCS #10, PEM), so that its private key never leaves it. - is standard input.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Where to write.  [default: HOST.pem; - is standard output]",
)
@everywhere
@click.pass_obj
def issue(session: Session, host: str, days: int, request: Path | None, out: Path | None) -> None:
    """Issue the certificate of a host that is to be a relay.

    Without --request a private key is made too, and the file holds key, certificate and authority: all that the host
    needs, as /etc/otpbridge/relay.pem. Certificates issued before stay in force; see `relay revoke`.
    """
    path = out or Path(f"{Path(host).name}.pem")
    if str(path) == "-" and session.json:
        raise click.UsageError("standard output cannot hold both the certificate and JSON")
    if str(path) != "-" and path.exists():
        raise CommandError(Code.USAGE, f"{path} exists already; move it away, or give another --out", "Exists")
    if request is None:
        key, asked = _fresh_request(host)
    else:
        key, asked = "", _read(request)
    with session.admin() as daemon:
        reply = daemon.call(messages.IssueRelay(host=host, request=asked, days=days))
    _write(path, key + reply.certificate + reply.authority)
    _tell(session, host, path, reply)


def _tell(session: Session, host: str, path: Path, reply: IssueRelayReply) -> None:
    if session.json:
        session.answer(
            {"file": str(path), "serial": reply.serial, "expires_at": reply.expires_at, "known": reply.known}
        )
    else:
        tell = show.note if str(path) == "-" else show.line
        tell(f"{path}: certificate {reply.serial} of {host}, valid until {show.moment(reply.expires_at)}.")
        tell(
            f"Put it on {host} as /etc/otpbridge/relay.pem (mode 0600, owner otpbridge), by a way that nobody reads."
        )
    if not reply.known:
        show.note(f'{host} is not let in yet: add [relays.hosts."{host}"] to otpbridge.toml, and reload the daemon.')


def _fresh_request(host: str) -> tuple[str, str]:
    """A new private key, and the request that goes with it, both as PEM."""
    # Only here: most commands do without.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    # The daemon takes nothing but the key from it.
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host[:64] or "?")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private.decode(), request.public_bytes(pem).decode()


def _read(request: Path) -> str:
    try:
        if str(request) == "-":
            return sys.stdin.read(_LARGEST_REQUEST)
        with request.open(encoding="utf-8") as file:
            return file.read(_LARGEST_REQUEST)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(Code.USAGE, f"{request}: cannot be read: {error}", "CannotRead") from None


def _write(path: Path, text: str) -> None:
    """Write a file that only its owner reads, or standard output."""
    if str(path) == "-":
        click.echo(text, nl=False)
        return
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CommandError(
            Code.REFUSED,
            f"cannot write {path}: {error.strerror}. A certificate was issued: revoke it, and issue another one",
            "CannotWrite",
        ) from None


@relay.command(
    epilog=example("otpbridge relay revoke web1.example", "otpbridge relay revoke web1.example --serial 7f3a")
)
@click.argument("host")
@click.option("--serial", metavar="HEX", help="This certificate alone. Needed with an authority of your own.")
@everywhere
@click.pass_obj
def revoke(session: Session, host: str, serial: str | None) -> None:
    """Revoke the certificates of a host. Its connections end at once."""
    with session.admin() as daemon:
        reply = daemon.call(messages.RevokeRelay(host=host, serial=serial))
    if session.json:
        session.answer(reply)
        return
    count = "1 certificate" if reply.revoked == 1 else f"{reply.revoked} certificates"
    show.line(f"Revoked {count} of {host}; {reply.closed} of its connections were ended.")


@relay.command(name="list", epilog=example("otpbridge relay list", "otpbridge --json relay list"))
@click.option("--all", "every", is_flag=True, help="Those that have ended or were revoked too.")
@everywhere
@click.pass_obj
def list_(session: Session, *, every: bool) -> None:
    """Show the certificates of hosts, and which hosts are connected."""
    now = int(time.time())
    found: list[RelayCertificate] = []
    with session.admin() as daemon:
        for reply in daemon.stream(messages.ListRelays()):
            found += [each for each in reply.certificates if every or _state(each, now) == "in force"]
    if session.json:
        session.answer(found)
        return
    table = show.Table("HOST", "SERIAL", "STATE", "ISSUED", "ENDS", "CONNECTIONS")
    table.page(
        (
            each.host,
            each.serial,
            _state(each, now),
            show.moment(each.issued_at),
            "" if each.expires_at is None else show.moment(each.expires_at),
            each.connections,
        )
        for each in found
    )


def _state(certificate: RelayCertificate, now: int) -> str:
    if certificate.revoked_at is not None:
        return "revoked"
    return "ended" if certificate.expires_at is not None and certificate.expires_at <= now else "in force"
