"""The replay window: which packet numbers were opened (docs/protocol.md, P-7).

The idea of RFC 6479: bits in blocks, and whole blocks leave at the far end, so nothing is ever shifted. The blocks are
integers in a dictionary instead of a ring, since a session that is idle holds next to nothing then; a busy one holds
some 20 KiB. The newest block, which nearly every packet falls into, is kept by itself.
"""

from __future__ import annotations

__all__ = ["REPLAY_WINDOW", "ReplayWindow"]

REPLAY_WINDOW = 65_536
"""Numbers behind the largest that are remembered."""

_SHIFT = 9
_MASK = (1 << _SHIFT) - 1
_BLOCKS = (REPLAY_WINDOW >> _SHIFT) + 1


class ReplayWindow:
    """Remembers which of the last 65,536 packet numbers were opened.

    Attributes:
        largest: the largest number marked, -1 before the first.
    """

    __slots__ = ("_bits", "_block", "_older", "largest")

    def __init__(self) -> None:
        self.largest = -1
        self._block = 0
        self._bits = 0
        self._older: dict[int, int] = {}

    def seen(self, number: int) -> bool:
        """Whether a packet with this number must be dropped: opened already, or too old to tell."""
        if number > self.largest:
            return False
        if number + REPLAY_WINDOW < self.largest:
            return True
        block = number >> _SHIFT
        bits = self._bits if block == self._block else self._older.get(block, 0)
        return bool(bits >> (number & _MASK) & 1)

    def mark(self, number: int) -> None:
        """Remember a number that `seen` did not know and whose packet opened."""
        block = number >> _SHIFT
        if block == self._block:
            self._bits |= 1 << (number & _MASK)
        elif block > self._block:
            self._advance(block)
            self._bits = 1 << (number & _MASK)
        else:
            self._older[block] = self._older.get(block, 0) | 1 << (number & _MASK)
        if number > self.largest:
            self.largest = number

    def _advance(self, block: int) -> None:
        """Begin a new block and drop those that the window has left behind."""
        self._older[self._block] = self._bits
        if block - self._block >= _BLOCKS:
            self._older.clear()
        else:
            for old in range(self._block - _BLOCKS, block - _BLOCKS):
                self._older.pop(old, None)
        self._block = block
