"""`otpbridge yubikey provision`: the command around the station."""

from __future__ import annotations

import secrets
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otpbridge.cli import ask, show, yubikey_reach, yubikey_slot
from otpbridge.cli.exits import Code, CommandError, short_name
from otpbridge.cli.options import client_option, everywhere, example
from otpbridge.cli.provision import batch, people, screen
from otpbridge.cli.provision.batch import Batch
from otpbridge.cli.provision.bench import Bench, BenchReach, Order, StoppedError
from otpbridge.cli.provision.people import Person, Row, UnsoundError, Usual
from otpbridge.cli.provision.records import Records, written
from otpbridge.cli.provision.station import INSERT, Station, Tools
from otpbridge.cli.session import Session
from otpbridge.errors import GivenUpError, RemoteError
from otpbridge.model import LOCAL, Algorithm, Kind
from otpbridge.wire import messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otpbridge.cli.provision.board import Phase
    from otpbridge.client import Client
    from otpbridge.wire.messages import TokenFields

_TOLD = 50
"""Lines of one kind that are told one by one."""


@click.command(
    epilog=example(
        "otpbridge yubikey provision people.csv --check",
        "otpbridge yubikey provision people.csv --touch",
        "otpbridge yubikey provision people.csv --passwords passwords.csv",
    )
)
@click.argument("list_", metavar="PEOPLE.CSV", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--result",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Who got which key, as CSV.  [default: PEOPLE-keys.csv beside the list]",
)
@click.option(
    "--passwords",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Give each key an OATH password of its own, made here, and write it into FILE, which only you can read.",
)
@click.option("--check", is_flag=True, help="Say what is wrong with the list and who would get a key; start nothing.")
@click.option(
    "--kind",
    type=click.Choice(["totp", "hotp", "yubiotp"]),
    metavar="totp|hotp|yubiotp",
    help="Where the list does not say; totp when left out, with --slot yubiotp.",
)
@click.option("--touch", is_flag=True, help="Keys compute a code only when they are touched.")
@click.option(
    "--algorithm",
    type=click.Choice([algorithm.value for algorithm in Algorithm], case_sensitive=False),
    metavar="SHA1|SHA256|SHA512",
    help="Hash, where the list does not say.",
)
@click.option(
    "--digits", type=click.IntRange(6, 8), metavar="N", help="Digits of a code, where the list does not say."
)
@click.option("--issuer", metavar="I", help="The name above the account, where the list does not say.")
@client_option
@click.option("--slot", type=click.IntRange(1, 2), metavar="1|2", help="A slot that types, and no account.")
@click.option("--force", is_flag=True, help="Program the slot though it holds something, which is lost.")
@click.option("--access-code", is_flag=True, help="Protect slots with an access code, which is asked for.")
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the OATH password that keys have already, the same for all, as a line from standard input; ykman's"
    " memory is used as well.",
)
@click.option(
    "--take-over", is_flag=True, help="End scdaemon (GnuPG) and have yubikey-agent let go of keys, at first."
)
@everywhere
@click.pass_obj
def provision(
    session: Session,
    /,
    *,
    list_: Path,
    result: Path | None,
    passwords: Path | None,
    check: bool,
    kind: str | None,
    touch: bool,
    algorithm: str | None,
    digits: int | None,
    issuer: str | None,
    client: str | None,
    slot: int | None,
    force: bool,
    access_code: bool,
    password_stdin: bool,
    take_over: bool,
) -> Code:
    """Put a token on one key after the other, for all people of a list.

    The list is CSV with a heading: user, and as needed client, label, issuer, serial (of the very key), kind,
    algorithm, digits. Plug in keys, one or many at once; each says whose it is. Run it again after a crash or Ctrl-C:
    who has a key is passed over, and what was left on keys is taken off.
    """
    chosen = Kind(kind) if kind else (Kind.YUBIOTP if slot else Kind.TOTP)
    yubikey_slot.check_usage(chosen, slot, slot_only=force or access_code)
    if slot is not None and (touch or password_stdin or passwords is not None):
        raise click.UsageError("--touch, --passwords and --password-stdin are for accounts, not for slots")
    usual = Usual(
        chosen,
        client or LOCAL,
        issuer,
        Algorithm(algorithm.upper()) if algorithm else None,
        digits,
        slot,
    )
    reach = yubikey_reach.Reach(take_over=take_over)
    try:
        persons = people.read(_text(list_), usual)
    except UnsoundError as error:
        return _tell_faults(session, error)
    path = result or list_.with_name(f"{list_.stem}-keys.csv")
    if check:
        return _tell_plan(session, _plan(session, persons, written(path)))
    with Records(path, passwords) as records:
        _settle(session, records)
        made = _plan(session, persons, records.rows)
        given = ask.hidden("OATH password that keys have already: ") if password_stdin else None
        if take_over:
            reach.end_holders()
        _check_readers()
        order = Order(touch, slot, force, yubikey_slot.ask_access_code() if access_code else None)
        with screen.view(session, typing=slot is not None) as view:
            view.tell(INSERT)
            station = Station(made, Tools(records, lambda: session.nearest()[0], order, given), view)
            station.run()
        return _tell_end(session, made, records, path, interrupted=station.interrupted)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise CommandError(Code.USAGE, f"{path} is not UTF-8 text; save it as CSV UTF-8", "BadFile") from None
    except OSError as error:
        raise CommandError(Code.REFUSED, f"cannot read {path}: {error.strerror}", "CannotRead") from None


def _check_readers() -> None:
    """Raise where pcscd is not there, or not for us."""
    from otpbridge.devices.watch import Watch  # noqa: PLC0415 - the libraries may be missing

    with Watch() as watch:
        watch.readers()


# --- before ---


def _plan(session: Session, persons: Sequence[Person], rows: Sequence[Row]) -> Batch:
    """Who still is to get a key, by what the daemon knows. Raises CommandError where the daemon is in the way."""
    daemon, admin = session.nearest()
    with daemon:
        tokens = _all_tokens(daemon) if admin else _tokens_of(daemon, persons)
    away, taken, void = batch.standing(persons, rows, tokens)
    for text in void[:_TOLD]:
        show.note(f"otpbridge: {show.visible(text)}")
    return Batch(persons, rows, away, taken)


def _settle(session: Session, records: Records) -> None:
    """Find what the last run began in force, or discard it; what is on keys is for when they are plugged in."""
    daemon, _admin = session.nearest()
    impatient = threading.Event()
    impatient.set()
    with daemon:
        reach = BenchReach(records=records, report=_silent, typed=_nothing)
        bench = Bench(reach, daemon, Order(), impatient, secrets.token_bytes)
        for begun in records.begun:
            try:
                row = bench.settle(begun, None)
            except StoppedError as error:
                raise CommandError(Code.UNAVAILABLE, str(error), "Unavailable") from None
            if row is not None:
                show.note(f"{show.visible(row.user)} has key {row.serial} since the last run, which was cut off.")


def _silent(_phase: Phase, _words: str) -> None:
    """Nobody looks yet."""


def _nothing(_how: str) -> str:
    """No key is touched yet."""
    raise GivenUpError("no key is plugged in yet")


def _all_tokens(daemon: Client) -> list[TokenFields]:
    return [token for reply in daemon.stream(messages.ListTokens()) for token in reply.tokens]


def _tokens_of(daemon: Client, persons: Iterable[Person]) -> list[TokenFields]:
    found: list[TokenFields] = []
    for person in persons:
        try:
            found += daemon.call(messages.Tokens(user=person.user, client=person.client)).tokens
        except RemoteError as error:
            # Whoever never enrolled is not in the store, and has none.
            if short_name(error) != "NoSuchUser":
                raise
    return found


def _tell_faults(session: Session, error: UnsoundError) -> Code:
    if session.json:
        session.answer(
            {"error": "UnsoundList", "message": str(error), "errors": [asdict(each) for each in error.faults]}
        )
    for fault in error.faults[:_TOLD]:
        show.note(f"line {fault.line}: {show.visible(fault.reason)}")
    if len(error.faults) > _TOLD:
        show.note(f"and more: these are the first {_TOLD}")
    show.note(f"otpbridge: {error}")
    return Code.USAGE


def _tell_plan(session: Session, made: Batch) -> Code:
    if session.json:
        session.answer({"waiting": _named(made.waiting), "left_out": _left_out(made), "done": len(made.done)})
        return Code.DONE
    for person in made.waiting:
        show.line(f"{show.visible(str(person))}: {'any key' if person.serial is None else f'key {person.serial}'}")
    _tell_left_out(made)
    show.note(
        f"{len(made.waiting)} of {made.total} are to get a key, {len(made.done)} have one. Nothing was started."
    )
    return Code.DONE


# --- after ---


def _tell_end(session: Session, made: Batch, records: Records, path: Path, *, interrupted: bool) -> Code:
    left = records.begun
    if session.json:
        session.answer(
            {
                "done": [asdict(row) for row in records.rows],
                "waiting": _named(made.waiting),
                "left_out": _left_out(made),
                "left_on_keys": [
                    {"serial": begun.serial, "user": begun.user, "client": begun.client, "token": begun.token}
                    for begun in left
                ],
                "result": str(path),
            }
        )
    _tell_left_out(made)
    for begun in left:
        show.note(
            f"otpbridge: key {begun.serial} may hold what was begun for {show.visible(begun.user)}; it is of no use"
            " to anyone. Plug it in and run this again: it is taken off"
        )
    session.tell(f"{len(made.done)} of {made.total} have a key; who has which is in {show.visible(str(path))}.")
    if made.waiting:
        names = ", ".join(show.visible(str(person)) for person in made.waiting[:_TOLD])
        session.tell(f"{len(made.waiting)} still wait: {names}. Run this again for them.")
    if interrupted:
        return Code.INTERRUPTED
    return Code.REFUSED if made.waiting or made.away or left else Code.DONE


def _tell_left_out(made: Batch) -> None:
    for person, words in list(made.away.items())[:_TOLD]:
        show.note(f"otpbridge: {show.visible(str(person))} gets none: {show.visible(words)}")


def _named(persons: Iterable[Person]) -> list[dict[str, str]]:
    return [{"user": person.user, "client": person.client} for person in persons]


def _left_out(made: Batch) -> list[dict[str, str]]:
    return [{"user": person.user, "client": person.client, "reason": words} for person, words in made.away.items()]
