"""Where the master key is, and when it is refused."""

from __future__ import annotations

import base64
import os
import stat

import pytest

from otpbridge.config import Key, KeySource
from otpbridge.errors import KeyMissingError, KeyUnsafeError, VaultError
from otpbridge.model import Secret
from otpbridge.vault.keys import KeyPlace, Keyring, MasterKey


@pytest.fixture
def place(tmp_path):
    """The embedded default in a private folder."""
    return KeyPlace(Key(), tmp_path, None)


def test_the_embedded_default_is_made_private_and_says_so(place, tmp_path):
    """Mode 0400, and `beside_store` so that status can warn."""
    made = place.create(os.urandom)
    assert stat.S_IMODE((tmp_path / "master.key").stat().st_mode) == 0o400
    assert place.source is KeySource.EMBEDDED
    assert place.beside_store
    assert place.load().primary.id == made.primary.id
    assert place.load().primary.secret.reveal() == made.primary.secret.reveal()


def test_a_key_file_elsewhere_is_not_beside_the_store(tmp_path):
    """[key] file takes the key to another disk."""
    (tmp_path / "store").mkdir()
    place = KeyPlace(Key(file=tmp_path / "k"), tmp_path / "store", None)
    assert place.source is KeySource.FILE
    assert not place.beside_store
    place.create(os.urandom)
    assert place.load().previous == ()


def test_a_file_that_openssl_wrote_is_a_key(place):
    """`openssl rand -base64 32` is all that is needed."""
    place.path.write_bytes(base64.b64encode(b"k" * 32) + b"\n")
    place.path.chmod(0o400)
    assert place.load().primary.secret.reveal() == b"k" * 32


def test_a_rotation_under_way_has_two_keys(place):
    """The first seals, both open."""
    new, old = (MasterKey.of(Secret(os.urandom(32))) for _ in range(2))
    place.save(Keyring(new, (old,)))
    found = place.load()
    assert (found.primary.id, found.previous[0].id) == (new.id, old.id)
    assert found.find(old.id).secret.reveal() == old.secret.reveal()
    assert found.find(b"none") is None


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644, 0o420, 0o402])
def test_a_key_that_others_can_read_is_refused(place, mode):
    """A key that may have been read is worth nothing: the daemon says so and what to do."""
    place.create(os.urandom)
    place.path.chmod(mode)
    with pytest.raises(KeyUnsafeError, match="chmod 0400"):
        place.load()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(place):
    """Who owns the file can change it."""
    place.create(os.urandom)
    os.chown(place.path, 12345, 12345)
    with pytest.raises(KeyUnsafeError, match="belongs to uid 12345"):
        place.load()


def test_a_link_is_not_followed(place, tmp_path):
    """Nobody points the daemon at another file."""
    (tmp_path / "real").write_bytes(base64.b64encode(b"k" * 32))
    place.path.symlink_to(tmp_path / "real")
    with pytest.raises(KeyUnsafeError):
        place.load()


def test_a_fifo_does_not_hang_the_start(place):
    """Not a regular file: refused at once."""
    os.mkfifo(place.path, 0o400)
    with pytest.raises(KeyUnsafeError, match="regular file"):
        place.load()


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"short\n", b"!" * 44, b"A" * 5000])
def test_a_file_without_a_key_is_told_without_its_content(place, content):
    """The error names the file and line and shows nothing of it."""
    place.path.write_bytes(content)
    place.path.chmod(0o400)
    with pytest.raises(VaultError) as caught:
        place.load()
    assert str(place.path) in str(caught.value)
    assert "short" not in str(caught.value)


def test_a_missing_key_is_told(place):
    """Not there: put it back."""
    with pytest.raises(KeyMissingError, match="Put the key back"):
        place.load()


def test_the_systemd_credential_comes_first(tmp_path):
    """`auto` takes the credential when the unit has one."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    auto = KeyPlace(Key(), tmp_path, str(credentials))
    assert auto.source is KeySource.EMBEDDED
    (credentials / "master-key").write_bytes(base64.b64encode(b"c" * 32))
    place = KeyPlace(Key(), tmp_path, str(credentials))
    assert place.source is KeySource.CREDENTIAL
    assert not place.writable
    assert not place.beside_store
    assert place.load().primary.secret.reveal() == b"c" * 32


def test_the_next_credential_seals_and_the_present_one_still_opens(tmp_path):
    """How a credential is rotated: both are given for a while."""
    (tmp_path / "master-key").write_bytes(base64.b64encode(b"c" * 32))
    (tmp_path / "master-key-next").write_bytes(base64.b64encode(b"n" * 32))
    ring = KeyPlace(Key(), tmp_path / "store", str(tmp_path)).load()
    assert ring.primary.secret.reveal() == b"n" * 32
    assert [key.secret.reveal() for key in ring.previous] == [b"c" * 32]


def test_a_wanted_credential_that_is_not_there_is_no_reason_to_make_a_key(tmp_path):
    """The credential is the admin's to make; the message gives the command."""
    with pytest.raises(KeyMissingError, match="LoadCredentialEncrypted"):
        KeyPlace(Key(source=KeySource.CREDENTIAL), tmp_path, None)
    place = KeyPlace(Key(source=KeySource.CREDENTIAL), tmp_path, str(tmp_path / "none"))
    with pytest.raises(KeyMissingError, match="systemd-creds encrypt"):
        place.create(os.urandom)


def test_a_folder_that_cannot_be_written_leaves_no_half_a_key(tmp_path):
    """An error, and nothing in the folder."""
    place = KeyPlace(Key(file=tmp_path / "none" / "k"), tmp_path, None)
    with pytest.raises(VaultError, match="cannot be written"):
        place.create(os.urandom)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_entered_is_told(tmp_path, monkeypatch):
    """No traceback, and no new key made because the old one was out of reach."""

    def refuse(self, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "stat", refuse)
    with pytest.raises(KeyUnsafeError, match="Permission denied"):
        KeyPlace(Key(), tmp_path, str(tmp_path))
