"""otpauth:// URIs, the text of an enrolment QR (Google Authenticator's "Key URI format").

What is built is read alike by Google Authenticator, WinAuth, Yubico Authenticator, ykman and pyotp: all
parameters written out, `Issuer:account` as the label with `issuer=` beside it, no `image=` (WinAuth would
fetch it). What is parsed may come from elsewhere: a label may hold what authenticators misread, as the token
is already in one; anything that could change the codes is refused unless it is understood.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

from otpbridge.enroll.names import check_names, check_text
from otpbridge.enroll.seeds import check_length, from_base32, to_base32
from otpbridge.errors import EnrolError
from otpbridge.model import Algorithm, Kind, OtpParameters, Secret

LONGEST = 4096
"""Characters of the longest URI that is read."""
PERIODS = range(15, 901)
DIGITS = range(6, 9)
_COUNTERS = range(2**63)
_NAMES_LONGEST = 256
_DECORATION = frozenset({"image", "icon", "color", "lock"})
_KNOWN = frozenset({"secret", "issuer", "algorithm", "digits", "period", "counter"})
_KINDS = {kind.value: kind for kind in (Kind.TOTP, Kind.HOTP)}
_ALGORITHMS = {algorithm.value: algorithm for algorithm in Algorithm}


@dataclass(frozen=True, slots=True)
class OtpauthKey:
    """What an otpauth URI says. `counter` is the next moving factor of an HOTP token, 0 for TOTP."""

    kind: Kind
    secret: Secret
    parameters: OtpParameters
    account: str
    issuer: str = ""
    counter: int = 0


def check_parameters(parameters: OtpParameters) -> None:
    """Raise EnrolError unless there are 6 to 8 digits and a period of 15 to 900 seconds."""
    if parameters.digits not in DIGITS:
        raise EnrolError("digits must be 6, 7 or 8")
    if parameters.period not in PERIODS:
        raise EnrolError(f"period must be {PERIODS.start} to {PERIODS.stop - 1} seconds")


def build(key: OtpauthKey) -> str:
    """Write the URI that authenticators scan.

    Raises EnrolError when some authenticator would misread the account or issuer, or could not compute the
    codes. The URI holds the seed: show it to its owner and keep it nowhere.
    """
    parameters = key.parameters
    if key.kind.value not in _KINDS:
        raise EnrolError(f"a {key.kind} token has no otpauth URI")
    check_parameters(parameters)
    check_length(key.secret.reveal())
    check_names(key.kind, key.account, key.issuer, parameters.period)
    if parameters.t0:
        raise EnrolError("an otpauth URI cannot say a T0 other than 0")
    return write(key, f"{escape(key.issuer)}:" if key.issuer else "")


def write(key: OtpauthKey, before: str = "") -> str:
    """The URI of a key, whatever authenticators make of its names; `before` stands before the account."""
    parameters = key.parameters
    fields = [f"secret={to_base32(key.secret)}"]
    if key.issuer:
        fields.append(f"issuer={escape(key.issuer)}")
    fields += [f"algorithm={parameters.algorithm.value}", f"digits={parameters.digits}"]
    fields.append(
        f"period={parameters.period}" if key.kind is Kind.TOTP else f"counter={key.counter}",
    )
    return f"otpauth://{key.kind.value}/{before}{escape(key.account)}?{'&'.join(fields)}"


def escape(text: str) -> str:
    """Text as a part of a URI."""
    return quote(text, safe="@")


def parse(uri: str) -> OtpauthKey:
    """Read an otpauth URI.

    Raises EnrolError saying what is wrong; the message holds nothing of the URI, as any part of a URI that is
    wrong may be its seed. `image`, `icon`, `color` and `lock` mean nothing to the codes and are passed over.
    """
    if len(uri) > LONGEST:
        raise EnrolError(f"the URI is longer than {LONGEST} characters")
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.lower() != "otpauth":
        raise EnrolError("this is not an otpauth URI; it must start with otpauth://totp/ or otpauth://hotp/")
    path, _, query = rest.partition("?")
    kind_text, slash, label = path.partition("/")
    kind = _KINDS.get(kind_text.lower())
    if not slash or kind is None:
        raise EnrolError("the URI must start with otpauth://totp/ or otpauth://hotp/")
    fields = _fields(query)
    account, issuer = _names(_unescape(label), fields.get("issuer"))
    if "secret" not in fields:
        raise EnrolError("the URI has no secret")
    if kind is Kind.HOTP and "counter" not in fields:
        raise EnrolError("the URI has no counter, which hotp needs")
    parameters = OtpParameters(
        algorithm=_algorithm(fields.get("algorithm", "SHA1")),
        digits=_whole(fields, "digits", 6, DIGITS, "6, 7 or 8"),
        period=_whole(fields, "period", 30, PERIODS, "15 to 900 seconds") if kind is Kind.TOTP else 30,
    )
    counter = _whole(fields, "counter", 0, _COUNTERS, "a whole number") if kind is Kind.HOTP else 0
    return OtpauthKey(kind, from_base32(fields["secret"]), parameters, account, issuer, counter)


def _fields(query: str) -> dict[str, str]:
    """Split the query; a parameter given twice or not known is an error."""
    fields: dict[str, str] = {}
    for part in query.partition("#")[0].split("&"):
        name, _, value = part.partition("=")
        name = name.lower()
        if name in _DECORATION or not part:
            continue
        if name not in _KNOWN:
            raise EnrolError(f"the URI has a parameter that is not known; known are {', '.join(sorted(_KNOWN))}")
        if name in fields:
            raise EnrolError(f"the URI has {name} twice")
        fields[name] = _unescape(value)
    return fields


def _unescape(text: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise EnrolError("the URI holds bytes that are not UTF-8") from None


def _names(label: str, issuer: str | None) -> tuple[str, str]:
    """Read account and issuer: the parameter, else what stands before the first colon of the label."""
    prefix, colon, account = label.partition(":")
    if not colon:
        prefix, account = "", label
    account = account.strip(" ")
    issuer = (prefix if issuer is None else issuer).strip(" ")
    if not account:
        raise EnrolError("the URI has no account name")
    check_text(account, "account name")
    check_text(issuer, "issuer")
    if len(account) > _NAMES_LONGEST or len(issuer) > _NAMES_LONGEST:
        raise EnrolError(f"account name and issuer must not be longer than {_NAMES_LONGEST} characters")
    return account, issuer


def _algorithm(text: str) -> Algorithm:
    algorithm = _ALGORITHMS.get(text.upper())
    if algorithm is None:
        raise EnrolError("algorithm must be SHA1, SHA256 or SHA512")
    return algorithm


def _whole(fields: dict[str, str], name: str, default: int, allowed: range, words: str) -> int:
    text = fields.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) in allowed):
        raise EnrolError(f"{name} must be {words}")
    return int(text)
