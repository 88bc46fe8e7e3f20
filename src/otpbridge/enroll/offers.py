"""What QR codes and pasted URIs offer to take over: accounts, each once, and why some cannot be taken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from otpbridge.enroll import migration, otpauth
from otpbridge.enroll.otpauth import OtpauthKey
from otpbridge.errors import EnrolError

_URI = "otpauth://"
_UNKNOWN = "?"
"""The name of an account whose name could not be read."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A text that was found, and where, in words. It may hold seeds."""

    text: str = field(repr=False)
    place: str


@dataclass(frozen=True, slots=True)
class Offer:
    """An account, its key or why that cannot be taken, and where it was found."""

    account: str
    issuer: str
    key: OtpauthKey | EnrolError
    places: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.issuer}:{self.account}" if self.issuer else self.account


@dataclass(frozen=True, slots=True)
class Offers:
    """All accounts, how many other codes were passed over, and how many codes of an export were not seen."""

    accounts: tuple[Offer, ...]
    passed_over: int = 0
    missing: int = 0


def is_text(data: bytes) -> bool:
    """Whether these bytes are URIs as text, and no picture."""
    start = data[:64].lstrip().lower()
    return start.startswith((_URI.encode(), migration.SCHEME.encode()))


def offers(sightings: Iterable[Sighting]) -> Offers:
    """Read all that was found. What is no otpauth code is passed over; the same account seen twice is one."""
    found: dict[object, Offer] = {}
    batches: dict[tuple[int, int], set[int]] = {}
    others: set[str] = set()
    for sighting in sightings:
        text = sighting.text.strip()
        lower = text.lower()
        if lower.startswith(migration.SCHEME):
            _of_export(found, batches, text, sighting.place)
        elif lower.startswith(_URI):
            _of_uri(found, text, sighting.place)
        else:
            others.add(text)
    missing = sum(size - len(seen) for (_batch, size), seen in batches.items())
    return Offers(tuple(found.values()), len(others), missing)


def _of_uri(found: dict[object, Offer], uri: str, place: str) -> None:
    try:
        key = otpauth.parse(uri)
    except EnrolError as error:
        _add(found, uri, Offer(_UNKNOWN, "", error, (place,)))
        return
    _add(found, _identity(key), Offer(key.account, key.issuer, key, (place,)))


def _of_export(found: dict[object, Offer], batches: dict[tuple[int, int], set[int]], uri: str, place: str) -> None:
    try:
        export = migration.parse(uri)
    except EnrolError as error:
        _add(found, uri, Offer(_UNKNOWN, "", error, (place,)))
        return
    batches.setdefault((export.batch, export.size), set()).add(export.index)
    for number, each in enumerate(export.accounts):
        identity = (uri, number) if isinstance(each.key, EnrolError) else _identity(each.key)
        _add(found, identity, Offer(each.account or _UNKNOWN, each.issuer, each.key, (place,)))


def _identity(key: OtpauthKey) -> object:
    return key.kind, key.secret.reveal(), key.parameters, key.account, key.issuer, key.counter


def _add(found: dict[object, Offer], identity: object, offer: Offer) -> None:
    """Keep an offer; of one that is there already, add where it was seen."""
    known = found.setdefault(identity, offer)
    new = tuple(place for place in offer.places if place not in known.places)
    if new:
        found[identity] = Offer(known.account, known.issuer, known.key, known.places + new)
