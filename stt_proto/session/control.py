"""Frames of the session itself that are kept until they are acknowledged, or answered once.

Streams have a queue of their own in their room; this one holds what concerns the session as a whole. An entry is a
key, not a frame: the frame is made when it is sent, so one that was lost is sent again as things stand *then*, or not
at all when it means nothing any more (docs/protocol.md, R-9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stt_proto.packet import LocalConnectionIds, RemoteConnectionIds
from stt_proto.recovery import AckRate
from stt_proto.session.extensions import ExtensionFrames
from stt_proto.wire import (
    AckFrequency,
    Confirm,
    KeepAlive,
    KeepAliveAck,
    Move,
    Ping,
    RetireConnectionId,
    SessionClose,
)

if TYPE_CHECKING:
    from stt_proto.session.rotation import KeyRotation

ControlKey = tuple[str, int]
"""A kind of frame and the number it is about."""

ROTATE = "rotate"
"""A kind whose number is a key version."""
MOVE = "move"
"""Kind of the frame that asks the peer to follow; the number is that of the wish."""
FRAME = "frame"
FRAME_ONCE = "frame_once"
"""Kinds of the application's frames; the number is that of `ExtensionFrames`."""

CONFIRM: ControlKey = ("confirm", 0)
CLOSE: ControlKey = ("close", 0)
PING: ControlKey = ("ping", 0)
KEEP_ALIVE: ControlKey = ("keep_alive", 0)
KEEP_ALIVE_ACK: ControlKey = ("keep_alive_ack", 0)
ACK_FREQUENCY: ControlKey = ("ack_frequency", 0)
TICKET: ControlKey = ("ticket", 0)

UNRELIABLE = frozenset({"ping", "keep_alive", "keep_alive_ack", FRAME_ONCE})
"""Kinds that are not sent again when they are lost: whoever waits for them asks again."""
NON_ELICITING = frozenset({"keep_alive_ack"})
"""Kinds that ask for no acknowledgement."""


class ControlQueue:
    """The control frames of one session that wait to be sent.

    Attributes:
        frames: the application's own.
        rotation: what makes ROTATE; set once it is there.
        ticket: the frame with the ticket that the peer is given.
        ready: keys in the order in which they were put in.
        wish: number of the MOVE that is meant to go over the active path; none that was put in before means anything.
    """

    __slots__ = (
        "_ack_rate",
        "_answer",
        "_asked",
        "_awaited",
        "_close",
        "_local_ids",
        "_question",
        "_remote_ids",
        "frames",
        "ready",
        "rotation",
        "ticket",
        "wish",
    )

    rotation: KeyRotation

    def __init__(
        self,
        local_ids: LocalConnectionIds[Any],
        remote_ids: RemoteConnectionIds[Any],
        frames: ExtensionFrames,
        ack_rate: AckRate,
    ) -> None:
        self._local_ids = local_ids
        self._remote_ids = remote_ids
        self._ack_rate = ack_rate
        self.frames = frames
        self._question = self._answer = b""  # the token of our KEEP_ALIVE, and that of the peer's
        self._asked = 0  # signs of life asked for and not given
        self._awaited: dict[ControlKey, None] = {}  # kept until they are acknowledged
        self._close: SessionClose | None = None
        self.ticket = b""
        self.ready: dict[ControlKey, None] = {}
        self.wish = 0

    def put(self, key: ControlKey) -> None:
        """Ask for a frame to be sent."""
        self.ready[key] = None
        if key[0] not in UNRELIABLE:
            self._awaited[key] = None

    def take(self, key: ControlKey) -> None:
        """This frame leaves, or means nothing any more."""
        del self.ready[key]
        if not self.ready:
            self.ready.clear()  # an emptied dictionary keeps its memory, a cleared one does not

    def answer(self, token: bytes) -> None:
        """Give the peer the sign of life for which it asked with `token`; the newest one waits."""
        self._answer = token
        self.put(KEEP_ALIVE_ACK)

    def ask(self, token: bytes) -> None:
        """Ask the peer for a sign of life."""
        self._asked += 1
        self._question = token
        self.put(KEEP_ALIVE)

    def on_asked(self) -> bool:
        """The peer gave a sign of life; False when it was not asked for so many (F-5)."""
        if not self._asked:
            return False
        self._asked -= 1
        return True

    def awaits(self, key: ControlKey) -> bool:
        """Whether this frame was asked for and has not arrived yet, as far as is known."""
        return key in self._awaited

    def close(self, frame: SessionClose) -> None:
        """Ask for SESSION_CLOSE, and nothing else."""
        self._close = frame
        self.ready.clear()
        self._awaited.clear()
        self.put(CLOSE)

    def encode(self, key: ControlKey) -> bytes | None:
        """Make the frame for a key as things stand now; `None` when it means nothing any more."""
        kind, number = key
        match kind:
            case "confirm":
                return Confirm().encode()
            case "ping":
                return Ping().encode()
            case "keep_alive":
                return KeepAlive(self._question).encode()
            case "keep_alive_ack":
                return KeepAliveAck(self._answer).encode()
            case "new_id":
                announcement = self._local_ids.frame(number)
                if announcement is None:
                    self._awaited.pop(key, None)
                    return None
                return announcement.encode()
            case "move":
                if number != self.wish:
                    self._awaited.pop(key, None)
                    return None
                return Move(number).encode()
            case "retire":
                return RetireConnectionId(number).encode()
            case "ack_frequency":
                rate = self._ack_rate
                return AckFrequency(rate.number, rate.threshold, round(rate.delay * 1e6)).encode()
            case "rotate":
                offer = self.rotation.encode(number)
                if offer is None:
                    self._awaited.pop(key, None)
                return offer
            case "ticket":
                return self.ticket
            case "frame" | "frame_once":
                return self.frames.encode(number)
            case _:
                return None if self._close is None else self._close.encode()

    def on_lost(self, key: ControlKey) -> None:
        """A packet with this frame was lost; it is sent again, unless another copy of it arrived."""
        if key in self._awaited:
            self.ready[key] = None
        elif key[0] == FRAME_ONCE:
            self.frames.release(key[1])

    def on_acked(self, key: ControlKey) -> None:
        """A packet with this frame arrived."""
        if key in self._awaited:
            del self._awaited[key]
            self.ready.pop(key, None)
            if not self._awaited:
                self._awaited.clear()  # as in `take`
            if key[0] == "retire":
                self._remote_ids.on_retire_acked(key[1])
            elif key[0] == ROTATE:
                self.rotation.on_acked(key[1])
            elif key[0] == FRAME:
                self.frames.release(key[1])
            elif key == TICKET:
                self.ticket = b""  # some 300 bytes that nobody asks for again
        elif key[0] == FRAME_ONCE:
            self.frames.release(key[1])

    @property
    def closing(self) -> bool:
        """Whether SESSION_CLOSE was asked for: nothing else is sent any more."""
        return self._close is not None
