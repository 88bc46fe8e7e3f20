"""`otpbridge user`: users and what is required of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from otpbridge.cli import ask, show
from otpbridge.cli.options import client_option, everywhere, example, yes_option
from otpbridge.cli.proof import call_with_proof
from otpbridge.cli.session import Session
from otpbridge.cli.token import token_table
from otpbridge.model import LOCAL, Enforcement
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.wire.messages import UserFields


@click.group(epilog=example("otpbridge user add alice", "otpbridge user require alice"))
def user() -> None:
    """Add, show and remove users; require a second factor of them."""


name_argument = click.argument("name", metavar="NAME")


def named(fields: UserFields) -> str:
    """A user as people call them."""
    name = show.visible(fields.name)
    return name if fields.client == LOCAL else f"{name} of client {show.visible(fields.client)}"


def _show(fields: UserFields) -> None:
    waiting = f", nothing is judged for {fields.retry_after} s" if fields.retry_after else ""
    show.fields(
        [
            ("User", fields.name),
            ("Client", fields.client),
            ("Second factor", fields.enforcement.value),
            ("Active tokens", fields.active_tokens),
            ("Wrong codes", f"{fields.misses} in a row, {fields.refused} attempts not judged{waiting}"),
            ("Added", show.moment(fields.created_at)),
        ]
    )


@user.command(epilog=example("otpbridge user add alice", "otpbridge user add bob --client acme"))
@name_argument
@client_option
@everywhere
@click.pass_obj
def add(session: Session, name: str, client: str | None) -> None:
    """Add a user. A second factor is asked of them once they are required to have one."""
    with session.admin() as daemon:
        added = daemon.call(messages.AddUser(user=name, client=client)).user
    if session.json:
        session.answer(added)
    else:
        show.line(f"Added {named(added)}. Next: otpbridge enroll totp {show.visible(added.name)}")


@user.command(name="show", epilog=example("otpbridge user show alice"))
@name_argument
@client_option
@everywhere
@click.pass_obj
def show_(session: Session, name: str, client: str | None) -> None:
    """Show a user with their tokens."""
    with session.admin() as daemon:
        reply = daemon.call(messages.ShowUser(user=name, client=client))
    if session.json:
        session.answer({**show.plain(reply.user), "tokens": reply.tokens})
        return
    _show(reply.user)
    if reply.tokens:
        show.line()
        token_table(reply.tokens)


@user.command(epilog=example("otpbridge user remove alice"))
@name_argument
@client_option
@yes_option
@everywhere
@click.pass_obj
def remove(session: Session, name: str, client: str | None, *, yes: bool) -> None:
    """Remove a user with all tokens. The audit log keeps what they did."""
    ask.sure(f"Remove {name} and destroy all their tokens?", yes=yes)
    with session.admin() as daemon:
        daemon.call(messages.RemoveUser(user=name, client=client))
    if session.json:
        session.answer({"removed": name, "client": client or LOCAL})
    else:
        show.line(f"Removed {show.visible(name)}.")


@user.command(epilog=example("otpbridge user require alice"))
@name_argument
@client_option
@click.option(
    "--force", is_flag=True, help="Even without a confirmed token, which locks the user out until enrolled."
)
@everywhere
@click.pass_obj
def require(session: Session, name: str, client: str | None, *, force: bool) -> None:
    """Let the user in only with a second factor."""
    _enforce(session, name, client, Enforcement.REQUIRED, force=force)


@user.command(epilog=example("otpbridge user optional alice"))
@name_argument
@client_option
@everywhere
@click.pass_obj
def optional(session: Session, name: str, client: str | None) -> None:
    """Let the user in without a second factor too.

    Whoever has a token may leave the answer empty; a wrong code is refused all the same.
    """
    _enforce(session, name, client, Enforcement.OPTIONAL, force=False)


def _enforce(session: Session, name: str, client: str | None, enforcement: Enforcement, *, force: bool) -> None:
    """As an admin for anyone; else for oneself."""
    daemon, admin = session.nearest()
    with daemon:
        if admin:
            reply = daemon.call(
                messages.SetEnforcement(user=name, client=client, enforcement=enforcement, force=force or None)
            )
            now: object = reply.user
        else:
            if force:
                session.admin()
            call_with_proof(
                daemon, messages.ChooseEnforcement(user=name, client=client, enforcement=enforcement), name, client
            )
            now = {"name": name, "client": client or LOCAL, "enforcement": enforcement.value}
    if session.json:
        session.answer(now)
    else:
        show.line(f"A second factor is {enforcement.value} for {show.visible(name)} now.")


@user.command(epilog=example("otpbridge user reset alice"))
@name_argument
@client_option
@yes_option
@everywhere
@click.pass_obj
def reset(session: Session, name: str, client: str | None, *, yes: bool) -> None:
    """Start a user anew who lost the phone.

    Removes all their tokens, forgets their wrong codes, and asks no second factor of them until they are required
    to have one again.
    """
    ask.sure(f"Remove all tokens of {name} and let them in without a second factor?", yes=yes)
    with session.admin() as daemon:
        reply = daemon.call(messages.ResetUser(user=name, client=client))
    if session.json:
        session.answer({"user": name, "client": client or LOCAL, "revoked": reply.revoked})
        return
    tokens = "1 token was" if reply.revoked == 1 else f"{reply.revoked} tokens were"
    show.line(f"{tokens} revoked. {show.visible(name)} gets in without a second factor now.")
    show.line(f"Next: otpbridge enroll totp {show.visible(name)}, then: otpbridge user require {show.visible(name)}")


@user.command(name="list", epilog=example("otpbridge user list", "otpbridge --json user list --client acme"))
@client_option
@everywhere
@click.pass_obj
def list_(session: Session, client: str | None) -> None:
    """List users, those of all clients unless one is named."""
    table = show.Table("USER", "CLIENT", "SECOND FACTOR", "ACTIVE TOKENS", "WRONG CODES", "ADDED")
    every: list[UserFields] = []
    with session.admin() as daemon:
        for page in daemon.stream(messages.ListUsers(client=client)):
            if session.json:
                every += page.users
                continue
            table.page(
                (
                    fields.name,
                    fields.client,
                    fields.enforcement.value,
                    fields.active_tokens,
                    fields.misses,
                    show.moment(fields.created_at),
                )
                for fields in page.users
            )
    if session.json:
        session.answer(every)
