"""Credit: how much one side may send, and how much the other has promised to hold (docs/protocol.md, S-6, S-7).

A `CreditWindow` is the receiver's book, a `SendCredit` the sender's. Both exist once for the session; each receiving
half of a stream has a window of its own. Credit returns when the application *consumes*, never when bytes arrive, so a
reader that stops holds up its writer and the memory behind it stays bounded.

A window of W bytes lets through W bytes a round trip and no more. So it doubles when the application consumes it faster
than the way could refill it, up to a ceiling (S-13). What counts is the *shortest* round trip: the smoothed one grows
with every byte that waits in a socket buffer, and would call for ever larger windows to wait in it.
"""

from __future__ import annotations

from stt_proto.clock import NEVER

__all__ = ["CreditWindow", "GrowthBudget", "SendCredit", "is_due"]

SPARE_WINDOWS = 16
"""Windows that the peer may be ahead of what was sent: as much as a window may have grown meanwhile."""
SMALL_WINDOW = 65_536
"""Bytes; a smaller window counts as this."""
SHORT_WINDOW = 3
"""Round trips in which a window that is large enough is not used up.

Credit comes by halves, so a window of 2 round trips only just keeps the way full. In the simulator, with 100 Mbit/s and
200 ms, growing up to that left a sixth of the link idle.
"""


class GrowthBudget:
    """Bytes by which the windows of all sessions of an endpoint may have grown, together.

    Attributes:
        left: what nobody has taken yet.
    """

    __slots__ = ("left",)

    def __init__(self, limit: int) -> None:
        self.left = limit

    def take(self, count: int) -> int:
        """Take `count` bytes, or what there is; tell how many."""
        count = min(count, self.left)
        self.left -= count
        return count

    def give_back(self, count: int) -> None:
        """Return bytes that were taken."""
        self.left += count


class CreditWindow:
    """What the peer may send: at most `size` bytes more than were consumed.

    Args:
        size: bytes at first.
        most: bytes to which it may grow; not at all when that is no more than `size`.

    Attributes:
        size: bytes that may lie here unconsumed.
        limit: the highest total announced to the peer.
        received: the total taken in, as the largest offsets count it.
        consumed: the total that the application has read, or that was discarded for it.
        blocked_at: the highest limit that the peer said was in its way; just below the first as long as none was.
    """

    __slots__ = ("_mark", "_marked_at", "_unreported", "blocked_at", "consumed", "limit", "most", "received", "size")

    def __init__(self, size: int, most: int = 0) -> None:
        self.size = size
        self.most = most
        self.limit = size
        self.received = 0
        self.consumed = 0
        self.blocked_at = size - 1
        self._unreported = 1  # limits that were announced, and that the peer has not said were in its way
        self._mark = 0  # what was consumed when the measurement began
        self._marked_at = NEVER

    def consume(self, count: int) -> bool:
        """Give bytes back; tell whether half of the window has come together, so that an update is due (S-7)."""
        self.consumed += count
        return self.due

    @property
    def due(self) -> bool:
        """Whether so much can be announced that an update is worth it (S-7)."""
        return (self.consumed + self.size - self.limit) * 2 >= self.size

    @property
    def wanted(self) -> bool:
        """Whether the peer can do with an update, though some hold their part of the window for ever (S-7).

        It is worth one as soon as it doubles what the peer has left: at half of the window, where nothing lies here
        unread, and at half of what is free, but no less than a quarter, where something does. A peer that has said
        that it waits can do with anything; it says so once for a limit, so that is an update a round trip at most.
        """
        more = self.consumed + self.size - self.limit
        if self.blocked_at == self.limit:
            return more > 0
        return more * 4 >= self.size and more >= self.limit - self.received

    def is_short(self, now: float, rtt: float) -> bool:
        """Whether the application consumed more than a window in `SHORT_WINDOW` round trips since the last update.

        Ask when an update is sent: a new measurement begins, unless this is a small update, or one that was lost.

        Args:
            now: seconds.
            rtt: the shortest round trip, seconds; 0 while none was measured.
        """
        consumed = self.consumed - self._mark
        if consumed * 2 < self.size:
            return False
        elapsed = now - self._marked_at
        self._mark, self._marked_at = self.consumed, now
        return SHORT_WINDOW * rtt * consumed > self.size * elapsed

    def announce(self) -> int:
        """Give the limit to announce, which counts from now on."""
        limit = self.consumed + self.size
        self._unreported += limit > self.limit
        self.limit = limit
        return limit

    def on_blocked(self, limit: int) -> bool:
        """The peer says that `limit` is in its way; False when that is nothing new, or cannot have been announced.

        There is one such report for each limit at most, and limits are announced only as credit returns.
        """
        fresh = self._unreported > 0 and self.blocked_at < limit <= self.limit
        if fresh:
            self._unreported -= 1
            self.blocked_at = limit
        return fresh


def is_due(old: int, new: int, used: int, window: int, blocked: bool = False) -> bool:
    """Whether an update of credit is one that makes sense to send (S-7, F-5).

    Args:
        old: the limit so far.
        new: the limit now.
        used: what was sent.
        window: the limit in the beginning.
        blocked: whether the peer was told that the old limit is in the way, and any update is of use.

    Returns:
        False when it raises the limit by less than a quarter of the window though nobody asked for that, or though
        the old limit is far from used up.
    """
    enough = 0 if blocked else window
    return new > old and 4 * (new - old) >= enough and old - used <= SPARE_WINDOWS * max(window, SMALL_WINDOW)


class SendCredit:
    """What the peer allows us to send in all.

    Attributes:
        limit: the total allowed.
        window: what it was in the beginning.
        used: the total sent, as the largest offsets count it.
        reported: the limit that the peer was last told to be in our way.
    """

    __slots__ = ("limit", "reported", "used", "window")

    def __init__(self) -> None:
        self.limit = 0
        self.window = 0
        self.used = 0
        self.reported = -1

    def raise_limit(self, limit: int) -> bool:
        """Take in the peer's limit; False when it is no higher than before."""
        if limit <= self.limit:
            return False
        self.limit = limit
        self.window = self.window or limit
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
