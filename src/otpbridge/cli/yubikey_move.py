"""`otpbridge yubikey move`: the same account on another key, with a new seed; the old one until that is proven."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from otpbridge.cli import show, yubikey_loop
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.options import client_option, everywhere, example
from otpbridge.cli.session import Session
from otpbridge.cli.token import tell_confirmation
from otpbridge.cli.yubikey_loop import UndecidedError
from otpbridge.cli.yubikey_match import same
from otpbridge.cli.yubikey_reach import Reach, key_options
from otpbridge.errors import OtpBridgeError
from otpbridge.model import Kind, State
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.cli.yubikey_loop import Enrolled
    from otpbridge.wire.messages import TokenFields

_PLUG_SECONDS = 120.0
"""How long a person may take to change keys."""


@click.command(epilog=example("otpbridge yubikey move alice --serial 12345678 --to 23456789"))
@click.argument("user", metavar="USER")
@click.option("--to", type=int, required=True, metavar="S", help="The new key, by its serial number.")
@click.option("--label", metavar="L", help="Of several accounts, the one of this name.")
@click.option(
    "--touch", is_flag=True, help="The new key wants a touch for each code; so it is where the old one does."
)
@client_option
@key_options
@everywhere
@click.pass_obj
def move(
    session: Session,
    /,
    *,
    user: str,
    to: int,
    label: str | None,
    touch: bool,
    client: str | None,
    serial: int | None,
    password_stdin: bool,
    take_over: bool,
) -> None:
    """Move USER's account to another key, with a new seed.

    A key does not give its seeds away: the account is enrolled anew, and then deleted from the old key. The old token
    stays in force until the new key has proven the new one. The keys may be plugged in together, or one after the
    other. Where the old key is lost, leave it out: its token is revoked all the same.
    """
    reach = Reach(password_stdin, take_over)
    daemon, _admin = session.nearest()
    with daemon:
        tokens = daemon.call(messages.Tokens(user=user, client=client)).tokens
        old = _to_be_moved(tokens, user, label, serial)
        (held,) = old.serials or ()
        if held == str(to):
            raise click.UsageError(f"it is on the key {to} already")
        request = messages.Start(
            user=user,
            kind=old.kind,
            client=client,
            label=old.label,
            issuer=old.issuer,
            algorithm=old.algorithm,
            digits=old.digits,
            period=old.period if old.kind is Kind.TOTP else None,
        )
        touch = touch or _touched(reach, int(held), old)
        new_key = reach.awaited(to, _patience())
        try:
            enrolled = yubikey_loop.enrol(reach, daemon, yubikey_loop.Wanted(request, new_key, touch))
        except UndecidedError:
            raise
        except (OtpBridgeError, KeyboardInterrupt):
            show.note(f"Token {old.id} on the key {held} is in force as before.")
            raise
    tell_confirmation(session, enrolled.started.token, enrolled.reply)
    session.tell(f"{show.visible(user)} has it on {new_key}.")
    _tell(session, old, enrolled, removed=_removed(session, reach, int(held), old))


def _to_be_moved(tokens: Iterable[TokenFields], user: str, label: str | None, serial: int | None) -> TokenFields:
    """The one token in force that is meant, and is an account of one key. Raises CommandError."""
    fitting = [
        token
        for token in tokens
        if token.state is State.ACTIVE
        and token.kind in {Kind.TOTP, Kind.HOTP}
        and token.serials
        and label in {None, token.label}
        and (serial is None or str(serial) in token.serials)
    ]
    if not fitting:
        on = "a key" if serial is None else f"the key {serial}"
        raise CommandError(
            Code.REFUSED,
            f"{user} has no account in force that is recorded for {on}; see: otpbridge token list. A new one:"
            " otpbridge yubikey enroll",
            "NoAccount",
        )
    if len(fitting) > 1:
        several = ", ".join(f"{token.label} on {' and '.join(token.serials or ())}" for token in fitting)
        raise CommandError(
            Code.USAGE, f"{user} has several: {several}. Say which with --label or --serial", "ManyAccounts"
        )
    if len(fitting[0].serials or ()) > 1:
        raise CommandError(
            Code.REFUSED,
            f"token {fitting[0].id} is on the keys {' and '.join(fitting[0].serials or ())}, and a new seed would"
            " leave the others without. Enrol it anew on two keys: otpbridge yubikey enroll --backup",
            "ManyDevices",
        )
    return fitting[0]


def _touched(reach: Reach, serial: int, old: TokenFields) -> bool:
    """Whether the account on the old key, where that is plugged in, takes a touch."""
    for key in reach.look().keys:
        if key.serial == serial and key.oath:
            with reach.oath(key) as oath:
                # Only with the codes does a key tell that.
                return any(account.touch for account, _code in oath.codes(int(time.time())) if same(account, old))
    return False


def _removed(session: Session, reach: Reach, serial: int, old: TokenFields) -> bool:
    """Delete the account from the old key; False where that is not done, which is told: it is of no use any more."""
    try:
        key = reach.awaited(serial, _patience())
        with reach.oath(key) as oath:
            for account in oath.accounts():
                if same(account, old):
                    oath.remove(account.id)
                    session.tell(f"{show.visible(str(account))} is gone from {key}.")
                    return True
    except (OtpBridgeError, KeyboardInterrupt) as error:
        why = show.visible(str(error) or "interrupted")
        show.note(
            f"otpbridge: the account is still on the key {serial}, of no use to anyone ({why}). When it is plugged"
            f" in: otpbridge yubikey remove {show.visible(old.label)} --serial {serial}"
        )
        return False
    show.note(f"otpbridge: {key} holds no such account. If a slot types it, clear that: ykman otp delete")
    return False


def _patience() -> float:
    """Seconds to wait for a key; a script does not wait."""
    return _PLUG_SECONDS if sys.stdin.isatty() else 0


def _tell(session: Session, old: TokenFields, enrolled: Enrolled, *, removed: bool) -> None:
    if session.json:
        session.answer(
            {
                "token": enrolled.started.token,
                "user": enrolled.started.user,
                "client": enrolled.started.client,
                "account": enrolled.account,
                "serials": [key.serial for key in enrolled.keys],
                "replaced": enrolled.reply.replaced,
                "from": old.serials,
                "removed": removed,
            }
        )
