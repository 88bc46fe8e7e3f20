"""Frames come out as they went in, whatever happens between."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otpbridge.model import Verdict
from otpbridge.wire import framing
from otpbridge.wire.messages import Check, CheckReply, ContextFields

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
MAYBE = st.none() | TEXT
CONTEXTS = st.builds(ContextFields, service=MAYBE, rhost=MAYBE, tty=MAYBE, ruser=MAYBE, language=MAYBE)
CHECKS = st.builds(
    Check,
    user=TEXT,
    responses=st.lists(TEXT, max_size=4).map(tuple),
    client=MAYBE,
    stack=MAYBE,
    context=st.none() | CONTEXTS,
    nullok=st.none() | st.booleans(),
)


def split(chunks: list[bytes], limit: int) -> tuple[list[bytes], bool]:
    """The frames in these chunks, and whether one was too long."""
    splitter = framing.FrameSplitter(limit)
    frames = []
    for chunk in chunks:
        splitter.feed(chunk)
        try:
            while (frame := splitter.take()) is not None:
                frames.append(frame)
        except framing.FrameTooLongError:
            return frames, True
    return frames, False


@given(
    st.lists(st.binary(max_size=12).map(lambda text: text.replace(b"\0", b"x")), max_size=8),
    st.binary(max_size=7).map(lambda text: text.replace(b"\0", b"x")),
    st.lists(st.integers(1, 9), min_size=1),
)
def test_any_chunks_give_the_same_frames(frames: list[bytes], rest: bytes, sizes: list[int]) -> None:
    """However the kernel cuts the stream, the frames are those that were sent, and half a frame is none."""
    stream = b"".join(frame + b"\0" for frame in frames) + rest
    chunks, position = [], 0
    while position < len(stream):
        size = sizes[len(chunks) % len(sizes)]
        chunks.append(stream[position : position + size])
        position += size
    assert split(chunks, 13) == (frames, False)


@given(st.integers(1, 30), st.integers(1, 40))
def test_a_frame_may_be_as_long_as_the_limit_and_no_longer(size: int, chunk: int) -> None:
    """The limit counts the NUL, and holds whether the frame comes at once or in pieces."""
    stream = b"x" * (size - 1) + b"\0"
    chunks = [stream[at : at + chunk] for at in range(0, size, chunk)]
    assert split(chunks, 20) == (([stream[:-1]], False) if size <= 20 else ([], True))


def test_an_endless_message_is_looked_at_once() -> None:
    """A message in single bytes costs one look at each byte, not one look at everything for each byte."""

    class Counting(bytearray):
        looked_at = 0

        def find(self, sub: int, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
            Counting.looked_at += min(len(self), end or len(self)) - start
            return super().find(sub, start, end)

    splitter = framing.FrameSplitter()
    splitter._buffer = Counting()
    for _ in range(framing.FRAME_BYTES - 1):
        splitter.feed(b"x")
        assert splitter.take() is None
    splitter.feed(b"x")
    with pytest.raises(framing.FrameTooLongError):
        splitter.take()
    assert Counting.looked_at == framing.FRAME_BYTES
    assert len(splitter) == framing.FRAME_BYTES


@given(CHECKS, st.booleans())
def test_a_call_arrives_as_it_was_made(check: Check, more: bool) -> None:
    """Every text survives the wire: quotes, NUL, emoji, and what is left out stays left out."""
    frame = framing.encode_call(Check.METHOD, check, more=more)
    assert frame.count(b"\0") == 1
    assert frame.endswith(b"\0")
    envelope = framing.decode_call(frame[:-1])
    assert (envelope.method, bool(envelope.more)) == (Check.METHOD, more)
    assert msgspec.json.decode(framing.parameters_of(envelope.parameters), type=Check) == check


@given(st.sampled_from(Verdict), MAYBE, st.none() | st.integers(0, 2**53))
def test_a_reply_arrives_as_it_was_made(verdict: Verdict, token: str | None, seconds: int | None) -> None:
    """Replies are read back equal, the continuing ones too."""
    reply = CheckReply(verdict=verdict, notices=(), token=token, retry_after=seconds)
    for continues in (False, True):
        envelope = framing.decode_reply(framing.encode_reply(reply, continues=continues)[:-1])
        assert bool(envelope.continues) is continues
        assert envelope.error is None
        assert msgspec.json.decode(framing.parameters_of(envelope.parameters), type=CheckReply) == reply


@pytest.mark.parametrize("text", [b'{"method":"a.B"}', b'{"method":"a.B","parameters":null}'])
def test_left_out_and_null_parameters_are_empty_ones(text: bytes) -> None:
    """Receivers are tolerant: no parameters, null and {} are the same."""
    assert framing.parameters_of(framing.decode_call(text).parameters) == b"{}"


def test_a_message_that_no_peer_would_take_is_not_made() -> None:
    """A call over 64 KiB fails where it is made, not at the other end."""
    with pytest.raises(framing.FrameTooLongError):
        framing.encode_call(Check.METHOD, Check(user="x" * framing.FRAME_BYTES, responses=()))
