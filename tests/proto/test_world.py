"""The simulator: its faults really happen, its clock is virtual, and the same seed gives the same world."""

from __future__ import annotations

import random
from collections import Counter
from math import inf
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from stt_proto import Deadline, Endpoint, NetworkPath, Transmit
from stt_proto.events import SessionEstablished
from stt_proto.testing import Conditions, DeterministicKem, Link, SeededEntropy, Traffic, World
from stt_proto.testing.entropy import CIPHERTEXT_SIZE, PUBLIC_SIZE
from stt_proto.testing.world import MAX_TICKS
from tests.proto.worlds import filler, serve_echo

DATAGRAM = filler(100)


def link(**conditions: Any) -> Link:
    return Link(Conditions(**conditions), random.Random(1))


def many(line: Link, count: int = 2000, gap: float = 0.001, size: int = 100) -> list[tuple[float, bytes]]:
    """What arrives of many datagrams, each sent a little later than the one before."""
    arrivals = []
    for number in range(count):
        arrivals += line.carry(filler(size, number), number * gap)
    return arrivals


# -- links ---------------------------------------------------------------------------------------------------------


def test_a_link_without_faults() -> None:
    line = link(delay=0.05)
    arrivals = many(line)
    assert [at for at, _ in arrivals] == [pytest.approx(0.05 + number / 1000) for number in range(2000)]
    assert [data for _, data in arrivals] == [filler(100, number) for number in range(2000)]
    assert line.traffic == Traffic(sent=2000, bytes=200_000, delivered=2000)


@pytest.mark.parametrize(
    ("fault", "counter"),
    [
        ("loss", "lost"),
        ("duplicate", "duplicated"),
        ("reorder", "reordered"),
        ("corrupt", "corrupted"),
        ("truncate", "truncated"),
    ],
)
def test_faults_happen_as_often_as_they_should(fault: str, counter: str) -> None:
    line = link(**{fault: 0.2})
    arrivals = many(line)
    assert 340 <= getattr(line.traffic, counter) <= 460
    assert line.traffic.delivered == len(arrivals)
    sound = link()
    assert arrivals != many(sound)
    none = link(**{fault: 0.0})
    many(none)
    assert getattr(none.traffic, counter) == 0


def test_loss() -> None:
    line = link(loss=0.2)
    assert len(many(line)) == 2000 - line.traffic.lost


def test_duplicates_are_whole_and_later() -> None:
    line = link(duplicate=0.2)
    copies = Counter(data for _, data in many(line))
    assert sorted(copies.values()).count(2) == line.traffic.duplicated
    first, second = link(duplicate=1.0, corrupt=1.0).carry(DATAGRAM, 0.0)
    assert second[1] == DATAGRAM
    assert first[1] != DATAGRAM
    assert second[0] >= first[0]


def test_reordering() -> None:
    """Held back, so that those behind overtake; nothing is lost."""
    arrivals = many(link(reorder=0.2, reorder_delay=0.01))
    order = [data for _, data in sorted(arrivals, key=lambda arrival: arrival[0])]
    sent = [filler(100, number) for number in range(2000)]
    assert order != sent
    assert sorted(order) == sorted(sent)


def test_jitter_keeps_the_order() -> None:
    times = [at for at, _ in many(link(jitter=0.05))]
    assert times == sorted(times)
    assert max(at - number / 1000 for number, at in enumerate(times)) > 0.04
    assert min(at - number / 1000 for number, at in enumerate(times)) < 0.03


def test_corruption_is_one_bit() -> None:
    for at, (_, data) in enumerate(many(link(corrupt=1.0), 100)):
        flipped = int.from_bytes(data) ^ int.from_bytes(filler(100, at))
        assert flipped.bit_count() == 1


def test_truncation_keeps_the_front() -> None:
    for at, (_, data) in enumerate(many(link(truncate=1.0), 100)):
        assert len(data) < 100
        assert filler(100, at).startswith(data)


def test_nothing_can_be_damaged_in_nothing() -> None:
    assert link(corrupt=1.0, truncate=1.0).carry(b"", 0.0) == [(0.01, b"")]


def test_rate_and_queue() -> None:
    """100 bytes at 80,000 bits a second take 10 ms each; what does not fit into the queue is dropped."""
    line = link(delay=0.0, rate=80_000, queue=1000)
    arrivals = many(line, 50, gap=0.0)
    assert [at for at, _ in arrivals] == [pytest.approx(0.01 * (number + 1)) for number in range(10)]
    assert line.traffic.overflowed == 40
    assert [at for at, _ in line.carry(DATAGRAM, 5.0)] == [pytest.approx(5.01)]
    assert len(many(link(rate=None), 50, gap=0.0)) == 50


def test_mtu() -> None:
    line = link(mtu=100)
    assert line.carry(filler(101), 0.0) == []
    assert len(line.carry(filler(100), 0.0)) == 1
    assert line.traffic.too_large == 1


def test_a_link_that_is_down() -> None:
    line = link()
    line.up = False
    assert many(line, 10) == []
    line.up = True
    assert len(many(line, 10)) == 10
    assert line.traffic.lost == 10


def test_conditions_may_change_at_any_time() -> None:
    line = link(delay=0.5)
    line.carry(DATAGRAM, 0.0)
    line.conditions = Conditions(delay=0.0)
    assert line.carry(DATAGRAM, 0.1)[0][0] == 0.5, "what was sent earlier is not overtaken"
    assert line.carry(DATAGRAM, 0.6)[0][0] == 0.6


@given(st.integers(), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_same_seed_gives_the_same_link(seed: int, loss: float, reorder: float, corrupt: float) -> None:
    conditions = Conditions(loss=loss, reorder=reorder, corrupt=corrupt, jitter=0.01, duplicate=0.1, truncate=0.1)
    one, other = (Link(conditions, random.Random(seed)) for _ in range(2))
    assert many(one, 30) == many(other, 30)


# -- entropy -------------------------------------------------------------------------------------------------------


def test_entropy_comes_from_a_seed() -> None:
    assert SeededEntropy(1)(100) == SeededEntropy(1)(100)
    assert SeededEntropy(1)(100) != SeededEntropy(2)(100)
    assert SeededEntropy("1")(10) != SeededEntropy("2")(10)
    entropy = SeededEntropy(1)
    assert entropy(8) != entropy(8)


def test_the_kem_agrees_with_itself() -> None:
    """Its sizes are those of ML-KEM-768, so that datagrams are as long as in earnest."""
    kem, seed = DeterministicKem(SeededEntropy(1)), bytes(64)
    public = kem.public_bytes(seed)
    assert public == kem.private_key(seed).public_bytes()
    secret, ciphertext = kem.encapsulate(public)
    assert (len(public), len(ciphertext), len(secret)) == (PUBLIC_SIZE, CIPHERTEXT_SIZE, 32) == (1184, 1088, 32)
    assert kem.decapsulate(seed, ciphertext) == secret == kem.private_key(seed).decapsulate(ciphertext)
    assert kem.decapsulate(bytes(63) + b"\1", ciphertext) != secret
    assert kem.decapsulate(seed, bytes(1088)) != secret
    assert DeterministicKem(SeededEntropy(1)).encapsulate(public) == (secret, ciphertext)


# -- worlds --------------------------------------------------------------------------------------------------------


def transcript(seed: int) -> list[tuple[float, object, bytes]]:
    """Everything on the wire of a small world with every fault in it."""
    conditions = Conditions(loss=0.1, duplicate=0.1, reorder=0.1, corrupt=0.05, truncate=0.05, jitter=0.01)
    world = World(seed, conditions)
    seen: list[tuple[float, object, bytes]] = []
    world.taps.append(lambda datagram, path: seen.append((world.now, path, datagram)) or datagram)
    client, server = world.node("client"), world.node("server")
    serve_echo(server)
    session = client.connect(server)
    world.run_until(session.is_active)
    session.open_stream().write(filler(20_000), world.now)
    client.pump()
    world.run(20.0)
    return seen


def test_a_world_replays_byte_for_byte() -> None:
    """G-1: the same seed gives the same world, another seed another one."""
    first = transcript(5)
    assert len(first) > 50
    assert transcript(5) == first
    assert transcript(6) != first


def test_time_is_virtual() -> None:
    world = World(1)
    happened: list[tuple[str, float]] = []
    for name, at in (("b", 2.0), ("a", 1.0), ("c", 2.0), ("late", 9.0)):
        world.at(at, lambda name=name: happened.append((name, world.now)))  # type: ignore[misc]
    world.run(5.0)
    assert happened == [("a", 1.0), ("b", 2.0), ("c", 2.0)]
    assert world.now == 5.0
    assert world.step()
    assert world.now == 9.0
    assert not world.step()
    world.at(1.0, lambda: happened.append(("in the past", world.now)))
    world.step()
    assert happened[-1] == ("in the past", 9.0)


def test_run_until_names_the_seed() -> None:
    """A failing world says how to see it again."""
    world = World(77)
    client, server = world.node("client"), world.node("server")
    there, _ = world.link(client, server, Conditions(loss=1.0))
    session = client.connect(server)
    with pytest.raises(AssertionError, match=r"not reached within 5 s of virtual time in World\(seed=77\)"):
        world.run_until(session.is_active, timeout=5.0)
    assert there.traffic.lost > 0
    with pytest.raises(AssertionError, match="not reached"):
        World(1).run_until(lambda: False)


def test_a_node_that_goes_round_in_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadline that never moves would hold the clock of the world still; it is found and named instead."""
    world = World(3)
    node = world.node("node")
    monkeypatch.setattr(Endpoint, "next_deadline", lambda _: Deadline(1.0, "ack"))
    node.pump()
    with pytest.raises(AssertionError, match=r"node wants to be woken for ever at 1: .*ack.*World\(seed=3\)"):
        world.run(5.0)
    assert world.now == 1.0
    assert MAX_TICKS >= 100


def test_ticks_do_not_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    """An earlier deadline takes the place of the one that was armed."""
    ticks: list[float] = []
    monkeypatch.setattr(Endpoint, "tick", lambda self, now: ticks.append(now))
    world = World(1)
    node = world.node("node")
    for at in (5.0, 4.0, 3.0):
        monkeypatch.setattr(Endpoint, "next_deadline", lambda _, at=at: Deadline(at))
        node.pump()
    monkeypatch.setattr(Endpoint, "next_deadline", lambda _: Deadline(world.now + 10))
    world.run(30.0)
    assert ticks == [3.0, 13.0, 23.0]


def test_links_have_two_directions() -> None:
    world = World(1)
    one, two = world.node("one"), world.node("two")
    there, returned = world.link(one, two, Conditions(delay=0.3), Conditions(delay=0.1))
    session = one.connect(two)
    world.run_until(session.is_active)
    assert world.now == pytest.approx(0.8)
    assert there.traffic.sent >= 2
    assert returned.traffic.sent >= 3
    assert world.link(one, two, Conditions())[1].conditions == Conditions()


def test_taps_see_and_change_everything() -> None:
    world = World(1)
    client, server = world.node("client"), world.node("server")
    seen: list[NetworkPath] = []
    world.taps.append(lambda datagram, path: seen.append(path) or datagram)
    world.taps.append(lambda datagram, path: None if path.local == server.address else datagram[:1000])
    client.connect(server)
    world.run(1.0)
    assert {path.remote for path in seen} == {server.address}
    assert server.endpoint.counters.damaged >= 2


def test_what_is_sent_to_nobody_vanishes() -> None:
    world = World(1)
    world.send(DATAGRAM, NetworkPath("udp", ("a", 1), ("nobody", 1)))
    world.run(1.0)
    assert world.datagrams == 1


def test_nodes() -> None:
    world = World(1)
    world.run(100.0)
    node = world.node("node", ack_delay=0.001, node_seed=bytes(range(32)))
    assert node.config.ack_delay == 0.001
    assert world.node("other", shared_seed="another").config.shared_seed == b"another"
    same = world.node("same", config=node.config, no_delay=False)
    assert same.config == evolve(node.config, no_delay=False)
    assert node.address == ("node", 1)
    assert node.path_to(same) == NetworkPath("udp", ("node", 1), ("same", 1))
    session = node.connect(world.node("late"), peer_node_id=None)
    assert session.created_at == world.unix_time + 100.0, "the wall clock goes with the clock of the world"
    world.run_until(session.is_active)
    assert len(node.events(SessionEstablished)) == 1
    assert [at for at, _, event in node.log if isinstance(event, SessionEstablished)] == [world.now]


def test_the_network_is_not_the_carrier_s_business() -> None:
    """ECN bits travel with the datagram, and arrive."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run_until(session.is_active)
    world.run(1.0)
    session.send_datagram(b"marked", world.now)
    (transmit,) = client.endpoint.transmits(world.now)
    marked = Transmit(transmit.path, transmit.buffers, transmit.segment_size, ecn=3)
    for datagram in marked.datagrams():
        world.send(datagram, marked.path, marked.ecn)
    world.run(0.0101)
    (peer,) = server.endpoint.sessions.values()
    engines = peer._engines
    assert engines is not None
    assert engines.acks._ecn == [0, 0, 1]
    assert engines.acks.due_at in (inf, world.now)
