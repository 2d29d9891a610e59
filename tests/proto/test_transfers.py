"""Whole transfers through bad networks: every byte arrives, once, in order, and nothing is left behind."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest
from attrs import evolve

from stt_proto import Endpoint, Session, Transmit, reception
from stt_proto.errors import TooManyStreamsError
from stt_proto.events import HandshakeFailed, SessionClosed
from stt_proto.testing import Conditions, World
from tests.proto.worlds import Mover, assert_empty, filler

SIZE = 400_000


def conditions(rng: random.Random) -> Conditions:
    """A bad network, differently bad for each seed."""
    return Conditions(
        delay=rng.choice([0.001, 0.01, 0.05]),
        jitter=rng.choice([0.0, 0.005]),
        rate=rng.choice([None, 5e6, 50e6]),
        queue=rng.choice([30_000, 1 << 20]),
        loss=rng.uniform(0.0, 0.05),
        duplicate=rng.uniform(0.0, 0.05),
        reorder=rng.uniform(0.0, 0.1),
        reorder_delay=rng.choice([0.002, 0.02]),
        corrupt=rng.uniform(0.0, 0.03),
        truncate=rng.uniform(0.0, 0.02),
    )


@pytest.mark.parametrize("seed", range(20))
def test_both_directions_at_once(seed: int) -> None:
    """D3, D7, S-5, R-9: both suites, one large stream and several small ones each way, hashes equal, tables empty."""
    rng = random.Random(seed)
    world = World(seed)
    client = world.node("client", suites=(1 + seed % 2,))
    server = world.node("server", no_delay=seed % 3 > 0)
    links = world.link(client, server, conditions(rng), conditions(rng))
    here, there = Mover(client), Mover(server)
    session = client.connect(server)
    world.run_until(session.is_active)
    world.run_until(lambda: server.endpoint.sessions)
    (peer,) = server.endpoint.sessions.values()

    sent: dict[Session, dict[int, bytes]] = {session: {}, peer: {}}
    for mover, side in ((here, session), (there, peer)):
        for number in range(5):
            data = filler(SIZE if number == 0 else rng.choice([0, 1, 100, 5000]), (seed, number, side.initiator))
            stream = side.open_stream(bidirectional=number % 2 == 0, purpose=f"number {number}")
            mover.send(stream, side, data)
            sent[side][stream.stream_id] = data

    def done() -> bool:
        return len(here.ended) == len(there.ended) == 5 and len(here.finished) == len(there.finished) == 5

    world.run_until(done, timeout=300.0)
    for mover, side, other in ((here, session, peer), (there, peer, session)):
        hashes = {stream_id: hashlib.sha256(data).digest() for stream_id, data in sent[other].items()}
        assert mover.ended == {(side, stream_id): digest for stream_id, digest in hashes.items()}
        assert {event.purpose for _, event in mover.opened} == {f"number {number}" for number in range(5)}

    faults = [link.traffic for link in links]
    assert sum(each.lost + each.duplicated + each.reordered + each.corrupted + each.truncated for each in faults) > 0
    for node in (client, server):
        assert not node.events(HandshakeFailed)
        assert not node.events(SessionClosed)
    session.close(world.now)
    client.pump()
    world.run(60.0)
    assert session.is_closed
    assert peer.is_closed
    assert_empty(client, server)


@pytest.mark.parametrize("carrier", ["udp", "memory"])
def test_a_transfer_makes_few_events(carrier: str) -> None:
    """DESIGN 3, "Events": edges, bounded by streams and sessions, not by traffic."""
    world = World(1, Conditions(delay=0.001))
    client, server = world.node("client"), world.node("server")
    here, there = Mover(client), Mover(server)
    session = client.connect(server, carrier)
    world.run_until(session.is_active)
    before = len(client.log), len(server.log)
    here.send(session.open_stream(), session, filler(2_000_000))
    world.run_until(lambda: len(there.ended) == 1)
    world.run(1.0)
    stats = session.stats()
    assert stats.datagrams_sent > (1500 if carrier == "udp" else 30)
    assert len(client.log) - before[0] <= 12
    assert len(server.log) - before[1] <= stats.packets_sent


@pytest.mark.parametrize(("max_packet", "longest"), [(65_535, 20_000), (5000, 4800), (2399, 1200)])
def test_trains_are_no_larger_than_the_peer_takes(
    max_packet: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P-1: no more segments than its max_segments, no more bytes than its max_packet."""
    own = reception.local_parameters
    monkeypatch.setattr(reception, "local_parameters", lambda *given: evolve(own(*given), max_packet=max_packet))
    world = World(1, Conditions(delay=0.0005))
    client, server = world.node("client"), world.node("server")
    here, there = Mover(client), Mover(server)
    session = client.connect(server)
    world.run_until(session.is_active)
    sizes: list[int] = []
    transmits = client.endpoint.__class__.transmits

    def spy(self: Endpoint, now: float) -> Iterator[Transmit]:
        for transmit in transmits(self, now):
            sizes.append(transmit.size)
            yield transmit

    monkeypatch.setattr(Endpoint, "transmits", spy)
    here.send(session.open_stream(), session, filler(1_000_000))
    world.run_until(lambda: len(there.ended) == 1)
    assert max(sizes) <= max_packet
    assert max(sizes) >= longest


def test_an_outage_in_mid_transfer() -> None:
    """R-5: five seconds without a network, and the transfer goes on."""
    world = World(2, Conditions(delay=0.02))
    client, server = world.node("client"), world.node("server")
    here, there = Mover(client), Mover(server)
    session = client.connect(server)
    world.run_until(session.is_active)
    data = filler(300_000)
    here.send(session.open_stream(), session, data)
    world.run(0.1)
    for link in world.links.values():
        link.up = False
    world.run(5.0)
    for link in world.links.values():
        link.up = True
    world.run_until(lambda: len(there.ended) == 1, timeout=20.0)
    assert list(there.ended.values()) == [hashlib.sha256(data).digest()]


def test_many_small_streams() -> None:
    """S-3: more streams one after the other than may be open at once."""
    world = World(3, Conditions(loss=0.02))
    client, server = world.node("client"), world.node("server", max_concurrent_streams=10)
    here, there = Mover(client), Mover(server)
    there.answer = lambda session, stream_id: filler(100, stream_id)
    session = client.connect(server)
    world.run_until(session.is_active)
    for number in range(200):
        for _ in range(100):
            try:
                stream = session.open_stream()
                break
            except TooManyStreamsError:
                world.run(0.05)
        here.send(stream, session, filler(100, number))
    world.run_until(lambda: len(here.ended) == len(there.ended) == 200)
    assert {key[1] for key in there.ended} == {4 * number for number in range(200)}
