"""Recovery codes: for the day on which the phone is gone. Shown once, to print, copy or save."""

from __future__ import annotations

from urllib.parse import quote

from starlette.responses import Response

from otpbridge.portal import people, proof
from otpbridge.portal.visit import Visit

_PATH = "/user/recovery-codes"


async def window(visit: Visit) -> Response:
    """How many are left, and the way to new ones."""
    return visit.page("recovery.html", held=await people.standing(visit, visit.person.user))


async def make(visit: Visit) -> Response:
    """New codes in place of the old; this reply alone holds them. Nobody makes them for somebody else."""
    asking = await proof.fresh(visit, _PATH)
    if asking is not None:
        return asking
    made = await visit.house.otp.new_recovery_codes(visit.person.user, client=visit.client)
    head = visit.texts("recovery.file", title=visit.brand.client.title, user=visit.person.user)
    text = "\n".join([head, "", *made.codes, ""])
    return visit.page("codes.html", codes=made.codes, file=f"data:text/plain;charset=utf-8,{quote(text)}")
