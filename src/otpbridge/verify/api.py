"""All that a verifier sees. A verifier judges one kind of response; everything around it is done once, elsewhere.

Back-off, enforcement, audit and the stack are not a verifier's business: it looks at the tokens it is given, asks
for what it needs, and says what it found. It sees no store, no socket and no other user.

    @dataclass(frozen=True, kw_only=True)
    class TotpOptions:
        window: int = 1

    class Totp:
        Options = TotpOptions

        def __init__(self, options: TotpOptions) -> None:
            self._options = options

        async def verify(self, attempt: Attempt) -> Verdict:
            code = await attempt.ask(Prompt("Verification code: "))
            ...

The entry point in the group `otpbridge.verifiers` gives the verifier its name. Nothing here needs an event loop:
a verifier from another package runs in a thread of its own, where it may block (docs/verifiers.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from otpbridge.model import Context, Kind, Notice, Prompt, RelyingParty, Secret, Token, Verdict

GROUP = "otpbridge.verifiers"
"""The entry-point group in which verifiers are found."""


class Enrolment(Protocol):
    """A new token of the user of an attempt, not stored until a code has proven it."""

    @property
    def instructions(self) -> str:
        """What the person needs to set up an authenticator: a QR code where it can be drawn, and the key. Lines."""

    async def confirm(self, code: str) -> bool:
        """Prove the token with the code that the authenticator shows. After True the token is active."""


class Attempt(Protocol):
    """One attempt of one user, as a verifier sees it."""

    @property
    def now(self) -> float:
        """The time of the attempt, a Unix time in seconds."""

    @property
    def user(self) -> str:
        """The name that is to be verified, whether or not there is such a user."""

    @property
    def client(self) -> str:
        """The client (tenant) of the user; `local` for Linux accounts."""

    @property
    def context(self) -> Context:
        """What the caller said of the attempt: untrusted text."""

    def tokens(self, kind: Kind) -> Sequence[Token]:
        """The user's active tokens of one kind. For users without any there is a decoy, which never passes."""

    def secret(self, token: Token) -> Secret:
        """What is sealed with one of these tokens: the seed of a one-time password, the hash of a password."""

    async def ask(self, prompt: Prompt, *, again: bool = False) -> str:
        """The answer already given to a prompt for the same thing, if there is one; else the person's answer.

        With `again` the person is asked in any case: for a challenge that only a new answer can meet. An attempt
        that asks too often is refused.
        """

    async def tell(self, notice: Notice) -> None:
        """Tell the person something at once."""

    def tell_on_success(self, notice: Notice) -> None:
        """Tell the person something once the attempt has passed, and only then."""

    async def advance(self, token: Token, moving_factor: int, drift: int = 0) -> bool:
        """Spend a moving factor: says whether it may be spent. Only after True may a verifier say `success`.

        `drift` is kept with the token. What is spent is settled together with the verdict, in one conditional
        statement; should another attempt have been faster, this one is refused whatever the verifier said.
        """

    async def strike(self, token: Token, place: int) -> bool:
        """Spend one code of a list (`place` from 0 to 62), as `advance` spends a moving factor."""

    async def present(self, token: Token) -> bool:
        """Use a token that has nothing to spend: what proved it is bound to a challenge of this attempt alone.

        Says whether it may be used. As with `advance`, it is settled together with the verdict.
        """

    def note(self, reason: str) -> None:
        """What the audit log says of the attempt, should it be refused. Holds nothing of what was answered."""

    def random(self, length: int) -> bytes:
        """So many random bytes, for a challenge."""

    @property
    def relying_party(self) -> RelyingParty | None:
        """For whom the security keys of the user's client sign; None where the configuration does not say."""

    @property
    def reaches_keys(self) -> bool:
        """Whether a security key can be asked: in a browser, or one that is plugged in here for a login here."""

    async def assertion(self, options: str) -> str:
        """The answer of a security key (AuthenticationResponseJSON) to PublicKeyCredentialRequestOptionsJSON.

        Each question is asked anew. Empty where no key has answered.
        """

    async def enrol(self, *, trust_caller: bool = False) -> Enrolment | None:
        """Begin an enrolment, where the user must have an authenticator and has none; None for all others.

        A first factor must have passed in this attempt. With `trust_caller` it need not: the caller has seen to it.
        """


class Verifier(Protocol):
    """A judge of one kind of response.

    A class may have `Options`, a frozen dataclass: then it is made with an instance of it, else without arguments.
    It may have `factor` (model.Factor); without it, it is a second factor. It may have `first_prompt`, the prompt
    that it asks first in any case: then it is only started once the person has answered. It may have `at_once`, how
    many attempts it may work on at a time.
    """

    async def verify(self, attempt: Attempt) -> Verdict:
        """Judge the attempt."""
