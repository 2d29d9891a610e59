"""What the scenarios share: two nodes with a recorded wire between them, and how a scenario must end."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attrs import define

from stt_proto import Session
from stt_proto.events import HandshakeFailed, SessionClosed
from stt_proto.testing import BROADBAND, Conditions, Entry, Inbox, Link, Node, Transcript, World, send
from stt_proto.wire import MessageType
from tests.proto.worlds import filler

HANDSHAKE = tuple(kind.name for kind in MessageType)


@define
class Scene:
    """Two nodes, the two directions of the link between them, and what has come to either.

    Attributes:
        world: with a transcript.
        client: the node that dials.
        server: the other one.
        there: the link from the client to the server.
        back: the other direction.
        inbox: what came to the server.
        outbox: what came to the client.
    """

    world: World
    client: Node
    server: Node
    there: Link
    back: Link
    inbox: Inbox
    outbox: Inbox

    @property
    def wire(self) -> Transcript:
        assert self.world.transcript is not None
        return self.world.transcript

    def kinds(self, source: Node | None = None) -> Counter[str]:
        """Datagrams sent, by one side or by both, by kind; pieces and segments count as what they are of."""
        seen = (entry for entry in self.wire if source is None or entry.source == source.address)
        kinds = Counter(entry.kind.split()[0] for entry in seen)
        kinds["packet"] += kinds.pop("segment", 0)
        return kinds

    def handshake(self, *names: str) -> list[Entry]:
        """The datagrams of these messages, pieces among them."""
        return [entry for entry in self.wire if entry.kind.split()[0] in names]

    def dial(self, **options: Any) -> Session:
        """Dial, and wait for the session."""
        session = self.client.connect(self.server, **options)
        self.world.run_until(session.is_active)
        return session

    def upload(self, session: Session, *sizes: int, timeout: float = 120.0) -> float:
        """Send so many bytes on a stream each, see that they arrive whole, and give the seconds that it took."""
        began = self.world.now
        before = len(self.inbox.complete)
        sent = [send(self.client, session, filler(size, (before, n)), purpose=str(n)) for n, size in enumerate(sizes)]
        self.world.run_until(lambda: len(self.inbox.complete) == before + len(sizes), timeout)
        taken = self.world.now - began
        self.world.run_until(lambda: all(each.finished for each in sent), timeout)
        arrived = {incoming.purpose: incoming.digest for incoming in self.inbox.complete[before:]}
        assert arrived == {str(n): each.digest for n, each in enumerate(sent)}
        return taken

    def finish(self, *sessions: Session) -> None:
        """Close these; that has to be the end of everything, with code 0 on both sides, and nothing is left."""
        for session in sessions:
            session.close(self.world.now)
        self.world.assert_idle(within=60.0)
        for node in (self.client, self.server):
            assert {(event.reason, event.code) for event in node.events(SessionClosed)} == {("graceful", 0)}
            assert node.events(HandshakeFailed) == []


def scene(
    conditions: Conditions = BROADBAND,
    back: Conditions | None = None,
    *,
    seed: int = 1,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
) -> Scene:
    """Two nodes; the dicts are changes to their `Config`, or options of `World.node`."""
    world = World(seed, record=True)
    one, two = world.node("client", **(client or {})), world.node("server", **(server or {}))
    return Scene(world, one, two, *world.link(one, two, conditions, back), Inbox(two), Inbox(one))
