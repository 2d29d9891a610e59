"""The receiving half of a stream: order, ends, credit, and what it costs to hold pieces."""

from __future__ import annotations

import random
import tracemalloc
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.errors import (
    ArgumentError,
    FlowControlError,
    InvalidFrameError,
    ResourcesExhaustedError,
    SessionClosedError,
    StateError,
    StreamClosedError,
)
from stt_proto.events import StreamReadable, StreamReset
from stt_proto.streams import Hub, ReceiveState, ReceiveStream
from tests.proto.walks import walks

READABLE = StreamReadable(0)


class Receiver:
    """A receiving half and the hub that it reports to."""

    def __init__(self, window: int = 1 << 20, session: int = 1 << 21, max_pieces: int = 1024) -> None:
        self.events: deque[Any] = deque()
        self.hub = Hub(self.events, session)
        self.stream = ReceiveStream(0, self.hub, window=window, max_pieces=max_pieces)

    def drain(self) -> list[Any]:
        events = list(self.events)
        self.events.clear()
        return events

    def assert_all_credit_is_back(self) -> None:
        for window in (self.stream.window, self.hub.window):
            assert window.consumed == window.received


# -- order ---------------------------------------------------------------------------------------------------------


def test_bytes_in_order_are_read_as_they_came() -> None:
    receiver = Receiver()
    data = bytes(1000)
    receiver.stream.on_data(0, data, False)
    assert receiver.stream.bytes_readable == 1000
    assert receiver.stream.read(65_536) is data
    assert receiver.stream.read(1) == b""


def test_views_become_bytes_when_they_are_read() -> None:
    """The core never hands out a view into a packet."""
    receiver = Receiver()
    receiver.stream.on_data(0, memoryview(bytes(range(200)) * 50), False)
    data = receiver.stream.read(1 << 20)
    assert type(data) is bytes
    assert data == bytes(range(200)) * 50


@given(st.data())
def test_any_order_any_overlap_any_reading(data: st.DataObject) -> None:
    """S-5: whatever pieces come, in whatever order and however often, the bytes are read in order and once."""
    content = bytes(i * 7 % 256 for i in range(data.draw(st.sampled_from([1, 40, 3000]))))
    size = len(content)
    receiver = Receiver()
    got = bytearray()
    pieces = st.tuples(st.integers(0, size), st.integers(0, size), st.booleans(), st.integers(0, size))
    for start, length, viewed, reading in data.draw(walks(pieces, 25)):
        piece: bytes | memoryview = content[start : start + length]
        fin = start + len(piece) == size
        receiver.stream.on_data(start, memoryview(piece) if viewed else piece, fin)
        if reading:
            got += receiver.stream.read(reading)
    receiver.stream.on_data(0, content, True)
    while not receiver.stream.at_eof:
        got += receiver.stream.read(data.draw(st.integers(1, size)))
    assert got == content
    assert receiver.stream.done
    assert receiver.stream.state is ReceiveState.ENDED
    receiver.assert_all_credit_is_back()
    assert receiver.hub.bytes_read == size


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=20), st.integers(1, 9000))
def test_reading_cuts_where_it_likes(sizes: list[int], most: int) -> None:
    receiver = Receiver()
    content = random.Random(1).randbytes(sum(sizes))
    offset = 0
    for size in sizes:
        receiver.stream.on_data(offset, memoryview(content)[offset : offset + size], False)
        offset += size
    got = bytearray()
    while piece := receiver.stream.read(most):
        assert len(piece) == min(most, len(content) - len(got))
        got += piece
    assert got == content


@pytest.mark.parametrize("max_bytes", [0, -1, None, 1.5, "1"])
def test_reading_nothing_is_an_error(max_bytes: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        Receiver().stream.read(max_bytes)
    assert caught.value.argument == "max_bytes"


# -- edges ---------------------------------------------------------------------------------------------------------


def test_readable_is_told_once_until_nothing_was_read() -> None:
    """DESIGN section 3: an event for the first data, and then only after `read` gave nothing."""
    receiver = Receiver()
    receiver.stream.on_data(5, b"later", False)
    assert receiver.drain() == []
    receiver.stream.on_data(0, b"first", False)
    assert receiver.drain() == [READABLE]
    receiver.stream.on_data(10, b"x", False)
    assert receiver.stream.read(3) == b"fir"
    receiver.stream.on_data(11, b"x", False)
    assert receiver.stream.read(100) == b"stlaterxx"
    receiver.stream.on_data(12, b"y", False)
    assert receiver.drain() == []
    assert receiver.stream.read(100) == b"y"
    assert receiver.stream.read(100) == b""
    receiver.stream.on_data(0, b"first", False)
    assert receiver.drain() == []
    receiver.stream.on_data(13, b"z", False)
    assert receiver.drain() == [READABLE]


def test_the_end_is_worth_an_event() -> None:
    """DESIGN section 3: StreamReadable also for the end alone; after it there is none."""
    receiver = Receiver()
    receiver.stream.on_data(0, b"abc", False)
    receiver.stream.read(10)
    assert not receiver.stream.at_eof
    assert receiver.stream.read(10) == b""
    receiver.drain()
    receiver.stream.on_data(3, b"", True)
    assert receiver.drain() == [READABLE]
    assert receiver.stream.at_eof
    assert not receiver.stream.done
    assert receiver.stream.read(10) == b""
    assert receiver.stream.done
    receiver.stream.on_data(3, b"", True)
    assert receiver.drain() == []


def test_an_end_that_overtook_its_data_waits() -> None:
    """S-5."""
    receiver = Receiver()
    receiver.stream.on_data(3, b"def", True)
    assert receiver.drain() == []
    assert receiver.stream.read(10) == b""
    receiver.stream.on_data(0, b"abc", False)
    assert receiver.drain() == [READABLE]
    assert receiver.stream.read(6) == b"abcdef"
    assert receiver.stream.at_eof
    assert receiver.stream.done


# -- the final size ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "data", "fin"),
    [(0, b"abcdef", False), (6, b"", False), (0, b"abcd", True), (0, b"abcdef", True), (5, b"x", False)],
)
def test_nothing_contradicts_the_end(offset: int, data: bytes, fin: bool) -> None:
    """S-5: the final size cannot change, and nothing may lie beyond it."""
    receiver = Receiver()
    receiver.stream.on_data(0, b"abcde", True)
    receiver.stream.on_data(0, b"abcde", True)
    receiver.stream.on_data(1, b"bcde", False)
    with pytest.raises(InvalidFrameError) as caught:
        receiver.stream.on_data(offset, data, fin)
    assert caught.value.code == 0x0401


@pytest.mark.parametrize(("offset", "data"), [(0, b"x"), (1, b""), (7, b"x")])
def test_nothing_lies_behind_the_end_of_an_empty_stream(offset: int, data: bytes) -> None:
    """S-5: a final size of 0 is one."""
    receiver = Receiver()
    receiver.stream.on_data(0, b"", True)
    with pytest.raises(InvalidFrameError):
        receiver.stream.on_data(offset, data, False)


@pytest.mark.parametrize("data", [b"", b"abc"])
def test_who_has_said_all_is_not_asked_to_stop(data: bytes) -> None:
    """S-9: there is nothing that the peer could leave out."""
    receiver = Receiver()
    receiver.stream.on_data(0, data, True)
    receiver.stream.stop(7)
    assert receiver.hub.control == {}
    assert receiver.stream.done
    receiver.assert_all_credit_is_back()


def test_an_end_before_what_arrived_is_a_lie() -> None:
    """S-5."""
    for end in (lambda half: half.on_reset(1, 10), lambda half: half.on_data(0, b"abc", True)):
        receiver = Receiver()
        receiver.stream.on_data(10, b"x", False)
        with pytest.raises(InvalidFrameError):
            end(receiver.stream)


@pytest.mark.parametrize("size", [4, 6])
def test_a_reset_does_not_change_the_end(size: int) -> None:
    """S-5."""
    receiver = Receiver()
    receiver.stream.on_data(0, b"abcde", True)
    with pytest.raises(InvalidFrameError):
        receiver.stream.on_reset(1, size)


# -- credit --------------------------------------------------------------------------------------------------------


def test_the_streams_window_is_enforced() -> None:
    """S-6: by the largest offset, whatever lies below it."""
    receiver = Receiver(window=100)
    receiver.stream.on_data(99, b"x", False)
    with pytest.raises(FlowControlError) as caught:
        receiver.stream.on_data(100, b"x", False)
    assert caught.value.code == 0x0304


def test_the_sessions_window_is_enforced_over_all_streams() -> None:
    """S-6."""
    receiver = Receiver(window=100, session=150)
    other = ReceiveStream(4, receiver.hub, window=100, max_pieces=10)
    receiver.stream.on_data(0, bytes(100), False)
    other.on_data(0, bytes(50), False)
    other.on_data(10, bytes(40), False)
    with pytest.raises(FlowControlError):
        other.on_data(50, b"x", False)


def test_a_reset_is_charged_up_to_its_final_size() -> None:
    """S-6."""
    receiver = Receiver(window=100)
    with pytest.raises(FlowControlError):
        receiver.stream.on_reset(1, 101)


def test_credit_returns_when_the_application_reads() -> None:
    """S-6, S-7: not when bytes arrive, but once half of the window has come together; a quarter of the session's, when
    the peer has no more of it left."""
    receiver = Receiver(window=100, session=100)
    receiver.stream.on_data(0, bytes(100), False)
    assert not receiver.hub.control
    receiver.stream.read(24)
    assert not receiver.hub.control
    receiver.stream.read(1)
    assert list(receiver.hub.control) == [("max_data", 0)]
    receiver.stream.read(24)
    assert list(receiver.hub.control) == [("max_data", 0)]
    receiver.stream.read(1)
    assert list(receiver.hub.control) == [("max_data", 0), ("max_stream_data", 0)]
    assert receiver.stream.window.announce() == 150


def test_a_stream_that_ended_asks_for_nothing_more() -> None:
    """S-6: credit beyond the final size would be of no use; the session's still returns."""
    receiver = Receiver(window=100, session=100)
    assert receiver.stream.wants_credit
    receiver.stream.on_data(0, bytes(90), True)
    assert not receiver.stream.wants_credit
    receiver.stream.read(80)
    assert list(receiver.hub.control) == [("max_data", 0)]


# -- pieces --------------------------------------------------------------------------------------------------------


def test_pieces_beyond_a_gap_are_counted() -> None:
    """S-8: more separate pieces than the limit close the session; those that touch are one."""
    receiver = Receiver(max_pieces=1024)
    for i in range(1024):
        receiver.stream.on_data(2 + 2 * i, b"x", False)
    for i in range(512):
        receiver.stream.on_data(3 + 4 * i, b"y", False)
    for i in range(512):
        receiver.stream.on_data(5000 + 2 * i, b"x", False)
    with pytest.raises(ResourcesExhaustedError) as caught:
        receiver.stream.on_data(9000, b"x", False)
    assert caught.value.code == 0x0603


@pytest.mark.parametrize("order", ["backwards", "odd then even", "random"])
def test_tiny_fragments_cost_little_memory(order: str) -> None:
    """S-8 [Tiny fragments]: what a byte costs stays bounded, in whichever order the bytes come."""
    count, size = 20_000, 3
    offsets = [i * size for i in range(1, count)]
    if order == "backwards":
        offsets.reverse()
    elif order == "random":
        random.Random(2).shuffle(offsets)
    else:
        offsets = offsets[::2] + offsets[1::2]
    receiver = Receiver(max_pieces=count)
    tracemalloc.start()
    try:
        for offset in offsets:
            receiver.stream.on_data(offset, bytes((1, 2, 3)), False)
        receiver.stream.on_data(0, bytes((1, 2, 3)), False)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert receiver.stream.bytes_readable == count * size
    assert held < 4 * count * size
    assert receiver.stream.read(1 << 20) == bytes((1, 2, 3)) * count


def test_a_large_packet_is_not_kept_for_a_small_rest() -> None:
    """S-8: of a piece that had arrived for the most part, only the rest is kept."""
    receiver = Receiver()
    receiver.stream.on_data(0, bytes(59_000), False)
    for i in range(50):
        receiver.stream.on_data(200_000 + 1000 * i, bytes(200), False)
    tracemalloc.start()
    try:
        for i in range(50):
            receiver.stream.on_data(1000 * i, memoryview(bytearray(60_000)), False)
            receiver.stream.on_data(200_000 + 1000 * i, memoryview(bytearray(1200)), False)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert receiver.stream.bytes_readable == 109_000
    assert held < 120_000


def test_a_frame_over_many_pieces_fills_all_gaps() -> None:
    """S-5, S-8."""
    content = random.Random(3).randbytes(4000)
    receiver = Receiver()
    for start in range(100, 4000, 200):
        receiver.stream.on_data(start, content[start : start + 50], False)
    receiver.stream.on_data(120, memoryview(content)[120:3850], False)
    receiver.stream.on_data(120, content[120:3850], False)
    receiver.stream.on_data(3900, content[3900:], False)
    receiver.stream.on_data(0, content[:100], False)
    assert receiver.stream.read(10_000) == content[:3850]
    receiver.stream.on_data(3000, content[3000:], False)
    assert receiver.stream.read(10_000) == content[3850:]


# -- reset ---------------------------------------------------------------------------------------------------------


def test_a_reset_drops_what_was_not_read_and_returns_its_credit() -> None:
    """S-6, S-9: the application is told, by event and by `read`."""
    receiver = Receiver(window=1000, session=1000)
    receiver.stream.on_data(0, bytes(300), False)
    receiver.stream.on_data(400, bytes(100), False)
    receiver.stream.read(100)
    receiver.drain()
    assert receiver.stream.on_reset(7, 600)
    assert receiver.drain() == [StreamReset(0, 7)]
    receiver.assert_all_credit_is_back()
    assert receiver.stream.window.received == 600
    assert list(receiver.hub.control) == [("max_data", 0)]
    assert not receiver.stream.at_eof
    assert not receiver.stream.done
    for _ in range(2):
        with pytest.raises(StreamClosedError) as caught:
            receiver.stream.read(10)
        assert caught.value.stream_code == 7
    assert receiver.stream.done
    assert not receiver.stream.on_reset(7, 600)
    receiver.stream.on_data(300, bytes(100), False)
    receiver.assert_all_credit_is_back()


def test_a_reset_wakes_who_waits() -> None:
    """DESIGN section 3: StreamReadable for a reset as for data, when nothing was there to read."""
    receiver = Receiver()
    assert receiver.stream.read(1) == b""
    receiver.stream.on_reset(7, 0)
    assert receiver.drain() == [StreamReset(0, 7), READABLE]


def test_a_reset_after_everything_arrived_is_too_late() -> None:
    """S-9: what was delivered whole stays readable."""
    receiver = Receiver()
    receiver.stream.on_data(0, b"abc", True)
    receiver.drain()
    assert not receiver.stream.on_reset(7, 3)
    assert receiver.drain() == []
    assert receiver.stream.read(3) == b"abc"
    assert receiver.stream.done


def test_a_reset_before_everything_arrived_ends_the_wait() -> None:
    """S-9: also when the end had been told."""
    receiver = Receiver()
    receiver.stream.on_data(3, b"abc", True)
    assert receiver.stream.on_reset(7, 6)
    receiver.assert_all_credit_is_back()


# -- stop ----------------------------------------------------------------------------------------------------------


def test_a_stopped_stream_returns_all_credit_at_once() -> None:
    """S-6, S-9: what still arrives is counted and returned, until the final size is known."""
    receiver = Receiver()
    receiver.stream.on_data(0, bytes(100), False)
    receiver.stream.on_data(200, bytes(100), False)
    receiver.stream.stop(9)
    receiver.stream.stop(10)
    assert receiver.stream.stop_code == 9
    assert list(receiver.hub.control) == [("stop", 0)]
    assert receiver.stream.stopping
    receiver.assert_all_credit_is_back()
    receiver.drain()
    receiver.stream.on_data(300, bytes(500), False)
    receiver.assert_all_credit_is_back()
    assert not receiver.stream.done
    with pytest.raises(StateError):
        receiver.stream.read(10)
    assert receiver.stream.on_reset(9, 1000)
    receiver.assert_all_credit_is_back()
    assert receiver.stream.window.received == 1000
    assert receiver.stream.done
    assert not receiver.stream.stopping
    assert not receiver.stream.on_reset(9, 1000)
    assert receiver.drain() == []


def test_a_stopped_stream_is_done_with_its_end() -> None:
    """S-9: the peer may have finished before it was asked to stop."""
    receiver = Receiver()
    receiver.stream.stop(9)
    receiver.stream.on_data(50, bytes(50), True)
    assert receiver.stream.done
    receiver.assert_all_credit_is_back()


def test_stopping_what_has_ended_asks_for_nothing() -> None:
    """S-9."""
    receiver = Receiver()
    receiver.stream.on_data(50, bytes(50), True)
    receiver.stream.stop(9)
    assert receiver.stream.done
    assert not receiver.hub.control
    receiver.assert_all_credit_is_back()
    receiver = Receiver()
    receiver.stream.on_reset(1, 5)
    receiver.stream.stop(9)
    assert receiver.stream.done
    assert not receiver.hub.control
    receiver = Receiver()
    receiver.stream.on_data(0, b"", True)
    receiver.stream.read(1)
    receiver.stream.stop(9)
    assert receiver.stream.state is ReceiveState.ENDED


# -- the end of the session ----------------------------------------------------------------------------------------


def test_what_arrived_stays_readable() -> None:
    """K-2, DESIGN section 3: then the session's error is raised."""
    receiver = Receiver()
    receiver.stream.on_data(0, b"abc", False)
    receiver.stream.on_data(9, b"xyz", False)
    error = SessionClosedError("over")
    receiver.stream.fail(error)
    assert receiver.stream.read(10) == b"abc"
    assert not receiver.stream.at_eof
    for _ in range(2):
        with pytest.raises(SessionClosedError) as caught:
            receiver.stream.read(10)
        assert caught.value is error


def test_a_stream_that_is_all_here_ends_as_ever() -> None:
    """K-2."""
    receiver = Receiver()
    receiver.stream.on_data(0, b"abc", True)
    receiver.stream.fail(SessionClosedError("over"))
    assert receiver.stream.read(10) == b"abc"
    assert receiver.stream.at_eof
    assert receiver.stream.read(10) == b""
