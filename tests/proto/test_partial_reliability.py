"""Streams that give up on what is too old or was lost too often (docs/protocol.md, S-16, S-17)."""

from __future__ import annotations

import random
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_proto import Session
from stt_proto.config import Config, Limits
from stt_proto.errors import (
    ArgumentError,
    DataExpiredError,
    FlowControlError,
    InvalidFrameError,
    ResourcesExhaustedError,
    SessionClosedError,
    StreamClosedError,
)
from stt_proto.events import Event, StreamFinished, StreamOpened, StreamReadable, StreamWritable
from stt_proto.streams import ExpiringSendStream, Expiry, SendState, Stream
from stt_proto.testing import Conditions, Inbox, serve_echo
from stt_proto.wire import (
    DataBlocked,
    Expired,
    FrameType,
    Parameters,
    ResetStream,
    StreamOpen,
    decode_frames_untrusted,
)
from stt_proto.wire import Stream as StreamFrame
from tests.proto.test_stream_table import Network, Side, deliver, make_config, parameters_of, settle
from tests.proto.walks import walks
from tests.proto.worlds import filler, session_pair


def make_pair(config: Config | None = None, peer_config: Config | None = None) -> tuple[Side, Side]:
    """Two sides that know EXPIRED."""
    config = config or make_config()
    peer_config = peer_config or config
    sides = Side(True, config, peer_config), Side(False, peer_config, config)
    for side, theirs in zip(sides, (peer_config, config), strict=True):
        known = parameters_of(theirs)
        side.table.set_peer_parameters(
            Parameters(
                max_data=known.max_data,
                max_stream_data=known.max_stream_data,
                max_streams_bidi=known.max_streams_bidi,
                max_streams_uni=known.max_streams_uni,
                extension_frames=[FrameType.EXPIRED],
            )
        )
    return sides


def sending(stream: Stream) -> ExpiringSendStream:
    assert isinstance(stream.send, ExpiringSendStream)
    return stream.send


def at(side: Side, stream_id: int = 0) -> Stream:
    stream = side.table.get(stream_id)
    assert stream is not None
    return stream


def read(stream: Stream) -> list[bytes | int]:
    """Everything there is: bytes, and the sizes of gaps."""
    found: list[bytes | int] = []
    while True:
        try:
            data = stream.read(1 << 20)
        except DataExpiredError as error:
            found.append(error.skipped)
            continue
        if not data:
            return found
        found.append(data)


def expired(plain: bytes) -> list[Expired]:
    return [frame for frame in decode_frames_untrusted(plain) if isinstance(frame, Expired)]


# -- what can be asked for -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [("max_lifetime", value) for value in (0, 0.0009, 86_401, -1, nan, inf, True, "1")]
    + [("max_attempts", value) for value in (0, 17, 1.0, True, "1")],
)
def test_what_is_no_limit(argument: str, value: Any) -> None:
    """S-16: bounds on both."""
    a, _ = make_pair()
    with pytest.raises(ArgumentError) as caught:
        a.table.open(**{argument: value})
    assert caught.value.argument == argument
    assert a.table.open().id == 0


def test_a_peer_that_does_not_know_it_gets_everything() -> None:
    """X-2, S-16: such a stream is as reliable as all others."""
    config = make_config()
    a = Side(True, config, config)
    stream = a.table.open(max_lifetime=1.0, max_attempts=1)
    assert not isinstance(stream.send, ExpiringSendStream)
    stream.write(b"data", 0.0)
    assert a.table.deadline == inf
    _, tokens = a.packet()
    a.table.on_token_lost(tokens[0])
    a.table.expire(100.0)
    assert a.table.has_pending


def test_a_stream_that_nothing_happens_to_is_like_any_other() -> None:
    """S-16."""
    a, b = make_pair()
    stream = a.table.open(max_lifetime=5.0, max_attempts=3)
    stream.write(b"hello", 1.0)
    stream.finish()
    packets = deliver(a, b)
    assert expired(b"".join(packets)) == []
    assert read(at(b)) == [b"hello"]
    assert a.table.deadline == inf
    assert sending(stream).done
    assert sending(stream).given_up == 0


# -- too old -------------------------------------------------------------------------------------------------------


def test_what_is_older_than_its_life_is_given_up() -> None:
    """S-16, S-17: the reader gets what arrived, learns of the gap once, and goes on behind it."""
    a, b = make_pair()
    stream = a.table.open(max_lifetime=1.0)
    stream.write(b"a" * 1000, 10.0)
    deliver(a, b)
    stream.write(b"b" * 1000, 10.5)
    a.packet()  # lost on the way; nobody knows yet
    stream.write(b"c" * 1000, 12.0)
    a.table.expire(11.4)
    assert sending(stream).acked_offset == 1000
    assert 11.5 <= a.table.deadline <= 11.5 + 1 / 16
    a.table.expire(a.table.deadline)
    assert sending(stream).acked_offset == 2000
    assert sending(stream).given_up == 1000
    assert a.table.undelivered == 1001
    deliver(a, b)
    assert read(at(b)) == [b"a" * 1000, 1000, b"c" * 1000]
    assert a.table.undelivered == 0
    assert b.table.window.consumed == b.table.window.received == 3000
    stream.finish()
    deliver(a, b)
    assert sending(stream).state is SendState.FINISHED
    assert read(at(b)) == []
    assert len(b.table) == 1, "the other direction is open"
    assert at(b).at_eof


def test_a_gap_is_told_of_once_and_with_its_size() -> None:
    """S-17: the error has a code of its own, and nothing is closed by it."""
    a, b = make_pair()
    stream = a.table.open(max_attempts=1)
    stream.write(b"x" * 10)
    _, tokens = a.packet()
    a.table.on_token_lost(tokens[0])
    deliver(a, b)
    assert b.drain() == [StreamOpened(0, True), StreamReadable(0)]
    with pytest.raises(DataExpiredError) as caught:
        at(b).read(100)
    assert (caught.value.skipped, caught.value.code) == (10, 0x0305)
    assert at(b).read(100) == b""
    assert not at(b).at_eof
    stream.write(b"y")
    deliver(a, b)
    assert b.drain() == [StreamReadable(0)]
    assert at(b).read(100) == b"y"


def test_what_was_written_together_expires_together() -> None:
    """S-16: ages are told apart to a sixteenth of the life, never rounded down.

    [A byte at a time, for an hour: an age for each.]
    """
    expiry = Expiry(16.0, None)
    for step in range(10_000):
        expiry.on_write(step + 1, 100.0 + step / 1000)
    assert len(expiry._ages) < 16
    assert expiry.deadline == 117.0
    assert expiry.too_old(116.999) == 0
    for now in (117.0, 120.0, 124.9):
        offset = expiry.too_old(now)
        assert 100.0 + offset / 1000 <= now - 16.0 + 0.001
        assert 100.0 + offset / 1000 > now - 18.0
    assert expiry.too_old(130.0) == 10_000
    assert expiry.deadline == inf


def test_acknowledged_data_does_not_expire() -> None:
    """S-16."""
    a, b = make_pair()
    stream = a.table.open(max_lifetime=1.0)
    stream.write(b"x" * 100, 0.0)
    deliver(a, b)
    assert sending(stream)._expiry.deadline == inf, "nothing is left that could"
    a.table.expire(a.table.deadline)
    assert a.table.deadline == inf
    assert not a.table.has_pending
    assert sending(stream).given_up == 0


def test_what_arrived_ahead_of_a_gap_is_not_counted_as_given_up() -> None:
    """S-16, S-17: only the reader knows what is missing; the sender counts what it cannot know to have arrived."""
    a, b = make_pair()
    stream = a.table.open(max_lifetime=1.0)
    packets = []
    for number in range(3):
        stream.write(bytes((number,)) * 500, 0.0)
        packets.append(a.packet())
    for plain, tokens in (packets[0], packets[2]):
        b.take_in(plain)
        a.table.on_token_acked(tokens[0])
    a.table.expire(2.0)
    assert sending(stream).given_up == 500
    deliver(a, b)
    assert read(at(b)) == [b"\0" * 500, 500, b"\2" * 500]


def test_what_arrived_between_two_that_are_given_up_is_counted_once() -> None:
    """S-16: the first takes what was acknowledged behind it along, and with it a part of the second."""
    a, _ = make_pair()
    stream = a.table.open(max_attempts=2)
    stream.write(bytes(1000))
    a.packet(2000)
    send = sending(stream)
    for start, stop in ((0, 100), (200, 300), (500, 600)):
        send.on_lost(start, stop, False)
    send.on_acked(100, 250, False)
    send.on_lost(0, 240, False)
    assert send.given_up == 100, "of 200 to 240 nothing: it has arrived"
    assert send.acked_offset == 250
    send.on_acked(250, 550, False)
    send.on_lost(300, 600, False)
    assert send.given_up == 150
    assert send.acked_offset == 600


def test_what_arrived_ahead_of_two_that_are_given_up_is_counted_once() -> None:
    """S-16: the first takes what was acknowledged behind it along, and with it all of the second."""
    a, _ = make_pair()
    stream = a.table.open(max_attempts=2)
    stream.write(bytes(1000))
    a.packet(2000)
    send = sending(stream)
    for start, stop in ((0, 100), (200, 300), (400, 500)):
        send.on_lost(start, stop, False)
    send.on_acked(100, 450, False)
    send.on_lost(0, 1000, False)
    assert send.given_up == 150
    assert send.acked_offset == 500


def test_who_skips_what_credit_does_not_cover_says_so() -> None:
    """S-12, S-17: an EXPIRED takes up credit like data, and waits for it like data."""
    a, b = make_pair(peer_config=make_config(session_receive_window=1024, max_session_receive_window=0))
    stream = a.table.open(max_lifetime=1.0)
    stream.write(bytes(3000), 0.0)
    for _ in range(2):
        b.take_in(a.packet(2000)[0])
    a.table.expire(2.0)
    a.table.on_max_data(1100)
    frames = decode_frames_untrusted(a.packet(2000)[0]) + decode_frames_untrusted(a.packet(2000)[0])
    assert frames == [Expired(0, 1100), DataBlocked(1100)]
    assert a.table.suspicious == b.table.suspicious == 0


def test_what_arrives_late_is_dropped() -> None:
    """S-17: the reader may be beyond it already."""
    a, b = make_pair()
    stream = a.table.open(max_lifetime=1.0)
    stream.write(b"a" * 500, 0.0)
    late, _ = a.packet()
    stream.write(b"b" * 500, 0.0)
    middle, _ = a.packet()
    a.table.expire(2.0)
    b.take_in(middle)
    deliver(a, b)
    b.take_in(late)
    b.take_in(middle)
    assert read(at(b)) == [500, b"b" * 500]
    assert b.table.suspicious == 0


def test_expired_overtaken_by_the_data_leaves_no_gap() -> None:
    """S-17: it arrived although nobody acknowledged it in time."""
    a, b = make_pair()
    stream = a.table.open(max_lifetime=1.0)
    stream.write(b"a" * 500, 0.0)
    plain, _ = a.packet()
    b.take_in(plain)
    a.table.expire(2.0)
    deliver(a, b)
    assert read(at(b)) == [b"a" * 500]
    assert sending(stream).given_up == 500


# -- lost too often ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempts", [1, 2, 5, 16])
def test_what_is_lost_too_often_is_given_up(attempts: int) -> None:
    """S-16: after so many tries."""
    a, b = make_pair()
    stream = a.table.open(max_attempts=attempts)
    stream.write(b"x" * 100)
    for attempt in range(attempts):
        plain, tokens = a.packet()
        frames = decode_frames_untrusted(plain)
        assert isinstance(frames[0], StreamFrame), attempt
        a.table.on_token_lost(tokens[0])
    plain, _ = a.packet()
    assert expired(plain) == [Expired(0, 100)]
    assert decode_frames_untrusted(plain) == [Expired(0, 100)]
    b.take_in(plain)
    assert read(at(b)) == [100]


def test_each_byte_has_its_own_tries() -> None:
    """S-16: frames are cut anew each time, so losses are counted by bytes and not by frames; and what was given up in
    the middle is told of when all before it is settled."""
    a, b = make_pair()
    stream = a.table.open(max_attempts=2)
    send = sending(stream)
    data = bytes(range(250)) * 4
    stream.write(data)
    a.packet(2000)
    send.on_lost(0, 600, False)
    send.on_lost(400, 800, False)  # 400 to 600 for the second time
    assert send.given_up == 200
    assert not send.owes, "what lies before it may still arrive"
    again = [frame for frame in decode_frames_untrusted(a.packet(2000)[0]) if isinstance(frame, StreamFrame)]
    assert [(frame.offset, len(frame.data)) for frame in again] == [(0, 400), (600, 200)]
    for frame in again:
        b.take_in_frame(frame)
    b.take_in_frame(StreamFrame(0, 800, data[800:]))
    send.on_acked(0, 400, False)
    assert send.acked_offset == 600
    plain, tokens = a.packet()
    assert expired(plain) == [Expired(0, 600)]
    b.take_in(plain)
    assert read(at(b)) == [data[:400], 200, data[600:]]
    assert tokens == [("expired", 0, 600)]
    assert send.owes
    a.table.on_token_acked(tokens[0])
    assert not send.owes


@given(
    st.integers(1, 5),
    walks(st.tuples(st.integers(0, 40), st.integers(1, 20), st.booleans()), 40),
)
def test_losses_are_counted_for_each_byte(attempts: int, steps: list[tuple[int, int, bool]]) -> None:
    """S-16: against a counter for each byte."""
    expiry = Expiry(None, attempts)
    counts = dict.fromkeys(range(60), 0)
    settled = 0
    for start, size, settles in steps:
        start = max(start, settled)
        stop = max(start + size, start + 1)
        expected = set()
        for byte in range(start, stop):
            counts[byte] = counts.get(byte, 0) + 1
            if counts[byte] >= attempts:
                expected.add(byte)
        given = {byte for low, high in expiry.on_lost(start, stop) for byte in range(low, high)}
        assert given == expected
        if settles and start > settled:
            settled = start
            assert not expiry.settle(settled)
            assert all(not losses.bounds or losses.bounds[0] >= settled for losses in expiry._losses)


# -- what was never sent -------------------------------------------------------------------------------------------


def test_what_was_never_sent_is_skipped_for_its_credit() -> None:
    """S-6, S-17: the buffer is free at once; the peer is told as far as there is credit, and gets the rest later.

    [A live picture behind a reader that stopped: without this its writer would wait for pictures that nobody wants.]
    """
    config = make_config(stream_receive_window=4000, stream_send_buffer=10_000, max_stream_send_buffer=0)
    a, b = make_pair(config)
    stream = a.table.open(max_lifetime=1.0)
    assert stream.write(bytes(20_000), 0.0) == 10_000
    deliver(a, b)
    send = sending(stream)
    assert send.sent_offset == 4000
    assert stream.write(bytes(20_000), 0.0) == 4000
    a.drain()
    a.table.expire(2.0)
    assert a.drain() == [StreamWritable(0)]
    assert stream.write(b"live" * 1000, 2.0) == 4000
    assert send.acked_offset == 14_000
    deliver(a, b)
    assert send.sent_offset == 4000, "there was no credit to skip anything"
    assert send.skip_offset == 14_000
    settle(a, b)
    got: list[bytes | int] = []
    for _ in range(5):
        got += read(at(b))
        settle(a, b)
    assert got[0] == bytes(4000)
    assert sum(piece for piece in got if isinstance(piece, int)) == 10_000
    assert b"".join(piece for piece in got if isinstance(piece, bytes)) == bytes(4000) + b"live" * 1000
    assert a.table.undelivered == 0
    assert a.table.credit.used == b.table.window.received == b.table.window.consumed == 18_000


def test_skipping_waits_for_credit_of_the_session_too() -> None:
    """S-6, S-17."""
    config = make_config(stream_receive_window=10_000, session_receive_window=6000)
    a, b = make_pair(config)
    other, stream = a.table.open(), a.table.open(max_lifetime=1.0)
    other.write(bytes(5000))
    deliver(a, b)
    stream.write(bytes(3000), 0.0)
    a.table.expire(2.0)
    send = sending(stream)
    packets = b"".join(deliver(a, b))
    assert expired(packets) == [Expired(stream.id, 1000)]
    assert (send.sent_offset, send.skip_offset) == (1000, 3000)
    assert a.table.undelivered == 1
    stream.write(b"new", 2.0)
    assert not [token for token in a.packet()[1] if token[0] is send]
    assert read(at(b, other.id)) == [bytes(5000)]
    settle(a, b)
    assert read(at(b, stream.id)) == [3000, b"new"]
    assert a.table.undelivered == 0
    assert not a.table._hub.expiries.skipping  # type: ignore[union-attr]


def test_skipping_that_takes_the_last_credit_says_so() -> None:
    """S-12, S-17: others wait for it, and nobody else would tell the peer."""
    config = make_config(session_receive_window=3000)
    a, _ = make_pair(config)
    stream, other = a.table.open(max_lifetime=1.0), a.table.open()
    stream.write(bytes(3000), 0.0)
    a.table.expire(2.0)
    other.write(b"waits")
    plain, _ = a.packet()
    assert decode_frames_untrusted(plain) == [Expired(0, 3000)]
    assert decode_frames_untrusted(a.packet()[0]) == [DataBlocked(3000)]


def test_new_data_goes_behind_what_was_skipped() -> None:
    """S-17: without any loss, where the application wrote faster than the way takes."""
    a, b = make_pair()
    stream = a.table.open(max_lifetime=1.0)
    for number in range(10):
        stream.write(bytes((number,)) * 10_000, float(number) / 10)
    plain, tokens = a.packet(15_000)
    b.take_in(plain)
    for token in tokens:
        a.table.on_token_acked(token)
    a.table.expire(1.55)
    deliver(a, b)
    got = read(at(b))
    skipped = [piece for piece in got if isinstance(piece, int)]
    assert len(skipped) == 1
    rest = got[-1]
    assert isinstance(rest, bytes)
    assert 15_000 < len(got[0]) + skipped[0] + len(rest) == 100_000  # type: ignore[arg-type]
    assert rest == b"".join(bytes((number,)) * 10_000 for number in range(10))[-len(rest) :]


def test_small_writes_that_wait_for_more_expire_too() -> None:
    """D1 `no_delay=False`, S-16: what is held back is not forgotten, and holds back nothing afterwards."""
    a, b = make_pair()
    stream = a.table.open(no_delay=False, max_lifetime=1.0)
    stream.write(b"a", 0.0)
    a.packet()
    stream.write(b"b", 0.0)
    assert a.packet() == (b"", [])
    a.table.expire(2.0)
    deliver(a, b)
    stream.write(b"c", 2.0)
    deliver(a, b)
    assert read(at(b)) == [2, b"c"]


# -- the end of it -------------------------------------------------------------------------------------------------


def test_the_end_waits_until_the_peer_knows_of_the_gap() -> None:
    """S-17: a stream whose EXPIRED was lost after its end had arrived would never be read to its end."""
    a, b = make_pair()
    stream = a.table.open(False, max_lifetime=1.0)
    stream.write(b"x" * 100, 0.0)
    a.packet()
    stream.finish()
    a.table.expire(2.0)
    plain, tokens = a.packet()
    assert decode_frames_untrusted(plain) == [Expired(2, 100), StreamFrame(2, 100, b"", True)]
    (lost,) = [token for token in tokens if token[0] == "expired"]
    (end,) = [token for token in tokens if token is not lost]
    b.take_in_frame(StreamFrame(2, 100, b"", True))
    a.table.on_token_acked(end)
    assert sending(stream).state is SendState.FINISHING
    assert StreamFinished(2) not in a.drain()
    a.table.on_token_lost(lost)
    packets = deliver(a, b)
    assert expired(b"".join(packets)) == [Expired(2, 100)]
    assert a.drain() == [StreamFinished(2)]
    assert len(a.table) == 0
    with pytest.raises(DataExpiredError):
        at(b, 2).read(10)
    assert len(b.table) == 0, "the gap was the last of it"


def test_the_end_can_come_after_the_news_of_the_gap() -> None:
    """S-17: in whichever order they are acknowledged."""
    a, b = make_pair()
    stream = a.table.open(False, max_attempts=1)
    stream.write(b"x" * 100)
    a.table.on_token_lost(a.packet()[1][0])
    deliver(a, b)
    stream.finish()
    deliver(a, b)
    assert sending(stream).done
    assert read(at(b, 2)) == [100]
    assert len(a.table) + len(b.table) == 0


def test_a_reset_ends_what_was_owed() -> None:
    """S-9: and the account of what is undelivered comes out even."""
    a, b = make_pair()
    stream = a.table.open(max_lifetime=1.0)
    stream.write(b"x" * 100, 0.0)
    stream.write(b"y" * 100, 5.0)
    _, tokens = a.packet()
    a.table.expire(2.0)
    _, told = a.packet()
    assert a.table.undelivered == 101
    for _ in range(2):
        stream.reset(7)
        assert a.table.undelivered == 1
    assert a.table.deadline == inf
    for token in told:
        a.table.on_token_lost(token)
    plain, _ = a.packet()
    assert decode_frames_untrusted(plain) == [ResetStream(0, 7, 200)]
    for token in [*told, *tokens]:
        a.table.on_token_acked(token)
        a.table.on_token_lost(token)
    b.take_in(plain)
    with pytest.raises(StreamClosedError):
        at(b).read(10)


def test_the_end_of_the_session_ends_it() -> None:
    """K-6: nothing is owed any more, and what arrived can be read, gaps and all."""
    a, b = make_pair()
    stream = a.table.open(max_lifetime=1.0)
    for number, when in enumerate((0.0, 5.0)):
        stream.write(bytes((number,)) * 100, when)
    plain, _ = a.packet()
    a.table.expire(2.0)
    plain, tokens = a.packet()
    b.take_in_frame(StreamFrame(0, 100, b"\1" * 100))
    b.take_in(plain)
    error = SessionClosedError("over")
    for side in (a, b):
        side.table.fail_all(error)
    assert a.table.deadline == inf
    assert a.table.undelivered == 0
    for token in tokens:
        a.table.on_token_acked(token)
        a.table.on_token_lost(token)
    a.table.expire(100.0)
    assert not a.table.has_pending
    reader = at(b)
    with pytest.raises(DataExpiredError):
        reader.read(10)
    assert reader.read(200) == b"\1" * 100
    with pytest.raises(SessionClosedError):
        reader.read(10)


def test_a_stop_drops_gaps_and_all() -> None:
    """S-6, S-9: their credit returns with the rest."""
    a, b = make_pair()
    stream = a.table.open(max_lifetime=1.0)
    stream.write(b"x" * 100, 0.0)
    a.packet()
    a.table.expire(2.0)
    stream.write(b"y" * 100, 2.0)
    deliver(a, b)
    at(b).stop(3)
    hub = b.table._hub
    assert hub.pieces == 0
    recv = at(b).recv
    assert recv is not None
    assert recv._tail == [], "nothing of it is kept"
    assert b.table.window.consumed == b.table.window.received == 200
    b.table.on_expired(0, 250)
    assert b.table.window.consumed == b.table.window.received == 250


# -- what a peer may say -------------------------------------------------------------------------------------------


def test_a_stream_can_begin_with_a_gap() -> None:
    """S-4, S-17: the first bytes are lost, and the purpose that came with them is told again."""
    a, b = make_pair()
    stream = a.table.open(purpose="picture", max_attempts=1)
    stream.write(b"x" * 100)
    a.table.on_token_lost(a.packet()[1][0])
    plain, tokens = a.packet()
    assert decode_frames_untrusted(plain) == [StreamOpen(0, "picture"), Expired(0, 100)]
    b.take_in(plain)
    a.table.on_token_acked(tokens[0])
    assert b.drain() == [StreamOpened(0, True, "picture"), StreamReadable(0)]
    assert b.table.suspicious == 0


def test_what_was_not_the_first_needs_no_purpose() -> None:
    """S-4: a purpose that has arrived is not told again."""
    a, b = make_pair()
    stream = a.table.open(purpose="picture", max_attempts=1)
    stream.write(b"x")
    deliver(a, b)
    stream.write(b"y")
    a.table.on_token_lost(a.packet()[1][0])
    assert decode_frames_untrusted(a.packet()[0]) == [Expired(0, 2)]


def test_a_gap_opens_a_stream() -> None:
    """S-4."""
    _, b = make_pair()
    b.table.on_expired(4, 10)
    assert b.drain() == [StreamOpened(4, True), StreamReadable(4)]


def test_expired_that_say_nothing_are_counted() -> None:
    """F-5: the same again, less than before, for a stream that has ended."""
    _, b = make_pair()
    b.table.on_expired(0, 10)
    assert b.table.suspicious == 0
    b.table.on_expired(0, 10)
    b.table.on_expired(0, 5)
    assert b.table.suspicious == 2
    b.table.on_reset(2, 0, 0)
    with pytest.raises(StreamClosedError):
        at(b, 2).read(1)
    b.table.on_expired(2, 0)
    assert b.table.suspicious == 3
    assert read(at(b)) == [10]
    b.table.on_expired(0, 10)
    b.table.on_expired(4, 0)
    assert b.table.suspicious == 5


def test_expired_has_credit_and_an_end_like_data() -> None:
    """S-5, S-6: nothing beyond the end, nothing beyond the credit of the stream or of the session."""
    _, b = make_pair()
    b.table.on_stream(0, 10, b"", True)
    with pytest.raises(InvalidFrameError):
        b.table.on_expired(0, 11)
    b.table.on_expired(0, 10)
    config = make_config(stream_receive_window=2000, session_receive_window=3000)
    _, b = make_pair(config)
    with pytest.raises(FlowControlError):
        b.table.on_expired(0, 2001)
    _, b = make_pair(config)
    b.table.on_expired(0, 2000)
    with pytest.raises(FlowControlError):
        b.table.on_expired(4, 1001)
    _, b = make_pair()
    b.table.on_expired(0, 100)
    with pytest.raises(InvalidFrameError):
        b.table.on_stream(0, 99, b"", True)


@pytest.mark.parametrize("stream_id", [1, 3, 4 * 256])
def test_expired_for_the_wrong_stream(stream_id: int) -> None:
    """S-9, S-2: never opened by this side, our own one-way stream, beyond the limit."""
    _, b = make_pair()
    with pytest.raises(InvalidFrameError):
        b.table.on_expired(stream_id, 1)


def test_gaps_that_nobody_reads_are_bounded() -> None:
    """S-8, S-17: where there are too many, the newest grow instead, and what lay between them is lost.

    [Every other byte of a window of 1 MiB, to a reader that has stopped: half a million gaps of a hundred bytes each.]
    """
    config = make_config(limits=Limits(stream_pieces=32, session_pieces=40))
    _, b = make_pair(config)
    for number in range(500):
        b.table.on_stream(0, 2 * number + 1, b"x", False)
        b.table.on_expired(0, 2 * number + 1)
    hub = b.table._hub
    assert hub.pieces == 16
    assert len(at(b).recv._holes or ()) == 16  # type: ignore[union-attr]
    for stream_id in (4, 8, 12):
        for number in range(10):
            b.table.on_expired(stream_id, 2 * number + 1)
            b.table.on_stream(stream_id, 2 * number + 1, b"x", False)
    assert hub.pieces == 22, "one for each stream, whatever the limit"
    got = read(at(b))
    assert got[:4] == [1, b"x", 1, b"x"]
    assert sum(piece if isinstance(piece, int) else len(piece) for piece in got) == 1000
    assert got[-1] == b"x"
    for stream_id in (4, 8, 12):
        assert sum(piece if isinstance(piece, int) else len(piece) for piece in read(at(b, stream_id))) == 20
    assert hub.pieces == 0
    assert b.table.window.consumed == b.table.window.received == 1060


def test_a_gap_over_several_runs() -> None:
    """S-17: what it has is delivered, with a gap before each run."""
    _, b = make_pair()
    for offset, size in ((10, 10), (30, 10), (45, 10)):
        b.table.on_stream(0, offset, bytes((offset,)) * size, False)
    b.table.on_expired(0, 50)
    b.table.on_stream(0, 55, b"end", True)
    b.table.on_expired(0, 58)
    assert at(b).recv.bytes_readable == 0  # type: ignore[union-attr]
    with pytest.raises(DataExpiredError):
        at(b).read(4)
    assert at(b).recv.bytes_readable == 10  # type: ignore[union-attr]
    assert at(b).read(4) == b"\x0a" * 4
    assert read(at(b)) == [b"\x0a" * 6, 10, b"\x1e" * 10, 5, b"\x2d" * 10 + b"end"]
    assert at(b).at_eof


def test_several_gaps_in_a_row_are_one() -> None:
    """S-17."""
    _, b = make_pair()
    for offset in (10, 20, 30):
        b.table.on_expired(0, offset)
    b.table.on_stream(0, 30, b"x", False)
    assert b.table._hub.pieces == 1
    assert read(at(b)) == [30, b"x"]


def test_gaps_leave_room_for_reordering() -> None:
    """S-8, S-17: however many gaps a slow reader has before it, a packet out of order closes nothing."""
    config = make_config(limits=Limits(stream_pieces=16, session_pieces=16))
    _, b = make_pair(config)
    for number in range(50):
        b.table.on_stream(0, 2 * number + 1, b"x", False)
        b.table.on_expired(0, 2 * number + 1)
    for number in range(60, 69):
        b.table.on_stream(0, 2 * number, b"y", False)
    with pytest.raises(ResourcesExhaustedError):
        b.table.on_stream(0, 200, b"y", False)


# -- the model: any network, any life ------------------------------------------------------------------------------


@settings(max_examples=80)
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.4]),
    window=st.sampled_from([1024, 4096, 65_536]),
    attempts=st.sampled_from([None, 1, 2, 4]),
    lifetime=st.sampled_from([None, 0.05, 1.0]),
    no_delay=st.booleans(),
)
def test_what_is_read_is_what_was_written_but_for_the_gaps(
    seed: int, loss: float, window: int, attempts: int | None, lifetime: float | None, no_delay: bool
) -> None:
    """S-5, S-6, S-16, S-17: bytes stand where they were written, gaps say how many are missing, both sides come to the
    end of every stream, and nothing of it is left in any account."""
    dice = random.Random(seed)
    config = make_config(
        stream_receive_window=window,
        session_receive_window=window * 2,
        stream_send_buffer=8192,
        max_stream_send_buffer=0,
        default_max_frame_size=dice.choice([100, 16_384]),
        no_delay=no_delay,
        limits=Limits(stream_pieces=64),
    )
    a, b = make_pair(config)
    networks = [Network(a, b, dice, loss), Network(b, a, dice, 0.0)]
    written: dict[int, bytes] = {}
    offsets: dict[int, int] = {}
    streams = []
    for _ in range(3):
        limits: dict[str, Any] = dice.choice([{}, {"max_attempts": attempts, "max_lifetime": lifetime}])
        stream = a.table.open(False, purpose=dice.choice(["", "live"]), **limits)
        written[stream.id] = dice.randbytes(dice.choice([0, 10, 3000, 40_000]))
        offsets[stream.id] = 0
        streams.append(stream)
    readers: dict[int, Stream] = {}
    positions = dict.fromkeys(written, 0)
    reading = dice.choice([1.0, 0.3, 0.02])
    now = 0.0
    for _ in range(50_000):
        now += dice.choice([0.0, 0.001, 0.02])
        a.table.expire(now)
        assert a.table.deadline > now
        for stream in streams:
            offset, data = offsets[stream.id], written[stream.id]
            if offset < len(data):
                offsets[stream.id] += stream.write(data[offset : offset + dice.choice([1, 500, 5000])], now)
            else:
                stream.finish()
        for network in networks:
            network.send()
            network.arrive()
        for event in b.drain():
            if isinstance(event, StreamOpened):
                readers[event.stream_id] = at(b, event.stream_id)
        for stream_id, reader in readers.items():
            if dice.random() < reading:
                position = positions[stream_id]
                try:
                    data = reader.read(dice.choice([1, 100, 1 << 20]))
                except DataExpiredError as error:
                    assert error.skipped > 0
                    positions[stream_id] += error.skipped
                else:
                    assert data == written[stream_id][position : position + len(data)]
                    positions[stream_id] += len(data)
        if not len(a.table) and not len(b.table) and all(network.idle for network in networks):
            break
    else:
        pytest.fail("it does not come to an end")
    assert positions == {stream_id: len(data) for stream_id, data in written.items()}
    assert a.table.undelivered == 0
    assert b.table._hub.pieces == 0
    window_of, credit = b.table.window, a.table.credit
    assert window_of.received == window_of.consumed == credit.used <= credit.limit


# -- end to end ----------------------------------------------------------------------------------------------------


class Live:
    """A sender that writes a frame 20 times a second, whatever becomes of it, and a reader that sees what comes."""

    FRAME = 5000

    def __init__(self, conditions: Conditions, **limits: Any) -> None:
        self.pair = session_pair(conditions=conditions)
        self.stream = self.pair.session.open_stream(bidirectional=False, **limits)
        self.position = 0
        self.gaps = 0
        self.latest = 0.0
        self.ended = False
        self.pair.server.on_event = self.on_event

    def on_event(self, session: Session | None, event: Event) -> None:
        if not isinstance(event, StreamReadable) or session is None:
            return
        stream = session.stream(event.stream_id)
        assert stream is not None
        while True:
            try:
                data = stream.read(1 << 20, self.pair.server.now)
            except DataExpiredError as error:
                self.gaps += error.skipped
                self.position += error.skipped
                continue
            if not data:
                break
            for start in range(0, len(data), 1000):
                assert data[start] == (self.position + start) // self.FRAME % 256
            self.position += len(data)
            self.latest = max(self.latest, self.pair.now - (self.position - 1) // self.FRAME / 20)
        self.ended = stream.at_eof

    def run(self, frames: int, outage: tuple[int, int] = (0, 0)) -> None:
        began = self.pair.world.now
        for number in range(frames):
            up = not outage[0] <= number < outage[1]
            for link in self.pair.world.links.values():
                link.up = up
            self.stream.write(bytes((number % 256,)) * self.FRAME, self.pair.now)
            self.pair.client.pump()
            self.pair.world.run(0.05)
        assert self.pair.world.now - began == pytest.approx(frames / 20)
        self.stream.finish(self.pair.now)
        self.pair.client.pump()
        self.pair.world.run_until(lambda: self.ended)


def test_a_live_stream_catches_up_after_an_outage() -> None:
    """D6, S-16: three seconds without a network cost three seconds of pictures, and no delay for those that follow."""
    live = Live(Conditions(delay=0.02, rate=2e6, queue=30_000), max_lifetime=0.5)
    live.run(200, outage=(50, 110))
    assert live.position == 200 * Live.FRAME
    assert 0.5 * 60 * Live.FRAME < live.gaps < 1.5 * 60 * Live.FRAME
    assert live.stream.bytes_given_up >= live.gaps
    for session in (live.pair.session, live.pair.peer):
        session.close(live.pair.now)
    live.pair.world.assert_idle(within=60.0)


def test_without_a_limit_everything_arrives() -> None:
    """S-16: the same without one."""
    live = Live(Conditions(delay=0.02, rate=2e6, queue=30_000))
    live.run(200, outage=(50, 110))
    assert live.gaps == 0
    assert live.position == 200 * Live.FRAME


def test_a_stream_that_is_never_repeated() -> None:
    """D6, S-16: on a network that loses a tenth, some of it is missing, and all of it is accounted for."""
    live = Live(Conditions(delay=0.02, loss=0.1), max_attempts=1)
    live.run(100)
    assert live.position == 100 * Live.FRAME
    assert 0 < live.gaps <= live.stream.bytes_given_up < 60 * Live.FRAME


def test_an_echo_leaves_gaps_out() -> None:
    pair = session_pair(conditions=Conditions(delay=0.02))
    serve_echo(pair.server)
    inbox = Inbox(pair.client)
    stream = pair.session.open_stream(max_lifetime=0.01)
    for link in pair.world.links.values():
        link.up = False
    stream.write(filler(100), pair.now)
    pair.client.pump()
    pair.world.run(0.1)
    for link in pair.world.links.values():
        link.up = True
    stream.write(b"fresh", pair.now)
    stream.finish(pair.now)
    pair.client.pump()
    pair.world.run_until(lambda: inbox.complete)
    assert inbox.complete[0].size == 5


def test_a_datagram_that_waits_too_long_is_not_sent() -> None:
    """D6, S-11: behind a window that is full, say."""
    pair = session_pair(conditions=Conditions(delay=0.02, rate=1e6, queue=10_000))
    pair.session.open_stream().write(filler(500_000), pair.now)
    pair.client.pump()
    pair.world.run(0.01)
    pair.session.send_datagram(b"late", pair.now, 0.001)
    pair.session.send_datagram(b"whenever", pair.now)
    pair.client.pump()
    inbox = Inbox(pair.server)
    pair.world.run_until(lambda: inbox.datagrams)
    pair.world.run(1.0)
    assert inbox.datagrams == [b"whenever"]
    assert pair.session.stats().send_errors == 1
    with pytest.raises(ArgumentError):
        pair.session.send_datagram(b"x", pair.now, 0)


def test_an_inbox_counts_what_was_given_up() -> None:
    pair = session_pair(conditions=Conditions(delay=0.02))
    inbox = Inbox(pair.server)
    stream = pair.session.open_stream(bidirectional=False, max_lifetime=0.01)
    for link in pair.world.links.values():
        link.up = False
    stream.write(filler(100), pair.now)
    pair.client.pump()
    pair.world.run(0.1)
    for link in pair.world.links.values():
        link.up = True
    stream.write(b"fresh", pair.now)
    stream.finish(pair.now)
    pair.client.pump()
    pair.world.run_until(lambda: inbox.complete)
    (incoming,) = inbox.complete
    assert (incoming.size, incoming.skipped) == (5, 100)


def test_a_close_waits_for_the_news_of_a_gap() -> None:
    """K-1, S-17: what was given up is known on both sides before the session is over."""
    pair = session_pair(conditions=Conditions(delay=0.02))
    got: list[bytes | int] = []

    def on_event(session: Session | None, event: Event) -> None:
        if isinstance(event, StreamReadable) and session is not None:
            stream = session.stream(event.stream_id)
            while stream is not None:
                try:
                    data = stream.read(1 << 20, pair.server.now)
                except DataExpiredError as error:
                    got.append(error.skipped)
                    continue
                if not data:
                    break
                got.append(data)

    pair.server.on_event = on_event
    stream = pair.session.open_stream(max_lifetime=0.01)
    for link in pair.world.links.values():
        link.up = False
    stream.write(filler(100), pair.now)
    pair.client.pump()
    pair.world.run(0.1)
    for link in pair.world.links.values():
        link.up = True
    stream.finish(pair.now)
    pair.session.close(pair.now)
    pair.client.pump()
    pair.world.run_until(lambda: pair.session.is_closed and pair.peer.is_closed)
    assert got == [100]
