"""A stream: an id, and the halves that this side has of it.

This is where the application's commands come in. Each goes to the half that it concerns; afterwards, when that was
the last thing that the stream was kept for, the table forgets it. The object goes on to answer whoever still holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_proto.errors import ArgumentError, StateError
from stt_proto.streams.receive import ReceiveStream
from stt_proto.streams.schedule import Priority, checked_priority
from stt_proto.streams.send import SendStream
from stt_proto.types import Buffer
from stt_proto.wire import MAX_VARINT, FrameType

if TYPE_CHECKING:
    from stt_proto.streams.table import StreamTable

__all__ = ["Stream"]


class Stream:
    """One stream, as this side sees it.

    Attributes:
        id: its id.
        purpose: the word that its opener gave it, or "".
        send: the half on which this side sends, `None` on a stream that the peer opened one way.
        recv: the half on which it receives, `None` on one that it opened one way itself.
        opened: whether the application may know of it (S-4); always true for its own.
        handle: a free slot for the layer above.
    """

    __slots__ = ("_table", "handle", "id", "opened", "purpose", "recv", "send")

    def __init__(
        self,
        stream_id: int,
        table: StreamTable,
        send: SendStream | None,
        recv: ReceiveStream | None,
        *,
        opened: bool,
        purpose: str = "",
    ) -> None:
        self.id = stream_id
        self.purpose = purpose
        self.send = send
        self.recv = recv
        self.opened = opened
        self.handle: object = None
        self._table = table

    def write(self, data: Buffer, now: float = 0.0) -> int:
        """See `SendStream.write`; `StateError` on a stream that this side only reads."""
        return self._sending().write(data, now)

    def read(self, max_bytes: int) -> bytes:
        """See `ReceiveStream.read`; `StateError` on a stream that this side only writes."""
        recv = self._receiving()
        try:
            return recv.read(max_bytes)
        finally:
            if recv.done:
                self._table.retire(self.id)

    def finish(self) -> None:
        """See `SendStream.finish`; `StateError` on a stream that this side only reads."""
        self._sending().finish()

    def reset(self, code: int) -> None:
        """See `SendStream.reset`; `StateError` on a stream that this side only reads.

        Raises:
            ArgumentError: `code` is not from 0 to 2^62 - 1.
        """
        self._sending().reset(_checked(code))

    def stop(self, code: int) -> None:
        """See `ReceiveStream.stop`; `StateError` on a stream that this side only writes.

        Raises:
            ArgumentError: `code` is not from 0 to 2^62 - 1.
        """
        recv = self._receiving()
        recv.stop(_checked(code))
        if recv.done:
            self._table.retire(self.id)

    @property
    def priority(self) -> Priority:
        """How much the sending half matters; `StateError` on a stream that this side only reads."""
        return self._sending().priority

    @priority.setter
    def priority(self, priority: Priority) -> None:
        self._sending().set_priority(checked_priority(priority))

    def ask_priority(self, priority: Priority) -> bool:
        """See `ReceiveStream.ask`; False when the peer does not understand that.

        Raises:
            ArgumentError: `priority` is none.
            StateError: this side only writes the stream.
        """
        recv = self._receiving()
        checked_priority(priority)
        understood = self._table.is_understood(FrameType.PRIORITY)
        if understood:
            recv.ask(priority)
        return understood

    def watch_acked(self, offset: int) -> None:
        """See `SendStream.watch_acked`; `StateError` on a stream that this side only reads."""
        self._sending().watch_acked(offset)

    @property
    def at_eof(self) -> bool:
        """Whether everything up to the end was read; true on a stream that this side only writes."""
        return self.recv is None or self.recv.at_eof

    @property
    def done(self) -> bool:
        """Whether both halves are over."""
        return (self.recv is None or self.recv.done) and (self.send is None or self.send.done)

    def _sending(self) -> SendStream:
        if self.send is None:
            raise StateError(f"stream {self.id} was opened by the peer, one way: it cannot be written to")
        return self.send

    def _receiving(self) -> ReceiveStream:
        if self.recv is None:
            raise StateError(f"stream {self.id} was opened by this side, one way: it cannot be read")
        return self.recv


def _checked(code: int) -> int:
    if type(code) is not int or not 0 <= code <= MAX_VARINT:
        raise ArgumentError(f"code is {code!r}; it must be from 0 to 2^62 - 1", argument="code")
    return code
