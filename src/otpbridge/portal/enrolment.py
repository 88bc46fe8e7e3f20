"""SECURITY TOKEN: Generate shows the keys once, Confirm proves that they were taken over, Close forgets them."""

from __future__ import annotations

import time

from starlette.responses import JSONResponse, Response

from otpbridge.client import RemoteError
from otpbridge.portal import faults, people, pictures, proof
from otpbridge.portal.sessions import Setup
from otpbridge.portal.visit import Visit

_PATH = "/user/security-token"
_GONE = frozenset({"NoSuchToken", "WrongState"})


async def window(visit: Visit) -> Response:
    """The set-up window. To look at it changes nothing."""
    whom = visit.whom
    asking = await proof.fresh(visit, _PATH, whom)
    if asking is not None:
        return asking
    return await _window(visit, whom)


async def generate(visit: Visit) -> Response:
    """Make a token. This reply alone holds its keys; the picture can be fetched until the window closes."""
    whom = visit.whom
    asking = await proof.fresh(visit, _PATH, whom)
    if asking is not None:
        return asking
    held = await people.standing(visit, whom)
    house, session = visit.house, visit.person
    label = visit.form.get("label", "").strip() or whom
    try:
        started = await house.otp.enrol(whom, client=visit.client, label=label, reason=visit.reason)
    except RemoteError as error:
        if faults.name_of(error) != "BadParameters":
            raise
        return await _window(visit, whom, faults.told(visit.texts, error)[1])
    assert started.uri is not None
    visit.note(f"token {started.token} started", whom)
    picture = house.pictures.keep(visit.client, whom, pictures.draw(started.uri), started.expires_in)
    if session.setup is not None:
        house.pictures.drop(session.setup.picture)
    session.setup = Setup(started.token, whom, label, picture)
    return visit.page(
        "keys.html",
        held=held,
        own=whom == session.user,
        setup=session.setup,
        started=started,
        replaces=any(token.label == label for token in held.authenticators),
        picture=f"/qr/{picture}.png",
        address=f"{visit.request.scope['state']['origin']}/qr/{picture}.png",
    )


async def confirm(visit: Visit) -> Response:
    """Prove the token with a code. The page's script asks for JSON, and leaves the keys on the screen meanwhile."""
    session, whom = visit.person, visit.whom
    setup = session.setup
    if setup is None or setup.user != whom or setup.token != visit.form.get("token", ""):
        return _answer(visit, "error.older_window")
    try:
        reply = await visit.house.otp.confirm(setup.token, visit.form.get("code", "").strip())
    except RemoteError as error:
        name = faults.name_of(error)
        if name in _GONE:
            _forget(visit)
            return _answer(visit, "error.older_window")
        if name != "Busy":
            raise
        return _not_yet(visit, setup, faults.told(visit.texts, error)[1])
    if not reply.confirmed:
        return _not_yet(visit, setup, _hint(visit, reply.fault, reply.hint))
    _forget(visit)
    return await _confirmed(visit, setup)


async def close(visit: Visit) -> Response:
    """Forget the keys: nobody can use them any more. The browser's beacon comes here too."""
    whom = visit.whom
    setup = visit.person.setup
    if setup is not None and setup.user == whom and setup.token == visit.form.get("token", ""):
        _forget(visit)
        await discard(visit, setup.token)
    return visit.to("/user", name=whom)


async def discard(visit: Visit, token: str) -> None:
    """Drop a pending token, if it is still there."""
    try:
        await visit.house.otp.discard(token)
    except RemoteError as error:
        if faults.name_of(error) not in _GONE:
            raise


async def _confirmed(visit: Visit, setup: Setup) -> Response:
    session = visit.person
    if setup.user != session.user:
        session.tell(visit.texts("setup.confirmed_other", user=setup.user))
        return _next(visit, "/user", name=setup.user)
    session.proven, session.by_token, session.tested = time.monotonic(), True, False
    # Other browsers that are logged in have not shown it.
    visit.house.sessions.end_of(session.client, session.user, but=session)
    held = await people.standing(visit, session.user)
    session.tell(visit.texts("setup.confirmed"))
    return _next(visit, "/user" if held.recovery_codes is not None else "/user/recovery-codes")


def _forget(visit: Visit) -> None:
    setup, visit.person.setup = visit.person.setup, None
    if setup is not None:
        visit.house.pictures.drop(setup.picture)


def _hint(visit: Visit, fault: str | None, hint: str | None) -> str:
    """Why a code did not fit, in the person's language."""
    key = f"fault.{fault}"
    if visit.texts.is_english and hint:
        return hint
    return visit.texts(key) if key in visit.texts else hint or visit.texts("fault.wrong_code")


def _wants_json(visit: Visit) -> bool:
    return visit.request.headers.get("accept") == "application/json"


def _next(visit: Visit, path: str, **query: str) -> Response:
    response = visit.to(path, **query)
    return JSONResponse({"next": response.headers["location"]}) if _wants_json(visit) else response


def _answer(visit: Visit, key: str) -> Response:
    text = visit.texts(key)
    if _wants_json(visit):
        return JSONResponse({"over": text}, 409)
    return visit.page("message.html", 409, text=text)


def _not_yet(visit: Visit, setup: Setup, problem: str) -> Response:
    if _wants_json(visit):
        return JSONResponse({"problem": problem}, 403)
    return visit.page("confirm.html", 403, setup=setup, problem=problem)


async def _window(visit: Visit, whom: str, problem: str | None = None) -> Response:
    held = await people.standing(visit, whom)
    return visit.page(
        "setup.html",
        400 if problem else 200,
        held=held,
        own=whom == visit.person.user,
        problem=problem,
    )
