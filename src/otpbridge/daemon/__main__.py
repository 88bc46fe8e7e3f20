"""`python -m otpbridge.daemon`: what `otpbridged`, `otpbridge serve`, `restore` and `store` run."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from otpbridge import config
from otpbridge.daemon import main
from otpbridge.daemon.move import move
from otpbridge.daemon.relay import host
from otpbridge.daemon.restore import restore
from otpbridge.daemon.upgrade import upgrade
from otpbridge.errors import KeyMissingError, OtpBridgeError

log = logging.getLogger("otpbridge.daemon")


def run(arguments: list[str]) -> int:
    """Run a daemon, or a restore; the exit status."""
    parser = argparse.ArgumentParser(prog="otpbridged", description="The otpbridge daemon.")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="folder of store and key")
    parser.add_argument("--run-dir", type=Path, metavar="DIR", help="folder of the sockets")
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"default: {config.SYSTEM_CONFIG} if it exists")
    parser.add_argument("--restore", metavar="FILE", help="put a backup in place of the store, then end; - is stdin")
    parser.add_argument("--upgrade", metavar="ROLE", help="upgrade the tables on a server as this role, then end")
    parser.add_argument("--migrate", metavar="URL", help="move the store to another database, then end")
    parser.add_argument("--relay", metavar="CENTRES", help="have no store; ask these daemons (host:port,host:port)")
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
        elif chosen.upgrade is not None:
            print(upgrade(options, chosen.upgrade))
        elif chosen.migrate is not None:
            print(move(options, chosen.migrate))
        elif chosen.relay is not None or config.load(options.config_file).relay.centres:
            host.serve(options, chosen.relay)
        else:
            main.serve(options)
    except OtpBridgeError as error:
        asked = [name for name in ("restore", "upgrade", "migrate") if getattr(chosen, name) is not None]
        what = asked[0] if asked else "start"
        event = "key missing" if isinstance(error, KeyMissingError) else "refused to start"
        log.error("cannot %s: %s", what, error, extra=None if asked else {"event": event})  # noqa: TRY400 - no traceback
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
