"""A walk through every page of the portal, for those who look at pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page
from portal_rig import Person, Portal

WIDTHS = (390, 1280)
SCHEMES = ("light", "dark")
Show = Callable[[str], None]


def tour(portal: Portal, page: Page, user: str, show: Show) -> None:
    """Every page, in the order in which people see them; `show` is called with the name of each."""
    person = Person(portal, page, user)
    person.go("/login")
    show("login")
    person.log_in(password="wrong")
    show("login-refused")
    person.go("/welcome")
    show("welcome")
    person.log_in()
    show("details")
    page.click("summary:has-text('Administration')")
    show("menu")
    person.go("/user")
    show("user-new")
    person.go("/user/security-token")
    show("setup")
    phone = person.generate().phone
    show("keys")
    person.confirm(phone.wrong())
    show("keys-refused")
    person.confirm(phone.code())
    page.wait_for_url("**/recovery-codes")
    show("recovery")
    page.get_by_role("button", name="Make recovery codes").click()
    show("codes")
    person.log_out()
    person.log_in()
    person.go("/user/security-token")
    show("prove")
    person.log_out()
    person.log_in(phone.code())
    person.go("/user")
    page.get_by_label("REQUIRED", exact=True).check()
    page.get_by_role("button", name="Save").click()
    show("user")
    page.get_by_label(f"Remove {user}").click()
    show("remove")
    person.go("/user/activity")
    show("activity")
    person.go("/password")
    show("password")
    person.go("/nothing")
    show("absent")
    person.log_out()
    helpdesk(portal, page, user, show)


def helpdesk(portal: Portal, page: Page, user: str, show: Show) -> None:
    """What admins see."""
    boss = Person(portal, page, "boss")
    boss.log_in()
    boss.go("/users")
    show("users")
    boss.go(f"/user?name={user}")
    show("user-of-admin")
    page.get_by_role("link", name="Reset this user").click()
    show("reset")
    boss.go(f"/user?name={user}")
    page.get_by_role("button", name="Make a registration code").click()
    show("invited")
    key(page)
    boss.go("/user/security-token")
    page.get_by_role("button", name="Register a security key").click()
    show("key-create")
    boss.log_out()


def key(page: Page) -> None:
    """Plug a security key into the browser."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options: dict[str, Any] = {"protocol": "ctap2", "transport": "usb"}
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
