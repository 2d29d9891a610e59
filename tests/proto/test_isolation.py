"""S8, S9 over simulated networks: what befalls one session is nothing to any other (H4)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from stt_proto import Session
from stt_proto.events import Event, StreamFinished
from stt_proto.manager import ManagerLimits, SessionConfig, SessionManager, SessionRecord
from stt_proto.testing import Conditions, Inbox, Node, World, send
from stt_proto.testing.entropy import SeededEntropy

TICK = 0.001
"""Seconds that timers are apart at most."""
LOSSY = Conditions(delay=0.02, jitter=0.005, loss=0.05, duplicate=0.02)
MUCH = 3_000_000
"""Bytes; more than a session has room for, when nobody reads."""

works = st.lists(st.lists(st.integers(1, 60_000), min_size=1, max_size=3), min_size=2, max_size=5)
"""For each session the sizes of what is sent on it, each on a stream of its own, all at once."""


class Crowd:
    """A server with a manager, and clients on links of their own, each of which sends what nobody else sends."""

    def __init__(self, seed: int, count: int, conditions: Conditions) -> None:
        self.world = World(seed, conditions)
        self.books = SessionManager(
            0.0, self.world.unix_time, defaults=SessionConfig(ttl=600.0), limits=ManagerLimits(sessions_per_peer=1)
        )
        self.server = self.world.node("server", manager=self.books)
        self.inbox = Inbox(self.server)
        self.unread: bytes | None = None  # the session that nobody reads from
        self._take = self.server.listeners.pop()
        self.server.listeners.append(self._read)
        self.clients = [self.world.node(f"client {number}") for number in range(count)]
        self.sessions: list[Session] = []
        for client in self.clients:
            self.sessions.append(client.connect(self.server))
            self.world.run_until(self.sessions[-1].is_active)
        self.world.run(1.0)

    def _read(self, session: Session | None, event: Event) -> None:
        if session is None or session.session_id != self.unread:
            self._take(session, event)

    def payload(self, number: int, index: int, size: int) -> bytes:
        return SeededEntropy(f"payload {index} of {number}")(size)

    def upload(self, work: list[list[int]], but: int | None = None) -> dict[int, float]:
        """Send all at once; give the time at which each but one was acknowledged to the end."""
        world, done = self.world, dict[int, float]()
        for number, (client, session, sizes) in enumerate(zip(self.clients, self.sessions, work, strict=True)):
            client.listeners.append(self._noting(number, len(sizes), done))
            for index, size in enumerate(sizes):
                send(client, session, self.payload(number, index, size), purpose=f"{index} of {number}")
        world.run_until(lambda: len(done) == len(work) - (but is not None), 300.0)
        return done

    def _noting(self, number: int, streams: int, done: dict[int, float]) -> Callable[[Session | None, object], None]:
        left = [streams]

        def note(session: Session | None, event: object) -> None:
            left[0] -= isinstance(event, StreamFinished)
            if not left[0]:
                done.setdefault(number, self.world.now)

        return note


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), work=works, stalled=st.integers(0, 4), unread=st.booleans())
def test_a_stalled_session_delays_no_other(seed: int, work: list[list[int]], stalled: int, unread: bool) -> None:
    """S8: one whose link loses all, or from which nobody reads; the others are done at the same time to a tick."""
    stalled %= len(work)
    conditions = Conditions(delay=0.02, rate=10e6)
    with_all = Crowd(seed, len(work), conditions).upload(work)
    crowd = Crowd(seed, len(work), conditions)
    if unread:
        crowd.unread = crowd.sessions[stalled].session_id
        work = [[MUCH] if number == stalled else sizes for number, sizes in enumerate(work)]
    else:
        crowd.world.outage(crowd.clients[stalled], crowd.server, crowd.world.now)
    without = crowd.upload(work, stalled)
    crowd.world.run(10.0)
    assert stalled not in without
    assert len(without) == len(work) - 1
    for number, at in without.items():
        assert abs(at - with_all[number]) <= TICK, (number, stalled)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), work=works)
def test_each_gets_its_own(seed: int, work: list[list[int]]) -> None:
    """S8: on links that lose, repeat and reorder, what a session delivers is what was sent on it, each once."""
    crowd = Crowd(seed, len(work), LOSSY)
    crowd.upload(work)
    crowd.world.run(1.0)
    for number, session in enumerate(crowd.sessions):
        came = [
            incoming for (owner, _), incoming in crowd.inbox.streams.items() if owner.session_id == session.session_id
        ]
        assert sorted((each.purpose, each.digest) for each in came) == [
            (f"{index} of {number}", hashlib.sha256(crowd.payload(number, index, size)).hexdigest())
            for index, size in enumerate(work[number])
        ]


def looked_at(books: SessionManager, session: Session, now: float) -> tuple[object, ...]:
    """All that the manager knows of one, but for its clocks."""
    record: SessionRecord | None = books.inspect(session.session_id, now)
    assert record is not None
    return (
        record.peer_node_id,
        record.namespace,
        record.state,
        record.config,
        record.config_version,
        record.requests,
        record.streams,
        record.generation,
    )


ENDS = ["live", "graceful", "timeout", "error", "auth_failure", "expired", "reset", "vanished"]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), ends=st.lists(st.sampled_from(ENDS), min_size=1, max_size=6))
def test_the_end_of_some_is_nothing_to_the_others(seed: int, ends: list[str]) -> None:
    """S9: by any mix of ends, at once; the others are found by all names and work; of those nothing is left."""
    crowd = Crowd(seed, len(ends), Conditions(delay=0.02))
    world, books, server = crowd.world, crowd.books, crowd.server
    before = {session: looked_at(books, session, world.now) for session in crowd.sessions}
    for client, session, end in zip(crowd.clients, crowd.sessions, ends, strict=True):
        theirs = server.endpoint.sessions[session.session_id]
        if end in ("graceful", "timeout", "error", "auth_failure"):
            theirs.close(world.now, end)
        elif end == "expired":
            books.update_config(session.session_id, {"ttl": 0.001}, world.now)
        elif end == "reset":
            client.restart()
        elif end == "vanished":
            client.pause()
    server.endpoint.settle(world.now)
    server.pump()
    world.run(200.0)
    live = [session for session, end in zip(crowd.sessions, ends, strict=True) if end == "live"]
    assert set(server.endpoint.sessions) == {session.session_id for session in live}
    for session in live:
        assert looked_at(books, session, world.now) == before[session]
        node = crowd.clients[crowd.sessions.index(session)]
        sent = send(node, session, b"still here")
        world.run_until(lambda sent=sent: sent.finished)
        (found,) = books.find_session_by_peer(node.config.identity.node_id, world.now)
        assert found.session_id == session.session_id
    metrics = books.metrics(world.now)
    assert metrics.created == len(ends) == metrics.active + sum(metrics.ended.values())
    assert metrics.active == len(live)
    assert metrics.ended["expired"] == ends.count("expired")
    for node, session in zip(crowd.clients, crowd.sessions, strict=True):
        if session in live:
            finish(world, node, session)
    for session in crowd.sessions:
        assert not books.close_session(session.session_id, world.now)
    world.run(30.0)
    assert server.idle


def finish(world: World, node: Node, session: Session) -> None:
    session.close(world.now)
    node.pump()
    world.run(1.0)
