"""Frames of the application's own: what waits to be sent, or to be taken (docs/protocol.md, F-6, F-7).

They are few and small, so there is no credit for them; both directions are bounded by count and bytes instead. A
sender that has too many on their way is refused. A receiver whose application does not take them loses the oldest, like
datagrams: nothing that a peer sends makes this side hold more.

Those that are repeated until they arrive have numbers, so that they arrive once. (A probe timeout alone sends two.)
"""

from __future__ import annotations

from collections import deque

from stt_proto.config import Limits
from stt_proto.errors import ArgumentError, BufferOverflowError, ResourcesExhaustedError
from stt_proto.streams import IntervalSet
from stt_proto.types import Buffer
from stt_proto.wire import APPLICATION_FRAMES, Extension

__all__ = ["ExtensionFrames"]

SPAN = 4096
"""How far a number may lie above the smallest that has not arrived (F-6)."""


class ExtensionFrames:
    """The application's frames of one session.

    Args:
        limits: of this side.
        understood: the types that the peer has announced.

    Attributes:
        reliable: frames that are repeated until they arrive, and have not, with their numbers on the wire.
        dropped: frames that came and that the application did not take in time.
    """

    __slots__ = (
        "_incoming",
        "_incoming_bytes",
        "_limits",
        "_next",
        "_outgoing",
        "_outgoing_bytes",
        "_seen",
        "_serial",
        "_understood",
        "dropped",
        "reliable",
    )

    def __init__(self, limits: Limits, understood: frozenset[int]) -> None:
        self._limits = limits
        self._understood = understood
        self._next = 0
        self._serial = 0  # of the last reliable one
        self._seen: IntervalSet | None = None  # what arrived of the peer's reliable ones, counted from 0
        self._outgoing: dict[int, bytes] = {}
        self._outgoing_bytes = 0
        self._incoming: deque[Extension] | None = None
        self._incoming_bytes = 0
        self.reliable: dict[int, int] = {}
        self.dropped = 0

    # -- sending ---------------------------------------------------------------------------------------------------

    def add(self, kind: int, data: Buffer, reliable: bool) -> int:
        """Keep a frame until its fate is known; give the number by which it is known here.

        Raises:
            ArgumentError: the peer has not announced this type, or `data` is no bytes or too many.
            BufferOverflowError: as many frames, or bytes, are on their way as may be.
        """
        if type(kind) is not int or kind not in APPLICATION_FRAMES or kind not in self._understood:
            known = sorted(self._understood.intersection(APPLICATION_FRAMES))
            raise ArgumentError(f"kind is {kind!r}; the peer has announced {known}", argument="kind")
        try:
            serial = self._serial + 1 if reliable else 0
            frame = Extension(kind, serial, bytes(memoryview(data))).encode()
        except TypeError:
            name = type(data).__name__
            raise ArgumentError(f"data is {name}; it must be bytes-like", argument="data") from None
        limits = self._limits
        full = len(self._outgoing) >= limits.extension_frames
        full |= self._outgoing_bytes + len(frame) > limits.extension_bytes
        if full or (reliable and self.reliable and serial >= next(iter(self.reliable.values())) + SPAN):
            raise BufferOverflowError(
                f"{len(self._outgoing)} frames are on their way; send more when they have arrived"
            )
        number = self._next
        self._next += 1
        self._outgoing[number] = frame
        self._outgoing_bytes += len(frame)
        if reliable:
            self._serial = serial
            self.reliable[number] = serial
        return number

    def encode(self, number: int) -> bytes | None:
        """Give a frame, as long as it is kept."""
        return self._outgoing.get(number)

    def release(self, number: int) -> None:
        """Its fate is known: it arrived, or was lost and is not repeated."""
        frame = self._outgoing.pop(number, b"")
        self._outgoing_bytes -= len(frame)
        self.reliable.pop(number, None)

    # -- receiving -------------------------------------------------------------------------------------------------

    @property
    def has_arrived(self) -> bool:
        """Whether a frame waits for the application."""
        return bool(self._incoming)

    def on_frame(self, frame: Extension) -> bool:
        """Take in a frame of a type that this side has announced; the oldest is dropped when there are too many.

        False when it has arrived before.

        Raises:
            ResourcesExhaustedError: its number lies too far above one that is missing.
        """
        if frame.number and not self._is_new(frame.number - 1):
            return False
        limits, incoming = self._limits, self._incoming
        if incoming is None:
            incoming = self._incoming = deque()
        incoming.append(frame)
        self._incoming_bytes += len(frame.data)
        while len(incoming) > limits.extension_frames or self._incoming_bytes > limits.extension_bytes:
            self._incoming_bytes -= len(incoming.popleft().data)
            self.dropped += 1
        return True

    def _is_new(self, number: int) -> bool:
        seen = self._seen
        if seen is None:
            seen = self._seen = IntervalSet()
        if number >= seen.first_gap + SPAN:
            raise ResourcesExhaustedError(f"frame {number + 1} of the application, and {seen.first_gap + 1} is missing")
        if number in seen:
            return False
        seen.add(number, number + 1)
        return True

    def take(self) -> tuple[int, bytes] | None:
        """Give the type and the content of the oldest frame that arrived, or `None`."""
        if not self._incoming:
            return None
        frame = self._incoming.popleft()
        self._incoming_bytes -= len(frame.data)
        return frame.kind, frame.data
