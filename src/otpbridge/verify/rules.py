"""The rules of stacks: their syntax, and how `include` and `substack` make one program of several stacks.

A rule is a line of pam.conf(5) without its type column: `control verifier [options]`.

    required password
    [success=1 default=ignore] totp window=2 [prompt=Type the code: ]
    include fallback

What is not understood is an error, never passed over: a typo must not change who gets in.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from otpbridge.errors import ConfigError
from otpbridge.model import Verdict

DEEPEST = 16
"""How many stacks may be open at once, each named by a rule of the one before: as many as in libpam 1.6."""


class Act(enum.StrEnum):
    """What a verdict does to the stack, in the words of pam.conf(5)."""

    IGNORE = "ignore"
    OK = "ok"
    DONE = "done"
    BAD = "bad"
    DIE = "die"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Jump:
    """Pass over the next `count` rules; a substack counts as one."""

    count: int

    def __str__(self) -> str:
        return str(self.count)


Action = Act | Jump


@dataclass(frozen=True, slots=True)
class Control:
    """What each verdict does to the stack."""

    text: str
    actions: Mapping[Verdict, Action]


@dataclass(frozen=True, slots=True)
class Rule:
    """One verifier, its options, and what its verdicts do."""

    text: str
    control: Control
    verifier: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Inclusion:
    """The rules of another stack, merged in (`include`) or judged by themselves (`substack`)."""

    text: str
    stack: str
    apart: bool


@dataclass(frozen=True, slots=True)
class Placed:
    """A rule where it is run: `level` counts the substacks around it; `stack` and `number` (from 1) are its place."""

    rule: Rule
    level: int
    stack: str
    number: int

    @property
    def where(self) -> str:
        """The rule as errors name it."""
        return _where(self.stack, self.number, self.rule.text)

    @property
    def place(self) -> tuple[str | int, ...]:
        """Where the rule stands in otpbridge.toml."""
        return _in_file(self.stack, self.number)

    def action(self, verdict: Verdict) -> Action:
        """What a verdict of this rule does to the stack."""
        return self.rule.control.actions[verdict]


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a substack begins, at the level of the rule that names it. It runs nothing, but jumps count it."""

    level: int


@dataclass(frozen=True, slots=True)
class Program:
    """A stack with all that it includes, in the order of evaluation."""

    name: str
    elements: tuple[Placed | Entrance, ...]

    @property
    def rules(self) -> tuple[Placed, ...]:
        """The rules alone."""
        return tuple(element for element in self.elements if isinstance(element, Placed))

    def end(self, place: int) -> int:
        """Where the evaluation goes on when the substack around an element is over."""
        level = self.elements[place].level
        beyond = range(place + 1, len(self.elements))
        return next((later for later in beyond if self.elements[later].level < level), len(self.elements))

    def landing(self, place: int, jump: Jump) -> int | None:
        """Where a jump leads; None when there is not that much to jump over."""
        level, end = self.elements[place].level, self.end(place)
        same = [later for later in range(place + 1, end) if self.elements[later].level == level]
        return [*same, end][jump.count] if jump.count <= len(same) else None


# --- one rule ---

_WORD = re.compile(r"\s*(?:\[(?P<bracketed>(?:\\\]|[^\]])*+)\](?!\S)|(?P<plain>[^\s\[]\S*))", re.ASCII)
_JUMP = re.compile(r"[1-9][0-9]{0,5}")
_OPTION = re.compile(r"[a-z][a-z0-9_-]*", re.IGNORECASE | re.ASCII)
_TYPES = ("auth", "account", "password", "session")
_INCLUSIONS = ("include", "substack")
_DEFAULT = "default"

_PAM_CONF = """
success open_err symbol_err service_err system_err buf_err perm_denied auth_err cred_insufficient authinfo_unavail
user_unknown maxtries new_authtok_reqd acct_expired session_err cred_unavail cred_expired cred_err no_module_data
conv_err authtok_err authtok_recover_err authtok_lock_busy authtok_disable_aging try_again ignore abort
authtok_expired module_unknown bad_item conv_again incomplete
"""
RETURN_VALUES = frozenset({*_PAM_CONF.split(), _DEFAULT})
"""All that pam.conf(5) lets stand before a `=`, whether or not it is a verdict."""

_KEYWORDS: Mapping[str, Mapping[str, Action]] = {
    "required": {"success": Act.OK, "new_authtok_reqd": Act.OK, "ignore": Act.IGNORE, _DEFAULT: Act.BAD},
    "requisite": {"success": Act.OK, "new_authtok_reqd": Act.OK, "ignore": Act.IGNORE, _DEFAULT: Act.DIE},
    "sufficient": {"success": Act.DONE, "new_authtok_reqd": Act.DONE, _DEFAULT: Act.IGNORE},
    "optional": {"success": Act.OK, "new_authtok_reqd": Act.OK, _DEFAULT: Act.IGNORE},
}


def parse(text: str) -> Rule | Inclusion:
    """Read one rule. Raises ConfigError saying what is wrong; the caller says where."""
    words = list(_words(text))
    if len(words) < 2:
        raise ConfigError("a rule is `control verifier [options]`. Add what is missing.")
    (control, bracketed), (name, _), *options = words
    if not bracketed and control.lower() in _INCLUSIONS:
        if options:
            raise ConfigError(f"`{control}` takes the name of a stack and nothing else. Remove `{options[0][0]}`.")
        return Inclusion(text, name, apart=control.lower() == "substack")
    named = _bracket(control) if bracketed else _keyword(control)
    # libpam: what neither a name nor `default` covers is `bad`.
    fallback = named.get(_DEFAULT, Act.BAD)
    actions = {verdict: named.get(verdict, fallback) for verdict in Verdict}
    shown = f"[{control}]" if bracketed else control.lower()
    return Rule(text, Control(shown, MappingProxyType(actions)), name, _options([word for word, _ in options]))


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """The words of a rule as libpam divides it, each with whether it stood in brackets."""
    place, end = 0, len(text.rstrip())
    while place < end:
        word = _WORD.match(text, place)
        if word is None:
            raise ConfigError(f"`{text[place:].strip()}` is not closed by a `]` with a blank after it.")
        bracketed = word["bracketed"]
        yield (word["plain"], False) if bracketed is None else (bracketed.replace(r"\]", "]"), True)
        place = word.end()


def _keyword(control: str) -> Mapping[str, Action]:
    """The actions of a control that is one word."""
    if control.lower() in _KEYWORDS:
        return _KEYWORDS[control.lower()]
    if control.lower().lstrip("-") in _TYPES:
        raise ConfigError(f"`{control}` is no control. Leave PAM's type column out: a rule begins with its control.")
    if "=" in control:
        raise ConfigError(f"unknown control `{control}`. Write actions in brackets: `[{control} default=bad]`.")
    raise ConfigError(f"unknown control `{control}`.{_hint(control.lower(), (*_KEYWORDS, *_INCLUSIONS))}")


def _bracket(control: str) -> Mapping[str, Action]:
    """The actions of a control in brackets, by return value."""
    named: dict[str, Action] = {}
    for pair in re.sub(r"\s*=\s*", "=", control).split():
        value, equals, action = pair.partition("=")
        if value not in RETURN_VALUES:
            raise ConfigError(f"unknown return value `{value}`.{_hint(value, RETURN_VALUES)}")
        if not equals:
            raise ConfigError(f"`{value}` has no action. Write `{value}=ok`, or another of {', '.join(Act)}.")
        if value in named:
            raise ConfigError(f"`{value}` is given twice. Keep one.")
        named[value] = _action(action)
    if not named:
        raise ConfigError("the control is empty. Write for example `[success=ok default=bad]`.")
    return named


def _action(text: str) -> Action:
    if _JUMP.fullmatch(text):
        return Jump(int(text))
    try:
        return Act(text)
    except ValueError:
        hint = _hint(text, tuple(Act), "; or how many rules to jump over, 1 to 999999")
        raise ConfigError(f"unknown action `{text}`.{hint}") from None


def _options(words: Sequence[str]) -> Mapping[str, str]:
    """`key=value`, or a bare `flag` with the value `true`."""
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not _OPTION.fullmatch(key):
            raise ConfigError(
                f"`{word}` is no option. Write `key=value` or a flag, and brackets around a value with blanks:"
                " `[key=two words]`."
            )
        if key in options:
            raise ConfigError(f"option `{key}` is given twice. Keep one.")
        options[key] = value if equals else "true"
    return MappingProxyType(options)


def _hint(word: str, known: Collection[str], also: str = "") -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean `{near[0]}`?" if near else f" Known: {', '.join(sorted(known))}{also}."


# --- a stack with all that it includes ---


def resolve(name: str, stacks: Mapping[str, Sequence[str]]) -> Program:
    """Make the program of a stack out of the rules of all stacks.

    Raises ConfigError that names the stack, the rule and what to do.
    """
    if name not in stacks:
        raise ConfigError(f"unknown stack `{name}`.{_hint(name, stacks)}")
    return Program(name, tuple(_place((name,), 0, stacks)))


def _place(path: tuple[str, ...], level: int, stacks: Mapping[str, Sequence[str]]) -> Iterator[Placed | Entrance]:
    """The elements of the last stack of `path`, which was reached by way of the others."""
    stack = path[-1]
    for number, text in enumerate(stacks[stack], 1):
        try:
            rule = parse(text)
            if isinstance(rule, Inclusion):
                _check_inclusion(rule.stack, path, stacks)
        except ConfigError as error:
            raise ConfigError(f"{_where(stack, number, text)}: {error}", _in_file(stack, number)) from None
        if isinstance(rule, Rule):
            yield Placed(rule, level, stack, number)
            continue
        if rule.apart:
            yield Entrance(level)
        yield from _place((*path, rule.stack), level + rule.apart, stacks)


def _check_inclusion(stack: str, path: tuple[str, ...], stacks: Mapping[str, Sequence[str]]) -> None:
    if stack not in stacks:
        raise ConfigError(f"unknown stack `{stack}`.{_hint(stack, stacks)}")
    if stack in path:
        circle = " -> ".join((*path[path.index(stack) :], stack))
        raise ConfigError(f"the stacks include each other in a circle: {circle}. Remove one of these rules.")
    if len(path) >= DEEPEST:
        raise ConfigError(f"stacks are nested deeper than {DEEPEST}: {' -> '.join((*path, stack))}. Include less.")


def _where(stack: str, number: int, text: str) -> str:
    return f"stack `{stack}`, rule {number} (`{text}`)"


def _in_file(stack: str, number: int) -> tuple[str | int, ...]:
    return ("stacks", stack, "rules", number - 1)


# --- what is allowed but hardly meant ---


def warnings(program: Program) -> list[str]:
    """What an admin should know of a program: jumps that lead nowhere and rules that are never reached."""
    reached = _reached(program)
    found: dict[str, None] = {}
    for place, placed in enumerate(program.elements):
        if not isinstance(placed, Placed):
            continue
        for action in placed.rule.control.actions.values():
            if isinstance(action, Jump) and program.landing(place, action) is None:
                found[f"{placed.where}: the jump over {action} goes beyond the end: who takes it is refused."] = None
        if (placed.stack, placed.number) not in reached:
            found[f"{placed.where}: is never reached."] = None
    return list(found)


def _reached(program: Program) -> set[tuple[str, int]]:
    """The rules, by stack and number, that some verdicts of those before them lead to."""
    seen: set[tuple[int, bool]] = set()
    waiting = [(0, False)]
    while waiting:
        at = place, negative = waiting.pop()
        if at in seen or place == len(program.elements):
            continue
        seen.add(at)
        element = program.elements[place]
        if isinstance(element, Placed):
            actions = element.rule.control.actions.values()
            waiting += [_leads_to(program, place, action, negative=negative) for action in actions]
        else:
            waiting.append((place + 1, negative))
    elements = (program.elements[place] for place, _ in seen)
    return {(placed.stack, placed.number) for placed in elements if isinstance(placed, Placed)}


def _leads_to(program: Program, place: int, action: Action, *, negative: bool) -> tuple[int, bool]:
    """Where an action leads, and whether the stack is then to refuse, or may be; `negative` says so before it."""
    match action:
        case Jump():
            landing = program.landing(place, action)
            return (program.end(place), True) if landing is None else (landing, negative)
        case Act.DIE:
            return program.end(place), True
        case Act.DONE if not negative:
            return program.end(place), False
        case Act.BAD:
            return place + 1, True
        case Act.RESET:
            return place + 1, program.elements[place].level > 0
        case _:
            return place + 1, negative
