"""What people do beside the how-to: security keys, recovery codes, first visits, the helpdesk, other languages."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import expect
from portal_rig import PASSWORD, Person, Phone, Plain

from otpbridge.model import Kind
from otpbridge.portal import texts
from otpbridge.wire import messages

pytestmark = pytest.mark.system


@pytest.fixture
def boss(portal, new_page):
    """The admin of acme, logged in."""
    boss = Person(portal, new_page(), "boss")
    assert boss.log_in()
    return boss


def kinds(portal, user):
    return [token.kind for token in portal.admin.tokens(user, client="acme").tokens if token.state == "active"]


def with_security_key(page):
    """Plug a security key into a browser (Chromium's virtual authenticator)."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {"protocol": "ctap2", "transport": "usb", "automaticPresenceSimulation": True}
    return session.send("WebAuthn.addVirtualAuthenticator", {"options": options})["authenticatorId"], session


# --- security keys ---


def test_a_security_key_is_registered_logs_in_and_proves(portal, person):
    """Registered in the set-up window; then the login asks for it where the field for the code is empty."""
    keyed = person("keyed")
    with_security_key(keyed.page)
    assert keyed.log_in()
    keyed.window()
    keyed.page.get_by_label("Name of the key").fill("blue key")
    keyed.page.get_by_role("button", name="Register a security key").click()
    keyed.page.get_by_role("button", name="Use the security key").click()
    keyed.page.wait_for_url("**/recovery-codes")
    expect(keyed.page.get_by_role("status")).to_contain_text("blue key is registered")
    keyed.log_out()
    assert not keyed.log_in()
    keyed.page.get_by_role("button", name="Use the security key").click()
    expect(keyed.page.locator("h1")).to_have_text("Clients and users")
    keyed.go("/user")
    keyed.page.get_by_label("REQUIRED", exact=True).check()
    keyed.page.get_by_role("button", name="Save").click()
    # NOT REQUIRED again wants it shown anew; there is no code to type.
    keyed.page.get_by_label("NOT REQUIRED").check()
    keyed.page.get_by_role("button", name="Save").click()
    assert "did not work" in keyed.problem
    keyed.page.get_by_role("link", name="Use a security key instead").click()
    keyed.page.get_by_role("link", name="Use a security key").click()
    keyed.page.get_by_role("button", name="Use the security key").click()
    keyed.page.wait_for_url("**/user")
    keyed.page.get_by_label("NOT REQUIRED").check()
    keyed.page.get_by_role("button", name="Save").click()
    expect(keyed.page.get_by_role("status")).to_have_text("Saved.")
    keyed.log_out()
    # Who need not show it may go on without.
    assert not keyed.log_in()
    keyed.page.get_by_role("button", name="Go on without").click()
    expect(keyed.page.locator("h1")).to_have_text("Clients and users")


def test_another_ones_security_key_does_not_let_in(portal, person):
    """A required user at a browser without the key: going on without it refuses."""
    keyed = person("keyed-other")
    authenticator, session = with_security_key(keyed.page)
    assert keyed.log_in()
    keyed.window()
    keyed.page.get_by_role("button", name="Register a security key").click()
    keyed.page.get_by_role("button", name="Use the security key").click()
    keyed.page.wait_for_url("**/recovery-codes")
    portal.require("keyed-other")
    keyed.log_out()
    session.send("WebAuthn.clearCredentials", {"authenticatorId": authenticator})
    assert not keyed.log_in()
    keyed.page.get_by_role("button", name="Use the security key").click()
    assert "did not answer" in keyed.problem
    keyed.page.get_by_role("button", name="Go on without").click()
    assert "newest code" in keyed.problem


def test_an_answer_of_a_key_that_was_not_asked_is_nothing(portal):
    """Nobody comes in by the second step alone, nor by taking it twice."""
    plain = Plain(portal)
    form = {"form": plain.token("/login"), "credential": "{}"}
    assert plain.post("/login/key", form)[0] == 403
    assert plain.get("/user")[0] == 303


# --- recovery codes, several authenticators, proof ---


def test_recovery_codes_are_shown_once_and_can_be_kept(portal, person, tmp_path):
    """On the page, as a file, and never again; new ones replace them."""
    kept = person("kept")
    assert kept.log_in()
    kept.set_up()
    kept.page.get_by_role("button", name="Make recovery codes").click()
    codes = kept.page.locator(".codes code").all_inner_texts()
    assert len(set(codes)) == 10
    with kept.page.expect_download() as download:
        kept.page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "recovery-codes.txt"
    assert [line for line in download.value.path().read_text().splitlines() if line in codes] == codes
    expect(kept.page.get_by_role("button", name="Print")).to_be_visible()
    assert not any(code in kept.go(path).text() for path in ("/user/recovery-codes", "/user") for code in codes)
    kept.go("/user/recovery-codes")
    kept.page.get_by_role("button", name="Make new ones").click()
    kept.page.get_by_role("link", name="I have kept them").click()
    kept.log_out()
    assert not kept.log_in(codes[0])


def test_several_authenticators_have_names_and_are_removed_one_by_one(portal, person):
    """Each with when it was last used; the last one of who must have one stays."""
    several = person("several")
    phone = portal.give("several")
    assert several.log_in(phone.code())
    several.go("/user/security-token")
    several.page.get_by_label("Name of the authenticator").fill("several (tablet)")
    tablet = several.generate().phone
    several.confirm(tablet.code())
    several.page.wait_for_url("**/recovery-codes")
    several.go("/user")
    rows = several.page.locator("tbody tr")
    assert [row.split("\t")[0].strip() for row in rows.all_inner_texts()] == ["several", "several (tablet)"]
    several.page.get_by_label("Remove several", exact=True).click()
    several.page.get_by_role("button", name="Remove").click()
    expect(several.page.get_by_role("status")).to_have_text("several was removed.")
    assert kinds(portal, "several").count(Kind.TOTP) == 1
    portal.require("several")
    several.go("/user")
    several.page.get_by_label("Remove several (tablet)").click()
    several.page.get_by_role("button", name="Remove").click()
    assert "last authenticator" in several.problem
    assert kinds(portal, "several").count(Kind.TOTP) == 1


def test_who_came_in_without_the_token_shows_it_before_changing_factors(portal, person):
    """NOT REQUIRED and logged in with the password alone: the window asks for a code first; so does removal."""
    lazy = person("lazy")
    phone = portal.give("lazy")
    assert lazy.log_in()
    lazy.go("/user/security-token")
    expect(lazy.page.locator("h1")).to_have_text("Confirm that it is you")
    lazy.page.fill("#code", phone.wrong())
    lazy.page.get_by_role("button", name="Confirm").click()
    assert "did not work" in lazy.problem
    lazy.page.fill("#code", phone.code())
    lazy.page.get_by_role("button", name="Confirm").click()
    expect(lazy.page.locator("h1")).to_have_text("Security token setup")


def test_a_stolen_session_without_the_token_changes_nothing(portal):
    """Forms sent past the page that asks: no key, no recovery codes, no removal, no new password."""
    portal.add("stolen")
    phone = portal.give("stolen")
    thief = Plain(portal)
    assert thief.log_in("stolen") == 303
    form = {"form": thief.token(), "token": phone.token, "password": "another password", "again": "another password"}
    for path in (
        "/user/security-token",
        "/user/security-key",
        "/user/recovery-codes",
        "/user/token/remove",
        "/password",
    ):
        status, headers, _ = thief.post(path, form)
        assert (status, headers["location"]) == (303, "/prove"), path
    assert thief.post("/user/enforcement", form | {"enforcement": "required"})[0] == 403
    assert kinds(portal, "stolen") == [Kind.PASSWORD, Kind.TOTP]
    assert Plain(portal).log_in("stolen") == 303


def test_a_code_for_another_hash_is_explained(portal, person):
    """The hint of the daemon, in plain words, beside keys that stay on the screen."""
    hinted = person("hinted")
    assert hinted.log_in()
    hinted.window()
    shown = hinted.generate()
    late = Phone(f"otpauth://totp/x?secret={shown.base32}").totp
    problem = hinted.page.locator("[role=alert]:visible")
    hinted.confirm(late.at(1_700_000_000))
    expect(problem).to_contain_text("does not match")
    hinted.confirm(late.at(time.time() - 20 * 30))
    expect(problem).to_contain_text("clock")
    expect(hinted.page.locator("[data-key=base32]")).to_be_visible()
    hinted.confirm(shown.phone.code())
    hinted.page.wait_for_url("**/recovery-codes")


# --- helpdesk and first visits ---


def test_a_new_user_comes_with_a_registration_code(portal, boss, person, new_page):
    """Added and invited by an admin; chooses a password, sets up an authenticator, logs in with both."""
    boss.go("/users")
    boss.page.get_by_label("User name").fill("newcomer")
    boss.page.get_by_role("button", name="Add").click()
    boss.page.get_by_role("button", name="Make a registration code").click()
    code = boss.page.locator("[data-key=registration]").inner_text()
    assert "/welcome" in boss.page.locator("main").inner_text()
    new = Person(portal, new_page(), "newcomer")
    new.go("/login")
    new.page.get_by_role("link", name="First visit").click()
    new.page.fill("#user", "newcomer")
    new.page.fill("#code", code)
    new.page.get_by_role("button", name="Go on").click()
    expect(new.page.locator("h1")).to_have_text("Choose a password")
    # Nothing else is open before there is one.
    assert new.go("/user").url.endswith("/password")
    for password, again, problem in (("a b c", "a b d", "differ"), ("short", "short", "too short")):
        new.page.get_by_label("New password").fill(password)
        new.page.get_by_label("The same again").fill(again)
        new.page.get_by_role("button", name="Save the password").click()
        assert problem in new.problem
    for field in ("New password", "The same again"):
        new.page.get_by_label(field).fill("staple battery")
    new.page.get_by_role("button", name="Save the password").click()
    expect(new.page.locator("h1")).to_have_text("Security token setup")
    phone = new.generate().phone
    new.confirm(phone.code())
    new.page.wait_for_url("**/recovery-codes")
    new.log_out()
    assert not new.log_in(code, password="staple battery")
    assert new.log_in(phone.code(), password="staple battery")


def test_a_first_visit_is_for_who_has_no_password(portal):
    """A registration code does not stand in for the password of who has one; that is asked and counted like any."""
    portal.add("old-hand")
    portal.require("old-hand", force=True)
    code = portal.admin.invite("old-hand", client="acme").code
    answers = set()
    for user, typed in (("old-hand", code), ("old-hand", "wrong"), ("nobody-at-all", code)):
        plain = Plain(portal)
        form = {"form": plain.token("/welcome"), "user": user, "code": typed}
        status, _, body = plain.post("/welcome", form)
        answers.add((status, body.replace(form["form"].encode(), b"")))
    assert len(answers) == 1
    assert answers.pop()[0] == 403
    # It is not used up: it is good beside the password.
    assert Plain(portal).log_in("old-hand", code) == 303


def test_an_admin_without_the_own_code_does_nothing_for_others(portal, new_page):
    """Who has an authenticator shows it before resetting or inviting."""
    portal.add("victim")
    portal.give("boss", client="globex")
    plain = Plain(portal, "globex")
    portal.add("victim", client="globex")
    assert plain.log_in("boss") == 303
    for path in ("/user/reset", "/user/invite", "/users"):
        form = {"form": plain.token(), "name": "victim", "new": "made"}
        status, headers, _ = plain.post(path, form)
        assert (status, headers["location"]) == (303, "/prove"), path


def test_the_activity_of_an_account_is_listed(portal, person):
    """Logins, those that were refused too, with the address they came from, and every change."""
    active = person("active")
    assert not active.log_in(password="wrong")
    assert active.log_in()
    active.set_up()
    active.go("/user/activity?name=active")
    lines = active.page.locator("tbody tr").all_inner_texts()
    assert "Authenticator set up" in lines[0]
    assert any("Logged in" in line and "127.0.0.1" in line for line in lines)
    assert any("Login attempt" in line and "refused" in line for line in lines)


def test_a_new_password_logs_out_the_other_browsers(portal, person):
    """And is the one that counts."""
    changed = person("changed")
    other = Plain(portal)
    assert other.log_in("changed") == 303
    assert changed.log_in()
    changed.go("/password")
    for field in ("New password", "The same again"):
        changed.page.get_by_label(field).fill("staple battery")
    changed.page.get_by_role("button", name="Save the password").click()
    expect(changed.page.get_by_role("status")).to_have_text("Your password is set.")
    assert other.get("/user")[0] == 303
    assert Plain(portal).log_in("changed", password=PASSWORD) == 403


# --- without a script, with a keyboard, in another language ---


def test_all_of_it_works_without_javascript(portal, person, new_page):
    """The how-to with scripts switched off; a wrong code leads to a page that asks again, without the keys."""
    bare = person("bare", page=new_page(java_script_enabled=False))
    assert bare.log_in()
    bare.window()
    bare.page.get_by_role("button", name="Generate").click()
    key = "".join(bare.page.locator("[data-key=base32]").inner_text().split())
    phone = Phone(f"otpauth://totp/x?secret={key}")
    expect(bare.page.get_by_role("button", name="Copy")).to_have_count(0)
    bare.page.fill("#code", phone.wrong())
    bare.page.get_by_role("button", name="Confirm").click()
    assert "does not match" in bare.problem
    assert key not in "".join(bare.page.locator("main").inner_text().split())
    bare.page.fill("#code", phone.code())
    bare.page.get_by_role("button", name="Confirm").click()
    expect(bare.page.locator("h1")).to_have_text("Recovery codes")
    bare.page.get_by_role("button", name="Make recovery codes").click()
    assert bare.page.locator(".codes code").count() == 10
    bare.page.get_by_role("link", name="I have kept them").click()
    bare.log_out()
    assert bare.log_in(phone.code())


def test_the_keyboard_is_enough(portal, person):
    """Log in, open the menu, choose, close it with Escape."""
    keys = person("keyboard")
    keys.go("/login")
    expect(keys.page.get_by_label("User name")).to_be_focused()
    keys.page.keyboard.type("keyboard")
    keys.page.keyboard.press("Tab")
    keys.page.keyboard.type(PASSWORD)
    keys.page.keyboard.press("Enter")
    expect(keys.page.locator("h1")).to_have_text("Clients and users")
    keys.page.keyboard.press("Tab")
    expect(keys.page.get_by_text("Skip to the content")).to_be_focused()
    for _ in range(2):
        keys.page.keyboard.press("Tab")
    keys.page.keyboard.press("Enter")
    expect(keys.page.get_by_role("link", name="My details")).to_be_visible()
    keys.page.keyboard.press("Escape")
    expect(keys.page.get_by_role("link", name="My details")).to_be_hidden()
    keys.page.keyboard.press("Enter")
    keys.page.keyboard.press("Tab")
    keys.page.keyboard.press("Tab")
    keys.page.keyboard.press("Enter")
    expect(keys.page.locator("h1")).to_have_text("Users")


def test_german_by_the_browser_or_by_choice(portal, new_page):
    """Accept-Language chooses, and the switch at the foot of the page chooses for good."""
    german = Person(portal, new_page(locale="de-AT"), "boss")
    german.go("/login")
    expect(german.page.locator("h1")).to_have_text("Anmelden")
    assert german.page.locator("html").get_attribute("lang") == "de"
    german.page.get_by_role("link", name="English").click()
    expect(german.page.locator("h1")).to_have_text("Log in")
    german.go("/welcome")
    expect(german.page.locator("h1")).to_have_text("First visit")


def test_what_the_daemon_tells_people_is_in_their_language(portal):
    """At the login and where a code is shown again: how many recovery codes are left, and a reset."""
    portal.add("told")
    portal.give("told")
    paper = portal.admin.new_recovery_codes("told", client="acme").codes
    german, english = Plain(portal), Plain(portal)
    assert german.log_in("told", paper[0], accept_language="de") == 303
    assert "9 Wiederherstellungscodes sind übrig" in german.get("/details")[2].decode()
    form = {"form": german.token("/prove"), "code": paper[1]}
    assert german.post("/prove", form, accept_language="de")[0] == 303
    assert "8 Wiederherstellungscodes sind übrig" in german.get("/details")[2].decode()
    assert english.log_in("told", paper[2]) == 303
    assert "7 recovery codes are left" in english.get("/details")[2].decode()
    portal.admin.call(messages.ResetUser(user="told", client="acme"))
    german = Plain(portal)
    assert german.log_in("told", accept_language="de") == 303
    assert "von der Administration zurückgesetzt" in german.get("/details")[2].decode()


def test_every_language_says_the_same_things():
    """The same keys and the same values to be filled in, in each file."""
    english, *others = texts.load().values()
    assert english.language == "en"
    assert others
    for other in others:
        assert other.keys == english.keys
        for key in english.keys:
            assert set(re.findall(r"{\w+}", other._texts[key])) == set(re.findall(r"{\w+}", english._texts[key])), key
