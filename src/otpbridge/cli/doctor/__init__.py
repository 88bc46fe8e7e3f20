"""`otpbridge doctor`: looks an installation over and says how to mend what is wrong.

findings.py  what a check says, and where it looks
pam.py       files of pam.d: options, order, ways past the code            pure
sshd.py      the settings of sshd that PAM depends on                      pure
logins.py    reads both, and the module
daemon.py    the sockets, and what the daemon says of itself
store.py     the folder of the store, its key, the configuration, room
system.py    clock, systemd, SELinux, AppArmor, the reader service
command.py   the table of all checks, and what the admin sees
"""

from __future__ import annotations

from otpbridge.cli.doctor.command import doctor

__all__ = ["doctor"]
