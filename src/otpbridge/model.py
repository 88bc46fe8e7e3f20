"""The domain in plain frozen types: what the words of the documentation mean in code.

Times are Unix times: `*_at` in whole seconds, `*_ms` in milliseconds. Nothing here does I/O.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

LOCAL = "local"
"""The client (tenant) that Linux accounts belong to."""


class Kind(enum.StrEnum):
    """What a token is."""

    TOTP = "totp"
    HOTP = "hotp"
    YUBIOTP = "yubiotp"
    FIDO2 = "fido2"
    """A security key or passkey (WebAuthn)."""
    RECOVERY = "recovery"
    """A list of codes, each of which is spent once."""
    REGISTRATION = "registration"
    """One code that stands in for an authenticator until its time is up."""
    PASSWORD = "password"  # noqa: S105 - a kind, not a password


AUTHENTICATORS = frozenset({Kind.TOTP, Kind.HOTP, Kind.YUBIOTP, Kind.FIDO2})
"""What a user can be required to have as a second factor.

Recovery and registration codes only stand in for one, and a password is the first factor.
"""


class Factor(enum.Enum):
    """What a verifier's success stands for."""

    FIRST = "first"
    """What the person knows: asked for whatever policy says of the second factor."""
    SECOND = "second"
    """What the person has: left out where policy asks for none."""
    NEITHER = "neither"
    """Nothing: `permit` and `deny`."""


class State(enum.StrEnum):
    """Where a token is in its life: pending → active ⇄ disabled → revoked."""

    PENDING = "pending"
    ACTIVE = "active"
    DISABLED = "disabled"
    REVOKED = "revoked"


class Enforcement(enum.StrEnum):
    """Whether a user must show a second factor (the how-to's REQUIRED and NOT REQUIRED)."""

    REQUIRED = "required"
    OPTIONAL = "optional"


class Verdict(enum.StrEnum):
    """The outcome of a verification, named as PAM names it (pam(3))."""

    SUCCESS = "success"
    AUTH_ERR = "auth_err"
    MAXTRIES = "maxtries"
    ACCT_EXPIRED = "acct_expired"
    NEW_AUTHTOK_REQD = "new_authtok_reqd"
    PERM_DENIED = "perm_denied"
    USER_UNKNOWN = "user_unknown"
    AUTHINFO_UNAVAIL = "authinfo_unavail"
    IGNORE = "ignore"


class Algorithm(enum.StrEnum):
    """The HMAC hash of a one-time password (RFC 4226 §5.2, RFC 6238 §1.2)."""

    SHA1 = "SHA1"
    SHA256 = "SHA256"
    SHA512 = "SHA512"

    @property
    def seed_bytes(self) -> int:
        """Length of a new seed in bytes: the size of the hash's output (RFC 4226 §4 R6, RFC 6238 §5.1)."""
        return {Algorithm.SHA1: 20, Algorithm.SHA256: 32, Algorithm.SHA512: 64}[self]


class Happening(enum.StrEnum):
    """What people are told of as it happens (org.otpbridge.Notices)."""

    TOKEN_CONFIRMED = "token_confirmed"  # noqa: S105 - as the others that begin so: a name
    TOKEN_DISABLED = "token_disabled"  # noqa: S105
    TOKEN_ENABLED = "token_enabled"  # noqa: S105
    TOKEN_REVOKED = "token_revoked"  # noqa: S105
    TOKENS_IMPORTED = "tokens_imported"
    RECOVERY_CODES_MADE = "recovery_codes_made"
    RECOVERY_CODE_USED = "recovery_code_used"
    REGISTRATION_CODE_ISSUED = "registration_code_issued"
    REGISTRATION_CODE_USED = "registration_code_used"
    PASSWORD_SET = "password_set"  # noqa: S105
    USER_RESET = "user_reset"
    USER_LOCKED = "user_locked"
    USER_UNLOCKED = "user_unlocked"
    USER_EXEMPTED = "user_exempted"
    EXEMPTION_ENDED = "exemption_ended"
    ENFORCEMENT_SET = "enforcement_set"
    BACKOFF_BEGAN = "backoff_began"
    USER_REMOVED = "user_removed"


class Deed(enum.StrEnum):
    """What the person may know of what happened to their account (Enroll.Activity)."""

    LOGIN = "login"
    TOKEN_CONFIRMED = Happening.TOKEN_CONFIRMED.value
    TOKEN_DISABLED = Happening.TOKEN_DISABLED.value
    TOKEN_ENABLED = Happening.TOKEN_ENABLED.value
    TOKEN_REVOKED = Happening.TOKEN_REVOKED.value
    RECOVERY_CODES_MADE = Happening.RECOVERY_CODES_MADE.value
    REGISTRATION_CODE_ISSUED = Happening.REGISTRATION_CODE_ISSUED.value
    PASSWORD_SET = Happening.PASSWORD_SET.value
    USER_RESET = Happening.USER_RESET.value
    USER_LOCKED = Happening.USER_LOCKED.value
    USER_UNLOCKED = Happening.USER_UNLOCKED.value
    USER_EXEMPTED = Happening.USER_EXEMPTED.value
    EXEMPTION_ENDED = Happening.EXEMPTION_ENDED.value
    ENFORCEMENT_SET = Happening.ENFORCEMENT_SET.value


class MetricKind(enum.StrEnum):
    """What the numbers of a metric are (Prometheus, Metric types)."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Secret:
    """Bytes that never show: not in a repr, not in a format, not in a pickle."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The bytes themselves; call it where they are used and nowhere else."""
        return self._value

    def __len__(self) -> int:
        return len(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> str:
        raise TypeError("a Secret cannot be pickled")


@dataclass(frozen=True, slots=True)
class OtpParameters:
    """How a token computes its codes. `period` and `t0` (seconds) mean nothing to HOTP."""

    algorithm: Algorithm = Algorithm.SHA1
    digits: int = 6
    period: int = 30
    t0: int = 0


class Token(NamedTuple):
    """One authenticator bound to a user, without its seed.

    `moving_factor` is the lowest value that may still be spent: the next HOTP counter, or the TOTP time step
    after the last one spent. `drift` is the learnt difference of the authenticator's clock, in time steps.
    """

    id: str
    user: str
    client: str
    kind: Kind
    state: State
    parameters: OtpParameters
    moving_factor: int = 0
    drift: int = 0
    label: str = ""
    issuer: str = ""
    created_at: int = 0
    expires_at: int | None = None
    confirmed_at: int | None = None
    last_used_at: int | None = None
    serials: tuple[str, ...] = ()
    """Of the hardware keys that it was put on, each of which has shown that it computes its codes."""


@dataclass(frozen=True, slots=True)
class User:
    """A name within a client. `enforcement` is what was set for this user; None: what policy says holds.

    `notice` is what the person is told at the next login.
    """

    name: str
    client: str
    enforcement: Enforcement | None = None
    locked_at: int | None = None
    exempt_until: int | None = None
    notice: str | None = None
    created_at: int = 0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the kernel's word (SO_PEERCRED), and through which socket.

    With `host`, it is the word of that relay, and uid and pid mean something on that host alone.
    """

    uid: int
    gid: int
    pid: int
    admin_socket: bool = False
    host: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """What the caller says about the attempt. Untrusted text: shown, counted, never resolved or believed."""

    service: str = ""
    rhost: str = ""
    tty: str = ""
    ruser: str = ""
    language: str = ""


class PromptStyle(enum.StrEnum):
    """How the person answers: whether it is shown while it is typed, or with a security key."""

    HIDDEN = "hidden"
    VISIBLE = "visible"
    WEBAUTHN = "webauthn"
    """For a browser: the text is PublicKeyCredentialRequestOptionsJSON, the answer AuthenticationResponseJSON."""


class NoticeStyle(enum.StrEnum):
    """What a notice is for."""

    INFO = "info"
    ERROR = "error"
    TOUCH = "touch"


CODE = "code"
PASSWORD = "password"  # noqa: S105 - the name of an answer
PIN = "pin"
WEBAUTHN = "webauthn"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question to the person.

    `answer` names what is asked for. What was answered once is not asked for again in the same attempt, so one
    answer serves every verifier that asks for it (PAM's try_first_pass). `notice` is what the person needs in order
    to answer: lines that are shown with the question wherever that is shown.
    """

    text: str
    style: PromptStyle = PromptStyle.HIDDEN
    answer: str = CODE
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the person is told.

    `name` says what it is, and `count` the number that it speaks of, for who has words of their own for it.
    """

    text: str
    style: NoticeStyle = NoticeStyle.INFO
    name: str = ""
    count: int | None = None


class UserVerification(enum.StrEnum):
    """Whether a security key must see to it who uses it, by PIN or fingerprint (WebAuthn §5.8.6)."""

    REQUIRED = "required"
    PREFERRED = "preferred"
    DISCOURAGED = "discouraged"


@dataclass(frozen=True, slots=True)
class RelyingParty:
    """For whom a security key signs (WebAuthn §4).

    `id` is a host name, `origins` are the pages (`https://host`, with a port where there is one) on which it may be
    used: each of that host or below it.
    """

    id: str
    name: str
    origins: tuple[str, ...]
    user_verification: UserVerification = UserVerification.DISCOURAGED


class Outcome(NamedTuple):
    """A verdict with what goes with it. `reason` is for the audit log alone.

    `code` is where the code stood in an answer that was password and code in one (start and length in bytes).
    """

    verdict: Verdict
    reason: str
    token: str | None = None
    retry_after: int | None = None
    notices: tuple[Notice, ...] = ()
    code: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Backoff:
    """When attempts are judged after wrong codes. Times in milliseconds.

    The first `limit` wrong codes in a row are judged at once. After the last of them, and after each further one,
    nothing is judged for a time that starts at `first_wait` and doubles up to `longest_wait`. A success ends the
    row, and every `forget` without a miss takes one miss off it.
    """

    limit: int
    first_wait: int
    longest_wait: int
    forget: int

    def remaining(self, misses: int, last: int, now: int) -> int:
        """The misses that still count at `now`, of `misses` counted at `last`."""
        return max(0, misses - max(0, now - last) // self.forget)

    def wait(self, misses: int) -> int:
        """How long nothing is judged after the miss that makes it `misses` in a row."""
        beyond = misses - self.limit
        return 0 if beyond < 0 else min(self.longest_wait, self.first_wait << min(beyond, 30))

    def blocked_for(self, not_before: int, now: int) -> int:
        """How long from `now` until an attempt is judged. A wait longer than the longest is a stepped clock."""
        left = not_before - now
        return left if 0 < left <= self.longest_wait else 0


@dataclass(frozen=True, slots=True)
class ThrottleState:
    """What back-off knows of one user or source."""

    misses: int = 0
    refused: int = 0
    last: int = 0
    not_before: int = 0


class AuditEvent(NamedTuple):
    """Something that was decided or changed, before it becomes a row of the audit log."""

    event: str
    client: str | None = None
    user: str | None = None
    token: str | None = None
    verdict: Verdict | None = None
    reason: str | None = None
    uid: int | None = None
    pid: int | None = None
    service: str | None = None
    rhost: str | None = None
    detail: dict[str, str | int | bool] | None = None
    host: str | None = None
    """The relay that it came through, and that says what uid, pid, service and rhost are."""
    stack: str | None = None
    """The stack of verifiers that came to the verdict."""
