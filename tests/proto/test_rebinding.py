"""Addresses that change under a session, and others that only look as if (section 11.1): M-3 to M-6."""

from __future__ import annotations

from itertools import count

import pytest

from stt_proto import NetworkPath, PathStatus, Session
from stt_proto.events import PathLost, PathValidated, SessionDetached, SessionMoved
from stt_proto.testing import Conditions, Inbox, Nat, Node, World, send
from tests.proto.worlds import filler, sealed

INSIDE, SERVER = ("client", 1), ("server", 1)


def behind(conditions: Conditions | None = None, **traits: object) -> tuple[World, Nat, Session, Session]:
    """A session through a translator of addresses: as the client and as the server see it."""
    world = World(1, conditions)
    client, server = world.node("client"), world.node("server")
    nat = world.nat(client, **traits)
    session = client.connect(server)
    world.run_until(session.is_active)
    world.run(1.0)
    (peer,) = server.sessions
    return world, nat, session, peer


@pytest.mark.parametrize("kind", ["port", "address"])
@pytest.mark.parametrize("upwards", [True, False])
def test_rebound_every_second(kind: str, upwards: bool) -> None:
    """C8, E8, M-5: the peer does not know of it; each time the session is found again, and no byte is lost."""
    world, nat, session, peer = behind(Conditions(delay=0.02, rate=8e6))
    client, server = world.nodes[INSIDE], world.nodes[SERVER]
    inbox = Inbox(server if upwards else client)
    upload = send(client, session, filler(5_000_000)) if upwards else send(server, peer, filler(5_000_000))
    for second in range(1, 30):
        world.at(world.now + second, nat.rebind_port if kind == "port" else nat.rebind_address)
    if not upwards:  # whoever only receives has to say something now and then
        tick = world.at
        for tenth in range(1, 300):
            tick(world.now + tenth / 10, lambda: (session.send_datagram(b"here", world.now), client.pump())[0])
    started = world.now
    world.run_until(lambda: upload.done, timeout=60.0)
    assert inbox.digests == [upload.digest]
    assert world.now - started < 20.0
    assert peer.path.remote == nat.public_address(INSIDE)
    moved = server.events(SessionMoved)
    assert len(moved) >= 5
    assert not any(event.by_peer for event in moved)
    assert not client.events(SessionMoved)
    assert not server.events(SessionDetached)


def test_rebound_while_idle() -> None:
    """M-5, K-4: the next sign of life is asked for from another address, and the server finds it."""
    world, nat, session, peer = behind()
    nat.rebind_port()
    world.run(11.0)
    assert peer.path.remote == nat.public_address(INSIDE)
    assert session.is_active()


class Forwarder:
    """Somebody on the way who copies what a client sends, and is faster; what he gets, he hands on.

    Args:
        world: where.
        client, server: between whom.
        address: his own.
        silent: whether he keeps what he gets for himself.
    """

    def __init__(self, world: World, client: Node, server: Node, address: tuple[str, int], silent: bool) -> None:
        self.client, self.server, self.address, self.silent = client, server, address, silent
        self.world = world
        self.caught = 0
        world.taps.append(self._tap)

    def _tap(self, datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.local == self.client.address:
            forged = NetworkPath(path.carrier, self.server.address, self.address)
            self.world.at(self.world.now, lambda: self.server.receive(datagram, forged))
        elif path.remote == self.address:
            self.caught += 1
            if not self.silent:
                genuine = NetworkPath(path.carrier, self.client.address, self.server.address)
                self.world.at(self.world.now + 0.005, lambda: self.client.receive(datagram, genuine))
            return None
        return datagram


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("upwards", [True, False])
def test_a_faster_forwarder(silent: bool, upwards: bool) -> None:
    """M-4, M-5: all that the server gets of the client comes from another address first, and the session stays."""
    world = World(1, Conditions(delay=0.02, rate=8e6))
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run_until(session.is_active)
    world.run(1.0)
    (peer,) = server.sessions
    old = peer.path
    thief = Forwarder(world, client, server, ("thief", 666), silent)
    inbox = Inbox(server if upwards else client)
    upload = send(client, session, filler(5_000_000)) if upwards else send(server, peer, filler(5_000_000))
    world.run_until(lambda: upload.done, timeout=30.0)
    world.run(60.0)
    assert inbox.digests == [upload.digest]
    assert thief.caught > 0
    assert peer.path == old
    assert not server.events(SessionMoved)
    assert not client.events(SessionMoved)


def test_a_forwarder_who_stops() -> None:
    """M-3: it was he who was known under another address; nothing is left of him."""
    world = World(1, Conditions(delay=0.02))
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run_until(session.is_active)
    world.run(1.0)
    (peer,) = server.sessions
    Forwarder(world, client, server, ("thief", 666), False)
    world.run(25.0)
    assert len(peer.paths) == 2
    world.taps.clear()
    world.run(60.0)
    assert [info.path.remote for info in peer.paths] == [client.address]
    assert session.is_active()


# -- strangers -----------------------------------------------------------------------------------------------------


def test_a_stolen_connection_id_moves_nothing() -> None:
    """G-3, C-1: who knows the ID and has no keys makes no candidate, and gets no answer."""
    world, _, session, peer = behind()
    server = world.nodes[SERVER]
    stolen: list[bytes] = []
    answers: list[bytes] = []

    def tap(datagram: bytes, path: NetworkPath) -> bytes:
        (stolen if path.local == INSIDE else answers).append(datagram)
        return datagram

    world.taps.append(tap)
    session.send_datagram(b"x", world.now)
    world.nodes[INSIDE].pump()
    world.run(0.1)
    thief = NetworkPath("udp", SERVER, ("thief", 1))
    world.settle()
    world.run(0.1)
    before, heard = peer.paths, len(answers)
    for datagram in stolen:
        server.receive(datagram, thief)  # a copy
        server.receive(datagram[:9] + filler(100), thief)  # the ID, and nothing behind it
        server.receive(datagram[:-1] + bytes((datagram[-1] ^ 1,)), thief)
    world.run(1.0)
    assert peer.paths == before
    assert stolen
    assert len(answers) == heard
    assert not server.events(PathValidated)


def scattered(number: int) -> NetworkPath:
    return NetworkPath("udp", SERVER, ("elsewhere", number))


def test_not_more_than_four_candidates() -> None:
    """M-3: each packet of the client comes from yet another address. The oldest goes, and nobody is told."""
    world, _, session, peer = behind()
    server = world.nodes[SERVER]
    for number in range(100):
        (datagram,) = sealed(session, b"\x01" + bytes(60))
        server.receive(datagram, scattered(number))
        assert len(peer.paths) == min(number + 1, 4) + 1
        if number >= 3:  # all places are taken, and 50 ms are not over; what is in it is MOVE 5
            (datagram,) = sealed(session, b"\x22\x05\x01" + bytes(60))
            server.receive(datagram, scattered(1000 + number))
            assert scattered(1000 + number) not in [info.path for info in peer.paths]
        world.run(0.051)
    assert [info.path for info in peer.paths[1:]] == [scattered(number) for number in range(96, 100)]
    assert peer.paths[0].status is PathStatus.ACTIVE
    world.run(30.0)
    assert len(peer.paths) == 1, "nobody answered there"
    assert not server.events(PathLost)
    assert not server.events(SessionMoved)


def test_copies_do_not_feed_on_the_answers_to_them() -> None:
    """M-3: somebody sends a copy of each packet from yet another address, and on to the client what is answered.

    The answers were packets to be copied too: both ends closed after 0.4 s, with 1,181 copies of one packet (F-5).
    """
    world = World(1, Conditions(delay=0.02))
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run(1.0)
    copies = count(10_000)

    def forwarder(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.remote == SERVER and path.local == INSIDE:
            source = NetworkPath("udp", SERVER, ("forwarder", next(copies)))
            world.at(world.now + 0.015, lambda: server.receive(datagram, source))
        elif path.remote[0] == "forwarder":  # type: ignore[index]
            world.at(world.now + 0.02, lambda: client.receive(datagram, NetworkPath("udp", INSIDE, SERVER)))
            return None
        return datagram

    world.taps.append(forwarder)
    session.send_datagram(bytes(600), world.now)
    client.pump()
    world.run(60.0)
    assert session.is_active()
    assert server.sessions[0].is_active()
    assert next(copies) < 10_200


def test_not_more_than_three_times_what_came() -> None:
    """M-3: an address that has not answered is no target for a flood."""
    world, _, session, peer = behind()
    server = world.nodes[SERVER]
    received = sent = 0

    def tap(datagram: bytes, path: NetworkPath) -> bytes | None:
        nonlocal sent
        if path.remote[0] != "elsewhere":  # type: ignore[index]
            return datagram
        sent += len(datagram)
        assert sent <= 3 * received
        return None

    world.taps.append(tap)
    for size in (0, 0, 10, 200, 1000, 1000, 0):
        (datagram,) = sealed(session, b"\x1a" + filler(8), bytes(size + 15))
        received += len(datagram)
        server.receive(datagram, scattered(1))
        world.run(0.5)
    assert sent > 1200, "it was asked all the same"
    world.run(20.0)
    assert len(peer.paths) == 1


def test_a_flood_of_challenges_gets_one_answer_a_batch() -> None:
    """F-5: only the newest one waits to be answered."""
    world, _, session, peer = behind()
    server = world.nodes[SERVER]
    numbers = count()
    for _ in range(100):
        (datagram,) = sealed(session, b"\x1a" + next(numbers).to_bytes(8, "big"))
        server.endpoint.receive(datagram, peer.path, world.now)
    assert sum(1 for _ in server.endpoint.transmits(world.now)) <= 2
