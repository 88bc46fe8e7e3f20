"""All that a verifier sees. A verifier judges one kind of response; everything around it is done once, elsewhere.

Back-off, enforcement, audit and the stack are not a verifier's business: it looks at the tokens it is given, asks
for what it needs, and says what it found. It sees no store, no socket and no other user.

    class Totp:
        name = "totp"

        async def verify(self, attempt: Attempt) -> Verdict:
            code = await attempt.ask(Prompt("Verification code: "))
            ...

A verifier may only await what its attempt offers, so nothing here needs an event loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

from otpbridge.model import Kind, Notice, Prompt, Secret, Token, Verdict


class Attempt(Protocol):
    """One attempt of one user, as a verifier sees it."""

    @property
    def now(self) -> float:
        """The time of the attempt, a Unix time in seconds."""

    def tokens(self, kind: Kind) -> Sequence[Token]:
        """The user's active tokens of one kind. For users without any there is a decoy, which never passes."""

    def seed(self, token: Token) -> Secret:
        """The seed of one of these tokens."""

    async def ask(self, prompt: Prompt) -> str:
        """The response already given, if there is one; else the person's answer to the prompt."""

    async def tell(self, notice: Notice) -> None:
        """Tell the person something at once."""

    async def advance(self, token: Token, moving_factor: int, drift: int) -> bool:
        """Spend a moving factor: says whether it may be spent. Only after True may a verifier say `success`.

        `drift` is kept with the token. What is spent is settled together with the verdict, in one conditional
        statement; should another attempt have been faster, this one is refused whatever the verifier said.
        """


class Verifier(Protocol):
    """A judge of one kind of response."""

    name: ClassVar[str]

    async def verify(self, attempt: Attempt) -> Verdict:
        """Judge the attempt."""
