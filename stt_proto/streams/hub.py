"""What the streams of one session share: where they report, queue and draw credit.

A stream knows no table and calls nobody. It puts itself into an ordered set that it was handed when it was made, and
whoever fills the next packet looks there first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol, TypeAlias

from stt_proto.events import Event
from stt_proto.streams.flow import CreditWindow, SendCredit

if TYPE_CHECKING:
    from stt_proto.streams.send import SendStream

__all__ = ["ControlKey", "EventQueue", "Hub", "StreamToken", "Token"]

ControlKey: TypeAlias = tuple[str, int]
"""A kind of control frame and the number that it is about (a stream id, or 1 for both ways, or 0)."""

StreamToken: TypeAlias = "tuple[SendStream, int, int, bool]"
"""What a STREAM frame held: the sending half, first offset, offset behind the last, and whether the end was told."""

Token: TypeAlias = "StreamToken | ControlKey"
"""What a packet has to remember of a frame, so that it can be told of its fate."""


class EventQueue(Protocol):
    """Where events go: a deque, or anything that appends."""

    def append(self, event: Event, /) -> None: ...


class Hub:
    """The common ground of all streams of a session.

    Attributes:
        events: for the host, in order.
        control: control frames to be sent, in order.
        ready: sending halves with something to send, in the order of their turns.
        waiting: sending halves whose new data only lacks credit of the session, in the same order.
        credit: the session's, for sending.
        window: the session's, for receiving.
        pieces: runs of bytes that wait behind gaps, in all streams; at most `max_pieces`.
        undelivered: bytes, ends and resets that the peer has not acknowledged; 0 when everything has arrived.
        bytes_written: bytes taken from the application, all told.
        bytes_read: bytes given to the application, all told.
    """

    __slots__ = (
        "bytes_read",
        "bytes_written",
        "control",
        "credit",
        "events",
        "max_pieces",
        "pieces",
        "ready",
        "undelivered",
        "waiting",
        "window",
    )

    def __init__(self, events: EventQueue, window: int, max_pieces: int = 16_384) -> None:
        self.events = events
        self.control: dict[ControlKey, None] = {}
        self.ready: OrderedDict[SendStream, None] = OrderedDict()
        self.waiting: dict[SendStream, None] = {}
        self.credit = SendCredit()
        self.window = CreditWindow(window)
        self.pieces = 0
        self.max_pieces = max_pieces
        self.undelivered = 0
        self.bytes_written = 0
        self.bytes_read = 0

    def raise_credit(self, limit: int) -> bool:
        """Take in the session's credit; those who wait for it are ready again. False when it is no higher."""
        if not self.credit.raise_limit(limit):
            return False
        self.ready.update(self.waiting)
        self.waiting.clear()
        return True

    def shrink(self) -> None:
        """There is no stream any more: give back what the emptied containers still hold."""
        self.ready.clear()
        self.waiting.clear()
        if not self.control:
            self.control.clear()

    def consume(self, count: int) -> None:
        """Give `count` bytes of the session's credit back to the peer, and tell it when enough came together."""
        if self.window.consume(count):
            self.control["max_data", 0] = None
