"""Judge without looking: `permit` and `deny`, as PAM has pam_permit and pam_deny."""

from __future__ import annotations

from typing import ClassVar

from otpbridge.model import Factor, Verdict
from otpbridge.verify.api import Attempt


class Permit:
    """Says `success` and asks nothing."""

    factor: ClassVar[Factor] = Factor.NEITHER

    async def verify(self, attempt: Attempt) -> Verdict:
        """`success`."""
        return Verdict.SUCCESS


class Deny:
    """Says `auth_err` and asks nothing."""

    factor: ClassVar[Factor] = Factor.NEITHER

    async def verify(self, attempt: Attempt) -> Verdict:
        """`auth_err`."""
        return Verdict.AUTH_ERR
