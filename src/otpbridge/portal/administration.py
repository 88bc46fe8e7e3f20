"""ADMINISTRATION: my details, the client and its users, and what is required of a user."""

from __future__ import annotations

import time

from starlette.responses import Response

from otpbridge.client import Enforcement, ManagedUser
from otpbridge.portal import people, proof
from otpbridge.portal.visit import RefusedError, Visit

_PAGE = 50
_LONGEST_NAME = 256


async def details(visit: Visit) -> Response:
    """The client, and who is logged in."""
    return visit.page("details.html", own=await people.standing(visit, visit.person.user))


async def users(visit: Visit) -> Response:
    """Everybody for admins, a page at a time; for all others, themselves."""
    otp, after = visit.house.otp, visit.request.query_params.get("after") or None
    if not visit.is_admin:
        found: tuple[ManagedUser, ...] = (await otp.show_user(visit.person.user, client=visit.client),)
    elif after is not None and len(after.encode()) > _LONGEST_NAME:
        raise RefusedError(404, "error.absent")
    else:
        found = await otp.users(client=visit.client, after=after, count=_PAGE + 1)
    more = found[_PAGE - 1].name if len(found) > _PAGE else None
    return visit.page("users.html", users=found[:_PAGE], more=more)


async def user(visit: Visit) -> Response:
    """A user: their authenticators, and what is required of them."""
    return await _user(visit, visit.whom)


async def enforce(visit: Visit) -> Response:
    """REQUIRED or NOT REQUIRED."""
    whom = visit.whom
    if visit.form.get("enforcement") == "required":
        problem = await _require(visit, whom)
    elif visit.form.get("enforcement") == "optional":
        problem = await _make_optional(visit, whom)
    else:
        raise RefusedError(400, "error.form")
    if isinstance(problem, Response):
        return problem
    if problem:
        return await _user(visit, whom, problem)
    visit.person.tell(visit.texts("user.enforcement_set"))
    return visit.to("/user", name=whom)


async def _require(visit: Visit, whom: str) -> str | Response:
    if whom != visit.person.user:
        asking = await proof.fresh(visit, "/user", whom)
        if asking is not None:
            return asking
    elif not visit.person.tested:
        return visit.texts("user.test_first")
    await visit.house.otp.set_enforcement(whom, Enforcement.REQUIRED, client=visit.client, reason=visit.reason)
    visit.note("second factor required", whom)
    return ""


async def _make_optional(visit: Visit, whom: str) -> str | Response:
    """What protects a user is not taken away without a second factor shown for that alone, or an admin."""
    if whom != visit.person.user:
        asking = await proof.fresh(visit, "/user", whom)
        if asking is not None:
            return asking
    elif not _just_shown(visit):
        shown = await proof.by_code(visit, visit.form.get("code", ""))
        if not shown.right:
            return shown.problem
    await visit.house.otp.set_enforcement(whom, Enforcement.OPTIONAL, client=visit.client, reason=visit.reason)
    visit.note("second factor not required", whom)
    visit.person.again = None
    return ""


def _just_shown(visit: Visit) -> bool:
    again = visit.person.again
    return again is not None and time.monotonic() - again < proof.AGAIN_SECONDS


async def sure(visit: Visit) -> Response:
    """Whether an authenticator is to be taken away."""
    held = await people.standing(visit, visit.whom)
    token = held.token(visit.request.query_params.get("token", ""))
    if token is None or token not in held.authenticators:
        raise RefusedError(404, "error.NoSuchToken")
    return visit.page("remove.html", held=held, token=token)


async def remove(visit: Visit) -> Response:
    """Take an authenticator away."""
    whom = visit.whom
    asking = await proof.fresh(visit, "/user", whom)
    if asking is not None:
        return asking
    held = await people.standing(visit, whom)
    token = held.token(visit.form.get("token", ""))
    if token is None or token not in held.authenticators:
        raise RefusedError(404, "error.NoSuchToken")
    await visit.house.otp.remove(token.id, reason=visit.reason)
    visit.note(f"token {token.id} removed", whom)
    if whom == visit.person.user:
        visit.person.tested = False
    visit.person.tell(visit.texts("user.removed", label=token.label))
    return visit.to("/user", name=whom)


async def _user(visit: Visit, whom: str, problem: str | None = None) -> Response:
    held = await people.standing(visit, whom)
    return visit.page(
        "user.html",
        403 if problem else 200,
        held=held,
        own=whom == visit.person.user,
        just_shown=_just_shown(visit),
        problem=problem,
    )
