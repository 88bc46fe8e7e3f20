"""`python -m otpbridge.portal`: what `otpbridge portal` runs."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from pathlib import Path

from otpbridge.portal import settings

log = logging.getLogger("otpbridge.portal")

_HEADERS = 16 * 1024
"""Bytes of the headers of a request."""
_AT_ONCE = 1024
"""Requests; more are told to come back (503)."""
_STOPPING_SECONDS = 10


def run(arguments: list[str]) -> int:
    """Run the portal until it is told to stop; the exit status."""
    parser = argparse.ArgumentParser(prog="otpbridge portal", description="The reference portal of otpbridge.")
    parser.add_argument("--config", type=Path, metavar="FILE", default=settings.SYSTEM_CONFIG)
    chosen = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="otpbridge-portal: %(message)s")
    try:
        portal = settings.load(chosen.config)
    except settings.SettingsError as error:
        log.error("cannot start: %s", error)  # noqa: TRY400 - no traceback
        return 1
    try:
        import uvicorn  # noqa: PLC0415 - its absence is told in words

        from otpbridge.portal import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        log.error("cannot start: the library %s is missing; pip install 'otpbridge[portal]'", error.name)  # noqa: TRY400
        return 1
    try:
        listening = _listen(portal.listen)
    except OSError as error:
        log.error("cannot start: cannot listen on %s: %s", portal.settings.listen, error.strerror)  # noqa: TRY400
        return 1
    server = uvicorn.Server(
        uvicorn.Config(
            app.make(portal),
            http="h11",
            ws="none",
            interface="asgi3",
            lifespan="on",
            log_config=None,
            # Addresses of QR codes are in no log.
            access_log=False,
            # X-Forwarded-For is read by us, from those we trust.
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=_HEADERS,
            limit_concurrency=_AT_ONCE,
            timeout_graceful_shutdown=_STOPPING_SECONDS,
        )
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    with listening:
        log.info("is ready: %s", _said(listening))
        server.run(sockets=[listening])
    return 0 if server.started else 1


def _listen(where: settings.Listen) -> socket.socket:
    """The socket that browsers or a proxy connect to. A Unix socket is for its owner and group alone."""
    if not where.path:
        family = socket.AF_INET6 if ":" in where.host else socket.AF_INET
        return socket.create_server((where.host, where.port), family=family, backlog=1024)
    path = Path(where.path)
    if path.is_socket():
        path.unlink()
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(0o117)
    try:
        listening.bind(where.path)
    finally:
        os.umask(before)
    listening.listen(1024)
    return listening


def _said(listening: socket.socket) -> str:
    name = listening.getsockname()
    return f"unix:{name}" if isinstance(name, str) else f"{name[0]} port {name[1]}"


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
