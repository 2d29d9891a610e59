"""What the streams of one session share: where they report, queue and draw credit.

A stream knows no table and calls nobody. It puts itself into an ordered set that it was handed when it was made, and
whoever fills the next packet looks there first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from stt_proto.events import Event
from stt_proto.streams.flow import CreditWindow, GrowthBudget, SendCredit
from stt_proto.streams.schedule import Schedule

if TYPE_CHECKING:
    from stt_proto.streams.expiry import Expiries
    from stt_proto.streams.send import SendStream

__all__ = ["PIECE_SHARE", "ControlKey", "EventQueue", "Hub", "StreamToken", "Token"]

PIECE_SHARE = 512
"""Bytes of a window for each of which a separate piece may lie beyond a gap, when that is more than the limit (S-8).

A window of 10 MiB holds 8,738 datagrams, and a queue that overflows drops every other one.
"""

ControlKey: TypeAlias = tuple[str, int]
"""A kind of control frame and the number that it is about (a stream id, or 1 for both ways, or 0)."""

StreamToken: TypeAlias = "tuple[SendStream, int, int, bool]"
"""What a STREAM frame held: the sending half, first offset, offset behind the last, and whether the end was told."""

ExpiredToken: TypeAlias = tuple[str, int, int]
"""What an EXPIRED frame held: its key, and the offset."""

Token: TypeAlias = "StreamToken | ControlKey | ExpiredToken"
"""What a packet has to remember of a frame, so that it can be told of its fate."""


class EventQueue(Protocol):
    """Where events go: a deque, or anything that appends."""

    def append(self, event: Event, /) -> None: ...


class Hub:
    """The common ground of all streams of a session.

    Attributes:
        events: for the host, in order.
        control: control frames to be sent, in order.
        ready: sending halves with something to send, for which credit of the session may be missing.
        credit: the session's, for sending.
        window: the session's, for receiving.
        pieces: runs of bytes that wait behind gaps, in all streams; at most `max_pieces`.
        expiries: what sending halves share whose data has a limited life; `None` while there was none.
        undelivered: bytes, ends, resets and what was given up, as far as the peer has not acknowledged it; 0 when it
            knows everything.
        bytes_written: bytes taken from the application, all told.
        bytes_read: bytes given to the application, all told.
    """

    __slots__ = (
        "_budget",
        "_grown",
        "bytes_read",
        "bytes_written",
        "control",
        "credit",
        "events",
        "expiries",
        "max_pieces",
        "pieces",
        "ready",
        "undelivered",
        "window",
    )

    def __init__(
        self,
        events: EventQueue,
        window: int,
        max_pieces: int = 16_384,
        *,
        max_window: int = 0,
        budget: GrowthBudget | None = None,
    ) -> None:
        self.events = events
        self.control: dict[ControlKey, None] = {}
        self.ready = Schedule()
        self.credit = SendCredit()
        self.window = CreditWindow(window, max_window)
        self.expiries: Expiries | None = None
        self.pieces = 0
        self.max_pieces = max_pieces
        self.undelivered = 0
        self.bytes_written = 0
        self.bytes_read = 0
        self._budget = budget
        self._grown = 0

    def raise_credit(self, limit: int) -> None:
        """Take in the session's credit; who gave up what was never sent can tell more of it."""
        if self.credit.raise_limit(limit) and self.expiries is not None:
            for send in self.expiries.skipping:
                self.control["expired", send.id] = None

    @property
    def sendable(self) -> bool:
        """Whether anybody may send now."""
        ready, credit = self.ready, self.credit
        return ready.unpaid > 0 or (ready.count > 0 and credit.used < credit.limit)

    def report_blocked(self) -> None:
        """Tell the peer, once for each limit, if it is the session's credit that somebody waits for (S-12)."""
        if not self.credit.exhausted:
            return
        waits = self.ready.count > self.ready.unpaid or (self.expiries is not None and self.expiries.skipping)
        if waits and self.credit.report_blocked():
            self.control["data_blocked", 0] = None

    def shrink(self) -> None:
        """There is no stream any more: give back what the emptied containers still hold."""
        self.ready.clear()
        if not self.control:
            self.control.clear()

    def grow(self, size: int) -> None:
        """Let the session's window grow to `size`, as far as its ceiling and the endpoint's budget allow (S-13)."""
        window = self.window
        more = max(min(size, window.most) - window.size, 0)
        if self._budget is not None:
            more = self._budget.take(more)
        self._grown += more
        window.size += more
        self.max_pieces = max(self.max_pieces, window.size // PIECE_SHARE)
        self.announce_credit()

    def give_up_growth(self) -> None:
        """The session is over: what its window has grown by is there for others."""
        if self._budget is not None:
            self._budget.give_back(self._grown)
            self._grown = 0

    def consume(self, count: int) -> None:
        """Give `count` bytes of the session's credit back to the peer, and tell it when enough came together."""
        self.window.consumed += count
        self.announce_credit()

    def announce_credit(self) -> None:
        """Tell the peer of the session's credit, if it can do with an update (S-7).

        A stream's window comes back as its reader reads on. Of the session's, streams that nobody reads may hold any
        part, so half of it may never come together.
        """
        if self.window.wanted:
            self.control["max_data", 0] = None
