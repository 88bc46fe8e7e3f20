"""Find verifiers by entry point, and make them with typed options.

What is not installed, does not load or cannot be made is no reason for the others not to work: in its place stands
a `Missing`, which says `authinfo_unavail`. Options that the verifier does not take are an error of the configuration.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import difflib
import logging
import threading
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, entry_points
from typing import Any, TypeVar

import msgspec

from otpbridge.errors import ConfigError
from otpbridge.model import Factor, Prompt, PromptStyle, Verdict
from otpbridge.verify.api import GROUP, Attempt, Verifier

log = logging.getLogger(__name__)

T = TypeVar("T")

AT_ONCE = 32
MOST_AT_ONCE = 256
LOAD_SECONDS = 5.0
"""How long a package may take to be imported, and a verifier to be made."""

_OWN = "otpbridge"

Settings = Mapping[str, str | int | float | bool]


class OptionError(ConfigError):
    """A verifier does not take an option, or not with that value; `option` is None where it is about several."""

    def __init__(self, message: str, option: str | None = None) -> None:
        self.option = option
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a verifier, for people."""

    name: str
    kind: str
    default: str | None
    """As it would be written; None where the option must be given."""


class Installed:
    """A verifier as its package declares it. Loaded once, and not on the caller's thread: importing may hang."""

    def __init__(self, entry: EntryPoint, package: str, version: str) -> None:
        self.name = entry.name
        self.target = entry.value
        self.package = package
        self.version = version
        self._entry = entry
        self._found: type[Any] | ConfigError | None = None

    @property
    def own(self) -> bool:
        """Whether it comes with otpbridge."""
        return self.package == _OWN

    def load(self) -> type[Any]:
        """Its class. Raises ConfigError with what went wrong, whatever that was."""
        if self._found is None:
            self._found = self._load()
        if isinstance(self._found, ConfigError):
            raise self._found
        return self._found

    def make(self, options: Any) -> Verifier:
        """A verifier, with an instance of the `Options` of its class where it has any. Raises ConfigError."""
        kind = self.load()
        try:
            made: Verifier = _bounded(kind if options is None else lambda: kind(options))
        except ConfigError as error:
            raise ConfigError(f"it cannot be made: {error}") from None
        return made

    def _load(self) -> type[Any] | ConfigError:
        try:
            found = _bounded(self._entry.load)
        except ConfigError as error:
            return ConfigError(f"it does not load: {error}")
        if not isinstance(found, type) or not callable(getattr(found, "verify", None)):
            return ConfigError("it is no class with a method `verify`")
        return found


class Missing:
    """Stands where a verifier could not be made."""

    async def verify(self, attempt: Attempt) -> Verdict:
        """`authinfo_unavail`."""
        return Verdict.AUTHINFO_UNAVAIL


@dataclass(frozen=True, slots=True)
class Made:
    """A verifier that can be asked. `fault` says why it is only a `Missing`."""

    name: str
    verifier: Verifier
    factor: Factor
    own: bool = False
    """Whether it comes with otpbridge, so that the text of its errors is known to hold no secret."""
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
    found: dict[str, list[Installed]] = {}
    # Of each package once: all that it says of itself is read for that.
    packages: dict[Distribution | None, tuple[str, str]] = {None: ("?", "?")}
    for entry in entry_points(group=GROUP):
        package = entry.dist
        if package is not None and package not in packages:
            about = package.metadata
            packages[package] = about["Name"], about["Version"]
        here = Installed(entry, *packages[package])
        found.setdefault(here.name, []).append(here)
    return {name: chosen for name, several in found.items() if (chosen := _chosen(several)) is not None}


def _chosen(several: list[Installed]) -> Installed | None:
    own = [each for each in several if each.own]
    if len(several) > 1:
        packages = ", ".join(sorted(each.package for each in several))
        used = "otpbridge's own is used" if own else "none of them is used"
        log.error("verifier %s is declared by several packages (%s): %s", several[0].name, packages, used)
    if own:
        return own[0]
    return several[0] if len(several) == 1 else None


def options_of(kind: type[Any]) -> list[Option]:
    """What can be set of a verifier class. Raises ConfigError where the class does not say it as it should."""
    options = _options_class(kind)
    if options is None:
        return []
    try:
        hints = typing.get_type_hints(options)
        return [
            Option(field.name, _said(hints[field.name]), _written(field)) for field in dataclasses.fields(options)
        ]
    except Exception as error:  # noqa: BLE001 - what a package has there may fail in any way
        raise ConfigError(f"its options cannot be read: {_brief(error)}") from None


def make(name: str, given: Mapping[str, str], base: Settings, known: Mapping[str, Installed]) -> Made:
    """Make a verifier with the options of its rule over those of the configuration.

    Raises OptionError for options that it does not take.
    """
    here = known.get(name)
    if here is None:
        return _missing(name, f"there is no verifier `{name}`. {_hint(name, known, 'Installed: ')}")
    try:
        verifier = here.make(_options(here, {**base, **given}))
        return _described(here, verifier)
    except OptionError:
        raise
    except ConfigError as error:
        return _missing(name, f"verifier {name} ({here.target}): {error}")


def _described(here: Installed, verifier: Verifier) -> Made:
    """A verifier with what its class says of itself. Raises ConfigError where that is nonsense."""
    kind = here.load()
    factor = getattr(kind, "factor", Factor.SECOND)
    first_prompt = getattr(kind, "first_prompt", None)
    at_once = getattr(kind, "at_once", AT_ONCE)
    if not isinstance(factor, Factor):
        raise ConfigError("its `factor` is no otpbridge.model.Factor")
    if first_prompt is not None and not _is_prompt(first_prompt):
        raise ConfigError("its `first_prompt` is no otpbridge.model.Prompt")
    if not isinstance(at_once, int) or not 1 <= at_once <= MOST_AT_ONCE:
        raise ConfigError(f"its `at_once` is no number from 1 to {MOST_AT_ONCE}")
    return Made(
        here.name,
        verifier,
        factor,
        own=here.own,
        enrols=here.own and getattr(kind, "enrols", False),
        direct=here.own and not getattr(kind, "blocks", False),
        first_prompt=first_prompt,
        at_once=at_once,
    )


def _is_prompt(prompt: object) -> bool:
    return (
        isinstance(prompt, Prompt)
        and isinstance(prompt.text, str)
        and isinstance(prompt.style, PromptStyle)
        and isinstance(prompt.answer, str)
        and isinstance(prompt.notice, str)
    )


def _options_class(kind: type[Any]) -> type[Any] | None:
    options: type[Any] | None = getattr(kind, "Options", None)
    if options is None or (isinstance(options, type) and dataclasses.is_dataclass(options)):
        return options
    raise ConfigError("its `Options` is no dataclass")


def _options(here: Installed, given: Settings) -> Any:
    """An instance of the options. Raises OptionError, and ConfigError where the fault is the verifier's."""
    options = _options_class(here.load())
    known = [] if options is None else [field.name for field in dataclasses.fields(options)]
    for key in given:
        if key not in known:
            hint = _hint(key, known, "It takes ") if known else "It takes no options."
            raise OptionError(f"verifier {here.name} has no option `{key}`. {hint}", key)
    if options is None:
        return None
    try:
        return msgspec.convert(dict(given), options, strict=False)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        option = where.rstrip("`") or None
        about = f", option {option}" if option else ""
        raise OptionError(f"verifier {here.name}{about}: {what}", option) from None
    except Exception as error:  # noqa: BLE001 - as with loading
        raise ConfigError(f"its options cannot be made: {_brief(error)}") from None


def _missing(name: str, fault: str) -> Made:
    # Whether it would be a first factor or a second is not known, so nothing may be waived of it.
    return Made(name, Missing(), Factor.NEITHER, direct=True, fault=fault)


def _bounded(call: Callable[[], T]) -> T:
    """Run what a package brings. Raises ConfigError with what went wrong, whatever that was; it may hang, too."""
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - SystemExit too, as of a script without a guard
            outcome.set_exception(ConfigError(_brief(error)))

    threading.Thread(target=run, name="verifier-loading", daemon=True).start()
    try:
        return outcome.result(LOAD_SECONDS)
    except TimeoutError:
        raise ConfigError(f"it takes more than {LOAD_SECONDS:g} seconds") from None


def _hint(word: str, known: Iterable[str], before: str) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean `{near[0]}`?" if near else f"{before}{', '.join(sorted(known))}."


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
