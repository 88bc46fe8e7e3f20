"""otpbridge without what hides who is enrolled: a control, to show that tests would tell.

    python unguarded_daemon.py /path/otpbridged --state-dir …

Judges nothing where there is no token, instead of a decoy. The product has no switch for this, so it is done from
outside.
"""

from __future__ import annotations

import sys

from otpbridge.daemon.__main__ import run
from otpbridge.daemon.attempt import StoreAttempt


def _no_decoys(self, kind):
    return [stored.token for stored in self.candidate.tokens if stored.token.kind is kind]


if __name__ == "__main__":
    StoreAttempt.tokens = _no_decoys
    # The program that would have been started is left out: it starts an interpreter of its own.
    sys.exit(run(sys.argv[2:]))
