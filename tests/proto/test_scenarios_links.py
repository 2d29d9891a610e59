"""The cases of the QUIC interop runner that are about links: far, lossy, damaging, interrupted, shared.

Each asserts from the wire that its fault really happened: what the link counted (`Traffic`), or who sent what when
(`Transcript`). The link is the runner's own unless told otherwise.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import Any

import pytest
from attrs import evolve

from stt_proto import Session
from stt_proto.errors import ConnectionTimeoutError, SessionTimeoutError
from stt_proto.events import HandshakeFailed, SessionClosed, SessionEstablished
from stt_proto.testing import BROADBAND, Conditions, GilbertElliott, Inbox, Link, Outgoing, World, send
from tests.proto.scenario import HANDSHAKE, scene
from tests.proto.worlds import filler

MBIT = 1e6


# -- far -----------------------------------------------------------------------------------------------------------


def test_long_rtt() -> None:
    """LR: 750 ms each way: HELLO is repeated before any answer can come, and yet there is one handshake, and no loss.

    H-20, R-6: nothing that is only far is taken for lost.
    """
    case = scene(evolve(BROADBAND, delay=0.75))
    session = case.client.connect(case.server)
    case.world.run_until(session.is_active)
    assert case.world.now == pytest.approx(3.0, abs=0.01)
    hellos = case.handshake("HELLO")
    assert len(hellos) >= 2
    assert hellos[1].at < 1.5
    for name, messages in (("HELLO", 1), ("CHALLENGE", 2), ("AUTH_PROOF", 1)):
        assert len({entry.data for entry in case.handshake(name)}) == messages, "repetitions repeat the stored bytes"
    case.upload(session, 1000, 100_000)
    assert len(case.server.events(SessionEstablished)) == 1
    assert session.stats().packets_lost == 0
    assert case.kinds(case.client)["packet"] < 130, "100 KB, and next to no repetitions"
    case.finish(session)


# -- marking -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marks", [True, False])
def test_ecn(marks: bool) -> None:
    """E: 1 MB each way through queues that mark. R-1, R-11: what asks for an acknowledgement says ECT(0), from the test
    on; marks come back, both ways, and make both sides slower before anything is lost. Without them something is.
    """
    case = scene(evolve(BROADBAND, queue=60_000, ecn_threshold=15_000 if marks else None))
    session = case.dial()
    down = send(case.server, case.server.sessions[0], filler(1_000_000))
    case.upload(session, 1_000_000)
    case.world.run_until(lambda: down.finished)
    data = [entry for entry in case.wire if len(entry.data) >= 1000 and entry.kind.split()[0] in ("packet", "segment")]
    assert {entry.ecn for entry in case.handshake(*HANDSHAKE)} == {0}
    for node, link in ((case.client, case.there), (case.server, case.back)):
        assert (link.traffic.marked > 10, link.traffic.overflowed > 0) == (marks, not marks)
        sent = [entry.ecn for entry in data if entry.source == node.address]
        assert sent.count(2) > 0.95 * len(sent) > 500
        assert {*sent} <= {0, 2}
        stats = node.sessions[0].stats()
        assert (stats.ecn, stats.packets_lost > 0) == ("capable", not marks)
    case.finish(session)


# -- lossy and damaging --------------------------------------------------------------------------------------------

HOSTILE = {
    "loss": Conditions(delay=0.015, loss=0.3),
    "loss in bursts": Conditions(delay=0.015, burst=GilbertElliott(good=7, bad=3)),
    "corruption": Conditions(delay=0.015, corrupt=0.3),
    "corruption and truncation": Conditions(delay=0.015, corrupt=0.2, truncate=0.1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_handshakes_through(name: str) -> None:
    """L1, C1: 50 sessions of 1 KB each through 30 % of loss or of damage, within 60 s; H-18: one dial in 600 fails.

    B6, W-1: it fails for the time, and damage is never taken for a wrong seed. Who fails dials again, as a user would.
    """
    case = scene(HOSTILE[name])
    dials = 0

    def dial(number: int) -> Outgoing:
        nonlocal dials
        dials += 1
        return send(case.client, case.client.connect(case.server), filler(1000, number))

    sent = {number: dial(number) for number in range(50)}

    def all_arrived() -> bool:
        for number, each in sent.items():
            if each.error is not None:
                assert isinstance(each.error, ConnectionTimeoutError)
                sent[number] = dial(number)
        return all(each.finished for each in sent.values())

    case.world.run_until(all_arrived, timeout=60.0)
    assert sorted(case.inbox.digests) == sorted(each.digest for each in sent.values())
    assert dials <= 54
    assert len(case.client.events(SessionEstablished)) == 50
    for node in (case.client, case.server):
        assert not [event for event in node.events(HandshakeFailed) if event.reason == "auth_failure"]
    for link in (case.there, case.back):
        traffic = link.traffic
        faults = traffic.lost + traffic.burst + traffic.corrupted + traffic.truncated
        assert 0.2 < faults / traffic.sent < 0.4
    for each in sent.values():
        each.session.abort(case.world.now)
    case.world.assert_idle(within=60.0)


@pytest.mark.parametrize(
    "faults",
    [{"loss": 0.02}, {"burst": GilbertElliott(good=98, bad=2)}, {"corrupt": 0.02}, {"truncate": 0.02}],
    ids=lambda faults: "-".join(faults),
)
def test_transfer_through(faults: dict[str, Any]) -> None:
    """L2, C2: 2 MB through 2 % of loss or of damage, both ways."""
    case = scene(evolve(BROADBAND, **faults), seed=2)
    session = case.dial()
    case.upload(session, 2_000_000)
    traffic = case.there.traffic
    hurt = traffic.lost + traffic.burst + traffic.corrupted + traffic.truncated
    assert 0.01 < hurt / traffic.sent < 0.03
    assert session.stats().packets_lost >= hurt * 0.9 - traffic.overflowed
    case.finish(session)


# -- interrupted ---------------------------------------------------------------------------------------------------


def test_black_hole() -> None:
    """B: 5 s with a network, 2 s without, and again: 10 MB arrive, and the link is in use soon after each outage.

    R-5: probes find out that the network is back. They come at doubling distances, so it takes at most as long again
    as the outage, plus one round trip.
    """
    case = scene()
    session = case.dial()
    outages = [5.0, 12.0]
    for start in outages:
        case.world.outage(case.client, case.server, start, 2.0)
    taken = case.upload(session, 10_000_000)
    assert taken < 10_000_000 * 8 / (0.9 * 10 * MBIT) + 2 * (2.0 + 2.0)
    assert min(case.there.traffic.cut, case.back.traffic.cut) > 0
    answers = case.wire.between(case.server.address, case.client.address)
    times = [entry.arrivals[0] for entry in answers if entry.arrivals]
    for start in outages[: 1 + (taken > 12.0)]:
        assert not [at for at in times if start + 0.1 < at < start + 2.0]
        assert min(at for at in times if at >= start + 2.0) <= start + 2.0 + 2.1
    case.finish(session)


def test_long_black_hole() -> None:
    """B, R-7: 8 s without a way there are persistent congestion: the window begins anew, and the transfer goes on."""
    case = scene()
    session = case.dial()
    case.there.outage(2.0, 8.0)
    windows: dict[float, int] = {}

    def watch() -> None:
        windows[case.world.now] = session.stats().congestion_window
        case.world.at(case.world.now + 0.01, watch)

    watch()
    case.upload(session, 5_000_000)
    assert case.there.traffic.cut >= 30, "a window, and the probes"
    assert min(windows[at] for at in windows if 2.0 < at < 10.0) > 20_000
    assert min(windows.values()) <= 4 * 1200
    assert windows[max(windows)] > 20_000
    case.finish(session)


def test_endless_black_hole() -> None:
    """B, K-5: 40 s without a network outlast both sides: each ends by itself, with the reason, and nothing is left."""
    case = scene(client={"detach_timeout": 0.0}, server={"detach_timeout": 0.0})
    session = case.dial()
    case.world.outage(case.client, case.server, 2.0, 40.0)
    send(case.client, session, filler(10_000_000))
    case.world.run_until(lambda: session.is_closed)
    case.world.assert_idle()
    assert case.there.traffic.cut > 5
    for node in (case.client, case.server):
        (closed,) = node.events(SessionClosed)
        assert (closed.reason, closed.by_peer) == ("timeout", False)
        ended = next(at for at, _, event in node.log if event is closed)
        assert 31.9 < ended < 33.0
    assert isinstance(session.close_error, SessionTimeoutError)


# -- shared --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue", [30_000, 37_500])
def test_goodput(queue: int) -> None:
    """G: 10 MB over 10 Mbit/s and 30 ms, with a queue of 25 packets of 1,200 or of 1,500 bytes: at least 90 %."""
    case = scene(evolve(BROADBAND, queue=queue))
    session = case.dial()
    taken = case.upload(session, 10_000_000)
    assert 10_000_000 * 8 / taken >= 0.9 * 10 * MBIT
    assert case.there.traffic.overflowed > 0, "the queue was full: the link is the bottleneck"
    case.finish(session)


class Reno:
    """Somebody else on a link: TCP as far as congestion control goes, with nothing in its segments.

    Slow start, congestion avoidance, one halving a window; each segment is acknowledged by itself, and one is lost when
    three later ones arrived. It is no relative of our own code, and it does not pace.
    """

    SIZE = 1200

    def __init__(self, world: World, link: Link, back: float) -> None:
        self.delivered = 0
        self._world, self._link, self._back = world, link, back
        self._window, self._threshold = 10.0, inf
        self._next = 0
        self._recovery = -1
        self._heard_at = world.now
        self._flying: dict[int, None] = {}
        self._check()

    def _send(self) -> None:
        while len(self._flying) < self._window:
            self._flying[self._next] = None
            for arrival in self._link.carry(bytes(self.SIZE), self._world.now):
                self._world.at(arrival.at + self._back, partial(self._on_ack, self._next))
            self._next += 1

    def _on_ack(self, number: int) -> None:
        if number not in self._flying:
            return
        del self._flying[number]
        self._heard_at = self._world.now
        self.delivered += self.SIZE
        lost = [other for other in self._flying if other < number - 2]
        for other in lost:
            del self._flying[other]
        if lost and lost[-1] >= self._recovery:
            self._halve(self._window / 2)
        elif not lost and number >= self._recovery:
            self._window += 1 if self._window < self._threshold else 1 / self._window
        self._send()

    def _halve(self, window: float) -> None:
        self._threshold = max(self._window / 2, 2.0)
        self._window = max(window, 1.0)
        self._recovery = self._next

    def _check(self) -> None:
        if self._world.now - self._heard_at > 0.5:
            self._flying.clear()
            self._halve(1.0)
        self._send()
        self._world.at(self._world.now + 0.25, self._check)


def crossing(seed: int, senders: int) -> tuple[World, Link, list[Session]]:
    """Nodes that send to one server over one shared link, the second 5 s after the first, without end."""
    world = World(seed)
    server = world.node("server")
    inbox = Inbox(server)
    shared = Link(evolve(BROADBAND, jitter=0.001), world.random)  # a little jitter, as else both march in step
    sessions = []
    for number in range(senders):
        node = world.node(f"client {number}")
        world.link(node, server, BROADBAND, Conditions(delay=0.015))
        world.links[node.address, server.address] = shared
        session = node.connect(server)
        world.run_until(session.is_active)
        send(node, session, bytes(30_000_000))
        world.run(5.0)
        sessions.append(session)
    assert inbox.streams
    return world, shared, sessions


def end(world: World, sessions: list[Session]) -> None:
    """Give up what would go on without end; then nothing is left, though the link is as full as before."""
    for session in sessions:
        session.abort(world.now)
    world.assert_idle()


def delivered(session: Session) -> int:
    assert session._engines is not None
    return session._engines.path.recovery.delivered


@pytest.mark.parametrize("seed", [1, 2])
def test_cross_traffic_of_our_own(seed: int) -> None:
    """C: two sessions share a link fairly, whichever came first (Jain's index of at least 0.95), and use it up."""
    world, link, sessions = crossing(seed, 2)
    before, overflowed = [delivered(session) for session in sessions], link.traffic.overflowed
    world.run(15.0)
    shares = [delivered(session) - start for session, start in zip(sessions, before, strict=True)]
    assert sum(shares) ** 2 / (2 * sum(share**2 for share in shares)) >= 0.95
    assert sum(shares) * 8 >= 0.95 * 10 * MBIT * 15
    assert link.traffic.overflowed > overflowed, "they were in each other's way"
    end(world, sessions)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_cross_traffic_of_tcp(first: str) -> None:
    """C: beside a TCP neither side starves: each gets at least 30 %."""
    world, link, (session,) = crossing(3, 1)
    if first == "theirs":
        link.up = False  # what came first finds an empty link again, and takes it
        world.run(0.5)
        other = Reno(world, link, 0.015)
        link.up = True
        world.run(5.0)
    else:
        other = Reno(world, link, 0.015)
        world.run(5.0)
    ours, theirs, overflowed = delivered(session), other.delivered, link.traffic.overflowed
    world.run(20.0)
    ours, theirs = delivered(session) - ours, other.delivered - theirs
    assert 0.3 <= ours / (ours + theirs) <= 0.7
    assert (ours + theirs) * 8 >= 0.95 * 10 * MBIT * 20
    assert link.traffic.overflowed > overflowed
    end(world, [session])


def test_cross_traffic_that_takes_no_notice() -> None:
    """C: beside a constant 4 Mbit/s that does not care, a session takes the other six and loses it next to nothing."""
    world, link, (session,) = crossing(4, 1)
    tried = arrived = 0

    def speak() -> None:
        nonlocal tried, arrived
        tried += 1
        arrived += len(link.carry(bytes(1000), world.now))
        world.at(world.now + 1000 * 8 / (4 * MBIT), speak)

    speak()
    world.run(3.0)
    tried = arrived = 0
    before, overflowed = delivered(session), link.traffic.overflowed
    world.run(10.0)
    assert (delivered(session) - before) * 8 >= 0.9 * 6 * MBIT * 10
    assert 4900 <= tried <= 5100
    assert link.traffic.overflowed > overflowed, "they were in each other's way"
    assert arrived >= 0.98 * tried
    end(world, [session])
