"""The command line, or the daemon, on a machine whose security keys are soft keys.

    python softkey_program.py cli --run-dir … enroll fido2 alice
    python softkey_program.py daemon /path/otpbridged --state-dir …

With TEST_MACHINE, whoever calls the daemon is process 500 of the /proc and among the sessions in that folder. The
product has no switch for any of this, so it is done from outside.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import softkey_wire

from otpbridge.cli.main import main
from otpbridge.daemon import local_keys
from otpbridge.daemon.__main__ import run
from otpbridge.daemon.locality import why_remote
from otpbridge.devices import fido_find

CALLER = 500


def _why_remote(caller, context, services):
    machine = Path(os.environ["TEST_MACHINE"])
    found = replace(caller, pid=CALLER)
    return why_remote(found, context, services, proc=machine / "proc", sessions=machine / "sessions")


if __name__ == "__main__":
    fido_find.plugged = softkey_wire.plugged
    local_keys._ALIVE_SECONDS = 0.1
    if "TEST_MACHINE" in os.environ:
        local_keys.why_remote = _why_remote
    what, *arguments = sys.argv[1:]
    if what == "daemon":
        # The program that would have been started is left out: it starts an interpreter of its own.
        sys.exit(run(arguments[1:]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[1:] = arguments
    main()
