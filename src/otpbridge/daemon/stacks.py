"""The stacks of a configuration, ready to be run."""

from __future__ import annotations

import logging
from dataclasses import replace

from otpbridge.config import DEFAULT_STACK, Config
from otpbridge.daemon.outside import Shelter
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
    """All stacks by name. Raises ConfigError where a rule cannot be read.

    `shelter` is that of the stacks before these, where there were any: what they left behind is still there.
    """

    def __init__(self, config: Config, shelter: Shelter | None = None) -> None:
        self.shelter = shelter or Shelter()
        loaded = load(config)
        self.faults = sorted({made.fault for stack in loaded.values() for made in stack.made.values() if made.fault})
        for fault in self.faults:
            log.error("%s", fault)
        seconds = float(config.limits.verifier)
        self._stacks = {name: self._sheltered(stack, seconds) for name, stack in loaded.items()}

    def choose(self, named: str | None, service: str) -> Stack:
        """The stack that is named, else the one named like the service, else `default`. Raises UnknownStackError."""
        if named is not None:
            if named not in self._stacks:
                raise UnknownStackError(named)
            return self._stacks[named]
        return self._stacks.get(service) or self._stacks[DEFAULT_STACK]

    def _sheltered(self, stack: Stack, seconds: float) -> Stack:
        """The stack with its verifiers that may block kept off the event loop."""
        made = {place: self.shelter.over(each, seconds) for place, each in stack.made.items()}
        return replace(stack, made=made)
