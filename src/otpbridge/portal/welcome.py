"""The first visit of who has no password yet, with a registration code; and a new password for the others."""

from __future__ import annotations

import time

from starlette.responses import Response

from otpbridge.client import Kind, RemoteError, Verdict
from otpbridge.portal import faults, people, proof
from otpbridge.portal.visit import RefusedError, Visit

_LONGEST = 256
_NO_CODE = "-"
"""What no code can be."""


async def form(visit: Visit) -> Response:
    """User name and registration code."""
    return visit.page("welcome.html", form=visit.login_form(), user="", problem=None)


async def come(visit: Visit) -> Response:
    """Let in who has a registration code and no password, to choose one. Who has one uses it beside the code."""
    visit.check_login_form()
    user, code = visit.form.get("user", "").strip(), visit.form.get("code", "").strip()
    if not 0 < len(user.encode()) <= _LONGEST or not 0 < len(code) <= _LONGEST:
        return _refused(visit, None)
    new = await _is_new(visit, user)
    # Whoever cannot come in this way is asked and counted all the same.
    result = await visit.house.otp.check(
        user,
        (code if new else _NO_CODE,),
        client=visit.client,
        stack=visit.house.portal.settings.stacks.proof,
        context=visit.context,
    )
    if not new or result.verdict is not Verdict.SUCCESS or result.token is None:
        return _refused(visit, result.retry_after)
    session = visit.log_in(user, by_token=True)
    visit.pass_on(result.notices)
    session.tested = False
    session.chooses_password = True
    return visit.to("/password")


async def _is_new(visit: Visit, user: str) -> bool:
    try:
        held = await people.standing(visit, user)
    except RemoteError as error:
        if faults.name_of(error) not in {"NoSuchUser", "InvalidParameter"}:
            raise
        return False
    return not held.has_password and any(token.kind is Kind.REGISTRATION for token in held.tokens)


def _refused(visit: Visit, wait: int | None) -> Response:
    text = visit.texts("welcome.refused") if wait is None else visit.texts("login.wait", seconds=wait)
    return visit.page("welcome.html", 403 if wait is None else 429, form=visit.login_form(), user="", problem=text)


async def password(visit: Visit) -> Response:
    """The form for a new password."""
    asking = await _asking(visit)
    return asking or visit.page("password.html", problem=None)


async def set_password(visit: Visit) -> Response:
    """Set it, and log out all other browsers of this user."""
    asking = await _asking(visit)
    if asking is not None:
        return asking
    new, again = visit.form.get("password", ""), visit.form.get("again", "")
    if new != again:
        return visit.page("password.html", 400, problem=visit.texts("password.differ"))
    before = visit.person
    try:
        await visit.house.otp.set_password(before.user, new, client=visit.client)
    except RemoteError as error:
        if faults.name_of(error) != "BadParameters":
            raise
        return visit.page("password.html", 400, problem=faults.told(visit.texts, error)[1])
    visit.house.sessions.end_of(before.client, before.user)
    after = visit.log_in(before.user, by_token=before.by_token)
    after.tested, after.proven = before.tested, time.monotonic()
    after.tell(visit.texts("password.set"))
    return visit.to("/user/security-token" if before.chooses_password else "/user")


async def _asking(visit: Visit) -> Response | None:
    """Passwords are changed by who has one here, or has just come without; and not from a stolen session."""
    if visit.person.chooses_password:
        return None
    own = await people.standing(visit, visit.person.user)
    if not own.has_password:
        raise RefusedError(404, "error.absent")
    return await proof.fresh(visit, "/password")
