"""The reference portal beside a real daemon, each a process of its own.

with Portal(folder) as portal:
    portal.add("acme", "alice", "password of alice")
    portal.url("acme")
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pyotp
from daemon_rig import SECONDS, Daemon, plain_environment

from otpbridge.wire import messages

DAEMON = """
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

[clients.globex]
hosts = ["globex.localhost"]
title = "Globex Hosting"
admins = ["boss"]
"""

LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7"'
    ' fill="#0b6e4f"/><path d="M9 23 16 8l7 15h-4l-3-7-3 7z" fill="#fff"/></svg>'
)


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


class Portal:
    """A daemon and a portal on `folder`, until the block ends, which both must do in order."""

    def __init__(self, folder: Path, *, more: str = "", config: str = DAEMON) -> None:
        self.folder = folder
        self.port = free_port()
        self.config_file = folder / "portal.toml"
        self.daemon = Daemon(folder, config=config.replace("{port}", str(self.port)))
        (folder / "acme.svg").write_text(LOGO)
        self.config_file.write_text(PORTAL.format(port=self.port, socket=folder / "run/verify", more=more))
        self._stack = contextlib.ExitStack()
        self.log: list[str] = []

    def __enter__(self) -> Portal:
        self._stack.enter_context(self.daemon)
        self.admin = self._stack.enter_context(self.daemon.admin())
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "otpbridge.portal", "--config", os.fspath(self.config_file)],
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
            self._stack.__exit__(*sys.exc_info())
            raise
        return self

    def _read(self) -> None:
        for line in self.process.stderr:
            self.log.append(line)
        self.process.stderr.close()

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        status = self.process.wait(SECONDS)
        self._reader.join(SECONDS)
        self._stack.__exit__(*error)
        if error[0] is None:
            assert status in {0, -15}, self.log
            assert not any("Traceback" in line for line in self.log), "".join(self.log)

    def url(self, client: str = "acme", path: str = "/") -> str:
        return f"http://{client}.localhost:{self.port}{path}"

    def add(self, user: str, password: str | None = "correct horse", client: str = "acme") -> str:
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


def hidden(html: str, name: str) -> str:
    """The value of a hidden field in a page."""
    found = re.search(rf'name="{name}" value="([^"]*)"', html)
    assert found, html
    return found[1]
