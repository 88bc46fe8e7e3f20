"""Who may do what, and when a login passes without a code."""

from __future__ import annotations

import asyncio

import pytest

from otpbridge.config import Right, UnknownUsers, parse
from otpbridge.daemon import policy
from otpbridge.daemon.policy import Authority, Rights
from otpbridge.errors import ConfigError
from otpbridge.model import Caller, Enforcement, Verdict

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


@pytest.mark.parametrize(
    ("enforcement", "has_token", "unknown", "nullok", "passes"),
    [
        (None, False, REFUSE, False, False),
        (None, False, REFUSE, True, True),
        (None, False, IGNORE, False, True),
        (OPTIONAL, False, REFUSE, False, True),
        (OPTIONAL, True, REFUSE, False, False),
        (OPTIONAL, True, IGNORE, True, False),
        (REQUIRED, False, REFUSE, False, False),
        (REQUIRED, False, IGNORE, True, False),
        (REQUIRED, True, IGNORE, True, False),
    ],
)
def test_only_a_decision_of_the_admin_lets_pass_unasked(enforcement, has_token, unknown, nullok, passes):
    """`required` never passes unasked, whatever nullok and the configuration say of unknown users."""
    reason = policy.passes_unasked(enforcement, has_token=has_token, unknown=unknown, nullok=nullok)
    assert (reason is not None) is passes


@pytest.mark.parametrize(
    ("enforcement", "has_token", "expected"),
    [
        (OPTIONAL, True, Verdict.IGNORE),
        (OPTIONAL, False, Verdict.AUTH_ERR),
        (REQUIRED, True, Verdict.AUTH_ERR),
        (REQUIRED, False, Verdict.AUTH_ERR),
        (None, False, Verdict.AUTH_ERR),
    ],
)
def test_an_empty_answer_passes_only_who_need_not_show_a_code(enforcement, has_token, expected):
    """The how-to's NOT REQUIRED with an empty field."""
    assert policy.on_empty_answer(enforcement, has_token=has_token)[0] is expected


@pytest.mark.parametrize(
    ("enforcement", "has_token", "unasked", "expected"),
    [
        (REQUIRED, True, None, Verdict.SUCCESS),
        (OPTIONAL, True, None, Verdict.SUCCESS),
        (REQUIRED, False, None, Verdict.PERM_DENIED),
        (None, False, None, Verdict.PERM_DENIED),
        (OPTIONAL, False, "optional, no token", Verdict.IGNORE),
        (None, False, "nullok", Verdict.IGNORE),
    ],
)
def test_the_account_phase_refuses_who_could_not_have_shown_a_code(enforcement, has_token, unasked, expected):
    """A public key alone does not get a `required` user in who has no token."""
    assert policy.account(enforcement, has_token=has_token, unasked=unasked)[0] is expected
