"""Real programs on a real terminal: what a person sees of a conversation in ssh, su and login."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pammodule
import pytest
from pictures import enlarged, framed, plain_pixels, qr_texts
from scripteddaemon import ScriptedDaemon, hidden, notice, step, streamed
from sshdstack import Machine, need_machine
from terminal import Program

from otpbridge.enroll import qr

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("sshd")]

URI = (
    "otpauth://totp/Caf%C3%A9%20Nord%20International:"
    "someone.with.a.long.name@host?secret=" + "GEZDGNBVGY3TQOJQ" * 6 + "GEZDGNA"
    "&issuer=Caf%C3%A9%20Nord%20International&algorithm=SHA512&digits=8&period=900"
)
KEY = "Or type this key: GEZD GNBV GY3T QOJQ"
ENROL = f"Scan this code with your phone:\n{qr.terminal_plain(URI)}{KEY}"
CODE = hidden("Verification code: ")
LEFT = notice("3 recovery codes are left")
PASSWORDS = {"alice": "correct horse", "bob": "battery staple"}

Opener = Callable[..., Program]


@pytest.fixture
def machine(folder, socket_path) -> Iterator[Machine]:
    """A machine whose sshd, su and login let the daemon's stack ask for everything, the password too."""
    need_machine()
    stack = (
        f"auth required {pammodule.build()} socket={socket_path}\n"
        "account required pam_permit.so\nsession required pam_permit.so\n"
    )
    services = dict.fromkeys(("sshd", "su", "login"), stack)
    with Machine(folder, services, PASSWORDS, sshd="AuthenticationMethods keyboard-interactive\n") as machine:
        yield machine


@pytest.fixture(params=["ssh", "su", "login"])
def enter(request: pytest.FixtureRequest, machine: Machine) -> Opener:
    """Starts this program as somebody does who wants a shell."""
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")

    def start(**environment: str) -> Program:
        words = {
            "ssh": machine.ssh_command("alice", LogLevel="INFO"),  # its own: below it, refusals are not explained
            "su": machine.inside(["su", "alice"], "bob"),
            "login": machine.inside(["login", "alice"]),
        }[request.param]
        return Program(*words, environment={"LC_ALL": "C.UTF-8", "HOME": "/"} | environment)

    return start


def shell_of(terminal: Program) -> str:
    """Who the shell says that one is."""
    terminal.wait_for("$ ")
    terminal.type("echo I am $(id -un); exit")
    terminal.wait_for("I am alice\r\n")
    assert terminal.finish() == 0
    return "alice"


def lines_of(text: str) -> list[str]:
    """What stands on the screen, line by line."""
    return text.replace("\r\n", "\n").splitlines()


def codes_in(text: str) -> list[str]:
    """What a camera reads on a dark screen."""
    drawn = [line for line in lines_of(text) if "\u2588" in line and set(line) <= set("\u2588\u2580\u2584 ")]
    return qr_texts(framed(enlarged(plain_pixels("\n".join(drawn), 255, 0), 3), 0, 30))


def test_password_code_and_what_is_said_between(enter, socket_path):
    """Two prompts, a wrong code, a right one and a last word: each program shows all of it, in this order."""
    turns = [
        step(hidden("Password: ")),
        step(CODE),
        step(CODE, notices=[notice("That code is wrong", "error"), notice("Type the next one")]),
        step(verdict="success", notices=[LEFT]),
    ]
    with ScriptedDaemon(socket_path, *turns) as daemon, enter() as terminal:
        terminal.wait_for("Password: ")
        terminal.type(PASSWORDS["alice"])
        terminal.wait_for("Verification code: ")
        terminal.type("111111")
        said = terminal.wait_for("Verification code: ")
        assert [line.rpartition(") ")[2] for line in lines_of(said) if line.strip()] == [
            "That code is wrong",
            "Type the next one",
        ]
        terminal.type("222222")
        terminal.wait_for(LEFT["text"])
        assert shell_of(terminal) == "alice"
        assert "111111" not in terminal.text
    assert daemon.responses == [[PASSWORDS["alice"]], ["111111"], ["222222"]]


def test_a_code_to_enrol_with_can_be_scanned(enter, socket_path):
    """A QR code comes through undamaged, with the key below it and the question last."""
    asked = step(CODE, notices=[notice(ENROL), notice("Then type what the phone shows")])
    with ScriptedDaemon(socket_path, asked, step(verdict="success")), enter() as terminal:
        screen = terminal.wait_for("Verification code: ")
        assert codes_in(screen) == [URI]
        assert lines_of(screen)[-2:] == [KEY, "Then type what the phone shows"]
        terminal.type("123456")
        assert shell_of(terminal) == "alice"


def test_a_code_that_streams_can_be_scanned(enter, socket_path):
    """The same when it comes before the question instead of with it."""
    turns = [[streamed(notice(ENROL)), step(CODE)], step(verdict="success")]
    with ScriptedDaemon(socket_path, *turns), enter() as terminal:
        screen = terminal.wait_for("Verification code: ")
        assert codes_in(screen) == [URI]
        assert lines_of(screen)[-1] == KEY
        terminal.type("123456")
        assert shell_of(terminal) == "alice"


def test_a_terminal_without_block_characters_still_has_the_key(enter, socket_path):
    """In the C locale the drawing may be unreadable, but the key below it is there and the login goes on."""
    asked = step(CODE, notices=[notice(ENROL)])
    with ScriptedDaemon(socket_path, asked, step(verdict="success")), enter(LC_ALL="C") as terminal:
        screen = terminal.wait_for("Verification code: ")
        assert lines_of(screen)[-1] == KEY
        terminal.type("123456")
        assert shell_of(terminal) == "alice"


def test_too_many_attempts_are_explained(enter, socket_path):
    """Who is refused unjudged is told for how long, after what the daemon says of it."""
    refused = step(verdict="maxtries", retry_after=90, notices=[notice("Locked after six wrong codes", "error")])
    with ScriptedDaemon(socket_path, step(CODE), *[refused] * 9), enter() as terminal:
        terminal.wait_for("Verification code: ")
        terminal.type("123456")
        terminal.wait_for("Locked after six wrong codes")
        terminal.wait_for("Too many attempts; try again in 90 s.")
