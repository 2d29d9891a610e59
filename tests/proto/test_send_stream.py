"""The sending half of a stream: its buffer, its frames and their fate."""

from __future__ import annotations

import array
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError, SessionClosedError, StateError, StreamClosedError
from stt_proto.events import StreamAcked, StreamFinished, StreamWritable
from stt_proto.streams import Hub, IntervalSet, SendState, SendStream
from stt_proto.wire import Padding, Stream, StreamOpen, decode_frames_untrusted, stream_header
from tests.proto.walks import walks

PLENTY = 1 << 40


class Sender:
    """A sending half and the hub that it stands in."""

    def __init__(self, stream_id: int = 0, session_credit: int = PLENTY, **changes: Any) -> None:
        self.events: deque[Any] = deque()
        self.hub = Hub(self.events, 1 << 20)
        self.hub.credit.raise_limit(session_credit)
        arguments = {"limit": PLENTY, "capacity": 1 << 20, "max_frame_size": 16_384} | changes
        self.stream = SendStream(stream_id, self.hub, **arguments)

    def frames(self, room: int = 1200) -> tuple[list[Any], list[Any]]:
        """One packet of this stream alone: its frames and their tokens."""
        out: list[bytes | memoryview] = []
        tokens: list[Any] = []
        used = 0
        while self.stream.stands and self.hub.sendable:
            more = self.stream.write_frame(out, tokens, room - used, PLENTY)
            if not more:
                break
            used += more
        plain = b"".join(out)
        assert len(plain) == used <= room
        return (decode_frames_untrusted(plain) if plain else []), tokens

    def one(self, room: int = 1200) -> tuple[Any, Any]:
        frames, tokens = self.frames(room)
        assert len(frames) == len(tokens) == 1
        return frames[0], tokens[0]

    def all(self, room: int = 1200) -> tuple[list[Any], list[Any]]:
        """Every packet until nothing is left."""
        frames, tokens = [], []
        while self.hub.sendable:
            some, theirs = self.frames(room)
            if not some:
                break
            frames += some
            tokens += theirs
        return frames, tokens

    def acked(self, token: Any) -> bool:
        return token[0].on_acked(*token[1:])

    def lost(self, token: Any) -> None:
        token[0].on_lost(*token[1:])

    def drain(self) -> list[Any]:
        events = list(self.events)
        self.events.clear()
        return events


def joined(frames: list[Any]) -> bytes:
    """The data of frames that follow each other."""
    data = bytearray()
    for frame in frames:
        assert frame.offset == len(data)
        data += frame.data
    return bytes(data)


# -- writing -------------------------------------------------------------------------------------------------------


def test_what_is_written_is_sent() -> None:
    sender = Sender()
    assert sender.stream.write(b"hello") == 5
    frame, token = sender.one()
    assert frame == Stream(0, 0, b"hello", False)
    assert token[1:] == (0, 5, False)
    assert not sender.hub.ready
    assert sender.hub.credit.used == 5


def test_bytes_are_kept_and_anything_else_is_copied() -> None:
    """DESIGN section 3: what `write` was given other than `bytes` may be used again at once."""
    sender = Sender()
    big = bytes(range(256)) * 40
    sender.stream.write(big)
    out: list[Any] = []
    sender.stream.write_frame(out, [], 5000, 5000)
    assert isinstance(out[1], memoryview)
    assert out[1].obj is big
    for make in (bytearray, lambda data: memoryview(bytearray(data)), lambda data: array.array("I", data)):
        for size in (400, 2000, 8000):
            sender = Sender()
            data = make(bytes(range(200)) * (size // 200))
            before = bytes(data)
            assert sender.stream.write(data) == len(before)
            view = memoryview(data).cast("B")
            view[:] = bytes(len(view))
            assert joined(sender.all()[0]) == before


def test_a_view_with_strides_is_written_in_its_order() -> None:
    sender = Sender()
    assert sender.stream.write(memoryview(bytes(range(100)))[::-2]) == 50
    assert sender.one()[0].data == bytes(range(99, 0, -2))


@pytest.mark.parametrize("data", ["text", 5, None])
def test_only_bytes_can_be_written(data: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        Sender().stream.write(data)
    assert caught.value.argument == "data"


def test_writing_nothing_does_nothing() -> None:
    sender = Sender()
    assert sender.stream.write(b"") == 0
    assert sender.stream.write(memoryview(b"")) == 0
    assert not sender.hub.ready


@given(st.lists(st.integers(1, 9000), max_size=30), st.integers(128, 9000))
def test_writes_of_any_size_come_out_in_order(sizes: list[int], room: int) -> None:
    """Chunks are joined, cut and freed behind the scenes; the bytes stay the same."""
    sender = Sender()
    written = bytearray()
    frames: list[Any] = []
    tokens: list[Any] = []
    for turn, size in enumerate(sizes):
        data = bytes((turn + i) % 256 for i in range(size))
        assert sender.stream.write(data if turn % 2 else bytearray(data)) == size
        written += data
        if turn % 3 == 2:
            more, theirs = sender.frames(room)
            frames += more
            tokens += theirs
        if turn % 5 == 4 and tokens:
            sender.acked(tokens.pop(0))
    more, theirs = sender.all(room)
    assert joined([frame for frame in frames + more if isinstance(frame, Stream)]) == written
    for token in tokens + theirs:
        sender.acked(token)
    assert sender.stream.bytes_unacked == 0
    assert sender.hub.undelivered == 0


def test_many_small_writes_become_few_pieces() -> None:
    """A byte at a time must not cost an object each, neither in memory nor in the packet."""
    sender = Sender()
    for i in range(20_000):
        sender.stream.write(bytes((i % 256,)))
    out: list[Any] = []
    sender.stream.write_frame(out, [], 30_000, 30_000)
    assert len(out) < 12
    assert all(type(piece) in (bytes, memoryview) for piece in out)
    assert b"".join(out)[len(out[0]) :] == bytes(i % 256 for i in range(20_000))


def test_what_was_sent_does_not_change_with_later_writes() -> None:
    """Joining small writes stops at a chunk that a packet already holds."""
    sender = Sender()
    sender.stream.write(b"ab")
    sender.stream.write(b"cd")
    out: list[Any] = []
    sender.stream.write_frame(out, [], 1200, 3)
    assert b"".join(out[1:]) == b"abc"
    sender.stream.write(b"ef")
    assert b"".join(out[1:]) == b"abc"
    assert sender.one()[0] == Stream(0, 3, b"def")


# -- the bounded buffer --------------------------------------------------------------------------------------------


def test_the_buffer_is_bounded_and_tells_when_a_quarter_is_free() -> None:
    """DESIGN section 3: a short write is followed by exactly one StreamWritable."""
    sender = Sender(capacity=4000)
    assert sender.stream.write(bytes(5000)) == 4000
    assert sender.stream.write(b"x") == 0
    assert sender.stream.bytes_unsent == sender.stream.bytes_unacked == 4000
    _, tokens = sender.all(room=512)
    sender.acked(tokens[0])
    assert sender.drain() == [StreamWritable(0)]  # one byte was wanted last
    assert sender.stream.write(bytes(4000)) < 4000
    sender.acked(tokens[1])
    assert sender.drain() == []
    sender.acked(tokens[2])
    assert sender.drain() == [StreamWritable(0)]
    for token in tokens[3:]:
        sender.acked(token)
    assert sender.drain() == []


def test_room_counts_from_the_first_unacknowledged_byte() -> None:
    """The bound is on memory, so what was acknowledged behind a gap makes no room yet."""
    sender = Sender(capacity=4000)
    sender.stream.write(bytes(4000))
    _, tokens = sender.all(room=512)
    for token in tokens[1:]:
        sender.acked(token)
    assert sender.stream.write(b"x") == 0
    sender.acked(tokens[0])
    assert sender.stream.acked_offset == 4000
    assert sender.stream.write(bytes(4001)) == 4000


def test_a_small_part_of_something_large_does_not_keep_it_alive() -> None:
    sender = Sender(capacity=4000)
    sender.stream.write(bytes(3900))
    sender.all()
    assert sender.stream.write(bytes(1 << 20)) == 100
    out: list[Any] = []
    sender.stream.write_frame(out, [], 1200, 1200)
    assert isinstance(out[1], bytes)


def test_chunks_that_are_over_are_let_go() -> None:
    """The places of freed chunks are given back, and the cursor still stands where it stood."""
    sender = Sender()
    data = [bytes((i % 256,)) * 600 for i in range(400)]
    for piece in data:
        sender.stream.write(piece)
    out, frames = [], []
    for _ in range(150):
        frame, token = sender.one(room=620)
        frames.append(frame)
        out.append(token)
        sender.acked(token)
    more, _ = sender.all()
    assert joined(frames + more) == b"".join(data)


# -- frames --------------------------------------------------------------------------------------------------------


def test_a_frame_that_fills_the_packet_has_no_length() -> None:
    """Section 8, STREAM: without 0x02 the data reaches to the end of the packet."""
    sender = Sender()
    sender.stream.write(bytes(10_000))
    out: list[Any] = []
    for start in (0, 1198):
        tokens: list[Any] = []
        assert sender.stream.write_frame(out, tokens, 1200, 1200) == 1200
        header = stream_header(0, start, None, False)
        assert out[-2] == header
        assert tokens[0][1:3] == (start, start + 1200 - len(header))


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("purpose", ["", "chat"])
@pytest.mark.parametrize("offset", [0, 70, 20_000])
def test_a_frame_fits_any_room(offset: int, purpose: str, finished: bool) -> None:
    """Section 8, STREAM; S-4: whatever is left of the packet, nothing is written beyond it, and all of it is used
    rather than leaving the last byte for another packet."""
    for room in range(1, 200):
        for size in (0, 1, 62, 63, 64, 65, 100):
            opener = StreamOpen(4, purpose).encode() if purpose else b""
            sender = Sender(stream_id=4, opener=opener)
            if offset:
                sender.stream.write(bytes(offset))
                sender.all(room=9000)
            sender.stream.write(bytes(size))
            if finished:
                sender.stream.finish()
            frames, tokens = sender.frames(room)
            shortest = len(stream_header(4, offset, None, finished)) + (0 if offset else len(opener))
            if not size and not finished:
                assert not frames
            elif shortest + size <= room:
                expected: list[Any] = [Stream(4, offset, bytes(size), finished)]
                if opener and not offset:
                    expected.insert(0, StreamOpen(4, purpose))
                assert [frame for frame in frames if not isinstance(frame, Padding)] == expected
                assert tokens[0][1:] == (offset, offset + size, finished)
                assert not sender.hub.ready
                assert not sender.hub.ready
            elif frames:
                assert frames[-1].offset == offset
                assert len(frames[-1].data) >= 64
                assert not frames[-1].fin


def test_tiny_rests_of_room_are_left() -> None:
    """A frame of a few bytes costs more than it carries."""
    sender = Sender()
    sender.stream.write(bytes(1000))
    assert sender.frames(room=60) == ([], [])
    assert sender.one(room=70)[0].data == bytes(68)


def test_the_purpose_precedes_offset_0_whenever_that_is_sent() -> None:
    """S-4: STREAM_OPEN directly before every STREAM frame with offset 0, in the same packet."""
    sender = Sender(stream_id=8, opener=StreamOpen(8, "video").encode())
    sender.stream.write(bytes(2000))
    first, tokens = sender.frames()
    assert [type(frame) for frame in first] == [StreamOpen, Stream]
    assert first[0] == StreamOpen(8, "video")
    assert [type(frame) for frame in sender.frames()[0]] == [Stream]
    sender.lost(tokens[0])
    assert [type(frame) for frame in sender.frames()[0]][:2] == [StreamOpen, Stream]


def test_the_limit_of_a_turn_is_kept() -> None:
    """S-10."""
    sender = Sender()
    sender.stream.write(bytes(5000))
    out: list[Any] = []
    tokens: list[Any] = []
    sender.stream.write_frame(out, tokens, 1200, 500)
    assert tokens[0][1:] == (0, 500, False)


# -- credit --------------------------------------------------------------------------------------------------------


def test_a_stream_without_credit_waits_for_it() -> None:
    """S-6, S-12: it leaves the queue, says so once for each limit, and comes back when there is more."""
    sender = Sender(limit=100)
    sender.stream.write(bytes(150))
    assert len(sender.one()[0].data) == 100
    assert not sender.hub.ready
    assert sender.stream.blocked
    assert list(sender.hub.control) == [("stream_data_blocked", 0)]
    sender.hub.control.clear()
    sender.stream.write(bytes(10))
    assert not sender.hub.control
    assert not sender.stream.raise_limit(100)
    assert sender.stream.raise_limit(120)
    assert len(sender.one()[0].data) == 20
    assert list(sender.hub.control) == [("stream_data_blocked", 0)]
    assert sender.stream.raise_limit(1000)
    assert len(sender.one()[0].data) == 40
    assert not sender.stream.blocked


def test_the_sessions_credit_bounds_every_frame() -> None:
    """S-6, S-12: the stream waits for more, and lost data needs no credit again."""
    sender = Sender(session_credit=100)
    sender.stream.write(bytes(150))
    tokens: list[Any] = []
    assert sender.stream.write_frame([], tokens, 1200, 1200) == 104
    (token,) = tokens
    assert not sender.hub.sendable
    assert (sender.hub.ready.count, sender.hub.ready.unpaid) == (1, 0)
    assert list(sender.hub.control) == [("data_blocked", 0)]
    sender.hub.control.clear()
    sender.stream.write(b"x")
    assert not sender.hub.control
    sender.lost(token)
    assert sender.one()[0].data == bytes(100)
    assert sender.hub.credit.used == 100
    assert not sender.hub.credit.raise_limit(100)
    assert sender.hub.credit.raise_limit(120)
    assert sender.hub.sendable
    assert len(sender.one()[0].data) == 20
    sender.lost((sender.stream, 0, 10, False))
    assert (sender.hub.ready.count, sender.hub.ready.unpaid) == (1, 1)
    sender.hub.credit.raise_limit(1000)
    assert [len(frame.data) for frame in sender.frames()[0]] == [10, 31]


def test_a_write_without_session_credit_says_so() -> None:
    """S-12."""
    sender = Sender(session_credit=0)
    sender.stream.write(b"x")
    sender.stream.write(b"x")
    assert list(sender.hub.control) == [("data_blocked", 0)]


def test_the_end_needs_no_credit() -> None:
    """S-6: only bytes are charged."""
    sender = Sender(session_credit=0, limit=0)
    sender.stream.finish()
    assert sender.one()[0] == Stream(0, 0, b"", True)


# -- loss and acknowledgement --------------------------------------------------------------------------------------


def test_lost_data_goes_first_and_is_cut_anew() -> None:
    """R-9."""
    sender = Sender()
    data = bytes(range(256)) * 20
    sender.stream.write(data)
    _, first = sender.one(room=900)
    _, second = sender.one(room=900)
    sender.lost(first)
    sender.lost(second)
    again, tokens = sender.frames(room=6000)
    assert again[0] == Stream(0, 0, data[: second[2]])
    assert again[1].offset == second[2]
    for token in tokens:
        sender.acked(token)
    assert sender.stream.acked_offset == len(data)
    assert sender.hub.undelivered == 0


def test_what_is_acknowledged_is_never_sent_again() -> None:
    """R-9: neither what arrived ahead of a gap, nor what arrived although it counted as lost."""
    sender = Sender()
    sender.stream.write(bytes(5000))
    tokens = [sender.one(room=514)[1] for _ in range(6)]
    sender.acked(tokens[2])
    sender.lost((sender.stream, tokens[1][1], tokens[4][2], False))
    sender.acked(tokens[3])
    frames, _ = sender.frames(room=600)
    assert (frames[0].offset, frames[0].offset + len(frames[0].data)) == tokens[1][1:3]
    sender.lost(tokens[0])
    sender.acked(tokens[0])
    sender.acked(tokens[4])
    sender.lost(tokens[0])
    sender.lost(tokens[4])
    frames, _ = sender.frames(room=600)
    assert frames[0].offset >= tokens[5][2]
    sender.acked(tokens[1])
    assert sender.stream.acked_offset == tokens[4][2]
    sender.acked(tokens[1])
    assert sender.stream.acked_offset == tokens[4][2]


def test_a_lost_stretch_that_does_not_fit_is_continued() -> None:
    """R-9."""
    sender = Sender()
    sender.stream.write(bytes(3000))
    _, token = sender.one(room=4000)
    sender.lost(token)
    offsets = []
    while sender.hub.ready:
        frame, _ = sender.one(room=1000)
        offsets.append((frame.offset, len(frame.data)))
    assert offsets == [(0, 998), (998, 996), (1994, 996), (2990, 10)]
    sender.lost(token)
    assert sender.stream.write_frame([], [], 50, 50) == 0


def test_the_end_is_told_until_it_is_acknowledged() -> None:
    """S-5, S-9."""
    sender = Sender()
    sender.stream.write(b"abc")
    sender.stream.finish()
    sender.stream.finish()
    assert sender.hub.undelivered == 4
    frame, token = sender.one()
    assert frame == Stream(0, 0, b"abc", True)
    assert not sender.hub.ready
    sender.lost(token)
    frame, token = sender.one()
    assert frame == Stream(0, 0, b"abc", True)
    assert sender.acked(token)
    assert sender.stream.done
    assert sender.stream.state is SendState.FINISHED
    assert sender.drain() == [StreamFinished(0)]
    assert sender.hub.undelivered == 0
    assert not sender.acked(token)
    sender.lost(token)
    assert not sender.hub.ready
    sender.stream.finish()


def test_an_end_that_comes_late_goes_alone() -> None:
    """S-9: and is all that is sent again when only it was lost."""
    sender = Sender()
    sender.stream.write(b"abc")
    _, data = sender.one()
    sender.stream.finish()
    frame, end = sender.one()
    assert frame == Stream(0, 3, b"", True)
    assert not sender.acked(end)
    assert sender.acked(data)
    sender = Sender()
    sender.stream.write(b"abc")
    _, data = sender.one()
    sender.stream.finish()
    _, end = sender.one()
    assert not sender.acked(data)
    sender.lost(end)
    frame, end = sender.one()
    assert frame == Stream(0, 3, b"", True)
    sender.lost(end)
    assert sender.acked(end)
    assert not sender.hub.ready
    assert sender.drain() == [StreamFinished(0)]


def test_an_end_acknowledged_before_the_data_is_not_sent_again() -> None:
    """R-9: the end arrived in one frame, the data was lost in another."""
    sender = Sender()
    sender.stream.write(b"abc")
    _, data = sender.one()
    sender.stream.finish()
    _, end = sender.one()
    sender.acked(end)
    sender.lost((sender.stream, 3, 3, True))
    assert not sender.hub.ready
    sender.lost((sender.stream, 0, 3, True))
    frame, data = sender.one()
    assert frame == Stream(0, 0, b"abc", True)
    assert sender.acked(data)


# -- what the application asked to be told -------------------------------------------------------------------------


def test_offsets_are_watched() -> None:
    """DESIGN section 3: StreamAcked once for each offset asked for, when all below it is acknowledged."""
    sender = Sender()
    sender.stream.write(bytes(3000))
    tokens = [sender.one(room=1002)[1] for _ in range(3)]
    for offset in (2500, 0, 900, 900, 1500):
        sender.stream.watch_acked(offset)
    assert sender.drain() == [StreamAcked(0, 0)]
    sender.acked(tokens[1])
    assert sender.drain() == []
    sender.acked(tokens[0])
    assert sender.drain() == [StreamAcked(0, 900), StreamAcked(0, 1500)]
    sender.acked(tokens[2])
    assert sender.drain() == [StreamAcked(0, 2500)]
    sender.stream.watch_acked(2500)
    assert sender.drain() == [StreamAcked(0, 2500)]


@pytest.mark.parametrize("offset", [-1, 1 << 62, 1.5, None])
def test_only_offsets_are_watched(offset: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        Sender().stream.watch_acked(offset)
    assert caught.value.argument == "offset"


def test_an_offset_that_will_never_be_reached_is_refused() -> None:
    sender = Sender()
    sender.stream.write(b"abc")
    sender.stream.finish()
    sender.stream.watch_acked(3)
    with pytest.raises(StateError):
        sender.stream.watch_acked(4)


# -- the end of it -------------------------------------------------------------------------------------------------


def test_nothing_is_written_after_the_end() -> None:
    sender = Sender()
    sender.stream.finish()
    with pytest.raises(StateError, match="finished"):
        sender.stream.write(b"x")


def test_a_reset_drops_everything() -> None:
    """S-9: the final size is what was sent; nothing is sent afterwards, whatever becomes of the frames."""
    sender = Sender(capacity=5000)
    assert sender.stream.write(bytes(6000)) == 5000
    _, token = sender.one()
    sender.lost(token)
    sender.stream.watch_acked(5000)
    sender.stream.reset(7)
    assert sender.stream.resetting
    assert (sender.stream.code, sender.stream.sent_offset) == (7, token[2])
    assert list(sender.hub.control) == [("reset", 0)]
    assert not sender.hub.ready
    assert not sender.hub.ready
    assert sender.hub.undelivered == 1
    sender.lost(token)
    assert not sender.acked(token)
    assert not sender.hub.ready
    assert sender.stream.raise_limit(1 << 50)
    assert not sender.hub.ready
    sender.stream.reset(8)
    assert sender.stream.code == 7
    for command in (lambda: sender.stream.write(b"x"), sender.stream.finish, lambda: sender.stream.watch_acked(9999)):
        with pytest.raises(StateError, match="reset"):
            command()
    assert sender.stream.on_reset_acked()
    assert sender.stream.done
    assert not sender.stream.on_reset_acked()
    assert sender.hub.undelivered == 0
    assert sender.drain() == []
    with pytest.raises(StateError, match="reset"):
        sender.stream.write(b"x")


def test_a_stream_can_be_reset_until_its_end_is_acknowledged() -> None:
    """S-9."""
    sender = Sender()
    sender.stream.write(b"abc")
    sender.stream.finish()
    _, token = sender.one()
    sender.stream.reset(1)
    assert sender.stream.state is SendState.RESETTING
    assert sender.hub.undelivered == 1
    sender = Sender()
    sender.stream.finish()
    sender.acked(sender.one()[1])
    sender.stream.reset(1)
    assert sender.stream.state is SendState.FINISHED
    assert not sender.hub.control
    assert token


def test_a_peer_that_wants_no_more_gets_a_reset() -> None:
    """S-9: with its own code, and writers learn it."""
    sender = Sender()
    sender.stream.write(b"abc")
    assert not sender.stream.stopped
    assert sender.stream.on_stop(9)
    assert sender.stream.stopped
    assert sender.stream.code == 9
    assert list(sender.hub.control) == [("reset", 0)]
    assert not sender.stream.on_stop(10)
    with pytest.raises(StreamClosedError) as caught:
        sender.stream.write(b"x")
    assert caught.value.stream_code == 9
    sender.stream.fail(SessionClosedError("over"))
    with pytest.raises(StreamClosedError):
        sender.stream.finish()
    other = Sender()
    other.stream.fail(SessionClosedError("over"))
    with pytest.raises(SessionClosedError):
        other.stream.watch_acked(0)


def test_everything_acknowledged_is_not_stopped() -> None:
    """S-9."""
    sender = Sender()
    sender.stream.finish()
    sender.acked(sender.one()[1])
    assert not sender.stream.on_stop(9)
    assert not sender.hub.control


def test_the_end_of_the_session_is_the_error_of_every_command() -> None:
    """DESIGN section 3, errors."""
    sender = Sender()
    sender.stream.write(b"abc")
    error = SessionClosedError("over")
    sender.stream.fail(error)
    assert not sender.hub.ready
    for _ in range(2):
        with pytest.raises(SessionClosedError) as caught:
            sender.stream.write(b"x")
        assert caught.value is error
    with pytest.raises(SessionClosedError):
        sender.stream.finish()
    sender.stream.reset(3)
    assert not sender.hub.control
    assert not sender.stream.stopped


def test_a_half_that_is_over_does_not_fail() -> None:
    sender = Sender()
    sender.stream.finish()
    sender.acked(sender.one()[1])
    sender.stream.fail(SessionClosedError("over"))
    assert sender.stream.state is SendState.FINISHED


# -- without no_delay ----------------------------------------------------------------------------------------------


def test_small_writes_are_gathered() -> None:
    """D1 `no_delay=False`: a little data waits while earlier data is on its way."""
    sender = Sender(no_delay=False)
    sender.stream.write(b"a")
    _, token = sender.one()
    sender.stream.write(b"b")
    assert sender.frames() == ([], [])
    assert not sender.hub.ready
    sender.stream.write(b"c")
    assert not sender.hub.ready
    sender.acked(token)
    assert sender.one()[0] == Stream(0, 1, b"bc")


def test_gathering_ends_with_enough_data_or_the_end() -> None:
    """D1."""
    sender = Sender(no_delay=False)
    sender.stream.write(b"a")
    sender.all()
    sender.stream.write(b"b")
    assert sender.frames() == ([], [])
    sender.stream.raise_limit(PLENTY + 1)
    assert not sender.hub.ready
    sender.stream.write(bytes(1300))
    assert len(sender.one()[0].data) == 1197
    assert sender.frames() == ([], [])
    sender.stream.finish()
    frame, _ = sender.one()
    assert frame.fin
    assert len(frame.data) == 104


def test_gathering_sends_whole_frames() -> None:
    """D1: what fills a frame of the stream is not little, however short its frames are."""
    sender = Sender(no_delay=False, max_frame_size=10)
    sender.stream.write(b"a")
    sender.all()
    sender.stream.write(bytes(9))
    assert sender.frames() == ([], [])
    sender.stream.write(b"b")
    assert len(sender.one()[0].data) == 10


def test_gathering_ends_when_nothing_more_can_be_gathered() -> None:
    """D1: a writer that waits for room adds nothing, so waiting for it is waiting for an acknowledgement alone."""
    sender = Sender(no_delay=False, capacity=100)
    sender.stream.write(b"a")
    sender.all()
    assert sender.stream.write(bytes(50)) == 50
    assert sender.frames() == ([], [])
    assert sender.stream.write(bytes(50)) == 49
    assert len(sender.one()[0].data) == 99


def test_gathering_does_not_hold_back_the_tail_of_a_lost_stretch() -> None:
    sender = Sender(no_delay=False)
    sender.stream.write(b"a")
    _, token = sender.one()
    sender.stream.write(b"b")
    sender.frames()
    sender.lost(token)
    _, token = sender.one()
    sender.acked(token)
    assert sender.one()[0] == Stream(0, 1, b"b")


# -- sets of offsets -----------------------------------------------------------------------------------------------


@given(walks(st.tuples(st.sampled_from("arxo"), st.integers(0, 40), st.integers(1, 15)), 40))
def test_an_interval_set_is_a_set(steps: list[tuple[str, int, int]]) -> None:
    """Against the set of numbers that it stands for."""
    intervals, numbers = IntervalSet(), set[int]()
    for kind, start, size in steps:
        stop = start + size
        if kind == "a":
            intervals.add(start, stop)
            numbers |= set(range(start, stop))
        elif kind == "r":
            intervals.remove(start, stop)
            numbers -= set(range(start, stop))
        elif kind == "x":
            reached = intervals.absorb(start)
            end = start
            while end in numbers:
                end += 1
            assert reached == end
            numbers = {number for number in numbers if number >= end}
        else:
            inside = {number for low, high in intervals.overlaps(start, stop) for number in range(low, high)}
            assert inside == numbers & set(range(start, stop))
        assert {number for low, high in intervals for number in range(low, high)} == numbers
        assert list(intervals.bounds) == sorted(set(intervals.bounds))
        assert bool(intervals) is bool(numbers)
        assert all((number in intervals) is (number in numbers) for number in range(60))
        assert intervals.first_gap == min(set(range(60)) - numbers)


def test_an_interval_set_shows_itself() -> None:
    intervals = IntervalSet()
    intervals.add(3, 5)
    assert repr(intervals) == "IntervalSet([(3, 5)])"
