"""What people try against portals (OWASP ASVS): forms from elsewhere, guessed names, borrowed sessions, markup."""

from __future__ import annotations

import concurrent.futures
import re
import socket
from urllib.parse import quote

import pyotp
import pytest
from portal_rig import PASSWORD, Plain, hidden

from otpbridge.model import Kind
from otpbridge.wire import messages

pytestmark = pytest.mark.system

SESSION = "__Host-otpbridge"
ODD = "<b onclick=\"x\">&amp;'quoted'</b>"


@pytest.fixture
def user(portal):
    """Makes a user of acme with an HTTP client that is logged in."""

    def make(name, client="acme", **how):
        portal.add(name, client=client)
        plain = Plain(portal, client)
        assert plain.log_in(name, **how) == 303
        return plain

    return make


@pytest.fixture
def boss(portal):
    plain = Plain(portal)
    assert plain.log_in("boss") == 303
    return plain


# --- forms from elsewhere ---


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": ""},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://globex.localhost"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "none"},
        {"content_type": "text/plain"},
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_type": "application/json"},
    ],
    ids=str,
)
def test_a_form_from_elsewhere_does_nothing(portal, user, headers):
    """Even with the right form token: the origin is another, or none, or it is no form of ours."""
    plain = user(f"csrf-{abs(hash(str(headers)))}")
    form = {"form": plain.token()}
    status, _, _ = plain.post("/logout", form, **headers)
    assert status in {403, 415}
    assert plain.get("/user")[0] == 200
    assert plain.post("/logout", form)[0] == 303


@pytest.mark.parametrize("token", ["", "x", "another's"])
def test_a_form_without_the_token_of_the_session_does_nothing(portal, user, token):
    """Every form of who is logged in; another session's token is none."""
    plain = user(f"token-{token}")
    given = user(f"token-{token}-other").token() if token == "another's" else token
    for path in (
        "/logout",
        "/password",
        "/prove",
        "/prove/key",
        "/user/enforcement",
        "/user/token/remove",
        "/user/security-token",
        "/user/security-token/confirm",
        "/user/security-token/close",
        "/user/security-key",
        "/user/security-key/finish",
        "/user/recovery-codes",
        "/user/reset",
        "/user/invite",
        "/users",
    ):
        assert plain.post(path, {"form": given})[0] == 403, path
    assert plain.get("/user")[0] == 200


def test_a_login_form_is_good_in_the_browser_that_was_given_it(portal):
    """Nobody is logged in as somebody else by a form that was prepared elsewhere."""
    portal.add("login-csrf")
    form = {"form": Plain(portal).token("/login"), "user": "login-csrf", "password": PASSWORD, "code": ""}
    victim = Plain(portal)
    assert victim.post("/login", form)[0] == 403
    victim.get("/login")
    assert victim.post("/login", form)[0] == 403
    assert SESSION not in victim.cookies


def test_reading_a_page_changes_nothing(portal, user):
    """What acts is a POST: GET and HEAD of those paths do nothing, and other methods are not used."""
    plain = user("methods")
    for path in ("/logout", "/user/invite", "/user/security-token/close", "/user/enforcement"):
        assert plain.get(path)[0] == 405
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        assert plain.ask(method, "/user")[0] == 405
    assert plain.get("/user")[0] == 200


# --- sessions ---


def test_the_name_of_a_session_is_new_at_each_login(portal, user):
    """One that was put into a browser before is worth nothing after, and neither is the old one."""
    portal.add("fixed")
    plain = Plain(portal)
    plain.cookies[SESSION] = "chosen-by-somebody-else"
    assert plain.log_in("fixed") == 303
    first = plain.cookies[SESSION]
    assert first != "chosen-by-somebody-else"
    other = Plain(portal)
    other.cookies[SESSION] = "chosen-by-somebody-else"
    assert other.get("/user")[0] == 303
    plain.cookies = {SESSION: first}
    plain.post("/logout", {"form": plain.token()})
    assert plain.log_in("fixed") == 303
    other.cookies[SESSION] = first
    assert other.get("/user")[0] == 303
    # Whoever logs in where somebody is logged in ends that session.
    second = plain.cookies[SESSION]
    again = Plain(portal)
    form = {"form": again.token("/login"), "user": "fixed", "password": PASSWORD, "code": ""}
    again.cookies[SESSION] = second
    assert again.post("/login", form)[0] == 303
    assert again.cookies[SESSION] != second
    assert plain.get("/user")[0] == 303


def test_the_cookie_is_for_this_host_and_no_script(portal):
    """__Host-, Secure, HttpOnly, SameSite=Strict, path /; it says nothing."""
    portal.add("cookie")
    plain = Plain(portal)
    form = {"form": plain.token("/login"), "user": "cookie", "password": PASSWORD, "code": ""}
    _, headers, _ = plain.post("/login", form)
    (cookie,) = [text for text in headers.get_all("set-cookie") if text.startswith(f"{SESSION}=")]
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert parts == {"httponly", "path=/", "samesite=strict", "secure"}
    assert re.fullmatch(rf"{SESSION}=[\w-]{{43}}", cookie.partition(";")[0])


def test_a_session_is_over_after_a_reset(portal, user, boss):
    """By an admin in the portal, in all browsers of the user; and the picture of a window is gone."""
    plain = user("reset")
    window = plain.post("/user/security-token", {"form": plain.token(), "name": "reset"})[2].decode()
    picture = re.search(r"/qr/[\w-]+\.png", window)[0]
    assert plain.get(picture)[0] == 200
    form = {"form": boss.token(), "name": "reset"}
    assert boss.post("/user/reset", form)[0] == 303
    portal.wait_for_log("acme/reset: reset, by boss")
    assert plain.get("/user")[0] == 303
    assert plain.get(picture)[0] == 404
    assert boss.get("/user")[0] == 200


@pytest.mark.parametrize("happening", ["reset", "locked", "removed"])
def test_a_session_is_over_after_an_admin_of_the_system_acted(portal, user, happening):
    """What is done with the command line is heard of: the user is logged out."""
    plain = user(f"outside-{happening}")
    call = {"reset": messages.ResetUser, "locked": messages.LockUser, "removed": messages.RemoveUser}[happening]
    before = len([line for line in portal.log if "logged out" in line])
    portal.admin.call(call(user=f"outside-{happening}", client="acme"))
    portal.wait_for_log("logged out", before + 1)
    assert plain.get("/user")[0] == 303


def test_a_confirmed_token_logs_out_the_other_browsers(portal, user):
    """They have not shown it."""
    one, other = user("twice"), Plain(portal)
    assert other.log_in("twice") == 303
    window = one.post("/user/security-token", {"form": one.token(), "name": "twice"})[2].decode()
    token, key = hidden(window, "token"), re.search(r'data-copy="([A-Z2-7]{32})"', window)[1]
    confirmation = {"form": hidden(window, "form"), "name": "twice", "token": token, "code": pyotp.TOTP(key).now()}
    assert one.post("/user/security-token/confirm", confirmation)[0] == 303
    assert one.get("/user")[0] == 200
    assert other.get("/user")[0] == 303


# --- who it was ---


def test_the_audit_log_names_who_acts_through_the_portal(portal, user, boss):
    """The daemon knows the portal's uid alone; the portal says who was logged in, for everything that they change."""
    plain = user("named")

    def change(who, path, **form):
        state, _, page = who.post(path, {"form": who.token(), "name": "named", **form})
        assert state in {200, 303}, page
        return page.decode()

    token = hidden(change(plain, "/user/security-token"), "token")
    change(boss, "/user/security-key", label="blue key")
    change(boss, "/user/security-token", label="phone")
    started = [entry for entry in portal.daemon.audit() if (entry.user, entry.event) == ("named", "token started")]
    assert [entry.reason for entry in started] == ["portal, by named", "portal, by boss", "portal, by boss"]
    assert started[0].token == token
    phone = portal.give("named")
    change(boss, "/user/enforcement", enforcement="required")
    change(boss, "/user/enforcement", enforcement="optional")
    change(boss, "/user/token/remove", token=phone.token)
    change(boss, "/users", new="named-too")
    acts = {"enforcement set": "named", "token revoked": "named", "user added": "named-too"}
    made = [
        (entry.event, entry.reason)
        for entry in portal.daemon.audit()
        if acts.get(entry.event) == entry.user and (entry.reason or "").startswith("portal")
    ]
    assert made == [
        (event, "portal, by boss") for event in ("enforcement set", "enforcement set", "token revoked", "user added")
    ]


# --- guessed names ---


def test_another_users_pages_and_forms_are_absent(portal, user):
    """Whatever a plain user sends the name of another with: 404, as for a name that nobody has; nothing changes."""
    plain = user("idor")
    portal.add("idor-victim")
    phone = portal.give("idor-victim")
    form = {"form": plain.token(), "name": "idor-victim"}
    for path in ("/user", "/user/security-token", "/user/activity", "/user/reset", "/user/token/remove"):
        assert plain.get(f"{path}?name=idor-victim")[0] == 404, path
    for path, more in (
        ("/user/enforcement", {"enforcement": "optional"}),
        ("/user/token/remove", {"token": phone.token}),
        ("/user/security-token", {}),
        ("/user/security-token/confirm", {"token": phone.token, "code": "123456"}),
        ("/user/security-token/close", {"token": phone.token}),
        ("/user/security-key", {}),
        ("/user/reset", {}),
        ("/user/invite", {}),
    ):
        assert plain.post(path, form | more)[0] == 404, path
    assert plain.post("/users", form | {"new": "idor-made"})[0] == 404
    (token,) = [held for held in portal.admin.tokens("idor-victim", client="acme").tokens if held.kind is Kind.TOTP]
    assert (token.id, token.state) == (phone.token, "active")


def test_another_users_token_is_not_removed_by_its_id(portal, user, boss):
    """With one's own name, and the id of a token of another user or of another client."""
    plain = user("ids")
    own = portal.give("ids")
    portal.require("ids")
    plain = Plain(portal)
    assert plain.log_in("ids", own.code()) == 303
    for client in ("acme", "globex"):
        portal.add("ids-victim", client=client)
        phone = portal.give("ids-victim", client=client)
        for who, name in ((plain, "ids"), (boss, "boss"), (boss, "ids")):
            form = {"form": who.token(), "name": name, "token": phone.token}
            assert who.post("/user/token/remove", form)[0] == 404
            assert who.post("/user/security-token/confirm", form | {"code": phone.wrong()})[0] == 409
            who.post("/user/security-token/close", form)
        held = portal.admin.tokens("ids-victim", client=client).tokens
        assert [token.state for token in held if token.kind is Kind.TOTP] == ["active"]


def test_two_clients_with_the_same_user_name_never_meet(portal):
    """Neither password, session, form, picture nor admin of one is anything at the other."""
    for client, password in (("acme", "password of acme"), ("globex", "password of globex")):
        portal.add("same", password, client)
    acme, globex = Plain(portal), Plain(portal, "globex")
    assert acme.log_in("same", password="password of globex") == 403
    assert acme.log_in("same", password="password of acme") == 303
    assert globex.log_in("same", password="password of globex") == 303
    form = acme.token()
    window = acme.post("/user/security-token", {"form": form, "name": "same"})[2].decode()
    picture = re.search(r"/qr/[\w-]+\.png", window)[0]
    stranger = Plain(portal, "globex")
    stranger.cookies = dict(acme.cookies)
    assert stranger.get("/user")[0] == 303
    assert globex.get(picture)[0] == 404
    assert globex.post("/logout", {"form": form})[0] == 403
    # The window of one is not disturbed by that of the other.
    assert globex.post("/user/security-token", {"form": globex.token(), "name": "same"})[0] == 200
    assert acme.get(picture)[0] == 200
    assert [t.kind for t in portal.admin.tokens("same", client="acme").tokens] == ["password", "totp"]


# --- where replies lead, and what is in them ---


@pytest.mark.parametrize(
    "path",
    [
        "//evil.example?lang=de",
        "/\\evil.example?lang=de",
        "/login?next=//evil.example",
        "/%2f%2fevil.example?lang=de",
        "/?lang=de&next=https://evil.example",
        "/login%0d%0aLocation:%20https://evil.example?lang=de",
    ],
)
def test_no_address_leads_elsewhere(portal, path):
    """Redirects lead to our own pages, whatever is asked for."""
    _, headers, _ = Plain(portal).get(path)
    location = headers.get("location", "/")
    assert location.startswith("/")
    assert not re.match(r"/[/\\]|/%2f", location, re.IGNORECASE)
    assert "evil" not in location.partition("?")[0]


def test_names_cannot_become_headers_or_markup(portal, boss):
    """Line ends in a name, HTML in names and labels: they stay text, in pages, redirects and cookies."""
    portal.admin.call(messages.AddUser(user=ODD, client="acme"))
    for path in ("/users", f"/user?name={quote(ODD)}", f"/user/security-token?name={quote(ODD)}"):
        status, _, body = boss.get(path)
        assert status == 200
        assert b"<b onclick" not in body
        assert b"&lt;b onclick" in body
    for name in ("x\r\nSet-Cookie: a=b", "x\nLocation: https://evil.example", "x\0y"):
        status, headers, _ = boss.post("/user/invite", {"form": boss.token(), "name": name})
        assert status == 404
        assert "a=b" not in str(headers)
        assert boss.post("/users", {"form": boss.token(), "new": name})[0] == 400
    label = {"form": boss.token(), "name": "boss", "label": "x\r\nSet-Cookie: a=b"}
    status, headers, body = boss.post("/user/security-token", label)
    assert status == 400
    assert "a=b" not in str(headers)
    label["label"] = ODD
    assert b"<b onclick" not in boss.post("/user/security-token", label)[2]
    login = Plain(portal)
    form = {"form": login.token("/login"), "user": ODD, "password": "x", "code": ""}
    assert b"<b onclick" not in login.post("/login", form)[2]


@pytest.mark.parametrize(
    "path", ["/login", "/details", "/user", "/user/security-token", "/nothing", "/static/portal.js"]
)
def test_every_reply_has_its_guards(portal, user, path):
    """No script or style in pages, no frames, no sniffing, no store of what is a person's."""
    plain = user(f"headers{path}")
    _, headers, body = plain.get(path)
    policy = headers["content-security-policy"]
    for rule in ("default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "server" not in headers
    if path.startswith("/static"):
        assert headers["cache-control"] == "public, max-age=3600"
    else:
        assert headers["cache-control"] == "no-store"
        assert not re.search(rb"<script>|<style|\sstyle=|\son\w+=|javascript:", body)


# --- sizes ---


def test_what_is_too_large_is_refused(portal, user):
    """A form above 64 KiB, too many fields, one twice, headers above 16 KiB; and the portal goes on."""
    plain = user("large")
    form = {"form": plain.token()}
    assert plain.post("/logout", form | {"x": "x" * 70_000})[0] == 413
    assert plain.post("/logout", form | {f"f{n}": "x" for n in range(40)})[0] == 400
    assert plain.ask("POST", "/logout", [("form", form["form"]), ("form", "x")])[0] == 400
    assert plain.get("/user", x_long="x" * 20_000)[0] == 431
    assert plain.get("/user?name=" + "x" * 300)[0] == 404
    assert Plain(portal).log_in("x" * 300) == 403
    assert Plain(portal).log_in("large", "1" * 300) == 403
    assert plain.get("/login")[0] == 303


@pytest.mark.parametrize(
    "host", ["evil.example", "", "acme.localhost.evil.example", "acme.localhost@evil", "127.0.0.1"]
)
def test_a_host_that_is_nobodys_is_misdirected(portal, host):
    """421 and nothing more, so no name that somebody points at us becomes a portal."""
    with socket.create_connection(("127.0.0.1", portal.port), timeout=20) as plain:
        plain.sendall(f"GET /login HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = plain.makefile("rb").read()
    assert answer.split(b" ", 2)[1] in {b"421", b"400"}
    assert b"Acme" not in answer


# --- where attempts come from ---


def test_back_off_counts_the_browser_not_the_proxy(portal):
    """The address that a trusted proxy adds is what the audit log has; what a browser writes before it is not."""
    portal.add("proxied")
    plain = Plain(portal)
    assert plain.log_in("proxied", x_forwarded_for="198.51.100.1, 203.0.113.7") == 303
    row = [entry for entry in portal.daemon.audit() if entry.user == "proxied" and entry.event == "verify"][-1]
    assert (row.rhost, row.service) == ("203.0.113.7", "portal")
    assert Plain(portal).log_in("proxied", x_forwarded_for="nonsense") == 303


def test_guessing_meets_the_limit_of_the_daemon(portal):
    """After some wrong codes: too many attempts, and how long to wait; the right password does not help meanwhile."""
    portal.add("guessed")
    phone = portal.give("guessed")
    seen = [Plain(portal).log_in("guessed", phone.wrong()) for _ in range(8)]
    assert seen[:5] == [403] * 5
    assert 429 in seen
    waiting = Plain(portal)
    form = {"form": waiting.token("/login"), "user": "guessed", "password": PASSWORD, "code": phone.code()}
    status, _, body = waiting.post("/login", form)
    assert status == 429
    assert re.search(rb"Too many attempts. Wait \d+ s", body)


# --- many at once ---


def test_two_hundred_logins_at_once(portal):
    """None is wrong and none is lost: the right ones come in, each as who they are, and the wrong ones do not."""
    count = 200
    names = [f"crowd-{number}" for number in range(count)]

    def add(name):
        with portal.daemon.admin() as admin:
            admin.set_password(name, PASSWORD, client="acme")

    def log_in(number):
        plain = Plain(portal)
        right = number % 4 != 0
        status = plain.log_in(names[number], password=PASSWORD if right else "wrong")
        page = plain.get("/user")[2].decode() if status == 303 else ""
        return right, status, f"User {names[number]}" in page

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(add, names))
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        seen = list(pool.map(log_in, range(count)))
    assert seen == [(True, 303, True) if number % 4 else (False, 403, False) for number in range(count)]


def test_one_code_at_once_from_many_browsers_lets_one_in(portal):
    """Once, however many send it in the same moment."""
    portal.add("race")
    phone = portal.give("race")
    portal.require("race")
    code = phone.code()
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        seen = list(pool.map(lambda _: Plain(portal).log_in("race", code), range(5)))
    assert sorted(seen) == [303, 403, 403, 403, 403]
