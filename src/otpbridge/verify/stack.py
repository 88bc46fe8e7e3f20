"""Evaluate a stack: which verifiers are asked, in what order, and what their verdicts amount to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from otpbridge.errors import OtpBridgeError
from otpbridge.model import Verdict
from otpbridge.verify.api import Attempt, Verifier

log = logging.getLogger(__name__)

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Stack:
    """A named list of verifiers of which one has to pass, as PAM's `sufficient` does it."""

    name: str
    verifiers: Sequence[Verifier]

    async def evaluate(self, attempt: Attempt) -> Verdict:
        """The verdict of the stack on one attempt. A verifier that fails does not pass, and the others go on."""
        worst = Verdict.AUTH_ERR
        for verifier in self.verifiers:
            verdict = await _judge(verifier, attempt)
            if verdict is Verdict.SUCCESS:
                return verdict
            if verdict is Verdict.AUTHINFO_UNAVAIL:
                worst = verdict
        return worst


async def _judge(verifier: Verifier, attempt: Attempt) -> Verdict:
    try:
        return await verifier.verify(attempt)
    except Exception as error:  # noqa: BLE001 - whatever a verifier raises is a refusal
        # Only our own messages are known to hold no secret.
        detail = f": {error}" if isinstance(error, OtpBridgeError) else ""
        log.error("verifier %s failed: %s%s", verifier.name, type(error).__name__, detail)  # noqa: TRY400
        return Verdict.AUTHINFO_UNAVAIL
