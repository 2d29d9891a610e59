"""What has happened to others, continued: legal frames without end, and that honest use never looks like them (F-5).

The table of all incidents stands in `test_incidents.py`. These are the children of the floods of HTTP/2 (CVE-2019-9511
to 9518): a few bytes each, work for whoever takes them in, and nothing that a rule forbids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from stt_proto import Session
from stt_proto.events import StreamOpened, StreamReadable
from stt_proto.session.suspicion import Suspicion
from stt_proto.testing import Conditions, GilbertElliott
from stt_proto.wire import (
    Ack,
    DataBlocked,
    Datagram,
    Expired,
    Frame,
    KeepAlive,
    KeepAliveAck,
    MaxData,
    MaxStreamData,
    MaxStreams,
    Padding,
    PathChallenge,
    Priority,
    ResetStream,
    RetireConnectionId,
    Stream,
    StreamDataBlocked,
    StreamOpen,
    StreamsBlocked,
)
from tests.proto.insider import Insider
from tests.proto.worlds import Mover, Pair, filler, serve_echo, session_pair

RESOURCES = 0x0603
WINDOW = 1 << 20

Flood = Callable[[Insider, int], list[Frame]]


def stale_ack(peer: Insider) -> Ack:
    """An acknowledgement of the first packet, which was acknowledged long ago."""
    return Ack(0, 0, 0, ((0, 0),), None)


FLOODS: dict[str, tuple[int, Flood]] = {
    "MAX_DATA that rises by one": (1002, lambda peer, n: [MaxData(2 * WINDOW + n)]),
    "MAX_DATA that rises by a window, of which none is used": (1100, lambda peer, n: [MaxData((n + 2) * WINDOW)]),
    "MAX_STREAM_DATA that rises by one": (1002, lambda peer, n: [MaxStreamData(1, 2 * WINDOW + n)]),
    "MAX_STREAM_DATA that rises by a window": (1100, lambda peer, n: [MaxStreamData(1, (n + 2) * WINDOW)]),
    "MAX_STREAM_DATA in hundreds": (
        10,
        lambda peer, n: [MaxStreamData(1, 2 * WINDOW + 150 * n + m) for m in range(150)],
    ),
    "MAX_STREAMS that rises by one": (5000, lambda peer, n: [MaxStreams(True, 257 + n)]),
    "the same ACK, alone": (1100, lambda peer, n: [stale_ack(peer)]),
    "the same ACK, with padding": (1100, lambda peer, n: [stale_ack(peer), Padding(9)]),
    "ACKs by the hundred in a packet": (12, lambda peer, n: [stale_ack(peer)] * 100),
    "... behind a datagram": (12, lambda peer, n: [Datagram(b"data"), *[stale_ack(peer)] * 100]),
    "DATA_BLOCKED that rises by one": (1001, lambda peer, n: [DataBlocked(n)]),
    "STREAM_DATA_BLOCKED that rises by one": (1001, lambda peer, n: [StreamDataBlocked(1, n)]),
    "STREAMS_BLOCKED that rises by one": (1300, lambda peer, n: [StreamsBlocked(True, n)]),
    "KEEP_ALIVE": (1001, lambda peer, n: [KeepAlive(n.to_bytes(8))]),
    "KEEP_ALIVE_ACK that nobody asked for": (1001, lambda peer, n: [KeepAliveAck(n.to_bytes(8))]),
    "PATH_CHALLENGE": (1001, lambda peer, n: [PathChallenge(n.to_bytes(8))]),
    "empty datagrams": (220, lambda peer, n: [Datagram(b"")] * 300),
}
"""By name: the number of packets after which the session is closed at the latest, and what is in them."""


@pytest.mark.parametrize("name", FLOODS)
def test_tiny_frames_without_end(name: str) -> None:
    """F-5: each is counted, so a flood of them ends its session after a thousand at once."""
    most, make = FLOODS[name]
    peer = Insider()
    stream = peer.victim.open_stream()
    stream.write(b"x", peer.pair.now)
    peer.pair.server.pump()
    peer.acknowledge()
    packets = 0
    while packets <= most and peer.code is None:
        packets += 1
        for datagram in peer.pack(*make(peer, packets)):
            peer.pair.server.endpoint.receive(datagram, peer.victim.path, peer.pair.now)
        list(peer.pair.server.endpoint.transmits(peer.pair.now))
    assert peer.code == RESOURCES
    assert packets <= most


def test_acknowledgements_in_the_wrong_order() -> None:
    """F-5: nobody escapes by sending them last first, as if the network had turned them round."""
    peer = Insider()
    packets = [peer.pack(stale_ack(peer)) for _ in range(1200)]
    for datagrams in reversed(packets):
        for datagram in datagrams:
            peer.pair.server.endpoint.receive(datagram, peer.victim.path, peer.pair.now)
    assert peer.code == RESOURCES


# -- honest use ----------------------------------------------------------------------------------------------------


@pytest.fixture
def drained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """How full each bucket was, whenever something was taken out."""
    levels: list[float] = []
    drain = Suspicion.drain

    def spy(self: Suspicion, count: int, now: float) -> bool:
        kept = drain(self, count, now)
        levels.append(self._level)
        return kept

    monkeypatch.setattr(Suspicion, "drain", spy)
    yield levels
    levels.clear()


BAD_NETWORKS = {
    "duplicated": Conditions(delay=0.01, duplicate=0.3),
    "lost": Conditions(delay=0.01, loss=0.3),
    "reordered": Conditions(delay=0.01, reorder=0.5, reorder_delay=0.05),
    "all of it": Conditions(delay=0.01, loss=0.1, duplicate=0.3, reorder=0.3, reorder_delay=0.03, corrupt=0.05),
    "bursts": Conditions(delay=0.01, burst=GilbertElliott(good=50.0, bad=10.0), duplicate=0.3),
}


def busy(pair: Pair, seconds: float) -> None:
    """Both sides use everything: short streams by the hundred, long ones through small windows, tiny datagrams."""
    serve_echo(pair.server)
    mover = Mover(pair.client)
    long = [pair.session.open_stream() for _ in range(3)]
    for stream in long:
        mover.send(stream, pair.session, filler(300_000, stream.stream_id))
    end = pair.now + seconds
    while pair.now < end:
        assert pair.session.is_active()
        for _ in range(10):
            pair.session.send_datagram(b"", pair.now)
            pair.peer.send_datagram(b"", pair.now)
        if len(pair.session._engines.streams) < 60:  # type: ignore[union-attr]
            for _ in range(3):
                mover.send(pair.session.open_stream(), pair.session, filler(50))
        while pair.session.receive_datagram() is not None or pair.peer.receive_datagram() is not None:
            pass
        pair.settle(0.01)


@pytest.mark.parametrize("window", [1024, 20_000])
@pytest.mark.parametrize("name", BAD_NETWORKS)
def test_honest_use_is_not_suspicious(name: str, window: int, drained: list[float]) -> None:
    """F-5: neither windows of 1 KB nor 1,000 empty datagrams a second, on no network, take a tenth of what there is."""
    small = {"stream_receive_window": window, "session_receive_window": 2 * window}
    pair = session_pair(7, BAD_NETWORKS[name], client=small, server=small)
    busy(pair, 6.0)
    assert pair.session.is_active()
    assert pair.peer.is_active()
    assert min(drained, default=1000.0) > 900.0


def test_a_burst_of_empty_datagrams() -> None:
    """F-5, S-11: an application may send as many as fit into its queue at once, and 5,000 a second."""
    pair = session_pair()
    for _ in range(200):
        for _ in range(250):
            pair.session.send_datagram(b"", pair.now)
        pair.settle(0.05)
    assert pair.peer.is_active()
    assert pair.peer._engines.suspicion._level > 900  # type: ignore[union-attr]


def test_a_transfer_is_not_suspicious(drained: list[float]) -> None:
    """F-5, S-7: ten megabytes through the windows of the default, acknowledged and read as they come."""
    pair = session_pair(3, Conditions(delay=0.01, duplicate=0.3, reorder=0.1))

    def read(session: Session | None, event: object) -> None:
        if isinstance(event, StreamReadable) and session is not None:
            stream = session.stream(event.stream_id)
            while stream is not None and stream.read(1000, pair.now):
                pass

    pair.server.on_event = read
    stream = pair.session.open_stream()
    left = 4_000_000
    for _ in range(4000):
        left -= stream.write(bytes(min(left, 100_000)), pair.now)
        pair.settle(0.01)
        if not left and stream.acked_offset == 4_000_000:
            break
    assert stream.acked_offset == 4_000_000
    assert min(drained, default=1000.0) > 900.0


def test_nothing_but_padding_is_never_an_answer() -> None:
    """F-5: also where acknowledgements were to be expected, a packet of nothing but PADDING counts."""
    pair = session_pair()
    for _ in range(100):
        pair.peer.send_datagram(b"to be acknowledged", pair.now)
        pair.settle(0.05)
    suspicion = pair.peer._engines.suspicion  # type: ignore[union-attr]
    for _ in range(40):
        pair.inject(Padding(30))
    assert suspicion._level == 960


# -- what is repeated ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [3, 200])
def test_a_process_that_slept_finds_the_same_again_and_again(streams: int, drained: list[float]) -> None:
    """F-5, R-5: its peer asked all the while, each time with all that a packet held; that is no flood.

    [World 9500443: a round trip of 0.6 ms, a back-off that ended at 0.1 s, and 993 frames that said nothing new.]
    """
    hasty = {"ack_delay": 0.001}
    pair = session_pair(conditions=Conditions(delay=0.0003), client=hasty, server=hasty)
    pair.server.pause(20.0, buffer=1 << 22)
    for number in range(streams):
        pair.session.open_stream(purpose=f"{number}").write(b"x", pair.now)
    before = pair.session.stats().packets_sent
    pair.client.pump()
    pair.world.run(19.9)
    probes = pair.session.stats().packets_sent - before
    assert 2 * 20 <= probes <= 2 * 35
    pair.settle(5.0)
    assert pair.session.is_active()
    assert pair.peer.is_active()
    assert len(pair.server.events(StreamOpened)) == streams
    assert 500.0 < min(drained) < 1000.0


REPEATS: dict[str, Callable[[int], Frame]] = {
    "STREAM_OPEN": lambda n: StreamOpen(4 * (n % 50), ""),
    "STREAM that ends again": lambda n: Stream(4 * (n % 50), 1, b"", True),
    "RESET_STREAM": lambda n: ResetStream(4 * (50 + n % 50), 0, 0),
    "EXPIRED": lambda n: Expired(4 * (n % 50), 1),
    "MAX_DATA": lambda n: MaxData(1),
    "MAX_STREAMS": lambda n: MaxStreams(True, 1),
    "PRIORITY": lambda n: Priority(1, 3, True),
    "RETIRE_CONNECTION_ID": lambda n: RetireConnectionId(0),
}


@pytest.mark.parametrize("name", REPEATS)
def test_repetitions_by_the_hundred(name: str) -> None:
    """F-5: 64 of a packet count once, so 64,000 at once and 6,400 a second are the end, whatever their kind."""
    peer = Insider()
    stream = peer.victim.open_stream()
    stream.write(b"x", peer.pair.now)
    for number in range(50):
        peer.send(StreamOpen(4 * number, ""), Stream(4 * number, 0, b"x", True))
        peer.send(ResetStream(4 * (50 + number), 0, 0))
    peer.send(Priority(stream.stream_id, 3, True), RetireConnectionId(0))
    suspicion = peer.engines.suspicion
    peer.send(*[REPEATS[name](number) for number in range(128)])
    before = suspicion._level
    peer.send(*[REPEATS[name](number) for number in range(128)])
    assert suspicion._level == before - 2
    peer.send(REPEATS[name](0))
    assert suspicion._level == before - 3, "one alone counts as one"
    packets = 3
    while packets <= 600 and peer.code is None:
        packets += 1
        peer.send(*[REPEATS[name](number) for number in range(128)])
    assert peer.code == RESOURCES
    assert packets <= 502
