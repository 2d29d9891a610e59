"""How often the peer is asked to acknowledge (docs/protocol.md, R-16).

An acknowledgement of every second datagram costs both sides as much as the data where packets are small, and one of
every packet costs a tenth where they are trains. What a sender needs is a number of them in a round trip, however many
packets that has: so many that its window grows, and moves on, without stalling. What tells of trouble comes at once in
any case.
"""

from __future__ import annotations

WINDOW_SHARE = 16
"""Acknowledgements asked for in a congestion window. HyStart++ wants eight samples in a round (RFC 9406)."""
LEAST, MOST = 2, 256
"""Datagrams after which one is asked for."""
RTT_SHARE = 4
"""None is to wait for more than this part of a round trip."""
SHORTEST_DELAY = 0.001
"""Seconds; timers are no finer."""


class AckRate:
    """What this side asks its peer for.

    Args:
        able: whether the peer understands that.
        max_delay: seconds that it may hold an acknowledgement back, as its parameters say.

    Attributes:
        number: of the last request; 0 while there was none.
        threshold: datagrams after which an acknowledgement is due.
        delay: seconds after which it is in any case.
    """

    __slots__ = ("_max_delay", "able", "delay", "number", "threshold")

    def __init__(self, able: bool, max_delay: float) -> None:
        self.able = able
        self.number = 0
        self.threshold = LEAST
        self.delay = self._max_delay = max_delay

    def update(self, window: float, datagram_size: int, rtt: float) -> bool:
        """Look at the congestion window in bytes, and the smoothed round trip; tell whether to ask for something else.

        It has to be another by a factor of two, so that nobody is asked more than once in a round trip.
        """
        wanted = min(max(int(window) // (datagram_size * WINDOW_SHARE), LEAST), MOST)
        if self.threshold < 2 * wanted and wanted < 2 * self.threshold:
            return False
        self.number += 1
        self.threshold = wanted
        delay = self._max_delay
        self.delay = delay if wanted == LEAST else min(delay, max(rtt / RTT_SHARE, SHORTEST_DELAY))
        return True
