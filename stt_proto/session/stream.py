"""The public handle of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_proto.streams import ExpiringSendStream, Priority
from stt_proto.types import Buffer

if TYPE_CHECKING:
    from stt_proto.session.facade import SessionFacade
    from stt_proto.streams import Stream as Halves


class Stream:
    """One stream of a session: reliable, ordered bytes, one way or both.

    Nothing waits here. `write` takes what there is room for and `StreamWritable` tells when there is more; `read` gives
    what has arrived and `StreamReadable` tells when there is more. When the session has ended, what had arrived can
    still be read, and every other command raises the error that ended it.

    Attributes:
        host: a free slot for the host's own object.
    """

    __slots__ = ("_halves", "_session", "host")

    def __init__(self, session: SessionFacade, halves: Halves) -> None:
        self._session = session
        self._halves = halves
        self.host: object = None

    @property
    def stream_id(self) -> int:
        """Its id, the same on both sides (docs/protocol.md, S-1)."""
        return self._halves.id

    @property
    def purpose(self) -> str:
        """The word that its opener gave it, or ""."""
        return self._halves.purpose

    @property
    def can_write(self) -> bool:
        """Whether this side has a sending half at all."""
        return self._halves.send is not None

    @property
    def can_read(self) -> bool:
        """Whether this side has a receiving half at all."""
        return self._halves.recv is not None

    def write(self, data: Buffer, now: float) -> int:
        """Queue bytes for the peer.

        Args:
            data: any buffer; `bytes` are kept as they are, anything else is copied.
            now: seconds.

        Returns:
            How many bytes were taken from the front, which is what the bounded buffer has room for. After a short
            write `StreamWritable` tells when there is room again.

        Raises:
            LocalError: this side only reads the stream, or has finished or reset it.
            RemoteError: the peer stopped the stream, or the session has ended.
        """
        self._session.check_open()
        return self._halves.write(data, self._session.touch(now))

    def read(self, max_bytes: int, now: float) -> bytes:
        """Take bytes that arrived, in order, and give their credit back to the peer.

        Args:
            max_bytes: the most to take, at least 1.
            now: seconds.

        Returns:
            1 to `max_bytes` bytes, or `b""` when nothing is there: then `at_eof` tells whether there will be more,
            and `StreamReadable` when.

        Raises:
            LocalError: this side only writes the stream, has stopped it, or `max_bytes` is no positive number.
            DataExpiredError: the peer gave up what comes next; said once, and reading goes on behind it.
            RemoteError: the peer reset the stream, or the session has ended and everything that arrived was read.
        """
        now = self._session.advance(now)
        try:
            return self._halves.read(max_bytes)
        finally:  # also if it is told of a reset: that frees the place of the stream
            self._session.touch_for_credit(now)

    def finish(self, now: float) -> None:
        """End this side of the stream after what was written; idempotent. `StreamFinished` tells when all arrived."""
        self._session.touch(now)
        self._halves.finish()

    def reset(self, code: int, now: float) -> None:
        """End this side of the stream at once; what was not delivered is withdrawn.

        Args:
            code: a number for the peer's application, 0 to 2^62 - 1.
            now: seconds.
        """
        self._session.touch(now)
        self._halves.reset(code)

    def stop(self, code: int, now: float) -> None:
        """Ask the peer to end its side of the stream; what still arrives is thrown away.

        Args:
            code: a number for the peer's application, 0 to 2^62 - 1.
            now: seconds.
        """
        self._session.touch(now)
        self._halves.stop(code)

    def watch_acked(self, offset: int) -> None:
        """Ask for one `StreamAcked` when everything below `offset` is acknowledged; at once if it is.

        Raises:
            LocalError: `offset` is not from 0 to 2^62 - 1, or this side only reads the stream, or has reset it.
            RemoteError: the peer stopped the stream, or the session has ended.
        """
        ended = self._session.close_error
        if ended is not None:
            raise ended.with_traceback(None)
        self._halves.watch_acked(offset)

    @property
    def priority(self) -> Priority:
        """How much what is written here matters beside the other streams; may be set at any time.

        Raises:
            ArgumentError: it is set to something else.
            LocalError: this side only reads the stream.
        """
        return self._halves.priority

    @priority.setter
    def priority(self, priority: Priority) -> None:
        self._halves.priority = priority

    def ask_priority(self, priority: Priority, now: float) -> bool:
        """Ask the peer to send this stream with a priority; what its application chose itself counts for more.

        Args:
            priority: what is wished for.
            now: seconds.

        Returns:
            False when the peer does not understand that.

        Raises:
            ArgumentError: `priority` is none.
            LocalError: this side only writes the stream.
        """
        self._session.touch(now)
        return self._halves.ask_priority(priority)

    @property
    def readable(self) -> bool:
        """Whether `read` has something to give or to raise, or the end was reached; if not, there is a wait."""
        recv = self._halves.recv
        return recv is None or recv.readable

    @property
    def at_eof(self) -> bool:
        """Whether everything up to the end was read."""
        return self._halves.at_eof

    @property
    def bytes_accepted(self) -> int:
        """Bytes that `write` took so far."""
        return 0 if self._halves.send is None else self._halves.send.bytes_accepted

    @property
    def bytes_sent(self) -> int:
        """Bytes, from the beginning, that were put into packets: of those behind them none has left this machine."""
        return 0 if self._halves.send is None else self._halves.send.sent_offset

    @property
    def bytes_given_up(self) -> int:
        """Bytes that `write` took, that grew too old or were lost too often, and are not known to have arrived."""
        send = self._halves.send
        return send.given_up if isinstance(send, ExpiringSendStream) else 0

    @property
    def send_buffer(self) -> int:
        """Bytes that may wait here to be acknowledged, as it is now; it grows where the way is long."""
        return 0 if self._halves.send is None else self._halves.send.capacity

    @property
    def acked_offset(self) -> int:
        """Bytes, from the beginning, that the peer has acknowledged, or that were given up."""
        return 0 if self._halves.send is None else self._halves.send.acked_offset

    def __repr__(self) -> str:
        return f"<Stream {self.stream_id}{' ' + self.purpose if self.purpose else ''}>"
