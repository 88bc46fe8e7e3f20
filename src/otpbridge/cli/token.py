"""`otpbridge token`: authenticators that users have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from otpbridge.cli import ask, show
from otpbridge.cli.exits import Code, CommandError, short_name
from otpbridge.cli.options import client_option, everywhere, example, yes_option
from otpbridge.cli.proof import call_with_proof
from otpbridge.cli.session import Session, own_name
from otpbridge.errors import RemoteError
from otpbridge.model import Kind
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.client import Client
    from otpbridge.wire.messages import ConfirmReply, Request, TokenFields, TokenReply


@click.group(epilog=example("otpbridge token list alice", "otpbridge token confirm ID"))
def token() -> None:
    """List, confirm, disable and remove tokens."""


id_argument = click.argument("id_", metavar="ID")


def settings_of(fields: TokenFields) -> str:
    """How a token computes its codes; how many are left of a list; `-` where there is nothing to say."""
    if fields.codes_left is not None:
        return f"{fields.codes_left} codes left"
    if fields.algorithm is None:
        return "-"
    every = f", {fields.period} s" if fields.kind is Kind.TOTP else ""
    return f"{fields.algorithm.value}, {fields.digits} digits{every}"


def token_table(tokens: Iterable[TokenFields]) -> None:
    """Write a table of tokens."""
    _page(_new_table(), tokens)


def _new_table() -> show.Table:
    return show.Table("TOKEN", "USER", "CLIENT", "KIND", "STATE", "SETTINGS", "LABEL", "LAST USED")


def _page(table: show.Table, tokens: Iterable[TokenFields]) -> None:
    table.page(
        (
            fields.id,
            fields.user,
            fields.client,
            fields.kind.value,
            fields.state.value,
            settings_of(fields),
            f"{fields.issuer}:{fields.label}" if fields.issuer else fields.label,
            show.moment(fields.last_used_at),
        )
        for fields in tokens
    )


def _show(fields: TokenFields) -> None:
    show.fields(
        [
            ("Token", fields.id),
            ("User", fields.user),
            ("Client", fields.client),
            ("Kind", fields.kind.value),
            ("State", fields.state.value),
            ("Settings", settings_of(fields)),
            ("Label", fields.label),
            ("Issuer", fields.issuer),
            ("On keys", ", ".join(fields.serials or ()) or "-"),
            ("Drift", f"{fields.drift} steps"),
            ("Enrolled", show.moment(fields.created_at)),
            ("Expires", show.moment(fields.expires_at)),
            ("Confirmed", show.moment(fields.confirmed_at)),
            ("Last used", show.moment(fields.last_used_at)),
        ]
    )


@token.command(name="list", epilog=example("otpbridge token list", "otpbridge token list alice --all"))
@click.argument("user", required=False, metavar="[USER]")
@client_option
@click.option("--all", "all_", is_flag=True, help="With the revoked ones (admins only).")
@everywhere
@click.pass_obj
def list_(session: Session, user: str | None, client: str | None, *, all_: bool) -> None:
    """List tokens.

    An admin sees those of everyone, or of USER; others see their own.
    """
    daemon, admin = session.nearest()
    with daemon:
        pages = _pages(daemon, user, client, all_=all_) if admin else _own_pages(daemon, user, client)
        if session.json:
            session.answer([fields for page in pages for fields in page])
            return
        table = _new_table()
        for page in pages:
            _page(table, page)


def _pages(daemon: Client, user: str | None, client: str | None, *, all_: bool) -> Iterator[Iterable[TokenFields]]:
    for reply in daemon.stream(messages.ListTokens(user=user, client=client, all=all_ or None)):
        yield reply.tokens


def _own_pages(daemon: Client, user: str | None, client: str | None) -> Iterator[Iterable[TokenFields]]:
    try:
        yield daemon.call(messages.Tokens(user=user or own_name(), client=client)).tokens
    except RemoteError as error:
        # Whoever never enrolled is not in the store, and simply has none.
        if user is not None or short_name(error) != "NoSuchUser":
            raise


@token.command(name="show", epilog=example("otpbridge token show ID"))
@id_argument
@everywhere
@click.pass_obj
def show_(session: Session, id_: str) -> None:
    """Show a token. Its seed is shown to nobody."""
    daemon, admin = session.nearest()
    with daemon:
        if admin:
            fields = daemon.call(messages.ShowToken(token=id_)).token
        else:
            own = {fields.id: fields for page in _own_pages(daemon, None, None) for fields in page}
            if id_ not in own:
                raise CommandError(Code.REFUSED, f"you have no token {id_}; see: otpbridge token list", "NoSuchToken")
            fields = own[id_]
    if session.json:
        session.answer(fields)
    else:
        _show(fields)


def _change(session: Session, request: Request[TokenReply], done: str) -> None:
    with session.admin() as daemon:
        fields = daemon.call(request).token
    if session.json:
        session.answer(fields)
    else:
        show.line(f"Token {fields.id} of {show.visible(fields.user)} is {done}.")


@token.command(epilog=example("otpbridge token disable ID"))
@id_argument
@everywhere
@click.pass_obj
def disable(session: Session, id_: str) -> None:
    """Refuse the codes of a token until it is enabled again."""
    _change(session, messages.DisableToken(token=id_), "disabled; its codes are refused")


@token.command(epilog=example("otpbridge token enable ID"))
@id_argument
@everywhere
@click.pass_obj
def enable(session: Session, id_: str) -> None:
    """Take the codes of a disabled token again."""
    _change(session, messages.EnableToken(token=id_), "active again")


@token.command(epilog=example("otpbridge token remove ID"))
@id_argument
@yes_option
@everywhere
@click.pass_obj
def remove(session: Session, id_: str, *, yes: bool) -> None:
    """Revoke a token for good and destroy its seed. Your own you may remove with one of its codes."""
    ask.sure(f"Revoke token {id_} and destroy its seed?", yes=yes)
    daemon, admin = session.nearest()
    with daemon:
        if admin:
            daemon.call(messages.RemoveToken(token=id_))
        else:
            call_with_proof(daemon, messages.Remove(token=id_), own_name(), None)
    if session.json:
        session.answer({"removed": id_})
    else:
        show.line(f"Token {show.visible(id_)} is revoked.")


@token.command(epilog=example("otpbridge token confirm ID", "otpbridge token confirm ID < code.txt"))
@id_argument
@click.argument("code", required=False, metavar="[CODE]")
@everywhere
@click.pass_obj
def confirm(session: Session, id_: str, code: str | None) -> Code:
    """Put a pending token in force with a code that it shows.

    Without CODE it is asked for, or read as one line from standard input: better than an argument, which other
    users of the machine can see.
    """
    daemon, _admin = session.nearest()
    with daemon:
        given = code if code is not None else ask.code("Code that the authenticator shows now: ")
        reply = daemon.call(messages.Confirm(token=id_, code=given))
    if session.json:
        session.answer({"token": id_, **show.plain(reply)})
    tell_confirmation(session, id_, reply)
    return Code.DONE if reply.confirmed else Code.REFUSED


FAULTS = {
    "wrong_code": "That code is wrong. Type the one that is shown now.",
    "algorithm": "Your app ignores the hash of this token.",
    "digits": "Your app ignores the number of digits of this token.",
    "period": "Your app ignores the period of this token.",
    "clock": "The clock of your device is off. Let it set its time by itself.",
    "used": "That code was used before. Wait for the next one.",
}


def fault_of(reply: ConfirmReply) -> str:
    """Say why a code did not confirm, and what to do."""
    words = reply.hint or FAULTS.get(reply.fault or "wrong_code", FAULTS["wrong_code"])
    return show.visible(words)


def tell_confirmation(session: Session, id_: str, reply: ConfirmReply) -> None:
    """Say whether a token is in force now."""
    if not reply.confirmed:
        show.note(f"otpbridge: {fault_of(reply)}")
        show.note(f"Token {show.visible(id_)} is still {reply.state.value}.")
        return
    session.tell(f"Token {show.visible(id_)} is {reply.state.value}. The code is spent: log in with the next one.")
    for old in reply.replaced:
        session.tell(
            f"It replaces token {show.visible(old)}, which is revoked: delete its entry from the app, if it has one."
        )


@token.command(epilog=example("otpbridge token resync ID 123456 789012"))
@id_argument
@click.argument("code1", metavar="CODE1")
@click.argument("code2", metavar="CODE2")
@everywhere
@click.pass_obj
def resync(session: Session, id_: str, code1: str, code2: str) -> Code:
    """Put a token back in step with two codes in a row.

    For an authenticator whose clock or counter ran away (RFC 4226 7.4). Both codes are spent.
    """
    with session.admin() as daemon:
        reply = daemon.call(messages.Resync(token=id_, first=code1, second=code2))
    if session.json:
        session.answer({"token": id_, "resynced": reply.resynced})
    if reply.resynced:
        session.tell(f"Token {show.visible(id_)} is back in step. Both codes are spent.")
        return Code.DONE
    show.note(
        "otpbridge: these are not two new codes in a row of this token. Wait for a new code, note it and the one"
        " that follows, and try again."
    )
    return Code.REFUSED
