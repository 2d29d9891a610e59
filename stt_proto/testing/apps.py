"""Applications small enough for a test: an echo, an inbox that remembers hashes, something to send."""

from __future__ import annotations

from hashlib import sha256
from typing import TypedDict, Unpack

from stt_proto.errors import ArgumentError, DataExpiredError, RemoteError, StreamClosedError, SttError
from stt_proto.events import (
    DatagramReceived,
    Event,
    SessionClosed,
    SessionEstablished,
    StreamFinished,
    StreamOpened,
    StreamReadable,
    StreamReset,
    StreamWritable,
)
from stt_proto.session.session import Session
from stt_proto.session.stream import Stream
from stt_proto.streams import Priority
from stt_proto.testing.checks import check_type, refusal
from stt_proto.testing.node import Node
from stt_proto.testing.probe import owns

CHUNK = 65_536
"""Bytes read at once."""

Key = tuple[Session, int]


def serve_echo(node: Node) -> None:
    """Let a node give back, on every stream, what it brings, and its end; as fast as the peer takes it."""
    waiting: dict[Key, bytes] = {}

    def on_event(session: Session | None, event: Event) -> None:
        if session is None or not isinstance(event, StreamReadable | StreamWritable):
            return
        stream, key = session.stream(event.stream_id), (session, event.stream_id)
        if stream is None or not stream.can_write:
            return
        try:
            waiting[key] = _echo(stream, waiting.pop(key, b""), node.now)
        except RemoteError:  # the stream or its session is over
            return
        if not waiting[key]:
            del waiting[key]

    node.listeners.append(on_event)


def _echo(stream: Stream, data: bytes, now: float) -> bytes:
    """Write and read until one of the two gets stuck; give what could not be written."""
    while True:
        taken = stream.write(data, now)
        if taken < len(data):
            return data[taken:]
        try:
            data = stream.read(CHUNK, now)
        except DataExpiredError:  # a gap is no echo
            data = b""
            continue
        if not data:
            if stream.at_eof:
                stream.finish(now)
            return b""


class Incoming:
    """What has come on one stream.

    Attributes:
        session: of the stream.
        stream_id: its id.
        purpose: the word that its opener gave it.
        size: bytes so far.
        skipped: bytes that the peer gave up.
        ended: whether it came to its end.
        reset_code: the peer's number, when it reset the stream instead.
        kept: the bytes, where the `Inbox` keeps them; else `None`.
    """

    __slots__ = ("_hash", "ended", "kept", "purpose", "reset_code", "session", "size", "skipped", "stream_id")

    def __init__(self, session: Session, stream_id: int, purpose: str = "", *, keep: bool = False) -> None:
        self.session = session
        self.stream_id = stream_id
        self.purpose = purpose
        self.size = 0
        self.skipped = 0
        self.ended = False
        self.reset_code: int | None = None
        self.kept = bytearray() if keep else None
        self._hash = sha256()

    @property
    def digest(self) -> str:
        """SHA-256 of all of it, in hexadecimal."""
        return self._hash.hexdigest()

    def take(self, data: bytes) -> None:
        """Count more of it in."""
        self.size += len(data)
        self._hash.update(data)
        if self.kept is not None:
            self.kept += data

    def assert_is(self, expected: bytes) -> None:
        """See that this has come, and nothing else; perhaps more of it is to come.

        Raises:
            AssertionError: it is something else; where it is kept, the message names the first byte that differs.
        """
        if self.digest == sha256(expected).hexdigest():
            return
        where = ""
        if self.kept is not None:
            pairs = enumerate(zip(self.kept, expected, strict=False))
            shorter = min(self.size, len(expected))
            where = f", from byte {next((at for at, (one, other) in pairs if one != other), shorter)} on"
        raise AssertionError(f"{self} differs from the {len(expected)} bytes expected{where}")

    def __repr__(self) -> str:
        state = "ended" if self.ended else "open" if self.reset_code is None else f"reset with {self.reset_code}"
        return f"<Incoming on stream {self.stream_id}, {self.size} bytes, {state}>"


class Inbox:
    """Takes in everything that comes to a node, at once, and remembers the hashes of it.

    Args:
        node: whose.
        keep: remember the bytes of streams as well.

    Attributes:
        streams: what came, by session and stream id, in the order of its coming.
        datagrams: those that came, in that order.
    """

    def __init__(self, node: Node, *, keep: bool = False) -> None:
        check_type("node", node, Node)
        self.streams: dict[Key, Incoming] = {}
        self.datagrams: list[bytes] = []
        self._node = node
        self._keep = keep
        node.listeners.append(self._on_event)

    @property
    def complete(self) -> list[Incoming]:
        """The streams that came to their end, in the order in which they began."""
        return [incoming for incoming in self.streams.values() if incoming.ended]

    @property
    def digests(self) -> list[str]:
        """The hashes of those."""
        return [incoming.digest for incoming in self.complete]

    def _on_event(self, session: Session | None, event: Event) -> None:
        if session is None:
            return
        match event:
            case StreamOpened(stream_id=stream_id, purpose=purpose):
                self.streams[session, stream_id] = Incoming(session, stream_id, purpose, keep=self._keep)
            case StreamReadable(stream_id=stream_id):
                self._read(session, stream_id)
            case StreamReset(stream_id=stream_id, code=code, stopped=False):
                self._incoming(session, stream_id).reset_code = code
            case DatagramReceived():
                while (datagram := session.receive_datagram()) is not None:
                    self.datagrams.append(datagram)

    def _incoming(self, session: Session, stream_id: int) -> Incoming:
        key = session, stream_id
        if key not in self.streams:  # our own stream, on which the peer answers
            self.streams[key] = Incoming(session, stream_id, keep=self._keep)
        return self.streams[key]

    def _read(self, session: Session, stream_id: int) -> None:
        stream = session.stream(stream_id)
        if stream is None:
            return
        incoming = self._incoming(session, stream_id)
        while True:
            try:
                data = stream.read(CHUNK, self._node.now)
            except DataExpiredError as error:
                incoming.skipped += error.skipped
                continue
            except RemoteError:  # reset, or the session is over
                return
            if not data:
                break
            incoming.take(data)
        incoming.ended = stream.at_eof

    def __repr__(self) -> str:
        streams = f"{len(self.complete)} of {len(self.streams)} streams complete"
        return f"<Inbox of {self._node.name}, {streams}, {len(self.datagrams)} datagrams>"


class StreamOptions(TypedDict, total=False):
    """Those of `Session.open_stream`."""

    bidirectional: bool
    stream_id: int | None
    purpose: str
    max_frame_size: int | None
    no_delay: bool | None
    priority: Priority | None
    max_lifetime: float | None
    max_attempts: int | None


class Outgoing:
    """Sends some bytes and their end on a stream of its own, as room and credit allow. `send` makes one.

    Attributes:
        session: over which.
        stream: on which; `None` until the session is established.
        finished: whether the peer has acknowledged all of it.
        error: what prevented that.
        digest: SHA-256 of the bytes, in hexadecimal.
    """

    def __init__(self, node: Node, session: Session, data: bytes, **options: Unpack[StreamOptions]) -> None:
        check_type("node", node, Node)
        check_type("session", session, Session)
        if not owns(node.endpoint, session):
            raise refusal("session", session, f"one of {node}, in its present life")
        for name in options:
            if name not in StreamOptions.__annotations__:  # which must not wait for the handshake
                raise ArgumentError(f"{name} is no option of a stream", argument=name)
        self.session = session
        self.stream: Stream | None = None
        self.finished = False
        self.error: SttError | None = None
        self.digest = sha256(data).hexdigest()
        self._node = node
        self._left = memoryview(data)
        self._options = options
        node.listeners.append(self._on_event)
        if session.is_closed:
            self._end(session.close_error)
        elif session.is_active():
            self._open()
            node.pump()

    @property
    def done(self) -> bool:
        """Whether nothing more will come of it."""
        return self.finished or self.error is not None

    def _open(self) -> None:
        try:
            self.stream = self.session.open_stream(**self._options)
        except SttError as error:
            self._end(error)
            if isinstance(error, ArgumentError):  # whoever sends is mistaken; nothing has happened
                raise
        else:
            self._write(self.stream)

    def _write(self, stream: Stream) -> None:
        now = self._node.now
        try:
            self._left = self._left[stream.write(self._left, now) :]
        except RemoteError as error:  # the stream or its session is over
            self._end(error)
            return
        if not self._left:
            stream.finish(now)

    def _on_event(self, session: Session | None, event: Event) -> None:
        if session is not self.session or self.done:
            return
        stream = self.stream
        if isinstance(event, SessionClosed):
            self._end(session.close_error)
        elif stream is None:
            if isinstance(event, SessionEstablished):
                self._open()
        elif getattr(event, "stream_id", None) == stream.stream_id:
            match event:
                case StreamWritable():
                    self._write(stream)
                case StreamFinished():
                    self._end(None)
                case StreamReset(code=code, stopped=True):
                    self._end(StreamClosedError("the peer stopped the stream", stream_code=code))

    def _end(self, error: SttError | None) -> None:
        self.error = error
        self.finished = error is None
        self._left = memoryview(b"")
        self._node.listeners.remove(self._on_event)

    def __repr__(self) -> str:
        state = "finished" if self.finished else f"failed: {self.error!r}" if self.done else "under way"
        return f"<Outgoing on {self.stream or 'no stream yet'}, {state}>"


def send(node: Node, session: Session, data: bytes, **options: Unpack[StreamOptions]) -> Outgoing:
    """Send bytes and their end on a new stream, as soon as the session is established.

    Args:
        node: whose session it is.
        session: over which.
        data: what to send.
        options: as for `Session.open_stream`.

    Raises:
        ArgumentError: `session` is not one of the node's, or an option is out of range; where the session is not yet
            established, the latter comes out of the call that lets time pass.
    """
    return Outgoing(node, session, data, **options)
