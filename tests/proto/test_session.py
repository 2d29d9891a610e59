"""A session from the first message to the last: its life, its commands, its signs of life, its figures."""

from __future__ import annotations

from math import inf

import pytest
from attrs import evolve

from stt_proto import CloseReason, HandshakeStep, Session, SessionState
from stt_proto.errors import (
    ArgumentError,
    ConnectionTimeoutError,
    SessionClosedError,
    SessionTimeoutError,
    StateError,
)
from stt_proto.events import (
    HandshakeProgressed,
    KeepAliveMissed,
    KeepAliveSent,
    PathLost,
    SessionClosed,
    SessionDetached,
    SessionEstablished,
    SessionStateChanged,
    StreamOpened,
    TicketReceived,
)
from stt_proto.testing import Conditions, World
from stt_proto.wire import Confirm, Padding, SessionClose
from tests.proto.worlds import assert_empty, dialled, filler, sealed, serve_echo, session_pair

HANDSHAKING, ESTABLISHED, CLOSED = SessionState.HANDSHAKING, SessionState.ESTABLISHED, SessionState.CLOSED

# -- beginning -----------------------------------------------------------------------------------------------------


def test_both_sides_see_the_same_session() -> None:
    """B1, B2, C1: four steps, each an event; one id; each knows who the other is."""
    pair = session_pair()
    steps = [HandshakeProgressed(step) for step in list(HandshakeStep)[:4]]
    assert pair.client.events(HandshakeProgressed) == steps
    assert pair.server.events(HandshakeProgressed) == steps
    one, other = pair.session, pair.peer
    assert one.session_id == other.session_id
    assert len(one.session_id) == 8
    assert one.peer_node_id == pair.server.config.identity.node_id
    assert other.peer_node_id == pair.client.config.identity.node_id
    assert (one.initiator, other.initiator) == (True, False)
    assert pair.client.events(SessionEstablished) == [SessionEstablished(one.session_id, one.peer_node_id)]
    assert pair.server.events(SessionEstablished) == [SessionEstablished(one.session_id, other.peer_node_id)]
    assert one.is_active()
    assert not one.is_closed
    assert one.close_reason is None
    assert one.key_version == 0


def test_events_come_in_the_order_of_what_happened() -> None:
    """DESIGN 3, "Events"."""
    pair = session_pair()
    kinds, ticket = [event for _, _, event in pair.client.log], pair.session.ticket
    assert ticket is not None
    assert kinds == [
        SessionStateChanged(SessionState.INIT, HANDSHAKING),
        *[HandshakeProgressed(step) for step in list(HandshakeStep)[:4]],
        SessionStateChanged(HANDSHAKING, ESTABLISHED),
        SessionEstablished(pair.session.session_id, pair.session.peer_node_id),
        TicketReceived(ticket, ticket.expires_at),
    ]


def test_before_there_are_keys() -> None:
    """What needs keys is refused; what can be said is said."""
    world, session = dialled()
    assert session.state is HANDSHAKING
    with pytest.raises(StateError):
        session.open_stream()
    with pytest.raises(StateError):
        session.send_datagram(b"x", world.now)
    with pytest.raises(StateError):
        session.export_keying_material("label", 32)
    assert session.stream(0) is None
    assert session.receive_datagram() is None
    assert session.max_datagram_size == 0
    assert session.capabilities == frozenset()
    assert session.last_active == session.last_key_rotation == session.created_at == world.unix_time
    stats = session.stats()
    assert (stats.session_id, stats.peer_node_id, stats.state) == (b"", b"", HANDSHAKING)
    assert (stats.bytes_sent, stats.rtt, stats.loss_rate) == (0, None, 0.0)
    assert repr(session) == "<Session ? handshaking with ?>"


def test_data_may_follow_auth_proof_at_once() -> None:
    """Section 4: the initiator has the keys half a round trip before it knows that the responder has."""
    world, session = dialled()
    world.run_until(lambda: session.max_datagram_size)
    assert session.state is HANDSHAKING
    stream = session.open_stream(purpose="early")
    stream.write(b"first words", world.now)
    client, server = world.nodes["client", 1], world.nodes["server", 1]
    client.pump()
    world.run_until(lambda: server.events(StreamOpened))
    assert world.now == pytest.approx(0.03)
    (peer,) = server.endpoint.sessions.values()
    heard = peer.stream(stream.stream_id)
    assert heard is not None
    assert heard.read(100, world.now) == b"first words"
    assert session.state is HANDSHAKING  # it will hear in half a round trip


def test_the_deadline_of_a_dial_does_not_go_round_in_circles() -> None:
    """Signs of life are only looked for once the session is established: before, the handshake has timers enough."""
    world = World(3)
    client = world.node("client", keep_alive_interval=0.05, keep_alive_timeout=0.2, handshake_timeout=5.0)
    server = world.node("server")
    there, _ = world.link(client, server, Conditions())
    session = client.connect(server)
    there.up = False  # behind HELLO: AUTH_PROOF is lost for ever
    world.run_until(lambda: session.is_closed)
    assert session.session_id
    assert isinstance(session.close_error, ConnectionTimeoutError)
    assert world.now == pytest.approx(5.0)
    assert client.events(KeepAliveSent) == []


# -- not beginning -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_dial_given_up_before_there_are_keys(how: str) -> None:
    """K-6: it ends at once, and nothing more is sent for it."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.endpoint.connect(client.path_to(server), now=0.0)
    getattr(session, how)(0.0)
    client.pump()
    assert session.is_closed
    assert world.links == {}, "HELLO was sent for a dial that was given up"
    assert_empty(client)
    (closed,) = client.events(SessionClosed)
    assert closed.reason is (CloseReason.GRACEFUL if how == "close" else CloseReason.ERROR)


@pytest.mark.parametrize("how", ["close", "abort"])
def test_a_dial_given_up_in_its_last_moment(how: str) -> None:
    """The responder can have become a session meanwhile: it is told, behind AUTH_PROOF."""
    world, session = dialled()
    client, server = world.nodes["client", 1], world.nodes["server", 1]
    world.run_until(lambda: session.max_datagram_size)
    getattr(session, how)(world.now)
    client.pump()
    assert session.is_closed
    world.run(2.0)
    (closed,) = server.events(SessionClosed)
    assert closed.by_peer
    assert closed.reason is (CloseReason.GRACEFUL if how == "close" else CloseReason.ERROR)
    assert_empty(client, server)


def test_a_dial_that_runs_out_of_time_tells_the_peer() -> None:
    """K-6: the responder, which had become a session, does not wait for its idle timeout."""
    world, session = dialled(handshake_timeout=3.0)
    client, server = world.nodes["client", 1], world.nodes["server", 1]
    world.run_until(lambda: session.max_datagram_size)
    world.links[server.address, client.address].up = False
    world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, ConnectionTimeoutError)
    assert session.close_reason is CloseReason.TIMEOUT
    world.run(1.0)
    (closed,) = server.events(SessionClosed)
    assert (closed.reason, closed.code, closed.by_peer) == (CloseReason.TIMEOUT, 0x0202, True)


def test_nobody_is_there() -> None:
    """H-18, A11: `ConnectionTimeoutError` when the handshake timeout is over."""
    world = World(1)
    client, server = world.node("client", handshake_timeout=4.0), world.node("server")
    there, _ = world.link(client, server, Conditions(loss=1.0))
    session = client.connect(server)
    world.run_until(lambda: session.is_closed)
    assert world.now == pytest.approx(4.0)
    assert isinstance(session.close_error, ConnectionTimeoutError)
    assert there.traffic.sent >= 5
    (closed,) = client.events(SessionClosed)
    assert (closed.reason, closed.code, closed.by_peer) == (CloseReason.TIMEOUT, 0x0101, False)
    assert_empty(client, server)


def test_closed_in_the_same_breath() -> None:
    """K-2: a peer that accepts, speaks and closes is heard: the session was, and what came can be read."""
    pair_world = World(5)
    client, server = pair_world.node("client"), pair_world.node("server")
    session = client.connect(server)

    def accept(peer: Session | None, event: object) -> None:
        if isinstance(event, SessionEstablished):
            assert peer is not None
            stream = peer.open_stream()
            stream.write(b"sorry, lunch", pair_world.now)
            stream.finish(pair_world.now)
            peer.close(pair_world.now, detail="lunch")

    server.on_event = accept
    pair_world.run_until(lambda: session.is_closed)
    assert len(client.events(SessionEstablished)) == 1
    (closed,) = client.events(SessionClosed)
    assert (closed.reason, closed.code, closed.detail, closed.by_peer) == (CloseReason.GRACEFUL, 0, "lunch", True)
    (opened,) = client.events(StreamOpened)
    stream = session.stream(opened.stream_id)
    assert stream is not None
    assert stream.read(100, pair_world.now) == b"sorry, lunch"


def test_a_close_that_arrives_with_the_first_packets() -> None:
    """K-2, 11: CONFIRM and SESSION_CLOSE in one run: established, then closed; never one without the other."""
    world = World(5)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run_until(lambda: server.events(SessionEstablished))
    (peer,) = server.endpoint.sessions.values()
    held: list[bytes] = []
    world.taps.append(lambda datagram, path: held.append(datagram) if path.local == server.address else datagram)
    peer.close(world.now)
    server.pump()
    server.world.run(0.001)
    close = SessionClose(0, CloseReason.GRACEFUL, "bye")
    run = sealed(peer, Confirm(), Padding(len(close.encode()) - 1)) + sealed(peer, close)
    assert len(run[0]) == len(run[1])
    client.endpoint.receive(b"".join(run), session.path, world.now, segment_size=len(run[0]))
    client.pump()
    assert len(client.events(SessionEstablished)) == 1
    assert session.close_reason is CloseReason.GRACEFUL


def test_a_close_before_anything_else_keeps_its_reason() -> None:
    """K-2: what is no refusal has the reason of its frame, also when it is the first packet that opens."""
    world = World(5)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)

    def hang_up(peer: Session | None, event: object) -> None:
        if isinstance(event, SessionEstablished):
            assert peer is not None
            peer.close(world.now, detail="not today")

    server.on_event = hang_up
    # What the pump sent before it delivered the event, CONFIRM among it, is lost.
    world.taps.append(lambda datagram, _: datagram if datagram[0] & 0x80 or server.events(SessionEstablished) else None)
    world.run_until(lambda: session.is_closed)
    assert isinstance(session.close_error, SessionClosedError)
    assert session.close_reason is CloseReason.GRACEFUL
    assert session.close_error.message == "not today"
    assert client.events(SessionEstablished) == []
    world.run(1.0)
    assert_empty(client, server)


def test_two_sessions_never_have_one_id() -> None:
    """H-9: a session id that is live already is refused, by the initiator too."""
    world, session = dialled()
    client = world.nodes["client", 1]
    twin = client.connect(world.nodes["server", 1])
    world.run_until(lambda: session.max_datagram_size)
    client.endpoint._context.sessions[session.session_id] = twin
    world.run_until(lambda: session.is_closed)
    assert session.close_error is not None
    assert "live" in session.close_error.message
    assert session not in client.endpoint.sessions.values()


# -- what both sides can derive, and nobody else ------------------------------------------------------------------


def test_exporter() -> None:
    """H-8: equal on both sides, another for each label, length and session; it outlives the session."""
    pair = session_pair()
    keys = [session.export_keying_material("label", 32) for session in (pair.session, pair.peer)]
    assert keys[0] == keys[1]
    others = [
        pair.session.export_keying_material("other", 32),
        pair.session.export_keying_material("label", 33)[:32],
        session_pair(2).session.export_keying_material("label", 32),
    ]
    assert len({keys[0], *others}) == 4
    assert len(pair.session.export_keying_material("é" * 127, 8160)) == 8160
    pair.session.abort(pair.now)
    assert pair.session.export_keying_material("label", 32) == keys[0]


@pytest.mark.parametrize("label", ["é" * 128, b"bytes", None, "\ud800"])
def test_exporter_labels(label: object) -> None:
    """H-8: text of at most 255 bytes."""
    with pytest.raises(ArgumentError) as caught:
        session_pair().session.export_keying_material(label, 32)  # type: ignore[arg-type]
    assert caught.value.argument == "label"


@pytest.mark.parametrize("length", [0, -1, 8161, 32.0, True, None])
def test_exporter_lengths(length: object) -> None:
    """H-8: 1 to 8,160 bytes."""
    with pytest.raises(ArgumentError) as caught:
        session_pair().session.export_keying_material("label", length)  # type: ignore[arg-type]
    assert caught.value.argument == "length"


# -- signs of life -------------------------------------------------------------------------------------------------


def test_an_idle_session_lives_on() -> None:
    """K-4, C5: the initiator asks every 10 s and is answered; the responder never has to."""
    pair = session_pair()
    sent = pair.world.datagrams
    pair.world.run(600.0)
    assert pair.session.is_active()
    assert pair.peer.is_active()
    assert 55 <= len(pair.client.events(KeepAliveSent)) <= 60
    assert pair.server.events(KeepAliveSent) == []
    assert pair.client.events(KeepAliveMissed) == []
    assert pair.world.datagrams - sent <= 60 * 3


def test_a_busy_session_asks_for_nothing() -> None:
    """K-4: only silence makes anybody ask."""
    pair = session_pair()
    for _ in range(30):
        pair.session.send_datagram(b"tick", pair.now)
        pair.settle(2.0)
    assert pair.client.events(KeepAliveSent) == pair.server.events(KeepAliveSent) == []


def test_a_dead_peer_is_noticed() -> None:
    """K-4, K-5, M-9, C5: asked after 10 s and 20 s, given up after 30 s; both sides find out by themselves."""
    pair = session_pair(client={"detach_timeout": 5.0}, server={"detach_timeout": 5.0})
    heard = dict.fromkeys((pair.client, pair.server), pair.now)
    for link in pair.world.links.values():
        link.up = False
    heard[pair.client] = pair.session.last_active - pair.world.unix_time
    heard[pair.server] = pair.peer.last_active - pair.world.unix_time
    pair.world.run(40.0)
    for node, first in ((pair.client, 10.0), (pair.server, 12.0)):
        moments = [(round(at - heard[node], 3), type(event)) for at, _, event in node.log if at > heard[node] + 1]
        assert moments == [
            (first, KeepAliveSent),
            (first + 10, KeepAliveMissed),
            (first + 10, KeepAliveSent),
            (30.0, PathLost),
            (30.0, SessionDetached),
            (35.0, SessionStateChanged),
            (35.0, SessionClosed),
        ]
        (missed,) = node.events(KeepAliveMissed)
        assert missed.silent_for == pytest.approx(first + 10)
        (closed,) = node.events(SessionClosed)
        assert (closed.reason, closed.code, closed.by_peer) == (CloseReason.TIMEOUT, 0x0202, False)
    assert isinstance(pair.session.close_error, SessionTimeoutError)
    with pytest.raises(TimeoutError):
        pair.session.open_stream()
    pair.world.run(10.0)
    assert_empty(pair.client, pair.server)


def test_the_peer_is_asked_often_enough_for_its_own_timeout() -> None:
    """K-4: the interval is at most a third of the peer's idle_timeout."""
    pair = session_pair(server={"keep_alive_interval": 1.0, "keep_alive_timeout": 3.0})
    for link in pair.world.links.values():
        link.up = False
    heard = pair.session.last_active - pair.world.unix_time
    pair.world.run(1.5)
    assert next(at for at, _, event in pair.client.log if isinstance(event, KeepAliveSent)) == pytest.approx(heard + 1)


def test_a_late_tick_kills_nobody() -> None:
    """R-10: this process slept for a minute; the peer answers, and the session goes on."""
    pair = session_pair()
    now = pair.now + 60.0
    pair.client.endpoint.tick(now)
    assert pair.session.is_active()
    assert [event for _, event in pair.client.endpoint.events()] == [KeepAliveSent()]
    (asked,) = pair.client.endpoint.transmits(now)
    for datagram in asked.datagrams():
        pair.server.endpoint.receive(datagram, pair.peer.path, now)
    answers = [datagram for transmit in pair.server.endpoint.transmits(now) for datagram in transmit.datagrams()]
    pair.client.endpoint.receive(answers[0], pair.session.path, now + 0.02)
    pair.client.endpoint.tick(now + 3.0)
    assert pair.session.is_active()


def test_a_late_tick_gives_two_seconds() -> None:
    """R-10: and no more."""
    pair = session_pair(client={"detach_timeout": 0.0})
    now = pair.now + 60.0
    pair.client.endpoint.tick(now)
    pair.client.endpoint.tick(now + 1.9)
    assert pair.session.is_active()
    pair.client.endpoint.tick(now + 2.1)
    assert pair.session.close_reason is CloseReason.TIMEOUT


# -- time ----------------------------------------------------------------------------------------------------------


def test_commands_know_no_time_before_the_last() -> None:
    """DESIGN 3, "Time": a `now` smaller than the last counts as the last, in every command."""
    pair = session_pair()
    stream = pair.session.open_stream()
    stream.write(b"x" * 5000, -inf)
    pair.session.close(-100.0)
    assert pair.session.deadline().at > 0
    pair.peer.abort(-100.0)
    assert pair.peer.deadline().at > 0
    pair.settle()
    assert pair.session.is_closed


def test_ticks_are_idempotent() -> None:
    """DESIGN 3: a second tick at one moment changes nothing, at any moment of a lossy transfer."""
    conditions = Conditions(delay=0.02, loss=0.2, reorder=0.1)
    twice, once = session_pair(4, conditions), session_pair(4, conditions)
    for pair in (twice, once):
        serve_echo(pair.server)
        stream = pair.session.open_stream()
        stream.write(filler(60_000), pair.now)
        stream.finish(pair.now)
        pair.client.pump()
    for _ in range(400):
        for pair in (twice, once):
            pair.world.run(0.005)
        for node in (twice.client, twice.server):
            node.endpoint.tick(twice.now)
            node.endpoint.tick(twice.now)
    assert twice.world.datagrams == once.world.datagrams
    assert evolve(twice.session.stats(), uptime=0.0) == evolve(once.session.stats(), uptime=0.0)


def test_pacing_never_spins() -> None:
    """A packet that the pacer held back and that nobody wants to send any more arms no timer."""
    pair = session_pair(6, Conditions(delay=0.05))
    stream = pair.session.open_stream()
    stream.write(filler(300_000), pair.now)
    pair.settle(3.0)
    stream.write(filler(300_000), pair.now)
    pair.client.pump()
    outbound = pair.session._outbound
    assert outbound.paced_until > pair.now
    assert pair.session.deadline().reason == "pacing"
    stream.reset(0, pair.now)
    pair.session._engines.control.ready.clear()  # type: ignore[union-attr]
    pair.session._engines.streams.control_ready.clear()  # type: ignore[union-attr]
    pair.client.pump()
    assert outbound.paced_until == inf
    pair.world.run(5.0)


# -- figures -------------------------------------------------------------------------------------------------------


def test_stats() -> None:
    """C3: true without anybody recording anything; looking changes nothing."""
    pair = session_pair(conditions=Conditions(delay=0.03))
    serve_echo(pair.server)
    before = pair.session.stats()
    stream = pair.session.open_stream()
    data = filler(50_000)
    stream.write(data, pair.now)
    stream.finish(pair.now)
    pair.settle(3.0)
    received = 0
    while piece := stream.read(65_536, pair.now):
        received += len(piece)
    stats = pair.session.stats()
    assert stats == pair.session.stats()
    assert stats.session_id == pair.session.session_id
    assert stats.peer_node_id == pair.session.peer_node_id
    assert stats.state is ESTABLISHED
    assert stats.created_at == pair.world.unix_time
    assert stats.uptime == pytest.approx(pair.now)
    assert stats.stream_bytes_sent == stats.stream_bytes_received == received == 50_000
    assert stats.bytes_sent - before.bytes_sent > 50_000
    assert stats.bytes_received - before.bytes_received > 50_000
    assert stats.rtt == pytest.approx(0.06, rel=0.6)
    assert stats.min_rtt == pytest.approx(0.06, rel=0.05)
    assert (stats.packets_lost, stats.loss_rate, stats.send_errors, stats.receive_errors) == (0, 0.0, 0, 0)
    assert stats.bytes_in_flight == 0
    assert stats.congestion_window >= 14_720
    theirs = pair.peer.stats()
    assert theirs.packets_received == stats.packets_sent
    assert theirs.packets_sent == stats.packets_received
    assert theirs.bytes_received == stats.bytes_sent
    assert stats.datagrams_sent == stats.packets_sent


def test_stats_count_what_was_lost_and_dropped() -> None:
    """C3: loss as the sender sees it, and datagrams that gave no packet as the receiver does."""
    pair = session_pair(7, Conditions(loss=0.1, corrupt=0.05))
    serve_echo(pair.server)
    stream = pair.session.open_stream()
    stream.write(filler(200_000), pair.now)
    stream.finish(pair.now)
    pair.client.on_event = lambda session, event: stream.read(65_536, pair.now) and None
    pair.settle(60.0)
    stats = pair.session.stats()
    assert 0.02 < stats.loss_rate < 0.4
    assert stats.packets_lost > 0
    assert pair.peer.stats().receive_errors > 0


def test_wall_clock() -> None:
    """C1: `created_at` and `last_active` are seconds since 1970, and follow a correction of the wall clock."""
    pair = session_pair()
    assert pair.session.created_at == pair.world.unix_time
    pair.world.run(4.0)
    assert pair.session.last_active < pair.world.unix_time + pair.now - 3
    pair.peer.send_datagram(b"here", pair.now)
    pair.settle(0.5)
    assert pair.session.last_active == pytest.approx(pair.world.unix_time + pair.now - 0.49, abs=0.02)
    pair.client.endpoint.set_unix_time(3e9, pair.now)
    assert pair.session.last_active == pytest.approx(3e9, abs=1.0)
    assert pair.session.created_at == pair.world.unix_time


def test_capabilities() -> None:
    """C1, P-16: what the peer announced, whatever the carrier."""
    always = {"priorities", "expiry", "rotation"}
    assert session_pair().session.capabilities == {"datagrams", "trains"} | always
    assert session_pair(carrier="memory").session.capabilities == {"datagrams", "trains"} | always
    assert session_pair(server={"max_datagram_size": 0}).session.capabilities == {"trains"} | always
    assert session_pair(server={"max_datagram_size": 0}).peer.capabilities == {"datagrams", "trains"} | always


def test_repr() -> None:
    session = session_pair().session
    assert repr(session).startswith(f"<Session {session.session_id.hex()} established with ")
    assert not hasattr(session, "__dict__")
    session.metadata["name"] = "mine"
    session.host = object()
