"""Before factors are changed: are you still the one who logged in? A stolen session is not the user."""

from __future__ import annotations

import time
from dataclasses import dataclass

from starlette.responses import Response

from otpbridge.client import PromptStyle, Verdict, Verification
from otpbridge.portal import people
from otpbridge.portal.people import Standing
from otpbridge.portal.sessions import Asked
from otpbridge.portal.visit import Visit
from otpbridge.portal.waiting import KEY_SECONDS

AGAIN_SECONDS = 120.0
"""How long a second factor that was just shown again counts for what needs one of its own."""
_LONGEST = 256


@dataclass(frozen=True, slots=True)
class Proof:
    """What came of showing something: whether it was right, and what to say where it was not."""

    right: bool
    problem: str = ""


async def fresh(visit: Visit, path: str, name: str = "") -> Response | None:
    """None where the person may change factors now; else the way to the page that asks, and leads back."""
    own = await people.standing(visit, visit.person.user)
    if visit.is_fresh(has_authenticator=own.active):
        return None
    visit.person.wanted = (path, name)
    return visit.to("/prove")


async def form(visit: Visit) -> Response:
    """Ask for a code, a key, or the password of who has neither."""
    if visit.request.query_params.get("for") == "user":
        visit.person.wanted = ("/user", "")
    return _form(visit, await people.standing(visit, visit.person.user))


async def prove(visit: Visit) -> Response:
    """Judge what was typed."""
    own = await people.standing(visit, visit.person.user)
    shown = await by_code(visit, visit.form.get("code", "")) if own.active else await _by_password(visit)
    if shown.right:
        return _proven(visit, second=own.active)
    return _form(visit, own, shown.problem)


async def by_code(visit: Visit, code: str) -> Proof:
    """Judge a code of who is logged in; a right one is spent."""
    code = code.strip()
    if not code or len(code) > _LONGEST:
        return Proof(right=False, problem=visit.texts("prove.refused"))
    result = await visit.house.otp.check(
        visit.person.user,
        (code,),
        client=visit.client,
        stack=visit.house.portal.settings.stacks.proof,
        context=visit.context,
    )
    return _said(visit, result, right=result.verdict is Verdict.SUCCESS and result.token is not None)


async def _by_password(visit: Visit) -> Proof:
    result = await visit.house.otp.check(
        visit.person.user,
        (visit.form.get("password", "")[:_LONGEST], ""),
        client=visit.client,
        stack=visit.house.portal.settings.stacks.login,
        context=visit.context,
    )
    return _said(visit, result, right=result.verdict is Verdict.SUCCESS)


async def ask_key(visit: Visit) -> Response:
    """Ask for a security key."""
    talk = await visit.house.otp.begin(
        visit.person.user,
        client=visit.client,
        stack=visit.house.portal.settings.stacks.proof,
        context=visit.context,
        webauthn=True,
    )
    if talk.verdict is not None or talk.prompts[0].style is not PromptStyle.WEBAUTHN:
        talk.cancel()
        return visit.to("/prove")
    session = visit.person
    if session.asked is not None:
        session.asked.talk.cancel()
    session.asked = Asked(talk, session.user, talk.prompts[0].text, time.monotonic() + KEY_SECONDS)
    return visit.page("prove_key.html", options=session.asked.options)


async def answer_key(visit: Visit) -> Response:
    """Judge the answer of a security key."""
    asked, visit.person.asked = visit.person.asked, None
    own = await people.standing(visit, visit.person.user)
    if asked is None:
        return _form(visit, own, visit.texts("login.key_too_late"))
    async with asked.talk as talk:
        await talk.answer(visit.form.get("credential", ""))
        passed = talk.verdict is Verdict.SUCCESS
        right = passed and asked.until > time.monotonic()
        if passed:
            visit.pass_on(talk.result.notices)
    return _proven(visit, second=True) if right else _form(visit, own, visit.texts("prove.refused"))


def _said(visit: Visit, result: Verification, *, right: bool) -> Proof:
    if result.verdict is Verdict.SUCCESS:
        visit.pass_on(result.notices)
    if right:
        return Proof(right=True)
    if result.verdict is Verdict.MAXTRIES:
        return Proof(right=False, problem=visit.texts("login.wait", seconds=result.retry_after))
    if result.verdict in {Verdict.PERM_DENIED, Verdict.AUTHINFO_UNAVAIL}:
        return Proof(right=False, problem=visit.texts("error.unavailable"))
    return Proof(right=False, problem=visit.texts("prove.refused"))


def _proven(visit: Visit, *, second: bool) -> Response:
    session = visit.person
    session.proven = time.monotonic()
    if second:
        session.by_token = True
        session.again = session.proven
    (path, name), session.wanted = session.wanted, ("/details", "")
    return visit.to(path, **({"name": name} if name else {}))


def _form(visit: Visit, own: Standing, problem: str | None = None) -> Response:
    return visit.page("prove.html", 403 if problem else 200, own=own, problem=problem)
