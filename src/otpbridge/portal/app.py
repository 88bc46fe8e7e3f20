"""The portal as an ASGI application: which page answers where, and what all of them have in common."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from otpbridge.client import AsyncClient, ProtocolError
from otpbridge.portal import (
    activity,
    administration,
    enrolment,
    faults,
    follow,
    helpdesk,
    keys,
    login,
    proof,
    recovery,
    texts,
    welcome,
)
from otpbridge.portal.guard import Guard
from otpbridge.portal.pages import STATIC, Pages
from otpbridge.portal.pictures import Pictures
from otpbridge.portal.sessions import COOKIE, Session, Sessions
from otpbridge.portal.settings import Brand, Portal
from otpbridge.portal.visit import LANGUAGE_COOKIE, LOGIN_COOKIE, House, RefusedError, Visit, read_form
from otpbridge.portal.waiting import Waiting

log = logging.getLogger(__name__)

Page = Callable[[Visit], Awaitable[Response]]

DAEMON_SECONDS = 60.0
"""How long the daemon may take: passwords are slow on purpose, and may queue."""


def make(portal: Portal) -> ASGIApp:
    """The application."""
    pictures = Pictures(portal.settings.qr_seconds, time.monotonic)

    def ended(session: Session) -> None:
        if session.setup is not None:
            pictures.drop(session.setup.picture)

    limits = portal.settings.sessions
    house = House(
        portal=portal,
        otp=AsyncClient(portal.settings.socket, timeout=DAEMON_SECONDS),
        sessions=Sessions(
            idle=limits.idle, absolute=limits.absolute, most=limits.most, clock=time.monotonic, ended=ended
        ),
        pictures=pictures,
        waiting=Waiting(time.monotonic),
        pages=Pages(),
        languages=texts.load(),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        following = asyncio.create_task(follow.follow(house))
        yield
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await house.otp.close()

    app = Starlette(
        routes=[
            *_open(house, "/", login.home),
            *_open(house, "/login", login.form, login.log_in),
            *_open(house, "/login/key", None, login.answer_key),
            *_open(house, "/welcome", welcome.form, welcome.come),
            *_closed(house, "/logout", None, login.log_out),
            *_closed(house, "/password", welcome.password, welcome.set_password, for_newcomers=True),
            *_closed(house, "/details", administration.details),
            *_closed(house, "/users", administration.users, helpdesk.add),
            *_closed(house, "/user", administration.user),
            *_closed(house, "/user/enforcement", None, administration.enforce),
            *_closed(house, "/user/activity", activity.window),
            *_closed(house, "/user/reset", helpdesk.sure, helpdesk.reset),
            *_closed(house, "/user/invite", None, helpdesk.invite),
            *_closed(house, "/user/token/remove", administration.sure, administration.remove),
            *_closed(house, "/user/security-key", None, keys.start),
            *_closed(house, "/user/security-key/finish", None, keys.finish),
            *_closed(house, "/user/security-token", enrolment.window, enrolment.generate),
            *_closed(house, "/user/security-token/confirm", None, enrolment.confirm),
            *_closed(house, "/user/security-token/close", None, enrolment.close),
            *_closed(house, "/user/recovery-codes", recovery.window, recovery.make),
            *_closed(house, "/prove", proof.form, proof.prove),
            *_closed(house, "/prove/key", proof.ask_key, proof.answer_key),
            Route("/qr/{name}.png", functools.partial(_picture, house), methods=["GET"]),
            Route("/static/{name}", functools.partial(_static, house), methods=["GET"]),
            Route("/brand.css", _colours, methods=["GET"]),
            Route("/logo", _logo, methods=["GET"]),
        ],
        exception_handlers={HTTPException: functools.partial(_absent, house)},
        lifespan=lifespan,
    )
    return Guard(app, portal)


def _open(house: House, path: str, get: Page | None, post: Page | None = None) -> list[Route]:
    """Pages for everybody."""
    return _routes(house, path, get, post)


def _closed(
    house: House, path: str, get: Page | None, post: Page | None = None, *, for_newcomers: bool = False
) -> list[Route]:
    """Pages for those who are logged in; forms must be from such a page."""

    def guarded(page: Page, *, acts: bool) -> Page:
        async def run(visit: Visit) -> Response:
            if visit.session is None:
                return visit.to("/login")
            if acts:
                visit.check_form()
            if visit.session.chooses_password and not for_newcomers and path != "/logout":
                return visit.to("/password")
            return await page(visit)

        return run

    return _routes(
        house,
        path,
        None if get is None else guarded(get, acts=False),
        None if post is None else guarded(post, acts=True),
    )


def _routes(house: House, path: str, get: Page | None, post: Page | None) -> list[Route]:
    routes = []
    for method, page in (("GET", get), ("POST", post)):
        if page is not None:
            routes.append(Route(path, functools.partial(_answer, house, page), methods=[method]))
    return routes


async def _answer(house: House, page: Page, request: Request) -> Response:
    """Run a page, and turn what can be expected to go wrong into one."""
    visit = _visit(house, request)
    try:
        visit.form = read_form(request.scope["state"]["body"]) if request.method == "POST" else {}
        chosen = request.query_params.get("lang", "")
        if request.method == "GET" and chosen in house.languages:
            visit.cookies.append((LANGUAGE_COOKIE, chosen))
            rest = {key: value for key, value in request.query_params.items() if key != "lang"}
            return visit.to(request.url.path, **rest)
        return await page(visit)
    except RefusedError as error:
        return visit.page("message.html", error.status, text=visit.texts(error.key))
    except ProtocolError as error:
        status, text = faults.told(visit.texts, error)
        if status >= 500:
            log.error("%s: %s", request.url.path, error)  # noqa: TRY400 - no traceback
        return visit.page("message.html", status, text=text)


def _visit(house: House, request: Request) -> Visit:
    brand: Brand = request.scope["state"]["brand"]
    spoken = texts.choose(
        house.languages, request.cookies.get(LANGUAGE_COOKIE, ""), request.headers.get("accept-language", "")
    )
    name = request.cookies.get(COOKIE) or ""
    login_name = request.cookies.get(LOGIN_COOKIE) or ""
    return Visit(house, request, brand, spoken, {}, name, login_name, house.sessions.find(name, brand.name))


async def _absent(house: House, request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    visit = _visit(house, request)
    key = "error.absent" if error.status_code == 404 else "error.form"
    return visit.page("message.html", error.status_code, text=visit.texts(key))


# --- files ---

_FOR_AN_HOUR = {"Cache-Control": "public, max-age=3600"}


async def _picture(house: House, request: Request) -> Response:
    """A QR code, for whoever has its address. A browser shows it on our pages alone; programs may fetch it."""
    brand: Brand = request.scope["state"]["brand"]
    png = house.pictures.find(brand.name, request.path_params["name"])
    if png is None:
        raise HTTPException(404)
    return Response(png, media_type="image/png")


async def _static(house: House, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404)
    return Response(house.pages.files[name], media_type=STATIC[name], headers=_FOR_AN_HOUR)


async def _colours(request: Request) -> Response:
    client = request.scope["state"]["brand"].client
    text = (
        f":root {{ --accent: {client.accent}; --on-accent: {_readable_on(client.accent)}; }}\n"
        "@media (prefers-color-scheme: dark) {\n"
        f"  :root {{ --accent: {client.accent_dark}; --on-accent: {_readable_on(client.accent_dark)}; }}\n}}\n"
    )
    return Response(text, media_type="text/css", headers=_FOR_AN_HOUR)


async def _logo(request: Request) -> Response:
    brand: Brand = request.scope["state"]["brand"]
    if brand.logo is None:
        raise HTTPException(404)
    return Response(brand.logo, media_type=brand.logo_type, headers=_FOR_AN_HOUR)


def _readable_on(colour: str) -> str:
    """Black or white, whichever has the higher contrast to a colour (WCAG 2.2, relative luminance)."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"
