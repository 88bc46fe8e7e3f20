"""Logs in through a private PAM stack: pam_start_confdir(3), so neither root nor /etc/pam.d is needed.

    stack = Stack(folder, "auth required /path/pam_otpbridge.so socket=/path/verify")
    outcome = stack.login("alice", ["123456"])
    outcome.code == PAM_SUCCESS; outcome.messages[0].text == "Verification code: "

`login` runs in a process of its own, so that a crash of a module is a test's failure and not the end of all tests,
and what the modules send to syslog comes back in `Outcome.log`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import enum
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PAM_SUCCESS = 0
PAM_SYSTEM_ERR = 4
PAM_SERVICE_ERR = 3
PAM_BUF_ERR = 5
PAM_PERM_DENIED = 6
PAM_AUTH_ERR = 7
PAM_CRED_INSUFFICIENT = 8
PAM_AUTHINFO_UNAVAIL = 9
PAM_USER_UNKNOWN = 10
PAM_MAXTRIES = 11
PAM_NEW_AUTHTOK_REQD = 12
PAM_ACCT_EXPIRED = 13
PAM_CONV_ERR = 19
PAM_IGNORE = 25
PAM_SILENT = 0x8000

ITEMS = {"tty": 3, "rhost": 4, "ruser": 8}


class Style(enum.IntEnum):
    """Message styles of pam_conv(3)."""

    HIDDEN = 1
    VISIBLE = 2
    ERROR = 3
    INFO = 4


class Missing(enum.StrEnum):
    """Ways in which a conversation gives no answer."""

    NULL = "null"  # says PAM_SUCCESS, but the answer is a NULL pointer
    NOTHING = "nothing"  # says PAM_SUCCESS, but there is no array of answers
    FAILS = "fails"  # says PAM_CONV_ERR
    SAYS_IGNORE = "says ignore"  # says PAM_IGNORE


@dataclass(frozen=True, slots=True)
class Hesitant:
    """An answer that takes the person some seconds."""

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class FromFile:
    """An answer that the person reads when they are asked: the last word of a file."""

    path: Path


Answer = str | bytes | Missing | Hesitant | FromFile


@dataclass(frozen=True, slots=True)
class Message:
    """What the person was shown or asked."""

    style: Style
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a login went. `seconds` is the time in PAM, without starting the process."""

    codes: Mapping[str, int]
    messages: Sequence[Message]
    log: str
    seconds: float

    @property
    def code(self) -> int:
        """What the last phase returned."""
        return list(self.codes.values())[-1]

    @property
    def prompts(self) -> list[str]:
        """The texts that asked for an answer, in order."""
        return [message.text for message in self.messages if message.style in {Style.HIDDEN, Style.VISIBLE}]


class LoginCrashedError(Exception):
    """The process that logged in died; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A PAM service of its own in a private folder. `prefix` are words that run the program that logs in."""

    folder: Path
    text: str
    service: str = "otpbridge-test"
    preload: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()

    def login(
        self,
        user: str | None,
        answers: Iterable[Answer] = (),
        *,
        phases: Iterable[str] = ("authenticate",),
        items: Mapping[str, str] | None = None,
        flags: int = 0,
        on_message: Callable[[Message], None] | None = None,
        stop_at_failure: bool = True,
    ) -> Outcome:
        """Log in and say what every phase returned, up to the first that failed.

        `answers` are given to the prompts in order; when they run out the conversation fails. `items` are PAM
        items by name (`rhost`, `tty`, `ruser`). `on_message` is called while the login waits for more.
        """
        process = self.start(user, answers, phases=phases, items=items, flags=flags, stop_at_failure=stop_at_failure)
        return finish(process, on_message)

    def start(
        self,
        user: str | None,
        answers: Iterable[Answer] = (),
        *,
        phases: Iterable[str] = ("authenticate",),
        items: Mapping[str, str] | None = None,
        flags: int = 0,
        stop_at_failure: bool = True,
    ) -> subprocess.Popen[str]:
        """Start a login without waiting for it; `finish` takes its outcome."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / self.service).write_text(self.text + "\n")
        request = {
            "folder": str(self.folder),
            "service": self.service,
            "user": user,
            "answers": [_pack(answer) for answer in answers],
            "phases": list(phases),
            "items": dict(items or {}),
            "flags": flags,
            "stop_at_failure": stop_at_failure,
        }
        environment = dict(os.environ) | dict(self.environment)
        if self.preload is not None:
            environment["LD_PRELOAD"] = self.preload
        process = subprocess.Popen(
            [*self.prefix, sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(request))
        process.stdin.close()
        return process


def at_system_place(run_dir: Path) -> tuple[str, ...]:
    """Words that run a program where /run/otpbridge is this folder. They need root, and the right to mount."""
    script = (
        'mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/otpbridge && mount --bind "$0" /run/otpbridge && exec "$@"'
    )
    return ("unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(run_dir))


def finish(process: subprocess.Popen[str], on_message: Callable[[Message], None] | None = None) -> Outcome:
    """Wait for a login that `Stack.start` began."""
    messages: list[Message] = []
    done: dict[str, Any] | None = None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        for line in process.stdout:
            event = json.loads(line)
            if "text" in event:
                messages.append(Message(Style(event["style"]), event["text"]))
                if on_message is not None:
                    on_message(messages[-1])
            else:
                done = event
        log = process.stderr.read()
    if process.returncode != 0 or done is None:
        how = signal.Signals(-process.returncode).name if process.returncode < 0 else f"status {process.returncode}"
        raise LoginCrashedError(f"{how}\n{log}")
    return Outcome(done["codes"], messages, log, done["seconds"])


def _pack(answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Missing):
        return {"missing": answer.value}
    if isinstance(answer, FromFile):
        return {"file": str(answer.path)}
    if isinstance(answer, Hesitant):
        return {"text": answer.text, "after": answer.seconds}
    return {"text": answer if isinstance(answer, str) else answer.decode("utf-8", "surrogateescape")}


# --- the process that logs in -------------------------------------------------------------------------------


class _Message(ctypes.Structure):
    _fields_ = (("style", ctypes.c_int), ("text", ctypes.c_char_p))


class _Response(ctypes.Structure):
    _fields_ = (("text", ctypes.c_void_p), ("retcode", ctypes.c_int))


_CONVERSE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.POINTER(_Response)),
    ctypes.c_void_p,
)


class _Conversation(ctypes.Structure):
    _fields_ = (("function", _CONVERSE), ("data", ctypes.c_void_p))


def _libraries() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    libc, libpam = ctypes.CDLL(None), ctypes.CDLL("libpam.so.0")
    libc.calloc.restype = ctypes.c_void_p
    libc.calloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
    libc.strdup.restype = ctypes.c_void_p
    libc.strdup.argtypes = (ctypes.c_char_p,)
    libc.openlog.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_int)
    for name in ("pam_authenticate", "pam_acct_mgmt", "pam_setcred", "pam_end"):
        getattr(libpam, name).argtypes = (ctypes.c_void_p, ctypes.c_int)
    libpam.pam_set_item.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    return libc, libpam


def _say(event: Mapping[str, Any]) -> None:
    print(json.dumps(event), flush=True)


def _conversation(libc: ctypes.CDLL, answers: Iterator[Mapping[str, Any]]) -> Any:
    missing = {Missing.FAILS: PAM_CONV_ERR, Missing.SAYS_IGNORE: PAM_IGNORE, Missing.NOTHING: PAM_SUCCESS}

    def converse(count: int, messages: Any, responses: Any, _data: Any) -> int:
        array = ctypes.cast(libc.calloc(count, ctypes.sizeof(_Response)), ctypes.POINTER(_Response * count)).contents
        for index in range(count):
            message = messages[index].contents
            style = Style(message.style)
            _say({"style": style, "text": message.text.decode("utf-8", "surrogateescape")})
            if style not in {Style.HIDDEN, Style.VISIBLE}:
                continue
            answer = next(answers, {"missing": Missing.FAILS})
            time.sleep(answer.get("after", 0))
            if "file" in answer:
                answer = {"text": Path(answer["file"]).read_text().split()[-1]}
            if answer.get("missing") in missing:
                return missing[Missing(answer["missing"])]
            if "text" in answer:
                array[index].text = libc.strdup(answer["text"].encode("utf-8", "surrogateescape"))
        responses[0] = ctypes.cast(array, ctypes.POINTER(_Response))
        return PAM_SUCCESS

    return _CONVERSE(converse)


def _main(request: Mapping[str, Any]) -> None:
    log_perror, log_auth = 0x20, 4 << 3
    libc, libpam = _libraries()
    libc.openlog(b"host", log_perror, log_auth)
    conversation = _Conversation(_conversation(libc, iter(request["answers"])), None)
    handle = ctypes.c_void_p()
    user = request["user"]
    code = libpam.pam_start_confdir(
        request["service"].encode(),
        None if user is None else user.encode("utf-8", "surrogateescape"),
        ctypes.byref(conversation),
        request["folder"].encode(),
        ctypes.byref(handle),
    )
    codes = {"start": code}
    begun = time.monotonic()
    if code == PAM_SUCCESS:
        for name, value in request["items"].items():
            libpam.pam_set_item(handle, ITEMS[name], value.encode("utf-8", "surrogateescape"))
        for phase in request["phases"]:
            codes[phase] = code = getattr(libpam, f"pam_{phase}")(handle, request["flags"])
            if code != PAM_SUCCESS and request["stop_at_failure"]:
                break
        libpam.pam_end(handle, code)
    _say({"codes": codes, "seconds": time.monotonic() - begun})


if __name__ == "__main__":
    _main(json.load(sys.stdin))
