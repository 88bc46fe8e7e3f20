"""`python -m otpbridge.helper`: check one password as root, for the daemon, and end.

The service manager starts one for every connection and gives it the connection as standard input
(systemd/otpbridge-pam-helper.socket). Which PAM service is asked is said on the command line, never by the request.
"""

from __future__ import annotations

import argparse
import logging
import pwd
import signal
import socket
import sys

from otpbridge.errors import ConfigError
from otpbridge.helper.exchange import peer_uid, read_request
from otpbridge.helper.service import PamService

log = logging.getLogger("otpbridge.helper")


def run(arguments: list[str]) -> int:
    """Answer the request on standard input; the exit status."""
    parser = argparse.ArgumentParser(prog="otpbridge.helper", description="Check one password with PAM.")
    parser.add_argument("--service", required=True, metavar="NAME", help="the PAM service that is asked")
    parser.add_argument("--user", required=True, metavar="NAME", help="who may ask: the user that the daemon runs as")
    parser.add_argument("--seconds", type=int, default=15, metavar="N", help="end after so long; default: 15")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Ends the process wherever it waits, in a PAM module too: nothing handles the signal.
    signal.alarm(chosen.seconds)
    try:
        answer(socket.socket(fileno=0), PamService(chosen.service), pwd.getpwnam(chosen.user).pw_uid)
    except KeyError:
        log.error("there is no user %s; name the one that otpbridged runs as", chosen.user)  # noqa: TRY400
        return 1
    except (ConfigError, OSError) as error:
        log.error("cannot check a password: %s", error)  # noqa: TRY400 - no traceback
        return 1
    return 0


def answer(connection: socket.socket, service: PamService, allowed: int) -> None:
    """Answer one request, if it comes from uid `allowed`. Who else asks is told nothing."""
    with connection:
        caller = peer_uid(connection)
        if caller != allowed:
            log.error("uid %d asked, who may not; only uid %d may", caller, allowed)
            return
        request = read_request(connection)
        if request is None:
            log.error("the request is not a user and a password")
            return
        connection.send(service.check(*request).encode())


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
