"""An endpoint and its manager of sessions in step: taken in, used, expired, let go of, refused, drained (G, H)."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define

from stt_proto import Session
from stt_proto.errors import (
    ConnectionRefusedError,
    SessionClosedError,
    SessionExpiredError,
    SessionTimeoutError,
    ShuttingDownError,
    TooManySessionsError,
)
from stt_proto.events import (
    HandshakeFailed,
    SessionClosed,
    SessionEstablished,
    StreamOpened,
)
from stt_proto.manager import EndReason, ManagerLimits, SessionConfig, SessionManager, SessionRecord
from stt_proto.testing import Node, World, held
from stt_proto.types import SessionState
from tests.proto.worlds import lone_endpoint

RTT = 1.0
"""Seconds that are more than what these worlds take to bring anything anywhere and back."""
EXPIRED, SHUTDOWN = SessionExpiredError.code, ShuttingDownError.code


def manager_of(world: World, limits: dict[str, Any] | None = None, **config: Any) -> SessionManager:
    """A manager for a node of this world."""
    return SessionManager(
        world.now,
        world.unix_time + world.now,
        defaults=SessionConfig(**config),
        limits=ManagerLimits(**(limits or {})),
    )


@define
class Stage:
    """A client without a manager and a server with one, and their session."""

    world: World
    client: Node
    server: Node
    books: SessionManager
    ours: Session
    theirs: Session

    @property
    def session_id(self) -> bytes:
        return self.ours.session_id

    @property
    def record(self) -> SessionRecord:
        record = self.books.inspect(self.session_id, self.world.now)
        assert record is not None
        return record

    def pump(self) -> None:
        self.client.pump()
        self.server.pump()

    def settle(self) -> None:
        """Do what is to be done after a call on the manager, and let it come to the peer."""
        self.server.endpoint.settle(self.world.now)
        self.pump()
        self.world.run(RTT)

    def exchange(self, seconds: float = 0.0) -> None:
        """Open a stream, say something, and end it on both sides after so long."""
        stream = self.ours.open_stream()
        stream.write(b"hello", self.world.now)
        self.pump()
        self.world.run(seconds)
        peer = self.theirs.stream(stream.stream_id)
        if peer is None:
            self.world.run_until(lambda: self.theirs.stream(stream.stream_id))
            peer = self.theirs.stream(stream.stream_id)
        assert peer is not None
        now = self.world.now
        stream.finish(now)
        peer.read(100, now)
        peer.finish(now)
        self.pump()
        self.world.run_until(lambda: peer.at_eof or not peer.read(100, self.world.now))
        self.world.run_until(lambda: not self.theirs.open_streams or peer.read(100, self.world.now))
        stream.read(100, self.world.now)
        self.pump()

    def run_until_over(self) -> float:
        """Let time pass until the server's end is over; give the time of that."""
        self.world.run_until(lambda: self.theirs.state is not SessionState.ESTABLISHED, 10_000.0)
        return self.world.now

    def ends(self) -> list[tuple[str, int]]:
        """How it ended for the client, and for the server."""
        self.world.run(RTT)
        return [(str(event.reason), event.code) for node in (self.client, self.server) for event in ended(node)]


def ended(node: Node) -> list[SessionClosed]:
    events: list[SessionClosed] = node.events(SessionClosed)
    return events


def staged(
    limits: dict[str, Any] | None = None, node: dict[str, Any] | None = None, *, run: float = RTT, **config: Any
) -> Stage:
    world = World(1)
    books = manager_of(world, limits, **config)
    client, server = world.node("client"), world.node("server", manager=books, **(node or {}))
    ours = client.connect(server)
    world.run_until(lambda: server.sessions)
    (theirs,) = server.sessions
    world.run(run)
    return Stage(world, client, server, books, ours, theirs)


# -- in and out ----------------------------------------------------------------------------------------------------


def test_a_session_is_a_record_from_its_first_moment_to_its_last() -> None:
    """F, H5: on both sides, under one id; the reason is the one that both sides have."""
    world = World(1)
    managers = [manager_of(world), manager_of(world)]
    client, server = world.node("client", manager=managers[0]), world.node("server", manager=managers[1])
    session = client.connect(server)
    world.run_until(lambda: client.sessions and server.sessions)
    for manager, node in zip(managers, (server, client), strict=True):
        (record,) = manager.get_active_sessions(world.now)
        assert (record.session_id, record.peer_node_id) == (session.session_id, node.config.identity.node_id)
        assert record.namespace == ""
    session.close(world.now)
    client.pump()
    world.run(RTT)
    for manager in managers:
        inspected = manager.inspect(session.session_id, world.now)
        assert inspected is not None
        assert (inspected.state, inspected.close_reason) == (SessionState.CLOSED, EndReason.GRACEFUL)
        assert manager.metrics(world.now).ended[EndReason.GRACEFUL] == 1


@pytest.mark.parametrize("reason", ["timeout", "error", "auth_failure"])
def test_how_it_ended_is_in_the_record(reason: str) -> None:
    stage = staged()
    stage.ours.close(stage.world.now, reason)
    stage.pump()
    stage.world.run(RTT)
    assert stage.record.close_reason == reason


def test_a_node_that_calls_itself_has_one_record_for_both_ends() -> None:
    """Both ends have one id: the one that accepted has the record."""
    world = World(1)
    books = manager_of(world)
    node = world.node("alone", manager=books, allow_self=True)
    session = node.connect(node)
    world.run_until(session.is_active)
    world.run(RTT)
    assert books.get_session_count(world.now) == 1
    session.close(world.now)
    node.pump()
    world.run(RTT)
    assert books.get_stats(world.now).closed == 1
    assert len(ended(node)) == 2


def test_the_wall_clock_is_that_of_the_manager() -> None:
    stage = staged()
    before = stage.record.created_at
    stage.server.endpoint.set_unix_time(before + 1000.0 + stage.world.now, stage.world.now)
    assert stage.record.created_at == pytest.approx(before + 1000.0 + stage.world.now - RTT, abs=RTT)


def test_without_a_manager_there_is_nothing_to_settle() -> None:
    endpoint = lone_endpoint()
    endpoint.settle(5.0)
    assert endpoint.next_deadline() is None
    endpoint.set_unix_time(1.8e9, 5.0)


# -- lifetimes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sliding", [True, False])
def test_expiry_is_exact_and_both_sides_know_why(sliding: bool) -> None:
    """G1, G5, S2, K-9: at the very moment, with the reason `timeout` and the code 0x0206 on both sides."""
    stage = staged(ttl=60.0, sliding=sliding)
    expires = stage.record.expires_at - stage.world.unix_time
    assert stage.run_until_over() == pytest.approx(expires, abs=1e-6)
    assert stage.ends() == [("timeout", EXPIRED), ("timeout", EXPIRED)]
    assert stage.record.close_reason is EndReason.EXPIRED
    with pytest.raises(SessionTimeoutError) as caught:
        stage.ours.open_stream()
    assert caught.value.code == EXPIRED
    with pytest.raises(SessionExpiredError):
        stage.books.extend(stage.session_id, 60.0, stage.world.now)
    stage.world.assert_idle()


def test_the_manager_of_the_peer_learns_that_it_expired() -> None:
    """H5: a session that its peer let expire has expired, and did not time out."""
    world = World(1)
    patient, hasty = manager_of(world), manager_of(world, ttl=5.0)
    client, server = world.node("client", manager=patient), world.node("server", manager=hasty)
    session = client.connect(server)
    world.run_until(lambda: ended(client))
    record = patient.inspect(session.session_id, world.now)
    assert record is not None
    assert record.close_reason is EndReason.EXPIRED


def test_the_manager_of_the_peer_learns_of_a_stop() -> None:
    """H5, H6."""
    world = World(1)
    patient, leaving = manager_of(world), manager_of(world)
    client, server = world.node("client", manager=patient), world.node("server", manager=leaving)
    session = client.connect(server)
    world.run(RTT)
    leaving.drain(world.now, 0.0)
    server.endpoint.settle(world.now)
    server.pump()
    world.run(RTT)
    assert patient.metrics(world.now).ended[EndReason.SHUTDOWN] == 1
    assert session.is_closed


def test_a_record_that_is_no_session_of_the_endpoint() -> None:
    """Whoever puts one into the manager himself closes it himself."""
    stage = staged()
    books, now = stage.books, stage.world.now
    books.create_session(bytes(8), bytes(32), now, use=stage.theirs)
    stage.ours.open_stream().write(b"x", now)
    stage.pump()
    stage.world.run(RTT)
    books.close_session(bytes(8), stage.world.now)
    books.create_session(bytes([7] * 8), bytes(32), stage.world.now)
    books.close_session(bytes([7] * 8), stage.world.now)
    stage.settle()
    assert stage.theirs.is_active()
    assert books.get_stats(stage.world.now).closing == 1


def test_signs_of_life_are_no_use() -> None:
    """G2: a session that is only kept alive expires; its age counts from its beginning."""
    stage = staged(node={"keep_alive_interval": 1.0}, ttl=30.0)
    began = stage.record.created_at - stage.world.unix_time
    assert stage.run_until_over() == pytest.approx(began + 30.0, abs=1e-6)
    assert stage.theirs.last_active - stage.world.unix_time > began + 25.0


def test_each_use_begins_the_time_anew() -> None:
    """G2: a stream, from when it is opened to when it is over; a datagram and a frame, either way."""
    stage = staged(node={"extension_frames": frozenset({0x80})}, ttl=10.0)
    stage.world.run(8.0)
    stage.exchange()
    used = stage.theirs.last_used
    assert used == pytest.approx(stage.world.now, abs=RTT)
    for use in (
        lambda: stage.ours.send_datagram(b"x", stage.world.now),
        lambda: stage.theirs.send_datagram(b"x", stage.world.now),
        lambda: stage.ours.send_frame(0x80, b"x", stage.world.now),
    ):
        stage.world.run(8.0)
        use()
        stage.pump()
        stage.world.run(0.5)
        assert stage.theirs.last_used > used + 7.0
        used = stage.theirs.last_used
    assert stage.run_until_over() == pytest.approx(used + 10.0, abs=1e-6)


def test_a_frame_that_is_sent_is_a_use() -> None:
    """G2."""
    world = World(1)
    books = manager_of(world, ttl=10.0)
    client = world.node("client", extension_frames=frozenset({0x80}))
    server = world.node("server", manager=books)
    client.connect(server)
    world.run_until(lambda: server.sessions)
    (session,) = server.sessions
    world.run(5.0)
    now = world.now
    session.send_frame(0x80, b"x", now)
    server.pump()
    assert session.last_used == now


def test_use_does_not_lengthen_what_is_absolute() -> None:
    """G2."""
    stage = staged(ttl=10.0, sliding=False)
    stage.world.run(5.0)
    stage.exchange()
    began = stage.record.created_at - stage.world.unix_time
    assert stage.run_until_over() == pytest.approx(began + 10.0, abs=1e-6)


def test_extended() -> None:
    """G4, S4."""
    stage = staged(ttl=10.0)
    now = stage.world.now
    assert stage.books.extend(stage.session_id, 100.0, now) == 100.0
    assert stage.run_until_over() == pytest.approx(now + 100.0, abs=1e-6)


def test_a_shorter_life_counts_at_once() -> None:
    """G6: the timer of the host is set to it."""
    stage = staged()
    stage.world.run(20.0)
    stage.books.update_config(stage.session_id, {"ttl": 30.0}, stage.world.now)
    stage.server.endpoint.settle(stage.world.now)
    assert not stage.server.endpoint.is_idle
    stage.server.pump()
    assert stage.server.endpoint.is_idle
    expires = stage.record.expires_at - stage.world.unix_time
    assert stage.run_until_over() == pytest.approx(expires, abs=1e-6)
    assert expires < 32.0


def test_nothing_that_comes_too_late_revives_it() -> None:
    """G5, S11, K-9: not a packet that is taken in before the timer was, nor what the application sends then."""
    stage = staged(ttl=10.0)
    late = stage.record.expires_at - stage.world.unix_time + 1e-6
    stage.ours.open_stream().write(b"too late", late)
    (datagram,) = [each for transmit in stage.client.endpoint.transmits(late) for each in transmit.datagrams()]
    stage.server.endpoint.receive(datagram, stage.theirs.path, late)
    events = [event for session, event in stage.server.endpoint.events() if session is stage.theirs]
    assert not any(isinstance(event, StreamOpened) for event in events)
    assert stage.theirs.state is not SessionState.ESTABLISHED
    assert stage.record.close_reason is EndReason.EXPIRED


def test_nothing_leaves_on_a_session_that_has_expired() -> None:
    """G5, K-9: what a host asks for next, whatever that is, comes after the expiry."""
    stage = staged(ttl=10.0)
    late = stage.record.expires_at - stage.world.unix_time + 1e-6
    stage.server.endpoint.next_transmit(late)
    assert stage.theirs.state is SessionState.CLOSING


# -- in the middle of work -----------------------------------------------------------------------------------------


def test_an_open_stream_holds_it_and_nothing_new_begins() -> None:
    """H1, H2, S5, K-9: over when the last stream is; commands say so, streams of the peer are refused."""
    stage = staged(ttl=10.0, sliding=False)
    world = stage.world
    stream = stage.ours.open_stream()
    stream.write(b"long", world.now)
    stage.pump()
    world.run(20.0)
    assert (stage.record.state, stage.record.streams) == (SessionState.CLOSING, 1)
    assert stage.theirs.is_active()
    for command in (
        stage.theirs.open_stream,
        lambda: stage.theirs.send_datagram(b"x", world.now),
        lambda: stage.theirs.send_frame(0x80, b"x", world.now),
    ):
        with pytest.raises(SessionExpiredError):
            command()

    for bidirectional in (True, False):
        late = stage.ours.open_stream(bidirectional=bidirectional)
        late.write(b"more", world.now)
        stage.pump()
        world.run(RTT)
        assert not any(event.stream_id == late.stream_id for event in stage.server.events(StreamOpened))
        with pytest.raises(Exception, match="stopped") as caught:
            late.write(b"more", world.now)
        assert getattr(caught.value, "stream_code", None) == EXPIRED

    peer = stage.theirs.stream(stream.stream_id)
    assert peer is not None
    assert peer.read(100, world.now) == b"long"  # what is being done goes on
    peer.write(b"answer", world.now)
    peer.finish(world.now)
    stream.finish(world.now)
    stage.pump()
    world.run(RTT)
    assert stage.ours.is_active()
    assert stream.read(100, world.now) == b"answer"
    assert peer.read(100, world.now) == b""
    stage.pump()
    assert stage.ends() == [("timeout", EXPIRED), ("timeout", EXPIRED)]


def test_reading_the_last_bytes_is_the_end_of_a_stream() -> None:
    """H2: also when nobody has to be told of anything by that."""
    stage = staged(ttl=10.0, sliding=False)
    world = stage.world
    stream = stage.theirs.open_stream()
    stream.write(b"question", world.now)
    stream.finish(world.now)
    stage.pump()
    world.run(RTT)
    answering = stage.ours.stream(stream.stream_id)
    assert answering is not None
    answering.write(b"answer", world.now)
    answering.finish(world.now)
    stage.pump()
    world.run(20.0)
    assert stage.theirs.is_active()
    assert stream.read(100, world.now) == b"answer"
    stage.pump()
    world.run(RTT)
    assert not stage.theirs.is_active()


def test_a_request_holds_it() -> None:
    """H1, H2."""
    stage = staged(ttl=10.0, sliding=False)
    token = stage.books.begin_request(stage.session_id, stage.world.now)
    stage.world.run(20.0)
    assert stage.theirs.is_active()
    with pytest.raises(SessionExpiredError):
        stage.books.begin_request(stage.session_id, stage.world.now)
    stage.ours.open_stream().write(b"refused", stage.world.now)  # and over; but the request is not
    stage.pump()
    stage.world.run(RTT)
    assert not stage.theirs.open_streams
    assert stage.theirs.is_active()
    stage.books.end_request(token, stage.world.now)
    stage.settle()
    assert stage.ends() == [("timeout", EXPIRED), ("timeout", EXPIRED)]


def test_a_session_that_is_cut_off_has_its_place_until_its_request_has_ended() -> None:
    """S6, S7: and its streams are over."""
    stage = staged({"sessions_per_peer": 1})
    token = stage.books.begin_request(stage.session_id, stage.world.now)
    stage.ours.open_stream().write(b"x", stage.world.now)
    stage.pump()
    stage.world.run(RTT)
    assert stage.books.metrics(stage.world.now).streams == 1
    stage.ours.abort(stage.world.now)
    stage.pump()
    stage.world.run(RTT)
    assert stage.record.state is SessionState.CLOSED
    assert stage.books.metrics(stage.world.now).streams == 0
    again = stage.client.connect(stage.server)
    stage.world.run(RTT)
    assert isinstance(again.close_error, TooManySessionsError)
    stage.books.end_request(token, stage.world.now)
    again = stage.client.connect(stage.server)
    stage.world.run(RTT)
    assert again.is_active()


# -- closed by the manager -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("graceful", ("graceful", 0)),
        ("moved", ("graceful", 0)),
        ("shutdown", ("graceful", SHUTDOWN)),
        ("expired", ("timeout", EXPIRED)),
        ("timeout", ("timeout", 0x0202)),
        ("error", ("error", 0x0201)),
        ("auth_failure", ("auth_failure", 0x0103)),
    ],
)
@pytest.mark.parametrize("busy", [False, True])
def test_closing_it_in_the_manager_closes_it(reason: str, told: tuple[str, int], busy: bool) -> None:
    """F: with the reason on both sides; one that waits for work does, one that is a fact does not."""
    stage = staged()
    if busy:
        stage.ours.open_stream().write(b"x", stage.world.now)
        stage.pump()
        stage.world.run(RTT)
    assert stage.books.close_session(stage.session_id, stage.world.now, reason)
    stage.settle()
    if busy and EndReason(reason).waits:
        assert stage.theirs.is_active()
        with pytest.raises((SessionClosedError, SessionExpiredError, ShuttingDownError)):
            stage.theirs.open_stream()
        return
    assert stage.ends() == [told, told]
    assert stage.record.close_reason == reason


def test_one_that_is_being_let_go_of_may_end_before() -> None:
    """S9: nothing is left of it."""
    stage = staged()
    stage.ours.open_stream().write(b"x", stage.world.now)
    stage.pump()
    stage.world.run(RTT)
    stage.books.close_session(stage.session_id, stage.world.now)
    stage.settle()
    stage.ours.abort(stage.world.now)
    stage.pump()
    stage.world.run(RTT)
    assert stage.record.state is SessionState.CLOSED
    assert stage.books.next_deadline() is not None  # to forget it
    stage.world.run(1000.0)
    assert stage.books.inspect(stage.session_id, stage.world.now) is None
    stage.world.assert_idle()


def test_closed_by_both_at_once() -> None:
    """S9: the manager finds a session that has ended, and is not told yet."""
    stage = staged()
    stage.theirs.abort(stage.world.now)
    stage.books.close_session(stage.session_id, stage.world.now, "error")
    stage.settle()
    assert len(ended(stage.server)) == 1
    assert stage.books.metrics(stage.world.now).ended[EndReason.ERROR] == 1


# -- limits --------------------------------------------------------------------------------------------------------


def test_one_too_many_of_a_peer_is_refused_at_the_peer() -> None:
    """H3, S7, H-29: with a typed error, and nothing else changes."""
    stage = staged({"sessions_per_peer": 1})
    before = stage.books.metrics(stage.world.now)
    refused = stage.client.connect(stage.server)
    stage.world.run(RTT)
    assert isinstance(refused.close_error, TooManySessionsError)
    after = stage.books.metrics(stage.world.now)
    assert (after.created, after.active) == (before.created, before.active)
    assert after.refused["peer"] == 1
    assert [event.reason for event in stage.server.events(HandshakeFailed)] == ["too_many_sessions"]
    assert len(stage.server.events(SessionEstablished)) == 1
    stage.exchange()
    stranger = stage.world.node("stranger").connect(stage.server)
    stage.world.run(RTT)
    assert stranger.is_active()


def test_one_too_many_of_a_namespace() -> None:
    """G7, H3: which is told from who the peer is, before there is a session."""
    world = World(1)
    books = manager_of(world, {"sessions_per_namespace": 1})
    clients = [world.node(name) for name in ("ann", "bob", "cat")]
    tenants = {node.config.identity.node_id: tenant for node, tenant in zip(clients, "AAB", strict=True)}
    server = world.node("server", manager=books, namespace_of=tenants.__getitem__)
    sessions = [node.connect(server) for node in clients]
    world.run(RTT)
    assert [session.is_active() for session in sessions] == [True, False, True]
    assert isinstance(sessions[1].close_error, TooManySessionsError)
    assert [record.peer_node_id for record in books.get_active_sessions(world.now, namespace="B")] == [
        clients[2].config.identity.node_id
    ]


def test_a_dial_that_the_own_manager_has_no_room_for() -> None:
    """H3: it fails with the typed error and was never established; the peer is told."""
    world = World(1)
    books = manager_of(world, {"sessions_per_peer": 1})
    client, server = world.node("client", manager=books), world.node("server")
    client.connect(server)
    world.run(RTT)
    again = client.connect(server)
    world.run(RTT)
    assert isinstance(again.close_error, TooManySessionsError)
    assert len(client.events(SessionEstablished)) == 1
    assert len(server.sessions) == 1


def test_a_ticket_gets_around_no_limit() -> None:
    """H3, H-35."""
    stage = staged({"sessions_per_peer": 1})
    stage.world.run_until(lambda: stage.ours.ticket)
    again = stage.client.connect(stage.server, ticket=stage.ours.ticket)
    stage.world.run(2 * RTT)
    assert isinstance(again.close_error, TooManySessionsError)
    assert stage.books.get_session_count(stage.world.now) == 1


def test_a_ticket_where_there_is_room() -> None:
    """H-35: the session that comes of it is a record, too."""
    stage = staged()
    stage.world.run_until(lambda: stage.ours.ticket)
    again = stage.client.connect(stage.server, ticket=stage.ours.ticket)
    stage.world.run(2 * RTT)
    assert (again.resumed, again.is_active()) == (True, True)
    assert stage.books.has_session(again.session_id, stage.world.now)


def returning(sessions: int, **config: Any) -> tuple[Stage, list[Session]]:
    """Come back so many times at once, with a ticket and early data each, to a manager with room for one."""
    stage = staged({"sessions_per_peer": 1}, {"max_early_data": 700}, **config)
    tickets = []
    for _ in range(sessions):
        stage.world.run_until(lambda: stage.ours.ticket)
        tickets.append(stage.ours.ticket)
        stage.ours.close(stage.world.now)
        stage.pump()
        stage.world.run(RTT)
        stage.ours = stage.client.connect(stage.server)
    stage.ours.abort(stage.world.now)
    stage.pump()
    stage.world.run(20.0)
    again = [stage.client.connect(stage.server, ticket=ticket, early_data=b"early") for ticket in tickets]
    stage.world.run(2 * RTT)
    return stage, again


def test_early_data_gets_around_no_limit() -> None:
    """H3, H-29, H-40: a session that begins before the proof has its record, and takes a place, from that moment on."""
    stage, again = returning(3)
    taken = [session for session in again if session.is_active()]
    assert [session.early_data_accepted for session in taken] == [True]
    assert all(isinstance(session.close_error, TooManySessionsError) for session in again if session not in taken)
    assert len(stage.server.sessions) == stage.books.get_session_count(stage.world.now) == 1
    assert stage.books.has_session(taken[0].session_id, stage.world.now)


def test_what_early_data_began_is_let_go_of_like_any_other() -> None:
    """G1, G8: it expires once its work is done, and a drain ends it."""
    stage, (session,) = returning(1, ttl=30.0)
    stage.ours, (stage.theirs,) = session, stage.server.sessions
    ours, theirs = session.stream(0), stage.theirs.stream(0)
    assert ours is not None
    assert theirs is not None
    ours.finish(stage.world.now)
    assert theirs.read(100, stage.world.now) == b"early"
    theirs.finish(stage.world.now)
    stage.pump()
    stage.world.run(RTT)
    assert theirs.read(100, stage.world.now) == b""
    used = stage.world.now
    stage.pump()
    assert stage.run_until_over() - used == pytest.approx(30.0, abs=RTT)
    stage, (session,) = returning(1)
    drain(stage, 5.0)
    stage.world.run(5.0 + RTT)
    assert stage.server.sessions == []
    assert session.close_error is not None
    assert session.close_error.code == SHUTDOWN


def test_early_data_of_a_peer_that_belongs_elsewhere_each_time() -> None:
    """H-40: where `namespace_of` gives what it should not, nobody is in without a record."""
    world = World(1)
    names: list[str] = []
    books = manager_of(world, {"sessions_per_namespace": 1})
    client, other = world.node("client"), world.node("other")
    server = world.node("server", manager=books, max_early_data=700, namespace_of=lambda _: names.pop(0))
    names += ["free", "full"]
    first = client.connect(server)
    world.run_until(lambda: first.ticket)
    first.close(world.now)
    client.pump()
    world.run(20.0)
    other.connect(server)
    world.run(RTT)
    names += ["free", "free", "full"]
    again = client.connect(server, ticket=first.ticket, early_data=b"early")
    world.run(2 * RTT)
    assert names == []
    assert again.close_error is not None
    assert again.close_error.code == TooManySessionsError.code
    assert len(server.sessions) == books.get_session_count(world.now) == 1
    assert len(server.events(SessionEstablished)) == 2


@pytest.mark.parametrize("call", [1, 2, 3])
def test_what_says_where_a_peer_with_early_data_belongs_raises(call: int) -> None:
    """H-40: as below; it is asked whether there is room, for early data too, and when the session begins."""
    world = World(1)
    answers: list[str] = []
    client = world.node("client")
    server = world.node("server", manager=manager_of(world), max_early_data=700, namespace_of=lambda _: answers.pop())
    answers.append("home")
    first = client.connect(server)
    world.run_until(lambda: first.ticket)
    first.close(world.now)
    client.pump()
    world.run(20.0)
    answers += ["home"] * (call - 1)
    again = client.connect(server, ticket=first.ticket, early_data=b"early")
    with pytest.raises(IndexError):
        world.run(RTT)
    again.abort(world.now)
    client.pump()
    server.pump()
    world.run(20.0)
    assert held(server.endpoint) == {}


def test_what_says_where_peers_belong_raises() -> None:
    """Nobody is let in, and nothing is left of it."""
    world = World(1)

    def namespace_of(peer_node_id: bytes) -> str:
        raise KeyError(peer_node_id)

    client, server = world.node("client"), world.node("server", manager=manager_of(world), namespace_of=namespace_of)
    client.connect(server)
    with pytest.raises(KeyError):
        world.run(RTT)
    assert not server.sessions


def test_what_says_where_peers_belong_refuses_one() -> None:
    """H-29: whoever belongs nowhere is refused, dialling or dialled, with a ticket too; the others are not."""
    world = World(1)
    strangers: set[bytes] = set()

    def namespace_of(peer_node_id: bytes) -> str:
        if peer_node_id in strangers:
            raise ConnectionRefusedError("of no tenant")
        return "tenant"

    client, server = world.node("client"), world.node("server", manager=manager_of(world), namespace_of=namespace_of)
    first = client.connect(server)
    world.run_until(lambda: first.ticket)
    first.close(world.now)
    client.pump()
    world.run(20.0)
    strangers.add(client.endpoint.config.identity.node_id)
    for ticket in (None, first.ticket):
        refused = client.connect(server, ticket=ticket)
        world.run(4 * RTT)
        assert refused.close_error is not None
        assert refused.close_error.code == ConnectionRefusedError.code
    assert not server.sessions
    other = world.node("other")
    dialled = server.connect(client)
    world.run(4 * RTT)
    assert dialled.close_error is not None
    assert dialled.close_error.code == ConnectionRefusedError.code
    assert not server.sessions
    other.connect(server)
    world.run(RTT)
    assert len(server.sessions) == 1


# -- to a stop -----------------------------------------------------------------------------------------------------


def drain(stage: Stage, timeout: float) -> None:
    stage.books.drain(stage.world.now, timeout)
    stage.settle()


def test_drained() -> None:
    """H6, S16: idle sessions end at once, busy ones when they are done, and what is left at the deadline."""
    stage = staged()
    world = stage.world
    others = [stage.client.connect(stage.server) for _ in range(2)]
    world.run(RTT)
    streams = [session.open_stream() for session in others]
    for stream in streams:
        stream.write(b"work", world.now)
    stage.pump()
    world.run(RTT)
    drain(stage, 60.0)
    assert (stage.ours.is_closed, *(session.is_closed for session in others)) == (True, False, False)
    assert stage.ends() == [("graceful", SHUTDOWN), ("graceful", SHUTDOWN)]

    done = next(session for session in stage.server.sessions if session.session_id == others[0].session_id)
    peer = done.stream(streams[0].stream_id)
    assert peer is not None
    streams[0].finish(world.now)
    peer.read(100, world.now)
    peer.finish(world.now)
    stage.pump()
    world.run(RTT)
    peer.read(100, world.now)
    streams[0].read(100, world.now)
    stage.pump()
    world.run(RTT)
    assert (others[0].is_closed, others[1].is_closed) == (True, False)

    world.run(60.0)
    assert others[1].is_closed
    assert stage.books.metrics(world.now).ended[EndReason.SHUTDOWN] == 3
    assert stage.books.drain_status(world.now).is_over
    assert {(str(event.reason), event.code) for event in ended(stage.client)} == {("graceful", SHUTDOWN)}
    world.assert_idle()


def test_who_drains_takes_and_begins_nothing() -> None:
    """H6, S16, H-28: a typed refusal at the peer; with a ticket too."""
    stage = staged()
    world = stage.world
    world.run_until(lambda: stage.ours.ticket)
    stage.books.begin_request(stage.session_id, world.now)
    drain(stage, 60.0)
    refused = stage.client.connect(stage.server)
    world.run(2 * RTT)
    assert isinstance(refused.close_error, ShuttingDownError)
    refused = stage.client.connect(stage.server, ticket=stage.ours.ticket)
    world.run(5 * RTT)
    assert isinstance(refused.close_error, ShuttingDownError)
    with pytest.raises(ShuttingDownError):
        stage.server.connect(stage.client)
    with pytest.raises(ShuttingDownError):
        stage.books.begin_request(stage.session_id, world.now)
    with pytest.raises(ShuttingDownError):
        stage.theirs.open_stream()


def test_a_handshake_that_was_under_way() -> None:
    """H6: is refused when the peer has proven who it is."""
    stage = staged()
    late = stage.world.node("late").connect(stage.server)
    stage.world.run_until(lambda: late.is_active() or len(stage.server.log) > 0)
    books = stage.books
    stage.world.step()
    books.drain(stage.world.now, 0.0)
    stage.server.endpoint.settle(stage.world.now)
    stage.pump()
    stage.world.run(5 * RTT)
    assert late.is_closed
    assert isinstance(late.close_error, ShuttingDownError | SessionClosedError)
    assert late.close_error.code == SHUTDOWN
