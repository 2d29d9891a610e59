"""Frames about the session as a whole: who answers what, what is repeated when it is lost, and what is too much."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stt_proto import CloseReason, Session
from stt_proto.errors import ResourcesExhaustedError
from stt_proto.events import DatagramReceived, Event, SessionClosed, StreamReadable
from stt_proto.session import inbound
from stt_proto.session.control import CLOSE, CONFIRM, KEEP_ALIVE
from stt_proto.session.suspicion import Suspicion
from stt_proto.testing import Conditions, Inbox, World, send
from stt_proto.wire import (
    Ack,
    Confirm,
    DataBlocked,
    Datagram,
    Decoders,
    Frame,
    KeepAlive,
    KeepAliveAck,
    MaxData,
    MaxStreamData,
    MaxStreams,
    NewConnectionId,
    Padding,
    PathChallenge,
    PathResponse,
    Ping,
    ResetStream,
    RetireConnectionId,
    SessionClose,
    StopSending,
    Stream,
    StreamDataBlocked,
    StreamOpen,
    StreamsBlocked,
)
from tests.proto.worlds import Pair, assert_empty, filler, sealed, session_pair


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Frame]]:
    """Every frame that any session takes apart."""
    frames: list[Frame] = []
    decode = inbound.decode_frames_untrusted

    def spy(plain: bytes, decoders: Decoders) -> list[Frame]:
        found = decode(plain, decoders)
        frames.extend(found)
        return found

    monkeypatch.setattr(inbound, "decode_frames_untrusted", spy)
    yield frames
    frames.clear()


def of(frames: list[Frame], kind: type) -> list[Frame]:
    return [frame for frame in frames if isinstance(frame, kind)]


# -- questions and answers -----------------------------------------------------------------------------------------


def test_a_path_challenge_is_answered(heard: list[Frame]) -> None:
    """Section 8: PATH_RESPONSE has the same 8 bytes."""
    pair = session_pair()
    pair.inject(PathChallenge(b"12345678"))
    pair.settle()
    assert of(heard, PathResponse) == [PathResponse(b"12345678")]


def test_a_keep_alive_is_answered(heard: list[Frame]) -> None:
    """K-4: KEEP_ALIVE_ACK has the same 8 bytes, and is not acknowledged itself."""
    pair = session_pair()
    heard.clear()
    pair.inject(KeepAlive(b"12345678"))
    pair.settle()
    assert [type(frame) for frame in heard] == [KeepAlive, Ack, KeepAliveAck]
    assert heard[-1] == KeepAliveAck(b"12345678")


def test_connection_ids_are_announced(heard: list[Frame]) -> None:
    """C-2, H-31: number 0 again with its token, and others; by both sides; the responder confirms."""
    pair = session_pair()
    announced = [frame.number for frame in of(heard, NewConnectionId)]  # type: ignore[attr-defined]
    assert announced.count(0) == 2
    assert announced.count(1) == 2
    assert len(of(heard, Confirm)) == 1
    assert len(pair.client.endpoint._context.expected_resets) == len(announced) // 2


def test_a_retired_connection_id_is_replaced_and_lingers(heard: list[Frame]) -> None:
    """C-2, C-4: the peer gets another one; the old one is routed for 3 PTO."""
    pair = session_pair()
    engines, table = pair.session._engines, pair.server.endpoint._context.connection_ids
    assert engines is not None
    old, before = engines.remote_ids.current, len(table)
    engines.remote_ids.use(1)
    assert engines.remote_ids.retire(0)
    engines.control.put(("retire", 0))
    pair.session.touch(pair.now)
    pto = pair.peer._engines.path.recovery.pto  # type: ignore[union-attr]
    pair.settle(0.1)
    assert engines.remote_ids.current != old
    assert of(heard, RetireConnectionId) == [RetireConnectionId(0)]
    assert old in table
    pair.world.run(3 * pto + 0.1)
    assert old not in table
    assert len(table) >= before - 1
    pair.session.send_datagram(b"under another name", pair.now)
    pair.settle(0.1)
    assert pair.peer.receive_datagram() == b"under another name"


def test_retirement_that_the_peer_asks_for(heard: list[Frame]) -> None:
    """C-3: `retire prior to` is answered with RETIRE_CONNECTION_ID, repeated until it is acknowledged."""
    pair = session_pair()
    there = pair.world.links[pair.server.address, pair.client.address]
    ids, remote = pair.session._engines.local_ids, pair.peer._engines.remote_ids  # type: ignore[union-attr]
    last = ids.frame(len(ids.live) - 1)
    assert last is not None
    there.up = False
    pair.inject(last._replace(retire_prior_to=last.number))
    pair.world.run(0.05)
    assert of(heard, RetireConnectionId) == []
    there.up = True
    pair.settle(2.0)
    assert set(of(heard, RetireConnectionId)) == {RetireConnectionId(number) for number in range(last.number)}
    assert remote.current in ids.live
    assert remote._retiring == {}


@pytest.mark.parametrize("seed", range(6))
def test_control_frames_survive_loss(seed: int, heard: list[Frame]) -> None:
    """R-9: what is kept until it is acknowledged arrives, whatever is lost: CONFIRM and every connection ID."""
    world = World(seed, Conditions(loss=0.4))
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run_until(session.is_active)
    world.run(20.0)
    if session.is_closed:
        return
    (peer,) = server.endpoint.sessions.values()
    for side, other in ((session, peer), (peer, session)):
        assert side._engines is not None
        assert other._engines is not None
        assert side._engines.local_ids.live[-1] in [cid for cid, _ in other._engines.remote_ids._live.values()]
        assert CONFIRM not in side._engines.control.ready
    assert session._inbound.confirmed


def test_what_means_nothing_any_more_is_not_repeated(heard: list[Frame]) -> None:
    """R-9: an announcement that was lost is not sent again when its ID was retired meanwhile."""
    pair = session_pair()
    engines = pair.peer._engines
    assert engines is not None
    assert engines.control.encode(("new_id", 99)) is None
    engines.control.put(("new_id", 99))
    heard.clear()
    pair.peer.touch(pair.now)
    pair.settle()
    assert heard == []
    assert engines.control.ready == {}
    for key in (KEEP_ALIVE, CONFIRM, ("new_id", 1), ("new_id", 99)):  # not kept, or arrived long ago, or retired
        engines.control.on_lost(key)
    assert engines.control.ready == {}
    assert engines.control.encode(CLOSE) is None
    engines.control.put(("retire", 5))
    engines.control.close(SessionClose(0, CloseReason.GRACEFUL, ""))
    engines.control.on_lost(("retire", 5))
    assert list(engines.control.ready) == [CLOSE], "a session that closes has nothing else to say"


def test_many_control_frames_take_several_packets(heard: list[Frame]) -> None:
    """A frame that does not fit waits for the next packet, and everything behind it too."""
    pair = session_pair()
    engines = pair.session._engines
    assert engines is not None
    for number in range(300):
        engines.control.put(("retire", (1 << 40) + number))
    pair.session.touch(pair.now)
    pair.client.pump()
    assert engines.control.ready == {}
    assert pair.session.stats().packets_sent >= 3


# -- every frame about streams finds its engine --------------------------------------------------------------------


def test_frames_about_streams(heard: list[Frame]) -> None:
    """Section 8: the table of `inbound`, once through."""
    pair = session_pair()
    ours = pair.peer.open_stream()
    ours.write(b"x", pair.now)
    pair.settle(0.2)
    pair.inject(StreamOpen(0, "by hand"), Stream(0, 0, b"abc", False))
    pair.inject(MaxData(1 << 30), MaxStreamData(1, 1 << 30), MaxStreams(True, 500), MaxStreams(False, 500))
    pair.inject(DataBlocked(100), StreamDataBlocked(0, 100), StreamsBlocked(True, 100), StreamsBlocked(False, 100))
    pair.inject(StopSending(1, 4), ResetStream(0, 5, 3))
    pair.inject(Datagram(b"d"), KeepAliveAck(b"12345678"), Padding(5), Ping())
    assert pair.peer.is_active()
    assert pair.peer.stream(0).purpose == "by hand"  # type: ignore[union-attr]
    assert pair.peer.open_stream(stream_id=499 * 4 + 1)
    assert pair.peer.receive_datagram() == b"d"


def test_an_event_only_for_what_is_there() -> None:
    """S-11: a datagram that breaks the rules makes no event of one that can be received."""
    pair = session_pair(server={"max_datagram_size": 100})
    pair.inject(Datagram(bytes(101)))
    assert pair.server.events(DatagramReceived) == []
    assert [event.code for event in pair.server.events(SessionClosed)] == [0x0401]


def test_frames_behind_a_close_are_not_looked_at() -> None:
    """K-2: packets behind SESSION_CLOSE in one run change nothing."""
    pair = session_pair()
    (first,) = sealed(pair.session, SessionClose(0, CloseReason.GRACEFUL, ""), Padding(11))
    (second,) = sealed(pair.session, Stream(0, 0, b"x" * (len(first) - 13 - 16 - 3), False))
    assert len(first) == len(second)
    pair.server.endpoint.receive(first + second, pair.peer.path, pair.now, segment_size=len(first))
    pair.server.pump()
    assert pair.peer.is_closed
    assert pair.server.events(StreamReadable) == []


# -- too much of what is legal -------------------------------------------------------------------------------------


def test_the_bucket() -> None:
    """F-5: a thousand at once, then a hundred a second."""
    bucket = Suspicion(1000, 100.0, 0.0)
    assert all(bucket.drain(1, 0.0) for _ in range(1000))
    assert not bucket.drain(1, 0.0)
    bucket = Suspicion(1000, 100.0, 0.0)
    assert bucket.drain(1000, 0.0)
    assert bucket.drain(50, 0.5)
    assert not bucket.drain(1, 0.5)
    bucket = Suspicion(1000, 100.0, 0.0)
    assert bucket.drain(1000, 5000.0), "a bucket never holds more than it holds"
    assert not bucket.drain(1, 5000.0)


def suspicious(pair: Pair) -> dict[str, list[Frame | bytes]]:
    """Packets each of which is legal, and suspicious once; a first one that is not may stand before them."""
    ids = pair.session._engines.local_ids  # type: ignore[union-attr]
    known = ids.frame(1)
    assert known is not None
    return {
        "PING": [Ping()],
        "only PADDING": [Padding(30)],
        "CONFIRM again": [Confirm()],
        "PATH_RESPONSE to nothing": [PathResponse(b"12345678")],
        "NEW_CONNECTION_ID again": [known],
        "RETIRE_CONNECTION_ID again": [RetireConnectionId(1)],
        "MAX_DATA no higher": [MaxData(1)],
        "empty STREAM": [Stream(0, 0, b"", False)],
        "STOP_SENDING again": [StopSending(1, 0)],
        "DATA_BLOCKED again": [DataBlocked(1)],
        "KEEP_ALIVE twice": [KeepAlive(b"12345678"), KeepAlive(b"12345678")],
        "PATH_CHALLENGE twice": [PathChallenge(b"12345678"), PathChallenge(b"12345678")],
    }


@pytest.mark.parametrize("name", suspicious(session_pair()).keys())
def test_floods(name: str) -> None:
    """F-5: a thousand are let pass, a few more close the session with 0x0603."""
    pair = session_pair()
    pair.peer.open_stream().write(b"x", pair.now)
    pair.settle(0.2)
    frames = suspicious(pair)[name]
    if name.startswith("RETIRE"):
        assert pair.session._engines.remote_ids.retire(1)  # type: ignore[union-attr]
    pair.inject(*frames)
    pair.settle(0.5)
    assert pair.peer.is_active()
    packets = 0
    while packets < 1100 and not pair.peer.is_closed:
        packets += 1
        for datagram in sealed(pair.session, *frames):
            pair.server.endpoint.receive(datagram, pair.peer.path, pair.now)
        if len(frames) == 2 and not pair.peer.is_closed:
            list(pair.server.endpoint.transmits(pair.now))
    assert 500 <= packets <= 1002
    assert isinstance(pair.peer.close_error, ResourcesExhaustedError)
    pair.settle(5.0)
    assert [event.code for event in pair.server.events(SessionClosed)] == [0x0603]
    assert_empty(pair.client, pair.server)


def test_honest_padding_is_not_suspicious() -> None:
    """F-5: a writer pads a packet that its message nearly fills; thousands of these a second are no attack."""
    pair = session_pair()
    for number in range(3000):
        (packet,) = sealed(pair.session, Padding(2), Stream(0, 100 * number, filler(100, number), False))
        pair.server.endpoint.receive(packet, pair.peer.path, pair.now)
    assert pair.peer.is_active()
    assert pair.peer._engines.suspicion._level == 1000  # type: ignore[union-attr]


def test_a_datagram_of_the_largest_size_goes_before_streams_while_there_is_much_to_acknowledge() -> None:
    """S-14: with an acknowledgement in each packet it never fitted, and what streams had took its place."""
    pair = session_pair(1, Conditions(delay=0.03, rate=2e6, queue=60_000), client={"max_datagram_size": 1400})
    world, late = pair.world, list[float]()

    def on_event(session: Session | None, event: Event) -> None:
        while (data := pair.peer.receive_datagram()) is not None:
            late.append(world.now - float(data[:20]))

    pair.server.listeners.append(on_event)
    for node in (pair.client, pair.server):
        Inbox(node)
    uploads = [send(pair.client, pair.session, filler(400_000)), send(pair.server, pair.peer, filler(400_000))]
    world.run(1.0)
    size = pair.session.max_datagram_size
    for _ in range(60):
        pair.session.send_datagram(f"{world.now:20.15f}".encode().ljust(size), world.now)
        pair.client.pump()
        world.run(0.01)
    assert not any(upload.done for upload in uploads)
    world.run(5.0)
    assert len(late) >= 58
    assert max(late) < 0.5


def test_last_words_do_not_wait_for_a_datagram() -> None:
    """K-2, S-14: a session that closes sends no datagram any more, and an acknowledgement with everything."""
    pair = session_pair(client={"max_datagram_size": 1400}, server={"max_datagram_size": 1400})
    pair.peer.send_datagram(b"so that there is something to acknowledge", pair.now)
    pair.settle()
    pair.session.send_datagram(bytes(pair.session.max_datagram_size), pair.now)
    pair.session.close(pair.now)
    packets = []
    while (transmit := pair.client.endpoint.next_transmit(pair.now)) is not None:
        packets.append(transmit)
        assert len(packets) < 10
    for transmit in packets:
        for datagram in transmit.datagrams():
            pair.world.send(datagram, transmit.path)
    pair.settle()
    assert pair.peer.is_closed
