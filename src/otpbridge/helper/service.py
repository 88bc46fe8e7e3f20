"""Check a password against a PAM service, with python-pam.

python-pam gives one password to every prompt that hides its answer and answers no other, so the service has to ask
for a password and for nothing else.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from otpbridge.errors import ConfigError
from otpbridge.model import Verdict

LONGEST_USER = 256
"""Bytes."""
LONGEST_PASSWORD = 511
"""Bytes: libpam takes 512 with the NUL (PAM_MAX_RESP_SIZE), and pam_unix cuts off what is longer."""

_FOLDERS = ("/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d", "/usr/etc/pam.d")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class PamService:
    """One service of PAM.

    Raises ConfigError where it does not exist (libpam would ask the service `other` in its place, without a word),
    or where libpam or python-pam is missing.
    """

    def __init__(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"PAM service {name!r}: a name has letters, digits, dots and dashes")
        if not any(Path(folder, name).is_file() for folder in _FOLDERS):
            raise ConfigError(f"PAM service {name}: no such file in {_FOLDERS[0]}; make it, or name another service")
        try:
            pam: Any = import_module("pam")  # only those who use it need libpam
            pam.PamAuthenticator()
        except (ImportError, OSError, AttributeError) as error:
            raise ConfigError(
                f"PAM service {name}: libpam cannot be loaded ({type(error).__name__}); install libpam and python-pam"
            ) from None
        self._pam = pam
        self._name = name.encode()
        self._refused = frozenset(
            {
                pam.PAM_AUTH_ERR,
                pam.PAM_USER_UNKNOWN,
                pam.PAM_MAXTRIES,
                pam.PAM_PERM_DENIED,
                pam.PAM_ACCT_EXPIRED,
                pam.PAM_AUTHTOK_EXPIRED,
                pam.PAM_NEW_AUTHTOK_REQD,
                pam.PAM_CRED_EXPIRED,
            }
        )

    def check(self, user: str, password: str) -> Verdict:
        """`success` where both the authentication and the account phase of the service pass.

        `auth_err` for all that is about the user or the password, an expired one among it; `authinfo_unavail` where
        PAM could not judge. Blocks as long as the service does.
        """
        if not is_plausible(user, password):
            return Verdict.AUTH_ERR
        # One for each check, as it may not be shared by threads. Latin-1, because what a module says is decoded
        # where an error would be lost. The credentials are the login's to set, not this process's.
        authenticator = self._pam.PamAuthenticator()
        if authenticator.authenticate(
            user.encode(), password.encode(), self._name, encoding="latin-1", resetcreds=False
        ):
            return Verdict.SUCCESS
        return Verdict.AUTH_ERR if authenticator.code in self._refused else Verdict.AUTHINFO_UNAVAIL


def is_plausible(user: str, password: str) -> bool:
    """Whether these can be a name and a password at all: neither is empty, too long or has a NUL in it."""
    try:
        name, secret = user.encode(), password.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(name) <= LONGEST_USER and 0 < len(secret) <= LONGEST_PASSWORD and b"\0" not in name + secret
