"""`otpbridge enroll`: give a user a new authenticator, or codes that stand in for one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from otpbridge.cli import enrolling, oath, recovery_codes, security_key, yubico_otp
from otpbridge.cli.exits import Code
from otpbridge.cli.options import F, client_option, everywhere, example
from otpbridge.cli.session import Session
from otpbridge.model import Algorithm, Kind
from otpbridge.wire import messages


@click.group(
    epilog=example(
        "otpbridge enroll totp alice",
        "otpbridge enroll yubiotp alice",
        "otpbridge enroll fido2 alice",
        "otpbridge enroll recovery alice",
    )
)
def enroll() -> None:
    """Give a user a new authenticator.

    For themselves everyone may; for others, admins and configured callers. Whoever has an authenticator already is
    asked for one of its codes first.
    """


user_argument = click.argument("user", metavar="USER")
label_option = click.option("--label", metavar="L", help="The account name that it gets; USER when left out.")
code_option = click.option(
    "--code",
    metavar="CODE",
    help="Confirm with this code, not asking; `-` reads it from standard input once the keys are shown.",
)


def _oath_options(function: F) -> F:
    """What totp and hotp have in common."""
    options: list[Callable[[F], F]] = [
        user_argument,
        client_option,
        label_option,
        click.option("--issuer", metavar="I", help="The name above it; the host or the client's when left out."),
        click.option(
            "--algorithm",
            type=click.Choice([algorithm.value for algorithm in Algorithm], case_sensitive=False),
            metavar="SHA1|SHA256|SHA512",
            help="Hash; SHA1 when left out, which every app knows.",
        ),
        click.option("--digits", type=click.IntRange(6, 8), metavar="N", help="Digits of a code; 6 when left out."),
        click.option(
            "--qr",
            metavar="terminal|none|FILE.png|FILE.svg",
            help="Where the QR code goes; to the terminal if there is one. A file gets mode 0600: remove it"
            " after use.",
        ),
        code_option,
        everywhere,
    ]
    for option in reversed(options):
        function = option(function)
    return function


@enroll.command(
    epilog=example(
        "otpbridge enroll totp alice",
        "otpbridge enroll totp alice --algorithm SHA256 --qr alice.png",
        "otpbridge --json enroll totp bob --client acme",
    )
)
@click.option(
    "--period", type=click.IntRange(15, 900), metavar="S", help="Seconds that a code is shown; 30 when left out."
)
@_oath_options
@click.pass_obj
def totp(session: Session, /, **options: Any) -> Code:
    """An app on a phone: a code that changes with time.

    Or an OATH credential of a YubiKey. Its keys are shown once, then a code is asked for, which puts it in force. On
    a terminal the keys are cleared from view afterwards. Without one, or with --json, the token stays pending until
    `otpbridge token confirm`. A token that is in force stays so until the new one is confirmed.
    """
    return _oath(session, Kind.TOTP, **options)


@enroll.command(
    epilog=example("otpbridge enroll hotp bob", "otpbridge enroll hotp bob --digits 8 --qr none"),
)
@_oath_options
@click.pass_obj
def hotp(session: Session, /, **options: Any) -> Code:
    """A token with a button: a code for every press.

    Its keys are shown once, then a code is asked for, which puts it in force; as with totp.
    """
    return _oath(session, Kind.HOTP, **options)


def _oath(
    session: Session,
    kind: Kind,
    *,
    user: str,
    client: str | None,
    label: str | None,
    issuer: str | None,
    algorithm: str | None,
    digits: int | None,
    qr: str | None,
    code: str | None,
    period: int | None = None,
) -> Code:
    request = messages.Start(
        user=user,
        kind=kind,
        client=client,
        label=label,
        issuer=issuer,
        algorithm=Algorithm(algorithm.upper()) if algorithm else None,
        digits=digits,
        period=period,
    )
    return enrolling.enrol(session, request, partial(oath.showing, picture=oath.picture(session, qr)), code)


@enroll.command(
    epilog=example("otpbridge enroll yubiotp alice", "otpbridge --json enroll yubiotp alice --client acme"),
)
@user_argument
@client_option
@click.option("--label", metavar="L", help="What the key is called; its public ID when left out.")
@code_option
@everywhere
@click.pass_obj
def yubiotp(session: Session, *, user: str, client: str | None, label: str | None, code: str | None) -> Code:
    """A YubiKey whose touch types a Yubico OTP.

    The OTP is judged here, not in a cloud. Public ID, private ID and secret key are shown once, with the ykman
    command that programs them into a slot. Then a touch of the key is asked for, which puts it in force. Without a
    terminal, or with --json, the token stays pending until `otpbridge token confirm`.
    """
    request = messages.Start(user=user, kind=Kind.YUBIOTP, client=client, label=label)
    return enrolling.enrol(session, request, yubico_otp.showing, code)


@enroll.command(
    epilog=example("otpbridge enroll fido2 alice", "otpbridge enroll fido2 alice --label 'blue key'"),
)
@user_argument
@client_option
@click.option("--label", metavar="L", help="What the key is called; `security key` and a number when left out.")
@everywhere
@click.pass_obj
def fido2(session: Session, *, user: str, client: str | None, label: str | None) -> None:
    """A security key that is plugged in here (FIDO2).

    Keys that know only U2F will do too. The PIN is asked for where one is wanted, then the key is touched, which
    puts it in force; of several keys the touched one is registered. Interrupting leaves nothing behind. It is then
    used in browsers, and at this machine where `[local_keys]` says so. In a browser it is registered on the portal.
    """
    security_key.enrol(session, messages.StartFido2(user=user, client=client, label=label))


@enroll.command(
    epilog=example("otpbridge enroll recovery alice", "otpbridge enroll recovery alice --client acme | lp"),
)
@user_argument
@client_option
@everywhere
@click.pass_obj
def recovery(session: Session, *, user: str, client: str | None) -> None:
    """Ten codes on paper, each good for one login.

    For the day when the authenticator is lost. They are shown once: on a terminal until Enter is pressed, into a
    pipe one a line. They count at once, and codes that were made earlier no longer do.
    """
    recovery_codes.make(session, user, client)
