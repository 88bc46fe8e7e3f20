"""`python -m otpbridge.daemon`: what `otpbridged`, `otpbridge serve`, `restore` and `store` run."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from otpbridge import config
from otpbridge.errors import KeyMissingError, OtpBridgeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from otpbridge.daemon.main import Options

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
    # All that is loaded stays. It would be walked over again and again, while it is loaded and ever after.
    gc.disable()
    from otpbridge.daemon import main  # noqa: PLC0415 - as said

    options = main.Options(
        (chosen.state_dir or config.default_state_dir()).absolute(),
        (chosen.run_dir or config.default_run_dir()).absolute(),
        chosen.config,
    )
    main.start_logging()
    try:
        job = _job(chosen, options)
        gc.freeze()
        gc.enable()
        done = job()
        if done is not None:
            print(done)
    except OtpBridgeError as error:
        asked = [name for name in ("restore", "upgrade", "migrate") if getattr(chosen, name) is not None]
        what = asked[0] if asked else "start"
        event = "key missing" if isinstance(error, KeyMissingError) else "refused to start"
        log.error("cannot %s: %s", what, error, extra=None if asked else {"event": event})  # noqa: TRY400 - no traceback
        return 1
    return 0


def _job(chosen: argparse.Namespace, options: Options) -> Callable[[], str | None]:
    """What was asked for. Raises ConfigError.

    Each is loaded where it is asked for, and nothing that only the others need.
    """
    if chosen.restore is not None:
        from otpbridge.daemon.restore import restore  # noqa: PLC0415

        return partial(restore, options, chosen.restore)
    if chosen.upgrade is not None:
        from otpbridge.daemon.upgrade import upgrade  # noqa: PLC0415

        return partial(upgrade, options, chosen.upgrade)
    if chosen.migrate is not None:
        from otpbridge.daemon.move import move  # noqa: PLC0415

        return partial(move, options, chosen.migrate)
    if chosen.relay is not None or config.load(options.config_file).relay.centres:
        from otpbridge.daemon.relay import host  # noqa: PLC0415

        return partial(host.serve, options, chosen.relay)
    from otpbridge.daemon import main  # noqa: PLC0415

    return partial(main.serve, options)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
