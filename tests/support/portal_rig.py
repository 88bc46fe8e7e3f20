"""The reference portal beside a real daemon, each a process of its own.

with Portal(folder) as portal:
    portal.add("acme", "alice", "password of alice")
    portal.url("acme")
"""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyotp
import zxingcpp
from daemon_rig import SECONDS, Daemon, plain_environment
from PIL import Image

from otpbridge.wire import messages

PASSWORD = "correct horse"

DAEMON = """
[limits]
verifier = 120
[throttle]
limit = 6
source_limit = 10000

[clients.acme]
issuer = "Acme Ltd"
[clients.acme.webauthn]
rp_id = "acme.localhost"
origins = ["http://acme.localhost:{port}"]

[clients.globex]
issuer = "Globex"

[stacks.portal]
rules = ["required password", "sufficient fido2", "sufficient totp", "sufficient hotp", "sufficient yubiotp",
         "required recovery"]

[stacks.portal-proof]
enforcement = "required"
grace = 0
trusted_networks = []
rules = ["sufficient fido2", "sufficient totp", "sufficient hotp", "sufficient yubiotp", "required recovery"]
"""

PORTAL = """
listen = "127.0.0.1:{port}"
socket = "{socket}"
trusted_proxies = ["127.0.0.0/8"]
{more}

[clients.acme]
hosts = ["acme.localhost"]
title = "Acme Cloud"
logo = "acme.svg"
accent = "#0b6e4f"
accent_dark = "#5fd0a8"
admins = ["boss"]
security_keys = true
support = "support@acme.example"

[clients.local]
hosts = ["linux.localhost"]
title = "Linux accounts"

[clients.globex]
hosts = ["globex.localhost"]
title = "Globex Hosting"
admins = ["boss"]
login_link = "https://login.globex.example/start"
"""

LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7"'
    ' fill="#0b6e4f"/><path d="M9 23 16 8l7 15h-4l-3-7-3 7z" fill="#fff"/></svg>'
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


class Portal:
    """A daemon and a portal on `folder`, until the block ends, which both must do in order."""

    def __init__(self, folder: Path, *, more: str = "", config: str = DAEMON, prefix: Sequence[str] = ()) -> None:
        self._prefix = prefix
        self.folder = folder
        self.port = free_port()
        self.config_file = folder / "portal.toml"
        self.daemon = Daemon(folder, config=config.replace("{port}", str(self.port)))
        (folder / "acme.svg").write_text(LOGO)
        self.config_file.write_text(PORTAL.format(port=self.port, socket=folder / "run/verify", more=more))
        self._stack = contextlib.ExitStack()
        self.log: list[str] = []
        self._news = threading.Condition()

    def __enter__(self) -> Portal:
        self._stack.enter_context(self.daemon)
        self.admin = self._stack.enter_context(self.daemon.admin())
        for client in ("acme", "globex"):
            self.add("boss", client=client)
        try:
            self.process = subprocess.Popen(
                [
                    *self._prefix,
                    sys.executable,
                    "-P",
                    "-m",
                    "otpbridge.portal",
                    "--config",
                    os.fspath(self.config_file),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=plain_environment(),
            )
            for line in self.process.stderr:
                self.log.append(line)
                if "is ready" in line:
                    break
            else:
                raise AssertionError(f"it did not start: {self.log}")
            self._reader = threading.Thread(target=self._read)
            self._reader.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._news:
                self.log.append(line)
                self._news.notify_all()
        self.process.stderr.close()

    def wait_for_log(self, text: str, count: int = 1) -> None:
        """Return once the portal has said this, so many times."""
        with self._news:
            there = self._news.wait_for(lambda: "".join(self.log).count(text) >= count, SECONDS)
        assert there, self.log

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        status = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        self._stack.close()
        if error[0] is None:
            assert status in {0, -15}, self.log
            assert not any("Traceback" in line for line in self.log), "".join(self.log)

    def url(self, client: str = "acme", path: str = "/") -> str:
        """The address of a page of a client's portal."""
        return f"http://{client}.localhost:{self.port}{path}"

    def add(self, user: str, password: str | None = PASSWORD, client: str = "acme") -> str:
        """A user with a password; their name."""
        self.admin.call(messages.AddUser(user=user, client=client))
        if password is not None:
            self.admin.set_password(user, password, client=client)
        return user

    def give(self, user: str, client: str = "acme", **form: object) -> Phone:
        """An active authenticator, of which one code is spent; what shows its codes."""
        started = self.admin.enrol(user, client=client, **form)
        phone = Phone(started.uri)
        assert self.admin.confirm(started.token, phone.code()).confirmed
        phone.token = started.token
        return phone

    def wait_for(self, event: str, user: str) -> None:
        """Return once this stands in the audit log."""
        with contextlib.closing(
            self.admin.stream(messages.AuditTail(count=200, follow=True), timeout=SECONDS)
        ) as log:
            next(entry for reply in log for entry in reply.entries if (entry.event, entry.user) == (event, user))

    def require(self, user: str, client: str = "acme", *, force: bool = False) -> None:
        self.admin.call(messages.SetEnforcement(user=user, client=client, enforcement="required", force=force))


class Phone:
    """An authenticator app. Shows each code once, like a person who waits for the next; without waiting."""

    def __init__(self, uri: str) -> None:
        self.totp = pyotp.parse_uri(uri)
        self._last: int | None = None
        self.token = ""

    def code(self) -> str:
        """A code that counts now and was not shown before: one time step behind, the present, one ahead.

        A fourth within a time step waits for the next, as people do.
        """
        now = int(time.time()) // 30
        step = now - 1 if self._last is None else max(self._last + 1, now - 1)
        if step == now - 1 and time.time() % 30 > 20:
            step = now  # the one before may be too old by the time it is judged
        while step > int(time.time()) // 30 + 1:
            threading.Event().wait(0.05)
        self._last = step
        return self.totp.at(step * 30)

    def wrong(self) -> str:
        """A code that is right at no time near."""
        near = {self.totp.at((int(time.time()) // 30 + off) * 30) for off in range(-30, 31)}
        return next(text for text in (f"{number:06d}" for number in range(1000)) if text not in near)


class Person:
    """Somebody at a browser, who does what the how-to says."""

    def __init__(self, portal: Portal, page: Any, user: str, client: str = "acme") -> None:
        self.portal = portal
        self.page = page
        self.user = user
        self.host = client

    def go(self, path: str) -> Any:
        """Open a page; the response."""
        return self.page.goto(self.portal.url(self.host, path))

    def log_in(self, code: str = "", password: str = PASSWORD) -> bool:
        """Fill in the login form; whether that let in."""
        self.go("/login")
        self.page.fill("#user", self.user)
        self.page.fill("#password", password)
        self.page.fill("#code", code)
        self.page.click("main button")
        return self.page.locator("summary", has_text="Power").count() == 1

    def menu(self, name: str, choice: str) -> None:
        """Choose from a menu of the bar."""
        self.page.click(f"summary:has-text('{name}')")
        self.page.locator("details[open]").get_by_text(choice, exact=True).click()

    def log_out(self) -> None:
        """POWER, LOGOUT."""
        self.menu("Power", "Logout")

    def window(self) -> None:
        """The way of the how-to to the set-up window."""
        self.menu("Administration", "My details")
        self.page.get_by_role("link", name="Users", exact=True).last.click()
        self.page.locator("td").get_by_role("link", name=self.user, exact=True).click()
        self.page.get_by_role("link", name="SECURITY TOKEN", exact=True).click()

    def generate(self) -> Shown:
        """Generate; what is shown."""
        self.page.get_by_role("button", name="Generate").click()
        return Shown(self.page)

    def confirm(self, code: str) -> None:
        """Type a code and confirm; returns when that was answered."""
        self.page.fill("#code", code)
        with self.page.expect_response("**/confirm"):
            self.page.get_by_role("button", name="Confirm").click()

    def set_up(self) -> Phone:
        """Generate and confirm; what shows the codes."""
        self.window()
        phone = self.generate().phone
        self.confirm(phone.code())
        self.page.wait_for_url("**/recovery-codes")
        return phone

    @property
    def problem(self) -> str:
        """What the page says that is wrong."""
        return self.page.locator("[role=alert]:visible").inner_text()


class Shown:
    """What the set-up window shows, read before it is gone."""

    def __init__(self, page: Any) -> None:
        self.base32 = "".join(page.locator("[data-key=base32]").inner_text().split())
        self.hex = "".join(page.locator("[data-key=hex]").inner_text().split())
        self.address = page.locator("input.address").input_value()
        page.evaluate("document.querySelector('.qr').decode()")
        box = page.locator(".qr").bounding_box()
        # The picture with what is around it, as a camera sees it.
        clip = {"x": box["x"] - 30, "y": box["y"] - 10, "width": box["width"] + 60, "height": box["height"] + 20}
        self.screenshot = page.screenshot(clip=clip, full_page=True)

    @property
    def phone(self) -> Phone:
        """An app into which the key was typed."""
        return Phone(f"otpauth://totp/typed?secret={self.base32}")


def decoded(picture: bytes | Image.Image) -> list[str]:
    """The texts of all codes that are to be seen on a picture."""
    image = Image.open(io.BytesIO(picture)) if isinstance(picture, bytes) else picture
    return [code.text for code in zxingcpp.read_barcodes(image)]


class Plain:
    """An HTTP client that does no more than it is told, with the cookies it was given."""

    def __init__(self, portal: Portal, client: str = "acme") -> None:
        self.portal = portal
        self.host = f"{client}.localhost:{portal.port}"
        self.origin = f"http://{self.host}"
        self.cookies: dict[str, str] = {}

    def ask(
        self,
        method: str,
        path: str,
        form: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        **headers: str,
    ) -> tuple[int, Message, bytes]:
        """One request; state, headers and body of the reply. Header names are written with `_`; empty: left out."""
        sent = {"Host": self.host}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = None
        if form is not None:
            body = urlencode(form)
            sent |= {"Origin": self.origin, "Content-Type": "application/x-www-form-urlencoded"}
        sent |= {name.replace("_", "-").title(): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.portal.port, timeout=3 * SECONDS)
        with contextlib.closing(connection):
            given = {name: value for name, value in sent.items() if value}
            connection.request(method, path, body, given)
            reply = connection.getresponse()
            data = reply.read()
        for cookie in reply.headers.get_all("set-cookie") or ():
            name, _, rest = cookie.partition("=")
            value = rest.partition(";")[0].strip('"')
            if value:
                self.cookies[name] = value
            else:
                self.cookies.pop(name, None)
        return reply.status, reply.headers, data

    def get(self, path: str, **headers: str) -> tuple[int, Message, bytes]:
        return self.ask("GET", path, **headers)

    def post(self, path: str, form: Mapping[str, str], **headers: str) -> tuple[int, Message, bytes]:
        return self.ask("POST", path, form, **headers)

    def token(self, path: str = "/user") -> str:
        """The form token of a page."""
        return hidden(self.get(path)[2].decode(), "form")

    def log_in(self, user: str, code: str = "", password: str = PASSWORD, **headers: str) -> int:
        """Log in; the state of the reply, 303 where that let in."""
        form = {"form": self.token("/login"), "user": user, "password": password, "code": code}
        return self.post("/login", form, **headers)[0]


def hidden(html: str, name: str) -> str:
    """The value of a hidden field in a page."""
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found, html
    return found[1]
