"""Hardware keys. Nothing else here imports ykman, yubikit, smartcard or fido2, and none of their types leaves."""
