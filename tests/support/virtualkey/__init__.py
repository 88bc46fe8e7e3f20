"""YubiKeys in software, and the daemon that programs reach them through; tests/devices/conftest.py says how to use.

Written from what Yubico publishes about the protocols; nothing here comes from otpbridge, ykman or yubikit.
"""
