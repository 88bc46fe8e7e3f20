"""The rig itself: that the stock programs see its keys as they see real ones, before other tests trust it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

YKMAN = str(Path(sys.executable).with_name("ykman"))
SEED = b"12345678901234567890"
"""Of RFC 4226, appendix D."""


def ykman(rig, *arguments, **options):
    """What the stock `ykman` prints."""
    return subprocess.run(
        [YKMAN, *arguments], env=rig.environment, text=True, capture_output=True, timeout=60, check=True, **options
    ).stdout


def test_stock_ykman_sees_a_key_and_its_credentials(rig):
    """A virtual key is a key like any other to Yubico's own command."""
    key = rig.plug(serial=12345678, version=(5, 7, 1))
    key.add("Example:alice", SEED)

    assert ykman(rig, "list").strip() == "YubiKey 5 NFC (5.7.1) [OTP+FIDO+CCID] Serial: 12345678"
    assert ykman(rig, "oath", "accounts", "list").strip() == "Example:alice"
