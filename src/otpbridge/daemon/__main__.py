"""`python -m otpbridge.daemon`: what `otpbridged`, `otpbridge serve` and `otpbridge restore` run."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from otpbridge import config
from otpbridge.daemon import main
from otpbridge.daemon.restore import restore
from otpbridge.errors import OtpBridgeError

log = logging.getLogger("otpbridge.daemon")


def run(arguments: list[str]) -> int:
    """Run a daemon, or a restore; the exit status."""
    parser = argparse.ArgumentParser(prog="otpbridged", description="The otpbridge daemon.")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="folder of store and key")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="folder of the sockets")
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"default: {config.SYSTEM_CONFIG} if it exists")
    parser.add_argument("--restore", metavar="FILE", help="put a backup in place of the store, then end; - is stdin")
    chosen = parser.parse_args(arguments)
    options = main.Options(
        (chosen.state_dir or config.default_state_dir()).absolute(),
        (chosen.run_dir or config.default_run_dir()).absolute(),
        chosen.config,
    )
    main.start_logging()
    try:
        if chosen.restore is not None:
            print(restore(options, chosen.restore))
        else:
            main.serve(options)
    except OtpBridgeError as error:
        log.error("cannot %s: %s", "restore" if chosen.restore else "start", error)  # noqa: TRY400 - no traceback
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
