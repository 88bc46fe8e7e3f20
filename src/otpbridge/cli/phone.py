"""What the helpdesk reads out to a user on the phone."""

from __future__ import annotations

from otpbridge.cli import show
from otpbridge.cli.session import called

_ICAO = """
zero one two three four five six seven eight nine Alfa Bravo Charlie Delta Echo Foxtrot Golf Hotel Juliett Kilo
Mike November Papa Quebec Romeo Sierra Tango Victor Whiskey Xray Yankee Zulu
"""
_SPELT = dict(zip("0123456789ABCDEFGHJKMNPQRSTVWXYZ", _ICAO.split(), strict=True))
"""The alphabet of registration codes (otp.recovery) in the words of the ICAO."""


def spelt(code: str) -> list[tuple[str, str]]:
    """The groups of a code, each with how it is read out."""
    return [(group, " ".join(_SPELT.get(letter, letter) for letter in group)) for group in code.split("-")]


def registration(code: str, expires_at: int, user: str, client: str | None) -> list[str]:
    """A registration code, how to read it out, and what the user does with it."""
    name = show.visible(user)
    return [
        f"Registration code of {name}, good once and until {show.minute(expires_at)}:",
        "",
        f"    {code}",
        "",
        "Read it out group by group. It has digits, and no letter I, L, O or U:",
        *(f"    {group}   {words}" for group, words in spelt(code)),
        "",
        f"{name} types it where the login asks for the verification code. Dashes, blanks and",
        f"small letters are no matter. Then: otpbridge enroll totp {called(user, client)}",
        "It is shown now and never again. A code that was issued before no longer counts.",
    ]
