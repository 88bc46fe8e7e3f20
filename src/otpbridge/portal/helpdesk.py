"""What a client's admins do for its users: add, reset and invite them. The audit log says which admin it was."""

from __future__ import annotations

from starlette.responses import Response

from otpbridge.client import RemoteError
from otpbridge.portal import faults, people, proof
from otpbridge.portal.visit import RefusedError, Visit

_LONGEST_NAME = 256


async def add(visit: Visit) -> Response:
    """Add a user, who has nothing yet: an invitation comes next."""
    _admins_only(visit)
    asking = await proof.fresh(visit, "/users")
    if asking is not None:
        return asking
    name = visit.form.get("new", "").strip()
    problem = visit.texts("users.bad_name")
    if 0 < len(name.encode()) <= _LONGEST_NAME:
        try:
            await visit.house.otp.add_user(name, client=visit.client, reason=visit.reason)
        except RemoteError as error:
            if faults.name_of(error) not in {"UserExists", "BadParameters", "InvalidParameter"}:
                raise
            if faults.name_of(error) != "InvalidParameter":
                problem = faults.told(visit.texts, error)[1]
        else:
            visit.note("added", name)
            visit.person.tell(visit.texts("users.added", user=name))
            return visit.to("/user", name=name)
    return visit.page("message.html", 400, text=problem)


async def sure(visit: Visit) -> Response:
    """What a reset does, and the button for it."""
    whom = await _other(visit)
    return visit.page("reset.html", held=await people.standing(visit, whom))


async def reset(visit: Visit) -> Response:
    """Take all authenticators of a user away, log them out, and let them start again."""
    whom = await _other(visit)
    asking = await proof.fresh(visit, "/user", whom)
    if asking is not None:
        return asking
    await visit.house.otp.reset(
        whom, client=visit.client, keep_enforcement=visit.form.get("keep") == "yes", reason=visit.reason
    )
    visit.note("reset", whom)
    own = whom == visit.person.user
    visit.house.pictures.drop_of(visit.client, whom)
    visit.house.sessions.end_of(visit.client, whom)
    if own:
        visit.log_out()
        return visit.to("/login")
    visit.person.tell(visit.texts("user.was_reset", user=whom))
    return visit.to("/user", name=whom)


async def invite(visit: Visit) -> Response:
    """A registration code for a user. This reply alone holds it."""
    whom = await _other(visit)
    asking = await proof.fresh(visit, "/user", whom)
    if asking is not None:
        return asking
    made = await visit.house.otp.invite(whom, client=visit.client, reason=visit.reason)
    visit.note("registration code made", whom)
    return visit.page("invited.html", held=await people.standing(visit, whom), made=made)


async def _other(visit: Visit) -> str:
    """The user that an admin acts on, who must be there. Raises RefusedError."""
    _admins_only(visit)
    return visit.whom


def _admins_only(visit: Visit) -> None:
    if not visit.is_admin:
        raise RefusedError(404, "error.absent")
