"""Who may do what, and when a login passes without a code."""

from __future__ import annotations

import asyncio

import pytest

from otpbridge.config import Policy, Right, UnknownUsers, parse
from otpbridge.daemon import policy
from otpbridge.daemon.policy import Authority, Circumstances, Rights
from otpbridge.errors import ConfigError
from otpbridge.model import Caller, Enforcement, Kind, OtpParameters, State, Token, User, Verdict
from otpbridge.store.store import Candidate
from otpbridge.store.tokens import StoredToken
from otpbridge.verify.stack import Mode

UIDS = {"alice": 1000, "bob": 1001, "portal": 2000, "root": 0}
OWN = 999

CONFIG = parse(
    """
    [[callers]]
    user = "portal"
    clients = ["acme"]
    may = ["verify"]
    [[callers]]
    user = 2001
    clients = ["acme", "globex"]
    may = ["verify", "enrol"]
    """
)


def authority(uid, client, user, right, *, admin_socket=False):
    """What a uid is to a user."""
    rights = Rights(CONFIG, OWN, UIDS.get)
    return asyncio.run(rights.authority(Caller(uid, uid, 1, admin_socket=admin_socket), client, user, right))


@pytest.mark.parametrize(
    ("uid", "client", "user", "right", "expected"),
    [
        (0, "local", "alice", Right.VERIFY, Authority.ADMIN),
        (OWN, "acme", "x", Right.ENROL, Authority.ADMIN),
        (1000, "local", "alice", Right.VERIFY, Authority.SELF),
        (1000, "local", "alice", Right.ENROL, Authority.SELF),
        (1000, "local", "bob", Right.VERIFY, Authority.NONE),
        (1000, "local", "nobody", Right.VERIFY, Authority.NONE),
        (1000, "acme", "alice", Right.VERIFY, Authority.NONE),
        (2000, "acme", "x", Right.VERIFY, Authority.CALLER),
        (2000, "acme", "x", Right.ENROL, Authority.NONE),
        (2000, "globex", "x", Right.VERIFY, Authority.NONE),
        (2000, "local", "alice", Right.VERIFY, Authority.NONE),
        (2000, "local", "portal", Right.VERIFY, Authority.SELF),
        (2001, "globex", "x", Right.ENROL, Authority.CALLER),
    ],
)
def test_each_caller_may_what_it_was_given(uid, client, user, right, expected):
    """Root and the daemon are admin; a configured caller has its clients; everyone has themselves."""
    assert authority(uid, client, user, right) is expected


def test_the_admin_socket_is_admin():
    """The kernel let them open it."""
    assert authority(1001, "acme", "x", Right.ENROL, admin_socket=True) is Authority.ADMIN


def test_a_caller_that_does_not_exist_is_an_error_at_start():
    """A misspelt system user is not silently without rights."""
    with pytest.raises(ConfigError, match="no system user prtal"):
        Rights(parse('[[callers]]\nuser = "prtal"'), OWN, UIDS.get)


REQUIRED, OPTIONAL = Enforcement.REQUIRED, Enforcement.OPTIONAL
REFUSE, IGNORE = UnknownUsers.REFUSE, UnknownUsers.IGNORE
NOW = 1_800_000_000
PLAIN = Policy()


def user(enforcement=None, **fields):
    """A user of client `local`."""
    return User("alice", "local", enforcement, **fields)


def candidate(known, *kinds):
    """What the store says of a user with active tokens of these kinds."""
    tokens = (Token(kind, "alice", "local", kind, State.ACTIVE, OtpParameters()) for kind in kinds)
    return Candidate(known, tuple(StoredToken(token, place, b"") for place, token in enumerate(tokens, 1)))


def stands(found, held=PLAIN, *, known=REFUSE, nullok=False, **about):
    """What policy makes of an attempt."""
    return policy.standing(found, held, NOW, Circumstances(known, nullok, **about))


NOBODY = candidate(None)


@pytest.mark.parametrize(
    ("found", "known", "nullok", "mode"),
    [
        (NOBODY, REFUSE, False, Mode.ASK),
        (NOBODY, REFUSE, True, Mode.WAIVED),
        (NOBODY, IGNORE, False, Mode.WAIVED),
        (candidate(user(OPTIONAL)), REFUSE, False, Mode.WAIVED),
        (candidate(user(OPTIONAL), Kind.PASSWORD), REFUSE, False, Mode.WAIVED),
        (candidate(user(OPTIONAL), Kind.TOTP), REFUSE, False, Mode.ASK),
        (candidate(user(OPTIONAL), Kind.TOTP), IGNORE, True, Mode.ASK),
        (candidate(user(REQUIRED)), REFUSE, False, Mode.ASK),
        (candidate(user(REQUIRED)), IGNORE, True, Mode.ASK),
        (candidate(user(REQUIRED), Kind.TOTP), IGNORE, True, Mode.ASK),
    ],
)
def test_only_a_decision_of_the_admin_lets_pass_unasked(found, known, nullok, mode):
    """`required` never passes unasked, whatever nullok and the configuration say of unknown users."""
    assert stands(found, known=known, nullok=nullok).mode is mode


@pytest.mark.parametrize(
    ("found", "may_decline"),
    [
        (candidate(user(OPTIONAL), Kind.HOTP), True),
        (candidate(user(REQUIRED), Kind.HOTP), False),
        (candidate(user(REQUIRED)), False),
        (NOBODY, False),
        (candidate(user(OPTIONAL, locked_at=1), Kind.HOTP), False),
    ],
)
def test_only_who_need_not_show_a_code_may_leave_it_out(found, may_decline):
    """The how-to's NOT REQUIRED with an empty field."""
    assert stands(found).may_decline is may_decline


def test_what_was_set_for_a_user_goes_before_what_policy_says():
    """A user for whom nothing was set follows the policy, both ways."""
    strict = Policy(enforcement=REQUIRED)
    assert stands(candidate(user()), PLAIN).mode is Mode.WAIVED
    assert stands(candidate(user()), strict).mode is Mode.ASK
    assert stands(candidate(user(OPTIONAL)), strict).mode is Mode.WAIVED
    assert stands(candidate(user(REQUIRED)), PLAIN).mode is Mode.ASK


@pytest.mark.parametrize(
    "about",
    [{"trusted": "10.0.0.0/8"}, {"group": "robots"}, {"grace": True}],
    ids=["trusted network", "exempt group", "grace"],
)
def test_exemptions_waive_the_second_factor_but_not_a_lock(about):
    """Whatever exempts a user, a locked one is asked and refused."""
    found = candidate(user(REQUIRED), Kind.TOTP)
    assert stands(found).mode is Mode.ASK
    assert stands(found, **about).mode is Mode.WAIVED
    assert stands(candidate(user(REQUIRED, locked_at=1), Kind.TOTP), **about).mode is Mode.ASK


def test_an_exemption_ends_by_itself():
    """To the second."""
    for until, mode in ((NOW + 1, Mode.WAIVED), (NOW, Mode.ASK), (NOW - 1, Mode.ASK)):
        assert stands(candidate(user(REQUIRED, exempt_until=until), Kind.TOTP)).mode is mode
    locked = user(REQUIRED, exempt_until=NOW + 1, locked_at=1)
    assert stands(candidate(locked, Kind.TOTP)).mode is Mode.ASK


@pytest.mark.parametrize(
    ("found", "mode"),
    [
        (candidate(user(REQUIRED)), Mode.ENROL),
        (candidate(user(REQUIRED), Kind.PASSWORD), Mode.ENROL),
        (candidate(user(REQUIRED), Kind.REGISTRATION), Mode.ASK),
        (candidate(user(REQUIRED), Kind.RECOVERY), Mode.ASK),
        (candidate(user(REQUIRED), Kind.YUBIOTP), Mode.ASK),
        (candidate(user(OPTIONAL)), Mode.WAIVED),
        (candidate(user(OPTIONAL), Kind.REGISTRATION), Mode.ASK),
        (candidate(user(OPTIONAL), Kind.RECOVERY), Mode.WAIVED),
        (candidate(user(REQUIRED, locked_at=1)), Mode.ASK),
        (NOBODY, Mode.ASK),
    ],
)
def test_only_who_must_have_an_authenticator_and_has_none_enrols_at_login(found, mode):
    """Nobody else is shown a key: not a stranger, not a locked user, not one with a code that stands in."""
    assert stands(found, enrols=True).mode is mode


@pytest.mark.parametrize(
    ("source", "inside"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::7", True),
        ("11.1.2.3", False),
        ("2001:db9::7", False),
        ("ten.example", False),
        ("10.1.2.3.example", False),
        ("10.1.2.3 ", False),
        ("010.1.2.3", False),
        ("", False),
    ],
)
def test_a_trusted_network_holds_addresses_and_no_names(source, inside):
    """A name is never resolved, so it is in no network, whatever it looks like."""
    held = Policy(trusted_networks=("10.0.0.0/8", "2001:db8::/32"))
    assert (policy.trusted_network(source, held) is not None) is inside


@pytest.mark.parametrize(
    ("found", "about", "expected"),
    [
        (candidate(user(REQUIRED), Kind.TOTP), {}, Verdict.SUCCESS),
        (candidate(user(OPTIONAL), Kind.TOTP), {}, Verdict.SUCCESS),
        (candidate(user(REQUIRED)), {}, Verdict.PERM_DENIED),
        (candidate(user(REQUIRED), Kind.PASSWORD), {}, Verdict.PERM_DENIED),
        (candidate(user(REQUIRED), Kind.REGISTRATION), {}, Verdict.SUCCESS),
        (NOBODY, {}, Verdict.PERM_DENIED),
        (candidate(user(OPTIONAL)), {}, Verdict.IGNORE),
        (NOBODY, {"nullok": True}, Verdict.IGNORE),
        (candidate(user(REQUIRED), Kind.TOTP), {"trusted": "10.0.0.0/8"}, Verdict.IGNORE),
        (candidate(user(REQUIRED, exempt_until=NOW + 60)), {}, Verdict.IGNORE),
        (candidate(user(REQUIRED, locked_at=1), Kind.TOTP), {}, Verdict.ACCT_EXPIRED),
        (candidate(user(OPTIONAL, locked_at=1)), {"group": "robots"}, Verdict.ACCT_EXPIRED),
    ],
)
def test_the_account_phase_refuses_who_could_not_have_shown_a_code(found, about, expected):
    """A public key alone gets neither a locked user in nor a `required` one without an authenticator."""
    assert policy.account(found, stands(found, **about), NOW, seen=False, wanted=False)[0] is expected


@pytest.mark.parametrize(
    ("found", "seen", "expected"),
    [
        (candidate(user(REQUIRED), Kind.TOTP), True, Verdict.SUCCESS),
        (candidate(user(REQUIRED), Kind.TOTP), False, Verdict.PERM_DENIED),
        (candidate(user(OPTIONAL), Kind.TOTP), False, Verdict.SUCCESS),
        (candidate(user(OPTIONAL)), False, Verdict.IGNORE),
    ],
)
def test_the_account_phase_can_ask_that_a_code_was_shown(found, seen, expected):
    """Where policy wants it: a key that skipped the code does not get in."""
    assert policy.account(found, stands(found), NOW, seen=seen, wanted=True)[0] is expected


@pytest.mark.parametrize(
    ("kind", "changes", "usable"),
    [
        (Kind.REGISTRATION, {}, True),
        (Kind.REGISTRATION, {"moving_factor": 1}, False),
        (Kind.REGISTRATION, {"expires_at": NOW}, False),
        (Kind.RECOVERY, {"moving_factor": 0b1_1111_1111}, True),
        (Kind.RECOVERY, {"moving_factor": 0b11_1111_1111}, False),
    ],
)
def test_a_code_that_is_spent_stands_in_for_nothing(kind, changes, usable):
    """The account phase lets nobody in for it, and who has nothing else may enrol at login."""
    found = candidate(user(REQUIRED), kind)
    (stored,) = found.tokens
    found = Candidate(found.user, (StoredToken(stored.token._replace(**changes), 1, b""),))
    verdict = Verdict.SUCCESS if usable else Verdict.PERM_DENIED
    assert policy.account(found, stands(found), NOW, seen=False, wanted=False)[0] is verdict
    assert policy.account(found, stands(found), NOW, seen=True, wanted=False)[0] is Verdict.SUCCESS
    assert stands(found, enrols=True).mode is (Mode.ASK if usable else Mode.ENROL)
