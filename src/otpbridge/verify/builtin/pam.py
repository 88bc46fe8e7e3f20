"""Judge a password by another service of PAM, so that a stack can begin with what the system knows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from otpbridge.helper.exchange import ask
from otpbridge.helper.service import PamService
from otpbridge.model import LOCAL, PASSWORD, Factor, Prompt, Verdict
from otpbridge.verify.api import Attempt

PROMPT = Prompt("Password: ", answer=PASSWORD)


@dataclass(frozen=True, kw_only=True)
class PamOptions:
    """Which service is asked, and by whom.

    pam_unix answers root alone, which the daemon is not. With `helper`, the path of its socket, the root helper asks
    the service that its own command line names; without it the daemon itself asks `service`.
    """

    service: str = "otpbridge-password"
    helper: str = ""


class Pam:
    """Accepts the password that a PAM service accepts, for Linux accounts. Blocks as long as the service does.

    Raises ConfigError where there is no such service, or no libpam.
    """

    factor: ClassVar[Factor] = Factor.FIRST
    blocks: ClassVar[bool] = True
    first_prompt: ClassVar[Prompt] = PROMPT
    Options = PamOptions

    def __init__(self, options: PamOptions) -> None:
        self._check = partial(ask, options.helper) if options.helper else PamService(options.service).check

    async def verify(self, attempt: Attempt) -> Verdict:
        """Ask for the password, and PAM whether it is right. The users of other clients are none of PAM's."""
        password = await attempt.ask(PROMPT)
        if attempt.client != LOCAL or not password:
            return Verdict.AUTH_ERR
        return self._check(attempt.user, password)
