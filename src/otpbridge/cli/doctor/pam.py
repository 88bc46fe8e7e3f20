"""Files of pam.d: what they say of pam_otpbridge.so, and what is wrong with it. Nothing is read here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from otpbridge.cli.doctor.findings import Finding, fail, ok, warn

MODULE = "pam_otpbridge.so"
_DEEPEST = 16
_WORD = re.compile(r"\[((?:[^\]\\]|\\.)*)\]|(\S+)")
_INCLUDES = frozenset({"include", "substack"})

_KEYWORDS = {
    "required": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "bad"},
    "requisite": {"success": "ok", "new_authtok_reqd": "ok", "ignore": "ignore", "default": "die"},
    "sufficient": {"success": "done", "new_authtok_reqd": "done", "default": "ignore"},
    "optional": {"success": "ok", "new_authtok_reqd": "ok", "default": "ignore"},
}
"""What pam.conf(5) says the keywords stand for."""

_ASK_NOTHING = frozenset(
    f"pam_{name}.so" for name in ("succeed_if", "access", "wheel", "localuser", "listfile", "time", "group")
)
"""Modules by which admins exempt people. pam_rootok is not among them: root is not asked anywhere."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a stack, with the file and line where it stands.

    `frame` names the substacks that it is in: what ends a substack does not end the stack around it.
    """

    file: str
    number: int
    kind: str
    control: str
    module: str
    arguments: tuple[str, ...]
    frame: tuple[int, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether this is our module."""
        return PurePath(self.module).name == MODULE

    @property
    def place(self) -> str:
        """Where to look."""
        return f"{self.file}, line {self.number}"

    def action(self, verdict: str) -> str:
        """What libpam does when the module says this."""
        if self.control in _KEYWORDS:
            actions = _KEYWORDS[self.control]
        else:
            actions = dict(part.partition("=")[::2] for part in self.control.split() if "=" in part)
        return actions.get(verdict, actions.get("default", "bad"))


def parse(text: str, file: str) -> list[Rule]:
    """The lines of one file, with what it includes as lines of their own. Lines that are none are passed over."""
    rules = []
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start if pending else number
        pending += line.partition("#")[0].rstrip()
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        words = [bracket if bracket else word for bracket, word in _WORD.findall(pending)]
        pending = ""
        if len(words) == 2 and words[0] == "@include":
            rules.append(Rule(file, start, "@include", "include", words[1], ()))
        elif len(words) >= 3:
            kind = words[0].lstrip("-").lower()
            rules.append(Rule(file, start, kind, words[1], words[2], tuple(words[3:])))
    return rules


def stack(files: Mapping[str, str], service: str, kind: str) -> list[Rule]:
    """The rules of a service for one kind (`auth`, `account`), in the order in which libpam comes to them."""
    return list(_flat(files, service, kind, (), _DEEPEST))


def _flat(files: Mapping[str, str], service: str, kind: str, frame: tuple[int, ...], depth: int) -> Iterator[Rule]:
    if depth == 0:
        return
    for place, rule in enumerate(parse(files.get(service, ""), service)):
        if rule.kind not in {kind, "@include"}:
            continue
        if rule.control in _INCLUDES:
            inner = (*frame, place) if rule.control == "substack" else frame
            yield from _flat(files, PurePath(rule.module).name, kind, inner, depth - 1)
        else:
            yield Rule(rule.file, rule.number, rule.kind, rule.control, rule.module, rule.arguments, frame)


def services(files: Mapping[str, str]) -> list[str]:
    """The files that no other includes: those that programs name."""
    included = {
        PurePath(rule.module).name
        for name, text in files.items()
        for rule in parse(text, name)
        if rule.control in _INCLUDES
    }
    return sorted(files.keys() - included)


# --- what is wrong ---


def judge(files: Mapping[str, str]) -> list[Finding]:
    """Look all files over, by name and text. Each problem is told once, however many services share the line."""
    found = [
        finding
        for name, text in sorted(files.items())
        for rule in parse(text, name)
        if rule.ours
        for finding in _arguments(rule)
    ]
    shared: dict[Finding, list[str]] = {}
    asking = []
    for service in services(files):
        auth, account = stack(files, service, "auth"), stack(files, service, "account")
        if any(rule.ours for rule in auth):
            asking.append(service)
        for finding in _service(service, auth, account):
            shared.setdefault(finding, []).append(service)
    for finding, names in shared.items():
        also = f" (in {', '.join(names)})" if len(names) > 1 else ""
        found.append(Finding(finding.level, finding.said + also, finding.mend))
    if not asking:
        line = f"auth    required {MODULE}"
        return [*found, warn("no service asks for a code", f"in /etc/pam.d/sshd, say: {line}  (docs/admin.md)")]
    return found or [ok(f"these ask for a code, and nothing leads past it: {', '.join(asking)}")]


def _service(service: str, auth: Sequence[Rule], account: Sequence[Rule]) -> Iterator[Finding]:
    for at, rule in enumerate(auth):
        if rule.ours:
            yield from _control(rule, auth[:at], auth[at + 1 :])
            yield from _ways_past(auth, at)
            if {"nullok", "nouserok"} & set(rule.arguments):
                yield warn(
                    f"{rule.place}: nullok lets in who is not in the store without a code",
                    f"once all are enrolled, take `nullok` out of {rule.place}",
                )
    asks = [rule for rule in auth if rule.ours]
    holds = [at for at, rule in enumerate(account) if rule.ours]
    for at in holds:
        yield from _ways_past(account, at)
    if asks and not holds:
        same = " nullok" if "nullok" in asks[0].arguments else ""
        yield warn(
            f"{service}: no account line, so locks and `required` do not hold for logins by key",
            f"in /etc/pam.d/{service}, below the other account lines: account required {MODULE}{same}",
        )


def _control(rule: Rule, before: Sequence[Rule], after: Sequence[Rule]) -> Iterator[Finding]:
    """Whether a refusal refuses."""
    line = f"{rule.kind}    required {' '.join((rule.module, *rule.arguments))}"
    if rule.control == "sufficient":
        if after and after[0].frame == rule.frame and _denies(after[0]):
            return
        if before:
            yield fail(
                f"{rule.place}: `sufficient` passes over a wrong code, and what stands above it lets in",
                f"write there: {line}",
            )
        elif after:
            yield warn(
                f"{rule.place}: `sufficient` lets in by the code alone, and passes over a wrong one",
                f"write there: {line}",
            )
        return
    passing = [
        name for name in ("auth_err", "authinfo_unavail", "maxtries") if rule.action(name) not in {"bad", "die"}
    ]
    if passing:
        yield fail(
            f"{rule.place}: `{rule.control}` does not refuse when the daemon says {', '.join(passing)}",
            f"write there: {line}",
        )


def _denies(rule: Rule) -> bool:
    """Whether nobody who comes to this line gets in."""
    return PurePath(rule.module).name == "pam_deny.so" and rule.action("auth_err") in {"bad", "die"}


def _ways_past(rules: Sequence[Rule], at: int) -> Iterator[Finding]:
    """Lines before ours by which a login never comes to it."""
    ours = rules[at]
    for place, rule in enumerate(rules[:at]):
        name = PurePath(rule.module).name
        if rule.ours or name in {"pam_rootok.so", "pam_deny.so"} or at not in _skipped(rules, place):
            continue
        said = f"{rule.place}: whom {name} lets through never comes to {ours.place}"
        if name in _ASK_NOTHING:
            yield warn(
                f"{said}, and is not asked for a code", "leave it if you mean to exempt them; else take it out"
            )
        else:
            first = f"{ours.kind}    required {' '.join((ours.module, *ours.arguments))}"
            yield fail(said, f"move the line above {rule.place}: {first}")


def _skipped(rules: Sequence[Rule], place: int) -> set[int]:
    """Which later rules are not come to after the rule at `place` has said `success`."""
    rule = rules[place]
    action = rule.action("success")
    depth = len(rule.frame)
    if action == "done":
        most = len(rules)
    elif action.isdecimal():
        most = int(action)
    else:
        return set()
    skipped: set[int] = set()
    units: list[tuple[str, int]] = []
    for later in range(place + 1, len(rules)):
        frame = rules[later].frame
        if frame[:depth] != rule.frame:
            break
        # A substack counts as one line.
        unit = ("substack", frame[depth]) if len(frame) > depth else ("rule", later)
        if unit not in units:
            if len(units) == most:
                break
            units.append(unit)
        skipped.add(later)
    return skipped


# --- arguments ---


def _path(value: str) -> str:
    if not value.startswith("/"):
        return "must be an absolute path"
    return "" if len(value.encode()) <= 107 else "is longer than a socket's path can be (107 bytes)"


def _stack_name(value: str) -> str:
    right = re.fullmatch(r"[A-Za-z0-9._-]{1,64}", value)
    return "" if right else "must be 1 to 64 letters, digits, '-', '_' or '.'"


def _seconds(value: str) -> str:
    right = re.fullmatch(r"[0-9]+", value) and 1 <= int(value[:12]) <= 300
    return "" if right else "must be a whole number of seconds from 1 to 300"


def _prompt(value: str) -> str:
    return "" if 1 <= len(value.encode()) <= 511 else "must be a text of 1 to 511 bytes"


OPTIONS: Mapping[str, Callable[[str], str] | None] = {
    "socket": _path,
    "stack": _stack_name,
    "timeout": _seconds,
    "prompt": _prompt,
    "authtok_prompt": _prompt,
    "use_first_pass": None,
    "try_first_pass": None,
    "forward_pass": None,
    "nullok": None,
    "nouserok": None,
    "echo_verification_code": None,
    "echo-verification-code": None,
    "debug": None,
}
"""The options of pam/options.c: what says whether a value is right, None where there is no value."""


def _arguments(rule: Rule) -> Iterator[Finding]:
    for argument in rule.arguments:
        name, equals, value = argument.partition("=")
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, 1)
            instead = f"write `{near[0]}{equals}{value}` there" if near else f"take `{argument}` out there"
            yield fail(
                f"{rule.place}: `{argument}` is no option, so all logins are refused",
                f"{instead}, or see pam_otpbridge(8)",
            )
            continue
        check = OPTIONS[name]
        if check is None:
            problem = "takes no value" if equals else ""
        else:
            problem = check(value) if equals else "needs a value"
        if problem:
            yield fail(f"{rule.place}: `{argument}` {problem}, so all logins are refused", "see pam_otpbridge(8)")
    if {"use_first_pass", "try_first_pass"} <= set(rule.arguments):
        yield fail(
            f"{rule.place}: use_first_pass and try_first_pass exclude each other, so all logins are refused",
            "take one of them out there",
        )
