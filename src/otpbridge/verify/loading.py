"""Make the stacks of a configuration."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from otpbridge.config import Config
from otpbridge.errors import ConfigError
from otpbridge.verify import registry
from otpbridge.verify.registry import Installed, Made, OptionError, Settings
from otpbridge.verify.rules import Placed, resolve
from otpbridge.verify.stack import Stack


def load(config: Config) -> dict[str, Stack]:
    """Every stack with its verifiers. Raises ConfigError that says what is wrong, and where in the file."""
    known = registry.installed()
    stacks = {}
    for name in config.rules:
        program = resolve(name, config.rules)
        stacks[name] = Stack(program, {id(rule): _made(rule, config, known) for rule in program.rules})
    used = {rule.rule.verifier for stack in stacks.values() for rule in stack.program.rules}
    for name in config.verifiers:
        if name not in used:
            _check_unused(name, config, known)
    return stacks


def _made(rule: Placed, config: Config, known: Mapping[str, Installed]) -> Made:
    """The verifier of a rule, with the options of the rule over those of the configuration."""
    name, given = rule.rule.verifier, rule.rule.options
    try:
        return registry.make(name, given, _settings(name, config), known)
    except OptionError as error:
        common = config.verifiers.get(name, {})
        if error.option in given or (given and error.option is None) or not common:
            raise ConfigError(f"{rule.where}: {error}", rule.place) from None
        raise _wrong(name, config, error) from None


def _check_unused(name: str, config: Config, known: Mapping[str, Installed]) -> None:
    """Refuse options of a verifier that no rule uses where they are wrong, or of none at all: a typo, most likely."""
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean `{near[0]}`?" if near else f"Installed: {', '.join(sorted(known))}."
        raise ConfigError(f"[verifiers.{name}]: there is no verifier `{name}`. {hint}", ("verifiers", name))
    try:
        registry.make(name, {}, _settings(name, config), known)
    except OptionError as error:
        raise _wrong(name, config, error) from None


def _wrong(name: str, config: Config, error: OptionError) -> ConfigError:
    """An error about the options that hold for every rule."""
    inner = (error.option,) if error.option in config.verifiers[name] else ()
    return ConfigError(f"[verifiers.{name}]: {error}", ("verifiers", name, *inner))


def _settings(name: str, config: Config) -> Settings:
    """The options of a verifier for every rule that does not give them itself."""
    base: dict[str, Settings] = {
        "totp": {"window": config.window.totp, "drift": config.window.drift},
        "hotp": {"look_ahead": config.window.hotp},
    }
    return {**base.get(name, {}), **config.verifiers.get(name, {})}


def widest_window(config: Config) -> int:
    """The largest `window` (time steps) with which a rule judges TOTP codes."""
    rules = [rule.rule for name in config.rules for rule in resolve(name, config.rules).rules]
    said = [rule.options.get("window") for rule in rules if rule.verifier == "totp"]
    said.append(str(config.verifiers.get("totp", {}).get("window")))
    # What is no number here is none to the daemon either, which does not start with it.
    return max([config.window.totp, *(int(width) for width in said if width is not None and width.isdecimal())])
