"""Frames of the session itself that are kept until they are acknowledged, or answered once.

Streams have a queue of their own in their room; this one holds what concerns the session as a whole. An entry is a
key, not a frame: the frame is made when it is sent, so one that was lost is sent again as things stand *then*, or not
at all when it means nothing any more (docs/protocol.md, R-9).
"""

from __future__ import annotations

from typing import Any

from stt_proto.packet import LocalConnectionIds, RemoteConnectionIds
from stt_proto.wire import (
    Confirm,
    KeepAlive,
    KeepAliveAck,
    PathResponse,
    Ping,
    RetireConnectionId,
    SessionClose,
)

ControlKey = tuple[str, int]
"""A kind of frame and the number it is about."""

CONFIRM: ControlKey = ("confirm", 0)
CLOSE: ControlKey = ("close", 0)
PING: ControlKey = ("ping", 0)
KEEP_ALIVE: ControlKey = ("keep_alive", 0)
KEEP_ALIVE_ACK: ControlKey = ("keep_alive_ack", 0)
PATH_RESPONSE: ControlKey = ("path_response", 0)

UNRELIABLE = frozenset({"ping", "keep_alive", "keep_alive_ack", "path_response"})
"""Kinds that are not sent again when they are lost: whoever waits for them asks again."""
NON_ELICITING = frozenset({"keep_alive_ack"})
"""Kinds that ask for no acknowledgement."""


class ControlQueue:
    """The control frames of one session that wait to be sent.

    Attributes:
        ready: keys in the order in which they were put in.
    """

    __slots__ = ("_answers", "_awaited", "_close", "_local_ids", "_remote_ids", "ready")

    def __init__(self, local_ids: LocalConnectionIds[Any], remote_ids: RemoteConnectionIds[Any]) -> None:
        self._local_ids = local_ids
        self._remote_ids = remote_ids
        self._answers: dict[str, bytes] = {}
        self._awaited: set[ControlKey] = set()  # kept until they are acknowledged
        self._close: SessionClose | None = None
        self.ready: dict[ControlKey, None] = {}

    def put(self, key: ControlKey) -> None:
        """Ask for a frame to be sent."""
        self.ready[key] = None
        if key[0] not in UNRELIABLE:
            self._awaited.add(key)

    def answer(self, key: ControlKey, token: bytes) -> bool:
        """Ask for the answer to a frame that carried `token`; one answer of a kind waits at a time.

        Returns:
            False when one waited already, which this one replaces.
        """
        fresh = key not in self.ready
        self._answers[key[0]] = token
        self.ready[key] = None
        return fresh

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
                return KeepAlive(self._answers[kind]).encode()
            case "keep_alive_ack":
                return KeepAliveAck(self._answers[kind]).encode()
            case "path_response":
                return PathResponse(self._answers[kind]).encode()
            case "new_id":
                announcement = self._local_ids.frame(number)
                if announcement is None:
                    self._awaited.discard(key)
                    return None
                return announcement.encode()
            case "retire":
                return RetireConnectionId(number).encode()
            case _:
                return None if self._close is None else self._close.encode()

    def on_lost(self, key: ControlKey) -> None:
        """A packet with this frame was lost; it is sent again, unless another copy of it arrived."""
        if key in self._awaited:
            self.ready[key] = None

    def on_acked(self, key: ControlKey) -> None:
        """A packet with this frame arrived."""
        if key in self._awaited:
            self._awaited.remove(key)
            self.ready.pop(key, None)
            if key[0] == "retire":
                self._remote_ids.on_retire_acked(key[1])

    @property
    def closing(self) -> bool:
        """Whether SESSION_CLOSE was asked for: nothing else is sent any more."""
        return self._close is not None
