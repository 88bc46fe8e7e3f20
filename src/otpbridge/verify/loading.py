"""Make the stacks of a configuration."""

from __future__ import annotations

from otpbridge.config import Config
from otpbridge.verify import registry
from otpbridge.verify.registry import Made
from otpbridge.verify.rules import resolve
from otpbridge.verify.stack import Stack


def load(config: Config) -> dict[str, Stack]:
    """Every stack with its verifiers. Raises ConfigError."""
    known = registry.installed()
    base: dict[str, registry.Settings] = {
        "totp": {"window": config.window.totp, "drift": config.window.drift},
        "hotp": {"look_ahead": config.window.hotp},
    }
    stacks = {}
    for name in config.rules:
        program = resolve(name, config.rules)
        made: dict[int, Made] = {}
        for rule in program.rules:
            verifier = rule.rule.verifier
            settings = {**base.get(verifier, {}), **config.verifiers.get(verifier, {})}
            made[id(rule)] = registry.make(verifier, rule.rule.options, settings, known)
        stacks[name] = Stack(program, made)
    return stacks
