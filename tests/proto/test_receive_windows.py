"""Windows and buffers that grow with the way they have to fill (docs/protocol.md, S-8, S-13)."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto import Session, Stream
from stt_proto.config import Limits
from stt_proto.errors import ResourcesExhaustedError
from stt_proto.events import Event, StreamReadable, StreamWritable
from stt_proto.streams import CreditWindow, GrowthBudget, Hub, ReceiveStream, SendStream, StreamTable
from stt_proto.testing import Conditions, World
from tests.proto.test_stream_table import Side, deliver, make_config, make_pair
from tests.proto.worlds import session_pair

MIB = 1 << 20
RTT = 0.1

# -- when a window is too small ------------------------------------------------------------------------------------


def test_a_window_is_short_when_it_is_used_up_in_three_round_trips() -> None:
    """S-13: half a window in less than one and a half; the first update only begins the measurement."""
    window = CreditWindow(1000, 8000)
    window.consume(500)
    assert not window.is_short(5.0, RTT), "nothing was measured yet"
    window.consume(500)
    assert not window.is_short(5.0 + 1.5 * RTT, RTT)
    window.consume(500)
    assert window.is_short(5.0 + 2.99 * RTT, RTT)
    assert not window.is_short(5.0 + 3 * RTT, RTT), "an update that was lost is not another half"
    window.consume(499)
    assert not window.is_short(5.0 + 3.1 * RTT, RTT)
    window.consume(1)
    assert window.is_short(5.0 + 3.2 * RTT, RTT), "and the measurement goes on from the last update"


def test_a_round_trip_that_nobody_measured_grows_nothing() -> None:
    """S-13."""
    window = CreditWindow(1000, 8000)
    for at in (1.0, 1.0, 2.0):
        window.consume(1000)
        assert not window.is_short(at, 0.0)


@given(
    rate=st.floats(1e3, 1e9),
    rtt=st.floats(0.001, 1.0),
    size=st.sampled_from([1024, 65_536, MIB]),
    most=st.sampled_from([0, 65_536, 10 * MIB]),
)
def test_it_grows_to_what_the_way_needs_and_not_beyond(rate: float, rtt: float, size: int, most: int) -> None:
    """S-13: an application that reads all the time at a certain rate gets three to six round trips of it, within the
    limits of the configuration."""
    window = CreditWindow(size, most)
    now = 0.0
    for _ in range(60):
        share = window.size - window.size // 2
        now += share / rate
        window.consume(share)
        if window.is_short(now, rtt):
            window.size = max(window.size, min(2 * window.size, most))
        window.announce()
    need = 3 * rate * rtt
    assert window.size >= min(0.999 * need, max(size, most))
    assert window.size <= max(size, min(most, 2.001 * need))


# -- streams, session, endpoint ------------------------------------------------------------------------------------


class Reading:
    """The reading side of a session whose peer fills whatever window it is given."""

    def __init__(self, budget: GrowthBudget | None = None, **changes: Any) -> None:
        self.side = Side(False, make_config(**changes), make_config())
        if budget is not None:
            self.side.table = StreamTable(False, make_config(**changes), self.side.events, budget)
        self.now = 0.0
        self.sent = 0

    @property
    def recv(self) -> ReceiveStream:
        stream = self.side.table.get(0)
        assert stream is not None
        assert stream.recv is not None
        return stream.recv

    def sizes(self) -> tuple[int, int]:
        return self.recv.window.size, self.side.table.window.size

    def transfer(self, rounds: int, pause: float) -> None:
        """Let the peer send all that it may and the application read it, so many times, and send updates."""
        table = self.side.table
        for _ in range(rounds):
            if not self.sent:
                table.on_stream(0, 0, b"x", False)
                self.sent = 1
            size = min(table.window.limit, self.recv.window.limit) - self.sent
            table.on_stream(0, self.sent, bytes(size), False)
            self.sent += size
            self.now += pause
            stream = table.get(0)
            assert stream is not None
            while stream.read(1 << 20):
                pass
            table.write_control([], [], 1200, self.now, RTT)


def test_a_stream_that_is_read_fast_gets_more() -> None:
    """S-13: up to its ceiling and to two thirds of the session's window, which grows with it up to its own."""
    reading = Reading(
        stream_receive_window=10_000,
        max_stream_receive_window=50_000,
        session_receive_window=15_000,
        max_session_receive_window=72_000,
    )
    seen = []
    for _ in range(6):
        reading.transfer(1, RTT)
        seen.append(reading.sizes())
    assert seen[0] == (10_000, 15_000)
    assert seen[1] == (20_000, 30_000)
    assert seen[2] == (40_000, 60_000)
    assert seen[3] == (48_000, 72_000)
    assert seen[-1] == (48_000, 72_000)
    assert reading.recv.window.limit == reading.sent + 48_000


def test_a_session_grows_with_its_streams() -> None:
    """S-13: also where it is large enough for itself, so that it stays larger than any of them."""
    reading = Reading(stream_receive_window=10_000, session_receive_window=15_000)
    reading.transfer(2, 2.9 * RTT)
    assert reading.sizes() == (20_000, 30_000)


def test_a_stream_that_is_read_slowly_does_not() -> None:
    """S-13."""
    reading = Reading(stream_receive_window=10_000, session_receive_window=15_000)
    reading.transfer(10, 3.01 * RTT)
    assert reading.sizes() == (10_000, 15_000)


def test_a_reader_that_stops_has_what_it_had() -> None:
    """S-13: nothing is read, so nothing grows, however much arrives."""
    reading = Reading(stream_receive_window=10_000, session_receive_window=15_000)
    reading.transfer(2, RTT)
    grown = reading.sizes()
    assert grown == (20_000, 30_000)
    table = reading.side.table
    table.on_stream(0, reading.sent, bytes(reading.recv.window.limit - reading.sent), False)
    for _ in range(5):
        table.on_token_lost(("max_stream_data", 0))
        table.on_token_lost(("max_data", 0))
        reading.now += RTT / 10
        table.write_control([], [], 1200, reading.now, RTT)
    assert reading.sizes() == grown


def test_many_streams_make_the_session_grow() -> None:
    """S-13: no stream comes near its own window; all together use up the session's."""
    side = Side(False, make_config(session_receive_window=20_000, max_session_receive_window=50_000), make_config())
    table, now = side.table, 0.0
    for turn in range(10):
        for stream_id in range(0, 40, 4):
            table.on_stream(stream_id, 1500 * turn, bytes(1500), False)
            stream = table.get(stream_id)
            assert stream is not None
            stream.read(1500)
        now += RTT
        table.write_control([], [], 1200, now, RTT)
    assert table.window.size == 50_000
    assert {stream.recv.window.size for stream in table if stream.recv is not None} == {MIB}


def test_the_windows_of_all_sessions_share_a_budget() -> None:
    """S-13: where it is used up nothing grows, and a session that ends gives its part back.

    [A node with a hundred peers, each of which makes it promise 16 MiB.]
    """
    budget = GrowthBudget(40_000)
    changes = {"stream_receive_window": 10_000, "session_receive_window": 15_000}
    one, two = Reading(budget, **changes), Reading(budget, **changes)
    one.transfer(2, RTT)
    assert one.sizes() == (20_000, 30_000)
    assert budget.left == 25_000
    two.transfer(5, RTT)
    assert two.sizes() == (26_666, 40_000)
    assert budget.left == 0
    one.transfer(2, RTT)
    assert one.sizes() == (20_000, 30_000)
    for _ in range(2):
        one.side.table.fail_all(ResourcesExhaustedError("over"))
        assert budget.left == 15_000
    two.transfer(1, RTT)
    assert two.sizes() == (36_666, 55_000)


def test_a_session_that_grew_says_so_when_that_is_worth_it() -> None:
    """S-7, S-13: what a stream's growth adds to the session is announced if it is half of the window, else later."""
    hub = Hub(deque[Any](), 1000, max_window=10_000)
    hub.grow(1500)
    assert not hub.control
    hub.grow(1500)
    hub.grow(1200)
    assert hub.window.size == 1500
    hub.grow(3000)
    assert list(hub.control) == [("max_data", 0)]
    assert hub.window.announce() == 3000
    hub.give_up_growth()


def test_a_larger_window_may_have_more_gaps() -> None:
    """S-8: a piece for each 512 bytes of the window. [A queue that overflows drops every other datagram of a window of
    10 MiB: more than 4,000 gaps, from a peer that keeps all rules.]"""
    limits = Limits(stream_pieces=16, session_pieces=20)
    reading = Reading(
        stream_receive_window=10_240,
        max_stream_receive_window=20_480,
        session_receive_window=15_360,
        max_session_receive_window=30_720,
        limits=limits,
    )
    reading.transfer(3, RTT)
    assert reading.sizes() == (20_480, 30_720)
    table, start = reading.side.table, reading.sent
    for piece in range(40):
        table.on_stream(0, start + 2 * piece + 1, b"x", False)
    with pytest.raises(ResourcesExhaustedError):
        table.on_stream(0, start + 2 * 40 + 1, b"x", False)
    for piece in range(16):
        table.on_stream(4, 2 * piece + 1, b"x", False)
    with pytest.raises(ResourcesExhaustedError, match="stream 4"):
        table.on_stream(4, 33, b"x", False)


def test_one_stream_that_nobody_reads_leaves_room_for_others() -> None:
    """S-13: as configured, the session's window is larger than a stream's."""
    a, b = make_pair()
    stuck, other = a.table.open(), a.table.open()
    assert stuck.write(bytes(2 * MIB)) == MIB
    deliver(a, b)
    other.write(bytes(300_000))
    deliver(a, b)
    reader = b.table.get(other.id)
    assert reader is not None
    assert len(reader.read(MIB)) == 300_000


@pytest.mark.parametrize("window", [MIB + 1, MIB + 5000, MIB + MIB // 8, MIB + MIB // 4, MIB + MIB // 2, 2 * MIB])
@pytest.mark.parametrize("piece", [10_000, MIB])
def test_one_stream_that_nobody_reads_stalls_no_other(window: int, piece: int) -> None:
    """S-7, S-13: not even when it has all of its own window, and most of the session's."""
    a, b = make_pair(make_config(session_receive_window=window, max_session_receive_window=0))
    stuck, other = a.table.open(), a.table.open()
    assert stuck.write(bytes(2 * MIB)) == MIB
    deliver(a, b)
    total = 100 * min(window - MIB, 50_000)
    left, got, rounds = total, 0, 0
    while got < total:
        rounds += 1
        if left:
            left -= other.write(bytes(min(left, MIB)))
        deliver(a, b)
        reader = b.table.get(other.id)
        assert reader is not None
        while data := reader.read(piece):
            got += len(data)
        deliver(b, a)
        assert rounds < 400, f"{got:,} of {total:,} bytes after {rounds} round trips"
    assert a.table.suspicious == b.table.suspicious == 0


def test_a_slow_reader_causes_no_flood_of_updates() -> None:
    """S-7: those of the session lie a quarter of the window apart, and further where the peer has more left."""
    a, b = make_pair(make_config(session_receive_window=MIB, max_session_receive_window=0))
    stream = a.table.open()
    stream.write(bytes(MIB))
    deliver(a, b)
    updates = 0
    for _ in range(1024):
        reader = b.table.get(stream.id)
        assert reader is not None
        reader.read(1024)
        updates += ("max_data", 0) in b.table.control_ready
        b.packet()
    assert updates == 3, "at a quarter, at half, and at the end"


# -- what the sender keeps -----------------------------------------------------------------------------------------


def sending(capacity: int, most: int, limit: int = 1 << 40, credit: int = 1 << 40) -> tuple[SendStream, Hub]:
    hub = Hub(deque[Any](), MIB)
    hub.credit.raise_limit(credit)
    return SendStream(0, hub, limit=limit, capacity=capacity, most=most, max_frame_size=16_384), hub


def test_a_buffer_that_is_all_on_its_way_grows() -> None:
    """S-13: the peer takes more, the application has more, and only the buffer is in between."""
    stream, hub = sending(4000, 10_000)
    assert stream.write(bytes(20_000)) == 4000
    assert stream.write_frame([], [], 3000, 3000) == 3000
    assert stream.capacity == 4000, "there is more to send"
    stream.write_frame([], [], 3000, 3000)
    assert stream.capacity == 8000
    assert list(hub.events) == [StreamWritable(0)]
    assert stream.write(bytes(20_000)) == 4000
    stream.write_frame([], [], 9000, 9000)
    assert stream.capacity == 10_000
    assert stream.write(bytes(20_000)) == 2000
    stream.write_frame([], [], 9000, 9000)
    assert stream.capacity == 10_000
    assert stream.bytes_unacked == 10_000


@pytest.mark.parametrize(
    ("written", "limit", "credit"),
    [(4000, 1 << 40, 1 << 40), (9000, 4000, 1 << 40), (9000, 3000, 1 << 40), (9000, 1 << 40, 4000)],
)
def test_a_buffer_that_is_not_in_the_way_stays(written: int, limit: int, credit: int) -> None:
    """S-13: the application has no more, or it is the peer's credit that is missing."""
    stream, hub = sending(4000, 100_000, limit, credit)
    stream.write(bytes(written))
    while hub.ready:
        stream.write_frame([], [], 9000, 9000)
    if credit == 4000:
        assert stream.sent_offset == 4000
    assert stream.capacity == 4000
    assert not hub.events


# -- on a long way -------------------------------------------------------------------------------------------------


class Bulk:
    """A session on whose one stream one node writes without end what the other reads."""

    def __init__(self, conditions: Conditions, **changes: Any) -> None:
        self.world = World(1, conditions)
        self.client = self.world.node("client", **changes)
        self.server = self.world.node("server", **changes)
        self.read = 0
        self.reads = True
        self.server.on_event = self.on_server
        self.client.on_event = self.on_client
        self.session = self.client.connect(self.server)
        self.world.run_until(self.session.is_active)
        self.stream = self.session.open_stream()
        self.write(self.stream)
        self.client.pump()
        self.world.run(0.5)
        (self.peer,) = self.server.endpoint.sessions.values()

    def write(self, stream: Stream) -> None:
        while stream.write(bytes(65_536), self.client.now) == 65_536:
            pass

    def on_client(self, session: Session | None, event: Event) -> None:
        if isinstance(event, StreamWritable):
            self.write(self.stream)

    def on_server(self, session: Session | None, event: Event) -> None:
        if isinstance(event, StreamReadable) and self.reads:
            assert session is not None
            stream = session.stream(event.stream_id)
            assert stream is not None
            while data := stream.read(65_536, self.server.now):
                self.read += len(data)

    def goodput(self, seconds: float) -> float:
        """Bits a second that the server's application gets from now on."""
        before = self.read
        self.world.run(seconds)
        return (self.read - before) * 8 / seconds

    @property
    def windows(self) -> tuple[int, int]:
        assert self.peer._engines is not None
        table = self.peer._engines.streams
        (stream,) = table
        assert stream.recv is not None
        return stream.recv.window.size, table.window.size


LONG_FAT = Conditions(delay=0.1, rate=100e6, queue=4 * MIB)


def test_a_long_fat_link_is_filled() -> None:
    """S-13: 100 Mbit/s with a round trip of 200 ms hold 2.5 MB; a window of 1 MiB would leave it half empty."""
    bulk = Bulk(LONG_FAT)
    bulk.world.run(3.0)
    assert bulk.goodput(3.0) > 80e6
    stream, session = bulk.windows
    assert 5_000_000 < stream <= 10 * MIB
    assert stream < session <= 16 * MIB
    assert bulk.stream.send_buffer <= 10 * MIB


def test_without_growth_it_is_not() -> None:
    """The same with ceilings that allow nothing: what the test above would show if nothing grew."""
    bulk = Bulk(LONG_FAT, max_stream_receive_window=0, max_session_receive_window=0, max_stream_send_buffer=0)
    bulk.world.run(3.0)
    assert bulk.goodput(3.0) < 45e6
    assert bulk.windows == (MIB, MIB * 3 // 2)
    assert bulk.stream.send_buffer == MIB


def test_a_short_way_needs_no_more() -> None:
    """S-13: on a fast link with a short round trip nothing grows, though data waits in its queue and makes the round
    trip look long. [Windows that grow with their own queue grow without end.]"""
    bulk = Bulk(Conditions(delay=0.0005, rate=200e6, queue=MIB))
    assert bulk.goodput(1.0) > 100e6
    assert bulk.windows == (MIB, MIB * 3 // 2)


def test_a_reader_that_stops_is_sent_no_more_than_its_window() -> None:
    """S-6, S-13: whatever it had grown to, that much lies here; and it goes on when that is read."""
    bulk = Bulk(LONG_FAT)
    bulk.world.run(2.0)
    bulk.reads = False
    bulk.world.run(5.0)
    before = bulk.windows
    assert bulk.peer._engines is not None
    table = bulk.peer._engines.streams
    assert table.window.received - table.window.consumed <= before[0]
    bulk.world.run(5.0)
    assert bulk.windows == before
    assert bulk.stream.bytes_accepted - bulk.stream.acked_offset <= bulk.stream.send_buffer <= 10 * MIB
    bulk.reads = True
    (stream,) = table
    bulk.on_server(bulk.peer, StreamReadable(stream.id))
    bulk.server.pump()
    assert bulk.goodput(3.0) > 50e6


def test_a_session_that_ends_gives_its_growth_back() -> None:
    """S-13: to the endpoint, of whose sessions others may need it."""
    pair = session_pair(server={"limits": Limits(grown_windows=1000)})
    budget = pair.server.endpoint._context.window_budget
    assert pair.peer._engines is not None
    pair.peer._engines.streams._hub.grow(1 << 30)
    assert budget.left == 0
    pair.peer.abort(pair.now)
    assert budget.left == 1000
