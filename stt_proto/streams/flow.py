"""Credit: how much one side may send, and how much the other has promised to hold (docs/protocol.md, S-6, S-7).

A `CreditWindow` is the receiver's book, a `SendCredit` the sender's. Both exist once for the session; each receiving
half of a stream has a window of its own. Credit returns when the application *consumes*, never when bytes arrive, so a
reader that stops holds up its writer and the memory behind it stays bounded.
"""

from __future__ import annotations

__all__ = ["CreditWindow", "SendCredit"]


class CreditWindow:
    """What the peer may send: at most `size` bytes more than were consumed.

    Attributes:
        size: bytes that may lie here unconsumed.
        limit: the highest total announced to the peer.
        received: the total taken in, as the largest offsets count it.
        consumed: the total that the application has read, or that was discarded for it.
        blocked_at: the highest limit that the peer said was in its way.
    """

    __slots__ = ("blocked_at", "consumed", "limit", "received", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.limit = size
        self.received = 0
        self.consumed = 0
        self.blocked_at = -1

    def consume(self, count: int) -> bool:
        """Give bytes back; tell whether half of the window has come together, so that an update is due (S-7)."""
        self.consumed += count
        return (self.consumed + self.size - self.limit) * 2 >= self.size

    def announce(self) -> int:
        """Give the limit to announce, which counts from now on."""
        self.limit = self.consumed + self.size
        return self.limit

    def on_blocked(self, limit: int) -> bool:
        """The peer says that `limit` is in its way; False when that is nothing new, or was never announced."""
        fresh = self.blocked_at < limit <= self.limit
        if fresh:
            self.blocked_at = limit
        return fresh


class SendCredit:
    """What the peer allows us to send in all.

    Attributes:
        limit: the total allowed.
        used: the total sent, as the largest offsets count it.
        reported: the limit that the peer was last told to be in our way.
    """

    __slots__ = ("limit", "reported", "used")

    def __init__(self) -> None:
        self.limit = 0
        self.used = 0
        self.reported = -1

    def raise_limit(self, limit: int) -> bool:
        """Take in the peer's limit; False when it is no higher than before."""
        if limit <= self.limit:
            return False
        self.limit = limit
        return True

    @property
    def exhausted(self) -> bool:
        """Whether nothing more may be sent."""
        return self.used >= self.limit

    def report_blocked(self) -> bool:
        """Whether the peer is to be told that the limit is in the way: once for each (S-12)."""
        fresh = self.reported != self.limit
        self.reported = self.limit
        return fresh
