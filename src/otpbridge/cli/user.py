"""`otpbridge user`: users and what is required of them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from otpbridge.cli import ask, phone, show
from otpbridge.cli.exits import Code, CommandError
from otpbridge.cli.options import Duration, client_option, everywhere, example, reason_option, yes_option
from otpbridge.cli.proof import call_with_proof
from otpbridge.cli.session import Session, called
from otpbridge.cli.token import token_table
from otpbridge.model import LOCAL, Enforcement
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.wire.messages import UserFields


@click.group(
    epilog=example(
        "otpbridge user require alice",
        "otpbridge user exempt alice --for 2h --reason 'key left at home, called back'",
        "otpbridge user lock alice --reason 'laptop stolen'",
    )
)
def user() -> None:
    """Manage users: what is required of them, who is locked, who lost a phone."""


name_argument = click.argument("name", metavar="NAME")


def named(fields: UserFields) -> str:
    """A user as people call them."""
    name = show.visible(fields.name)
    return name if fields.client == LOCAL else f"{name} of client {show.visible(fields.client)}"


def _required(fields: UserFields) -> str:
    """What is asked of a user, and who says so."""
    return fields.enforcement.value if fields.own is not None else f"{fields.enforcement.value} by policy"


def _show(fields: UserFields) -> None:
    waiting = f", nothing is judged for {fields.retry_after} s" if fields.retry_after else ""
    rows: list[tuple[str, object]] = [
        ("User", fields.name),
        ("Client", fields.client),
        ("Second factor", _required(fields)),
        ("Locked", "yes: gets in nowhere" if fields.locked else "no"),
    ]
    if fields.exempt_until is not None:
        rows.append(("Exempt until", show.moment(fields.exempt_until)))
    rows += [
        ("Active tokens", fields.active_tokens),
        ("Wrong codes", f"{fields.misses} in a row, {fields.refused} attempts not judged{waiting}"),
        ("Added", show.moment(fields.created_at)),
    ]
    show.fields(rows)


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
        show.line(f"Added {named(added)}. Next: otpbridge enroll totp {called(added.name, added.client)}")


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
@reason_option
@everywhere
@click.pass_obj
def require(session: Session, name: str, client: str | None, reason: str | None, *, force: bool) -> None:
    """Let the user in only with a second factor."""
    _enforce(session, name, client, Enforcement.REQUIRED, reason, force=force)


@user.command(epilog=example("otpbridge user optional alice"))
@name_argument
@client_option
@reason_option
@everywhere
@click.pass_obj
def optional(session: Session, name: str, client: str | None, reason: str | None) -> None:
    """Let the user in without a second factor too.

    Whoever has a token may leave the answer empty; a wrong code is refused all the same.
    """
    _enforce(session, name, client, Enforcement.OPTIONAL, reason, force=False)


@user.command(epilog=example("otpbridge user inherit alice"))
@name_argument
@client_option
@reason_option
@everywhere
@click.pass_obj
def inherit(session: Session, name: str, client: str | None, reason: str | None) -> None:
    """Let policy say again whether a second factor is required.

    Takes back `require` and `optional`: what [policy] in otpbridge.toml says, for all or for the client, holds.
    """
    with session.admin() as daemon:
        now = daemon.call(messages.SetEnforcement(user=name, client=client, reason=reason)).user
    if session.json:
        session.answer(now)
    else:
        show.line(f"A second factor is {now.enforcement.value} for {named(now)} now, by policy.")


def _enforce(
    session: Session, name: str, client: str | None, enforcement: Enforcement, reason: str | None, *, force: bool
) -> None:
    """As an admin for anyone; else for oneself."""
    daemon, admin = session.nearest()
    with daemon:
        if admin:
            request = messages.SetEnforcement(
                user=name, client=client, enforcement=enforcement, force=force or None, reason=reason
            )
            reply = daemon.call(request)
            now: object = reply.user
        else:
            if force:
                session.admin()
            chosen = messages.ChooseEnforcement(user=name, client=client, enforcement=enforcement, reason=reason)
            call_with_proof(daemon, chosen, name, client)
            now = {"name": name, "client": client or LOCAL, "enforcement": enforcement.value}
    if session.json:
        session.answer(now)
    else:
        show.line(f"A second factor is {enforcement.value} for {show.visible(name)} now.")


@user.command(
    epilog=example("otpbridge user lock alice", "otpbridge user lock alice --reason 'laptop stolen, ticket 4711'")
)
@name_argument
@client_option
@reason_option
@everywhere
@click.pass_obj
def lock(session: Session, name: str, client: str | None, reason: str | None) -> None:
    """Let the user in nowhere, at once and until unlocked.

    With a public key neither, where PAM's account phase asks otpbridge. Sessions that are open stay open.
    """
    with session.admin() as daemon:
        now = daemon.call(messages.LockUser(user=name, client=client, reason=reason)).user
    if session.json:
        session.answer(now)
        return
    show.line(f"{named(now)} is locked and gets in nowhere from now on. Open sessions stay open: see loginctl(1).")
    show.line(f"To take it back: otpbridge user unlock {called(now.name, now.client)}")


@user.command(epilog=example("otpbridge user unlock alice"))
@name_argument
@client_option
@everywhere
@click.pass_obj
def unlock(session: Session, name: str, client: str | None) -> None:
    """Take a lock back, and forget wrong codes.

    Also for a user who has typed so many wrong codes that nothing is judged for a while.
    """
    with session.admin() as daemon:
        now = daemon.call(messages.UnlockUser(user=name, client=client)).user
    if session.json:
        session.answer(now)
    else:
        show.line(f"{named(now)} is not locked, and earlier wrong codes are forgotten. They can log in at once.")


@user.command(
    epilog=example(
        "otpbridge user exempt alice --for 2h --reason 'key left at home, called back'",
        "otpbridge user exempt alice --end",
    )
)
@name_argument
@client_option
@click.option("--for", "seconds", type=Duration(), metavar="TIME", help="How long: 90s, 30m, 2h or 1d; 30d at most.")
@click.option("--reason", metavar="TEXT", help="Why, for the audit log; needed with --for.")
@click.option("--end", is_flag=True, help="End an exemption now.")
@everywhere
@click.pass_obj
def exempt(
    session: Session, name: str, client: str | None, seconds: int | None, reason: str | None, *, end: bool
) -> None:
    """Ask no second factor of the user for a time.

    It ends by itself. For a key that was left at home. A first factor is asked for all the same. Where the phone is
    lost for good: otpbridge user reset.
    """
    if end == (seconds is not None):
        raise click.UsageError("say either how long, --for 2h, or --end")
    if not end and not (reason or "").strip():
        raise click.UsageError("say why: --reason TEXT. It is kept in the audit log.")
    with session.admin() as daemon:
        now = daemon.call(messages.ExemptUser(user=name, client=client, seconds=seconds, reason=reason)).user
    if session.json:
        session.answer(now)
    elif now.exempt_until is None:
        show.line(f"{named(now)} is exempt no longer. A second factor is {now.enforcement.value} for them.")
    else:
        show.line(f"No second factor is asked of {named(now)} until {show.moment(now.exempt_until)}.")
        show.line(f"To end it sooner: otpbridge user exempt {called(now.name, now.client)} --end")


@user.command(
    epilog=example("otpbridge user invite alice", "otpbridge --json user invite bob --client acme --for 7d")
)
@name_argument
@client_option
@click.option(
    "--for",
    "seconds",
    type=Duration(),
    metavar="TIME",
    help="How long it is good: 30m, 24h, 7d; a day when left out.",
)
@everywhere
@click.pass_obj
def invite(session: Session, name: str, client: str | None, seconds: int | None) -> None:
    """Issue a code that lets the user in once, to enrol.

    This registration code is short enough to be read out over the phone: first make sure who is calling. It stands
    in for the code of an authenticator, and not for a password.
    """
    with session.admin() as daemon:
        issued = daemon.call(messages.IssueRegistrationCode(user=name, client=client, seconds=seconds))
    if session.json:
        session.answer({**show.plain(issued), "user": name, "client": client or LOCAL})
        return
    for text in phone.registration(issued.code, issued.expires_at, name, client):
        show.line(text)


@user.command(
    epilog=example("otpbridge user password alice", "otpbridge user password bob --client acme < password.txt")
)
@name_argument
@client_option
@everywhere
@click.pass_obj
def password(session: Session, name: str, client: str | None) -> None:
    """Set the password that the verifier `password` checks.

    Asked for twice on a terminal, read as one line from standard input elsewhere, and never an argument. It is not
    the password of the Linux account, and takes the place of the one set before.
    """
    chosen = ask.hidden(f"New password of {show.visible(name)}: ")
    if sys.stdin.isatty() and ask.hidden("The same again: ") != chosen:
        raise CommandError(Code.USAGE, "the two are not the same, so nothing was changed; try again", "Mismatch")
    with session.admin() as daemon:
        reply = daemon.call(messages.SetPassword(user=name, password=chosen, client=client))
    if session.json:
        session.answer({"token": reply.token, "user": name, "client": client or LOCAL})
    else:
        show.line(f"{show.visible(name)} has a new password. It counts in stacks with the verifier `password`.")


@user.command(epilog=example("otpbridge user reset alice", "otpbridge user reset alice --keep-required"))
@name_argument
@client_option
@click.option("--keep-required", is_flag=True, help="Leave it as it is whether a second factor is required.")
@yes_option
@everywhere
@click.pass_obj
def reset(session: Session, name: str, client: str | None, *, keep_required: bool, yes: bool) -> None:
    """Start a user anew who lost the phone.

    Revokes all their tokens but the password, forgets wrong codes, tells them at the next login, and asks no second
    factor of them until they are required to have one again; that not with --keep-required.
    """
    shown = show.visible(name)
    then = "" if keep_required else " and let them in without a second factor"
    ask.sure(f"Revoke all tokens of {shown}{then}?", yes=yes)
    with session.admin() as daemon:
        reply = daemon.call(messages.ResetUser(user=name, client=client, keep_enforcement=keep_required or None))
    if session.json:
        session.answer({"user": name, "client": client or LOCAL, "revoked": reply.revoked})
        return
    whose = called(name, client)
    tokens = "1 token was" if reply.revoked == 1 else f"{reply.revoked} tokens were"
    if keep_required:
        show.line(f"{tokens} revoked. What is required of {shown} is as it was.")
        show.line(f"Next, for a user who must show a code: otpbridge user invite {whose}")
    else:
        show.line(f"{tokens} revoked. {shown} gets in without a second factor now.")
        show.line(f"Next: otpbridge enroll totp {whose}, then: otpbridge user require {whose}")


def _now(fields: UserFields) -> str:
    """What is out of the ordinary of a user."""
    words = ["locked"] if fields.locked else []
    if fields.exempt_until is not None:
        words.append(f"exempt until {show.minute(fields.exempt_until)}")
    return ", ".join(words)


@user.command(name="list", epilog=example("otpbridge user list", "otpbridge --json user list --client acme"))
@client_option
@everywhere
@click.pass_obj
def list_(session: Session, client: str | None) -> None:
    """List users, those of all clients unless one is named."""
    table = show.Table("USER", "CLIENT", "SECOND FACTOR", "TOKENS", "WRONG CODES", "NOW")
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
                    _required(fields),
                    fields.active_tokens,
                    fields.misses,
                    _now(fields),
                )
                for fields in page.users
            )
    if session.json:
        session.answer(every)
