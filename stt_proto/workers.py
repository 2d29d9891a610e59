"""Several endpoints behind one address: which of them a connection ID names (docs/protocol.md, C-7 to C-9).

The processes that share a port are *workers*. Each draws connection IDs at random until a keyed hash of one names the
worker itself, so what comes in can be routed by whoever has the key: a filter in the kernel, or a worker to whom a
packet came that is another's. Without the key an ID says nothing.
"""

from __future__ import annotations

from struct import Struct

from stt_proto.crypto import Secret, hkdf
from stt_proto.errors import ArgumentError

__all__ = ["MAX_WORKERS", "WorkerIds"]

MAX_WORKERS = 64
"""Workers of one port."""

_KEY = Struct(">5I")
_SALT = b"stt1 workers"


class WorkerIds(Secret):
    """The IDs of one worker among several, and the key by which all of them know whose an ID is.

    The hash is multiply-and-shift over the four 16-bit words of an ID, with five random words of 32 bits as its key
    (Thorup, "High Speed Hashing for Integers and Strings", 3.5): `(b + sum(a_i x_i) mod 2^32) >> 16` is evenly spread,
    and of two IDs independently; `h * count >> 16` makes a worker of it. A classic socket filter can compute that.

    Attributes:
        index: of this worker, from 0.
        count: of all workers.
    """

    __slots__ = ("_words", "count", "index")

    def __init__(self, secret: bytes, index: int, count: int) -> None:
        """Begin with what the workers share.

        Args:
            secret: 32 random bytes, the same for all of them; never a seed, nor made from one.
            index: of this worker, 0 to `count` - 1.
            count: of all workers, 1 to 64.

        Raises:
            ArgumentError: one of them is something else.
        """
        if not (isinstance(secret, bytes) and len(secret) == 32):
            raise ArgumentError("secret must be 32 random bytes", argument="secret")
        if type(count) is not int or not 1 <= count <= MAX_WORKERS:
            raise ArgumentError(f"count is {count!r}; it must be a whole number from 1 to 64", argument="count")
        if type(index) is not int or not 0 <= index < count:
            raise ArgumentError(
                f"index is {index!r}; it must be a whole number from 0 to {count - 1}", argument="index"
            )
        self._words: tuple[int, ...] = _KEY.unpack(hkdf(_SALT, secret, b"stt1 worker hash", _KEY.size))
        self.index = index
        self.count = count

    @property
    def words(self) -> tuple[int, ...]:
        """The key: b and a_0 to a_3, 32 bits each. For the filter; whoever has it can tell workers' IDs apart."""
        return self._words

    def worker_of(self, connection_id: bytes) -> int:
        """The index of the worker that an ID of 8 bytes names."""
        b, a0, a1, a2, a3 = self._words
        x = int.from_bytes(connection_id)
        mixed = b + a0 * (x >> 48) + a1 * (x >> 32 & 0xFFFF) + a2 * (x >> 16 & 0xFFFF) + a3 * (x & 0xFFFF)
        return (mixed >> 16 & 0xFFFF) * self.count >> 16

    def owns(self, connection_id: bytes) -> bool:
        """Whether an ID names this worker."""
        return self.worker_of(connection_id) == self.index
