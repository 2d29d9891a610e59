"""The receiving half of a stream: bytes put in order, and the credit that comes back as they are read.

| state | input | next |
|---|---|---|
| RECEIVING | the application saw the end | ENDED |
| RECEIVING | RESET_STREAM before everything was there | RESET |
| RECEIVING | `stop` | STOPPED |
| RECEIVING | the session ended | FAILED |

(RFC 9000, section 3.2.) A half is *done*, and its place in the table free, once the application has seen how it
ended: it read the last byte, was told of the reset by `read`, or had stopped it. A stopped half still waits for its
final size, since only that settles the account of the session's credit.

Bytes in order go straight behind those to be read, and what is read in one piece is handed out as it came. Where the
sender gave something up there is a *hole*: `read` stops before it, tells of it once, and goes on behind it (S-17).
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TypeAlias

from stt_proto.errors import (
    ArgumentError,
    DataExpiredError,
    FlowControlError,
    InvalidFrameError,
    ResourcesExhaustedError,
    StateError,
    StreamClosedError,
    SttError,
)
from stt_proto.events import StreamReadable, StreamReset
from stt_proto.streams.flow import CreditWindow
from stt_proto.streams.hub import PIECE_SHARE, Hub
from stt_proto.streams.pieces import SMALL, Chunks, Pieces, append_chunk, extend_chunks
from stt_proto.streams.schedule import Priority

__all__ = ["ReceiveState", "ReceiveStream"]


class ReceiveState(Enum):
    """Where a receiving half stands; see the table above."""

    RECEIVING = "receiving"
    ENDED = "ended"
    RESET = "reset"
    STOPPED = "stopped"
    FAILED = "failed"


_RECEIVING = ReceiveState.RECEIVING

Hole: TypeAlias = tuple[int, int, Chunks]
"""Where a hole begins, how many bytes it has, and what follows it."""


class ReceiveStream:
    """What the peer sends on one stream.

    Args:
        stream_id: its id.
        hub: what the streams of the session share.
        window: bytes that may lie here unread at first.
        max_window: bytes to which that may grow.
        max_pieces: runs of bytes that may wait behind gaps.

    Attributes:
        state: see the table of this module.
        window: the stream's credit; `window.received` is the largest offset seen.
        final_size: where the stream ends, -1 while that is not known.
        done: nothing that arrives matters any more, and the application has seen the end.
        stop_code: what the peer was asked to stop with.
        asked: the priority that the peer was asked for, or `None`.
        expired: offset below which the peer sends nothing any more.
    """

    __slots__ = (
        "_armed",
        "_chunks",
        "_error",
        "_holes",
        "_hub",
        "_max_pieces",
        "_next",
        "_pieces",
        "_tail",
        "asked",
        "done",
        "expired",
        "final_size",
        "id",
        "state",
        "stop_code",
        "window",
    )

    def __init__(self, stream_id: int, hub: Hub, *, window: int, max_pieces: int, max_window: int = 0) -> None:
        self.id = stream_id
        self.state = _RECEIVING
        self.window = CreditWindow(window, max_window)
        self.final_size = -1
        self.done = False
        self.stop_code = 0
        self.asked: Priority | None = None
        self._hub = hub
        self._max_pieces = max_pieces
        self._chunks: Chunks = []
        self._tail = self._chunks  # what is in order and behind the last hole
        self._holes: deque[Hole] | None = None
        self.expired = 0
        self._next = 0  # offset of the first byte that is missing
        self._pieces: Pieces | None = None  # what lies beyond it
        self._armed = True  # the next thing to read is worth an event
        self._error: SttError | None = None

    # -- the application -------------------------------------------------------------------------------------------

    @property
    def at_eof(self) -> bool:
        """Whether everything up to the end was read."""
        return self.window.consumed == self.final_size and self._error is None

    @property
    def readable(self) -> bool:
        """Whether `read` has something to give or to raise, or the end was reached."""
        return bool(self._chunks) or self.state is not _RECEIVING or bool(self._holes) or self.at_eof

    @property
    def wants_credit(self) -> bool:
        """Whether the peer may have more to send than it has credit for."""
        return self.state is _RECEIVING and self.final_size < 0

    @property
    def stopping(self) -> bool:
        """Whether the peer is to be asked to stop, and has not told where it did."""
        return self.state is ReceiveState.STOPPED and self.final_size < 0

    @property
    def bytes_readable(self) -> int:
        """Bytes that `read` can give now."""
        return self._readable_until - self.window.consumed

    @property
    def _readable_until(self) -> int:
        """The offset of the first hole, or of the first byte that is missing."""
        return self._holes[0][0] if self._holes else self._next

    def read(self, max_bytes: int) -> bytes:
        """Give up to `max_bytes` bytes and return their credit; `b""` when there are none now.

        After `b""`, `StreamReadable` will tell when that changes; when `at_eof` is true it will not.

        Raises:
            ArgumentError: `max_bytes` is no whole number from 1 on.
            StateError: this side stopped the stream.
            StreamClosedError: the peer reset it.
            DataExpiredError: the peer gave up what comes next; this is said once, and reading goes on behind it.
            RemoteError: the session has ended; its error, once everything that had arrived was read.
        """
        if max_bytes.__class__ is not int or max_bytes < 1:
            raise ArgumentError(f"max_bytes is {max_bytes!r}; it must be at least 1", argument="max_bytes")
        chunks = self._chunks
        if not chunks:
            return self._read_nothing()
        window = self.window
        if (self._next if self._holes is None else self._readable_until) - window.consumed > max_bytes:
            data = self._take(max_bytes)
        elif len(chunks) == 1:
            chunk = chunks[0]
            data = chunk if isinstance(chunk, bytes) else bytes(chunk)
            chunks.clear()
        else:
            data = b"".join(chunks)
            chunks.clear()
        size = len(data)
        self._hub.bytes_read += size
        self._consume(size)
        return data

    def _consume(self, size: int) -> None:
        """The application is through with bytes: give their credit back."""
        hub, window = self._hub, self.window
        hub.consume(size)
        due = window.consume(size)
        if self.final_size < 0:
            if due:
                hub.control["max_stream_data", self.id] = None
        elif window.consumed == self.final_size:
            self._end()

    def _read_nothing(self) -> bytes:
        """Nothing is there: say whether something can still come."""
        if self._holes:
            offset, skipped, self._chunks = self._holes.popleft()
            self._hub.pieces -= 1
            self._consume(skipped)
            message = f"{skipped} bytes of stream {self.id}, from {offset} on, were given up by the peer"
            raise DataExpiredError(message, skipped=skipped)
        if self._error is not None:
            self.done = True
            raise self._error.with_traceback(None)
        if self.state is ReceiveState.STOPPED:
            raise StateError(f"stream {self.id} was stopped by this side")
        if self.at_eof:
            self._end()
        else:
            self._armed = True
        return b""

    def _take(self, size: int) -> bytes:
        """Cut `size` bytes from the front; there are more."""
        chunks = self._chunks
        first = chunks[0]
        if len(first) > size:
            view = memoryview(first)
            chunks[0] = view[size:]
            return bytes(view[:size])
        count, rest = 0, size
        while len(chunks[count]) <= rest:
            rest -= len(chunks[count])
            count += 1
        parts = chunks[:count]
        if rest:
            view = memoryview(chunks[count])
            parts.append(view[:rest])
            chunks[count] = view[rest:]
        del chunks[:count]
        return b"".join(parts)

    def stop(self, code: int) -> None:
        """Read no more: drop what is here and ask the peer to send no more, with `code`.

        Nothing happens when this half is over already, in whichever way.
        """
        if self.state is ReceiveState.RESET:
            self.done = True
        if self.state is not _RECEIVING:
            return
        self.state = ReceiveState.STOPPED
        self.stop_code = code
        self._discard()
        if self.final_size < 0:
            self._hub.control["stop", self.id] = None

    def ask(self, priority: Priority) -> None:
        """Ask the peer to send this stream with a priority; it decides."""
        if self.wants_credit and self.asked != priority:
            self.asked = priority
            self._hub.control["priority", self.id] = None

    def fail(self, error: SttError) -> None:
        """The session has ended: what had arrived in order can still be read, then `error` is raised."""
        if self.state is _RECEIVING and self._next != self.final_size:
            self.state = ReceiveState.FAILED
            self._error = error
        self._drop_pieces()

    def grow(self) -> None:
        """Let the window double, up to its ceiling and to two thirds of the session's, which grows with it (S-13)."""
        window, hub = self.window, self._hub
        size = min(2 * window.size, window.most)
        hub.grow(size + size // 2)
        window.size = max(window.size, min(size, hub.window.size * 2 // 3))
        self._max_pieces = max(self._max_pieces, window.size // PIECE_SHARE)

    # -- the peer --------------------------------------------------------------------------------------------------

    def on_data(self, offset: int, data: bytes | memoryview, fin: bool) -> None:
        """Take in the data of a STREAM frame.

        Raises:
            InvalidFrameError: it contradicts the final size (S-5).
            FlowControlError: it exceeds the credit of the stream or of the session (S-6).
            ResourcesExhaustedError: there are too many gaps (S-8).
        """
        end = offset + len(data)
        if fin or self.final_size >= 0:
            self._settle(end, fin)
        if end > self.window.received:
            self._charge(end)
        if self.state is not _RECEIVING:
            self._discard()
            return
        arrived = self._next
        if offset == arrived and self._pieces is None:
            if end - offset >= SMALL:
                self._tail.append(data)
            elif end > offset:
                append_chunk(self._tail, data)
            self._next = end
        elif end > arrived and end > offset:
            self._keep(offset, data)
        if self._armed and (self._next > arrived or self._next == self.final_size):
            self._armed = False
            self._hub.events.append(StreamReadable(self.id))

    def on_expired(self, offset: int) -> bool:
        """Take in an EXPIRED; False when it is nothing new.

        Raises:
            InvalidFrameError: it lies beyond the final size (S-5).
            FlowControlError: it exceeds the credit of the stream or of the session (S-6).
        """
        if 0 <= self.final_size < offset:
            raise InvalidFrameError(f"stream {self.id} ends at {self.final_size}; an EXPIRED says {offset}")
        if offset > self.window.received:
            self._charge(offset)
        fresh, self.expired = offset > self.expired, max(offset, self.expired)
        if self.state is not _RECEIVING:
            self._discard()
            return fresh
        arrived = self._next
        while self._next < offset:
            pieces = self._pieces
            start = offset if pieces is None else min(pieces.start, offset)
            self._skip_to(start)
            if pieces is not None and pieces.start == start:
                self._join(pieces)
        if self._next > arrived and self._armed:
            self._armed = False
            self._hub.events.append(StreamReadable(self.id))
        return fresh

    def _skip_to(self, offset: int) -> None:
        """Leave a hole up to `offset`.

        They take up at most half of the places that pieces have. Where there are too many already, what lies between
        the last two is dropped. [One byte in two, for ever, to a reader that has stopped: each hole costs a hundred
        times what it is charged.]
        """
        hub = self._hub
        start, size = self._next, offset - self._next
        self._next = offset
        if self._holes is None:
            self._holes = deque()
        holes = self._holes
        if holes and (not self._tail or 2 * len(holes) >= self._max_pieces or 2 * hub.pieces >= hub.max_pieces):
            start = holes.pop()[0]
            size = offset - start
        else:
            hub.pieces += 1
        self._tail = []
        holes.append((start, size, self._tail))

    def on_reset(self, code: int, final_size: int) -> bool:
        """Take in a RESET_STREAM; False when it is nothing new. It raises what `on_data` does."""
        known = self.final_size >= 0
        self._settle(final_size, True)
        self._charge(final_size)
        if self.state is not _RECEIVING:
            self._discard()
            return not known
        if known and self._next == final_size:
            return False
        self.state = ReceiveState.RESET
        self._error = StreamClosedError(f"the peer reset stream {self.id} with code {code}", stream_code=code)
        self._discard()
        events = self._hub.events
        events.append(StreamReset(self.id, code))
        if self._armed:
            self._armed = False
            events.append(StreamReadable(self.id))
        return True

    def _settle(self, end: int, fin: bool) -> None:
        """Hold what a frame says against the final size (S-5)."""
        final = self.final_size
        if final < 0:
            if end < self.window.received:
                raise InvalidFrameError(f"stream {self.id} ends at {end}, before bytes that it has")
            self.final_size = end
        elif end > final or (fin and end != final):
            raise InvalidFrameError(f"stream {self.id} ends at {final}; the peer now says otherwise")

    def _charge(self, end: int) -> None:
        """Charge what is new up to `end` to the stream and the session (S-6)."""
        window, session = self.window, self._hub.window
        session.received += end - window.received
        window.received = end
        if end > window.limit:
            raise FlowControlError(f"stream {self.id} has {end} bytes; {window.limit} were allowed")
        if session.received > session.limit:
            raise FlowControlError(f"the session has {session.received} bytes; {session.limit} were allowed")

    def _keep(self, offset: int, data: bytes | memoryview) -> None:
        """Keep bytes around gaps: those that arrived before are cut off, those that close a gap move on."""
        hub, pieces = self._hub, self._pieces
        if pieces is None:
            pieces = self._pieces = Pieces()
        if offset < self._next:
            data = bytes(data[self._next - offset :])
            offset = self._next
        before = len(pieces)
        pieces.add(offset, data)
        hub.pieces += len(pieces) - before
        if pieces.start == self._next:
            self._join(pieces)
        if len(pieces) > self._max_pieces:
            raise ResourcesExhaustedError(f"stream {self.id} came in more than {self._max_pieces} pieces")
        if hub.pieces > hub.max_pieces:
            raise ResourcesExhaustedError(f"the streams came in more than {hub.max_pieces} pieces")

    def _join(self, pieces: Pieces) -> None:
        """The first run follows what is in order."""
        self._next, chunks = pieces.pop()
        self._hub.pieces -= 1
        extend_chunks(self._tail, chunks)
        if not pieces:
            self._pieces = None

    def _discard(self) -> None:
        """Drop what was not read, and return its credit; a stopped half is done once its final size is known."""
        self._chunks.clear()
        self._tail = self._chunks
        self._drop_pieces()
        if self._holes is not None:
            self._hub.pieces -= len(self._holes)
            self._holes = None
        if self.state is ReceiveState.STOPPED and self.final_size >= 0:
            self.done = True
        window = self.window
        rest = window.received - window.consumed
        if rest:
            window.consume(rest)
            self._hub.consume(rest)

    def _drop_pieces(self) -> None:
        """Forget what lies behind gaps."""
        if self._pieces is not None:
            self._hub.pieces -= len(self._pieces)
            self._pieces = None

    def _end(self) -> None:
        """The application has seen the end."""
        self.state = ReceiveState.ENDED
        self.done = True
