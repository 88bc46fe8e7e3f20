"""`otpbridge verify`: check a code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from otpbridge.cli import ask, show
from otpbridge.cli.exits import Code, code_of, explain
from otpbridge.cli.options import client_option, everywhere, example
from otpbridge.cli.session import Session
from otpbridge.errors import ProtocolError, RemoteError
from otpbridge.model import Verdict

if TYPE_CHECKING:
    from otpbridge.client import Verification

_WORDS = {
    Verdict.SUCCESS: "success: the code is right, and spent now",
    Verdict.AUTH_ERR: "auth_err: refused",
    Verdict.MAXTRIES: "maxtries: too many wrong codes",
    Verdict.ACCT_EXPIRED: "acct_expired: the account has expired",
    Verdict.NEW_AUTHTOK_REQD: "new_authtok_reqd: a new token is needed",
    Verdict.PERM_DENIED: "perm_denied: you may not verify this user",
    Verdict.USER_UNKNOWN: "user_unknown: there is no such user",
    Verdict.AUTHINFO_UNAVAIL: "authinfo_unavail: it could not be judged; see the daemon's log",
    Verdict.IGNORE: "ignore: no second factor is asked of this user",
}

_INSTEAD = {Code.UNAVAILABLE: Verdict.AUTHINFO_UNAVAIL, Code.NOT_PERMITTED: Verdict.PERM_DENIED}


@click.command(epilog=example("otpbridge verify alice", "echo 123456 | otpbridge --json verify alice --client acme"))
@click.argument("user", metavar="USER")
@click.argument("code", required=False, metavar="[CODE]")
@client_option
@click.option("--stack", metavar="S", help="The stack that judges; that of the client when left out.")
@everywhere
@click.pass_obj
def verify(session: Session, user: str, code: str | None, client: str | None, stack: str | None) -> Code:
    """Check a code of USER, which spends it.

    Without CODE it is asked for, or read as one line from standard input: better than an argument, which other
    users of the machine can see. Only `success` gives exit code 0.
    """
    given = code if code is not None else ask.code("Code: ")
    daemon, _admin = session.nearest()
    try:
        with daemon:
            result = daemon.verify(user, given, client=client, stack=stack)
    except (RemoteError, ProtocolError) as error:
        verdict = _INSTEAD.get(explain(error).code)
        if verdict is not None and session.json:
            session.answer({"verdict": verdict, "token": None, "retry_after": None})
        raise
    _tell(session, result)
    return code_of(result.verdict)


def _tell(session: Session, result: Verification) -> None:
    if session.json:
        session.answer(
            {"verdict": result.verdict, "token": result.token, "retry_after": result.retry_after},
        )
        return
    wait = f"; wait {result.retry_after} s" if result.retry_after else ""
    show.line(_WORDS[result.verdict] + wait)
