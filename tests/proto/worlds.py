"""Two nodes with a session between them, and what tests need: applications, forgeries, a look at the tables."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from attrs import define

from stt_proto import Config, Endpoint, Identity, NetworkPath, Session, Stream
from stt_proto.errors import RemoteError, StreamClosedError
from stt_proto.events import Event, StreamFinished, StreamOpened, StreamReadable, StreamReset, StreamWritable
from stt_proto.testing import Conditions, Node, SeededEntropy, World, held
from stt_proto.wire import Frame, MessageType


@define
class Pair:
    """A world with one session in it.

    Attributes:
        world: the world.
        client: the node that dialled.
        server: the other one.
        session: the session as the client sees it.
        peer: the same as the server sees it.
    """

    world: World
    client: Node
    server: Node
    session: Session
    peer: Session

    @property
    def now(self) -> float:
        return self.world.now

    def pump(self) -> None:
        """Both hosts do what a host does after a call."""
        self.client.pump()
        self.server.pump()

    def settle(self, seconds: float = 1.0) -> None:
        """Let what is on its way arrive."""
        self.pump()
        self.world.run(seconds)

    def inject(self, *frames: Frame | bytes, to: Session | None = None) -> None:
        """Let the peer of `to` (the server's session, if not told) send a packet with these frames."""
        to = to or self.peer
        sender, node = (self.session, self.server) if to is self.peer else (self.peer, self.client)
        for datagram in sealed(sender, *frames):
            node.endpoint.receive(datagram, to.path, self.now)
        node.pump()


def session_pair(
    seed: int = 1,
    conditions: Conditions | None = None,
    *,
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    carrier: str = "udp",
) -> Pair:
    """A world in which `client` has dialled `server` and both have settled; the dicts are changes to their `Config`."""
    world = World(seed, conditions)
    one, two = world.node("client", **(client or {})), world.node("server", **(server or {}))
    session = one.connect(two, carrier)
    world.run_until(session.is_active)
    world.run(1.0)
    (peer,) = two.endpoint.sessions.values()
    return Pair(world, one, two, session, peer)


def back(path: NetworkPath) -> NetworkPath:
    """A path as the other end sees it."""
    return NetworkPath(path.carrier, path.remote, path.local)


# -- an endpoint without a world, a dial without an answer --------------------------------------------------------

IDENTITY = Identity.from_seed(bytes(range(32)))
PATH = NetworkPath("udp", ("here", 1), ("there", 1))


def lone_endpoint(**changes: Any) -> Endpoint:
    """An endpoint that the test itself hands everything; `changes` are to its `Config`."""
    config = Config(identity=IDENTITY, shared_seed="between us", **changes)
    return Endpoint(config, now=0.0, unix_time=1.7e9, entropy=SeededEntropy(0))


def datagrams_of(node: Node, now: float) -> list[bytes]:
    """Everything that a node wants to send now, in single datagrams."""
    return [datagram for transmit in node.endpoint.transmits(now) for datagram in transmit.datagrams()]


def dialled(seed: int = 1, **changes: object) -> tuple[World, Session]:
    """A dial whose HELLO has just left."""
    world = World(seed)
    client, server = world.node("client", **changes), world.node("server")
    return world, client.connect(server)


# -- forgeries -----------------------------------------------------------------------------------------------------


def sealed(sender: Session, *frames: Frame | bytes, datagram_size: int = 1200) -> list[bytes]:
    """The datagrams of a packet under `sender`'s own keys: what a peer that has them may do to the other side.

    This reaches into the session, as nothing else in the tests does.
    """
    engines = sender._engines
    assert engines is not None
    plain = [frame if isinstance(frame, bytes) else frame.encode() for frame in frames]
    number = engines.numbers.next()
    buffers, _, _ = engines.sealer.seal(number, engines.remote_ids.current, plain, datagram_size)
    whole = b"".join(buffers)
    return [whole[start : start + datagram_size] for start in range(0, len(whole), datagram_size)]


def is_handshake(datagram: bytes, kind: MessageType | None = None) -> bool:
    """Whether this is a handshake datagram, and one of this message."""
    return datagram[0] >= 0x80 and (kind is None or datagram[0] & 0x0F == kind)


def answers(node: Endpoint, datagram: bytes, path: NetworkPath, now: float) -> list[bytes]:
    """What an endpoint answers to a datagram."""
    node.receive(datagram, path, now)
    return [datagram for transmit in node.transmits(now) for datagram in transmit.datagrams()]


# -- what an endpoint holds ----------------------------------------------------------------------------------------


def assert_empty(*nodes: Node) -> None:
    """Nothing is left of any session."""
    for node in nodes:
        assert not held(node.endpoint), f"{node.name} still holds {held(node.endpoint)}"


# -- applications --------------------------------------------------------------------------------------------------


def serve_echo(node: Node) -> None:
    """Every stream of a peer gets back what it brings, and its end."""
    waiting: dict[tuple[Session, int], bytes] = {}

    def on_event(session: Session | None, event: Event) -> None:
        if session is None or not isinstance(event, StreamReadable | StreamWritable):
            return
        stream = session.stream(event.stream_id)
        if stream is not None and stream.can_write:
            try:
                echo(stream, (session, event.stream_id), node.world.now)
            except RemoteError:  # the stream or its session is over
                waiting.pop((session, event.stream_id), None)

    def echo(stream: Stream, key: tuple[Session, int], now: float) -> None:
        data = waiting.pop(key, b"")
        while True:
            taken = stream.write(data, now)
            if taken < len(data):
                waiting[key] = data[taken:]
                return
            data = stream.read(65_536, now)
            if not data:
                break
        if stream.at_eof:
            stream.finish(now)

    node.on_event = on_event


def many_sessions(
    count: int, client: dict[str, Any] | None = None, **server: Any
) -> tuple[World, Node, Node, list[Session], list[Session]]:
    """Two nodes with several sessions between them; the sessions as the client and as the server see them."""
    world = World(1)
    one, two = world.node("client", **(client or {})), world.node("server", **server)
    serve_echo(two)
    sessions = [one.connect(two) for _ in range(count)]
    world.run_until(lambda: all(session.is_active() for session in sessions))
    world.run(1.0)
    return world, one, two, sessions, [two.endpoint.sessions[session.session_id] for session in sessions]


class Mover:
    """Sends one lot of bytes on each of some streams of a node and takes in what comes; nothing is kept but hashes.

    Attributes:
        received: by session and stream, the hash of what came and whether it ended.
        finished: streams whose end the peer has acknowledged.
        resets: streams that the peer reset.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.received: dict[tuple[Session, int], Any] = {}
        self.ended: dict[tuple[Session, int], bytes] = {}
        self.finished: set[tuple[Session, int]] = set()
        self.resets: dict[tuple[Session, int], int] = {}
        self.opened: list[tuple[Session, StreamOpened]] = []
        self.answer: Callable[[Session, int], bytes] | None = None
        self._left: dict[tuple[Session, int], memoryview] = {}
        node.on_event = self._on_event

    def send(self, stream: Stream, session: Session, data: bytes) -> None:
        """Send `data` and the end."""
        key = (session, stream.stream_id)
        self._left[key] = memoryview(data)
        self._write(stream, key)
        self.node.pump()

    def _write(self, stream: Stream, key: tuple[Session, int]) -> None:
        now = self.node.world.now
        left = self._left[key]
        self._left[key] = left = left[stream.write(left, now) :]
        if not left:
            del self._left[key]
            stream.finish(now)

    def _on_event(self, session: Session | None, event: Event) -> None:
        if session is None:
            return
        match event:
            case StreamOpened():
                self.opened.append((session, event))
                if self.answer is not None and event.bidirectional:
                    stream = session.stream(event.stream_id)
                    assert stream is not None
                    key = (session, event.stream_id)
                    self._left[key] = memoryview(self.answer(session, event.stream_id))
                    self._write(stream, key)
            case StreamReadable():
                self._read(session, event.stream_id)
            case StreamWritable():
                stream = session.stream(event.stream_id)
                assert stream is not None
                self._write(stream, (session, event.stream_id))
            case StreamFinished():
                self.finished.add((session, event.stream_id))
            case StreamReset(code=code):
                self.resets[session, event.stream_id] = code

    def _read(self, session: Session, stream_id: int) -> None:
        stream, key = session.stream(stream_id), (session, stream_id)
        if stream is None:
            return
        hashed = self.received.setdefault(key, hashlib.sha256())
        try:
            while data := stream.read(65_536, self.node.world.now):
                hashed.update(data)
        except StreamClosedError:
            return
        if stream.at_eof:
            self.ended[key] = hashed.digest()


def filler(size: int, seed: object = 0) -> bytes:
    """Bytes that look random."""
    return hashlib.shake_128(repr(seed).encode()).digest(size)
