"""Coming back with a ticket: a client that has one, its server, and what both and others may do."""

from __future__ import annotations

from functools import partial
from typing import Any

from attrs import define

from stt_proto import Session, SessionState, Ticket
from stt_proto.errors import SessionResumptionError
from stt_proto.events import ResumptionRefused, SessionEstablished, TicketOffered
from stt_proto.testing import Conditions, Node, World
from stt_proto.tickets import TicketRefusal
from stt_proto.types import NetworkPath
from stt_proto.wire import MessageType
from tests.proto.worlds import assert_empty, is_handshake

FLEET = b"fleet secret of thirty-two bytes"
DELAY = 0.02
"""Seconds each way."""


@define
class Stage:
    """A client with a ticket of a server, and no session any more.

    Attributes:
        world: the world.
        client: who has the ticket.
        server: who gave it.
        ticket: the ticket.
        wire: every datagram from now on, with its path.
    """

    world: World
    client: Node
    server: Node
    ticket: Ticket
    wire: list[tuple[bytes, NetworkPath]]

    def resume(
        self, node: Node | None = None, server: Node | None = None, carrier: str = "udp", **options: Any
    ) -> Session:
        """Dial with the ticket, and let things settle."""
        session = (node or self.client).connect(server or self.server, carrier, **{"ticket": self.ticket, **options})
        self.world.run_until(lambda: session.state is not SessionState.HANDSHAKING, timeout=20.0)
        return session

    def sent(self, kind: MessageType) -> list[bytes]:
        """The datagrams with one message."""
        return [datagram for datagram, _ in self.wire if is_handshake(datagram, kind)]


def stage(
    seed: int = 1,
    conditions: Conditions | None = None,
    *,
    carrier: str = "udp",
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
) -> Stage:
    """A client that had a session, and got a ticket."""
    world = World(seed, conditions or Conditions(delay=DELAY))
    one, two = world.node("client", **(client or {})), world.node("server", **(server or {}))
    session = one.connect(two, carrier)
    world.run_until(lambda: session.ticket is not None)
    ticket = session.ticket
    assert ticket is not None
    session.close(world.now)
    one.pump()
    world.run(15.0)
    assert_empty(one, two)
    one.log.clear()
    two.log.clear()
    wire: list[tuple[bytes, NetworkPath]] = []
    world.taps.append(lambda datagram, path: wire.append((datagram, path)) or datagram)
    return Stage(world, one, two, ticket, wire)


def assert_resumed(there: Stage, session: Session, server: Node | None = None) -> Session:
    """Both ends have one session, begun with the ticket, that works; gives the server's end."""
    server = server or there.server
    assert session.resumed
    assert session.resumption_error is None
    there.world.run_until(lambda: session.session_id in server.endpoint.sessions)
    peer = server.endpoint.sessions[session.session_id]
    assert peer.resumed
    assert peer.peer_node_id == there.client.config.identity.node_id
    assert session.peer_node_id == server.config.identity.node_id
    assert peer.export_keying_material("x", 32) == session.export_keying_material("x", 32)
    assert_works(there.world, session, peer)
    return peer


def assert_works(world: World, session: Session, peer: Session) -> None:
    """Data goes both ways."""
    stream = session.open_stream()
    stream.write(b"there", world.now)
    pump(world)
    world.run(1.0)
    echo = peer.stream(stream.stream_id)
    assert echo is not None
    assert echo.read(10, world.now) == b"there"
    echo.write(b"back", world.now)
    pump(world)
    world.run(1.0)
    assert stream.read(10, world.now) == b"back"


def pump(world: World) -> None:
    for node in world.nodes.values():
        node.pump()


def assert_refused(session: Session, node: Node, reason: TicketRefusal) -> None:
    """There is a session all the same, and the application knows why it took longer."""
    assert session.is_active()
    assert not session.resumed
    assert isinstance(session.resumption_error, SessionResumptionError)
    assert session.resumption_error.reason == reason
    assert node.events(ResumptionRefused) == [ResumptionRefused(reason)]
    kinds = [type(event) for _, _, event in node.log]
    assert kinds.index(ResumptionRefused) < kinds.index(SessionEstablished)


def answering(node: Node, answers: list[bool], after: float = 0.0) -> list[TicketOffered]:
    """Let the host of a node answer; gives what it was asked."""
    asked: list[TicketOffered] = []

    def answer(session: Session | None, event: object) -> None:
        if isinstance(event, TicketOffered):
            assert session is not None
            asked.append(event)
            answer = answers.pop(0)

            def say() -> None:
                session.answer_ticket(answer, node.now)
                node.pump()

            if after:
                node.world.at(node.world.now + after, say)
            else:
                say()

    node.listeners.append(answer)
    return asked


def copying(there: Stage, after: float) -> None:
    """Somebody sends the first RESUME again, from elsewhere, `after` seconds."""
    copied: list[bytes] = []

    def copy(datagram: bytes, path: NetworkPath) -> bytes:
        if is_handshake(datagram, MessageType.RESUME) and not copied:
            copied.append(datagram)
            elsewhere = NetworkPath("udp", there.server.address, ("watcher", 1))
            there.world.at(there.world.now + after, partial(there.server.receive, datagram, elsewhere))
        return datagram

    there.world.taps.append(copy)
