"""`otpbridge yubikey scan`: put what a QR code on the screen offers on a key."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from otpbridge.cli import ask, show
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.options import everywhere, example, yes_option
from otpbridge.cli.session import Session
from otpbridge.cli.yubikey_reach import Reach, key_options
from otpbridge.devices.keys import Key, NewAccount, key_issuer
from otpbridge.errors import EnrolError, OtpBridgeError
from otpbridge.model import Kind

if TYPE_CHECKING:
    from otpbridge.devices.keys import Code as KeyCode
    from otpbridge.enroll.display import Shot
    from otpbridge.enroll.offers import Offer, Offers, Sighting

_STDIN = "-"
_URI_LONGEST = 4095
"""Characters of one line that a terminal hands over, and that are read of standard input."""


@click.command(
    epilog=example(
        "otpbridge yubikey scan",
        "otpbridge yubikey scan --touch code.png",
        "grim - | otpbridge yubikey scan -",
        "otpbridge yubikey scan --uri",
    )
)
@click.argument("pictures", nargs=-1, metavar="[IMAGE|-]...")
@click.option(
    "--screen", is_flag=True, help="Look on the screen, all monitors; so it is where nothing else is named."
)
@click.option("--clipboard", is_flag=True, help="Take the picture or the text that was copied last.")
@click.option("--uri", is_flag=True, help="Ask for the otpauth URI, hidden; a script gives it as a line of input.")
@click.option("--pick", type=click.IntRange(min=1), multiple=True, metavar="N", help="Of several, the Nth.")
@click.option("--account", multiple=True, metavar="NAME", help="Of several, the one of this name.")
@click.option("--label", metavar="L", help="Call the account this on the key.")
@click.option("--issuer", metavar="I", help="Put this name above it.")
@click.option("--touch", is_flag=True, help="The key computes a code only when it is touched.")
@yes_option
@key_options
@everywhere
@click.pass_obj
def scan(
    session: Session,
    /,
    *,
    pictures: tuple[str, ...],
    screen: bool,
    clipboard: bool,
    uri: bool,
    pick: tuple[int, ...],
    account: tuple[str, ...],
    label: str | None,
    issuer: str | None,
    touch: bool,
    yes: bool,
    serial: int | None,
    password_stdin: bool,
    take_over: bool,
) -> None:
    """Put the account of a QR code on the screen onto a key.

    Or of one in a picture, or of an otpauth URI. What is found is shown and asked about before, and the key shows its
    code after. This needs no daemon: the system that shows the QR code is the one that confirms it. Several (two QR
    codes on the screen, or an export of Google Authenticator) are listed, and chosen with --pick or --account.
    """
    _check_usage(pictures, [screen, bool(pictures), clipboard, uri], password_stdin=password_stdin)
    reach = Reach(password_stdin, take_over)
    found = _found(pictures, clipboard=clipboard, uri=uri)
    chosen = _choose(found, pick, account)
    if len(chosen) > 1 and label is not None:
        raise click.UsageError("--label names one account, and several were chosen")
    new = [_account(offer, label, issuer, touch=touch) for offer in chosen]
    key = reach.key(serial)
    _put(session, reach, key, list(zip(chosen, new, strict=True)), yes=yes)


def _check_usage(pictures: Sequence[str], sources: Sequence[bool], *, password_stdin: bool) -> None:
    if any("otpauth" in picture.lower() and ":" in picture for picture in pictures):
        # Not named: it would be in the message what should have been nowhere.
        raise click.UsageError("a URI is no argument, as everybody on this machine can read those: use --uri")
    if sum(sources) > 1:
        raise click.UsageError("take one of --screen, --clipboard, --uri and IMAGE")
    if _STDIN in pictures:
        if len(pictures) > 1:
            raise click.UsageError("- is standard input, and goes alone")
        if password_stdin:
            raise click.UsageError("standard input is the picture: --password-stdin cannot go with -")
        if sys.stdin.isatty():
            raise click.UsageError("- reads a picture from a pipe; to paste a URI, use --uri")


# --- what is found ---


def _found(pictures: Sequence[str], *, clipboard: bool, uri: bool) -> Offers:
    """All accounts that the source offers. Raises CommandError where there is none."""
    from otpbridge.enroll import offers  # noqa: PLC0415 - not needed for --help

    where = "in the clipboard" if clipboard else "in the picture" if pictures else "on the screen"
    if uri:
        where = "in what was typed"
        found = offers.offers([offers.Sighting(_typed(), "typed")])
    else:
        found = offers.offers(_sightings(pictures, clipboard=clipboard))
    if found.missing:
        codes = "code" if found.missing == 1 else "codes"
        show.note(f"The export has {found.missing} more QR {codes}, with accounts that are not listed here.")
    if found.accounts:
        return found
    if found.passed_over:
        other = f"nothing but {found.passed_over} of another kind (a web address, for example)"
        raise CommandError(Code.REFUSED, f"there is no otpauth code {where}: {other}", "NoCode")
    raise CommandError(
        Code.REFUSED,
        f"there is no QR code {where}; have it shown whole, with no window over it, and larger (Ctrl and +)",
        "NoCode",
    )


def _typed() -> str:
    text = ask.hidden("otpauth URI (it is not shown): ")
    if len(text) >= _URI_LONGEST:
        raise CommandError(Code.USAGE, f"the URI has more than {_URI_LONGEST} characters", "BadParameters")
    return text


def _sightings(pictures: Sequence[str], *, clipboard: bool) -> Iterator[Sighting]:
    if clipboard:
        from otpbridge.enroll.clipboard import paste  # noqa: PLC0415 - not needed for --help

        yield from _in_bytes(paste(), "the clipboard", "clipboard")
    elif pictures:
        for picture in pictures:
            what = "standard input" if picture == _STDIN else picture
            yield from _in_bytes(_read(picture), what, what if len(pictures) > 1 else "picture")
    else:
        yield from _on_screen()


def _read(picture: str) -> bytes:
    from otpbridge.enroll.picture import LONGEST  # noqa: PLC0415 - not needed for --help

    try:
        if picture == _STDIN:
            return sys.stdin.buffer.read(LONGEST + 1)
        with Path(picture).open("rb") as file:
            return file.read(LONGEST + 1)
    except OSError as error:
        raise CommandError(Code.USAGE, f"cannot read {picture}: {error.strerror}", "BadParameters") from error


def _in_bytes(data: bytes, what: str, place: str) -> Iterator[Sighting]:
    """What a picture holds, or a text of URIs, one per line."""
    from otpbridge.enroll import display, offers, picture  # noqa: PLC0415 - not needed for --help

    if not data:
        raise EnrolError(f"{what} is empty")
    if offers.is_text(data):
        for line in data.decode(errors="replace").splitlines():
            if line.strip():
                yield offers.Sighting(line, place)
        return
    yield from _in_shot(display.Shot(picture.grey(data, what), name=place))


def _on_screen() -> Iterator[Sighting]:
    from otpbridge.enroll import display  # noqa: PLC0415 - not needed for --help

    shot = display.shoot()
    if shot.left_behind is not None:
        show.note(
            "otpbridge: the desktop left its picture of the screen, with the code on it, in"
            f" {show.visible(str(shot.left_behind))}: delete it"
        )
    yield from _in_shot(shot)


def _in_shot(shot: Shot) -> Iterator[Sighting]:
    from otpbridge.enroll import offers, scanning  # noqa: PLC0415 - not needed for --help

    for image in shot.images:
        for code in scanning.read(image):
            yield offers.Sighting(code.text, shot.place(code.box))


# --- which of it ---


def _choose(found: Offers, picks: Sequence[int], names: Sequence[str]) -> list[Offer]:
    """What was said to be taken, or the only one; else a person is asked. Raises CommandError."""
    accounts = found.accounts
    if picks or names:
        chosen = [_numbered(accounts, number) for number in picks] + [_named(accounts, name) for name in names]
    elif len(accounts) == 1:
        chosen = [*accounts]
    else:
        _list(accounts)
        if not ask.on_terminal():
            raise CommandError(
                Code.USAGE,
                f"there are {len(accounts)} accounts; say which with --pick or --account",
                "ManyAccounts",
            )
        answer = ask.line("Which? (numbers, with blanks between) ").split()
        chosen = [_numbered(accounts, int(word) if word.isdecimal() else 0) for word in answer]
    if not chosen:
        raise CommandError(Code.REFUSED, "none was chosen; nothing was changed", "Cancelled")
    return list(dict.fromkeys(chosen))


def _list(accounts: Sequence[Offer]) -> None:
    """Show what there is to choose from, to the person: without secrets, and not as the result."""
    for number, offer in enumerate(accounts, 1):
        why = f"; cannot be taken: {offer.key}" if isinstance(offer.key, EnrolError) else ""
        show.note(show.visible(f"{number:>3}  {offer}  ({'; '.join(offer.places)}{why})"))


def _numbered(accounts: Sequence[Offer], number: int) -> Offer:
    if not 1 <= number <= len(accounts):
        raise CommandError(Code.USAGE, f"there are accounts 1 to {len(accounts)}, and no other", "BadParameters")
    return accounts[number - 1]


def _named(accounts: Sequence[Offer], name: str) -> Offer:
    fitting = [offer for offer in accounts if name in {str(offer), offer.account}]
    if len(fitting) == 1:
        return fitting[0]
    _list(accounts)
    if fitting:
        raise CommandError(Code.USAGE, f"several accounts are called {name}: use --pick", "ManyAccounts")
    raise CommandError(Code.REFUSED, f"there is no account {name}", "NoAccount")


def _account(offer: Offer, label: str | None, issuer: str | None, *, touch: bool) -> NewAccount:
    """What goes on the key. Raises CommandError where that cannot be."""
    key = offer.key
    if isinstance(key, EnrolError):
        name = "the code" if offer.account == "?" else f"{offer}"
        raise CommandError(Code.REFUSED, f"{name} cannot be taken over: {key}", "BadCode")
    return NewAccount(
        key.kind,
        offer.account if label is None else label,
        key_issuer(offer.issuer) if issuer is None else issuer,
        key.parameters,
        key.secret,
        key.counter,
        touch,
    )


# --- onto the key ---


def _put(
    session: Session, reach: Reach, key: Key, accounts: Sequence[tuple[Offer, NewAccount]], *, yes: bool
) -> None:
    from otpbridge.cli import yubikey_take  # noqa: PLC0415 - not needed for --help

    yubikey_take.check(reach, key, [account for _offer, account in accounts])
    for offer, account in accounts:
        _tell_before(session, offer, account)
    these = "it" if len(accounts) == 1 else f"these {len(accounts)} accounts"
    ask.sure(f"Put {these} on {key}?", yes=yes)
    done: list[dict[str, Any]] = []
    for _offer, account in accounts:
        try:
            code = yubikey_take.put(reach, key, account)
        except (OtpBridgeError, KeyboardInterrupt):
            if done:
                names = ", ".join(show.visible(each["account"]) for each in done)
                show.note(f"On {key} are, and stay: {names}.")
            raise
        done.append(_result(key, account, code))
        _tell_after(session, key, account, code)
    if session.json:
        session.answer(done)


def _result(key: Key, account: NewAccount, code: KeyCode) -> dict[str, Any]:
    return {
        "serial": key.serial,
        "account": str(account),
        "issuer": account.issuer,
        "label": account.name,
        "kind": account.kind.value,
        "algorithm": account.parameters.algorithm.value,
        "digits": account.parameters.digits,
        "period": account.parameters.period if account.kind is Kind.TOTP else None,
        "touch": account.touch,
        "code": code.text,
        "valid_to": code.valid_to,
    }


def _tell_before(session: Session, offer: Offer, account: NewAccount) -> None:
    from otpbridge.cli.yubikey_take import code_of  # noqa: PLC0415 - not needed for --help

    parameters = account.parameters
    settings = f"{account.kind.value}, {parameters.algorithm.value}, {parameters.digits} digits"
    settings += f", a new code every {parameters.period} s" if account.kind is Kind.TOTP else ", counter-based"
    lines = [
        f"Found on   {'; '.join(offer.places)}",
        f"Issuer     {account.issuer or '-'}",
        f"Account    {account.name}",
        f"Settings   {settings}{', with a touch' if account.touch else ''}",
        f"Code now   {code_of(account, int(time.time()))}",
    ]
    for line in lines:
        session.tell(show.visible(line))


def _tell_after(session: Session, key: Key, account: NewAccount, code: KeyCode) -> None:
    left = "" if code.valid_to is None else f", good for {max(0, code.valid_to - int(time.time()))} s"
    session.tell(f"{show.visible(str(account))} shows {code.text}{left}. Where it has to be confirmed, type this.")
