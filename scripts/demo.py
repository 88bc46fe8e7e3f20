"""The main job, shown end to end: `make demo`.

Starts a daemon on an embedded store in a private folder, enrols a user, checks a code, then logs in through a real
PAM stack. Leaves nothing behind, or with --keep a running daemon and how to go on.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
sys.path.insert(0, str(HERE / "tests" / "support"))

import pyotp  # noqa: E402 - an authenticator that otpbridge did not write
from pamstack import PAM_AUTH_ERR, PAM_AUTHINFO_UNAVAIL, PAM_SUCCESS, Outcome, Stack  # noqa: E402
from stage import DemoError, private_folder, start  # noqa: E402

from otpbridge.enroll import qr, seeds  # noqa: E402

SERVICE = "otpbridge-demo"
ENOUGH_SECONDS = 8


class Demo:
    """The steps, in a folder of their own."""

    def __init__(self, folder: Path, module: Path, user: str) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.user = user
        self.step = 0
        self.daemon: subprocess.Popen[bytes] | None = None
        rules = (
            f"auth    required {module} socket={self.run_dir}/verify",
            f"account required {module} socket={self.run_dir}/verify",
        )
        self.stack = Stack(folder / "pam.d", "\n".join(rules), service=SERVICE)
        self.stack.folder.mkdir()
        (self.stack.folder / "other").write_text("auth required pam_deny.so\naccount required pam_deny.so\n")

    def say(self, text: str) -> None:
        """Head a step."""
        self.step += 1
        print(f"\n\033[1m{self.step}. {text}\033[0m" if sys.stdout.isatty() else f"\n{self.step}. {text}", flush=True)

    def start(self) -> None:
        """Start the daemon and wait until it says that it is ready."""
        command = [BIN / "otpbridged", "--state-dir", self.folder / "state", "--run-dir", self.run_dir]
        print("   $ otpbridged --state-dir … --run-dir …", flush=True)
        log = self.folder / "otpbridged.log"
        self.daemon = start(command, log)
        for line in log.read_text().splitlines():
            print(f"   {line}")

    def stop(self) -> None:
        """Stop the daemon."""
        if self.daemon is not None:
            self.daemon.terminate()
            self.daemon.wait(30)
            self.daemon = None

    def cli(self, *arguments: str, stdin: str | None = None, status: int = 0) -> Any:
        """Run the command line as an admin would, and show it."""
        print(f"   $ otpbridge {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [BIN / "otpbridge", "--run-dir", self.run_dir, "--json", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != status:
            raise DemoError(f"otpbridge {arguments[0]} ended with {done.returncode}, not {status}: {done.stderr}")
        return json.loads(done.stdout)

    def login(self, code: str, expected: int, meaning: str) -> Outcome:
        """Log in through libpam and the module."""
        outcome = self.stack.login(self.user, [code], phases=("authenticate", "acct_mgmt"))
        print(f"   login: {self.user}")
        for prompt in outcome.prompts:
            print(f"   {prompt}{code}")
        print(f"   → {meaning} ({outcome.seconds * 1000:.1f} ms)")
        for line in outcome.log.splitlines():
            print(f"   log: {line}")
        if outcome.code != expected:
            raise DemoError(f"PAM returned {outcome.codes}, not {expected}\n{outcome.log}")
        return outcome


def steps(demo: Demo) -> None:
    """All that the demo shows."""
    demo.say("Start the daemon: it makes its store, its master key and its sockets")
    demo.start()

    demo.say(f"Enrol {demo.user}: one QR code, the same key twice as text, shown once")
    token = demo.cli("enroll", "totp", demo.user)
    print(qr.terminal(token["uri"]))
    print(f"   Google Authenticator key   {seeds.grouped(token['secret_base32'])}")
    print(f"   TOTP Seed key (hex)        {token['secret_hex']}")
    print("   (Scan it if you like: it is a real one. Here pyotp plays the phone.)")
    phone = pyotp.parse_uri(token["uri"])
    assert isinstance(phone, pyotp.TOTP)

    demo.say("Type the code that the phone shows: only now the token is in force, and that code is spent")
    # A window of one step either way is tolerated: three codes are good now, so nobody has to wait for the next.
    first, second, third = three_codes(phone)
    demo.cli("token", "confirm", token["token"], first)
    demo.cli("user", "require", demo.user)

    demo.say("Check a code over the socket, as a portal does")
    print("   The confirming code again is refused:")
    print(f"   {json.dumps(demo.cli('verify', demo.user, first, status=1))}")
    print("   The next one is right:")
    print(f"   {json.dumps(demo.cli('verify', demo.user, second))}")

    demo.say("Log in through a real PAM stack (libpam, pam_otpbridge.so)")
    demo.login(third, PAM_SUCCESS, "let in")
    demo.login(third, PAM_AUTH_ERR, "refused: the same code a second time")
    demo.login(f"{(int(third) + 1) % 1_000_000:06d}", PAM_AUTH_ERR, "refused: a wrong code")

    demo.say("Stop the daemon: a login is refused at once, and the log says why")
    demo.stop()
    demo.login("123456", PAM_AUTHINFO_UNAVAIL, "refused: no daemon")


def three_codes(phone: pyotp.TOTP) -> list[str]:
    """The codes of the last, this and the next time step, with time enough left in this one to use them."""
    while (left := phone.interval - time.time() % phone.interval) < ENOUGH_SECONDS:
        time.sleep(left)
    now = time.time()
    return [phone.at(now + distance * phone.interval) for distance in (-1, 0, 1)]


def main() -> int:
    """Run the demo; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--module", type=Path, required=True, help="the built pam_otpbridge.so")
    parser.add_argument("--keep", action="store_true", help="leave the daemon running")
    options = parser.parse_args()
    with private_folder("otpbridge-demo", keep=options.keep) as folder:
        demo = Demo(folder, options.module.resolve(), getpass.getuser())
        try:
            steps(demo)
            if options.keep:
                demo.say("Start the daemon again and leave it running")
                demo.start()
                go_on(demo)
        except DemoError as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            demo.stop()
            return 1
        except KeyboardInterrupt:
            demo.stop()
            return 130
    print("\nAll as it must be." if options.keep else "\nAll as it must be. Nothing was left behind.")
    return 0


def go_on(demo: Demo) -> None:
    """Say how to use the daemon that keeps running."""
    assert demo.daemon is not None
    print(f"""
   export OTPBRIDGE_RUN_DIR={demo.run_dir} PATH={BIN}:$PATH
   otpbridge status
   otpbridge enroll totp {demo.user}
   otpbridge verify {demo.user}
   otpbridge audit tail

   To end it:  kill {demo.daemon.pid} && rm -r {demo.folder}""")


if __name__ == "__main__":
    # A login waits for nothing in the environment; neither does the demo.
    os.environ.pop("OTPBRIDGE_RUN_DIR", None)
    sys.exit(main())
