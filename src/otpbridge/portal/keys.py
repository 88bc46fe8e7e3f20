"""Security keys and passkeys: registered in two calls, with the browser between them (WebAuthn)."""

from __future__ import annotations

import time

from starlette.responses import Response

from otpbridge.client import RemoteError
from otpbridge.portal import faults, people, proof
from otpbridge.portal.sessions import Setup
from otpbridge.portal.visit import RefusedError, Visit

_PATH = "/user/security-token"
_GONE = frozenset({"NoSuchToken", "WrongState"})


async def start(visit: Visit) -> Response:
    """Ask the browser for a new key."""
    whom = visit.whom
    if not visit.brand.client.security_keys:
        raise RefusedError(404, "error.absent")
    asking = await proof.fresh(visit, _PATH, whom)
    if asking is not None:
        return asking
    label = visit.form.get("label", "").strip() or None
    begun = await visit.house.otp.start_fido2(whom, client=visit.client, label=label, reason=visit.reason)
    visit.note(f"token {begun.token} started", whom)
    visit.person.registering = Setup(begun.token, whom, begun.label, "")
    return visit.page("key_create.html", setup=visit.person.registering, options=begun.options)


async def finish(visit: Visit) -> Response:
    """Judge what the browser gave."""
    session, whom = visit.person, visit.whom
    setup, session.registering = session.registering, None
    if setup is None or setup.user != whom or setup.token != visit.form.get("token", ""):
        return visit.page("message.html", 409, text=visit.texts("error.older_window"))
    try:
        done = await visit.house.otp.finish_fido2(setup.token, visit.form.get("credential", ""))
    except RemoteError as error:
        if faults.name_of(error) not in _GONE:
            raise
        return visit.page("message.html", 409, text=visit.texts("error.older_window"))
    if not done.confirmed:
        hint = done.hint if visit.texts.is_english and done.hint else visit.texts("keys.not_registered")
        return visit.page("message.html", 403, text=hint)
    if whom != session.user:
        session.tell(visit.texts("setup.confirmed_other", user=whom))
        return visit.to("/user", name=whom)
    session.proven, session.by_token, session.tested = time.monotonic(), True, False
    visit.house.sessions.end_of(session.client, session.user, but=session)
    held = await people.standing(visit, whom)
    session.tell(visit.texts("setup.key_confirmed", label=setup.label))
    return visit.to("/user" if held.recovery_codes is not None else "/user/recovery-codes")
