"""What every request meets before a page does, and every reply after: hosts, sizes, origins, headers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from otpbridge.portal.settings import Brand, Portal
from otpbridge.portal.source import browser_address, is_loopback, is_trusted

LARGEST_BODY = 64 * 1024
"""Bytes of a form."""
LARGEST_HEAD = 16 * 1024
"""Bytes of headers and query."""
_BODY_SECONDS = 15.0
_FORM = "application/x-www-form-urlencoded"
_HOST = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:]+\])(:[0-9]{1,5})?")

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer, browsers would say `Origin: null` for our own forms (Fetch §3.2).
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Guard:
    """Wraps the pages. What it lets through is for a known host, of bounded size, and from our own pages if it acts.

    Pages find in `scope["state"]`: `brand`, `address` (of the browser), `origin` (of this page) and `body`.
    """

    def __init__(self, app: ASGIApp, portal: Portal) -> None:
        self._app = app
        self._portal = portal
        self._policies = {name: _content_policy(brand) for name, brand in portal.brands.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if sum(len(name) + len(value) for name, value in headers.raw) + len(scope["query_string"]) > LARGEST_HEAD:
            await _say(431, "The headers are too large.\n", scope, receive, send)
            return
        host = _host_of(headers)
        brand = self._portal.brands.get(host)
        if brand is None:
            await _say(421, "There is no portal of this name here.\n", scope, receive, send)
            return
        peer: str | None = scope["client"][0] if scope.get("client") and not self._portal.listen.path else None
        proxied = peer is None or is_trusted(peer, self._portal.proxies)
        secure = not is_loopback(host) or (proxied and headers.get("x-forwarded-proto") == "https")
        scheme = "https" if secure else "http"
        origin = f"{scheme}://{headers['host'].lower()}"
        refusal = _refusal(scope["method"], headers, origin)
        if refusal is not None:
            await _say(*refusal, scope, receive, send)
            return
        body = await _body(headers, receive) if scope["method"] == "POST" else b""
        if body is None:
            await _say(413, "The form is too large, or took too long.\n", scope, receive, send)
            return
        forwarded = ",".join(headers.getlist("x-forwarded-for"))
        state = scope.setdefault("state", {})
        state.update(
            brand=brand,
            address=browser_address(peer, forwarded, self._portal.proxies),
            origin=origin,
            body=body,
        )
        added = {**_HEADERS, "Content-Security-Policy": self._policies[host]}
        if secure:
            added["Strict-Transport-Security"] = "max-age=31536000"
        await self._app(scope, receive, _with(added, send))


def _host_of(headers: Headers) -> str:
    given = headers.getlist("host")
    found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
    return found[1].lower() if found else ""


def _refusal(method: str, headers: Headers, origin: str) -> tuple[int, str] | None:
    """Why a request is not heard: state and words."""
    if method not in {"GET", "HEAD", "POST"}:
        return 405, "This method is not used here.\n"
    if method != "POST":
        return None
    # Every browser says where a form is from; one that is not from our own pages does nothing.
    if headers.getlist("origin") != [origin] or headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return 403, "This form was not sent from our own pages.\n"
    if headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        return 415, "This is no form.\n"
    return None


async def _body(headers: Headers, receive: Receive) -> bytes | None:
    """The body of a form; None where it is too large, too slow or broken off."""
    announced = headers.get("content-length", "0")
    if not announced.isdecimal() or int(announced) > LARGEST_BODY:
        return None
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return None
                body += message.get("body", b"")
                if len(body) > LARGEST_BODY:
                    return None
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        return None


async def _say(status: int, text: str, scope: Scope, receive: Receive, send: Send) -> None:
    headers = {**_HEADERS, "Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'"}
    await PlainTextResponse(text, status, headers)(scope, receive, send)


def _with(added: Mapping[str, str], send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=cast("dict[str, object]", message))
            for name, value in added.items():
                headers[name] = value
            # Whoever does not say otherwise shows something of a person.
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sending


def _content_policy(brand: Brand) -> str:
    """Nothing is loaded from elsewhere, nothing stands in a page that could run, and nobody frames it (CSP 3)."""
    link = brand.client.login_link
    # A form that leads on by a redirect is held to this too: that of LOGOUT.
    leads = f" https://{link.split('/')[2]}" if link else ""
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        f" form-action 'self'{leads}; frame-ancestors 'none'; base-uri 'none'"
    )
