"""What every host's sessions have in common: everything but the waiting, as in `stream_base.py`.

The host's own class waits: `session.py` for asyncio and trio, `blocking/session.py` for threads.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from attrs import asdict

from stt_anyio.driver import GATHERED
from stt_anyio.early import EarlyBeginning
from stt_anyio.errors import (
    ArgumentError,
    SessionClosedError,
    SessionResumptionError,
    SttError,
    TooManyStreamsError,
    broken,
    closed_here,
)
from stt_anyio.managed import ManagedSession
from stt_anyio.moving import Attempt
from stt_anyio.stream_base import StreamBase
from stt_proto import Priority, SessionState, Ticket
from stt_proto import Session as CoreSession
from stt_proto.events import (
    DatagramReceived,
    Event,
    ExtensionFrameReceived,
    KeysRotated,
    PathLost,
    PathValidated,
    SessionClosed,
    SessionMoved,
    SessionReattached,
    StreamAcked,
    StreamFinished,
    StreamOpened,
    StreamReadable,
    StreamReset,
    StreamsAvailable,
    StreamWritable,
)
from stt_proto.session import SessionStats
from stt_proto.types import Buffer, NetworkPath, PathInfo

if TYPE_CHECKING:
    from stt_anyio.driver import Driver
    from stt_anyio.node_base import NodeBase

Callback = Callable[..., Any]
StreamT = TypeVar("StreamT", bound=StreamBase)

_NOTHING_REFUSED: frozenset[bool] = frozenset()
"""Shared by all sessions: each empty one made anew takes 216 bytes."""


class SessionBase(ManagedSession, EarlyBeginning[StreamT]):
    """A session, but for the waiting.

    Attributes:
        node: the node it belongs to.
    """

    stream_class: ClassVar[type[Any]]

    def __init__(self, node: NodeBase[Any], core: CoreSession) -> None:
        self.node = node
        self.driver: Driver = node.driver
        self.core = core
        core.host = self
        self.streams: dict[int, StreamT] = {}
        self.incoming: dict[int, StreamT] = {}
        self.frame_handlers: dict[int, Callback] = {}
        self.frames: deque[tuple[int, bytes]] | None = None  # those for which there is no handler
        self.held_frames: deque[tuple[int, bytes]] | None = None  # those that had none when they came
        self.frames_at_work = 0  # handlers that have not finished
        self.refused = _NOTHING_REFUSED  # kinds of stream of which the peer allowed no more; True: both ways
        self.claimed = False  # by `accept_stream`: then `node.receive()` leaves its streams alone
        self.ended_here = False
        self.attempts: list[Attempt] = []  # paths that somebody waits for
        self.chosen: NetworkPath | None = None  # where it was asked to go on last, as long as that works

    # -- who and how -----------------------------------------------------------------------------------------------

    @property
    def session_id(self) -> bytes:
        """8 bytes, the same on both sides; a name, not a secret and not a proof."""
        return self.core.session_id

    @property
    def peer_node_id(self) -> bytes:
        """The peer's public key, 32 bytes, proven."""
        return self.core.peer_node_id

    @property
    def state(self) -> SessionState:
        """Where it stands: `ESTABLISHED` for as long as it can be used."""
        return self.core.state

    @property
    def key_version(self) -> int:
        """How often the keys were replaced."""
        return self.core.key_version

    @property
    def ticket(self) -> Ticket | None:
        """The last ticket that the peer gave: with it `connect` comes back, once, in one round trip.

        It comes a moment after the session is established, to the side that dialled; `None` until then.
        """
        return self.core.ticket

    @property
    def resumed(self) -> bool:
        """Whether it began with a ticket."""
        return self.core.resumed

    @property
    def resumption_error(self) -> SessionResumptionError | None:
        """Why it did not, though `connect` was given a ticket: its `reason` is a `TicketRefusal`."""
        return self.core.resumption_error

    @property
    def capabilities(self) -> Any:
        """What the peer understands beyond version 1."""
        return self.core.capabilities

    @property
    def created_at(self) -> float:
        """Wall clock, seconds since 1970."""
        return self.core.created_at

    @property
    def last_active(self) -> float:
        """When something authentic last came from the peer, seconds since 1970."""
        return self.core.last_active

    @property
    def last_key_rotation(self) -> float:
        """When the keys in use were made, seconds since 1970."""
        return self.core.last_key_rotation

    @property
    def metadata(self) -> dict[Any, Any]:
        """Yours: a dictionary that goes with the session."""
        return self.core.metadata

    @property
    def peer_addr(self) -> Any:
        """Where the peer is at the moment: `(host, port)` on UDP."""
        remote = self.core.path.remote
        return remote[:2] if isinstance(remote, tuple) else remote

    @property
    def local_addr(self) -> Any:
        """This end: `(host, port)` on UDP; the host is `0.0.0.0` where the node is bound to all."""
        local = self.core.path.local
        return local[:2] if isinstance(local, tuple) else local

    @property
    def transport_type(self) -> str:
        """The carrier in use: `"udp"`, `"memory"`, ..."""
        return self.core.path.carrier

    @property
    def is_closed(self) -> bool:
        """Whether it is over."""
        return self.core.state is SessionState.CLOSED

    def is_active(self) -> bool:
        """Whether streams can be opened and used."""
        return self.core.state is SessionState.ESTABLISHED

    @property
    def close_reason(self) -> str | None:
        """`"graceful"`, `"timeout"`, `"error"` or `"auth_failure"`; `None` while it lives."""
        reason = self.core.close_reason
        return None if reason is None else str(reason)

    def get_stats(self) -> SessionStats:
        """What it has done so far, as a value."""
        return self.core.stats()

    def get_statistics(self) -> dict[str, Any]:
        """The same as a dictionary."""
        return asdict(self.core.stats())

    def export_keying_material(self, label: str, length: int) -> bytes:
        """Bytes that both sides, and nobody else, can derive.

        Args:
            label: what for; at most 255 bytes.
            length: bytes, 1 to 8,160.

        Raises:
            ArgumentError: an argument is out of range.
        """
        return self.core.export_keying_material(label, length)

    def _begin_rotation(self) -> int:
        """Ask for new keys; give the `key_version` that the session will have."""
        try:
            version = self.core.rotate_key(self.driver.clock())
        except SttError as error:
            raise self.raised(error) from None
        self.driver.pump()
        return version

    def _rotated(self, version: int) -> bool:
        """Whether both sides use keys of this version, or a later one."""
        if self.key_version < version and self.is_closed:
            raise self.ended()
        return self.key_version >= version

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.session_id.hex()} with {self.peer_node_id.hex()[:16]}, {self.state.value}>"
        )

    # -- paths -----------------------------------------------------------------------------------------------------

    @property
    def paths(self) -> tuple[PathInfo, ...]:
        """Its paths, the one in use first."""
        return self.core.paths

    @property
    def is_detached(self) -> bool:
        """Whether it has no path now. It waits for one for `detach_timeout`: streams keep what they hold."""
        return self.core.is_detached

    def remove_path(self, path: NetworkPath) -> None:
        """Give up one of `paths` that is not in use: nothing is asked there any more, and its connection is closed.

        Of the path in use, and of one that is none of the session's, nothing changes.

        Raises:
            ArgumentError: `path` is none, or of a carrier that the node has not.
        """
        self.core.remove_path(path, self.driver.clock())
        self.driver.pump()

    def try_path(self, path: NetworkPath, *, migrate: bool) -> Attempt:
        """Ask the core for a path; who asked waits for what becomes of it, and calls `end_attempt` then."""
        self.driver.check_path(path)
        attempt = Attempt(path, migrate=migrate, known=any(info.path == path for info in self.core.paths))
        try:
            (self.core.migrate if migrate else self.core.add_path)(path, self.driver.clock())
        except SttError as error:
            raise self.raised(error) from None
        if migrate:
            for other in self.attempts:
                other.on_move(path)
        attempt.look(self.core.paths)
        self.attempts.append(attempt)
        self.node.attempts[attempt] = self
        try:
            self.driver.pump()
        except BaseException:  # out of a carrier that does not take the path: nobody asks there again
            with suppress(Exception):
                self.end_attempt(attempt)
            raise
        return attempt

    def end_attempt(self, attempt: Attempt) -> None:
        """Nobody waits for it any more: what has come to nothing leaves the session where it was."""
        self.attempts.remove(attempt)
        del self.node.attempts[attempt]
        if attempt.done:
            if attempt.migrate:
                self.chosen = attempt.path
        elif not self.is_closed:
            if not (attempt.known or any(other.path == attempt.path for other in self.attempts)):
                self.remove_path(attempt.path)
            if self.chosen == self.core.path and not (self.is_detached or self.attempts):
                self.core.migrate(self.chosen, self.driver.clock())  # it was to stay there, and is again
            self.driver.pump()

    def attempt_failed(self, attempt: Attempt, reason: str) -> None:
        """The system says that nobody is there."""
        attempt.on_lost(attempt.path, reason)
        self.remove_path(attempt.path)  # who waits learns of it with `PathLost`

    # -- streams and datagrams -------------------------------------------------------------------------------------

    def open_stream(
        self,
        stream_id: int | None = None,
        purpose: str = "",
        max_frame_size: int | None = None,
        no_delay: bool | None = None,
        *,
        bidirectional: bool = True,
        priority: Priority | None = None,
        max_lifetime: float | None = None,
        max_attempts: int | None = None,
    ) -> StreamT:
        """Open a stream; it costs no round trip, and the peer sees it with the first bytes.

        Args:
            stream_id: a certain id: of this side's parity (0 for who dialled, 1 for who accepted) and kind (2 more for
                one way), unused, below the peer's limit. `None` takes the next.
            purpose: a word for the peer, at most 255 bytes.
            max_frame_size: bytes that it puts into a packet while others wait; the node's default when `None`.
            no_delay: False gathers small writes; the node's default when `None`.
            bidirectional: False makes it one-way, from here to the peer.
            priority: how much it matters beside the others; with `None` the usual, until the peer asks for another.
            max_lifetime: seconds after which what was sent and is not acknowledged is given up, 0.001 to 86,400.
            max_attempts: times that it is sent before it is given up, 1 to 16. The receiver learns of each gap by a
                `DataExpiredError`. A peer that cannot (`capabilities` has no `"expiry"`) gets all of it.

        Raises:
            TooManyStreamsError: the peer allows no more at the moment; `wait_streams_available` waits until it does.
            StreamIdConflict: the id is taken or not ours.
            ArgumentError: an argument is out of its range.
            SessionClosedError: the session is over.
        """
        try:
            core = self.core.open_stream(
                bidirectional=bidirectional,
                stream_id=stream_id,
                purpose=purpose,
                max_frame_size=max_frame_size,
                no_delay=no_delay,
                priority=priority,
                max_lifetime=max_lifetime,
                max_attempts=max_attempts,
            )
        except TooManyStreamsError:
            self.refused |= {bidirectional}
            raise
        except SttError as error:
            raise self.raised(error) from None
        stream: StreamT = self.stream_class(self, core)
        self.streams[core.stream_id] = stream
        return stream

    def get_stream(self, stream_id: int) -> StreamT | None:
        """The open stream with this id; taking one that the peer opened keeps it from `accept_stream`."""
        self.incoming.pop(stream_id, None)
        stream = self.streams.get(stream_id)
        if stream is not None:
            stream.kept = True
        return stream

    def forget(self, stream: StreamBase) -> None:
        """The application is through with a stream; the core delivers the rest of it."""
        self.streams.pop(stream.stream_id, None)
        self.incoming.pop(stream.stream_id, None)

    def send_datagram(self, data: Buffer, max_lifetime: float | None = None) -> None:
        """Send one unreliable datagram; when too many wait, the oldest is dropped.

        Args:
            data: the datagram.
            max_lifetime: seconds after which it is not worth sending any more, 0.001 to 86,400.

        Raises:
            ArgumentError: it is not bytes-like, or larger than `max_datagram_size`; or `max_lifetime` is out of range.
            SessionClosedError: the session is over.
        """
        try:
            self.core.send_datagram(data, self.driver.clock(), max_lifetime)
        except SttError as error:
            raise self.raised(error) from None
        if self.node.config.limits.datagrams > GATHERED:
            self.driver.pump_after(memoryview(data).nbytes)
        else:  # the queue is too short to gather anything in it
            self.driver.pump()

    @property
    def max_datagram_size(self) -> int:
        """Bytes of the largest datagram that can be sent now; 0 when the peer takes none."""
        return self.core.max_datagram_size

    def send_frame(self, kind: int, data: Buffer, *, reliable: bool = True) -> None:
        """Send a frame of the application's own: a small message beside all streams, ahead of their data.

        A reliable one is repeated until it arrives, and arrives once; others arrive at most once. There is no order.

        Args:
            kind: its type, 0x80 to 0xff, one that the peer's `extension_frames` has.
            data: at most 1,024 bytes.
            reliable: whether it is repeated when it is lost.

        Raises:
            ArgumentError: the peer does not understand this type, or `data` is too long or no bytes.
            BufferOverflowError: too many are on their way (`limits.extension_frames`, `limits.extension_bytes`).
            SessionClosedError: the session is over.
        """
        try:
            self.core.send_frame(kind, data, self.driver.clock(), reliable=reliable)
        except SttError as error:
            raise self.raised(error) from None
        self.driver.pump()

    def on_frame(self, kind: int, handler: Callback | None) -> None:
        """Have `handler(session, data)` called with each frame of a type, those among them that have come already.

        One that raises ends nothing; that is logged and counted. Frames of types without one are for `receive_frame`.
        While as many handlers are at work as frames may wait (`limits.extension_frames`), the next frames of all types
        wait, and of too many the oldest are dropped.

        Args:
            kind: one of the node's `extension_frames`.
            handler: what to call, and to await if it is to be awaited; `None` for nothing any more.

        Raises:
            ArgumentError: this node does not understand the type.
        """
        if kind not in self.node.config.extension_frames:
            known = sorted(self.node.config.extension_frames)
            raise ArgumentError(f"kind is {kind!r}; this node has announced {known}", argument="kind")
        if handler is None:
            self.frame_handlers.pop(kind, None)
            return
        self.frame_handlers[kind] = handler
        if self.frames is not None:
            self.held_frames, self.frames = deque((*(self.held_frames or ()), *self.frames)), None
        self._on_frames()

    def _take_frame(self) -> tuple[int, bytes] | None:
        """The oldest frame for which there is no handler."""
        if self.frames:
            return self.frames.popleft()
        return None if self.frame_handlers else self._next_frame()

    def _next_frame(self) -> tuple[int, bytes] | None:
        """The oldest frame that nobody has looked at since there are these handlers."""
        return self.held_frames.popleft() if self.held_frames else self.core.receive_frame()

    # -- ending ----------------------------------------------------------------------------------------------------

    def begin_close(self, reason: str = "graceful", detail: str = "") -> None:
        """Start to close: everything accepted is delivered first."""
        if not self.is_closed:
            self.core.close(self.driver.clock(), reason=reason, detail=detail)
            self.ended_here = True
            self.driver.pump()

    def abort(self) -> None:
        """End at once; what is not delivered yet is lost."""
        if not self.is_closed:
            self.core.abort(self.driver.clock())
            self.ended_here = True
            self.driver.pump()

    def raised(self, error: SttError) -> SttError:
        """An error of the core as this host raises it."""
        return closed_here(error) if self.ended_here else broken(error)

    def ended(self) -> SttError:
        """What a call on the ended session raises."""
        return self.raised(self.core.close_error or SessionClosedError("the session has been closed"))

    # -- events ----------------------------------------------------------------------------------------------------

    def deliver(self, event: Event) -> None:
        """Take in an event of the core."""
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def _on_opened(self, event: StreamOpened) -> None:
        core = self.core.stream(event.stream_id)
        if core is None:
            return  # it is over already
        stream: StreamT = self.stream_class(self, core)
        self.streams[event.stream_id] = self.incoming[event.stream_id] = stream
        self._wake_accept()
        if not self.claimed:
            self.node.offer(stream)

    def _on_readable(self, event: StreamReadable) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            if stream.collected:
                self.node.offer(stream)
            stream._wake_reader()

    def _on_writable(self, event: StreamWritable) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream._wake_writer()

    def _on_acked(self, event: StreamAcked) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream._wake_flusher()

    def _on_finished(self, event: StreamFinished) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            stream.on_finished()

    def _on_reset(self, event: StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            if stream.collected:
                self.node.offer(stream)
            stream.on_reset(event)

    def _on_datagram(self, event: DatagramReceived) -> None:
        self._wake_datagrams()

    def _on_frames(self, event: ExtensionFrameReceived | None = None) -> None:
        """Hand frames out, but to so many handlers at once as may wait: the core bounds those that it keeps."""
        most = self.node.config.limits.extension_frames
        while self.frame_handlers and self.frames_at_work < most and (frame := self._next_frame()) is not None:
            self._hand_out(*frame)
        self._wake_frames()

    def _hand_out(self, kind: int, data: bytes) -> None:
        handler = self.frame_handlers.get(kind)
        if handler is None:
            if self.frames is None:
                self.frames = deque(maxlen=self.node.config.limits.extension_frames)
            self.frames.append((kind, data))
        else:
            self._call_frame_handler(handler, data)

    def _call_frame_handler(self, handler: Callback, data: bytes) -> None:
        self.node._call(handler, None, self, data)

    def _on_rotated(self, event: KeysRotated) -> None:
        self._wake_rotation()

    def _on_path_validated(self, event: PathValidated) -> None:
        self.driver.path_used(event.path)
        self._on_reached(event.path, active=False)

    def _on_path_lost(self, event: PathLost) -> None:
        if event.path == self.chosen:
            self.chosen = None
        for attempt in self.attempts:
            attempt.on_lost(event.path, event.reason)
        self.driver.path_unused(event.path)
        self._wake_moves()

    def _on_moved(self, event: SessionMoved) -> None:
        self._on_reached(event.new, active=True)

    def _on_reattached(self, event: SessionReattached) -> None:
        self._on_reached(event.path, active=True)

    def _on_reached(self, path: NetworkPath, *, active: bool) -> None:
        for attempt in self.attempts:
            attempt.on_reached(path, active=active)
        self._wake_moves()

    def _on_closed(self, event: SessionClosed) -> None:
        for stream in tuple(self.streams.values()):
            if stream.collected:
                self.node.offer(stream)
            stream.on_session_closed()
        self._wake_all()

    def _on_streams_available(self, event: StreamsAvailable) -> None:
        self.refused -= {event.bidirectional}
        self._wake_openers()

    @abstractmethod
    def _wake_accept(self) -> None: ...

    @abstractmethod
    def _wake_datagrams(self) -> None: ...

    @abstractmethod
    def _wake_frames(self) -> None: ...

    @abstractmethod
    def _wake_openers(self) -> None: ...

    @abstractmethod
    def _wake_rotation(self) -> None: ...

    @abstractmethod
    def _wake_moves(self) -> None: ...

    @abstractmethod
    def _wake_all(self) -> None: ...


_HANDLERS: Mapping[type[Any], Callable[[SessionBase[Any], Any], None]] = {
    DatagramReceived: SessionBase._on_datagram,
    ExtensionFrameReceived: SessionBase._on_frames,
    KeysRotated: SessionBase._on_rotated,
    PathLost: SessionBase._on_path_lost,
    PathValidated: SessionBase._on_path_validated,
    SessionClosed: SessionBase._on_closed,
    SessionMoved: SessionBase._on_moved,
    SessionReattached: SessionBase._on_reattached,
    StreamAcked: SessionBase._on_acked,
    StreamFinished: SessionBase._on_finished,
    StreamOpened: SessionBase._on_opened,
    StreamReadable: SessionBase._on_readable,
    StreamReset: SessionBase._on_reset,
    StreamsAvailable: SessionBase._on_streams_available,
    StreamWritable: SessionBase._on_writable,
}
