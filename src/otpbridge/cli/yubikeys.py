"""`otpbridge yubikey`: keys that are plugged into this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from otpbridge.cli import ask, show, yubikey_loop, yubikey_slot
from otpbridge.cli.exits import Code, CommandError, short_name
from otpbridge.cli.options import client_option, everywhere, example, yes_option
from otpbridge.cli.provision.command import provision
from otpbridge.cli.session import Session, own_name
from otpbridge.cli.token import tell_confirmation
from otpbridge.cli.yubikey_match import DIFFERENCES, WORDS, Row, compare, recorded, token_of
from otpbridge.cli.yubikey_move import move
from otpbridge.cli.yubikey_reach import Reach, found_account, key_options, read_code
from otpbridge.cli.yubikey_scan import scan
from otpbridge.devices.keys import Account, Found, Key, choose
from otpbridge.errors import RemoteError, UnavailableError
from otpbridge.model import Algorithm, Kind, State
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.cli.yubikey_loop import Enrolled
    from otpbridge.wire.messages import TokenFields


@click.group(epilog=example("otpbridge yubikey list", "otpbridge yubikey enroll alice"))
def yubikey() -> None:
    """Put tokens on YubiKeys, and see what is on them."""


yubikey.add_command(scan)
yubikey.add_command(provision)
yubikey.add_command(move)


# --- enroll ---


@yubikey.command(
    epilog=example(
        "otpbridge yubikey enroll alice --touch",
        "otpbridge yubikey enroll alice --backup",
        "otpbridge yubikey enroll alice --slot 2 --kind yubiotp",
    )
)
@click.argument("user", metavar="USER")
@click.option(
    "--kind",
    type=click.Choice(["totp", "hotp", "yubiotp"]),
    metavar="totp|hotp|yubiotp",
    help="totp when left out; with --slot yubiotp or hotp, yubiotp when left out.",
)
@click.option("--touch", is_flag=True, help="The key computes a code only when it is touched.")
@click.option(
    "--algorithm",
    type=click.Choice([algorithm.value for algorithm in Algorithm], case_sensitive=False),
    metavar="SHA1|SHA256|SHA512",
    help="Hash; SHA1 when left out.",
)
@click.option("--digits", type=click.IntRange(6, 8), metavar="N", help="Digits of a code; 6 when left out.")
@click.option("--label", metavar="L", help="What the account is called; USER when left out.")
@click.option("--issuer", metavar="I", help="The name above it; the host or the client's when left out.")
@click.option("--backup", is_flag=True, help="Put the same on a second key, which is asked for.")
@click.option("--backup-serial", type=int, metavar="S", help="The second key, where it is plugged in.")
@click.option("--slot", type=click.IntRange(1, 2), metavar="1|2", help="A slot that types, and no account.")
@click.option("--force", is_flag=True, help="Program the slot though it holds something, which is lost.")
@click.option("--access-code", is_flag=True, help="Protect the slot with an access code, which is asked for.")
@client_option
@key_options
@everywhere
@click.pass_obj
def enroll(
    session: Session,
    /,
    *,
    user: str,
    kind: str | None,
    touch: bool,
    algorithm: str | None,
    backup: bool,
    backup_serial: int | None,
    slot: int | None,
    force: bool,
    access_code: bool,
    serial: int | None,
    password_stdin: bool,
    take_over: bool,
    **names: Any,
) -> None:
    """Put a new token on a key, and in force.

    The seed goes from the daemon onto the key and nowhere else. The key then computes a code, which the daemon
    judges. Where anything fails on the way, the token is discarded and what was written taken back.
    """
    wanted = Kind(kind) if kind else (Kind.YUBIOTP if slot else Kind.TOTP)
    twice = backup or backup_serial is not None
    yubikey_slot.check_usage(wanted, slot, slot_only=force or access_code)
    if slot is None and twice and wanted is Kind.HOTP:
        raise click.UsageError(
            "two keys with one counter get out of step, as each counts for itself: use totp, or a token per key"
        )
    if slot is not None and (twice or touch):
        raise click.UsageError(
            "--backup and --touch are for accounts: a slot counts its codes, and is always touched"
        )
    request = messages.Start(
        user=user, kind=wanted, algorithm=Algorithm(algorithm.upper()) if algorithm else None, **names
    )
    reach = Reach(password_stdin, take_over)
    key = reach.key(serial)
    daemon, _admin = session.nearest()
    with daemon:
        if slot is None:
            enrolled = yubikey_loop.enrol(
                reach, daemon, yubikey_loop.Wanted(request, key, touch, twice, backup_serial)
            )
        else:
            code = yubikey_slot.ask_access_code() if access_code else None
            enrolled = yubikey_slot.enrol(reach, daemon, yubikey_slot.WantedSlot(request, key, slot, force, code))
    _tell_enrolled(session, enrolled, touch=touch)


def _tell_enrolled(session: Session, enrolled: Enrolled, *, touch: bool) -> None:
    started = enrolled.started
    if session.json:
        session.answer(
            {
                "token": started.token,
                "user": started.user,
                "client": started.client,
                "kind": started.kind.value,
                "state": enrolled.reply.state.value,
                "account": enrolled.account,
                "touch": touch,
                "serials": [key.serial for key in enrolled.keys],
                "replaced": enrolled.reply.replaced,
            }
        )
    tell_confirmation(session, started.token, enrolled.reply)
    session.tell(f"{show.visible(started.user)} has it on {', '.join(map(str, enrolled.keys))}.")


# --- list and audit ---


@yubikey.command(name="list", epilog=example("otpbridge yubikey list", "otpbridge --json yubikey list"))
@key_options
@everywhere
@click.pass_obj
def list_(session: Session, *, serial: int | None, password_stdin: bool, take_over: bool) -> Code:
    """Show the keys that are plugged in, and which tokens are on them.

    Tokens are found by the names of the accounts and by what the daemon has recorded; without a daemon, keys are
    shown all the same.
    """
    reach = Reach(password_stdin, take_over)
    found = _chosen(reach.look(), serial)
    tokens = _tokens_if_reachable(session)
    rows = [_described(reach, key, tokens) for key in found.keys]
    if session.json:
        session.answer(
            {
                "keys": rows,
                "unreadable": [{"reader": each.reader, "message": str(each.error)} for each in found.unreadable],
            }
        )
    else:
        table = show.Table("SERIAL", "MODEL", "FIRMWARE", "FORM", "ACCOUNTS", "TOKENS")
        table.page(_line(row, known=tokens is not None) for row in rows)
    for each in found.unreadable:
        show.note(f"otpbridge: {show.visible(str(each.error))}")
    return Code.REFUSED if found.unreadable else Code.DONE


def _chosen(found: Found, serial: int | None) -> Found:
    """What a command that takes all keys is about. Raises DeviceError where there is none."""
    if serial is not None or not (found.keys or found.unreadable):
        return Found((choose(found, serial),))
    return found


def _described(reach: Reach, key: Key, tokens: list[TokenFields] | None) -> dict[str, Any]:
    accounts = _accounts(reach, key)
    on_it = [token for token in tokens or () if recorded(key, token) and token.state is not State.REVOKED]
    for account in accounts or ():
        token = token_of(key, account, tokens or ())
        if token is not None and token.state is not State.REVOKED and token not in on_it:
            on_it.append(token)
    return {
        "serial": key.serial,
        "model": key.model,
        "firmware": key.version,
        "form_factor": key.form_factor,
        "oath": key.oath,
        "locked": key.oath and accounts is None,
        "accounts": None if accounts is None else [str(account) for account in accounts],
        "capacity": key.capacity if key.oath else None,
        "tokens": None
        if tokens is None
        else [{"token": token.id, "user": token.user, "client": token.client} for token in on_it],
    }


def _accounts(reach: Reach, key: Key) -> list[Account] | None:
    """What is on a key; None where that cannot be read without its password, or its OATH is off."""
    if not key.oath:
        return None
    from otpbridge.devices.oath import open_oath  # noqa: PLC0415 - the libraries may be missing

    if reach.password_stdin:
        with reach.oath(key) as oath:
            return oath.accounts()
    with open_oath(key) as oath:
        if oath.locked and not oath.unlock_remembered():
            return None
        return oath.accounts()


def _line(row: dict[str, Any], *, known: bool) -> tuple[object, ...]:
    used = "OATH off"
    if row["oath"]:
        used = "locked" if row["locked"] else f"{len(row['accounts'])}/{row['capacity'] or '?'}"
    tokens = ", ".join(f"{token['token']} ({token['user']})" for token in row["tokens"] or ()) if known else "?"
    return row["serial"] or "-", row["model"], row["firmware"], row["form_factor"], used, tokens or "-"


@yubikey.command(epilog=example("otpbridge yubikey audit", "otpbridge --json yubikey audit --serial 12345678"))
@key_options
@everywhere
@click.pass_obj
def audit(session: Session, *, serial: int | None, password_stdin: bool, take_over: bool) -> Code:
    """Hold what is on the keys against what the store believes.

    Differences are marked with an asterisk, and make the exit code 1.
    """
    reach = Reach(password_stdin, take_over)
    found = _chosen(reach.look(), serial)
    for each in found.unreadable:
        raise each.error
    tokens = [token for page in _pages(session) for token in page]
    rows = []
    for key in found.keys:
        with reach.oath(key) as oath:
            rows += [(key, row) for row in compare(key, oath.accounts(), tokens)]
    if session.json:
        session.answer([_audited(key, row) for key, row in rows])
    else:
        table = show.Table("", "SERIAL", "ACCOUNT", "TOKEN", "USER", "FINDING")
        table.page(
            (
                "*" if row.finding in DIFFERENCES else "",
                key.serial or "-",
                row.account or "-",
                row.token.id if row.token else "-",
                row.token.user if row.token else "-",
                WORDS[row.finding],
            )
            for key, row in rows
        )
    return Code.REFUSED if any(row.finding in DIFFERENCES for _key, row in rows) else Code.DONE


def _audited(key: Key, row: Row) -> dict[str, Any]:
    return {
        "serial": key.serial,
        "account": None if row.account is None else str(row.account),
        "token": None if row.token is None else row.token.id,
        "user": None if row.token is None else row.token.user,
        "client": None if row.token is None else row.token.client,
        "finding": row.finding.value,
        "differs": row.finding in DIFFERENCES,
    }


def _tokens_if_reachable(session: Session) -> list[TokenFields] | None:
    try:
        return [token for page in _pages(session) for token in page]
    except UnavailableError as error:
        show.note(f"otpbridge: which tokens are on the keys is not known: {show.visible(str(error))}")
        return None


def _pages(session: Session) -> Iterator[tuple[TokenFields, ...]]:
    """All tokens, revoked ones too, as far as whoever asks may see them."""
    daemon, admin = session.nearest()
    with daemon:
        if admin:
            for reply in daemon.stream(messages.ListTokens(all=True)):
                yield reply.tokens
            return
        try:
            yield daemon.call(messages.Tokens(user=own_name())).tokens
        except RemoteError as error:
            # Whoever never enrolled is not in the store, and has none.
            if short_name(error) != "NoSuchUser":
                raise


# --- accounts ---


@yubikey.command(epilog=example("otpbridge yubikey code", "otpbridge yubikey code alice --serial 12345678"))
@click.argument("name", required=False, metavar="[NAME]")
@key_options
@everywhere
@click.pass_obj
def code(session: Session, name: str | None, *, serial: int | None, password_stdin: bool, take_over: bool) -> None:
    """Show the codes that the keys compute now.

    Of all accounts, or of those with NAME in theirs. Where that is one alone, a code that takes a touch or a press is
    computed too; with a counter it is used up by that.
    """
    reach = Reach(password_stdin, take_over)
    found = _chosen(reach.look(), serial)
    for each in found.unreadable:
        raise each.error
    shown: list[dict[str, Any]] = []
    for key in found.keys:
        if key.oath:
            shown += _codes(reach, key, name)
    if name is not None and not shown:
        raise CommandError(Code.REFUSED, f"no key that is plugged in holds an account {name}", "NoAccount")
    if session.json:
        session.answer(shown)
        return
    table = show.Table("SERIAL", "ACCOUNT", "CODE", "VALID FOR")
    now = int(time.time())
    table.page(
        (
            row["serial"] or "-",
            row["account"],
            row["code"] or ("(press)" if row["kind"] == "hotp" else "(touch)"),
            "-" if row["valid_to"] is None else f"{max(0, row['valid_to'] - now)} s",
        )
        for row in shown
    )


def _codes(reach: Reach, key: Key, name: str | None) -> list[dict[str, Any]]:
    with reach.oath(key) as oath:
        now = int(time.time())
        pairs = [
            (account, text)
            for account, text in oath.codes(now)
            if account.issuer != "_hidden" and (name is None or name.lower() in str(account).lower())
        ]
        if name is not None and len(pairs) == 1 and pairs[0][1] is None:
            account = pairs[0][0]
            pairs = [(account, read_code(oath, account.id, now, touch=account.touch or account.kind is Kind.HOTP))]
    return [
        {
            "serial": key.serial,
            "account": str(account),
            "kind": account.kind.value,
            "code": None if text is None else text.text,
            "valid_to": None if text is None else text.valid_to,
        }
        for account, text in pairs
    ]


@yubikey.command(epilog=example("otpbridge yubikey rename Example:alice Example:alice.smith"))
@click.argument("name", metavar="NAME")
@click.argument("new", metavar="[ISSUER:]NEW")
@key_options
@everywhere
@click.pass_obj
def rename(
    session: Session, name: str, new: str, *, serial: int | None, password_stdin: bool, take_over: bool
) -> None:
    """Call an account on a key something else. The token keeps its label."""
    reach = Reach(password_stdin, take_over)
    key = reach.key(serial)
    issuer, colon, label = new.rpartition(":")
    with reach.oath(key) as oath:
        account = found_account(oath.accounts(), name, key)
        oath.rename(account, issuer if colon else account.issuer, label)
    token = token_of(key, account, _tokens_if_reachable(session) or ())
    if session.json:
        session.answer(
            {
                "serial": key.serial,
                "account": str(account),
                "renamed": new,
                "token": None if token is None else token.id,
            }
        )
    else:
        show.line(f"{show.visible(str(account))} on {key} is now called {show.visible(new)}.")
    if token is not None:
        show.note(
            f"otpbridge: token {token.id} is still called {show.visible(str(account))}, and works; but list and audit"
            " look for it on the key by that name. Rename it back, or enrol anew with --label."
        )


@yubikey.command(epilog=example("otpbridge yubikey remove Example:alice --serial 12345678"))
@click.argument("name", metavar="NAME")
@yes_option
@key_options
@everywhere
@click.pass_obj
def remove(
    session: Session, name: str, *, yes: bool, serial: int | None, password_stdin: bool, take_over: bool
) -> None:
    """Delete an account from a key. Its token stays in force until it is removed: otpbridge token remove."""
    reach = Reach(password_stdin, take_over)
    key = reach.key(serial)
    with reach.oath(key) as oath:
        account = found_account(oath.accounts(), name, key)
        ask.sure(f"Delete {show.visible(str(account))} from {key}? It cannot be brought back.", yes=yes)
        oath.remove(account.id)
    if session.json:
        session.answer({"serial": key.serial, "removed": str(account)})
    else:
        show.line(f"{show.visible(str(account))} is gone from {key}.")


# --- the key as a whole ---


@yubikey.command(epilog=example("otpbridge yubikey reset --serial 12345678"))
@key_options
@everywhere
@click.pass_obj
def reset(session: Session, *, serial: int | None, password_stdin: bool, take_over: bool) -> None:
    """Delete all OATH accounts of a key, and its OATH password.

    Its serial number has to be typed, or come as a line of standard input. Slots, FIDO and the rest stay as they are,
    and so do tokens in the store.
    """
    if password_stdin:
        raise click.UsageError("a reset takes no password")
    from otpbridge.devices.oath import open_oath  # noqa: PLC0415 - the libraries may be missing

    key = Reach(take_over=take_over).key(serial)
    if key.serial is None:
        raise CommandError(Code.REFUSED, f"{key} is not reset here: use ykman oath reset", "Refused")
    typed = ask.line(f"All OATH accounts of {key} will be lost. Type its serial number: ").strip()
    if typed != str(key.serial):
        raise CommandError(Code.REFUSED, "that is not its serial number; nothing was changed", "Cancelled")
    with open_oath(key) as oath:
        oath.reset()
    if session.json:
        session.answer({"serial": key.serial, "reset": True})
    else:
        show.line(f"{key} holds no OATH accounts any more, and has no OATH password.")


@yubikey.group(epilog=example("otpbridge yubikey access set", "otpbridge yubikey access clear"))
def access() -> None:
    """Set and clear the OATH password of a key."""


@access.command(name="set", epilog=example("otpbridge yubikey access set --serial 12345678"))
@key_options
@everywhere
@click.pass_obj
def set_(session: Session, *, serial: int | None, password_stdin: bool, take_over: bool) -> None:
    """Give a key an OATH password.

    With --password-stdin, the present password is the first line of standard input, if there is one, and the new one
    the next.
    """
    reach = Reach(password_stdin, take_over)
    key = reach.key(serial)
    with reach.oath(key) as oath:
        oath.set_password(_new_password(key))
    _tell_access(session, key, protected=True)


def _new_password(key: Key) -> str:
    password = ask.hidden(f"New OATH password of {key}: ")
    if not password:
        raise CommandError(Code.USAGE, "an empty password is none; see: otpbridge yubikey access clear", "NoInput")
    if sys.stdin.isatty() and ask.hidden("Once more: ") != password:
        raise CommandError(Code.REFUSED, "these are two passwords; nothing was changed", "Cancelled")
    return password


@access.command(epilog=example("otpbridge yubikey access clear --serial 12345678"))
@key_options
@everywhere
@click.pass_obj
def clear(session: Session, *, serial: int | None, password_stdin: bool, take_over: bool) -> None:
    """Take the OATH password of a key away."""
    reach = Reach(password_stdin, take_over)
    key = reach.key(serial)
    with reach.oath(key) as oath:
        oath.clear_password()
    _tell_access(session, key, protected=False)


def _tell_access(session: Session, key: Key, *, protected: bool) -> None:
    if session.json:
        session.answer({"serial": key.serial, "protected": protected})
    else:
        show.line(f"{key} {'has a new' if protected else 'has no'} OATH password{'' if protected else ' any more'}.")
