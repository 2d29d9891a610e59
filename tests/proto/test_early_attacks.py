"""Attacks on early data and on what begins with it (docs/protocol.md, sections 4.4 and 4.5)."""

from __future__ import annotations

from functools import partial

import pytest

from stt_proto.types import NetworkPath
from stt_proto.wire import MessageType
from stt_proto.wire.header import PACKET_FORM, TRAIN_BIT
from tests.proto.comeback import DELAY, FLEET, answering, assert_works
from tests.proto.test_early_data import EARLY, early_stage
from tests.proto.worlds import assert_empty, back, is_handshake


@pytest.mark.parametrize("lost", range(1, 6))
def test_a_copy_of_the_first_packet_from_elsewhere(lost: int) -> None:
    """H-40: where the session began the next packet shows the peer, though the question that went there was lost."""
    there = early_stage()
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    there.world.run_until(lambda: bool(there.server.sessions))
    (peer,) = there.server.sessions
    elsewhere = NetworkPath("udp", there.server.address, ("watcher", 1))
    packets: dict[bool, int] = {True: 0, False: 0}

    def disturb(datagram: bytes, path: NetworkPath) -> bytes | None:
        if is_handshake(datagram) or path.remote == elsewhere.remote:
            return datagram
        by_client = path.local == there.client.address
        packets[by_client] += 1
        if by_client and packets[True] == 1:
            there.server.receive(datagram, elsewhere)
        return None if not by_client and packets[False] == lost else datagram

    there.world.taps.append(disturb)
    stream = peer.stream(0)
    assert stream is not None
    stream.write(bytes(20_000), there.world.now)
    there.server.pump()
    there.world.run(3.0)
    own = session.early_stream
    assert own is not None
    assert len(own.read(50_000, there.world.now)) == 20_000
    assert peer.path == back(session.path)
    assert_works(there.world, session, peer)


@pytest.mark.parametrize("early_data", [b"", EARLY], ids=["none", "early"])
@pytest.mark.parametrize(("copied", "lost"), [("all", 0), ("all", 2), ("RESUME later", 0), ("only RESUME", 6)])
def test_no_flood_at_an_address_that_a_watcher_wrote(early_data: bytes, copied: str, lost: int) -> None:
    """H-35, H-40, M-3: who copies RESUME and all that follows, faster and with another's address as its source, floods
    nobody by that; and silences nobody, though some questions that went to the true address are lost."""
    there = early_stage()
    world, server, client = there.world, there.server, there.client
    victim = NetworkPath("udp", server.address, ("victim", 1))
    came, sent, answers = [0], [0], [0]

    def copy(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.remote == victim.remote:
            sent[0] += len(datagram)
            assert sent[0] <= 3 * came[0]
        elif path.local == client.address:
            resume = is_handshake(datagram)
            later = DELAY + 0.001 if resume and copied == "RESUME later" else 0.0
            if resume or copied != "only RESUME":
                came[0] += len(datagram)
                world.at(world.now + later, partial(server.receive, datagram, victim))
        elif not is_handshake(datagram) and path.remote == client.address:
            answers[0] += 1
            return None if answers[0] <= lost else datagram
        return datagram

    world.taps.append(copy)
    session = client.connect(server, ticket=there.ticket, early_data=early_data)
    world.run_until(lambda: bool(server.sessions))
    (peer,) = server.sessions
    down = peer.open_stream()
    down.write(bytes(200_000), world.now)
    server.pump()
    world.run_until(session.is_active)
    up = session.open_stream()
    got = 0
    for _ in range(500 if lost else 50):
        up.write(bytes(100), world.now)
        world.run(0.01)
        own = session.stream(down.stream_id)
        got += 0 if own is None else len(own.read(1 << 20, world.now))
        client.pump()
    assert got == 200_000
    assert peer.path == back(session.path)
    assert_works(world, session, peer)


@pytest.mark.parametrize("carrier", ["udp", "ws"])
def test_a_copy_whose_carrier_is_gone(carrier: str) -> None:
    """H-39, H-40: while the host counts, the carrier ends over which a copy came first; the session begins elsewhere,
    and though that carrier is reliable no other address is shown by it."""
    there = early_stage(ticket_check="shared")
    answering(there.server, [True], after=0.1)
    elsewhere = NetworkPath(carrier, there.server.address, ("watcher", 1))
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    ((resume, _),) = there.wire
    there.server.receive(resume, elsewhere)
    there.world.run(0.05)
    there.server.endpoint.path_closed(elsewhere, there.world.now)
    there.world.run_until(lambda: bool(there.server.sessions))
    (peer,) = there.server.sessions
    stream = peer.stream(0)
    assert stream is not None
    stream.write(bytes(20_000), there.world.now)
    there.wire.clear()
    there.server.pump()
    assert peer.path == back(session.path)
    assert 0 < sum(len(datagram) for datagram, _ in there.wire) <= 3600
    there.world.run_until(session.is_active)
    there.world.run(1.0)
    assert_works(there.world, session, peer)


def test_no_trains_before_the_address_is_shown() -> None:
    """P-9, H-40: who only knows the connection ID leaves no segments with a session that early data has begun."""
    there = early_stage()
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    there.world.run_until(lambda: bool(there.server.sessions))
    (peer,) = there.server.sessions
    (resumed,) = there.sent(MessageType.RESUMED)
    segment = bytes((PACKET_FORM | TRAIN_BIT,)) + resumed[17:25] + bytes(4) + b"\x01\x02" + bytes(1200 - 15)
    budget = there.server.endpoint._context.train_budget
    there.server.receive(segment, peer.path)
    assert budget.cost == 0
    there.world.run_until(lambda: not peer.replayable)
    there.server.receive(segment, peer.path)
    assert budget.cost > 0, "from then on they are taken as ever"
    assert_works(there.world, session, peer)


def test_a_carrier_that_ends_takes_no_session_with_it_that_is_anothers() -> None:
    """H-37, H-40: who copies RESUME over a connection of his own, and closes that, ends nothing."""
    there = early_stage()
    connection = NetworkPath("ws", there.server.address, ("watcher", 1))
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    ((resume, _),) = there.wire
    there.server.receive(resume, connection)
    there.world.run_until(lambda: len(there.sent(MessageType.RESUMED)) == 2)
    (peer,) = there.server.sessions
    there.server.endpoint.path_closed(connection, there.world.now)
    there.server.pump()
    stream = peer.stream(0)
    assert stream is not None
    stream.write(bytes(20_000), there.world.now)
    there.server.pump()
    there.world.run_until(session.is_active)
    there.world.run(2.0)
    own = session.early_stream
    assert own is not None
    assert len(own.read(50_000, there.world.now)) == 20_000
    assert peer.path == back(session.path)
    assert_works(there.world, session, peer)
    there.server.endpoint.path_closed(peer.path, there.world.now)
    there.client.endpoint.path_closed(session.path, there.world.now)
    there.world.run(200.0)
    assert_empty(there.client, there.server)


@pytest.mark.parametrize("early_data", [b"", EARLY], ids=["none", "early"])
def test_a_copier_who_hangs_up(early_data: bytes) -> None:
    """H-35, H-37: who is faster with a copy of the first packet too, and closes his connection then, ends nothing."""
    there = early_stage()
    world, server = there.world, there.server
    connection = NetworkPath("ws", server.address, ("watcher", 1))
    copied: list[bool] = []

    def copy(datagram: bytes, path: NetworkPath) -> bytes:
        if path.local == there.client.address and False not in copied:
            copied.append(is_handshake(datagram))
            server.receive(datagram, connection)
            if not copied[-1]:
                server.endpoint.path_closed(connection, world.now)
                server.pump()
        return datagram

    world.taps.append(copy)
    session = there.client.connect(server, ticket=there.ticket, early_data=early_data)
    world.run_until(lambda: False in copied)
    world.run(2.0)
    assert copied == [True, False]
    peer = server.endpoint.sessions[session.session_id]
    assert session.resumed
    assert peer.path == back(session.path)
    assert_works(world, session, peer)


def test_no_flood_at_whoever_is_left() -> None:
    """M-3, H-40: an address to which no RESUMED went is shown by no packet, though it is the only one that is left."""
    there = early_stage()
    world, server = there.world, there.server
    victim = NetworkPath("udp", server.address, ("victim", 1))
    came, sent = [0], [0]

    def copy(datagram: bytes, path: NetworkPath) -> bytes | None:
        if path.remote == victim.remote:
            sent[0] += len(datagram)
            assert sent[0] <= 3 * came[0]
        if path.local != there.client.address or is_handshake(datagram):
            return datagram
        came[0] += len(datagram)
        server.receive(datagram, victim)
        return None

    session = there.client.connect(server, ticket=there.ticket, early_data=EARLY)
    world.run_until(lambda: bool(server.sessions))
    world.taps.append(copy)
    (peer,) = server.sessions
    world.run_until(lambda: not peer.replayable)
    server.endpoint.path_closed(back(session.path), world.now)
    stream = peer.open_stream()
    stream.write(bytes(200_000), world.now)
    up = session.open_stream()
    for _ in range(50):
        up.write(bytes(100), world.now)
        there.client.pump()
        world.run(0.01)
    assert peer.path == victim
    assert sent[0] > 0


@pytest.mark.parametrize("early_data", [b"", EARLY], ids=["none", "early"])
def test_no_way_in_by_the_address_of_another(early_data: bytes) -> None:
    """H-35, H-40: `admit` is asked about the address from which the first packet comes, though a copy came before."""
    there = early_stage(fleet_secret=FLEET, ticket_check="shared")

    def admit(peer_node_id: bytes, path: NetworkPath, now: float) -> int | None:
        return 7 if path.remote == there.client.address else None

    strict = there.world.node("strict", config=there.server.config, address=("strict", 1), admit=admit)
    answering(strict, [True])
    session = there.client.connect(strict, ticket=there.ticket, early_data=early_data)
    ((resume, _),) = there.wire
    strict.receive(resume, NetworkPath("udp", strict.address, ("admitted", 1)))
    there.world.run(1.0)
    assert session.is_closed
    assert session.close_error is not None
    assert session.close_error.code == 7
    assert not strict.endpoint.sessions
    there.world.run(20.0)
    assert_empty(there.client, strict)
