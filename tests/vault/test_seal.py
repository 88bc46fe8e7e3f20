"""What is sealed opens only whole, in its place, under its key."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpbridge.errors import SealBrokenError
from otpbridge.model import Algorithm, Kind, OtpParameters, Secret, State, Token
from otpbridge.vault.keys import Keyring, MasterKey
from otpbridge.vault.seal import Vault, derive, token_identity

TOKEN = Token("abcd", "alice", "local", Kind.TOTP, State.ACTIVE, OtpParameters())


def a_key():
    """A new master key."""
    return MasterKey.of(Secret(os.urandom(32)))


def a_vault(*previous):
    """A vault with a new primary key."""
    return Vault(Keyring(a_key(), previous), os.urandom)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_seed_comes_back_under_its_identity(seed, identity):
    """Seal, then open: the same bytes."""
    vault = a_vault()
    assert vault.open(vault.seal(Secret(seed), identity), identity).reveal() == seed


def test_the_same_seed_never_seals_alike():
    """Two records do not tell that they hold the same seed."""
    vault = a_vault()
    one, other = (vault.seal(Secret(b"x" * 20), b"id") for _ in range(2))
    assert one != other
    assert one[21:] != other[21:]
    assert b"x" * 8 not in one


@pytest.mark.parametrize(
    "changed",
    [
        TOKEN._replace(id="abce"),
        TOKEN._replace(user="mallory"),
        TOKEN._replace(client="acme"),
        TOKEN._replace(kind=Kind.HOTP),
        TOKEN._replace(parameters=OtpParameters(algorithm=Algorithm.SHA256)),
        TOKEN._replace(parameters=OtpParameters(digits=8)),
        TOKEN._replace(parameters=OtpParameters(period=60)),
        TOKEN._replace(parameters=OtpParameters(t0=1)),
        TOKEN._replace(id="abcda", user="lice"),
    ],
)
def test_a_row_that_was_moved_or_edited_does_not_open(changed):
    """Copying a sealed seed to another token, user, kind or parameter set gives nothing."""
    vault = a_vault()
    sealed = vault.seal(Secret(b"x" * 20), token_identity(TOKEN))
    with pytest.raises(SealBrokenError, match="does not open"):
        vault.open(sealed, token_identity(changed))


def test_what_may_change_in_a_row_does_not_break_its_seal():
    """State, drift and counters are not part of a token's identity."""
    changed = TOKEN._replace(state=State.DISABLED, drift=3, moving_factor=9, label="phone")
    assert token_identity(changed) == token_identity(TOKEN)


@given(st.integers(min_value=0, max_value=8 * 57 - 1))
def test_no_bit_of_a_record_can_be_changed(bit):
    """Version, key id, salt, ciphertext and tag are all covered."""
    vault = a_vault()
    sealed = bytearray(vault.seal(Secret(b"x" * 20), b"id"))
    sealed[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(SealBrokenError):
        vault.open(bytes(sealed), b"id")


@pytest.mark.parametrize("length", [0, 1, 21, 36])
def test_a_cut_record_is_refused(length):
    """Too short to be a record: a clear error, no crash."""
    with pytest.raises(SealBrokenError, match="damaged"):
        a_vault().open(bytes([1]) * length, b"id")


def test_another_key_is_named_in_the_error():
    """The admin sees which key is wanted and which is here; neither is secret."""
    sealed = a_vault().seal(Secret(b"x" * 20), b"id")
    other = a_vault()
    with pytest.raises(SealBrokenError) as caught:
        other.open(sealed, b"id")
    assert sealed[1:5].hex() in str(caught.value)
    assert other.keyring.primary.id.hex() in str(caught.value)


def test_a_previous_key_still_opens_but_does_not_seal():
    """While keys rotate both open; what is sealed now is under the new one."""
    old = a_vault()
    sealed = old.seal(Secret(b"x" * 20), b"id")
    vault = a_vault(old.keyring.primary)
    assert vault.open(sealed, b"id").reveal() == b"x" * 20
    assert vault.seal(Secret(b"y"), b"id")[1:5] == vault.keyring.primary.id


def test_derived_keys_differ_by_purpose():
    """The audit key tells nothing of the backup key."""
    root = Secret(b"r" * 32)
    assert derive(root, "audit").reveal() != derive(root, "backup").reveal()
    assert derive(root, "audit").reveal() == derive(root, "audit").reveal()


def test_a_secret_does_not_show():
    """repr, str, format and pickle give nothing away."""
    import pickle

    secret = Secret(b"hunter2")
    assert repr(secret) == str(secret) == f"{secret}" == "Secret(***)"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
