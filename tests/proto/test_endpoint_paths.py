"""Carriers that end or are full, and time, as an endpoint sees them."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from attrs import evolve

from stt_proto import Config, Session
from stt_proto.endpoint import OUTBOX
from stt_proto.errors import (
    ConnectionRefusedError,
    SessionClosedError,
    UnreachableError,
)
from stt_proto.events import HandshakeFailed, PathLost
from stt_proto.testing import Conditions, Node, World, tables
from stt_proto.wire import Ping
from tests.proto.worlds import (
    IDENTITY,
    PATH,
    assert_empty,
    back,
    datagrams_of,
    filler,
    lone_endpoint,
    many_sessions,
    serve_echo,
    session_pair,
)

# -- carriers that end, or are full -----------------------------------------------------------------------------


def test_a_path_that_is_gone() -> None:
    """M-9: its sessions, and no others, have no path any more; they learn why, and nothing is sent there."""
    world, client, _, sessions, _ = many_sessions(3)
    other = world.node("other")
    elsewhere = client.connect(other)
    world.run_until(elsewhere.is_active)
    sessions[0].send_datagram(b"x", world.now)
    client.endpoint.path_closed(sessions[0].path, world.now, "the cable was cut")
    assert [session.is_detached for session in sessions] == [True] * 3
    assert elsewhere.is_active()
    assert not elsewhere.is_detached
    assert list(client.endpoint.transmits(world.now)) == []
    lost = [event for _, event in client.endpoint.events() if isinstance(event, PathLost)]
    assert lost == [PathLost(sessions[0].path, "the cable was cut")] * 3
    client.endpoint.path_closed(sessions[0].path, world.now)
    assert list(client.endpoint.events()) == []
    assert len(client.endpoint.sessions) == 4


def test_a_path_that_is_gone_while_dialling() -> None:
    """DESIGN 3: refused, say. The dial ends, the half-open handshake too."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run_until(lambda: tables(server.endpoint)["half-open"])
    client.endpoint.path_closed(session.path, world.now)
    server.endpoint.path_closed(back(session.path), world.now)
    assert session.is_closed
    assert session.close_error is not None
    assert session.close_error.message == "the path is gone"
    assert datagrams_of(client, world.now) == []
    server.pump()
    assert server.events(HandshakeFailed) == [HandshakeFailed(back(session.path), "timeout")]
    client.pump()
    assert_empty(client, server)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("refused", ConnectionRefusedError),
        ("unreachable", UnreachableError),
        ("the cable was cut", SessionClosedError),
        (None, SessionClosedError),
    ],
)
def test_why_a_path_is_gone(reason: str | None, error: type[Exception]) -> None:
    """A11: a dial learns whether somebody is there at all; a session that was established has lost its path."""
    pair = session_pair(client={"detach_timeout": 0.0})
    dial = pair.client.connect(pair.server)
    pair.client.endpoint.path_closed(dial.path, pair.now, reason)
    assert type(dial.close_error) is error
    assert type(pair.session.close_error) is SessionClosedError


@pytest.mark.parametrize("said", [True, False])
def test_a_path_that_ends_after_the_goodbye(said: bool) -> None:
    """K-1: a peer that heard SESSION_CLOSE closes its connection, perhaps before its acknowledgement is read."""
    pair = session_pair()
    stream = pair.session.open_stream()
    if not said:
        stream.write(b"not delivered yet", pair.now)
    pair.session.close(pair.now, detail="done")
    pair.client.endpoint.path_closed(pair.session.path, pair.now, "the connection ended")
    error = pair.session.close_error
    assert isinstance(error, SessionClosedError)
    assert (error.reason, error.message) == (("graceful", "done") if said else ("error", "the connection ended"))


def test_a_path_that_is_gone_when_both_have_keys() -> None:
    """Nothing is sealed for a path that does not exist."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run_until(lambda: session.max_datagram_size)
    client.endpoint.path_closed(session.path, world.now)
    assert datagrams_of(client, world.now) == []
    client.pump()
    assert_empty(client)


def test_a_full_carrier() -> None:
    """DESIGN 3, "Out": nothing more is handed out for a path that is full; others go on; nothing is lost by it."""
    world, client, _, sessions, _ = many_sessions(2)
    other = world.node("other")
    serve_echo(other)
    elsewhere = client.connect(other)
    world.run_until(elsewhere.is_active)
    world.run(1.0)
    streams = [session.open_stream() for session in (*sessions, elsewhere)]
    full = sessions[0].path
    client.endpoint.path_writable(full, False, world.now)
    for stream in streams:
        stream.write(b"hello", world.now)
    taken = list(client.endpoint.transmits(world.now))
    assert {transmit.path for transmit in taken} == {elsewhere.path}
    for transmit in taken:
        for datagram in transmit.datagrams():
            world.send(datagram, transmit.path)
    deadline = client.endpoint.next_deadline()
    assert deadline is not None
    world.run(0.5)
    assert [stream.read(10, world.now) for stream in streams] == [b"", b"", b"hello"]
    client.endpoint.path_writable(full, True, world.now)
    client.pump()
    world.run(0.5)
    assert [stream.read(10, world.now) for stream in streams[:2]] == [b"hello", b"hello"]


def test_a_full_carrier_does_not_make_the_timer_spin() -> None:
    """A session that may not send arms no timer for what it would send."""
    pair = session_pair(carrier="memory")
    pair.inject(Ping(), Ping(), to=pair.session)
    pair.client.endpoint.path_writable(pair.session.path, False, pair.now)
    pair.inject(Ping(), to=pair.session)
    pair.inject(Ping(), to=pair.session)
    deadline = pair.client.endpoint.next_deadline()
    assert deadline is not None
    pair.client.endpoint.tick(deadline.at)
    later = pair.client.endpoint.next_deadline()
    assert later is not None
    assert later.at > deadline.at
    pair.client.pump()
    pair.world.run(5.0)
    assert pair.session.is_active()


def test_an_acknowledgement_that_falls_due_behind_a_full_carrier() -> None:
    """R-2: a session that had nothing to send when the carrier became full is asked again when it has room."""
    pair = session_pair()
    pair.settle()
    endpoint, path = pair.client.endpoint, pair.session.path
    endpoint.path_writable(path, False, pair.now)
    pair.inject(Ping(), to=pair.session)
    assert list(endpoint.transmits(pair.now)) == []
    endpoint.next_deadline()
    endpoint.path_writable(path, True, pair.now)
    assert list(endpoint.transmits(pair.now)) == []
    deadline = endpoint.next_deadline()
    assert deadline is not None
    assert (deadline.reason, deadline) == ("ack", pair.session.deadline())


def test_a_host_learns_cheaply_that_there_is_no_news() -> None:
    """DESIGN 3: the four steps may be left out where nothing happened since they were last taken."""
    pair = session_pair()
    serve_echo(pair.server)
    endpoint, stream = pair.client.endpoint, pair.session.open_stream()
    take_steps(pair.client)
    assert endpoint.is_idle
    stream.write(b"hello", pair.now)
    assert not endpoint.is_idle
    assert endpoint.has_more
    assert len(list(endpoint.transmits(pair.now))) == 1
    assert not endpoint.has_more
    assert not endpoint.is_idle  # the deadline is another one
    deadline = endpoint.next_deadline()
    assert deadline is not None
    assert endpoint.next_tick() == deadline.at
    assert endpoint.is_idle
    pair.settle()
    take_steps(pair.client)
    assert stream.readable
    assert stream.read(10, pair.now) == b"hello"
    assert not stream.readable
    assert endpoint.is_idle  # so little credit is not worth a word
    pair.session.abort(pair.now)
    assert not endpoint.is_idle


def test_both_probes_of_a_timeout_leave_at_once() -> None:
    """R-5: the second is no news, but it is to be sent."""
    pair = session_pair()
    pair.settle()
    endpoint = pair.client.endpoint
    pair.session.open_stream().write(b"lost", pair.now)
    assert len(list(endpoint.transmits(pair.now))) == 1
    deadline = endpoint.next_deadline()
    assert deadline is not None
    assert deadline.reason == "loss"
    endpoint.tick(deadline.at)
    assert len(list(endpoint.transmits(deadline.at))) == 2


def test_an_endpoint_that_waits_for_nothing() -> None:
    endpoint = lone_endpoint()
    assert (endpoint.next_deadline(), endpoint.next_tick()) == (None, inf)
    assert endpoint.is_idle


def take_steps(node: Node) -> None:
    """Take the four steps, once."""
    list(node.endpoint.transmits(node.world.now))
    list(node.endpoint.events())
    node.endpoint.next_deadline()


def test_dialling_over_a_full_carrier() -> None:
    """HELLO waits for the carrier; so does everything a session that came to be meanwhile wants to send."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    path = client.path_to(server, "memory")
    client.endpoint.path_writable(path, False, 0.0)
    session = client.connect(server, "memory")
    world.run(1.0)
    assert world.datagrams == 0
    client.endpoint.path_writable(path, True, world.now)
    client.pump()
    world.run_until(session.is_active)


def test_answers_to_strangers_are_dropped_when_the_carrier_is_full() -> None:
    """They will ask again; nothing is stored for them."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    server.endpoint.path_writable(back(session.path), False, 0.0)
    world.run(0.1)
    assert world.datagrams == 1
    assert server.endpoint.counters.outbox_dropped >= 1
    server.endpoint.path_writable(back(session.path), True, world.now)
    world.run_until(session.is_active)


def test_sessions_that_end_on_a_full_path_are_forgotten() -> None:
    """Nothing waits for a carrier for ever."""
    pair = session_pair()
    pair.client.endpoint.path_writable(pair.session.path, False, pair.now)
    pair.session.abort(pair.now)
    assert datagrams_of(pair.client, pair.now) == []
    pair.settle(10.0)
    context = pair.client.endpoint._context
    assert context.full == {pair.session.path: {}}
    pair.client.endpoint.path_closed(pair.session.path, pair.now)
    assert_empty(pair.client)
    pair.client.endpoint.path_writable(pair.session.path, True, pair.now)
    assert_empty(pair.client)


def test_the_last_words_of_a_dial_do_not_wait_for_a_full_carrier() -> None:
    """H-13: an ABORT that cannot be sent is no reason to keep anything."""
    world = World(1)
    client, server = world.node("client", shared_seed="another"), world.node("server")
    session = client.connect(server)
    world.run_until(lambda: tables(server.endpoint)["half-open"])
    client.pump()
    world.run(0.05)
    client.endpoint.path_writable(session.path, False, world.now)
    world.run_until(lambda: session.is_closed)
    world.run(1.0)
    held = {name: count for name, count in tables(client.endpoint).items() if count}
    assert held == {"full paths": 1}


def test_answers_that_nobody_takes() -> None:
    """A host that takes no transmits does not make the endpoint grow: the oldest answer goes."""
    limits = evolve(Config(identity=IDENTITY, shared_seed="x").limits, resets_per_second=10_000)
    node = lone_endpoint(limits=limits)
    for number in range(OUTBOX + 10):
        node.receive(b"\x40" + filler(99, number), PATH, number / 1000)
    assert tables(node)["answers"] == OUTBOX
    assert node.counters.outbox_dropped == 10


# -- time ----------------------------------------------------------------------------------------------------------


def test_an_endpoint_without_anything_wants_nothing() -> None:
    node = lone_endpoint()
    assert node.next_deadline() is None
    assert node.next_transmit(0.0) is None
    node.tick(10.0)
    assert list(node.events()) == []
    assert dict(node.sessions) == {}


def test_half_open_handshakes_are_given_up_in_time() -> None:
    """H-21, H-32: after the handshake timeout, reported as `timeout`."""
    world = World(1)
    client, server = world.node("client"), world.node("server", handshake_timeout=2.0)
    there, _ = world.link(client, server, Conditions())
    client.connect(server)
    there.up = False
    world.run(0.5)
    deadline = server.endpoint.next_deadline()
    assert deadline is not None
    assert (deadline.at, deadline.reason) == (pytest.approx(2.01), "half_open")
    world.run(2.0)
    assert server.events(HandshakeFailed) == [HandshakeFailed(server.path_to(client), "timeout")]
    assert_empty(server)


def test_asking_for_the_deadline_is_cheap() -> None:
    """DESIGN 3: O(1); sessions that nothing happened to are not looked at."""
    _, client, _, sessions, _ = many_sessions(20)
    client.endpoint.next_deadline()
    asked: list[Session] = []
    original = Session.due

    def spy(self: Session) -> Any:
        asked.append(self)
        return original(self)

    Session.due = spy  # type: ignore[method-assign]
    try:
        for _ in range(100):
            client.endpoint.next_deadline()
        assert asked == []
        sessions[3].touch(client.world.now)
        client.endpoint.next_deadline()
        assert asked == [sessions[3]]
    finally:
        Session.due = original  # type: ignore[method-assign]


def test_transmits_take_turns() -> None:
    """DESIGN 3: sessions with something to send are served one after the other."""
    world, client, _, sessions, _ = many_sessions(3)
    for session in sessions:
        session.open_stream().write(filler(5000), world.now)
    taken = [bytes(b"".join(transmit.buffers)[1:9]) for transmit in client.endpoint.transmits(world.now)]
    assert len(taken) == 15
    assert [taken.index(cid) for cid in taken[:3]] == [0, 1, 2]
    assert taken[:3] == taken[3:6] == taken[6:9]


def test_a_transmit_that_was_taken_counts_as_sent() -> None:
    """DESIGN 3, "Out": dropping it is loss, and recovery knows what to do."""
    pair = session_pair()
    stream = pair.session.open_stream()
    stream.write(b"dropped by the host", pair.now)
    assert len(list(pair.client.endpoint.transmits(pair.now))) == 1
    pair.settle(2.0)
    heard = pair.peer.stream(0)
    assert heard is not None
    assert heard.read(100, pair.now) == b"dropped by the host"
