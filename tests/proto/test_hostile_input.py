"""Whatever arrives: no exception, no change of state by what does not open, and a broken rule ends one session only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from stt_proto import NetworkPath, Session
from stt_proto.config import Limits
from stt_proto.errors import RemoteError, SessionClosedError
from stt_proto.events import SessionClosed, StreamOpened
from stt_proto.packet.numbers import MAX_SKIP_DISTANCE
from stt_proto.testing import Node, World, tables
from stt_proto.wire import (
    Ack,
    Datagram,
    Frame,
    MaxData,
    MaxStreamData,
    NewConnectionId,
    Ping,
    ResetStream,
    RetireConnectionId,
    StopSending,
    Stream,
    StreamDataBlocked,
    StreamOpen,
)
from tests.proto.strategies import frames
from tests.proto.test_errors import CODES
from tests.proto.worlds import Pair, assert_empty, back, filler, sealed, serve_echo, session_pair

# -- packets that do not open --------------------------------------------------------------------------------------


def plaintext(packet: bytes, pair: Pair) -> bytes:
    """The frames as they are, behind a header as it should be."""
    return packet[:13] + Datagram(b"in clear").encode() + bytes(30)


def other_direction(packet: bytes, pair: Pair) -> bytes:
    """What the receiver sealed itself, sent back to it."""
    (own,) = sealed(pair.peer, Ping())
    return packet[:9] + own[9:]


HOSTILE: dict[str, Callable[[bytes, Pair], bytes]] = {
    "plaintext": plaintext,
    "truncated": lambda packet, _: packet[:-1],
    "cut to the header": lambda packet, _: packet[:13],
    "cut to less": lambda packet, _: packet[:9],
    "oversized": lambda packet, _: packet + b"\0",
    "enormous": lambda packet, _: packet + bytes(65_000),
    "damaged tag": lambda packet, _: packet[:-1] + bytes((packet[-1] ^ 1,)),
    "damaged number": lambda packet, _: packet[:12] + bytes((packet[12] ^ 1,)) + packet[13:],
    "another epoch": lambda packet, _: bytes((packet[0] ^ 1,)) + packet[1:],
    "reserved bits": lambda packet, _: bytes((packet[0] ^ 0x10,)) + packet[1:],
    "without bit 6": lambda packet, _: bytes((packet[0] & 0xBF,)) + packet[1:],
    "as a segment": lambda packet, _: bytes((packet[0] | 0x20,)) + packet[1:13] + b"\x05\x01" + packet[15:],
    "as a handshake message": lambda packet, _: bytes((packet[0] | 0x80,)) + packet[1:],
    "misdirected": lambda packet, _: packet[:1] + bytes(8) + packet[9:],
    "reflected": other_direction,
    "a forged reset": lambda packet, _: b"\x40" + filler(41),
}


def state_of(pair: Pair, session: Session) -> object:
    """Everything about a session that a packet could change, but the counters of what was dropped."""
    engines = session._engines
    assert engines is not None
    recovery = engines.path.recovery
    return (
        evolve(session.stats(), receive_errors=0, uptime=0.0),
        session.last_active,
        session.deadline(),
        engines.acks.pending,
        engines.acks.due_at,
        engines.receiver.window.largest,
        engines.remote_ids.current,
        recovery.bytes_in_flight,
        engines.streams.undelivered,
        dict(engines.control.ready),
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_what_does_not_open_changes_nothing(name: str) -> None:
    """G-3, P-8: counted and dropped; no state, no event, no answer but perhaps a stateless reset."""
    pair = session_pair()
    endpoint = pair.server.endpoint
    (packet,) = sealed(pair.session, Datagram(b"genuine"), Ping())
    hostile = HOSTILE[name](packet, pair)
    before, held, log = state_of(pair, pair.peer), tables(endpoint), len(pair.server.log)
    counted = (evolve(endpoint.counters), pair.peer.stats().receive_errors)
    endpoint.receive(hostile, pair.peer.path, pair.now)
    assert (endpoint.counters, pair.peer.stats().receive_errors) != counted
    assert [transmit.size < len(hostile) for transmit in endpoint.transmits(pair.now)] == [True] * (
        endpoint.counters.resets_sent
    )
    pair.pump()
    assert state_of(pair, pair.peer) == before
    assert tables(endpoint) == held
    assert len(pair.server.log) == log
    endpoint.receive(packet, pair.peer.path, pair.now)
    assert pair.peer.receive_datagram() == b"genuine", "the genuine one still opens"


def test_replayed_packets() -> None:
    """P-7: the second copy is counted and dropped, at once and later, from there and from elsewhere."""
    pair = session_pair()
    (packet,) = sealed(pair.session, Datagram(b"once"))
    pair.server.endpoint.receive(packet, pair.peer.path, pair.now)
    pair.settle()
    before, log = state_of(pair, pair.peer), len(pair.server.log)
    for path in (pair.peer.path, NetworkPath("udp", pair.server.address, ("elsewhere", 9))):
        pair.server.endpoint.receive(packet, path, pair.now)
    assert state_of(pair, pair.peer) == before
    assert pair.peer.stats().receive_errors == 2
    pair.pump()
    assert len(pair.server.log) == log
    assert (pair.peer.receive_datagram(), pair.peer.receive_datagram()) == (b"once", None)


# -- frames that break a rule --------------------------------------------------------------------------------------


def known_id(pair: Pair) -> NewConnectionId:
    frame = pair.session._engines.local_ids.frame(1)  # type: ignore[union-attr]
    assert frame is not None
    return frame


BROKEN: dict[str, tuple[int, Callable[[Pair], list[Frame | bytes]]]] = {
    "no frame": (0x0401, lambda _: [b""]),
    "cut short": (0x0401, lambda _: [ResetStream(0, 0, 0).encode()[:-1]]),
    "unknown type": (0x0404, lambda _: [b"\x23"]),
    "custom frame that was not announced": (0x0404, lambda _: [Ping(), b"\x80"]),
    "ACK of what was never sent": (0x0401, lambda _: [Ack(1 << 20, 0, 0, ((1 << 20, 1 << 20),), None)]),
    "ACK below zero": (0x0401, lambda _: [b"\x02\x00\x00\x00\x00\x05"]),
    "ACK with too many ranges": (0x0401, lambda _: [b"\x02\x00\x00\x00\x40\x40\x00"]),
    "limit of more than 2^60 streams": (0x0401, lambda _: [b"\x12" + (0xD000000000000001).to_bytes(8)]),
    "frame for a stream that we never opened": (0x0401, lambda _: [Stream(1, 0, b"x", False)]),
    "data on our own one-way stream": (0x0401, lambda _: [Stream(3, 0, b"x", False)]),
    "STOP_SENDING for its own one-way stream": (0x0401, lambda _: [StopSending(2, 0)]),
    "MAX_STREAM_DATA for its own one-way stream": (0x0401, lambda _: [MaxStreamData(2, 5)]),
    "RESET_STREAM of ours": (0x0401, lambda _: [ResetStream(3, 0, 0)]),
    "STREAM_OPEN of ours": (0x0401, lambda _: [StreamOpen(1, "x")]),
    "STREAM_DATA_BLOCKED of ours": (0x0401, lambda _: [StreamDataBlocked(3, 5)]),
    "data behind the end": (0x0401, lambda _: [Stream(0, 0, b"abc", True), Stream(0, 3, b"d", False)]),
    "two ends": (0x0401, lambda _: [Stream(0, 0, b"abc", True), Stream(0, 0, b"ab", True)]),
    "reset before what came": (0x0401, lambda _: [Stream(0, 0, b"abc", False), ResetStream(0, 0, 2)]),
    "offset beyond 2^62": (0x0401, lambda _: [b"\x0e\x00" + b"\xff" * 8 + b"\x01x"]),
    "stream beyond the limit": (0x0302, lambda _: [Stream(256 * 4, 0, b"x", False)]),
    "one-way stream beyond the limit": (0x0302, lambda _: [StreamOpen(256 * 4 + 2, "x")]),
    "more than the stream's credit": (0x0304, lambda _: [Stream(0, 1 << 20, b"x", False)]),
    "reset beyond the stream's credit": (0x0304, lambda _: [ResetStream(0, 0, (1 << 20) + 1)]),
    "more than the session's credit": (
        0x0304,
        lambda _: [Stream(0, (1 << 20) - 1, b"x", False), Stream(4, 1 << 19, b"x", False)],
    ),
    "too many gaps": (
        0x0603,
        lambda _: [Stream(0, 2 * number + 1, b"x", False) for number in range(30)],
    ),
    "datagram larger than announced": (0x0401, lambda _: [Datagram(bytes(101))]),
    "connection ID under two numbers": (0x0401, lambda pair: [known_id(pair)._replace(number=50)]),
    "number with another connection ID": (0x0401, lambda pair: [known_id(pair)._replace(connection_id=bytes(8))]),
    "number with another token": (0x0401, lambda pair: [known_id(pair)._replace(token=bytes(16))]),
    "too many connection IDs": (
        0x0401,
        lambda _: [NewConnectionId(90 + number, 0, bytes((number,)) * 8, bytes(16)) for number in range(9)],
    ),
    "retired connection ID that never was": (0x0401, lambda _: [RetireConnectionId(1000)]),
    "retirement flood": (
        0x0603,
        lambda _: [
            NewConnectionId(1000 * (number + 1), 1000 * (number + 1), bytes((number,)) * 8, bytes(16))
            for number in range(99)
        ],
    ),
    "bytes that are no varint": (0x0401, lambda _: [MaxData(1 << 40).encode()[:-1]]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule(name: str) -> None:
    """F-1, G-2, section 12: it closes its session with its code, the peer is told, and no other session notices."""
    code, make = BROKEN[name]
    limits = evolve(Limits(), stream_pieces=16)
    pair = session_pair(server={"max_datagram_size": 100, "limits": limits})
    serve_echo(pair.server)
    witness = pair.client.connect(pair.server)
    pair.world.run_until(witness.is_active)
    broken = make(pair)
    for start in range(0, len(broken), 10):
        pair.inject(*broken[start : start + 10])
    pair.settle(3.0)
    (told,) = pair.server.events(SessionClosed)
    assert (told.code, told.reason, told.by_peer) == (code, "error", False)
    assert isinstance(pair.peer.close_error, RemoteError)
    assert pair.peer.close_error.code == code
    if name != "retirement flood":  # which has retired every ID that it could have been told under
        (heard,) = pair.client.events(SessionClosed)
        assert (heard.code, heard.reason, heard.by_peer) == (code, "error", True)
        assert isinstance(pair.session.close_error, SessionClosedError)
    stream = witness.open_stream()
    stream.write(b"not touched", pair.now)
    pair.settle(0.5)
    assert stream.read(100, pair.now) == b"not touched"
    assert len(pair.server.endpoint.sessions) == 1


def test_optimistic_acknowledgement() -> None:
    """F-2, P-6: whoever acknowledges a number that was skipped has not received what he acknowledges."""
    pair = session_pair()
    numbers = pair.peer._engines.numbers  # type: ignore[union-attr]
    for _ in range(MAX_SKIP_DISTANCE + 2):
        numbers.next()
    pair.inject(Ack(numbers.next_number - 1, 0, 0, ((0, numbers.next_number - 1),), None))
    assert pair.peer.close_error is not None
    assert pair.peer.close_error.code == 0x0401


def test_the_first_broken_rule_ends_it() -> None:
    """P-15: frames are looked at in order; nothing behind the one that breaks a rule has any effect."""
    pair = session_pair()
    pair.inject(Stream(0, 0, b"ok", False), Stream(3, 0, b"not ok", False), Stream(4, 0, b"too late", False))
    assert [event.stream_id for event in pair.server.events(StreamOpened)] == [0]
    pair.settle(2.0)
    assert_empty(pair.client, pair.server)


def test_a_packet_that_does_not_parse_has_no_effect_at_all() -> None:
    """P-15: a packet takes effect only as a whole."""
    pair = session_pair()
    pair.inject(Stream(0, 0, b"ok", False), b"\x04\x00")
    assert pair.server.events(StreamOpened) == []
    assert pair.peer.is_closed


# -- no exception, for any bytes -----------------------------------------------------------------------------------

first_bytes = st.sampled_from([0x00, 0x40, 0x41, 0x60, 0x80, 0xC0, *range(0xC1, 0xC9), *range(0xE1, 0xE9), 0xFF])


@st.composite
def datagrams(draw: st.DrawFn) -> bytes:
    return bytes((draw(first_bytes),)) + draw(st.binary(max_size=1300))


def exercise(node: Node, datagram: bytes, path: NetworkPath, segment_size: int | None) -> None:
    """Hand over a datagram and do what a host does next; nothing may be raised."""
    node.endpoint.receive(datagram, path, node.world.now, segment_size)
    node.pump()


@given(st.lists(st.tuples(datagrams(), st.none() | st.integers(1, 400)), min_size=1, max_size=5))
def test_random_datagrams(inputs: list[tuple[bytes, int | None]]) -> None:
    """G-2: to an endpoint with a dial, a half-open handshake and a session."""
    pair = ENDPOINTS
    for data, size in inputs:
        for cid in (b"", *CIDS):
            datagram = data[:1] + cid + data[1 + len(cid) :]
            for node, path in ((pair.client, pair.session.path), (pair.server, pair.peer.path)):
                exercise(node, datagram, path, size)
    assert pair.session.is_active()
    assert pair.peer.is_active()


ENDPOINTS = session_pair(99, client={"handshake_timeout": 600}, server={"handshake_timeout": 600})


def _prepare() -> tuple[bytes, ...]:
    """Leave a dial and a half-open handshake behind; give the connection IDs that mean something."""
    dial = ENDPOINTS.client.endpoint.connect(ENDPOINTS.session.path, now=ENDPOINTS.now)
    for transmit in ENDPOINTS.client.endpoint.transmits(ENDPOINTS.now):
        for datagram in transmit.datagrams():
            ENDPOINTS.server.endpoint.receive(datagram, ENDPOINTS.peer.path, ENDPOINTS.now)
    challenge = next(ENDPOINTS.server.endpoint.transmits(ENDPOINTS.now))
    half_open = b"".join(challenge.buffers)[17:25]
    ids = [session._engines.remote_ids.current for session in (ENDPOINTS.session, ENDPOINTS.peer)]  # type: ignore[union-attr]
    return (dial._initiator.local_cid, half_open, *ids)  # type: ignore[union-attr]


CIDS = _prepare()


def recorded() -> list[tuple[bytes, bool]]:
    """Every datagram of a short life: handshake, streams, datagrams, close; and whether the server received it."""
    seen: list[tuple[bytes, bool]] = []
    world = World(99)
    client, server = world.node("client"), world.node("server")
    serve_echo(server)
    world.taps.append(lambda datagram, path: seen.append((datagram, path.remote == server.address)) or datagram)
    session = client.connect(server)
    world.run_until(session.is_active)
    session.open_stream().write(filler(3000), world.now)
    session.send_datagram(b"beside", world.now)
    client.pump()
    world.run(0.5)
    session.close(world.now)
    client.pump()
    world.run(5.0)
    return seen


RECORDED = recorded()


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(RECORDED) - 1),
            st.integers(0, 1 << 14),
            st.integers(0, 255),
            st.sampled_from(["flip", "cut", "grow", "swap", "whole"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_mutated_datagrams(changes: list[tuple[int, int, int, str]]) -> None:
    """G-2: real datagrams, damaged in every way, played to endpoints that are in the middle of the same handshake."""
    world = World(99)
    client, server = world.node("client"), world.node("server")
    client.connect(server)
    path = client.path_to(server)
    world.run(changes[0][1] / (1 << 14) * 0.1)
    for index, place, value, how in changes:
        datagram, to_server = RECORDED[index]
        place %= len(datagram)
        match how:
            case "flip":
                datagram = datagram[:place] + bytes((datagram[place] ^ value,)) + datagram[place + 1 :]
            case "cut":
                datagram = datagram[:place]
            case "grow":
                datagram += bytes((value,)) * place
            case "swap":
                datagram = datagram[:9] + RECORDED[value % len(RECORDED)][0][9:]
        node, seen_on = (server, back(path)) if to_server else (client, path)
        exercise(node, datagram, seen_on, None if value % 2 else max(1, place))
        world.run(0.002)
    world.run(60.0)
    for node in (client, server):
        node.endpoint.next_deadline()
        assert tables(node.endpoint)["half-open"] == 0


@given(
    st.lists(
        st.lists(st.one_of(frames, st.binary(min_size=1, max_size=40)), min_size=1, max_size=6),
        min_size=1,
        max_size=6,
    )
)
def test_arbitrary_frames_under_valid_keys(packets: list[list[Frame | bytes]]) -> None:
    """G-2: a peer with keys and no manners: the session goes on, or ends with a code of section 12; nothing raises."""
    pair = session_pair(7)
    serve_echo(pair.server)
    ours = pair.peer.open_stream()
    ours.write(b"something to be acknowledged", pair.now)
    pair.server.pump()
    for packet in packets:
        plain = [frame if isinstance(frame, bytes) else frame.encode() for frame in packet]
        total: list[Frame | bytes] = [b"".join(plain)[:5000]]
        for datagram in sealed(pair.session, *total):
            pair.server.endpoint.receive(datagram, pair.peer.path, pair.now)
        pair.server.pump()
        pair.world.run(0.05)
    if pair.peer.is_closed:
        assert pair.peer.close_error is not None
        closes = pair.server.events(SessionClosed)
        assert len(closes) == 1
        assert closes[0].by_peer or closes[0].code in CODES
    else:
        stream = pair.peer.open_stream() if pair.peer.is_active() else None
        assert stream is None or stream.can_write
    pair.peer.abort(pair.now)
    pair.session.abort(pair.now)
    pair.settle(30.0)
    assert_empty(pair.server, pair.client)
