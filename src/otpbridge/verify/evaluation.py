"""Evaluate a program of rules: which rule is run next, and what the verdicts amount to, exactly as in libpam.

Held to the real libpam by tests/conformance/test_stack_is_libpam.py.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from otpbridge.model import Verdict
from otpbridge.verify.rules import Act, Action, Jump, Placed, Program


class Impression(enum.Enum):
    """What the rules so far make of the attempt."""

    NONE = "none"
    POSITIVE = "positive"
    NEGATIVE = "negative"


@dataclass(frozen=True, slots=True)
class _State:
    """The impression, and the verdict that goes with it."""

    impression: Impression
    verdict: Verdict

    def accept(self, verdict: Verdict) -> _State:
        """Take a verdict as good. It counts where none did before, or where that one was plain success."""
        if self is _BEGINNING or self is _SUCCESS:
            return _SUCCESS if verdict is Verdict.SUCCESS else _State(Impression.POSITIVE, verdict)
        return self

    def refuse(self, verdict: Verdict) -> _State:
        """Take a verdict as bad. The first such one stays; `ignore` is none to refuse with."""
        if self.impression is Impression.NEGATIVE:
            return self
        return _DENIED if verdict is Verdict.IGNORE else _State(Impression.NEGATIVE, verdict)


_BEGINNING = _State(Impression.NONE, Verdict.PERM_DENIED)
_SUCCESS = _State(Impression.POSITIVE, Verdict.SUCCESS)
_DENIED = _State(Impression.NEGATIVE, Verdict.PERM_DENIED)


class Evaluation:
    """One evaluation of a program: run `rule`, `give` its verdict, until there is no rule left."""

    __slots__ = ("_entered", "_place", "_program", "_state", "rule")

    def __init__(self, program: Program) -> None:
        self._program = program
        self._state = _BEGINNING
        self._entered = {0: _BEGINNING}
        self.rule: Placed | None
        """The rule to run next; None at the end."""
        self._go_to(0)

    @property
    def verdict(self) -> Verdict:
        """What the stack says, once no rule is left."""
        if self.rule is not None:
            raise RuntimeError("asked for the verdict of a stack before its end")
        refused = self._state.impression is not Impression.POSITIVE
        return Verdict.PERM_DENIED if refused and self._state.verdict is Verdict.SUCCESS else self._state.verdict

    @property
    def undecided(self) -> bool:
        """Whether no rule has left an impression; the verdict is then `perm_denied`."""
        return self._state.impression is Impression.NONE

    def give(self, verdict: Verdict) -> None:
        """Take the verdict of the present rule and go on to the next."""
        if self.rule is None:
            raise RuntimeError("gave a verdict to a stack after its end")
        action = self.rule.action(verdict)
        self._state = self._judge(action, verdict)
        self._go_to(self._next(action))

    def _judge(self, action: Action, verdict: Verdict) -> _State:
        """What an action makes of the state."""
        match action:
            case Act.OK | Act.DONE:
                return self._state.accept(verdict)
            case Act.BAD | Act.DIE:
                return self._state.refuse(verdict)
            case Act.RESET:
                return self._entered[self._program.elements[self._place].level]
            case Jump() if self._program.landing(self._place, action) is None:
                return _DENIED
            case _:
                return self._state

    def _next(self, action: Action) -> int:
        """Where an action leads, after it was judged. What ends, ends the substack around the rule and no more."""
        match action:
            case Jump():
                landing = self._program.landing(self._place, action)
                return self._program.end(self._place) if landing is None else landing
            case Act.DIE:
                return self._program.end(self._place)
            case Act.DONE if self._state.impression is Impression.POSITIVE:
                return self._program.end(self._place)
            case _:
                return self._place + 1

    def _go_to(self, place: int) -> None:
        """Go to an element, and into substacks that begin there; remember the state that `reset` brings back."""
        elements = self._program.elements
        self.rule = None
        while place < len(elements):
            element = elements[place]
            if isinstance(element, Placed):
                self.rule = element
                break
            self._entered[element.level + 1] = self._state
            place += 1
        self._place = place
