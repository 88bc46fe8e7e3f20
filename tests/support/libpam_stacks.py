"""The real libpam as a judge of stacks: `pam_debug.so` says what each rule is told to say.

    with Libpam(folder) as libpam:
        libpam.judge("top", {"top": ["required pam_debug.so auth=success", "include other"], "other": []})

libpam runs in one process of its own for many stacks. It reads each from a private folder (pam_start_confdir(3)).
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pamstack import PAM_SUCCESS, _Conversation, _conversation, _libraries, _say


@dataclass(frozen=True, slots=True)
class Judgement:
    """What pam_authenticate(3) returned, and what the rules that were run said, in order."""

    code: int
    said: tuple[str, ...]


class Libpam:
    """A process in which libpam judges one stack after another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Libpam:
        self._process = subprocess.Popen(
            [sys.executable, "-E", "-s", "-S", __file__, self._folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what libpam logs of bad jumps
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
        assert self._process.returncode == 0

    def judge(self, name: str, stacks: Mapping[str, Sequence[str]]) -> Judgement:
        """The judgement on a stack, which may include the others."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([name, stacks]) + "\n")
        self._process.stdin.flush()
        said: list[str] = []
        for line in self._process.stdout:
            event = json.loads(line)
            if "code" in event:
                return Judgement(event["code"], tuple(said))
            said.append(event["text"].removeprefix("auth="))
        raise AssertionError(f"libpam ended with {self._process.wait()}")


def _main(folder: Path) -> None:
    libc, libpam = _libraries()
    log_perror, log_auth = 0x20, 4 << 3
    libc.openlog(b"libpam_stacks", log_perror, log_auth)
    conversation = _Conversation(_conversation(libc, iter(())), None)
    for line in sys.stdin:
        name, stacks = json.loads(line)
        for stack, rules in stacks.items():
            # Debian 12's libpam looks for what is included in /etc/pam.d, wherever the including stack came from.
            placed = (re.sub(r"^(include|substack) ", rf"\1 {folder}/", rule) for rule in rules)
            (folder / stack).write_text("".join(f"auth {rule}\n" for rule in placed))
        handle = ctypes.c_void_p()
        code = libpam.pam_start_confdir(
            name.encode(), b"alice", ctypes.byref(conversation), bytes(folder), ctypes.byref(handle)
        )
        assert code == PAM_SUCCESS
        code = libpam.pam_authenticate(handle, 0)
        libpam.pam_end(handle, code)
        _say({"code": code})


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
