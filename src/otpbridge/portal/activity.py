"""What happened to an account: the logins, and every change to what protects it."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response

from otpbridge.client import AccountEvent, Enforcement
from otpbridge.portal import people
from otpbridge.portal.visit import Visit

_COUNT = 50


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the list. `refused` marks logins that did not come in."""

    at: int
    text: str
    source: str
    service: str
    refused: bool


async def window(visit: Visit) -> Response:
    """The newest events, newest first."""
    whom = visit.whom
    held = await people.standing(visit, whom)
    events = await visit.house.otp.activity(whom, client=visit.client, count=_COUNT)
    return visit.page("activity.html", held=held, lines=[_line(visit, event) for event in events])


def _line(visit: Visit, event: AccountEvent) -> Line:
    key = f"activity.{event.event}"
    if event.event == "login":
        key = "activity.login" if event.let_in else "activity.refused"
    elif event.event == "enforcement_set":
        key = {
            Enforcement.REQUIRED: "activity.required",
            Enforcement.OPTIONAL: "activity.optional",
            None: "activity.inherits",
        }[event.enforcement]
    # Later versions of the daemon may tell of more.
    text = visit.texts(key) if key in visit.texts else event.event.replace("_", " ")
    if event.kind in people.AUTHENTICATORS or (event.kind is not None and event.event == "login"):
        kind = visit.texts(f"kind.{event.kind}")
        text = f"{text}: {kind} {event.label}" if event.label else f"{text}: {kind}"
    where = " @ ".join(part for part in (event.service, event.host) if part)
    return Line(int(event.at), text, event.rhost or "", where, key == "activity.refused")
