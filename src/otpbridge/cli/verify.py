"""`otpbridge verify`: check a code, or hold the whole conversation that a stack asks for."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from otpbridge.cli import ask, show
from otpbridge.cli.conversation import converse, notice_lines
from otpbridge.cli.exits import Code, code_of, explain
from otpbridge.cli.options import client_option, everywhere, example
from otpbridge.cli.session import Session
from otpbridge.errors import ProtocolError, RemoteError
from otpbridge.model import Notice, Verdict
from otpbridge.wire import messages

if TYPE_CHECKING:
    from otpbridge.client import Client

_WORDS = {
    Verdict.SUCCESS: "success: accepted, and the code is spent now",
    Verdict.AUTH_ERR: "auth_err: refused",
    Verdict.MAXTRIES: "maxtries: too many wrong codes",
    Verdict.ACCT_EXPIRED: "acct_expired: the user is locked; see: otpbridge user show",
    Verdict.NEW_AUTHTOK_REQD: "new_authtok_reqd: a new token is needed",
    Verdict.PERM_DENIED: "perm_denied: you may not verify this user",
    Verdict.USER_UNKNOWN: "user_unknown: there is no such user",
    Verdict.AUTHINFO_UNAVAIL: "authinfo_unavail: it could not be judged; see the daemon's log",
    Verdict.IGNORE: "ignore: no second factor is asked of this user now",
}

_INSTEAD = {Code.UNAVAILABLE: Verdict.AUTHINFO_UNAVAIL, Code.NOT_PERMITTED: Verdict.PERM_DENIED}


_MOST_ANSWERS = 8


@click.command(epilog=example("otpbridge verify alice", "echo 123456 | otpbridge --json verify alice --client acme"))
@click.argument("user", metavar="USER")
@click.argument("code", required=False, metavar="[CODE]")
@client_option
@click.option("--stack", metavar="S", help="The stack that judges; `default` when left out.")
@everywhere
@click.pass_obj
def verify(session: Session, user: str, code: str | None, client: str | None, stack: str | None) -> Code:
    """Check a code of USER, which spends it.

    On a terminal, without CODE, all is asked that the stack asks, as in a login: a password, a code. Elsewhere the
    answers are read from standard input, one a line, to its end; password and code may also be one line. That is
    better than an argument, which other users of the machine can see. Only `success` gives exit code 0.
    """
    given = None
    if code is not None:
        given = [code]
    elif not sys.stdin.isatty():
        given = ask.answers(_MOST_ANSWERS)
    daemon, _admin = session.nearest()
    try:
        with daemon:
            if given is None:
                return _converse(session, daemon, user, client, stack)
            reply = daemon.call(messages.Check(user=user, responses=tuple(given), client=client, stack=stack))
    except (RemoteError, ProtocolError) as error:
        verdict = _INSTEAD.get(explain(error).code)
        if verdict is not None and session.json:
            _answer(session, verdict)
        raise
    notices = [Notice(notice.text, notice.style) for notice in reply.notices]
    _conclude(session, reply.verdict, reply.retry_after, notices, reply.token)
    for notice in () if session.json else notices:
        _tell(session, notice)
    return code_of(reply.verdict)


def _converse(session: Session, daemon: Client, user: str, client: str | None, stack: str | None) -> Code:
    told: list[Notice] = []

    def tell(notice: Notice) -> None:
        told.append(notice)
        _tell(session, notice)

    result = converse(daemon, user, client, stack, tell)
    _conclude(session, result.verdict, result.retry_after, told, result.token)
    return code_of(result.verdict)


def _tell(session: Session, notice: Notice) -> None:
    for text in notice_lines(notice.text):
        session.tell(text)


def _conclude(
    session: Session, verdict: Verdict, retry_after: int | None, notices: list[Notice], token: str | None = None
) -> None:
    if session.json:
        _answer(session, verdict, token, retry_after, notices)
    else:
        wait = f"; wait {retry_after} s" if retry_after else ""
        show.line(_WORDS[verdict] + wait)


def _answer(
    session: Session,
    verdict: Verdict,
    token: str | None = None,
    retry_after: int | None = None,
    notices: list[Notice] | None = None,
) -> None:
    told = [{"style": notice.style.value, "text": notice.text} for notice in notices or []]
    session.answer({"verdict": verdict, "token": token, "retry_after": retry_after, "notices": told})
