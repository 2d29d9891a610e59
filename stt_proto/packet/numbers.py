"""Packet numbers: counting, skipping, and finding the full number behind four bytes (docs/protocol.md, P-6 and F-2).

Now and then a number is left out. A peer that acknowledges one of these has acknowledged what it never received, to
make the sender go faster than the network (RFC 9000, 21.4).
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable

from stt_proto.errors import EncryptionError, InvalidFrameError

__all__ = ["MAX_PACKET_NUMBER", "PacketNumbers", "decode_number"]

MAX_PACKET_NUMBER = 2**62 - 1
"""The last number of a direction."""

MIN_SKIP_DISTANCE = 500
MAX_SKIP_DISTANCE = 5_000
SKIPS_KEPT = 256
"""Skipped numbers that are remembered, about 700,000 packets: whatever lies further back is no longer in flight, and
an acknowledgement of it moves nothing."""

_HALF = 1 << 31
_LOW_BITS = (1 << 32) - 1


def decode_number(low: int, largest: int) -> int:
    """Give the full packet number nearest to the one that is expected.

    Args:
        low: its low four bytes.
        largest: the largest number opened, -1 before the first. One more is expected.

    Returns:
        A number from 0 on; above 2^62 - 1 no packet is genuine.
    """
    smallest = largest + 2 - _HALF
    number = smallest + ((low - smallest) & _LOW_BITS)
    return number if number >= 0 else number + _LOW_BITS + 1


class PacketNumbers:
    """Hands out the packet numbers of one direction of a session.

    Attributes:
        next_number: the smallest number that may still be handed out.
    """

    __slots__ = ("_entropy", "_skip", "_skipped", "next_number")

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._skipped = array("Q")
        self._skip = self._distance()
        self.next_number = 0

    def next(self) -> int:
        """Give the number of the next packet.

        Raises:
            EncryptionError: all numbers are used up.
        """
        number = self.next_number
        if number == self._skip:
            self._skipped.append(number)
            if len(self._skipped) > SKIPS_KEPT:
                del self._skipped[0]
            number += 1
            self._skip = number + self._distance()
        if number > MAX_PACKET_NUMBER:
            raise EncryptionError("all packet numbers are used up")
        self.next_number = number + 1
        return number

    def check_acked(self, low: int, high: int) -> None:
        """Check that a peer may acknowledge the numbers from `low` to `high`, both included.

        Costs O(log n) in the skipped numbers remembered, of which there are at most 256.

        Raises:
            InvalidFrameError: one of them was never sent, or skipped.
        """
        if high >= self.next_number:
            raise InvalidFrameError("acknowledges a packet that was never sent")
        skipped = self._skipped
        if skipped and skipped[-1] >= low:
            first = bisect_left(skipped, low)
            if skipped[first] <= high:
                raise InvalidFrameError("acknowledges a packet number that was skipped")

    def _distance(self) -> int:
        """Packets until the next skip, even to one part in 500,000."""
        span = MAX_SKIP_DISTANCE - MIN_SKIP_DISTANCE + 1
        return MIN_SKIP_DISTANCE + int.from_bytes(self._entropy(4), "big") % span
