"""otpbridge with a flaw: a control, to show that the rounds would find it.

    python unsafe_daemon.py FLAW /path/otpbridged --state-dir …

The product has no switch for any of these, so it is done from outside.
"""

from __future__ import annotations

import sqlite3
import sys

from otpbridge.daemon.__main__ import run
from otpbridge.store import lines, settle, writer


def _forgets(line, cursor, rows):
    """Says yes, whether or not the commit went through."""
    try:
        cursor.execute("COMMIT")
    except sqlite3.OperationalError:
        if cursor.connection.in_transaction:
            cursor.execute("ROLLBACK")


def _twice(self, cursor, attempts):
    """Lets in whoever shows a code that looks right, spent or not."""
    _SPENT(self, cursor, attempts)
    return {spend.seq for attempt in attempts for spend in attempt.spends}


_SPENT = settle.Settler._spent


def _wedged(self, batch, failure):
    """Answers nobody whose write has failed."""
    for job in batch:
        job.future = self._loop.create_future()


def _breaks(self, batch, patience):
    """Fails where nothing catches it."""
    if any(isinstance(job.work, settle.Settlement) for job in batch):
        raise SystemExit
    return _TRANSACT(self, batch, patience)


_TRANSACT = writer.Writer._transact


_FLAWS = {
    "forgets": (lines.SqliteLine, "commit", _forgets),
    "twice": (settle.Settler, "_spent", _twice),
    "breaks": (writer.Writer, "_transact", _breaks),
    "silent": (writer.Writer, "_fail", _wedged),
}


if __name__ == "__main__":
    owner, name, flawed = _FLAWS[sys.argv[1]]
    setattr(owner, name, flawed)
    # The program that would have been started is left out: it starts an interpreter of its own.
    sys.exit(run(sys.argv[3:]))
