"""Scenarios of a session that outlives its path: rebinding, migration, detach, resumption, rotation.

Each over both kinds of carrier: one that loses datagrams, and one that loses nothing as long as it is there. Each
asserts from the wire that what it is about really happened (`Transcript`), and ends with both sides idle. On the web
an address that changes ends the connection, and the host opens another one: `Line.reconnect`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from attrs import define

from stt_proto import NetworkPath, Session
from stt_proto.events import (
    EarlyDataReceived,
    KeysRotated,
    PathLost,
    PathValidated,
    SessionDetached,
    SessionEstablished,
    SessionMoved,
    SessionReattached,
    StreamReadable,
)
from stt_proto.testing import BROADBAND, Conditions, Entry, send
from stt_proto.testing.nat import FIRST_PORT
from tests.proto.scenario import HANDSHAKE, Scene, scene
from tests.proto.worlds import back, filler

WIDE = Conditions(delay=0.015, rate=50e6, queue=1 << 26)
"""A link with a queue in which a carrier keeps what it may not lose."""
SIZE = {"udp": 3_000_000, "both": 10_000_000, "ws": 30_000_000}
"""Bytes each way that take some seconds."""
KINDS = pytest.mark.parametrize("carrier", ["udp", "ws"])
RTT = 0.03


@define
class Line:
    """A session over one kind of carrier.

    Attributes:
        case: where.
        carrier: `"udp"` or `"ws"`.
        session: the client's end.
        peer: the server's.
    """

    case: Scene
    carrier: str
    session: Session
    peer: Session
    ports: int = 1

    def wire(self, path: NetworkPath) -> None:
        """Give a path the link of its kind, in both directions."""
        for source, target in ((path.local, path.remote), (path.remote, path.local)):
            self.case.world.link_between(source, target).conditions = BROADBAND if path.carrier == "udp" else WIDE

    def elsewhere(self, carrier: str = "") -> NetworkPath:
        """A path from another port of the client."""
        self.ports += 1
        local = self.case.client.also_at(("client", self.ports))
        return self.case.client.path_to(self.case.server, carrier or self.carrier, local=local)

    def go(self, path: NetworkPath, *, migrate: bool = True) -> None:
        (self.session.migrate if migrate else self.session.add_path)(path, self.case.world.now)
        self.case.client.pump()

    def cut(self, path: NetworkPath, *, up: bool = False) -> None:
        """No way leads there any more, in either direction."""
        for source, target in ((path.local, path.remote), (path.remote, path.local)):
            self.case.world.link_between(source, target).up = up

    def reconnect(self) -> NetworkPath:
        """The connection ends, which both hosts are told, and what was in it is lost; the client opens another one."""
        old, new, world = self.session.path, self.elsewhere(), self.case.world
        self.cut(old)
        for node, path in ((self.case.client, old), (self.case.server, back(old))):
            node.endpoint.path_closed(path, world.now, "reset by peer")
        self.go(new, migrate=False)
        self.case.server.pump()
        return new

    def packets(self, path: NetworkPath, since: float, until: float = float("inf")) -> list[Entry]:
        """What the client sent over a path in that time."""
        sent = self.case.wire.between(path.local, path.remote)
        return [entry for entry in sent if since <= entry.at < until]

    def transfer(self, *happens: Callable[[], None], every: float = 0.4, over: str = "") -> float:
        """Both ways at once; these happen meanwhile. Gives the time at which all had arrived."""
        case, world, size = self.case, self.case.world, SIZE[over or self.carrier]
        before = len(case.inbox.complete), len(case.outbox.complete)
        upload = send(case.client, self.session, filler(size))
        download = send(case.server, self.peer, filler(size, 1))
        for each in happens:
            world.run(every)
            assert not upload.done
            assert not download.done
            each()
        world.run_until(lambda: upload.done and download.done, 180.0)
        assert case.inbox.digests[before[0] :] == [upload.digest]
        assert case.outbox.digests[before[1] :] == [download.digest]
        return world.now


def line(carrier: str, *, nat: bool = False, server: dict[str, Any] | None = None) -> Line:
    conditions = BROADBAND if carrier == "udp" else WIDE
    case = scene(conditions, server=server)
    case.world.conditions = conditions
    if nat:
        case.world.nat(case.client)
    session = case.dial(carrier=carrier)
    case.world.run(1.0)
    (peer,) = case.server.sessions
    return Line(case, carrier, session, peer)


def sources(case: Scene) -> list[object]:
    """From where packets came to the server, in order."""
    seen = (entry for entry in case.wire if entry.target == case.server.address and entry.arrivals)
    return list(dict.fromkeys(entry.source for entry in seen if entry.kind.split()[0] in ("packet", "segment")))


# -- rebinding -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["port", "address"])
def test_rebinding(what: str) -> None:
    """M-3, M-5: a translator gives the client another port, or address, three times; what is sent to the old vanishes.

    Each time the server asks who is there before it goes on at full speed.
    """
    there = line("udp", nat=True)
    (nat,) = there.case.world._nats
    first = nat.host
    there.transfer(*[nat.rebind_port if what == "port" else nat.rebind_address] * 3, every=0.6)
    places = sources(there.case)
    assert len(places) == len({port for _, port in places}) == 4  # type: ignore[misc]
    assert len({host for host, _ in places}) == (1 if what == "port" else 4)  # type: ignore[misc]
    assert places[0] == (first, FIRST_PORT)
    assert [event.path.remote for event in there.case.server.events(PathValidated)] == places[1:]
    assert len(there.case.wire.having("not let in by the nat")) > 100
    assert there.case.server.events(SessionMoved)[-1].new.remote == sources(there.case)[-1]
    assert not there.case.client.events(SessionMoved)
    there.case.finish(there.session)


def test_rebinding_of_connections() -> None:
    """M-6, M-9: the same with a WebSocket, whose connection does not survive: each time another one is opened."""
    there = line("ws")
    old: list[NetworkPath] = []

    def rebind() -> None:
        old.append(there.session.path)
        there.reconnect()

    there.transfer(*[rebind] * 3, every=0.6)
    assert len(sources(there.case)) == 4
    for path in old:
        link = there.case.world.link_between(path.local, path.remote)
        assert not link.up
        assert there.packets(path, 0.0)
    assert [event.path for event in there.case.client.events(PathLost)] == old
    assert len(there.case.client.events(SessionReattached)) == 3
    assert not there.case.client.events(SessionEstablished)[1:], "one session, and no other"
    there.case.finish(there.session)


# -- migration -----------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("to", ["udp", "ws"])
def test_migration(carrier: str, to: str) -> None:
    """M-7: told to, the session goes on from another port, over the same kind of carrier or the other, and returns."""
    there = line(carrier)
    first, second, times = there.session.path, there.elsewhere(to), []
    there.wire(second)

    def move() -> None:
        times.append(there.case.world.now)
        there.go(second if len(times) == 1 else first)

    ended = there.transfer(move, move, every=0.8, over=carrier if carrier == to else "both")
    settled = 2 * RTT + 0.05
    away, home = times
    for path, since, until in ((first, 0.0, away), (second, away + settled, home), (first, home + settled, ended)):
        used = sum(len(entry.data) for entry in there.packets(path, since, until))
        idle = sum(len(entry.data) for entry in there.packets(second if path is first else first, since, until))
        assert used > 100_000
        assert idle < used // 10
    assert [event.new for event in there.case.client.events(SessionMoved)] == [second, first]
    assert [event.new for event in there.case.server.events(SessionMoved)] == [back(second), back(first)]
    there.case.finish(there.session)


# -- detach --------------------------------------------------------------------------------------------------------


@KINDS
def test_detach(carrier: str) -> None:
    """M-9, M-10: the cable is out for 60 s. Both sides wait; then the streams go on, each at its byte."""
    there = line(carrier)
    first, world = there.session.path, there.case.world
    outage: list[float] = []

    def pull() -> None:
        outage.append(world.now)
        there.cut(first)
        world.run(60.0)
        assert there.session.is_detached
        assert there.peer.is_detached
        outage.append(world.now)
        there.cut(first, up=True)
        if carrier == "ws":  # the host opens a connection as soon as it can
            there.go(there.elsewhere(), migrate=False)

    ended = there.transfer(pull, every=0.5)
    began, over = outage
    lost = [entry for entry in there.case.wire.having("lost") if began <= entry.at < over]
    assert {entry.source for entry in lost} == {there.case.client.address, there.case.server.address}
    arrived = [at for entry in there.case.wire for at in entry.arrivals]
    assert not [at for at in arrived if began + RTT + 0.5 < at < over]
    assert ended - over < 15.0
    for node in (there.case.client, there.case.server):
        assert len(node.events(SessionDetached)) == len(node.events(SessionReattached)) == 1
        assert len(node.events(SessionEstablished)) == 1
    there.case.finish(there.session)


# -- resumption ----------------------------------------------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("then", ["udp", "ws"])
def test_resumption(carrier: str, then: str) -> None:
    """H-35: over the same kind of carrier and the other: two datagrams, one round trip, no other handshake message."""
    there = line(carrier)
    case, world = there.case, there.case.world
    case.upload(there.session, 10_000)
    ticket = there.session.ticket
    assert ticket is not None
    there.session.close(world.now)
    case.client.pump()
    world.run(15.0)
    there.wire(case.client.path_to(case.server, then))
    before, began = case.kinds(), world.now
    session = case.client.connect(case.server, then, ticket=ticket)
    world.run_until(session.is_active)
    took = world.now - began
    handshake = {kind: count for kind, count in (case.kinds() - before).items() if kind in HANDSHAKE}
    assert handshake == {"RESUME": 1, "RESUMED": 1}
    ((resume,), (resumed,)) = (case.handshake(kind) for kind in ("RESUME", "RESUMED"))
    assert (resume.source, resumed.source) == (case.client.address, case.server.address)
    assert took <= RTT + (len(resume.data) + len(resumed.data)) * 8 / 10e6 + 1e-6
    assert session.resumed
    case.upload(session, 1000, 1_000_000)
    case.finish(session)


@KINDS
def test_early_data(carrier: str) -> None:
    """H-38 to H-40: 32 bytes are there after half a round trip and answered after one; nothing else was sent for it."""
    there = line(carrier, server={"max_early_data": 100})
    case, world = there.case, there.case.world
    ticket = there.session.ticket
    assert ticket is not None
    there.session.close(world.now)
    case.client.pump()
    world.run(15.0)

    def answer(session: Session | None, event: object) -> None:
        if isinstance(event, StreamReadable) and session is not None and (stream := session.stream(0)) is not None:
            stream.write(stream.read(100, world.now).upper(), world.now)
            stream.finish(world.now)

    case.server.listeners[:] = [answer]
    request, began, before = b"is the kettle on?".ljust(32), world.now, len(case.wire.entries)
    session = case.client.connect(case.server, carrier, ticket=ticket, early_data=request)
    world.run_until(lambda: case.outbox.streams and next(iter(case.outbox.streams.values())).size == 32)
    took, sent = world.now - began, case.wire.entries[before:]
    assert case.server.events(EarlyDataReceived) == [EarlyDataReceived(0, 32)]
    assert session.early_data_accepted
    assert [entry.kind for entry in sent[:2]] == ["RESUME", "RESUMED"]
    on_the_way = sum(len(entry.data) for entry in sent) * 8 / 10e6
    assert took <= RTT + on_the_way + 1e-6
    assert not [entry for entry in sent[2:] if entry.source == case.client.address and entry.at < began + RTT]
    early = session.early_stream
    assert early is not None
    early.finish(world.now)
    world.run(1.0)
    case.finish(session)


# -- rotation ------------------------------------------------------------------------------------------------------


@KINDS
def test_rotation(carrier: str) -> None:
    """V-3, V-5: new keys five times, from either side, in mid-transfer; what was on the wire before opens no more."""
    there = line(carrier)
    case, world = there.case, there.case.world
    case.upload(there.session, 5000)
    (old,) = [entry.data for entry in case.wire.between(case.client.address, case.server.address)][-1:]
    assert old[0] & 0x80 == 0, "a packet, not a message of the handshake"

    def rotate(number: int) -> None:
        node, session = (case.client, there.session) if number % 2 else (case.server, there.peer)
        version = session.rotate_key(world.now)
        node.pump()
        world.run_until(lambda: there.session.key_version == there.peer.key_version == version, 2.0)

    there.transfer(*[partial(rotate, number) for number in range(5)], every=0.1)
    world.run(1.0)
    assert there.session.key_version == there.peer.key_version == 5
    for node in (case.client, case.server):
        assert [event.key_version for event in node.events(KeysRotated)] == [1, 2, 3, 4, 5]
    engines = there.peer._engines
    assert engines is not None
    received, unknown = there.peer.stats().packets_received, engines.receiver.counters.unknown_epoch
    case.server.endpoint.receive(old, there.peer.path, world.now)
    assert there.peer.stats().packets_received == received
    assert engines.receiver.counters.unknown_epoch == unknown + 1
    case.finish(there.session)
