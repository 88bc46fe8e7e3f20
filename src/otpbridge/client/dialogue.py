"""What a conversation has come to: prompts, answers, more prompts, a verdict."""

from __future__ import annotations

from otpbridge.client.results import OnNotice, Verification, notices_of, prompts_of
from otpbridge.errors import ProtocolError, UnavailableError
from otpbridge.model import Notice, Prompt, Verdict
from otpbridge.wire.messages import Continue, StepReply


class Dialogue:
    """What both kinds of conversation know: the last step."""

    def __init__(self, on_notice: OnNotice | None) -> None:
        self._on_notice = on_notice
        self._session = ""
        self.notices: tuple[Notice, ...] = ()
        """What the person was told since the last answer."""
        self.prompts: tuple[Prompt, ...] = ()
        """What the person is asked now; empty once there is a verdict."""
        self.verdict: Verdict | None = None
        self.retry_after: int | None = None
        """Seconds until the next attempt is judged, with `maxtries`."""
        self.token: str | None = None
        """The token that was shown, with `success`."""

    @property
    def result(self) -> Verification:
        """The verdict as `verify` gives it. Raises ProtocolError while there is none."""
        if self.verdict is None:
            raise ProtocolError("the conversation has no verdict yet: answer its prompts first")
        return Verification(self.verdict, self.token, self.retry_after, self.notices)

    def _take(self, reply: StepReply) -> None:
        self._session = reply.session
        told = notices_of(reply.step)
        self.notices += told
        self.prompts = prompts_of(reply.step)
        self.verdict, self.retry_after = reply.step.verdict, reply.step.retry_after
        self.token = reply.step.token
        if self._on_notice is not None:
            for notice in told:
                self._on_notice(notice)

    @property
    def _streams(self) -> bool:
        """Whether notices are wanted at once."""
        return self._on_notice is not None

    def _check_step(self) -> None:
        if self.verdict is None and not self.prompts:
            raise ProtocolError("otpbridged neither asks nor judges: is it of the same version?")

    def _ended(self) -> UnavailableError:
        return UnavailableError("the conversation has ended: its connection is closed. Begin again")

    def _check_open(self) -> None:
        if self.verdict is not None:
            raise ProtocolError("the conversation is over: it has its verdict")

    def _continue(self, responses: tuple[str, ...]) -> Continue:
        if len(responses) != len(self.prompts):
            raise ProtocolError(f"{len(self.prompts)} prompts wait, {len(responses)} answers were given")
        self.notices, self.prompts = (), ()
        return Continue(session=self._session, responses=responses)
