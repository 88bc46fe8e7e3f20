"""Replies of many items, in as many messages as they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from otpbridge.wire.messages import Message
from otpbridge.wire.service import Call

M = TypeVar("M", bound=Message)
R = TypeVar("R", bound=Message)

ROOM = 60_000
"""Bytes of items in a reply; the rest of a message is for what stands around them."""

_encode = msgspec.json.Encoder().encode


async def send_but_last(call: Call, items: Iterable[M], reply: Callable[[tuple[M, ...]], R]) -> R:
    """Send all replies that these items need but the last one, which is given back."""
    pages = fitting(items)
    last = next(pages)
    for page in pages:
        await call.send(reply(last))
        last = page
    return reply(last)


def fitting(items: Iterable[M]) -> Iterator[tuple[M, ...]]:
    """Items in order, as many together as fit into a reply; one page without any where there are none."""
    page: list[M] = []
    used = 0
    for item in items:
        size = len(_encode(item)) + 1
        if page and used + size > ROOM:
            yield tuple(page)
            page, used = [], 0
        page.append(item)
        used += size
    yield tuple(page)
