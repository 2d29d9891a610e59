"""Worlds: a clock that is virtual, nodes and what befalls them, rest, and the same again for the same seed."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
from attrs import evolve

from stt_proto import Deadline, Endpoint, NetworkPath, Session, SessionState, Transmit
from stt_proto.errors import ArgumentError, SessionClosedError, SessionTimeoutError
from stt_proto.events import Event, SessionEstablished
from stt_proto.testing import (
    Conditions,
    DeterministicKem,
    Inbox,
    Link,
    Node,
    SeededEntropy,
    Traffic,
    World,
    held,
    send,
    tables,
)
from stt_proto.testing.entropy import CIPHERTEXT_SIZE, PUBLIC_SIZE
from stt_proto.testing.node import MAX_TICKS
from tests.proto.worlds import filler, serve_echo, session_pair

DATAGRAM = filler(100)


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


# -- links of a world ----------------------------------------------------------------------------------------------


def test_several_pairs_may_share_a_link() -> None:
    """One bottleneck for two flows: what the first puts into the queue delays the second."""
    world = World(1, Conditions(delay=0.0))
    one, two, server = world.node("one"), world.node("two"), world.node("server")
    shared = world.link(one, server, Conditions(delay=0.0, rate=8000))[0]
    world.links[two.address, server.address] = shared
    world.send(bytes(1000), one.path_to(server))
    world.send(bytes(1000), two.path_to(server))
    arrived = []
    for _ in range(3):
        arrived.append(world.datagrams)
        world.run(1.0)
    assert arrived == [0, 1, 2]
    assert shared.traffic.sent == 2
    assert world.traffic == Traffic(sent=2, bytes=2000, delivered=2), "and is counted once"


def test_both_ways_out() -> None:
    """An outage of both directions, also before anything was sent that way; and of one."""
    world = World(1)
    client, server = world.node("client", detach_timeout=0.0), world.node("server")
    world.outage(client, server, 0.0, 1.0)
    session = client.connect(server)
    assert world.links[client.address, server.address].traffic.cut == 1
    world.run(0.9)
    assert not server.log
    world.run_until(session.is_active)
    assert 1.0 <= world.now < 2.0
    world.links[server.address, client.address].outage(world.now + 1.0)
    world.run(100.0)
    assert isinstance(session.close_error, SessionTimeoutError)
    assert world.traffic.cut > 1


def test_links_are_made_when_they_are_needed() -> None:
    world = World(1, Conditions(delay=0.25))
    link = world.link_between(("a", 1), ("b", 1))
    assert isinstance(link, Link)
    assert link.conditions == Conditions(delay=0.25)
    assert world.link_between(("a", 1), ("b", 1)) is link
    assert world.link_between(("b", 1), ("a", 1)) is not link


# -- what befalls a node -------------------------------------------------------------------------------------------


def settled(**server: Any) -> tuple[World, Node, Node, Session, Session]:
    """A world with a session in it that is at rest."""
    world = World(1, record=True)
    one, two = world.node("client"), world.node("server", **server)
    session = one.connect(two)
    world.run_until(session.is_active)
    world.settle()
    (peer,) = two.sessions
    return world, one, two, session, peer


def test_a_node_with_an_address_of_its_own() -> None:
    world = World(1)
    client = world.node("client", address=("2001:db8::1", 4433))
    server = world.node("server", address=("2001:db8::2", 4433))
    session = client.connect(server)
    world.run_until(session.is_active)
    assert server.sessions[0].path == NetworkPath("udp", ("2001:db8::2", 4433), ("2001:db8::1", 4433))
    assert world.nodes["2001:db8::1", 4433] is client
    assert repr(client) == "<Node client>"


def test_listeners_hear_everything() -> None:
    """Besides `on_event`, and after it; one may take itself off meanwhile."""
    world = World(1)
    client, server = world.node("client"), world.node("server")
    heard: list[tuple[str, Event]] = []

    def once(_: Session | None, event: Event) -> None:
        heard.append(("once", event))
        client.listeners.remove(once)

    client.on_event = lambda _, event: heard.append(("on_event", event))
    client.listeners += [once, lambda _, event: heard.append(("always", event))]
    client.connect(server)
    world.settle()
    events = [event for _, _, event in client.log]
    assert [name for name, _ in heard[:3]] == ["on_event", "once", "always"]
    assert [event for name, event in heard if name == "always"] == events
    assert len(heard) == 2 * len(events) + 1


def test_a_clock_that_leaps_a_day() -> None:
    """R-10: the idle timer comes a day late; the peer is asked first, and lives."""
    world, client, _, session, peer = settled()
    client.jump_clock(86_400.0)
    assert client.now == world.now + 86_400.0
    world.run(5.0)
    assert session.is_active()
    upload = send(client, session, filler(10_000))
    world.run_until(lambda: upload.finished)
    assert peer.is_active()


def test_a_clock_that_goes_back() -> None:
    """`Clock`: costs lateness and nothing else, however far it goes back; then all goes on."""
    world, client, server, session, _ = settled()
    inbox = Inbox(server)
    client.jump_clock(-5.0)
    assert client.now == world.now - 5.0
    upload = send(client, session, filler(100_000))
    world.run_until(lambda: upload.done)
    assert inbox.digests == [upload.digest]
    world.run(60.0)
    assert session.is_active()
    session.close(client.now)
    world.assert_idle()


def test_a_clock_that_jumps_in_its_sleep() -> None:
    world, client, _, session, _ = settled()
    client.pause(5.0)
    client.jump_clock(3600.0)
    assert session.stats().uptime < 10.0, "it has not looked yet"
    world.run(10.0)
    assert session.stats().uptime > 3600.0
    assert session.is_active()


def test_a_host_that_sleeps() -> None:
    """It hears and says nothing, its timers are late, and it goes on when it wakes."""
    world, client, server, session, peer = settled()
    inbox = Inbox(server)
    server.pause(8.0)
    assert not server.awake
    upload = send(client, session, filler(50_000))
    sent = world.links[server.address, client.address].traffic.sent
    world.run(7.9)
    assert world.links[server.address, client.address].traffic.sent == sent
    assert not inbox.streams
    peer.send_datagram(b"said in its sleep", world.now)
    server.pump()
    assert world.links[server.address, client.address].traffic.sent == sent
    world.run(0.2)
    assert server.awake
    world.run_until(lambda: upload.finished)
    assert inbox.digests == [upload.digest]
    assert session.receive_datagram() == b"said in its sleep"
    assert str(world.transcript).count("-- server") == 2


def test_what_the_system_keeps_for_a_process_that_is_stopped() -> None:
    """Up to the size of the buffer, in order; then it is lost."""
    world, client, server, session, peer = settled()
    server.pause(buffer=2500)
    for number in range(5):
        session.send_datagram(bytes((number,)) * 1000, client.now)
    client.pump()
    world.run(0.02)
    assert peer.receive_datagram() is None
    server.resume()
    server.resume()
    got = []
    while (datagram := peer.receive_datagram()) is not None:
        got.append(datagram[0])
    assert got == [0, 1]


def test_a_nap_ends_itself_only() -> None:
    world = World(1)
    node = world.node("node")
    node.pause(5.0)
    world.run(1.0)
    node.resume()
    node.pause()
    world.run(60.0)
    assert not node.awake, "the first nap would have ended meanwhile"
    node.pause(1.0)
    world.run(1.0)
    assert node.awake


def test_a_timer_that_comes_up_in_its_sleep_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """R-10: both sleep for longer than the keep-alive timeout, and whoever wakes asks before giving up."""
    world, client, server, session, peer = settled()
    client.pause()
    server.pause()
    sent = world.traffic.sent
    with monkeypatch.context() as asleep:
        asleep.setattr(Endpoint, "tick", lambda *_: pytest.fail("it is asleep"))
        world.run(300.0)
    assert world.traffic.sent == sent
    client.resume()
    server.resume()
    world.run(10.0)
    assert session.is_active()
    assert peer.is_active()


def test_a_restart_with_a_reset_key() -> None:
    """C-5, P-14: same identity, same key, nothing remembered: it tells its old peers at once."""
    world, client, server, session, peer = settled(reset_key=b"k" * 32)
    before, identity = server.endpoint, server.config.identity
    server.restart()
    assert server.endpoint is not before
    assert server.config.identity is identity
    assert server.sessions == []
    send(client, session, b"are you there?")
    world.run(1.0)
    assert isinstance(session.close_error, SessionClosedError)
    again = client.connect(server)
    world.run_until(again.is_active)
    assert again.peer_node_id == identity.node_id
    assert again.session_id != peer.session_id


def test_a_restart_repeats_nothing() -> None:
    """Another life draws other randomness, or keys and numbers would be the same ones again."""
    world = World(1, record=True)
    client, server = world.node("client"), world.node("server")
    for _ in range(3):
        client.connect(server)
        world.run(0.001)
        client.restart()
    assert world.transcript is not None
    hellos = [entry.data for entry in world.transcript if entry.kind == "HELLO"]
    assert len(hellos) == len(set(hellos)) == 3


def test_a_restart_forgets_what_was_kept_for_its_sleep() -> None:
    world = World(1)
    client, server = world.node("client"), world.node("server")
    server.pause(buffer=10_000)
    client.connect(server)
    world.run(0.1)
    server.restart()
    assert server.awake
    assert server.idle


def test_a_restart_takes_its_time() -> None:
    """What comes meanwhile is lost; its configuration may be another one then."""
    world, client, server, _, _ = settled()
    server.restart(2.0, application="another")
    first = client.connect(server)
    assert not server.awake
    world.run(1.9)
    assert not server.awake
    assert not first.is_active()
    world.run(0.2)
    assert server.awake
    world.run(20.0)
    assert first.state is SessionState.CLOSED, "they do not share an application any more"
    assert server.config.application == "another"
    with pytest.raises(ArgumentError):
        server.restart(congestion="none")


# -- rest ----------------------------------------------------------------------------------------------------------


def test_settled() -> None:
    """Everything is delivered and acknowledged, and the session lives on."""
    pair = session_pair(seed=2, conditions=Conditions(loss=0.1, delay=0.05))
    inbox = Inbox(pair.server)
    upload = send(pair.client, pair.session, filler(50_000))
    pair.world.settle()
    assert upload.finished
    assert inbox.digests == [upload.digest]
    assert pair.session.stats().bytes_in_flight == pair.peer.stats().bytes_in_flight == 0
    assert pair.session.is_active()
    now = pair.now
    pair.world.settle()
    assert pair.now == now


def test_settling_waits_for_what_was_lost() -> None:
    """Nothing is on the wire, and yet it is not over."""
    world, client, server, session, _ = settled()
    world.outage(client, server, world.now, 1.0)
    upload = send(client, session, b"lost, and sent again")
    world.settle()
    assert upload.finished
    assert world.traffic.cut > 0


def test_settling_waits_for_an_acknowledgement_that_waits_for_company() -> None:
    world, client, _, session, _ = settled(ack_delay=0.2)
    session.send_datagram(b"alone", client.now)
    began = world.now
    world.settle()
    assert world.now == pytest.approx(began + 0.22, abs=0.001)


def test_what_does_not_settle_is_named() -> None:
    world = World(7)
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    server.pause()
    with pytest.raises(AssertionError, match=r"^not settled \(client has <Session .* handshaking .*World\(seed=7\)$"):
        world.settle(5.0)
    session.abort(world.now)
    world.settle()
    world.link(client, server, Conditions(delay=100.0))
    world.send(DATAGRAM, client.path_to(server))
    with pytest.raises(AssertionError, match=r"^not settled \(1 datagrams on the wire\) within 5 s"):
        world.settle(5.0)


def test_idle() -> None:
    """Every table of every endpoint is empty once the sessions are over and nobody lingers."""
    world, client, server, session, _ = settled()
    assert not client.idle
    session.close(world.now)
    world.assert_idle()
    assert client.idle
    assert server.idle
    assert held(client.endpoint) == {}
    assert set(tables(client.endpoint).values()) == {0}
    assert "half-open" in tables(client.endpoint)


def test_what_is_left_is_named() -> None:
    world, _, _, session, _ = settled()
    with pytest.raises(AssertionError, match=r"after 5 s .* left: .*'client': .*'sessions': 1.*'server'.*seed=1"):
        world.assert_idle(5.0)
    assert session.is_active()
    World(1).assert_idle()


def test_a_failure_says_how_to_see_it_again() -> None:
    """In a `with` statement any exception gets a line that makes the same world, and the last of the wire."""
    conditions = Conditions(loss=0.25)

    def fail(world: World) -> None:
        with world:
            world.node("client").connect(world.node("server"))
            world.run_until(lambda: False, timeout=0.05)

    with pytest.raises(ZeroDivisionError) as failed, World(5, conditions):
        assert 1 / 0
    assert failed.value.__notes__ == ["the same again: World(seed=5, conditions=Conditions(loss=0.25)), at 0.000000 s"]
    with pytest.raises(AssertionError) as failed_too:
        fail(World(6, record=True))
    first, second = failed_too.value.__notes__
    assert first.startswith("the same again: World(seed=6), at 0.0")
    assert second.splitlines()[0].startswith("the last of ")
    assert second.splitlines()[1].split()[5] == "HELLO"
    with World(1) as quiet:
        assert quiet.now == 0.0


def test_a_world_prints_as_what_makes_it() -> None:
    for world in (World(1), World(2, Conditions(delay=0.5, loss=0.1))):
        again = eval(repr(world), {"World": World, "Conditions": Conditions})
        assert (again.seed, again.conditions) == (world.seed, world.conditions)
    assert repr(World(3, Conditions(), record=True)) == "World(seed=3)"
