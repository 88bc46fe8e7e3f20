"""The calls and replies of the org.otpbridge.* interfaces as types; a test holds them to the IDL files.

A call is a `Request` that knows its method and its reply:

    reply = client.call(AddUser(user="alice"))      # -> UserReply

Python names are snake_case, JSON names camelCase. Left-out fields and null mean the same.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from otpbridge.model import Algorithm, Deed, Enforcement, Kind, MetricKind, NoticeStyle, PromptStyle, State, Verdict

VERIFY = "org.otpbridge.Verify"
ENROLL = "org.otpbridge.Enroll"
ADMIN = "org.otpbridge.Admin"
NOTICES = "org.otpbridge.Notices"
RELAY = "org.otpbridge.Relay"
METRICS = "org.otpbridge.Metrics"


class Message(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all that crosses the wire. Its repr names the type alone: fields may hold codes and seeds."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


R = TypeVar("R", bound=Message)


class Request(Message, Generic[R], forbid_unknown_fields=True):
    """Parameters of one method."""

    METHOD: ClassVar[str]
    REPLY: ClassVar[type[Message]]


class Empty(Message):
    """A reply without fields."""


def of(interface: str) -> list[type[Request[Any]]]:
    """All calls of an interface."""
    here = [kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, Request)]
    return [kind for kind in here if getattr(kind, "METHOD", "").rpartition(".")[0] == interface]


# --- org.otpbridge.Verify ---------------------------------------------------------------------------------


class ContextFields(Message, forbid_unknown_fields=True):
    service: str | None = None
    rhost: str | None = None
    tty: str | None = None
    ruser: str | None = None
    language: str | None = None


class PromptFields(Message):
    style: PromptStyle
    text: str
    answer: str


class NoticeFields(Message):
    style: NoticeStyle
    text: str
    name: str | None = None
    count: int | None = None


class Span(Message):
    start: int
    length: int


class Step(Message):
    notices: tuple[NoticeFields, ...]
    prompts: tuple[PromptFields, ...]
    verdict: Verdict | None = None
    retry_after: int | None = None
    code: Span | None = None
    token: str | None = None


class CheckReply(Message):
    verdict: Verdict
    notices: tuple[NoticeFields, ...]
    token: str | None = None
    retry_after: int | None = None
    code: Span | None = None


class Check(Request[CheckReply]):
    METHOD = f"{VERIFY}.Check"
    REPLY = CheckReply
    user: str
    responses: tuple[str, ...]
    client: str | None = None
    stack: str | None = None
    context: ContextFields | None = None
    combined: bool | None = None
    nullok: bool | None = None


class StepReply(Message):
    session: str
    step: Step


class Begin(Request[StepReply]):
    METHOD = f"{VERIFY}.Begin"
    REPLY = StepReply
    user: str
    client: str | None = None
    stack: str | None = None
    context: ContextFields | None = None
    combined: bool | None = None
    nullok: bool | None = None
    webauthn: bool | None = None


class Continue(Request[StepReply]):
    METHOD = f"{VERIFY}.Continue"
    REPLY = StepReply
    session: str
    responses: tuple[str, ...]


class Cancel(Request[Empty]):
    METHOD = f"{VERIFY}.Cancel"
    REPLY = Empty
    session: str


class AccountReply(Message):
    verdict: Verdict


class Account(Request[AccountReply]):
    METHOD = f"{VERIFY}.Account"
    REPLY = AccountReply
    user: str
    client: str | None = None
    stack: str | None = None
    context: ContextFields | None = None
    nullok: bool | None = None


# --- org.otpbridge.Enroll ---------------------------------------------------------------------------------


class TokenFields(Message):
    id: str
    user: str
    client: str
    kind: Kind
    state: State
    label: str
    issuer: str
    drift: int
    created_at: int
    algorithm: Algorithm | None = None
    digits: int | None = None
    period: int | None = None
    codes_left: int | None = None
    expires_at: int | None = None
    confirmed_at: int | None = None
    last_used_at: int | None = None
    serials: tuple[str, ...] | None = None


class StartReply(Message):
    token: str
    user: str
    client: str
    kind: Kind
    state: State
    seed_hex: str
    expires_in: int
    seed_base32: str | None = None
    uri: str | None = None
    public_id: str | None = None
    private_id: str | None = None


class Start(Request[StartReply]):
    METHOD = f"{ENROLL}.Start"
    REPLY = StartReply
    user: str
    kind: Kind
    client: str | None = None
    label: str | None = None
    issuer: str | None = None
    algorithm: Algorithm | None = None
    digits: int | None = None
    period: int | None = None
    reason: str | None = None


class ConfirmReply(Message):
    confirmed: bool
    state: State
    replaced: tuple[str, ...]
    fault: str | None = None
    hint: str | None = None


class Confirm(Request[ConfirmReply]):
    METHOD = f"{ENROLL}.Confirm"
    REPLY = ConfirmReply
    token: str
    code: str
    serials: tuple[str, ...] | None = None


class StartFido2Reply(Message):
    token: str
    user: str
    client: str
    label: str
    options: str
    origin: str
    expires_in: int


class StartFido2(Request[StartFido2Reply]):
    METHOD = f"{ENROLL}.StartFido2"
    REPLY = StartFido2Reply
    user: str
    client: str | None = None
    label: str | None = None
    reason: str | None = None


class FinishFido2Reply(Message):
    confirmed: bool
    replaced: tuple[str, ...]
    hint: str | None = None


class FinishFido2(Request[FinishFido2Reply]):
    METHOD = f"{ENROLL}.FinishFido2"
    REPLY = FinishFido2Reply
    token: str
    credential: str


class Discard(Request[Empty]):
    METHOD = f"{ENROLL}.Discard"
    REPLY = Empty
    token: str


class RecoveryCodesReply(Message):
    token: str
    codes: tuple[str, ...]


class NewRecoveryCodes(Request[RecoveryCodesReply]):
    METHOD = f"{ENROLL}.NewRecoveryCodes"
    REPLY = RecoveryCodesReply
    user: str
    client: str | None = None


class SetPasswordReply(Message):
    token: str


class SetPassword(Request[SetPasswordReply]):
    METHOD = f"{ENROLL}.SetPassword"
    REPLY = SetPasswordReply
    user: str
    password: str
    client: str | None = None


class TokensReply(Message):
    enforcement: Enforcement
    tokens: tuple[TokenFields, ...]


class Tokens(Request[TokensReply]):
    METHOD = f"{ENROLL}.Tokens"
    REPLY = TokensReply
    user: str
    client: str | None = None


class Remove(Request[Empty]):
    METHOD = f"{ENROLL}.Remove"
    REPLY = Empty
    token: str
    reason: str | None = None


class ChooseEnforcement(Request[Empty]):
    METHOD = f"{ENROLL}.SetEnforcement"
    REPLY = Empty
    user: str
    enforcement: Enforcement
    client: str | None = None
    reason: str | None = None


class AccountEvent(Message):
    at: float
    event: Deed
    let_in: bool | None = None
    kind: Kind | None = None
    label: str | None = None
    service: str | None = None
    rhost: str | None = None
    host: str | None = None
    enforcement: Enforcement | None = None


class ActivityReply(Message):
    events: tuple[AccountEvent, ...]


class Activity(Request[ActivityReply]):
    METHOD = f"{ENROLL}.Activity"
    REPLY = ActivityReply
    user: str
    client: str | None = None
    count: int | None = None


class ManagedUser(Message):
    name: str
    client: str
    enforcement: Enforcement
    locked: bool
    created_at: int
    active_tokens: int
    own: Enforcement | None = None
    retry_after: int | None = None


class ManagedUsersReply(Message):
    users: tuple[ManagedUser, ...]


class ManagedUsers(Request[ManagedUsersReply]):
    METHOD = f"{ENROLL}.Users"
    REPLY = ManagedUsersReply
    client: str | None = None
    after: str | None = None
    count: int | None = None


class ManagedUserReply(Message):
    user: ManagedUser


class ShowManagedUser(Request[ManagedUserReply]):
    METHOD = f"{ENROLL}.ShowUser"
    REPLY = ManagedUserReply
    user: str
    client: str | None = None


class AddManagedUser(Request[ManagedUserReply]):
    METHOD = f"{ENROLL}.AddUser"
    REPLY = ManagedUserReply
    user: str
    client: str | None = None
    reason: str | None = None


class RemoveManagedUser(Request[Empty]):
    METHOD = f"{ENROLL}.RemoveUser"
    REPLY = Empty
    user: str
    client: str | None = None
    reason: str | None = None


class ResetReply(Message):
    revoked: int


class Reset(Request[ResetReply]):
    METHOD = f"{ENROLL}.Reset"
    REPLY = ResetReply
    user: str
    client: str | None = None
    keep_enforcement: bool | None = None
    reason: str | None = None


class RegistrationCodeReply(Message):
    token: str
    code: str
    expires_at: int


class Invite(Request[RegistrationCodeReply]):
    METHOD = f"{ENROLL}.Invite"
    REPLY = RegistrationCodeReply
    user: str
    client: str | None = None
    seconds: int | None = None
    reason: str | None = None


# --- org.otpbridge.Admin ----------------------------------------------------------------------------------


class UserFields(Message):
    name: str
    client: str
    enforcement: Enforcement
    locked: bool
    created_at: int
    active_tokens: int
    misses: int
    refused: int
    own: Enforcement | None = None
    exempt_until: int | None = None
    retry_after: int | None = None


class UserReply(Message):
    user: UserFields


class AddUser(Request[UserReply]):
    METHOD = f"{ADMIN}.AddUser"
    REPLY = UserReply
    user: str
    client: str | None = None


class ShowUserReply(Message):
    user: UserFields
    tokens: tuple[TokenFields, ...]


class ShowUser(Request[ShowUserReply]):
    METHOD = f"{ADMIN}.ShowUser"
    REPLY = ShowUserReply
    user: str
    client: str | None = None


class RemoveUser(Request[Empty]):
    METHOD = f"{ADMIN}.RemoveUser"
    REPLY = Empty
    user: str
    client: str | None = None


class UsersReply(Message):
    users: tuple[UserFields, ...]


class ListUsers(Request[UsersReply]):
    METHOD = f"{ADMIN}.ListUsers"
    REPLY = UsersReply
    client: str | None = None


class SetEnforcement(Request[UserReply]):
    METHOD = f"{ADMIN}.SetEnforcement"
    REPLY = UserReply
    user: str
    enforcement: Enforcement | None = None
    client: str | None = None
    force: bool | None = None
    reason: str | None = None


class ResetUser(Request[ResetReply]):
    METHOD = f"{ADMIN}.ResetUser"
    REPLY = ResetReply
    user: str
    client: str | None = None
    keep_enforcement: bool | None = None


class ExemptUser(Request[UserReply]):
    METHOD = f"{ADMIN}.ExemptUser"
    REPLY = UserReply
    user: str
    client: str | None = None
    seconds: int | None = None
    reason: str | None = None


class LockUser(Request[UserReply]):
    METHOD = f"{ADMIN}.LockUser"
    REPLY = UserReply
    user: str
    client: str | None = None
    reason: str | None = None


class UnlockUser(Request[UserReply]):
    METHOD = f"{ADMIN}.UnlockUser"
    REPLY = UserReply
    user: str
    client: str | None = None


class IssueRegistrationCode(Request[RegistrationCodeReply]):
    METHOD = f"{ADMIN}.IssueRegistrationCode"
    REPLY = RegistrationCodeReply
    user: str
    client: str | None = None
    seconds: int | None = None


class ExplainedRule(Message):
    stack: str
    number: int
    level: int
    rule: str
    reached: bool
    why: str
    on_success: str
    on_failure: str
    verdict: str | None = None


class ExplainStackReply(Message):
    stack: str
    policy: str
    rules: tuple[ExplainedRule, ...]
    ways: tuple[str, ...]


class ExplainStack(Request[ExplainStackReply]):
    METHOD = f"{ADMIN}.ExplainStack"
    REPLY = ExplainStackReply
    user: str
    client: str | None = None
    stack: str | None = None
    service: str | None = None
    rhost: str | None = None


class TokenListReply(Message):
    tokens: tuple[TokenFields, ...]


class ListTokens(Request[TokenListReply]):
    METHOD = f"{ADMIN}.ListTokens"
    REPLY = TokenListReply
    user: str | None = None
    client: str | None = None
    all: bool | None = None


class TokenReply(Message):
    token: TokenFields


class ShowToken(Request[TokenReply]):
    METHOD = f"{ADMIN}.ShowToken"
    REPLY = TokenReply
    token: str


class DisableToken(Request[TokenReply]):
    METHOD = f"{ADMIN}.DisableToken"
    REPLY = TokenReply
    token: str


class EnableToken(Request[TokenReply]):
    METHOD = f"{ADMIN}.EnableToken"
    REPLY = TokenReply
    token: str


class RemoveToken(Request[TokenReply]):
    METHOD = f"{ADMIN}.RemoveToken"
    REPLY = TokenReply
    token: str


class ResyncReply(Message):
    resynced: bool


class Resync(Request[ResyncReply]):
    METHOD = f"{ADMIN}.Resync"
    REPLY = ResyncReply
    token: str
    first: str
    second: str


class LineError(Message):
    line: int
    reason: str


class ImportReply(Message):
    imported: int
    errors: tuple[LineError, ...]


class Import(Request[ImportReply]):
    METHOD = f"{ADMIN}.Import"
    REPLY = ImportReply
    lines: tuple[str, ...]
    first_line: int
    last: bool
    client: str | None = None
    pending: bool | None = None


class StatusReply(Message):
    version: str
    ready: bool
    started_at: int
    store: str
    schema: str
    key_source: str
    key_id: str
    key_beside_store: bool
    rotating: bool
    users: int
    active_tokens: int
    audit_entries: int
    audit_anchor: str
    warnings: tuple[str, ...]


class Status(Request[StatusReply]):
    METHOD = f"{ADMIN}.Status"
    REPLY = StatusReply


class Entry(Message):
    sequence: int
    at: float
    event: str
    client: str | None = None
    user: str | None = None
    token: str | None = None
    verdict: str | None = None
    reason: str | None = None
    stack: str | None = None
    uid: int | None = None
    pid: int | None = None
    service: str | None = None
    rhost: str | None = None
    host: str | None = None
    detail: dict[str, Any] | None = None


class AuditTailReply(Message):
    entries: tuple[Entry, ...]


class AuditTail(Request[AuditTailReply]):
    METHOD = f"{ADMIN}.AuditTail"
    REPLY = AuditTailReply
    count: int | None = None
    follow: bool | None = None


class AuditVerifyReply(Message):
    intact: bool
    entries: int
    begins: str
    anchor: str
    fault: str | None = None


class AuditVerify(Request[AuditVerifyReply]):
    METHOD = f"{ADMIN}.AuditVerify"
    REPLY = AuditVerifyReply
    anchor: str | None = None


class AuditExportReply(Message):
    data: str


class AuditExport(Request[AuditExportReply]):
    METHOD = f"{ADMIN}.AuditExport"
    REPLY = AuditExportReply
    before: int | None = None


class AuditPruneReply(Message):
    file: str | None = None
    first: int | None = None
    last: int | None = None


class AuditPrune(Request[AuditPruneReply]):
    METHOD = f"{ADMIN}.AuditPrune"
    REPLY = AuditPruneReply
    before: int


class ArchivedRow(Message, forbid_unknown_fields=True):
    sequence: int
    entry: str
    mac: str


class AuditCheckRowsReply(Message):
    begins: str
    fault: str | None = None


class AuditCheckRows(Request[AuditCheckRowsReply]):
    METHOD = f"{ADMIN}.AuditCheckRows"
    REPLY = AuditCheckRowsReply
    anchor: str
    rows: tuple[ArchivedRow, ...]


class RotateKeyReply(Message):
    resealed: int
    total: int
    key_id: str


class RotateKey(Request[RotateKeyReply]):
    METHOD = f"{ADMIN}.RotateKey"
    REPLY = RotateKeyReply


class IssueRelayReply(Message):
    certificate: str
    authority: str
    serial: str
    expires_at: int
    known: bool


class IssueRelay(Request[IssueRelayReply]):
    METHOD = f"{ADMIN}.IssueRelay"
    REPLY = IssueRelayReply
    host: str
    request: str
    days: int | None = None


class RevokeRelayReply(Message):
    revoked: int
    closed: int


class RevokeRelay(Request[RevokeRelayReply]):
    METHOD = f"{ADMIN}.RevokeRelay"
    REPLY = RevokeRelayReply
    host: str
    serial: str | None = None


class RelayCertificate(Message):
    host: str
    serial: str
    issued_at: int
    connections: int
    expires_at: int | None = None
    revoked_at: int | None = None


class ListRelaysReply(Message):
    certificates: tuple[RelayCertificate, ...]


class ListRelays(Request[ListRelaysReply]):
    METHOD = f"{ADMIN}.ListRelays"
    REPLY = ListRelaysReply


class Centre(Message):
    address: str
    reachable: bool
    connections: int
    fault: str | None = None


class RelayStatusReply(Message):
    version: str
    started_at: int
    host: str
    serial: str
    expires_at: int
    centres: tuple[Centre, ...]
    warnings: tuple[str, ...]


class RelayStatus(Request[RelayStatusReply]):
    METHOD = f"{ADMIN}.RelayStatus"
    REPLY = RelayStatusReply


class BackupReply(Message):
    data: str


class Backup(Request[BackupReply]):
    METHOD = f"{ADMIN}.Backup"
    REPLY = BackupReply


# --- org.otpbridge.Metrics --------------------------------------------------------------------------------


class Series(Message):
    labels: tuple[str, ...]
    value: float | None = None
    counts: tuple[int, ...] | None = None
    sum: float | None = None


class Family(Message):
    name: str
    kind: MetricKind
    help: str
    labels: tuple[str, ...]
    series: tuple[Series, ...]
    bounds: tuple[float, ...] | None = None


class ReadReply(Message):
    families: tuple[Family, ...]


class Read(Request[ReadReply]):
    METHOD = f"{METRICS}.Read"
    REPLY = ReadReply


# --- org.otpbridge.Notices --------------------------------------------------------------------------------


class Event(Message):
    sequence: int
    at: float
    event: str
    text: str
    client: str
    user: str | None = None
    token: str | None = None
    kind: str | None = None
    label: str | None = None
    by: int | None = None
    service: str | None = None
    rhost: str | None = None
    host: str | None = None
    detail: dict[str, Any] | None = None


class WatchReply(Message):
    events: tuple[Event, ...]
    sequence: int


class Watch(Request[WatchReply]):
    METHOD = f"{NOTICES}.Watch"
    REPLY = WatchReply
    after: int | None = None
    client: str | None = None


# --- org.otpbridge.Relay ----------------------------------------------------------------------------------


class Origin(Message, forbid_unknown_fields=True):
    uid: int
    pid: int
    own: bool


class HelloReply(Message):
    host: str
    version: str


class Hello(Request[HelloReply]):
    METHOD = f"{RELAY}.Hello"
    REPLY = HelloReply


class RelayedCheck(Check, kw_only=True):
    METHOD = f"{RELAY}.Check"
    origin: Origin


class RelayedBegin(Begin, kw_only=True):
    METHOD = f"{RELAY}.Begin"
    origin: Origin


class RelayedContinue(Continue):
    METHOD = f"{RELAY}.Continue"


class RelayedCancel(Cancel):
    METHOD = f"{RELAY}.Cancel"


class RelayedAccount(Account, kw_only=True):
    METHOD = f"{RELAY}.Account"
    origin: Origin
