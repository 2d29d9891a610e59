"""The receiving side of acknowledgement: what arrived, and when to say so (docs/protocol.md, R-1, R-2, R-16, F-3).

One tracker serves a session over all its paths. The newest range stands apart from the older ones, so a packet in order
costs a comparison and a few assignments, however torn the past is.
"""

from __future__ import annotations

from math import inf

from stt_proto.errors import ArgumentError

MAX_RANGES = 32
"""Ranges kept and reported, the newest (F-3)."""

DELAY_UNITS = 125_000
"""Units of 8 us in a second: what ACK frames count delays in."""

Ranges = tuple[tuple[int, int], ...]
"""Packet numbers as (lowest, highest), both included, newest range first."""

USUAL_THRESHOLD = 2
"""Datagrams after which an acknowledgement is due when nobody asks for another number; never less (R-2)."""
MOST_THRESHOLD = 1024
"""Datagrams, whatever is asked for."""
SHORTEST_DELAY = 0.001
"""Seconds; what is asked for counts as no less."""
WARY = 3
"""Packets behind a gap after which the sender knows that what is missing is lost (R-4)."""

CE = 3
_ECN_COUNTER = (0, 1, 0, 2)
"""Where the code points ECT(1), ECT(0) and CE (1, 2, 3; RFC 3168) stand among the counts of an ACK_ECN frame."""


class AckTracker:
    """Remembers which packets arrived until the peer knows.

    Args:
        max_ack_delay: seconds that an acknowledgement may wait for company: what our parameters promise.

    Attributes:
        due_at: when an acknowledgement has to be sent; `inf` when none is owed. At once is the `now` of the packet
            that called for it, so ask at the end of a batch.
        pending: datagrams' worth of eliciting packets not yet reported. Above 0, an acknowledgement is worth adding
            to a packet that is sent anyway.

    Raises:
        ArgumentError: `max_ack_delay` is no time.
    """

    __slots__ = (
        "_asked",
        "_delay",
        "_ecn",
        "_high",
        "_high_at",
        "_low",
        "_most_delay",
        "_older",
        "_threshold",
        "_wary",
        "due_at",
        "pending",
    )

    def __init__(self, max_ack_delay: float = 0.025) -> None:
        if not 0 <= max_ack_delay < inf:
            raise ArgumentError(
                f"max_ack_delay must be a time of at least 0 s, not {max_ack_delay!r}", argument="max_ack_delay"
            )
        self._delay = self._most_delay = max_ack_delay
        self._threshold = USUAL_THRESHOLD
        self._asked = 0  # the number of the last request
        self._wary = 0  # packets behind a gap that are acknowledged as if nothing had been asked for
        # The newest range is _low to _high; empty, as when its packets need no more acknowledgement, _low is
        # _high + 1. The others stand in _older, newest first.
        self._low = 0
        self._high = -1
        self._high_at = 0.0
        self._older: list[tuple[int, int]] = []
        self._ecn: list[int] | None = None
        self.due_at = inf
        self.pending = 0

    def on_packet(self, number: int, datagrams: int, eliciting: bool, now: float, ecn: int = 0) -> None:
        """A packet was opened.

        Args:
            number: its packet number. One that is known already is ignored.
            datagrams: in how many it came.
            eliciting: whether it asks for an acknowledgement.
            now: when its last datagram arrived.
            ecn: the two ECN bits of its datagrams, CE if any of them had that.
        """
        urgent = False
        if number == self._high + 1:
            self._high = number
            self._high_at = now
        elif self._insert(number, now):
            urgent = True
            self._wary = WARY
        else:
            return
        if ecn:
            urgent |= self._count(ecn)
        if eliciting:
            self.pending += datagrams
            threshold = self._threshold
            if self._wary:
                self._wary -= 1
                threshold = USUAL_THRESHOLD
            if urgent or self.pending >= threshold:
                if self.due_at > now:
                    self.due_at = now
            elif self.due_at == inf:
                self.due_at = now + self._delay

    def ask(self, number: int, threshold: int, delay: float) -> None:
        """The peer would like acknowledgements less often, or as often as usual again (R-16).

        Args:
            number: of its request; one that another overtook says nothing.
            threshold: datagrams after which one is due; 2 to 1,024 are believed.
            delay: seconds after which one is due in any case; from 1 ms to what our parameters promise are believed.
        """
        if number > self._asked:
            self._asked = number
            self._threshold = min(max(threshold, USUAL_THRESHOLD), MOST_THRESHOLD)
            self._delay = min(max(delay, SHORTEST_DELAY), self._most_delay)

    def take(self, now: float) -> tuple[int, int, Ranges, tuple[int, int, int] | None] | None:
        """The content of an ACK frame that is being sent now; nothing is due after that.

        Returns:
            The largest number, its delay in units of 8 us, the ranges, and the counts of packets marked ECT(0),
            ECT(1) and CE if any ever was; `None` if there is nothing that the peer does not know to be known.
        """
        low, high = self._low, self._high
        self.due_at = inf
        self.pending = 0
        if low > high:
            return None
        delay = int((now - self._high_at) * DELAY_UNITS)
        ecn = self._ecn
        return high, delay, ((low, high), *self._older), (ecn[0], ecn[1], ecn[2]) if ecn else None

    def repeat(self, now: float) -> None:
        """What was acknowledged last went where nobody may be any more: say it again."""
        if self._low <= self._high:
            self.due_at = now

    def on_acked(self, largest: int) -> None:
        """A packet with our acknowledgement up to `largest` was itself acknowledged: forget what that covered."""
        if largest >= self._low:
            self._low = largest + 1
            self._older.clear()
            return
        older = self._older
        while older and older[-1][1] <= largest:
            older.pop()
        if older and older[-1][0] <= largest:
            older[-1] = largest + 1, older[-1][1]

    def _insert(self, number: int, now: float) -> bool:
        """Enter a number that is not the next; False if it is known."""
        older = self._older
        if number > self._high:
            if self._low <= self._high:
                older.insert(0, (self._low, self._high))
                del older[MAX_RANGES - 1 :]
            self._low = self._high = number
            self._high_at = now
            return True
        if self._low > self._high:
            self._low = self._high  # Only what is older than the newest range lies in _older: report it again.
        if number >= self._low:
            return False
        if number == self._low - 1:
            self._low = older.pop(0)[0] if older and older[0][1] == number - 1 else number
            return True
        place = 0
        for low, high in older:
            if number > high:
                break
            if number >= low:
                return False
            place += 1
        joins_newer = place > 0 and older[place - 1][0] == number + 1
        joins_older = place < len(older) and older[place][1] == number - 1
        joined = older[place][0] if joins_older else number, older[place - 1][1] if joins_newer else number
        older[place - joins_newer : place + joins_older] = [joined]
        del older[MAX_RANGES - 1 :]
        return True

    def _count(self, ecn: int) -> bool:
        """Count a marked packet; True for CE, whose news must not wait."""
        if self._ecn is None:
            self._ecn = [0, 0, 0]
        self._ecn[_ECN_COUNTER[ecn]] += 1
        return ecn == CE
