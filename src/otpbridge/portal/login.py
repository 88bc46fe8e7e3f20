"""Logging in and out: one form, one answer to all that is wrong with it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from starlette.responses import RedirectResponse, Response

from otpbridge.client import AsyncConversation, PromptStyle, RemoteError, Verdict, Verification
from otpbridge.portal import enrolment, faults, people
from otpbridge.portal.people import AUTHENTICATORS
from otpbridge.portal.sessions import Asked
from otpbridge.portal.visit import Visit
from otpbridge.portal.waiting import KEY_SECONDS

_LONGEST = 256


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What was typed into the form."""

    user: str
    password: str
    code: str

    @property
    def can_be(self) -> bool:
        """Whether there can be such an attempt at all."""
        return 0 < len(self.user.encode()) <= _LONGEST and max(len(self.password), len(self.code)) <= _LONGEST


async def home(visit: Visit) -> Response:
    """Where people start."""
    return visit.to("/login" if visit.session is None else "/details")


async def form(visit: Visit) -> Response:
    """The login page. The field for the code is there whether one is asked of the person or not."""
    if visit.session is not None:
        return visit.to("/details")
    return visit.page("login.html", form=visit.login_form(), user="", problem=None)


async def log_in(visit: Visit) -> Response:
    """Judge the form, all of it in one attempt."""
    visit.check_login_form()
    attempt = _Attempt(
        visit.form.get("user", "").strip(), visit.form.get("password", ""), visit.form.get("code", "").strip()
    )
    if not attempt.can_be:
        return _refused(visit, attempt.user[:_LONGEST], None)
    try:
        judged = await _judge(visit, attempt)
    except RemoteError as error:
        if faults.name_of(error) != "InvalidParameter":
            raise
        return _refused(visit, attempt.user, None)
    if isinstance(judged, AsyncConversation):
        return _ask_key(visit, attempt.user, judged)
    return await _judged(visit, attempt.user, judged)


async def answer_key(visit: Visit) -> Response:
    """The answer of a security key, or none, to the question that came with the right to ask it."""
    visit.check_login_form()
    asked = visit.house.waiting.take(visit.login_name)
    if asked is None:
        return visit.page(
            "login.html", 403, form=visit.login_form(), user="", problem=visit.texts("login.key_too_late")
        )
    async with asked.talk as talk:
        await talk.answer(visit.form.get("credential", ""))
        while talk.verdict is None:
            await talk.answer(*("" for _ in talk.prompts))
        return await _judged(visit, asked.user, talk.result)


async def _judge(visit: Visit, attempt: _Attempt) -> Verification | AsyncConversation:
    """The verdict, or the conversation that waits for a security key."""
    otp, stack = visit.house.otp, visit.house.portal.settings.stacks.login
    if attempt.code:
        typed = (attempt.password, attempt.code)
        return await otp.check(attempt.user, typed, client=visit.client, stack=stack, context=visit.context)
    talk = await otp.begin(attempt.user, client=visit.client, stack=stack, context=visit.context, webauthn=True)
    given = [attempt.password]
    try:
        while talk.verdict is None:
            if talk.prompts[0].style is PromptStyle.WEBAUTHN:
                return talk
            await talk.answer(*(given.pop() if given else "" for _ in talk.prompts))
    except BaseException:
        talk.cancel()
        raise
    return talk.result


def _ask_key(visit: Visit, user: str, talk: AsyncConversation) -> Response:
    asked = Asked(talk, user, talk.prompts[0].text, time.monotonic() + KEY_SECONDS)
    form = visit.login_form()
    visit.house.waiting.put(visit.login_name, asked)
    return visit.page("login_key.html", form=form, options=asked.options)


async def _judged(visit: Visit, user: str, result: Verification) -> Response:
    """Let in, or say that it did not work."""
    if result.verdict is Verdict.SUCCESS:
        return await _let_in(visit, user, result)
    if result.verdict in {Verdict.PERM_DENIED, Verdict.AUTHINFO_UNAVAIL}:
        text = visit.texts("error.unavailable")
        return visit.page("login.html", 503, form=visit.login_form(), user=user, problem=text)
    return _refused(visit, user, result.retry_after)


async def _let_in(visit: Visit, user: str, result: Verification) -> Response:
    held = await people.standing(visit, user)
    shown = held.token(result.token) if result.token is not None else None
    session = visit.log_in(user, by_token=result.token is not None)
    session.tested = shown is not None and shown.kind in AUTHENTICATORS
    visit.pass_on(result.notices)
    if held.required and not held.active:
        session.tell(visit.texts("login.set_up_now"))
        return visit.to("/user/security-token")
    return visit.to("/details")


def _refused(visit: Visit, user: str, wait: int | None) -> Response:
    """The same words for all that can be wrong."""
    text = visit.texts("login.refused") if wait is None else visit.texts("login.wait", seconds=wait)
    return visit.page("login.html", 403 if wait is None else 429, form=visit.login_form(), user=user, problem=text)


async def log_out(visit: Visit) -> Response:
    """The end of the session; on to the login page, or to where the client's own is."""
    setup = visit.person.setup
    visit.log_out()
    if setup is not None:
        await enrolment.discard(visit, setup.token)
    link = visit.brand.client.login_link
    if link is None:
        return visit.to("/login")
    return visit.done(RedirectResponse(link, 303))
