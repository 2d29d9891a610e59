"""The first packets of a session: in which order a dial hears of them, and what comes of it when they are lost."""

from __future__ import annotations

import copy

import pytest

from stt_proto import CloseReason, NetworkPath, Session, SessionState
from stt_proto.errors import ConnectionRefusedError, SessionClosedError
from stt_proto.events import (
    DatagramReceived,
    Event,
    HandshakeProgressed,
    SessionClosed,
    SessionEstablished,
    SessionStateChanged,
    StreamOpened,
    StreamReadable,
    TicketReceived,
)
from stt_proto.session.ending import MAX_ANSWERS
from stt_proto.session.repeats import PAUSE, REPEATS
from stt_proto.testing import Conditions, Node, World
from stt_proto.wire import Confirm, Message, MessageType, SessionClose, Stream, encode_pieces
from tests.proto.worlds import assert_empty, back, filler, is_handshake, sealed

Lost = list[bytes]


def drop(world: World, sender: Node, count: int) -> Lost:
    """Lose the first packets of a node; its handshake messages pass. They are in the list as soon as they are lost."""
    lost: Lost = []

    def tap(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.local != sender.address or is_handshake(datagram) or len(lost) >= count:
            return datagram
        lost.append(datagram)
        return None

    world.taps.append(tap)
    return lost


def greet(node: Node, size: int) -> None:
    """Each session that comes gets a stream and a datagram at once."""

    def on_event(session: Session | None, event: Event) -> None:
        if isinstance(event, SessionEstablished):
            assert session is not None
            session.send_datagram(b"hello", node.world.now)
            session.open_stream(purpose="greeting").write(filler(size), node.world.now)

    node.on_event = on_event


# -- the order of events -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 5000])
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_established_before_anything_else(size: int, lost: int) -> None:
    """Section 11, H-31: any packet that opens confirms; of what is in it the application hears afterwards.

    A packet was taken apart before the session was established. So a dial was told of streams and their data first,
    whenever data came with the first packet, or the first packet was lost and another came.
    """
    world = World(1)
    client, server = world.node("client"), world.node("server")
    greet(server, size)
    dropped = drop(world, server, lost)
    session = client.connect(server)
    world.run_until(lambda: client.events(StreamReadable), timeout=5.0)
    assert len(dropped) == lost
    kinds = [type(event) for _, _, event in client.log]
    established = kinds.index(SessionEstablished)
    assert kinds[:established] == [SessionStateChanged, *[HandshakeProgressed] * 4, SessionStateChanged]
    assert set(kinds[established + 1 :]) - {DatagramReceived, TicketReceived} == {StreamOpened, StreamReadable}
    assert session.is_active()


def test_established_in_the_middle_of_a_run() -> None:
    """The same for packets that the host hands in together."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    dropped = drop(world, server, 1)
    session = client.connect(server)
    world.run_until(lambda: dropped)
    (peer,) = server.endpoint.sessions.values()
    frames = [Stream(1, 0, filler(102), False), *[Stream(1, 2 + 100 * number, filler(100), False) for number in (1, 2)]]
    run = [sealed(peer, frame)[0] for frame in frames]
    assert len({len(packet) for packet in run}) == 1
    client.endpoint.receive(b"".join(run), session.path, world.now, segment_size=len(run[0]))
    client.pump()
    kinds = [type(event) for _, _, event in client.log]
    assert kinds.count(SessionEstablished) == kinds.count(StreamOpened) == 1
    assert kinds.index(SessionEstablished) < kinds.index(StreamOpened)
    assert session.stats().packets_received == 3


def test_a_refusal_establishes_nothing() -> None:
    """H-29: what closes a session that it never confirmed opens too, but the session never was."""
    world = World(1)
    client = world.node("client")
    server = world.node("server", admit=lambda peer, path, now: 0x0102)
    session = client.connect(server)
    world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, ConnectionRefusedError)
    assert client.events(SessionEstablished) == []
    assert SessionState.ESTABLISHED not in [event.new for event in client.events(SessionStateChanged)]


@pytest.mark.parametrize("confirms", [False, True])
def test_a_first_packet_that_closes(confirms: bool) -> None:
    """H-29, K-2: with CONFIRM beside it SESSION_CLOSE ends a session that was; without, one that was not."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    dropped = drop(world, server, 1)
    session = client.connect(server)
    world.run_until(lambda: dropped)
    (peer,) = server.endpoint.sessions.values()
    frames = [*([Confirm()] if confirms else []), SessionClose(0, CloseReason.GRACEFUL, "bye")]
    client.endpoint.receive(sealed(peer, *frames)[0], session.path, world.now)
    client.pump()
    assert len(client.events(SessionEstablished)) == confirms
    (closed,) = client.events(SessionClosed)
    assert (closed.reason, closed.detail, closed.by_peer) == (CloseReason.GRACEFUL, "bye", True)


def test_a_first_packet_that_does_not_parse() -> None:
    """P-15, F-1: it takes no effect, so the session was never established; the peer is told why it ends."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    dropped = drop(world, server, 1)
    session = client.connect(server)
    world.run_until(lambda: dropped)
    (peer,) = server.endpoint.sessions.values()
    client.endpoint.receive(sealed(peer, b"\x7f" + bytes(60))[0], session.path, world.now)
    client.pump()
    assert session.close_error is not None
    assert session.close_error.code == 0x0404
    assert client.events(SessionEstablished) == []
    world.run(1.0)
    assert [event.code for event in server.events(SessionClosed)] == [0x0404]


# -- AUTH_PROOF once more ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delay", "soonest"), [(0.01, 0.08), (0.05, 0.38), (0.2, 1.05)])
def test_a_lost_final_is_repeated_when_the_peer_asks_again(delay: float, soonest: float) -> None:
    """K-7: AUTH_PROOF comes again, so FINAL was lost: it is repeated then, and not only by its own timeout."""
    world = World(1, Conditions(delay=delay))
    client, server = world.node("client"), world.node("server")
    dropped = drop(world, server, 1)
    session = client.connect(server)
    world.run_until(session.is_active, timeout=soonest)
    assert len(dropped) == 1
    (peer,) = server.endpoint.sessions.values()
    world.run(1.0)
    assert peer.stats().packets_lost <= 1
    assert session._inbound.confirmed, "it was repeated, not replaced"


@pytest.mark.parametrize("lost", [1, 2, 3, 4, 6])
def test_it_never_takes_longer(lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """K-7, R-5: what is repeated on request comes on top of the timeouts, and postpones none of them."""

    def duration() -> float:
        world = World(1, Conditions(delay=0.05))
        client, server = world.node("client"), world.node("server")
        drop(world, server, lost)
        session = client.connect(server)
        world.run_until(session.is_active, timeout=9.0)
        return world.now

    with_it = duration()
    monkeypatch.setattr(Session, "on_repeated_proof", lambda *_: False)
    assert with_it <= duration()


@pytest.mark.parametrize("how", ["close", "abort", "refuse"])
@pytest.mark.parametrize("lost", [1, 2, 3])
def test_last_words_that_were_the_first_ones(how: str, lost: int) -> None:
    """K-3, K-7: a responder that is over at once says so again when AUTH_PROOF comes again.

    Its only packet was lost, and nothing that the dial sent opened under the session's keys: so it was not answered,
    and heard of a timeout of the handshake after 10 s.
    """
    world = World(1, Conditions(delay=0.02))
    client = world.node("client")
    server = world.node("server", admit=lambda *_: 0x0102 if how == "refuse" else None)

    def hang_up(session: Session | None, event: Event) -> None:
        if isinstance(event, SessionEstablished) and session is not None:
            session.close(world.now, detail="no") if how == "close" else session.abort(world.now)

    server.on_event = hang_up
    drop(world, server, lost)
    session = client.connect(server)
    world.run_until(lambda: session.is_closed, timeout=1.5)
    assert isinstance(session.close_error, ConnectionRefusedError if how == "refuse" else SessionClosedError)
    (closed,) = client.events(SessionClosed)
    assert closed.by_peer
    world.run(15.0)
    assert_empty(client, server)


def accepted() -> tuple[World, Node, Node, bytes, Session]:
    """A session whose responder has just accepted it, and the AUTH_PROOF that did it; FINAL was lost."""
    world = World(1, Conditions(delay=0.05))
    client, server = world.node("client"), world.node("server")
    proofs: list[bytes] = []

    def tap(datagram: bytes, path: NetworkPath) -> bytes | None:
        if is_handshake(datagram, MessageType.AUTH_PROOF):
            proofs.append(datagram)
        return datagram if path.local == client.address or is_handshake(datagram) else None

    world.taps.append(tap)
    client.connect(server)
    world.run_until(lambda: server.endpoint.sessions)
    (peer,) = server.endpoint.sessions.values()
    list(server.endpoint.transmits(world.now))
    return world, client, server, proofs[0], peer


def test_repetitions_without_end() -> None:
    """K-7 [whoever has seen AUTH_PROOF can repeat it]: one answer in 5 ms, 32 in all, each smaller than it."""
    world, _, server, proof, peer = accepted()
    now, answers = world.now, 0
    server.endpoint.receive(proof, peer.path, now + PAUSE / 2)
    assert list(server.endpoint.transmits(now + PAUSE / 2)) == [], "a duplicate, which is no repetition"
    for number in range(3000):
        at = now + PAUSE + number * 0.001
        server.endpoint.receive(proof, peer.path, at)
        for transmit in server.endpoint.transmits(at):
            answers += 1
            assert sum(map(len, transmit.buffers)) < len(proof) / 2
        assert answers <= 1 + number // 5
    assert answers == REPEATS
    assert peer.is_active()


def test_repetitions_after_the_end() -> None:
    """K-3, K-7: among the 16 answers of a session that is over, and only as long as it lingers."""
    world, _, server, proof, peer = accepted()
    peer.abort(world.now)
    answers = len(list(server.endpoint.transmits(world.now)))
    for number in range(1, 200):
        at = world.now + number * 0.002
        server.endpoint.receive(proof, peer.path, at)
        answers += len(list(server.endpoint.transmits(at)))
    assert 10 < answers <= MAX_ANSWERS
    server.pump()
    world.run(15.0)
    refused = server.endpoint.counters.refused
    server.endpoint.receive(proof, peer.path, world.now)
    assert server.endpoint.counters.refused == refused + 1


def test_repetitions_that_mean_nothing() -> None:
    """K-7, H-30, G-3: from elsewhere, in pieces, of another kind; or once the peer has acknowledged anything."""
    world, client, server, proof, peer = accepted()
    at = world.now + 1.0
    elsewhere = NetworkPath("udp", server.address, ("elsewhere", 1))
    refused = server.endpoint.counters.refused
    dcid, scid = proof[9:17], proof[17:25]
    words = [
        (proof, elsewhere),
        *[
            (piece, peer.path)
            for kind in (MessageType.AUTH_PROOF, MessageType.ABORT)
            for piece in encode_pieces(Message(kind, dcid, scid, filler(3000)), 1200)
        ],
        *[(encode_pieces(Message(MessageType.ABORT, dcid, scid, filler(18)), 1200)[0], peer.path)],
    ]
    for datagram, path in words:
        server.endpoint.receive(datagram, path, at)
    assert server.endpoint.counters.refused == refused + len(words)
    assert list(server.endpoint.transmits(at)) == []
    (dial,) = client.endpoint._context.live
    own = dial._initiator.local_cid  # type: ignore[union-attr]
    client.endpoint.receive(
        encode_pieces(Message(MessageType.AUTH_PROOF, own, dcid, filler(1168)), 1200)[0], dial.path, world.now
    )
    assert client.endpoint.counters.refused == 1

    world.taps.clear()
    world.run_until(dial.is_active, timeout=5.0)
    world.run(1.0)
    refused, packets = server.endpoint.counters.refused, peer.stats().packets_sent
    server.endpoint.receive(proof, back(dial.path), world.now)
    server.pump()
    assert (server.endpoint.counters.refused, peer.stats().packets_sent) == (refused + 1, packets)


def test_a_repetition_changes_nothing_else() -> None:
    """G-3: what is not authenticated asks for a packet, and that is all."""
    _, _, server, proof, peer = accepted()
    engines = peer._engines
    assert engines is not None

    def state() -> tuple[object, ...]:
        recovery = engines.path.recovery
        return peer.state, recovery.pto_count, recovery.deadline, engines.liveness.last_received, engines.counters

    before = copy.deepcopy(state())
    server.endpoint.receive(proof, peer.path, server.now + 0.5)
    assert state() == before
