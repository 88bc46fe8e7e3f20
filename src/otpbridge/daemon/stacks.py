"""The stacks of a configuration, ready to be run."""

from __future__ import annotations

import logging
from dataclasses import replace

from otpbridge.config import DEFAULT_STACK, Config
from otpbridge.daemon.outside import Outside
from otpbridge.errors import OtpBridgeError
from otpbridge.verify.loading import load
from otpbridge.verify.stack import Stack

log = logging.getLogger(__name__)


class UnknownStackError(OtpBridgeError):
    """There is no stack of that name."""

    def __init__(self, stack: str) -> None:
        self.stack = stack
        super().__init__(f"there is no stack {stack}; add it to otpbridge.toml as [stacks.{stack}]")


class Stacks:
    """All stacks by name. Raises ConfigError where a rule cannot be read."""

    def __init__(self, config: Config) -> None:
        self._stacks = load(config)
        self.faults = sorted({m.fault for stack in self._stacks.values() for m in stack.made.values() if m.fault})
        for fault in self.faults:
            log.error("%s", fault)
        for stack in self._stacks.values():
            self._shelter(stack, float(config.limits.verifier))

    def choose(self, named: str | None, service: str) -> Stack:
        """The stack that is named, else the one named like the service, else `default`. Raises UnknownStackError."""
        if named is not None:
            if named not in self._stacks:
                raise UnknownStackError(named)
            return self._stacks[named]
        return self._stacks.get(service) or self._stacks[DEFAULT_STACK]

    @staticmethod
    def _shelter(stack: Stack, seconds: float) -> None:
        """Keep verifiers that may block off the event loop."""
        assert isinstance(stack.made, dict)
        for place, made in stack.made.items():
            if not made.direct:
                stack.made[place] = replace(made, verifier=Outside(made, seconds))
