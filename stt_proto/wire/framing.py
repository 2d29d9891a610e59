"""Messages on a byte stream: two bytes of length before each (docs/protocol.md, P-13)."""

from __future__ import annotations

from stt_proto.errors import ArgumentError, InvalidFrameError
from stt_proto.types import Buffer

LENGTH_SIZE = 2
"""Bytes before each message."""
MAX_MESSAGE = 65_535
"""Bytes of the largest message."""


def encode_length(size: int) -> bytes:
    """What stands before a message of `size` bytes, 1 to 65,535; else `ArgumentError`."""
    if not 1 <= size <= MAX_MESSAGE:
        raise ArgumentError(f"size is {size}; it must be from 1 to {MAX_MESSAGE:,}", argument="size")
    return size.to_bytes(LENGTH_SIZE)


class Deframer:
    """Finds the messages in a byte stream, however it comes in pieces.

    It never raises: what cannot be is a `failure`, after which nothing comes out any more, for where the next message
    begins is not known. It holds one incomplete message and no more.

    Attributes:
        failure: what was wrong with the stream, or `None`.
    """

    __slots__ = ("_held", "failure")

    def __init__(self) -> None:
        self.failure: InvalidFrameError | None = None
        self._held = bytearray()  # an incomplete message, its length included

    @property
    def held(self) -> int:
        """Bytes of an incomplete message."""
        return len(self._held)

    def feed(self, data: Buffer) -> list[memoryview]:
        """Take in what came next; give the messages that are complete now.

        They are views of `data` (only one that came in several pieces was copied), good for as long as `data` is.
        """
        if self.failure is not None:
            return []
        view = memoryview(data)
        messages: list[memoryview] = []
        at = self._complete(view, messages) if self._held else 0
        size = len(view)
        while size - at >= LENGTH_SIZE and self.failure is None:
            end = at + LENGTH_SIZE + (view[at] << 8 | view[at + 1])
            if end == at + LENGTH_SIZE:
                self._fail()
            elif end > size:
                break
            else:
                messages.append(view[at + LENGTH_SIZE : end])
                at = end
        if at < size and self.failure is None:
            self._held += view[at:]
        return messages

    def _complete(self, view: memoryview, messages: list[memoryview]) -> int:
        """Add to what is held; give the offset in `view` behind that."""
        held = self._held
        at = max(0, LENGTH_SIZE - len(held))
        held += view[:at]
        if len(held) < LENGTH_SIZE:
            return len(view)
        length = held[0] << 8 | held[1]
        if not length:
            self._fail()
            return at
        missing = LENGTH_SIZE + length - len(held)
        held += view[at : at + missing]
        if len(view) - at < missing:
            return len(view)
        messages.append(memoryview(held)[LENGTH_SIZE:])
        self._held = bytearray()
        return at + missing

    def end(self) -> None:
        """The stream has ended. In the middle of a message that is a failure."""
        if self._held and self.failure is None:
            self.failure = InvalidFrameError("the stream ended in the middle of a message")

    def _fail(self) -> None:
        self._held = bytearray()
        self.failure = InvalidFrameError("a message without bytes")
