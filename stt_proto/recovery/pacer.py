"""Spreads packets over the round trip (RFC 9002, section 7.7; docs/protocol.md, section 10).

A bucket of bytes that fills at the controller's rate. It is made for batches, since a host that wakes for each packet
does little else: the bucket holds what may leave at once, and the wait for its next fill is never shorter than a
timer can be trusted to be.
"""

from __future__ import annotations

from stt_proto.clock import NEVER

BURST_DATAGRAMS = 10
"""Datagrams that may always leave at once."""

BURST_TIME = 0.004
"""Seconds at the current rate that may leave at once, where that is more."""

SHORTEST_WAIT = 0.001
"""Seconds; no deadline is closer."""

SHORTEST_RTT = 0.002
"""Seconds; a path with a shorter round trip is not paced, since a wait would be as long as the trip."""

LARGEST_DEBT = 65_536.0
"""Bytes that a bucket can owe: those of one packet. What was sent while nobody asked is forgiven beyond that."""


class Pacer:
    """The bucket. It begins full, and is filled when somebody asks who would be refused otherwise.

    Attributes:
        tokens: bytes in it when it was last filled, less those sent since; below 0 is a debt.
    """

    __slots__ = ("_filled_at", "tokens")

    def __init__(self) -> None:
        self.tokens = 0.0
        self._filled_at = NEVER

    def on_sent(self, size: int) -> None:
        """Take `size` bytes out."""
        self.tokens -= size

    def deadline(self, now: float, size: int, rate: float, max_datagram_size: int) -> float:
        """When `size` bytes may be sent.

        Args:
            now: seconds.
            size: bytes of the packet; one larger than the bucket may leave when that is full.
            rate: bytes in a second, above 0.
            max_datagram_size: bytes.

        Returns:
            0.0 for now, else a time at least `SHORTEST_WAIT` ahead.
        """
        tokens = self.tokens
        if tokens >= size:
            return 0.0
        capacity = max(BURST_DATAGRAMS * max_datagram_size, BURST_TIME * rate)
        tokens = min(max(tokens, -LARGEST_DEBT) + rate * (now - self._filled_at), capacity)
        self.tokens = tokens
        self._filled_at = now
        missing = min(size, capacity) - tokens
        return now + max(missing / rate, SHORTEST_WAIT) if missing > 0 else 0.0
