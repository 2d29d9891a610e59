"""HyStart++: leaving slow start before the queue overflows (RFC 9406; docs/protocol.md, R-13)."""

from __future__ import annotations

from math import inf

LEAST_RISE, MOST_RISE = 0.004, 0.016
"""Seconds by which a round trip must have grown to count: an eighth of it, within these (MIN_ and MAX_RTT_THRESH)."""
RISE_DIVISOR = 8
"""MIN_RTT_DIVISOR."""
LEAST_SAMPLES = 8
"""Samples that a round needs before its minimum says anything (N_RTT_SAMPLE)."""
CAUTIOUS_DIVISOR = 4
"""How much slower a window grows in conservative slow start (CSS_GROWTH_DIVISOR)."""
CAUTIOUS_ROUNDS = 5
"""Rounds of conservative slow start after which slow start is over (CSS_ROUNDS)."""


class HyStart:
    """Watches the round trips of one slow start, the first on a path.

    When the shortest round trip of a round is clearly longer than that of the round before, a queue has begun to
    build. Slow start goes on cautiously then: if the round trips shrink again it was jitter, and after five rounds it
    is over. Packets are paced, so the window may grow by all that one acknowledgement tells of (L = infinity).

    Attributes:
        divisor: what acknowledged bytes are to be divided by before the window grows by them.
    """

    __slots__ = ("_baseline", "_count", "_ends_at", "_last", "_lowest", "_rounds", "divisor")

    def __init__(self) -> None:
        self.divisor = 1
        self._ends_at = 0  # the index of the first packet of the next round
        self._last = self._lowest = inf  # seconds: shortest round trip of the round before, and of this one
        self._count = 0  # samples in this round
        self._baseline = inf  # seconds: the round trip that made us cautious
        self._rounds = 0  # of caution, this one included

    def on_acked(self, newest: int, next_index: int, sample: float | None) -> bool:
        """Take in an acknowledgement; tell whether slow start is over.

        Args:
            newest: the index of the newest packet that it acknowledges.
            next_index: the index of the next packet to be sent.
            sample: the RTT in seconds that it gave, if it did.
        """
        if newest >= self._ends_at:
            self._ends_at = next_index
            self._last, self._lowest = self._lowest, inf
            self._count = 0
            if self._rounds:
                self._rounds += 1
                if self._rounds > CAUTIOUS_ROUNDS:
                    return True
        if sample is None:
            return False
        self._count += 1
        if sample < self._lowest:
            self._lowest = sample
        if self._count >= LEAST_SAMPLES:
            if self._rounds:
                self._reconsider()
            else:
                self._check_rise()
        return False

    def _check_rise(self) -> None:
        """Become cautious when the round trip has grown; there may be none before it, which is endless."""
        rise = min(max(self._last / RISE_DIVISOR, LEAST_RISE), MOST_RISE)
        if self._lowest >= self._last + rise:
            self._baseline = self._lowest
            self._rounds = 1
            self.divisor = CAUTIOUS_DIVISOR

    def _reconsider(self) -> None:
        """Go back to slow start when the round trip has shrunk again."""
        if self._lowest < self._baseline:
            self._baseline = inf
            self._rounds = 0
            self.divisor = 1
