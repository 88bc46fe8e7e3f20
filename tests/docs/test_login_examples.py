"""The login pages for portals, as they are printed, in a browser's place against a real daemon."""

from __future__ import annotations

import html
import http.client
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from daemon_rig import SECONDS, Daemon, plain_environment, private_folder, provision

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
pytestmark = pytest.mark.system

CONFIG = """
[throttle]
limit = 20
source_limit = 1000
first_wait = 60
[stacks.portal]
rules = ["requisite password", "sufficient totp", "required recovery"]
"""
WORD = "correct horse"
HTML = "<b onclick='x'>\"eve\" & co</b>"
USERS = ("alice", "bob", "carol", "dora", "erin", "frank", "gina", HTML)
COOKIE = re.compile(r"__Host-session=([^;]*)(.*)")


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer, with the session that it begins or ends."""

    status: int
    headers: Any
    text: str

    @property
    def alert(self) -> str:
        found = re.search(r'<p role="alert">([^<]*)</p>', self.text)
        return "" if found is None else found[1]

    @property
    def session(self) -> str:
        (set_cookie,) = self.headers.get_all("Set-Cookie")
        found = COOKIE.fullmatch(set_cookie)
        assert found is not None, set_cookie
        flags = {flag.strip().lower() for flag in found[2].split(";") if flag}
        assert {"secure", "httponly", "samesite=strict", "path=/"} <= flags
        assert not any(flag.startswith("domain") for flag in flags)
        return found[1]


class Page:
    """A login page that runs."""

    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, session: str | None = None) -> Shown:
        return self._ask("GET", None, session, {})

    def post(self, fields: Any, session: str | None = None, **headers: str) -> Shown:
        sent = {"Content-Type": "application/x-www-form-urlencoded"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self._ask("POST", fields if isinstance(fields, bytes) else urlencode(fields), session, sent)

    def log_in(self, user: str, code: str, password: str = WORD, session: str | None = None, **headers: str) -> Shown:
        return self.post({"user": user, "password": password, "code": code}, session, **headers)

    def _ask(self, method: str, body: Any, session: str | None, headers: dict[str, str]) -> Shown:
        if session is not None:
            headers["Cookie"] = f"__Host-session={session}"
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SECONDS)
        connection.request(method, "/", body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        # Nothing may be kept by a browser or a proxy, and nothing but a form to this page may be in it.
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; form-action 'self'; ")
        return Shown(answer.status, answer.headers, text)


class Program:
    """A server, until it says where it serves; what it says is read on, so that it never waits for that."""

    def __init__(self, command: list[str], folder: Path, said: str) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=plain_environment(),
        )
        assert self._process.stdout is not None
        lines = []
        for line in self._process.stdout:
            lines.append(line)
            if found := re.search(said, line):
                self.port = int(found[1])
                break
        else:
            self._process.wait(SECONDS)
            self._process.stdout.close()
            raise AssertionError("".join(lines))
        self._reader = threading.Thread(target=self._process.stdout.read)
        self._reader.start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        self._process.stdout.close()


def php(folder: Path) -> Program:
    sessions = folder / "sessions"
    sessions.mkdir()
    own = ["-d", f"session.save_path={sessions}", "-d", "display_errors=0"]
    return Program(["php", *own, "-S", "127.0.0.1:0", "index.php"], folder, r"\(http://127\.0\.0\.1:(\d+)\) started")


def node(folder: Path) -> Program:
    return Program(["node", "server.mjs", "0"], folder, r"http://127\.0\.0\.1:(\d+)/")


def go(folder: Path) -> Program:
    subprocess.run(["go", "build", "-o", "page", "main.go"], cwd=folder, check=True, env=plain_environment())
    return Program(["./page", "0"], folder, r"http://127\.0\.0\.1:(\d+)/")


@dataclass(slots=True)
class House:
    """A daemon with users, and a page before it."""

    daemon: Daemon
    page: Page
    keys: dict[str, Any]


@pytest.fixture(scope="module", params=[php, node, go], ids=lambda start: start.__name__)
def house(request, tmp_path_factory):
    start = request.param
    if shutil.which(start.__name__) is None:
        pytest.skip(f"{start.__name__} is not installed")
    folder = tmp_path_factory.mktemp(start.__name__)
    with private_folder() as state, Daemon(state, config=CONFIG) as daemon:
        keys = provision(daemon, USERS, client="acme")
        with daemon.client() as otp:
            for user in USERS:
                otp.set_password(user, WORD, client="acme")
        for path in (EXAMPLES / f"login-{start.__name__}").iterdir():
            text = path.read_text()
            (folder / path.name).write_text(text.replace("/run/otpbridge/", f"{daemon.run_dir}/"))
        program = start(folder)
        try:
            yield House(daemon, Page(program.port), keys)
        finally:
            program.stop()


def test_password_and_code_let_in_once(house):
    """A session for who is right, and its end; a used or wrong code, or a wrong password, is refused."""
    page, key = house.page, house.keys["alice"]
    code = key.code()
    first = page.get()
    assert (first.status, first.alert) == (200, "")
    assert 'name="password" type="password"' in first.text
    for refused in (page.log_in("alice", key.wrong()[0]), page.log_in("alice", code, "a wrong word")):
        assert (refused.status, refused.alert) == (401, "That did not work. Wait for the next code.")
    let_in = page.log_in("alice", code)
    assert (let_in.status, let_in.headers["Location"]) == (303, "/")
    assert "<h1>Welcome, alice</h1>" in page.get(let_in.session).text
    assert page.log_in("alice", code).status == 401, "that code is spent"
    ended = page.post({"logout": "1"}, let_in.session)
    assert ended.status == 303
    assert "Welcome" not in page.get(let_in.session).text
    rows = [entry for entry in house.daemon.audit() if (entry.event, entry.user) == ("verify", "alice")]
    assert {entry.rhost for entry in rows} == {"127.0.0.1"}


def test_names_are_text(house):
    """HTML in a name is shown as it was typed, in the form and in the greeting, and runs nowhere."""
    key = house.keys[HTML]
    for user in (HTML, '"><script>alert(1)</script>', "\xff\xfe <i>"):
        refused = house.page.log_in(user, "000000")
        assert refused.status == 401
        for piece in ("<script", "<b ", "<i>", '""'):
            assert piece not in refused.text
    let_in = house.page.log_in(HTML, key.code())
    assert let_in.status == 303
    greeted = re.search(r"<h1>Welcome, ([^<>]*)</h1>", house.page.get(let_in.session).text)
    assert greeted is not None
    assert html.unescape(greeted[1]) == HTML


def test_notices_are_shown_once(house):
    """What the person has to know is on the first page after the login, and on no other."""
    with house.daemon.client() as otp:
        codes = otp.new_recovery_codes("bob", client="acme").codes
    let_in = house.page.log_in("bob", codes[0])
    assert let_in.status == 303
    assert "9 recovery codes are left" in house.page.get(let_in.session).text
    again = house.page.get(let_in.session).text
    assert "<h1>Welcome, bob</h1>" in again
    assert "recovery" not in again


def test_a_session_is_made_by_a_login_alone(house):
    """A name that was made up, or was there before the login, is nobody's session."""
    key = house.keys["carol"]
    planted = "a" * 43
    assert "Welcome" not in house.page.get(planted).text
    before = house.page.get()
    known = [before.session] if before.headers.get_all("Set-Cookie") else []
    for session in (planted, *known):
        refused = house.page.log_in("carol", key.wrong()[0], session=session)
        assert refused.status == 401
        assert "Welcome" not in house.page.get(session).text
    let_in = house.page.log_in("carol", key.code(), session=(known or [planted])[0])
    assert let_in.status == 303
    assert let_in.session not in {planted, *known, ""}
    for session in (planted, *known):
        assert "Welcome" not in house.page.get(session).text
    assert "<h1>Welcome, carol</h1>" in house.page.get(let_in.session).text


def test_another_site_cannot_log_in_or_out(house):
    """A form that another site sends is refused before the daemon is asked, so its code stays good."""
    code = house.keys["dora"].code()
    for site in ("cross-site", "same-site"):
        assert house.page.log_in("dora", code, Sec_Fetch_Site=site).status == 403
    let_in = house.page.log_in("dora", code, Sec_Fetch_Site="same-origin")
    assert let_in.status == 303
    assert house.page.post({"logout": "1"}, let_in.session, Sec_Fetch_Site="cross-site").status == 403
    assert "<h1>Welcome, dora</h1>" in house.page.get(let_in.session).text


def test_a_form_that_no_browser_sends_is_refused(house):
    """Missing, doubled, overlong or broken fields let nobody in and break nothing."""
    code = house.keys["erin"].code()
    for fields in (
        {},
        {"user": "erin"},
        {"user": "", "password": WORD, "code": code},
        {"user": "e" * 300, "password": WORD, "code": code},
        {"user[]": "erin", "password[]": WORD, "code[]": code},
        b"user=erin&password=%ff%00%zz&code=%00",
        b"user=erin&password=" + b"x" * 70_000,
    ):
        assert house.page.post(fields).status in {401, 413, 503}, fields
    assert house.page.get().status == 200
    assert house.page.log_in("erin", code).status == 303


def test_back_off_is_told(house):
    """After too many wrong codes the page says how long to wait, and even a right code has to."""
    key = house.keys["frank"]
    for code in key.wrong(20):
        assert house.page.log_in("frank", code).status == 401
    blocked = house.page.log_in("frank", key.code())
    assert blocked.status == 429
    assert re.fullmatch(r"Too many attempts\. Try again in \d+ s\.", blocked.alert)


def test_without_the_daemon_nobody_gets_in(house):
    """A daemon that is down is said to be, and is asked again when it is back."""
    key = house.keys["gina"]
    assert house.daemon.stop() == 0
    try:
        refused = house.page.log_in("gina", key.code())
    finally:
        house.daemon.start()
    assert (refused.status, refused.alert) == (503, "Logging in is not possible now. Try again later.")
    assert house.page.log_in("gina", key.code()).status == 303


@pytest.mark.parametrize("name", ["php", "node", "go"])
def test_a_page_is_short_and_says_how_to_run_it(name):
    """A README of a few lines, and no file beside the page itself."""
    folder = EXAMPLES / f"login-{name}"
    assert len((folder / "README.md").read_text().splitlines()) <= 7
    assert len(list(folder.iterdir())) == 2
