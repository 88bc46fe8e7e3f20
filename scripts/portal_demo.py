"""The portal, to be looked at in a browser: `make portal-demo`.

Starts a daemon and the reference portal in a private folder, with two clients and a few users, and says where to go.
Ends, and leaves nothing behind, on Ctrl-C; with --keep both go on after the command has ended.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from stage import DemoError, private_folder, start

from otpbridge.client import Client, Enforcement

BIN = Path(sys.executable).parent
PASSWORD = "correct horse"  # noqa: S105 - of people who do not exist
PEOPLE = {"client-a": ("alice", "bob", "boss"), "client-b": ("alice", "boss")}
"""The users of each client; `boss` is its admin."""

DAEMON = """
[clients.client-a]
issuer = "Client A"
[clients.client-a.webauthn]
rp_id = "client-a.localhost"
origins = ["http://client-a.localhost:{port}"]

[clients.client-b]
issuer = "Client B"
[clients.client-b.webauthn]
rp_id = "client-b.localhost"
origins = ["http://client-b.localhost:{port}"]

[stacks.portal]
rules = ["required password", "sufficient fido2", "sufficient totp", "sufficient yubiotp", "required recovery"]

[stacks.portal-proof]
enforcement = "required"
grace = 0
trusted_networks = []
rules = ["sufficient fido2", "sufficient totp", "sufficient yubiotp", "required recovery"]
"""

PORTAL = """
listen = "127.0.0.1:{port}"
socket = "{socket}"

[clients.client-a]
hosts = ["client-a.localhost"]
title = "Client A Cloud"
logo = "client-a.svg"
accent = "#0b6e4f"
accent_dark = "#5fd0a8"
admins = ["boss"]
security_keys = true
support = "support@client-a.example"

[clients.client-b]
hosts = ["client-b.localhost"]
title = "Client B Hosting"
logo = "client-b.svg"
accent = "#7a3fb0"
accent_dark = "#c79bf2"
admins = ["boss"]
security_keys = true
"""

LOGO = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
    '<rect width="32" height="32" rx="7" fill="{ground}"/><path d="{shape}" fill="#fff"/></svg>'
)
LOGOS = {
    "client-a": LOGO.format(ground="#0b6e4f", shape="M9 23 16 8l7 15h-4l-3-7-3 7z"),
    "client-b": LOGO.format(ground="#7a3fb0", shape="M8 10h16v4H8zm0 8h11v4H8z"),
}


class Demo:
    """A daemon and a portal in a folder of their own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.run_dir = folder / "run"
        self.processes: list[subprocess.Popen[bytes]] = []
        (folder / "otpbridge.toml").write_text(DAEMON.format(port=port))
        (folder / "portal.toml").write_text(PORTAL.format(port=port, socket=self.run_dir / "verify"))
        for name, text in LOGOS.items():
            (folder / f"{name}.svg").write_text(text)

    def address(self, client: str) -> str:
        """Where the portal of a client is."""
        return f"http://{client}.localhost:{self.port}/"

    def start(self) -> None:
        """Start both, and add the users."""
        folders = ("--state-dir", self.folder / "state", "--run-dir", self.run_dir)
        self._run(BIN / "otpbridged", *folders, "--config", self.folder / "otpbridge.toml")
        with Client(run_dir=self.run_dir) as daemon:
            for client, users in PEOPLE.items():
                for user in users:
                    daemon.set_password(user, PASSWORD, client=client)
                    daemon.set_enforcement(user, Enforcement.OPTIONAL, client=client)
        self._run(BIN / "otpbridge", "portal", "--config", self.folder / "portal.toml")

    def stop(self) -> None:
        """Stop both, the portal first."""
        for process in reversed(self.processes):
            process.terminate()
            process.wait(30)
        self.processes.clear()

    def _run(self, *command: str | Path) -> None:
        log = self.folder / f"{len(self.processes)}.log"
        # Ctrl-C is for us, who stop them in order.
        self.processes.append(start(command, log, own_session=True))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def say(demo: Demo) -> None:
    """Where to go, and who to be."""
    for client, users in PEOPLE.items():
        print(f"   {demo.address(client):38} {', '.join(users)}")
    print(f"""
   The password of all of them is: {PASSWORD}
   boss is the admin of each client. alice of one client is not alice of the other.
   Log in, then: ADMINISTRATION, MY DETAILS, USERS, a user, SECURITY TOKEN, Generate.

   export OTPBRIDGE_RUN_DIR={demo.run_dir} PATH={BIN}:$PATH
   otpbridge user list --client client-a
   otpbridge audit tail
""")


def main() -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave daemon and portal running")
    parser.add_argument("--port", type=int, help="of the portal; any that is free when left out")
    options = parser.parse_args()
    # Whatever ends it, daemon and portal end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with private_folder("otpbridge-portal", keep=options.keep) as folder:
        demo = Demo(folder, options.port or free_port())
        try:
            demo.start()
            say(demo)
            if options.keep:
                ids = " ".join(str(process.pid) for process in demo.processes)
                print(f"   To end it:  kill {ids} && rm -r {folder}")
                return 0
            print("   Ctrl-C ends it.", flush=True)
            signal.pause()
        except DemoError as error:
            print(f"The demo failed: {error}", file=sys.stderr)
            demo.stop()
            return 1
        except KeyboardInterrupt:
            demo.stop()
            print("\nNothing was left behind.")
    return 0


if __name__ == "__main__":
    os.environ.pop("OTPBRIDGE_RUN_DIR", None)
    sys.exit(main())
