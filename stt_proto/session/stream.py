"""The public handle of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_proto.types import Buffer

if TYPE_CHECKING:
    from stt_proto.session.session import Session
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

    def __init__(self, session: Session, halves: Halves) -> None:
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
        taken = self._halves.write(data)
        self._session.touch(now)
        return taken

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
            RemoteError: the peer reset the stream, or the session has ended and everything that arrived was read.
        """
        try:
            return self._halves.read(max_bytes)
        finally:  # also when it was told of a reset: that frees the place of the stream, and the peer is to know
            self._session.touch(now)

    def finish(self, now: float) -> None:
        """End this side of the stream after what was written; idempotent. `StreamFinished` tells when all arrived."""
        self._halves.finish()
        self._session.touch(now)

    def reset(self, code: int, now: float) -> None:
        """End this side of the stream at once; what was not delivered is withdrawn.

        Args:
            code: a number for the peer's application, 0 to 2^62 - 1.
            now: seconds.
        """
        self._halves.reset(code)
        self._session.touch(now)

    def stop(self, code: int, now: float) -> None:
        """Ask the peer to end its side of the stream; what still arrives is thrown away.

        Args:
            code: a number for the peer's application, 0 to 2^62 - 1.
            now: seconds.
        """
        self._halves.stop(code)
        self._session.touch(now)

    def watch_acked(self, offset: int) -> None:
        """Ask for one `StreamAcked` when everything below `offset` is acknowledged."""
        self._halves.watch_acked(offset)

    @property
    def at_eof(self) -> bool:
        """Whether everything up to the end was read."""
        return self._halves.at_eof

    @property
    def bytes_accepted(self) -> int:
        """Bytes that `write` took so far."""
        return 0 if self._halves.send is None else self._halves.send.bytes_accepted

    @property
    def acked_offset(self) -> int:
        """Bytes, from the beginning, that the peer has acknowledged."""
        return 0 if self._halves.send is None else self._halves.send.acked_offset

    def __repr__(self) -> str:
        return f"<Stream {self.stream_id}{' ' + self.purpose if self.purpose else ''}>"
