"""What codes on a screen offer: each account once, the rest passed over or named with a reason."""

from __future__ import annotations

import pytest
from migration_export import entry, payload, uri

from otpbridge.enroll.offers import Sighting, is_text, offers
from otpbridge.errors import EnrolError

ALICE = "otpauth://totp/Example:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Example"


def seen(*texts):
    """These texts, each in a place of its own."""
    return offers([Sighting(text, f"place {number}") for number, text in enumerate(texts, 1)])


def test_the_same_account_twice_is_one():
    """Two monitors with the same on them, a code written another way, a code that is in an export too."""
    other = "OTPAUTH://TOTP/Example:alice?issuer=Example&secret=gezdgnbvgy3tqojqgezdgnbvgy3tqojq&digits=6&image=x"
    found = seen(ALICE, ALICE, f" {other}\n", uri(payload(entry())))
    (offer,) = found.accounts
    assert offer.places == ("place 1", "place 2", "place 3", "place 4")
    assert str(offer) == "Example:alice"


@pytest.mark.parametrize(
    "other",
    [
        ALICE.replace("GEZD", "GEZA", 1),
        ALICE.replace("alice", "bob"),
        ALICE.replace("Example:", "").replace("=Example", "=Other"),
        f"{ALICE}&digits=8",
        f"{ALICE}&period=60",
        ALICE.replace("totp", "hotp") + "&counter=0",
    ],
)
def test_what_differs_in_anything_is_another_account(other):
    """In the seed alone, too: nobody could tell which was meant."""
    assert len(seen(ALICE, other).accounts) == 2


def test_other_codes_are_passed_over_and_counted():
    """Web addresses, contacts, an empty code."""
    found = seen("https://example.org/?otpauth://totp/x", "BEGIN:VCARD", "", ALICE, "BEGIN:VCARD")
    assert (len(found.accounts), found.passed_over) == (1, 3)


def test_what_cannot_be_taken_keeps_its_place_and_reason():
    """So that it is not taken for nothing, and two such are two."""
    found = seen(ALICE, f"{ALICE}&algorithm=MD5", f"{ALICE}&algorithm=MD4", "otpauth-migration://offline?data=AA!A")
    reasons = [offer.key for offer in found.accounts]
    assert [isinstance(reason, EnrolError) for reason in reasons] == [False, True, True, True]
    assert "SHA256" in str(reasons[1])
    assert "GEZD" not in repr(found)


def test_codes_of_an_export_that_were_not_seen_are_counted():
    """Of one export, and of several."""
    parts = [uri(payload(entry(name=f"user{index}"), size=3, index=index, batch=77)) for index in range(3)]
    assert seen(parts[1]).missing == 2
    assert seen(parts[2], parts[0], parts[0]).missing == 1
    assert seen(*parts).missing == 0
    assert seen(*parts, uri(payload(entry(name="other"), size=2, index=0, batch=78))).missing == 1


def test_a_text_is_told_from_a_picture():
    """By how it begins, whatever its case and the blanks before it."""
    assert is_text(ALICE.encode())
    assert is_text(b"\n  OTPAUTH-MIGRATION://offline?data=")
    assert not is_text(b"\x89PNG\r\n\x1a\n")
    assert not is_text(b"https://example.org")
    assert not is_text(b"")


def test_no_seed_is_shown():
    """Neither by what was seen nor by what it offers."""
    assert "GEZD" not in repr(Sighting(ALICE, "screen"))
    assert "GEZD" not in repr(seen(ALICE))
    assert "1234567890" not in repr(seen(ALICE))
