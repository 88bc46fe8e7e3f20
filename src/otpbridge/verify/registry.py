"""Find verifiers by entry point, and make them with typed options.

What is not installed, does not load or cannot be made is no reason for the others not to work: in its place stands
a `Missing`, which says `authinfo_unavail`. Options that the verifier does not know are an error of the configuration.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import msgspec

from otpbridge.errors import ConfigError
from otpbridge.model import Factor, Prompt, Verdict
from otpbridge.verify.api import GROUP, Attempt, Verifier

log = logging.getLogger(__name__)

AT_ONCE = 32

_OWN = "otpbridge"

Settings = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a verifier, for people."""

    name: str
    kind: str
    default: str | None
    """As it would be written; None where the option must be given."""


@dataclass(frozen=True, slots=True)
class Installed:
    """A verifier as its package declares it."""

    name: str
    target: str
    package: str
    version: str
    entry: EntryPoint

    def load(self) -> type[Any]:
        """Its class. Raises ConfigError with what went wrong, whatever that was."""
        try:
            found = self.entry.load()
        except Exception as error:  # noqa: BLE001 - a package may fail in any way while it is imported
            raise ConfigError(f"verifier {self.name} ({self.target}) does not load: {_brief(error)}") from None
        if not isinstance(found, type) or not callable(getattr(found, "verify", None)):
            raise ConfigError(f"verifier {self.name} ({self.target}) is no class with a method `verify`")
        return found

    @property
    def own(self) -> bool:
        """Whether it comes with otpbridge."""
        return self.package == _OWN


class Missing:
    """Stands where a verifier could not be made."""

    factor = Factor.SECOND

    async def verify(self, attempt: Attempt) -> Verdict:
        """`authinfo_unavail`."""
        return Verdict.AUTHINFO_UNAVAIL


@dataclass(frozen=True, slots=True)
class Made:
    """A verifier that can be asked. `fault` says why it is only a `Missing`."""

    name: str
    verifier: Verifier
    factor: Factor
    enrols: bool = False
    direct: bool = False
    """Whether it runs on the event loop: one of ours that never blocks. All others get a thread."""
    first_prompt: Prompt | None = None
    """What it asks first, so that it need not be running while it waits for the answer."""
    at_once: int = AT_ONCE
    """How many attempts it may work on at a time."""
    fault: str | None = None


def installed() -> dict[str, Installed]:
    """The verifiers of all packages here, by name. Of two with one name otpbridge's own stays, else neither."""
    found: dict[str, Installed] = {}
    doubtful: set[str] = set()
    for entry in entry_points(group=GROUP):
        package = entry.dist.name if entry.dist is not None else "?"
        version = entry.dist.version if entry.dist is not None else "?"
        here = Installed(entry.name, entry.value, package, version, entry)
        before = found.get(entry.name)
        if before is None or (here.own and not before.own):
            found[entry.name] = here
        elif not before.own and before != here:
            doubtful.add(entry.name)
    for name in doubtful - {name for name, each in found.items() if each.own}:
        log.error("verifier %s is declared by several packages: none of them is used", name)
        del found[name]
    return found


def options_of(kind: type[Any]) -> list[Option]:
    """What can be set of a verifier class."""
    options = getattr(kind, "Options", None)
    if options is None:
        return []
    hints = typing.get_type_hints(options)
    return [Option(field.name, _said(hints[field.name]), _written(field)) for field in dataclasses.fields(options)]


def make(name: str, given: Mapping[str, str], base: Settings, known: Mapping[str, Installed]) -> Made:
    """Make a verifier with the options of its rule over those of the configuration.

    Raises ConfigError for options that it does not take.
    """
    here = known.get(name)
    if here is None:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean `{near[0]}`?" if near else f"Installed: {', '.join(sorted(known))}."
        return _missing(name, f"there is no verifier `{name}`. {hint}")
    try:
        kind = here.load()
    except ConfigError as error:
        return _missing(name, str(error))
    options = _options(name, kind, {**base, **given})
    try:
        verifier = kind() if options is None else kind(options)
    except Exception as error:  # noqa: BLE001 - as with loading
        return _missing(name, f"verifier {name} ({here.target}) cannot be made: {_brief(error)}")
    factor = getattr(kind, "factor", Factor.SECOND)
    if not isinstance(factor, Factor):
        return _missing(name, f"verifier {name} ({here.target}): `factor` is no otpbridge.model.Factor")
    own = here.own
    return Made(
        name,
        verifier,
        factor,
        enrols=own and getattr(kind, "enrols", False),
        direct=own and not getattr(kind, "blocks", False),
        first_prompt=getattr(kind, "first_prompt", None),
        at_once=getattr(kind, "at_once", AT_ONCE),
    )


def _options(name: str, kind: type[Any], given: Settings) -> Any:
    options = getattr(kind, "Options", None)
    known = [] if options is None else [field.name for field in dataclasses.fields(options)]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"Did you mean `{near[0]}`?" if near else f"It takes {', '.join(known) or 'no options'}."
            raise ConfigError(f"verifier {name} has no option `{key}`. {hint}")
    if options is None:
        return None
    try:
        return msgspec.convert(dict(given), options, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        place = f" {where.rstrip('`')}" if where else ""
        raise ConfigError(f"verifier {name}, option{place}: {what}") from None


def _missing(name: str, fault: str) -> Made:
    return Made(name, Missing(), Factor.SECOND, direct=True, fault=fault)


def _said(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _written(field: dataclasses.Field[Any]) -> str | None:
    if field.default is not dataclasses.MISSING:
        return str(field.default)
    return None if field.default_factory is dataclasses.MISSING else str(field.default_factory())


def _brief(error: BaseException) -> str:
    """The type and first line of an error: our own and import errors hold no secret."""
    text = f": {error}".splitlines()[0] if isinstance(error, (ImportError, ConfigError)) else ""
    return f"{type(error).__name__}{text}"
