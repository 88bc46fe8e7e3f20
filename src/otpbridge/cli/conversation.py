"""A conversation with the daemon on a terminal: tell what it tells, ask what it asks, until it has a verdict."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from otpbridge.cli import ask, show
from otpbridge.model import Context, PromptStyle

if TYPE_CHECKING:
    from otpbridge.client import Client, Verification
    from otpbridge.model import Notice, Prompt


def converse(
    daemon: Client, user: str, client: str | None, stack: str | None, tell: Callable[[Notice], None]
) -> Verification:
    """Have a person verified. `tell` gets each notice as it comes; on a terminal it may be a drawing."""
    context = Context(tty=os.ttyname(sys.stdin.fileno()))
    with daemon.begin(user, client=client, stack=stack, context=context, on_notice=tell) as talk:
        while talk.verdict is None:
            talk.answer(*[_answer(prompt) for prompt in talk.prompts])
        return talk.result


def _answer(prompt: Prompt) -> str:
    text = show.visible(prompt.text)
    return ask.hidden(text) if prompt.style is PromptStyle.HIDDEN else ask.line(text)


def notice_lines(text: str) -> list[str]:
    """The lines of a notice, each of them harmless for a terminal: it may be a drawing."""
    return [show.visible(line) for line in text.splitlines()]
