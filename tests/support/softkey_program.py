"""The command line, or the daemon, on a machine whose security keys are soft keys.

    python softkey_program.py cli --run-dir … enroll fido2 alice
    python softkey_program.py daemon /path/otpbridged --state-dir …

The product has no switch for this, so it is done from outside.
"""

from __future__ import annotations

import signal
import sys

import softkey_wire

from otpbridge.cli.main import main
from otpbridge.daemon.__main__ import run
from otpbridge.devices import fido_find

if __name__ == "__main__":
    fido_find.plugged = softkey_wire.plugged
    what, *arguments = sys.argv[1:]
    if what == "daemon":
        # The program that would have been started is left out: it starts an interpreter of its own.
        sys.exit(run(arguments[1:]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[1:] = arguments
    main()
