"""Messages on byte streams (docs/protocol.md, P-13)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError, InvalidFrameError
from stt_proto.wire.framing import MAX_MESSAGE, Deframer, encode_length

messages = st.lists(st.binary(min_size=1, max_size=300), max_size=12)


def framed(*parts: bytes) -> bytes:
    return b"".join(encode_length(len(part)) + part for part in parts)


def test_the_length_is_two_bytes_big_endian() -> None:
    assert (encode_length(1), encode_length(0x1234), encode_length(MAX_MESSAGE)) == (b"\0\1", b"\x12\x34", b"\xff\xff")


@pytest.mark.parametrize("size", [0, -1, MAX_MESSAGE + 1])
def test_no_such_message(size: int) -> None:
    with pytest.raises(ArgumentError, match="size is"):
        encode_length(size)


@given(messages, st.lists(st.integers(0, 40), max_size=200), st.booleans())
def test_messages_come_out_however_the_stream_is_cut(sent: list[bytes], cuts: list[int], mutable: bool) -> None:
    """P-13: and what comes out does not depend on memory that the host uses again."""
    stream, deframer, got = framed(*sent), Deframer(), []
    for size in [*cuts, len(stream)]:
        piece = bytearray(stream[:size]) if mutable else stream[:size]
        stream = stream[size:]
        got += [bytes(message) for message in deframer.feed(piece)]
        if mutable:
            piece[:] = bytes(len(piece))
        assert deframer.held <= MAX_MESSAGE + 2
    assert got == sent
    deframer.end()
    assert deframer.failure is None


@given(st.lists(st.binary(max_size=70), max_size=30))
def test_nothing_raises_and_nothing_comes_after_a_failure(pieces: list[bytes]) -> None:
    """P-13: any bytes; the same messages come out as of the whole."""
    deframer, whole = Deframer(), Deframer()
    got = [bytes(message) for piece in pieces for message in deframer.feed(piece)]
    assert got == [bytes(message) for message in whole.feed(b"".join(pieces))]
    assert (deframer.failure is None) == (whole.failure is None)
    if deframer.failure is not None:
        assert deframer.held == 0
        assert deframer.feed(framed(b"more")) == []


@pytest.mark.parametrize("pieces", [[b"\0\0"], [b"\0", b"\0"], [framed(b"x") + b"\0\0" + framed(b"y")]])
def test_a_message_without_bytes_ends_it(pieces: list[bytes]) -> None:
    """P-13: where the next one begins cannot be known."""
    deframer = Deframer()
    got = [bytes(message) for piece in pieces for message in deframer.feed(piece)]
    assert got in ([], [b"x"])
    assert isinstance(deframer.failure, InvalidFrameError)
    assert deframer.feed(framed(b"more")) == []
    deframer.end()
    assert deframer.failure.message == "a message without bytes"


@pytest.mark.parametrize("rest", [b"\0", b"\0\5", b"\0\5abcd"])
def test_a_stream_that_ends_in_the_middle(rest: bytes) -> None:
    deframer = Deframer()
    assert [bytes(message) for message in deframer.feed(framed(b"x") + rest)] == [b"x"]
    deframer.end()
    assert "in the middle" in str(deframer.failure)


def test_large_messages_are_not_copied() -> None:
    """Only what came in pieces is."""
    stream = framed(bytes(MAX_MESSAGE), b"small")
    views = Deframer().feed(stream)
    assert all(view.obj is stream for view in views)


def test_a_message_in_very_small_pieces_is_gathered_once() -> None:
    """Not once for each piece: the time is linear."""
    deframer, stream = Deframer(), framed(bytes(MAX_MESSAGE))
    for at in range(len(stream) - 1):
        assert deframer.feed(stream[at : at + 1]) == []
    (message,) = deframer.feed(stream[-1:])
    assert len(message) == MAX_MESSAGE
    assert deframer.held == 0
