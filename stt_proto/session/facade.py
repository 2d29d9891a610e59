"""What an application sees of a session, and what it asks of its streams and datagrams.

This is the half of a session that has no say in its life: whether it lives, why it ended, what it has done, which
streams it has. How it comes to be, moves packets and ends is the other half, `session`, which only the endpoint drives.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from stt_proto.errors import (
    ArgumentError,
    SessionClosedError,
    SessionResumptionError,
    StateError,
    SttError,
    TooManyStreamsError,
)
from stt_proto.session.context import SessionContext
from stt_proto.session.control import FRAME, FRAME_ONCE
from stt_proto.session.early import Beginning, EarlyData
from stt_proto.session.ending import reason_of
from stt_proto.session.engines import Engines
from stt_proto.session.exporter import export_key
from stt_proto.session.moves import Moves
from stt_proto.session.routes import check_path
from stt_proto.session.statistics import SessionStats, snapshot
from stt_proto.session.stream import Stream
from stt_proto.streams import Priority
from stt_proto.streams import Stream as Halves
from stt_proto.tickets import Ticket
from stt_proto.types import Buffer, CloseReason, NetworkPath, PathInfo, SessionState
from stt_proto.wire import APPLICATION_FRAMES, FrameType


class SessionFacade(ABC):
    """The face of a session; `Session` is the only class behind it, and lists the attributes."""

    __slots__ = (
        "_asked_about",
        "_context",
        "_created",
        "_early",
        "_engines",
        "_exporter",
        "_moves",
        "close_error",
        "beginning",
        "created_at",
        "host",
        "initiator",
        "metadata",
        "path",
        "peer_node_id",
        "resumed",
        "resumption_error",
        "retiring",
        "session_id",
        "state",
    )

    def __init__(self, context: SessionContext, path: NetworkPath, initiator: bool, now: float) -> None:
        self._context = context
        self._created = now
        self._engines: Engines | None = None
        self._moves: Moves | None = None
        self._exporter = b""
        self.state = SessionState.INIT
        self.initiator = initiator
        self.session_id = b""
        self.peer_node_id = b""
        self.path = path
        self.created_at = context.clock.unix(now)
        self.metadata: dict[str, Any] = {}
        self.host: Any = None
        self.close_error: SttError | None = None
        self.resumed = False
        self.resumption_error: SessionResumptionError | None = None
        self._early: EarlyData | None = None
        self.beginning: Beginning | None = None
        self._asked_about = b""
        self.retiring: SttError | None = None

    @abstractmethod
    def touch(self, now: float) -> float:
        """Something changed: there may be something to send, and the deadline may have moved. Gives the time."""

    def advance(self, now: float) -> float:
        """It is later, and nothing changed. Gives the time."""
        return self._context.clock.advance(now)

    def touch_for_credit(self, now: float) -> None:
        """The application took something. Most of the time that is nobody else's business, and nothing is to be sent.

        It is when enough came together to tell the peer of its credit, a place for a stream is free, or this was the
        last stream.
        """
        engines = self._engines
        if engines is not None and (engines.streams.control_ready or not engines.streams):
            self.touch(now)

    # -- how it is -------------------------------------------------------------------------------------------------

    def is_active(self) -> bool:
        """Whether streams can be opened and written."""
        return self.state is SessionState.ESTABLISHED

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self.state is SessionState.CLOSED

    @property
    def close_reason(self) -> CloseReason | None:
        """Why it ended, in one word; `None` while it lives."""
        return None if self.close_error is None else reason_of(self.close_error)

    @property
    def capabilities(self) -> frozenset[str]:
        """What the peer can do beyond streams: `datagrams`, `trains`, `priorities`, `expiry`, `rotation`,
        `frames`."""
        if self._engines is None:
            return frozenset()
        peer = self._engines.peer
        able = {
            "datagrams": peer.max_datagram > 0,
            "trains": peer.max_segments > 1,
            "priorities": FrameType.PRIORITY in peer.extension_frames,
            "expiry": FrameType.EXPIRED in peer.extension_frames,
            "rotation": FrameType.ROTATE in peer.extension_frames,
            "frames": not peer.extension_frames.isdisjoint(APPLICATION_FRAMES),
        }
        return frozenset(name for name, can in able.items() if can)

    @property
    def ticket(self) -> Ticket | None:
        """The last ticket that the peer gave, with which to come back once; `None` when it gave none."""
        return None if self._engines is None else self._engines.tickets.latest

    @property
    def early_stream(self) -> Stream | None:
        """The stream that begins with the `early_data` of `Endpoint.connect`; `None` before there are keys, when it is
        over, and where the peer takes no streams.
        """
        return None if self._early is None else self.stream(self._early.stream_id)

    @property
    def early_data_accepted(self) -> bool | None:
        """Whether the peer took early data with the ticket; `None` when none went that way, or it is not known yet."""
        return None if self._early is None else self._early.accepted

    @property
    def replayable(self) -> bool:
        """Whether all that came so far may have been sent by somebody who only repeats it, or long ago.

        It is so at the side that was dialled, from `EarlyDataReceived` until the first packet of the peer has opened.
        What came early may also come once more in another session, if its sender never hears of this one.
        """
        return self.beginning is not None and not self.initiator

    def answer_ticket(self, accepted: bool, now: float) -> None:
        """Say whether the ticket of a `TicketOffered` may be used, within the handshake timeout; later is too late.

        Args:
            accepted: True when nobody has used it before; it must be remembered by now that somebody has.
            now: seconds.

        Raises:
            StateError: no ticket was asked about.
        """
        if not self._asked_about:
            raise StateError("no ticket of this session was asked about")
        self._context.clock.advance(now)
        self._context.ticket_answers[self._asked_about] = accepted
        self._asked_about = b""

    @property
    def last_active(self) -> float:
        """Wall clock of the last authentic packet, seconds since 1970."""
        if self._engines is None:
            return self.created_at
        return self._context.clock.unix(self._engines.liveness.last_received)

    @property
    def last_used(self) -> float:
        """When it was in use last, on the clock of `now`: with a stream open, or with a datagram or a frame of the
        application, either way. Signs of life and what else a session does by itself are no use.
        """
        engines = self._engines
        if engines is None:
            return self._created
        return self._context.clock.now if engines.streams else max(self._created, engines.last_used)

    @property
    def open_streams(self) -> int:
        """How many streams are open: with something to write, to deliver or to read."""
        return 0 if self._engines is None else len(self._engines.streams)

    @property
    def last_key_rotation(self) -> float:
        """Wall clock of the last rotation of keys; the creation when there was none."""
        if not self.key_version:
            return self.created_at
        assert self._engines is not None
        return self._context.clock.unix(self._engines.rotation.rotated_at)

    @property
    def key_version(self) -> int:
        """Of the keys that both sides use; rises by one with each rotation."""
        return 0 if self._engines is None else self._engines.rotation.version

    @property
    def max_datagram_size(self) -> int:
        """Bytes of the largest unreliable datagram that can be sent now; 0 when the peer takes none."""
        return 0 if self._engines is None else self._engines.datagrams.peer_max

    def stats(self) -> SessionStats:
        """What it has done so far."""
        return snapshot(self, self._engines, self._created, self._context.clock.now)

    def export_keying_material(self, label: str, length: int) -> bytes:
        """Derive a key that both sides and nobody else can derive (H-8).

        Args:
            label: what it is for, at most 255 bytes.
            length: bytes wanted, 1 to 8,160.

        Raises:
            ArgumentError: an argument is out of range.
            StateError: there are no keys yet.
        """
        return export_key(self._exporter, label, length)

    def rotate_key(self, now: float) -> int:
        """Replace the keys, in both directions and for both sides; `KeysRotated` tells when that is done (V-3).

        Idempotent while it is being done, whoever began: then it joins in.

        Args:
            now: seconds.

        Returns:
            The `key_version` that the session will have.

        Raises:
            StateError: the session is not established yet, or the peer does not know how to (`capabilities`).
            RemoteError: the session has ended.
        """
        self.check_open()
        if self._engines is None or not self._engines.rotation.able:
            peer = "the peer cannot replace keys" if self.is_active() else "the session is not established yet"
            raise StateError(peer)
        self.touch(now)
        return self._engines.rotation.request()

    # -- paths -----------------------------------------------------------------------------------------------------

    @property
    def paths(self) -> tuple[PathInfo, ...]:
        """Its paths, the one in use first; none while it is detached and nothing is tried."""
        return () if self._moves is None else tuple(self._moves.infos())

    @property
    def is_detached(self) -> bool:
        """Whether it has no path, and waits for one: `SessionDetached` and `SessionReattached` tell of it."""
        return self._moves is not None and self._moves.detached and not self.is_closed

    def add_path(self, path: NetworkPath, now: float) -> None:
        """Offer another way to the peer. `PathValidated` tells that the peer has answered there, `PathLost` that not.

        The side that dialled moves there by itself when it is better than the path in use: of another kind, or clearly
        shorter. A session that has no path goes on there as soon as the peer has answered.

        Args:
            path: the way; its carrier must be one of `config.carriers`. One that is known is tried anew.
            now: seconds.

        Raises:
            ArgumentError: the path is none, or its carrier is not known.
            StateError: the session is not established yet, or has three paths beside the one in use.
            RemoteError: the session has ended.
        """
        self._add_path(path, now, migrate=False)

    def migrate(self, path: NetworkPath, now: float) -> None:
        """Go on over this path, and ask the peer to do so too, as soon as the peer has answered there.

        The path so far is kept as long as it answers. Nothing that its streams carry is lost or repeated. Until the
        new path is lost, or `migrate` is called again, the session does not move to a better one by itself.

        Args, Raises:
            as for `add_path`.
        """
        self._add_path(path, now, migrate=True)

    def remove_path(self, path: NetworkPath, now: float) -> None:
        """Give up a path that is not the one in use: nothing is asked there any more, and a wish to move there ends.

        `PathLost` tells of it, with the reason `"removed"`. Of the path in use, and of one that is none of the
        session's, nothing changes.

        Args:
            path: which.
            now: seconds.

        Raises:
            ArgumentError: the path is none, or its carrier is not known.
        """
        check_path(path, self._context.config)
        if self._moves is not None and not self.is_closed:
            self._moves.remove(path, self.touch(now))

    def _add_path(self, path: NetworkPath, now: float, *, migrate: bool) -> None:
        check_path(path, self._context.config)
        self.check_open()
        if self._moves is None or self.state is not SessionState.ESTABLISHED:
            raise StateError("the session is not established yet")
        self._moves.add(path, self.touch(now), migrate=migrate)

    # -- streams and datagrams -------------------------------------------------------------------------------------

    def open_stream(
        self,
        *,
        bidirectional: bool = True,
        stream_id: int | None = None,
        purpose: str = "",
        max_frame_size: int | None = None,
        no_delay: bool | None = None,
        priority: Priority | None = None,
        max_lifetime: float | None = None,
        max_attempts: int | None = None,
    ) -> Stream:
        """Open a stream. The peer hears of it with the first data, the end, or a reset.

        Args:
            bidirectional: whether the peer may write to it too.
            stream_id: one of this side's and of this kind that was never used; `None` picks the smallest.
            purpose: a word for the peer, at most 255 bytes.
            max_frame_size: bytes put into a packet while another stream waits, 1 to 65,536.
            no_delay: whether small writes go at once; `None` as configured.
            priority: how much it matters beside the others; with `None` the usual, until the peer asks for another.
            max_lifetime: seconds after which what is written is given up, 0.001 to 86,400; told apart to a sixteenth.
            max_attempts: times that it is sent before it is given up, 1 to 16. The reader learns of the gap, by
                `DataExpiredError`. A peer that does not know this (`capabilities`) gets all of it all the same.

        Raises:
            ArgumentError: an argument is out of range.
            StateError: the handshake has not got as far as the keys.
            StreamIdConflict: the id is taken, or not this side's, or of the other kind.
            TooManyStreamsError: the peer allows no more now; `StreamsAvailable` tells when it does.
            RemoteError: the session has ended.
            SttError: it is being let go of: `SessionExpiredError`, `ShuttingDownError`.
        """
        self._check_usable()
        if self._engines is None:
            raise StateError("the handshake has not got as far as the keys")
        try:
            halves = self._engines.streams.open(
                bidirectional, stream_id, purpose, max_frame_size, no_delay, priority, max_lifetime, max_attempts
            )
        except TooManyStreamsError:
            self.touch(self._context.clock.now)  # the peer is told that its limit is in the way (S-12)
            raise
        return self._handle(halves)

    def stream(self, stream_id: int) -> Stream | None:
        """Give a stream by its id; `None` when there is none, or it is over.

        Raises:
            ArgumentError: the id is no whole number.
        """
        if type(stream_id) is not int:
            raise ArgumentError(f"stream_id is {stream_id!r}; it must be a whole number", argument="stream_id")
        halves = None if self._engines is None else self._engines.streams.get(stream_id)
        return None if halves is None else self._handle(halves)

    def _handle(self, halves: Halves) -> Stream:
        if halves.handle is None:
            halves.handle = Stream(self, halves)
        return halves.handle  # type: ignore[return-value]

    def send_datagram(self, data: Buffer, now: float, max_lifetime: float | None = None) -> None:
        """Send an unreliable datagram, at most `max_datagram_size` bytes; when too many wait, the oldest is dropped.

        Args:
            data: the datagram.
            now: seconds.
            max_lifetime: seconds after which it is not worth sending any more, 0.001 to 86,400.

        Raises:
            ArgumentError: it is too large, or no bytes; or `max_lifetime` is out of range.
            StateError: the handshake has not got as far as the keys.
            RemoteError: the session has ended.
        """
        self._check_usable()
        if self._engines is None:
            raise StateError("the handshake has not got as far as the keys")
        now = self.touch(now)
        self._engines.datagrams.send(data, max_lifetime, now)
        self._engines.used_at = now

    def receive_datagram(self) -> bytes | None:
        """Take the oldest datagram that arrived; `None` when there is none: `DatagramReceived` tells of the next."""
        return None if self._engines is None else self._engines.datagrams.receive()

    def send_frame(self, kind: int, data: Buffer, now: float, *, reliable: bool = True) -> None:
        """Send a frame of the application's own: a small message beside all streams, before any of their data (F-6).

        Where it is reliable it is repeated until it arrives, and arrives once; else at most once. In either case there
        is no order among them.

        Args:
            kind: its type, 0x80 to 0xff, one that the peer's `Config.extension_frames` has.
            data: at most 1,024 bytes.
            now: seconds.
            reliable: whether it is repeated when it is lost.

        Raises:
            ArgumentError: the peer has not announced this type, or `data` is too long or no bytes.
            BufferOverflowError: as many are on their way as may be (`Limits`).
            StateError: the handshake has not got as far as the keys.
            RemoteError: the session has ended.
        """
        self._check_usable()
        if self._engines is None:
            raise StateError("the handshake has not got as far as the keys")
        control = self._engines.control
        now = self.touch(now)
        control.put((FRAME if reliable else FRAME_ONCE, control.frames.add(kind, data, reliable)))
        self._engines.used_at = now

    def receive_frame(self) -> tuple[int, bytes] | None:
        """Take the oldest frame of the application that arrived: its type and its content.

        `None` when there is none; `ExtensionFrameReceived` tells of the next. Of those that wait the oldest are dropped
        when there are too many (`Limits`).
        """
        return None if self._engines is None else self._engines.control.frames.take()

    def _check_usable(self) -> None:
        """Raise why nothing new can be begun here, if so."""
        self.check_open()
        if self.retiring is not None:
            raise self.retiring.with_traceback(None)

    def check_open(self) -> None:
        """Raise what ended the session, if it has ended or is closing."""
        if self.state is SessionState.CLOSING:
            raise SessionClosedError("the session is closing")
        if self.close_error is not None:
            raise self.close_error.with_traceback(None)

    def __repr__(self) -> str:
        return f"<Session {self.session_id.hex() or '?'} {self.state.value} with {self.peer_node_id.hex()[:16] or '?'}>"
