"""Streams and datagrams as an application sees them: ids, limits, edges, and what happens when it does not read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from stt_proto import Stream
from stt_proto.errors import (
    ArgumentError,
    SessionClosedError,
    StateError,
    StreamClosedError,
    StreamIdConflict,
    TooManyStreamsError,
)
from stt_proto.events import (
    DatagramReceived,
    Event,
    StreamAcked,
    StreamFinished,
    StreamOpened,
    StreamReadable,
    StreamReset,
    StreamsAvailable,
    StreamWritable,
)
from stt_proto.testing import Conditions
from tests.proto.worlds import Pair, filler, session_pair

WRONG = ["5", None, 1.5, b"5", [5], object()]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: type(value).__name__)
def test_sizes_and_numbers_of_the_wrong_type(wrong: object) -> None:
    """A mistake of the caller is an `ArgumentError` that names the argument, whatever its type."""
    pair = session_pair()
    stream, now = pair.session.open_stream(), pair.now
    stream.write(b"x", now)
    calls: dict[str, list[Callable[[Any], object]]] = {
        "max_bytes": [lambda value: stream.read(value, now)],
        "code": [lambda value: stream.reset(value, now), lambda value: stream.stop(value, now)],
        "offset": [stream.watch_acked],
        "stream_id": [pair.session.stream],
        "length": [lambda value: pair.session.export_keying_material("label", value)],
    }
    for argument, attempts in calls.items():
        for attempt in attempts:
            with pytest.raises(ArgumentError) as caught:
                attempt(wrong)
            assert caught.value.argument == argument
    if wrong is not None:  # as configured
        with pytest.raises(ArgumentError, match="max_frame_size"):
            pair.session.open_stream(max_frame_size=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["5", None, b"5", [5], object()], ids=lambda value: type(value).__name__)
def test_times_of_the_wrong_type(wrong: Any) -> None:
    """... and at once: nothing was taken, read, sent or closed."""
    pair = session_pair()
    stream, other = pair.session.open_stream(), pair.session.open_stream()
    stream.write(b"question", pair.now)
    pair.settle()
    theirs = stream_of(pair, stream.stream_id)
    for attempt in (
        lambda: stream.write(b"more", wrong),
        lambda: theirs.read(100, wrong),
        lambda: other.finish(wrong),
        lambda: other.reset(1, wrong),
        lambda: other.stop(1, wrong),
        lambda: pair.session.send_datagram(b"x", wrong),
        lambda: pair.session.close(wrong),
        lambda: pair.session.abort(wrong),
        lambda: pair.client.endpoint.tick(wrong),
        lambda: pair.client.endpoint.next_transmit(wrong),
        lambda: pair.client.endpoint.receive(b"x" * 40, pair.session.path, wrong),
        lambda: pair.client.endpoint.connect(pair.session.path, now=wrong),
    ):
        with pytest.raises(ArgumentError) as caught:
            attempt()
        assert caught.value.argument == "now"
    pair.settle()
    assert pair.session.is_active()
    assert (stream.bytes_accepted, other.bytes_accepted) == (8, 0)
    assert theirs.read(100, pair.now) == b"question"
    assert other.write(b"still open", pair.now) == 10
    assert pair.peer.receive_datagram() is None


def stream_of(pair: Pair, stream_id: int) -> Stream:
    """The server's end of a stream."""
    stream = pair.peer.stream(stream_id)
    assert stream is not None
    return stream


def of(pair: Pair, *kinds: type[Event]) -> tuple[list[Event], list[Event]]:
    """The events of some kinds: the client's, the server's."""
    client, server = (
        [event for _, _, event in node.log if isinstance(event, kinds)] for node in (pair.client, pair.server)
    )
    return client, server


# -- ids and limits ------------------------------------------------------------------------------------------------


def test_ids_never_collide() -> None:
    """S-1, D1: bit 0 is the opener, bit 1 the kind; each side counts its own."""
    pair = session_pair()
    for session, parity in ((pair.session, 0), (pair.peer, 1)):
        assert [session.open_stream().stream_id for _ in range(3)] == [parity, parity | 4, parity | 8]
        assert [session.open_stream(bidirectional=False).stream_id for _ in range(3)] == [
            parity | 2,
            parity | 6,
            parity | 10,
        ]


def test_a_chosen_id() -> None:
    """S-2, D1: of this side, of this kind, unused, below the limit; what is skipped stays usable."""
    pair = session_pair()
    assert pair.session.open_stream(stream_id=40).stream_id == 40
    assert pair.session.open_stream().stream_id == 0
    for taken_or_foreign in (40, 1, 2, -4):
        with pytest.raises(StreamIdConflict):
            pair.session.open_stream(stream_id=taken_or_foreign)
    with pytest.raises(StreamIdConflict):
        pair.session.open_stream(stream_id=0, bidirectional=False)
    with pytest.raises(TooManyStreamsError):
        pair.session.open_stream(stream_id=256 * 4)
    assert pair.session.open_stream(stream_id=255 * 4).stream_id == 1020


@pytest.mark.parametrize(
    ("name", "value"),
    [("stream_id", 1.0), ("stream_id", True), ("max_frame_size", 0), ("max_frame_size", 65_537), ("purpose", b"x")],
)
def test_wrong_arguments(name: str, value: object) -> None:
    """A11: a `LocalError` that names the argument."""
    with pytest.raises(ArgumentError) as caught:
        session_pair().session.open_stream(**{name: value})  # type: ignore[arg-type]
    assert caught.value.argument == name


def test_the_limit() -> None:
    """S-3, D9: 256 of a kind at once; `StreamsAvailable` tells when there is room again."""
    pair = session_pair(server={"max_concurrent_streams": 8})
    streams = [pair.session.open_stream() for _ in range(8)]
    with pytest.raises(TooManyStreamsError):
        pair.session.open_stream()
    assert pair.session.open_stream(bidirectional=False).stream_id == 2
    for stream in streams:
        stream.finish(pair.now)
    pair.settle(0.2)
    for stream in streams:
        heard = stream_of(pair, stream.stream_id)
        assert heard.read(1, pair.now) == b""
        assert heard.at_eof
        heard.finish(pair.now)
    pair.settle(0.2)
    for stream in streams:
        assert stream.read(1, pair.now) == b""
    pair.settle(0.2)
    assert of(pair, StreamsAvailable)[0] == [StreamsAvailable(True)]
    assert pair.session.open_stream().stream_id == 32


def test_what_the_peer_learns_of_a_stream() -> None:
    """S-4: it hears of a stream with its first data, its end, or its reset; the purpose comes along."""
    pair = session_pair()
    silent, said = pair.session.open_stream(purpose="silent"), pair.session.open_stream(purpose="said")
    ended, oneway = pair.session.open_stream(purpose="ended"), pair.session.open_stream(bidirectional=False)
    gone = pair.session.open_stream()
    said.write(b"x", pair.now)
    ended.finish(pair.now)
    oneway.write(b"x", pair.now)
    gone.reset(5, pair.now)
    pair.settle(0.2)
    opened = {event.stream_id: event for event in pair.server.events(StreamOpened)}
    assert opened == {
        4: StreamOpened(4, True, "said"),
        8: StreamOpened(8, True, "ended"),
        2: StreamOpened(2, False, ""),
        12: StreamOpened(12, True, ""),
    }
    assert silent.stream_id == 0
    assert pair.peer.stream(0) is None
    heard = stream_of(pair, 4)
    assert heard.purpose == said.purpose == "said"
    assert stream_of(pair, 4) is heard
    assert (heard.can_read, heard.can_write) == (True, True)
    assert (stream_of(pair, 2).can_read, stream_of(pair, 2).can_write) == (True, False)
    assert (oneway.can_read, oneway.can_write) == (False, True)
    assert repr(heard) == "<Stream 4 said>"
    assert repr(oneway) == "<Stream 2>"
    heard.host = self = object()
    assert stream_of(pair, 4).host is self
    assert not hasattr(heard, "__dict__")


def test_the_wrong_direction() -> None:
    """D1: one-way streams are one way."""
    pair = session_pair()
    oneway = pair.session.open_stream(bidirectional=False)
    oneway.write(b"x", pair.now)
    pair.settle(0.2)
    heard = stream_of(pair, 2)
    commands: list[Callable[[], object]] = [
        lambda: oneway.read(1, pair.now),
        lambda: oneway.stop(0, pair.now),
        lambda: heard.write(b"x", pair.now),
        lambda: heard.finish(pair.now),
        lambda: heard.reset(0, pair.now),
        lambda: heard.watch_acked(0),
    ]
    for command in commands:
        with pytest.raises(StateError):
            command()
    assert oneway.at_eof
    assert (heard.bytes_accepted, heard.acked_offset) == (0, 0)


# -- edges ---------------------------------------------------------------------------------------------------------


def test_readable_is_an_edge() -> None:
    """DESIGN 3, "Events": once when something appears after `read` returned `b""`, not for every packet."""
    pair = session_pair()
    stream = pair.session.open_stream()
    for _ in range(5):
        stream.write(b"x" * 3000, pair.now)
        pair.settle(0.2)
    assert of(pair, StreamReadable)[1] == [StreamReadable(0)]
    heard = stream_of(pair, 0)
    read = b""
    while data := heard.read(4000, pair.now):
        read += data
    assert read == b"x" * 15_000
    assert not heard.at_eof
    stream.write(b"more", pair.now)
    pair.settle(0.2)
    stream.finish(pair.now)
    pair.settle(0.2)
    assert of(pair, StreamReadable)[1] == [StreamReadable(0)] * 2
    assert heard.read(100, pair.now) == b"more"
    assert heard.at_eof
    assert heard.read(100, pair.now) == b""


def test_the_end_alone_is_readable() -> None:
    pair = session_pair()
    stream = pair.session.open_stream()
    stream.write(b"x", pair.now)
    pair.settle(0.2)
    heard = stream_of(pair, 0)
    assert (heard.read(10, pair.now), heard.read(10, pair.now), heard.at_eof) == (b"x", b"", False)
    stream.finish(pair.now)
    pair.settle(0.2)
    assert of(pair, StreamReadable)[1] == [StreamReadable(0)] * 2
    assert (heard.read(10, pair.now), heard.at_eof) == (b"", True)


def test_finished_and_acked() -> None:
    """D2: `StreamAcked` for the offsets asked for and no others; `StreamFinished` when the end arrived, once."""
    pair = session_pair(conditions=Conditions(delay=0.05))
    stream = pair.session.open_stream()
    stream.write(b"x" * 5000, pair.now)
    stream.watch_acked(2000)
    stream.watch_acked(5000)
    stream.finish(pair.now)
    assert (stream.bytes_accepted, stream.acked_offset) == (5000, 0)
    pair.settle(0.3)
    assert stream.acked_offset == 5000
    assert of(pair, StreamAcked, StreamFinished)[0] == [
        StreamAcked(0, 2000),
        StreamAcked(0, 5000),
        StreamFinished(0),
    ]
    stream.watch_acked(5000)
    pair.settle(0.2)
    assert of(pair, StreamAcked)[0][2:] == [StreamAcked(0, 5000)]
    stream.finish(pair.now)
    with pytest.raises(StateError):
        stream.write(b"x", pair.now)


def test_what_is_acknowledged_is_not_watched_after_the_end() -> None:
    """K-2: as every command it raises what ended the session, and nothing is told after that."""
    pair = session_pair()
    done, stream = pair.session.open_stream(bidirectional=False), pair.session.open_stream()
    done.finish(pair.now)
    stream.write(b"x", pair.now)
    pair.settle()
    pair.session.abort(pair.now)
    for ended in (done, stream):
        for offset in (0, 1):
            with pytest.raises(SessionClosedError):
                ended.watch_acked(offset)
    pair.settle()
    assert not of(pair, StreamAcked)[0]


def test_writable_is_an_edge() -> None:
    """D4: after a short write, once, when there is room again."""
    pair = session_pair(client={"stream_send_buffer": 10_000})
    stream = pair.session.open_stream()
    assert stream.write(b"x" * 8000, pair.now) == 8000
    pair.settle(0.2)
    assert of(pair, StreamWritable)[0] == []
    assert stream.write(b"x" * 30_000, pair.now) == 10_000
    assert stream.write(b"x", pair.now) == 0
    pair.settle(0.2)
    assert of(pair, StreamWritable)[0] == [StreamWritable(0)]
    assert stream.write(b"x", pair.now) == 1


def test_any_buffer_can_be_written() -> None:
    """DESIGN 3, "Commands": `bytes` are kept, anything else is copied and may be changed at once."""
    pair = session_pair()
    stream = pair.session.open_stream()
    scratch = bytearray(b"first")
    assert stream.write(scratch, pair.now) == 5
    scratch[:] = b"XXXXX"
    stream.write(memoryview(b"second"), pair.now)
    stream.write(b"third", pair.now)
    pair.settle(0.2)
    assert stream_of(pair, 0).read(100, pair.now) == b"firstsecondthird"
    with pytest.raises(ArgumentError) as caught:
        stream.write("text", pair.now)  # type: ignore[arg-type]
    assert caught.value.argument == "data"


def test_a_reader_that_stops_holds_up_its_writer_only() -> None:
    """S-6, D4: credit returns when the application reads; memory stays within the window; others go on."""
    pair = session_pair(server={"stream_receive_window": 20_000, "session_receive_window": 100_000})
    slow, quick = pair.session.open_stream(), pair.session.open_stream()
    slow.write(filler(60_000, 1), pair.now)
    quick.write(filler(60_000, 2), pair.now)
    read = b""
    for _ in range(60):
        pair.settle(0.1)
        heard = stream_of(pair, 4)
        while data := heard.read(65_536, pair.now):
            read += data
    assert read == filler(60_000, 2)
    assert slow.acked_offset == 20_000
    read = b""
    for _ in range(60):
        while data := stream_of(pair, 0).read(65_536, pair.now):
            read += data
        pair.settle(0.1)
    assert read == filler(60_000, 1)


@pytest.mark.parametrize("window", [1_250_000, 1_060_000, 1_572_864])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_stream_that_nobody_reads_stalls_no_other(window: int, seed: int) -> None:
    """S-7, S-12, S-13: it has its own window and most of the session's; what says so, and its answer, may be lost."""
    pair = session_pair(
        seed,
        Conditions(delay=0.01, loss=0.1),
        server={"session_receive_window": window, "max_session_receive_window": 0},
    )
    stuck = pair.session.open_stream()
    assert stuck.write(bytes(1 << 20), pair.now) == 1 << 20
    pair.settle(20)
    assert stuck.acked_offset == 1 << 20
    other = pair.session.open_stream()
    left, got = 200_000, 0
    while got < 200_000:
        if left:
            left -= other.write(bytes(left), pair.now)
        pair.settle(0.1)
        assert pair.now < 200, f"{got:,} bytes"
        heard = pair.peer.stream(other.stream_id)
        while heard is not None and (data := heard.read(65_536, pair.now)):
            got += len(data)
    assert pair.session.is_active()


@pytest.mark.parametrize("seed", range(1, 6))
def test_places_are_told_of_though_words_are_lost(seed: int) -> None:
    """S-3, S-12: the one of two hundred and fifty-six that is free is not refused for ever."""
    pair = session_pair(seed, Conditions(delay=0.01, loss=0.4))
    streams = [pair.session.open_stream(bidirectional=False) for _ in range(256)]
    for stream in streams:
        stream.write(b"x", pair.now)
    streams[7].finish(pair.now)
    pair.settle(10)
    with pytest.raises(TooManyStreamsError):
        pair.session.open_stream(bidirectional=False)
    pair.settle(10)
    assert stream_of(pair, streams[7].stream_id).read(2, pair.now) == b"x"
    pair.settle(10)
    assert pair.client.events(StreamsAvailable)
    pair.session.open_stream(bidirectional=False)
    assert pair.session.is_active()


# -- reset and stop ------------------------------------------------------------------------------------------------


def test_reset() -> None:
    """S-9: the peer learns the code, and reads nothing more."""
    pair = session_pair()
    stream = pair.session.open_stream()
    stream.write(b"never mind", pair.now)
    pair.settle(0.2)
    stream.reset(77, pair.now)
    stream.reset(78, pair.now)
    pair.settle(0.2)
    assert of(pair, StreamReset)[1] == [StreamReset(0, 77, stopped=False)]
    heard = stream_of(pair, 0)
    with pytest.raises(StreamClosedError) as caught:
        heard.read(100, pair.now)
    assert caught.value.stream_code == 77
    with pytest.raises(StateError):
        stream.write(b"x", pair.now)
    heard.write(b"the other way works", pair.now)
    pair.settle(0.2)
    assert stream.read(100, pair.now) == b"the other way works"


def test_stop() -> None:
    """S-9: the sender is asked to stop, and its end resets with the same code."""
    pair = session_pair()
    stream = pair.session.open_stream()
    stream.write(filler(3000), pair.now)
    pair.settle(0.2)
    stream_of(pair, 0).stop(9, pair.now)
    pair.settle(0.2)
    assert of(pair, StreamReset)[0] == [StreamReset(0, 9, stopped=True)]
    with pytest.raises(StreamClosedError) as caught:
        stream.write(b"x", pair.now)
    assert caught.value.stream_code == 9
    with pytest.raises(StateError):
        stream_of(pair, 0).read(1, pair.now)


@pytest.mark.parametrize("code", [-1, 1 << 62, 1.0, True, None])
def test_codes(code: object) -> None:
    stream = session_pair().session.open_stream()
    for command in (stream.reset, stream.stop):
        with pytest.raises(ArgumentError) as caught:
            command(code, 0.0)  # type: ignore[arg-type]
        assert caught.value.argument == "code"


# -- datagrams -----------------------------------------------------------------------------------------------------


def test_datagrams() -> None:
    """S-11: one edge for those that arrived together; each is whole; none comes twice."""
    pair = session_pair()
    for number in range(5):
        pair.session.send_datagram(b"number %d" % number, pair.now)
    pair.session.send_datagram(b"", pair.now)
    pair.settle(0.2)
    assert pair.server.events(DatagramReceived) == [DatagramReceived()]
    received = [pair.peer.receive_datagram() for _ in range(7)]
    assert received == [b"number %d" % number for number in range(5)] + [b"", None]
    pair.session.send_datagram(bytearray(b"again"), pair.now)
    pair.settle(0.2)
    assert len(pair.server.events(DatagramReceived)) == 2
    assert pair.peer.receive_datagram() == b"again"
    pair.peer.send_datagram(memoryview(b"back"), pair.now)
    pair.settle(0.2)
    assert pair.session.receive_datagram() == b"back"


def test_the_largest_datagram() -> None:
    """S-11: what the peer takes and a packet holds; also when an acknowledgement takes room from the packet at hand."""
    pair = session_pair()
    largest = pair.session.max_datagram_size
    assert 1150 < largest < 1200
    for _ in range(3):
        pair.peer.send_datagram(b"something to acknowledge", pair.now)
        pair.server.pump()
        pair.world.run(0.0101)
        pair.session.send_datagram(bytes(largest), pair.now)
        pair.settle(0.2)
        assert pair.peer.receive_datagram() == bytes(largest)
    with pytest.raises(ArgumentError, match=f"at most {largest}") as caught:
        pair.session.send_datagram(bytes(largest + 1), pair.now)
    assert caught.value.argument == "data"
    assert pair.session.stats().send_errors == 0


def test_the_largest_datagram_of_a_large_carrier() -> None:
    """S-11: 65,535 less what a packet needs for itself."""
    pair = session_pair(carrier="memory")
    largest = pair.session.max_datagram_size
    assert largest == 65_535 - 29 - 5
    pair.session.send_datagram(bytes(largest), pair.now)
    pair.settle(0.2)
    assert pair.peer.receive_datagram() == bytes(largest)


def test_a_peer_that_takes_no_datagrams() -> None:
    """X-1: `max_datagram` 0."""
    pair = session_pair(server={"max_datagram_size": 0})
    assert pair.session.max_datagram_size == 0
    for data in (b"", b"x"):
        with pytest.raises(ArgumentError):
            pair.session.send_datagram(data, pair.now)
    pair.peer.send_datagram(b"the other way works", pair.now)
    pair.settle(0.2)
    assert pair.session.receive_datagram() == b"the other way works"


def test_datagrams_are_bytes() -> None:
    pair = session_pair()
    for wrong in ("text", 5, None):
        with pytest.raises(ArgumentError) as caught:
            pair.session.send_datagram(wrong, pair.now)  # type: ignore[arg-type]
        assert caught.value.argument == "data"


def test_a_full_queue_loses_its_oldest() -> None:
    """S-11: on both sides, counted."""
    pair = session_pair()
    for number in range(300):
        pair.session.send_datagram(b"%d" % number, pair.now)
    pair.settle(0.5)
    assert pair.peer.receive_datagram() == b"44"
    assert pair.session.stats().send_errors == 44
    for number in range(300):
        pair.session.send_datagram(b"%d" % number, pair.now)
        pair.client.pump()
    pair.settle(0.5)
    assert pair.peer.stats().receive_errors == 300 + 255 - 256
    assert pair.peer.receive_datagram() == b"44"


def test_how_far_a_stream_has_come() -> None:
    """What was accepted, put into packets and acknowledged is counted; also after the session has ended."""
    pair = session_pair()
    stream, one_way = pair.session.open_stream(), pair.peer.open_stream(bidirectional=False)
    one_way.write(b"x", pair.now)
    stream.write(bytes(1000), pair.now)
    assert (stream.bytes_accepted, stream.bytes_sent, stream.acked_offset) == (1000, 0, 0)
    pair.settle()
    incoming = pair.session.stream(one_way.stream_id)
    assert incoming is not None
    assert incoming.bytes_sent == 0
    assert (stream.bytes_accepted, stream.bytes_sent, stream.acked_offset) == (1000, 1000, 1000)
    stream.write(bytes(10), pair.now)
    pair.session.abort(pair.now)
    assert (stream.bytes_accepted, stream.bytes_sent, stream.acked_offset) == (1010, 1000, 1000)
