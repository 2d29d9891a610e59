"""The packets of a session as far as keys and paths matter: limits of use, trains, addresses, refusals."""

from __future__ import annotations

import pytest
from attrs import evolve

from stt_proto import CloseReason, SessionState
from stt_proto.errors import (
    EncryptionError,
    SessionClosedError,
)
from stt_proto.events import (
    HandshakeFailed,
    SessionClosed,
    SessionEstablished,
)
from stt_proto.testing import Conditions, World
from stt_proto.wire import Ping
from tests.proto.worlds import Pair, assert_empty, back, dialled, filler, sealed, serve_echo, session_pair

HANDSHAKING, ESTABLISHED, CLOSED = SessionState.HANDSHAKING, SessionState.ESTABLISHED, SessionState.CLOSED


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_that_is_used_up() -> None:
    """P-11: sending stops, the session closes with 0x0402, and not even its last words are sealed."""
    pair = session_pair()
    sealer = pair.session._engines.sealer  # type: ignore[union-attr]
    sealer.limit = sealer.review_at = sealer.sealed
    pair.session.send_datagram(b"one too many", pair.now)
    pair.client.pump()
    assert isinstance(pair.session.close_error, EncryptionError)
    (closed,) = pair.client.events(SessionClosed)
    assert (closed.reason, closed.code) == (CloseReason.ERROR, 0x0402)
    pair.inject(Ping(), to=pair.session)  # would be answered otherwise (K-3)
    pair.settle(10.0)
    assert_empty(pair.client)


def test_too_many_packets_that_did_not_open() -> None:
    """P-11: after so many forgeries the session closes with 0x0402."""
    pair = session_pair()
    pair.session._engines.receiver._forgery_limit = 10  # type: ignore[union-attr]
    (genuine,) = sealed(pair.peer, Ping())
    for number in range(10):
        assert pair.session.is_active()
        forged = genuine[:-1] + bytes((genuine[-1] ^ number + 1,))
        pair.client.endpoint.receive(forged, pair.session.path, pair.now)
    assert isinstance(pair.session.close_error, EncryptionError)


def test_incomplete_trains_go_after_three_probe_timeouts() -> None:
    """P-9: 1 s before the first RTT sample, 3 PTO then."""
    pair = session_pair(conditions=Conditions(delay=0.02))
    stream = pair.session.open_stream()
    stream.write(b"a sample for the RTT", pair.now)
    pair.settle()
    engines = pair.session._engines
    assert engines is not None
    assert engines.path.recovery.rtt.samples
    train = sealed(pair.peer, filler(3000, "train").replace(b"\0", b"\1"), datagram_size=1200)
    pair.client.endpoint.receive(train[1], pair.session.path, pair.now)
    pair.client.pump()
    began, lifetime = pair.now, 3 * engines.path.recovery.pto
    assert lifetime < 1.0
    assert engines.receiver.deadline == pytest.approx(began + lifetime)
    pair.world.run(lifetime - 0.001)
    assert len(engines.receiver.trains) == 1
    pair.world.run(0.002)
    assert len(engines.receiver.trains) == 0
    assert pair.session.stats().receive_errors == 1


def test_incomplete_trains_before_the_first_sample() -> None:
    """P-9."""
    world, session = dialled()
    client, server = world.nodes["client", 1], world.nodes["server", 1]
    world.run_until(lambda: server.events(SessionEstablished))
    (peer,) = server.endpoint.sessions.values()
    world.links[server.address, client.address].up = False
    train = sealed(session, filler(3000, "train"), datagram_size=1200)
    server.endpoint.receive(train[0], peer.path, world.now)
    engines = peer._engines
    assert engines is not None
    assert engines.trains_deadline == world.now + 1.0


def test_nothing_is_left_of_trains_when_a_session_ends() -> None:
    """P-9: the endpoint's budget for trains gets everything back, whatever came afterwards."""
    pair = session_pair()
    train = sealed(pair.peer, filler(3000, "train"), datagram_size=1200)
    pair.client.endpoint.receive(train[0], pair.session.path, pair.now)
    assert pair.client.endpoint._context.train_budget.cost > 0
    pair.session.abort(pair.now)
    assert pair.client.endpoint._context.train_budget.cost == 0
    pair.client.endpoint.receive(train[1], pair.session.path, pair.now)
    pair.settle(5.0)
    assert_empty(pair.client, pair.server)


def test_packets_from_elsewhere() -> None:
    """C-1, P-9, M-3: a connection ID routes from any address; from one that has not answered no train is taken, and
    nothing goes there but a question, as long as what came allows for.
    """
    pair = session_pair()
    elsewhere = evolve(back(pair.session.path), remote=("nat", 99))
    engines = pair.peer._engines
    assert engines is not None
    received, sent = pair.peer.stats().packets_received, 0
    for datagram in sealed(pair.session, Ping()) + sealed(pair.session, Ping()):
        pair.server.endpoint.receive(datagram, elsewhere, pair.now)
        sent += len(datagram)
    assert pair.peer.stats().packets_received == received + 2
    for datagram in sealed(pair.session, filler(3000), datagram_size=1200):
        pair.server.endpoint.receive(datagram, elsewhere, pair.now)
    assert engines.receiver.counters.segments_refused == 3
    transmits = list(pair.server.endpoint.transmits(pair.now))
    assert [transmit.path for transmit in transmits] == [pair.peer.path, elsewhere, pair.peer.path]
    assert transmits[1].size <= 3 * sent


def test_a_failed_handshake_is_no_session() -> None:
    """H-29: a peer that `admit` refuses learns why; the acceptor never had a session."""
    world = World(1)
    asked: list[tuple[bytes, float]] = []

    def admit(peer_node_id: bytes, path: object, now: float) -> int | None:
        asked.append((peer_node_id, now))
        return 0x1234

    client, server = world.node("client"), world.node("server", admit=admit)
    session = client.connect(server)
    world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, SessionClosedError)
    assert session.close_error.code == 0x1234
    assert asked == [(client.config.identity.node_id, pytest.approx(0.03))]
    assert [type(event) for _, _, event in server.log] == [HandshakeFailed]
    assert client.events(SessionEstablished) == []
    world.run(3.0)
    assert_empty(client, server)


def pairs() -> list[Pair]:
    return [session_pair(), session_pair(carrier="memory"), session_pair(client={"suites": (2,)})]


@pytest.mark.parametrize("index", range(3))
def test_every_kind_of_session_echoes(index: int) -> None:
    """W-8, E1, E4: both suites, a carrier that loses and one that does not."""
    pair = pairs()[index]
    serve_echo(pair.server)
    stream = pair.session.open_stream()
    stream.write(b"hello", pair.now)
    pair.settle()
    assert stream.read(100, pair.now) == b"hello"
