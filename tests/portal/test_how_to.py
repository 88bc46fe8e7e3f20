"""The Security Token How-To, step by step, in a browser. Each test carries the number of what it proves."""

from __future__ import annotations

import base64
import contextlib
import io
import re
import urllib.error
import urllib.request
from urllib.parse import parse_qs, unquote, urlsplit

import playwright.sync_api
import pyotp
import pytest
from PIL import Image, ImageChops
from playwright.sync_api import expect
from portal_rig import Person, Plain, decoded, hidden

from otpbridge.model import Kind

pytestmark = pytest.mark.system


def tokens(portal, user, client="acme"):
    """The tokens that the daemon has, without password."""
    return [token for token in portal.admin.tokens(user, client=client).tokens if token.kind is not Kind.PASSWORD]


def fetched(address):
    """An address fetched by a program without cookies; its state, type and content."""
    request = urllib.request.Request(
        address.replace("acme.localhost", "127.0.0.1"),
        headers={"Host": urlsplit(address).netloc, "User-Agent": "Mozilla/4.0 (compatible; MSIE 8.0)"},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def require_anyway(who):
    """Send the form for REQUIRED from a page that does not have it; the page that comes."""
    return who.page.evaluate(
        """async form => {
            const body = new URLSearchParams({form, enforcement: "required"});
            return (await fetch("/user/enforcement", {method: "POST", body})).text();
        }""",
        hidden(who.page.content(), "form"),
    )


# --- 1. choose a user ---


def test_a01_administration_my_details_opens_clients_and_users(person):
    """After the login with user name and password, ADMINISTRATION, MY DETAILS leads to the client and its users."""
    a01 = person("a01")
    assert a01.log_in()
    a01.menu("Administration", "My details")
    expect(a01.page.locator("h1")).to_have_text("Clients and users")
    expect(a01.page.locator("main")).to_contain_text("Acme Cloud")
    expect(a01.page.get_by_role("link", name="Users", exact=True).last).to_be_visible()


def test_a02_users_are_those_of_the_own_client(portal, person):
    """An admin sees every user of the client and nobody else; a name of another client opens no page."""
    portal.add("a02-stranger", client="globex")
    boss = Person(portal, person("a02").page, "boss")
    assert boss.log_in()
    boss.go("/users")
    listed = boss.page.locator("td a").all_inner_texts()
    assert listed == [user.name for user in portal.admin.users(client="acme")]
    assert "a02-stranger" not in listed
    for name in ("a02-stranger", "nobody-at-all"):
        for path in ("/user", "/user/security-token", "/user/activity", "/user/reset"):
            absent = boss.go(f"{path}?name={name}")
            assert absent.status == 404
            assert "There is no such page." in absent.text()


def test_a03_an_edit_page_opens_for_oneself_and_for_admins(portal, person):
    """Another one's page is absent for who is no admin of the client, and open for who is."""
    a03 = person("a03")
    portal.add("a03-other")
    assert a03.log_in()
    a03.go("/users")
    assert a03.page.locator("td a").all_inner_texts() == ["a03"]
    assert a03.go("/user?name=a03").status == 200
    absent = a03.go("/user?name=a03-other")
    assert absent.status == 404
    assert absent.text() == a03.go("/user?name=nobody-at-all").text()
    a03.log_out()
    boss = Person(portal, a03.page, "boss")
    assert boss.log_in()
    assert boss.go("/user?name=a03-other").status == 200
    expect(boss.page.locator("h1")).to_have_text("User a03-other")


# --- 2. and 3. the link and the window ---


def test_a04_the_link_is_there_and_says_that_it_is_unused(person):
    """A user without a token finds SECURITY TOKEN, ready to be used for the first time."""
    a04 = person("a04")
    assert a04.log_in()
    a04.go("/user")
    expect(a04.page.get_by_role("link", name="SECURITY TOKEN", exact=True)).to_be_visible()
    expect(a04.page.locator("main")).to_contain_text("Ready to be used for the first time.")


def test_a05_to_open_the_window_changes_nothing(portal, person):
    """It has a Generate button; there is no token, and the login is as before."""
    a05 = person("a05")
    assert a05.log_in()
    a05.window()
    expect(a05.page.get_by_role("button", name="Generate")).to_be_visible()
    assert tokens(portal, "a05") == []
    a05.log_out()
    assert a05.log_in()


# --- 4. connect the seed ---


def test_a06_a07_a08_generate_shows_both_keys_and_the_code(person):
    """The same 20 random bytes three times: in hex, in base32 in groups that copy gives whole, in a QR code."""
    a06 = person("a06")
    assert a06.log_in()
    a06.window()
    seen = set()
    for _ in range(2):
        shown = a06.generate()
        expect(a06.page.locator("main")).to_contain_text("TOTP Seed key")
        expect(a06.page.locator("main")).to_contain_text("Google Authenticator key")
        seed = bytes.fromhex(shown.hex)
        assert len(seed) == 20
        assert shown.base32 == base64.b32encode(seed).decode()
        copies = [button.get_attribute("data-copy") for button in a06.page.locator("[data-copy]").all()]
        assert copies == [shown.base32, shown.hex, shown.address]
        (text,) = decoded(shown.screenshot)
        uri = urlsplit(text)
        assert (uri.scheme, uri.netloc, unquote(uri.path)) == ("otpauth", "totp", "/Acme Ltd:a06")
        assert parse_qs(uri.query)["secret"] == [shown.base32]
        assert parse_qs(uri.query)["issuer"] == ["Acme Ltd"]
        seen.add(seed)
        a06.page.get_by_role("button", name="Close").click()
        a06.page.get_by_role("link", name="SECURITY TOKEN", exact=True).click()
    assert len(seen) == 2


def test_a07_a_copy_button_copies_the_whole_key(person, new_page):
    """What lands on the clipboard has no groups."""
    a07 = person("a07", page=new_page(permissions=["clipboard-read", "clipboard-write"]))
    assert a07.log_in()
    a07.window()
    shown = a07.generate()
    a07.page.get_by_role("button", name="Copy: Google Authenticator key").click()
    expect(a07.page.get_by_role("button", name="Copy: Google Authenticator key")).to_have_text("Copied")
    assert a07.page.evaluate("navigator.clipboard.readText()") == shown.base32


def test_a09_a_separate_device_is_recommended(person):
    """Before and beside the keys."""
    a09 = person("a09")
    assert a09.log_in()
    a09.window()
    advice = "separate physical device, such as a phone, tablet or hardware key"
    expect(a09.page.locator("main")).to_contain_text(advice)
    a09.generate()
    expect(a09.page.locator("main")).to_contain_text(advice)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_a10_the_code_is_a_picture_that_can_be_scanned(person, new_page, scheme, width):
    """An <img> of a PNG, dark on light with four light modules around it, at any width and in both schemes."""
    name = f"a10-{scheme}-{width}"
    a10 = person(name, page=new_page(color_scheme=scheme, viewport={"width": width, "height": 900}))
    assert a10.log_in()
    a10.window()
    shown = a10.generate()
    assert a10.page.locator("canvas, svg, object, iframe").count() == 0
    assert a10.page.locator(".qr").evaluate("image => image.tagName") == "IMG"
    status, headers, png = fetched(shown.address)
    assert (status, headers["Content-Type"], png[:8]) == (200, "image/png", b"\x89PNG\r\n\x1a\n")
    (text,) = decoded(png)
    assert decoded(shown.screenshot) == [text]
    assert decoded(a10.page.screenshot(full_page=True)) == [text]
    assert light_border(png) >= 4


def light_border(png):
    """The modules of light around the code of a picture."""
    picture = Image.open(io.BytesIO(png)).convert("L")
    left, top, right, bottom = ImageChops.invert(picture).getbbox()
    assert left == top == picture.width - right == picture.height - bottom
    # The corner of a code is a dark line of seven modules.
    end = next(x for x in range(left, right) if picture.getpixel((x, top)) > 128)
    return left * 7 / (end - left)


def test_a11_the_address_of_the_picture_is_what_winauth_takes(person):
    """Fetched twice without cookies: 200, image/png, no-store, no redirect, a picture that decodes."""
    a11 = person("a11")
    assert a11.log_in()
    a11.window()
    shown = a11.generate()
    assert shown.address.endswith(".png")
    for _ in range(3):
        status, headers, png = fetched(shown.address)
        assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "image/png", "no-store")
        assert "Set-Cookie" not in headers
        (text,) = decoded(png)
        # WinAuth decodes the text before it parses it; a `https?://` in it would be fetched.
        assert "image=" not in text
        assert pyotp.parse_uri(unquote(text)).secret == shown.base32
    with a11.page.expect_download() as download:
        a11.page.get_by_role("link", name="Download PNG").click()
    assert download.value.suggested_filename == "security-token.png"
    assert decoded(download.value.path().read_bytes()) == [text]


def test_a12_a13_all_three_ways_give_the_same_codes(person):
    """Picture, address and the key typed by hand; the hex key is never the first that is offered to be copied."""
    a12 = person("a12")
    assert a12.log_in()
    a12.window()
    shown = a12.generate()
    by_picture = pyotp.parse_uri(decoded(shown.screenshot)[0])
    by_address = pyotp.parse_uri(decoded(fetched(shown.address)[2])[0])
    by_hand = pyotp.TOTP(shown.base32)
    for moment in (59, 1_111_111_109, 20_000_000_000):
        assert by_picture.at(moment) == by_address.at(moment) == by_hand.at(moment)
    first = a12.page.locator("[data-copy]").first
    assert first.get_attribute("data-copy") == shown.base32


# --- close and regenerate ---


def test_a14_close_returns_to_the_user(portal, person):
    """And the token is gone."""
    a14 = person("a14")
    assert a14.log_in()
    a14.window()
    a14.generate()
    assert [token.state for token in tokens(portal, "a14")] == ["pending"]
    a14.page.get_by_role("button", name="Close").click()
    expect(a14.page.locator("h1")).to_have_text("User a14")
    assert tokens(portal, "a14") == []


@pytest.mark.parametrize("how", ["close", "leave", "confirm", "log out"])
def test_a15_after_close_nothing_gives_the_keys(portal, person, how):
    """No page, no back button, no address of a picture, no log; however the window came to be closed."""
    a15 = person(f"a15-{how.replace(' ', '-')}")
    assert a15.log_in()
    a15.window()
    shown = a15.generate()
    if how == "close":
        a15.page.get_by_role("button", name="Close").click()
    elif how == "leave":
        a15.page.get_by_role("link", name="Acme Cloud").click()
        portal.wait_for("token discarded", a15.user)
    elif how == "confirm":
        a15.confirm(shown.phone.code())
        a15.page.wait_for_url("**/recovery-codes")
    else:
        a15.log_out()
    assert fetched(shown.address)[0] == 404
    with contextlib.suppress(playwright.sync_api.Error):  # what came from a form is not kept
        a15.page.go_back()
    keys = (shown.base32, shown.hex, shown.address.rpartition("/")[2])
    for text in (a15.page.locator("html").inner_html(), "".join(portal.log), portal.daemon.log):
        assert not any(key in "".join(text.split()) for key in keys)
    for path in ("/user", "/user/security-token", "/user/activity", "/details"):
        assert not any(key in a15.go(path).text() for key in keys)
    assert [token.state for token in tokens(portal, a15.user)] == (["active"] if how == "confirm" else [])


def test_a16_a_new_key_is_another_and_the_old_one_counts_until_it_is_confirmed(portal, person):
    """A pending key fails from the moment a new one is made; an active one only once the new one is confirmed."""
    a16 = person("a16")
    assert a16.log_in()
    a16.window()
    pending = a16.generate()
    a16.page.get_by_role("button", name="Close").click()
    a16.page.get_by_role("link", name="SECURITY TOKEN", exact=True).click()
    active = a16.generate()
    assert active.base32 != pending.base32
    a16.confirm(pending.phone.code())
    assert "does not match" in a16.problem
    phone = active.phone
    a16.confirm(phone.code())
    a16.page.wait_for_url("**/recovery-codes")
    a16.go("/user/security-token")
    third = a16.generate()
    expect(a16.page.locator("main")).to_contain_text("Delete its old entry in the app first")
    # The old one is in force still.
    assert portal.admin.verify("a16", phone.code(), client="acme", stack="portal-proof")
    new = third.phone
    a16.confirm(new.code())
    a16.page.wait_for_url("**/recovery-codes")
    assert not portal.admin.verify("a16", phone.code(), client="acme", stack="portal-proof")
    assert portal.admin.verify("a16", new.code(), client="acme", stack="portal-proof")


def test_a17_a18_of_two_windows_the_newer_counts(portal, person):
    """The older tab's confirmation is refused with a message, its picture is gone, the newer tab's key is good."""
    a17 = person("a17")
    assert a17.log_in()
    a17.window()
    older = a17.generate()
    other = Person(portal, a17.page.context.new_page(), "a17")
    other.go("/user/security-token?name=a17")
    newer = other.generate()
    assert fetched(older.address)[0] == 404
    a17.confirm(older.phone.code())
    assert "too old" in a17.problem
    assert older.base32 not in "".join(a17.page.locator("main").inner_text().split())
    other.confirm(newer.phone.code())
    other.page.wait_for_url("**/recovery-codes")


def test_a18_another_browser_makes_a_window_old_too(portal, person, new_page):
    """Whichever generated last counts, though the sessions know nothing of each other."""
    a18 = person("a18")
    assert a18.log_in()
    a18.window()
    older = a18.generate()
    other = Person(portal, new_page(), "a18")
    assert other.log_in()
    other.window()
    other.generate()
    assert fetched(older.address)[0] == 404
    a18.confirm(older.phone.code())
    assert "too old" in a18.problem


# --- 5. performance check ---


def test_a19_power_logout_ends_the_session(person):
    """The login page comes, and the session's cookie opens nothing any more."""
    a19 = person("a19")
    assert a19.log_in()
    cookies = a19.page.context.cookies()
    a19.log_out()
    expect(a19.page.locator("h1")).to_have_text("Log in")
    a19.page.context.add_cookies(cookies)
    assert a19.go("/user").url.endswith("/login")


def test_a19_logout_leads_to_the_white_label_link(portal, new_page):
    """Where a client has a login page of its own, and nowhere else."""
    page = new_page()
    page.route("https://login.globex.example/**", lambda route: route.fulfill(body="the login of Globex"))
    portal.add("a19-globex", client="globex")
    a19 = Person(portal, page, "a19-globex", "globex")
    assert a19.log_in()
    a19.log_out()
    expect(page.locator("body")).to_have_text("the login of Globex")
    assert page.url == "https://login.globex.example/start"
    assert a19.go("/user").url.endswith("/login")


def test_a20_the_field_for_the_token_is_always_there(person):
    """Also for who need not show one, and before anybody is known."""
    a20 = person("a20")
    a20.go("/login")
    expect(a20.page.get_by_label("Security token")).to_be_visible()
    assert a20.log_in()


def test_a21_optional_and_required(portal, person):
    """NOT REQUIRED: right or empty lets in, wrong does not. REQUIRED: right alone does; a used one does not."""
    a21 = person("a21")
    phone = portal.give("a21")
    right = phone.code()
    assert a21.log_in(right)
    a21.log_out()
    assert not a21.log_in(phone.wrong())
    assert a21.log_in("")
    a21.log_out()
    portal.require("a21")
    assert not a21.log_in("")
    assert not a21.log_in(right)
    assert not a21.log_in(phone.wrong())
    assert a21.log_in(phone.code())


def test_a21_required_cannot_be_chosen_without_a_token(portal, person):
    """Neither on the page, nor by a form sent all the same; but an admin may force it, and the user enrols."""
    a21 = person("a21-none")
    assert a21.log_in()
    a21.go("/user")
    assert a21.page.locator("[name=enforcement]").count() == 0
    assert "Test your security token first" in require_anyway(a21)
    assert portal.admin.tokens("a21-none", client="acme").enforcement == "optional"
    portal.require("a21-none", force=True)
    a21.log_out()
    assert not a21.log_in()
    code = portal.admin.invite("a21-none", client="acme").code
    assert a21.log_in(code)
    expect(a21.page.locator("h1")).to_have_text("Security token setup")


def test_a22_a_refusal_says_nothing_of_which_was_wrong(portal, person):
    """Wrong password, wrong code, nobody of that name: one message, which says what to try."""
    a22 = person("a22")
    phone = portal.give("a22")
    portal.require("a22")
    seen = set()
    for user, password, code in (
        ("a22", "correct horse", phone.wrong()),
        ("a22", "wrong", phone.code()),
        ("a22", "wrong", ""),
        ("nobody-at-all", "wrong", ""),
        ("nobody-at-all", "wrong", "123456"),
    ):
        who = Person(portal, a22.page, user)
        assert not who.log_in(code, password=password)
        assert a22.page.locator("#user").input_value() == user
        seen.add(re.sub(r'value="[^"]*"', "", a22.page.locator("main").inner_html()))
        assert "newest code" in who.problem
    assert len(seen) == 1
    expect(a22.page.locator("main")).to_contain_text("support@acme.example")


def test_a23_an_admin_resets_who_lost_the_phone(portal, person, new_page):
    """Tokens gone, NOT REQUIRED, logged out, audited with the admin's name; the password alone lets in again."""
    a23 = person("a23")
    phone = portal.give("a23")
    portal.require("a23")
    assert a23.log_in(phone.code())
    boss = Person(portal, new_page(), "boss")
    assert boss.log_in()
    boss.go("/users")
    boss.page.get_by_label("Open a user by name").fill("a23")
    boss.page.get_by_role("button", name="Open").click()
    boss.page.get_by_role("link", name="Reset this user").click()
    boss.page.get_by_label("Who asked for it").fill("called from the number we know")
    boss.page.get_by_role("button", name="Reset").click()
    expect(boss.page.get_by_role("status")).to_contain_text("a23 was reset")
    assert a23.go("/user").url.endswith("/login")
    assert tokens(portal, "a23") == []
    (row,) = [entry for entry in portal.daemon.audit() if entry.event == "user reset" and entry.user == "a23"]
    assert "by boss" in row.reason
    assert "the number we know" in row.reason
    assert not a23.log_in(phone.wrong(), password="wrong")
    assert a23.log_in()
    expect(a23.page.get_by_role("status")).to_contain_text("reset by an administrator")
    a23.set_up()


# --- 6. REQUIRED or not ---


def test_a24_a25_required_can_be_chosen_after_a_login_with_the_token(portal, person):
    """It is NOT REQUIRED at first; to have confirmed is not enough, to have logged in with a code is."""
    a24 = person("a24")
    assert a24.log_in()
    phone = a24.set_up()
    a24.go("/user")
    expect(a24.page.locator("main")).to_contain_text("NOT REQUIRED")
    assert a24.page.locator("[name=enforcement]").count() == 0
    expect(a24.page.locator("main")).to_contain_text("REQUIRED can be chosen after you have logged in")
    a24.log_out()
    assert a24.log_in(phone.code())
    a24.go("/user")
    a24.page.get_by_label("REQUIRED", exact=True).check()
    a24.page.get_by_role("button", name="Save").click()
    expect(a24.page.get_by_role("status")).to_have_text("Saved.")
    assert portal.admin.tokens("a24", client="acme").enforcement == "required"


def test_a25_a_new_key_has_to_be_tested_before_required_again(portal, person):
    """A form sent all the same is refused: since the last Generate nobody has logged in with the new key."""
    a25 = person("a25")
    phone = portal.give("a25")
    assert a25.log_in(phone.code())
    a25.set_up()
    a25.go("/user")
    assert a25.page.locator("[name=enforcement]").count() == 0
    assert "Test your security token first" in require_anyway(a25)
    assert portal.admin.tokens("a25", client="acme").enforcement == "optional"


def test_a26_not_required_again_needs_a_fresh_code(portal, person):
    """Empty, wrong or used does not do; and the audit log has the change."""
    a26 = person("a26")
    phone = portal.give("a26")
    portal.require("a26")
    used = phone.code()
    assert a26.log_in(used)
    for code in ("", phone.wrong(), used):
        a26.go("/user")
        a26.page.get_by_label("NOT REQUIRED").check()
        a26.page.fill("#code", code)
        a26.page.get_by_role("button", name="Save").click()
        assert "did not work" in a26.problem
        assert portal.admin.tokens("a26", client="acme").enforcement == "required"
    a26.page.get_by_label("NOT REQUIRED").check()
    a26.page.fill("#code", phone.code())
    a26.page.get_by_role("button", name="Save").click()
    expect(a26.page.get_by_role("status")).to_have_text("Saved.")
    assert portal.admin.tokens("a26", client="acme").enforcement == "optional"
    assert [entry.event for entry in portal.daemon.audit() if entry.user == "a26"][-1] == "enforcement set"


def test_a26_an_admin_may_without(portal, person, new_page):
    """Their own proof is what counts."""
    a26 = person("a26-other")
    portal.give("a26-other")
    portal.require("a26-other")
    boss = Person(portal, new_page(), "boss")
    assert boss.log_in()
    boss.go("/user?name=a26-other")
    boss.page.get_by_label("NOT REQUIRED").check()
    boss.page.get_by_role("button", name="Save").click()
    expect(boss.page.get_by_role("status")).to_have_text("Saved.")
    assert portal.admin.tokens(a26.user, client="acme").enforcement == "optional"


# --- 7. final test ---


def test_a27_the_final_test(portal, person):
    """All of the how-to in one go; in the end password and token let in, and without the token nothing does."""
    a27 = person("a27")
    assert a27.log_in()
    phone = a27.set_up()
    a27.page.get_by_role("button", name="Make recovery codes").click()
    shown = a27.page.locator(".codes code")
    expect(shown).to_have_count(10)
    codes = shown.all_inner_texts()
    a27.page.get_by_role("link", name="I have kept them").click()
    a27.log_out()
    assert a27.log_in(phone.code())
    a27.go("/user")
    a27.page.get_by_label("REQUIRED", exact=True).check()
    a27.page.get_by_role("button", name="Save").click()
    a27.log_out()
    assert not a27.log_in()
    assert a27.log_in(phone.code())
    a27.log_out()
    assert a27.log_in(codes[0])
    expect(a27.page.get_by_role("status")).to_contain_text("9 recovery codes are left")


def test_a28_each_client_has_its_own_face(portal, new_page):
    """By host name: title, logo, colour, and the issuer in the code; one user name, two labels."""
    labels = []
    for client, title, issuer in (("acme", "Acme Cloud", "Acme Ltd"), ("globex", "Globex Hosting", "Globex")):
        portal.add("a28", client=client)
        who = Person(portal, new_page(), "a28", client)
        assert who.log_in()
        assert title in who.page.title()
        assert (who.page.locator(".brand img").count() == 1) is (client == "acme")
        who.window()
        (text,) = decoded(who.generate().screenshot)
        assert pyotp.parse_uri(text).issuer == issuer
        labels.append(unquote(urlsplit(text).path))
        labels.append(who.page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--accent')"))
    assert labels[0] == "/Acme Ltd:a28"
    assert labels[2] == "/Globex:a28"
    assert labels[1] != labels[3]
    assert Plain(portal, "unknown").get("/")[0] == 421
