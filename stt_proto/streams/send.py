"""The sending half of a stream: a bounded buffer, and what of it was sent, lost and acknowledged.

| state | input | next |
|---|---|---|
| OPEN | `finish` | FINISHING |
| OPEN, FINISHING | `reset`, STOP_SENDING | RESETTING |
| FINISHING | everything and the end acknowledged | FINISHED |
| RESETTING | RESET_STREAM acknowledged | RESET |
| OPEN, FINISHING, RESETTING | the session ended | FAILED |

(RFC 9000, section 3.1, where OPEN is "Ready" and "Send", and FINISHING is "Data Sent" once all is out.)

The bytes lie in a `SendBuffer`; everything else is offsets. What was lost waits in one set of intervals and goes first,
cut as the packet at hand suits (R-9); what was acknowledged ahead of a gap is kept in another, so that it is never
sent again.

A stream whose data has a limited life is an `ExpiringSendStream`; what that gives up counts as acknowledged here.
"""

from __future__ import annotations

from bisect import insort
from enum import Enum
from typing import cast

from stt_proto.errors import ArgumentError, StateError, StreamClosedError, SttError
from stt_proto.events import StreamAcked, StreamFinished, StreamWritable
from stt_proto.streams.buffer import Out, SendBuffer, bytes_of
from stt_proto.streams.hub import Hub, StreamToken, Token
from stt_proto.streams.intervals import IntervalSet
from stt_proto.streams.schedule import Line, Priority
from stt_proto.types import Buffer
from stt_proto.wire import MAX_VARINT, stream_header

__all__ = ["SendState", "SendStream"]

MIN_PIECE = 64
"""A frame is not begun for less than this many of the bytes that wait; the next packet has room for them."""
NAGLE_SIZE = 1200
"""Bytes from which a write is no longer small for a stream without `no_delay`."""
BULK = 128
"""Room from which on a frame that fills it surely has a piece of at least `MIN_PIECE` bytes."""


USUAL = Priority()


class SendState(Enum):
    """Where a sending half stands; see the table above."""

    OPEN = "open"
    FINISHING = "finishing"
    FINISHED = "finished"
    RESETTING = "resetting"
    RESET = "reset"
    FAILED = "failed"


_OPEN, _FINISHING, _RESETTING = SendState.OPEN, SendState.FINISHING, SendState.RESETTING


class SendStream:
    """What this side sends on one stream.

    Args:
        stream_id: its id.
        hub: what the streams of the session share.
        limit: offset up to which the peer takes data at first.
        capacity: bytes that may lie here unacknowledged at first.
        most: bytes to which that may grow; not at all when that is no more than `capacity`.
        max_frame_size: bytes put into a packet while another stream waits.
        no_delay: whether small writes go at once, though earlier ones are unacknowledged.
        opener: a STREAM_OPEN frame to precede the data at offset 0, or `b""`.
        priority: how much it matters; `None` for the usual, until somebody says otherwise.

    Attributes:
        state: see the table of this module.
        bytes_accepted: bytes that `write` took so far.
        sent_offset: offset of the first byte never sent.
        acked_offset: offset below which everything is acknowledged, or given up.
        capacity: bytes that may lie here unacknowledged.
        limit: offset up to which the peer takes data.
        line: where it stands when it has something to send; for the schedule alone.
        stands: whether it does.
        priority: how much it matters beside the others; change it with `set_priority`.
        code: what the stream was reset with.
    """

    __slots__ = (
        "_acked",
        "_asked",
        "_blocked_at",
        "_buffer",
        "_chosen",
        "_error",
        "_fin_acked",
        "_fin_pending",
        "_final",
        "_held",
        "_hub",
        "_lost",
        "_most",
        "_no_delay",
        "_opener",
        "_wanted",
        "_watches",
        "acked_offset",
        "bytes_accepted",
        "capacity",
        "code",
        "id",
        "limit",
        "line",
        "max_frame_size",
        "priority",
        "sent_offset",
        "stands",
        "state",
    )

    def __init__(
        self,
        stream_id: int,
        hub: Hub,
        *,
        limit: int,
        capacity: int,
        max_frame_size: int,
        most: int = 0,
        no_delay: bool = True,
        opener: bytes = b"",
        priority: Priority | None = None,
    ) -> None:
        self.id = stream_id
        self.state = _OPEN
        self.limit = limit
        self.line: Line | None = None
        self.stands = False
        self.priority = priority or USUAL
        self._chosen = priority is not None  # by this side's application
        self._asked = False  # by the peer
        self.max_frame_size = max_frame_size
        self.bytes_accepted = 0
        self.sent_offset = 0
        self.acked_offset = 0
        self.code = 0
        self._hub = hub
        self.capacity = capacity
        self._most = most
        self._no_delay = no_delay
        self._opener = opener
        self._buffer = SendBuffer()
        self._lost = IntervalSet()
        self._acked = IntervalSet()  # beyond acked_offset
        self._final = -1  # the final size once it is known
        self._fin_pending = False
        self._fin_acked = False
        self._held = False  # a small write waits for acknowledgements (no_delay is False)
        self._wanted = 0  # room that a short write waits for
        self._watches: list[int] | None = None
        self._blocked_at = -1
        self._error: SttError | None = None

    # -- the application -------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether nothing more will be sent on this half, and the peer knows it."""
        return self.state is SendState.FINISHED or self.state is SendState.RESET

    @property
    def resetting(self) -> bool:
        """Whether a RESET_STREAM is to be sent, or to be acknowledged."""
        return self.state is _RESETTING

    @property
    def stopped(self) -> bool:
        """Whether the peer asked for the reset."""
        return self._error is not None and self.state is not SendState.FAILED

    @property
    def bytes_unsent(self) -> int:
        """Bytes that were taken and never sent."""
        return self.bytes_accepted - self.sent_offset

    @property
    def bytes_unacked(self) -> int:
        """Bytes that were taken and lie in the buffer: all from the first that is not acknowledged."""
        return self.bytes_accepted - self.acked_offset

    def write(self, data: Buffer, now: float = 0.0) -> int:
        """Take as much of `data` as the buffer has room for, and give its size.

        `bytes` are kept; anything else is copied. When not everything was taken, `StreamWritable` will tell, once,
        that a quarter of the buffer is free again, or all that was wanted.

        Args:
            data: what is to be sent.
            now: seconds; for streams whose data has a limited life.

        Raises:
            ArgumentError: `data` is no bytes-like object.
            StateError: this half was finished or reset.
            StreamClosedError: the peer stopped it.
            RemoteError: the session has ended; its error.
        """
        if self.state is not _OPEN:
            raise self._refusal()
        view = data if data.__class__ is bytes else bytes_of(data)
        size = len(view)
        room = self.capacity - self.bytes_accepted + self.acked_offset
        if size > room:
            self._wanted = min(size - room, max(1, self.capacity // 4))
            if not room:
                return 0
            view, size = memoryview(view)[:room], room
        elif not size:
            return 0
        self._buffer.append(view, self.sent_offset, kept=data.__class__ is bytes)
        hub = self._hub
        self.bytes_accepted += size
        hub.undelivered += size
        hub.bytes_written += size
        if not self._held or self._wanted or self.bytes_unsent >= min(NAGLE_SIZE, self.max_frame_size):
            self._held = False
            self._offer()
        return size

    def finish(self) -> None:
        """Tell the peer that nothing follows; doing it again does nothing.

        Raises:
            StateError: this half was reset.
            StreamClosedError: the peer stopped it.
            RemoteError: the session has ended; its error.
        """
        if self.state is _OPEN:
            self.state = _FINISHING
            self._final = self.bytes_accepted
            self._fin_pending = True
            self._held = False
            self._wanted = 0
            self._hub.undelivered += 1
            self._offer()
        elif self.state is not _FINISHING and self.state is not SendState.FINISHED:
            raise self._refusal()

    def reset(self, code: int) -> None:
        """Give the stream up: what is not acknowledged is dropped, and the peer learns `code`.

        Nothing happens when this half is over already, in whichever way.
        """
        if self.state is not _OPEN and self.state is not _FINISHING:
            return
        hub = self._hub
        hub.undelivered += 1 - self.bytes_unacked - (self.state is _FINISHING)
        self.state = _RESETTING
        self.code = code
        self._drop()
        hub.control["reset", self.id] = None

    def watch_acked(self, offset: int) -> None:
        """Ask for one `StreamAcked` when everything below `offset` is acknowledged; at once if it is.

        Raises:
            ArgumentError: `offset` is not from 0 to 2^62 - 1.
            StateError: this half was reset.
            StreamClosedError: the peer stopped it.
            RemoteError: the session has ended; its error.
        """
        if type(offset) is not int or not 0 <= offset <= MAX_VARINT:
            raise ArgumentError(f"offset is {offset!r}; it must be from 0 to 2^62 - 1", argument="offset")
        if self.state is SendState.FAILED:
            raise self._refusal()
        if offset <= self.acked_offset:
            self._hub.events.append(StreamAcked(self.id, offset))
        elif self.state is not _OPEN and (self.state is not _FINISHING or offset > self._final):
            raise self._refusal()
        elif self._watches is None:
            self._watches = [offset]
        elif offset not in self._watches:
            insort(self._watches, offset)

    def fail(self, error: SttError) -> None:
        """The session has ended: drop everything, and raise `error` from now on."""
        if not self.done:
            self.state = SendState.FAILED
            self._error = self._error or error
            self._drop()

    def _refusal(self) -> SttError:
        """Why nothing can be written."""
        if self._error is not None:
            return self._error.with_traceback(None)
        if self.state is _RESETTING or self.state is SendState.RESET:
            return StateError(f"stream {self.id} was reset by this side")
        return StateError(f"stream {self.id} was finished by this side")

    def _drop(self) -> None:
        """Forget the buffer and leave every queue."""
        self._buffer.clear()
        self._lost.clear()
        self._acked.clear()
        self._fin_pending = self._held = False
        self._wanted = 0
        self._watches = None
        self._hub.ready.drop(self)

    # -- sending ---------------------------------------------------------------------------------------------------

    @property
    def blocked(self) -> bool:
        """Whether data waits that the stream's credit does not cover."""
        return self.limit <= self.sent_offset < self.bytes_accepted

    @property
    def _resends(self) -> bool:
        """Whether there is something to send that needs no credit: lost data, or the end alone."""
        return bool(self._lost.bounds) or (self._fin_pending and self.sent_offset == self._final)

    def _offer(self) -> None:
        """Stand in line if there is something to send, else in none; tell the peer which credit is missing."""
        hub = self._hub
        if self._resends:
            hub.ready.put(self, unpaid=True)
        elif self._held or self.sent_offset == self.bytes_accepted:
            hub.ready.drop(self)
        elif self.sent_offset < self.limit:
            hub.ready.put(self, unpaid=False)
            hub.report_blocked()
        else:
            hub.ready.drop(self)
            self._report_blocked()

    def set_priority(self, priority: Priority) -> None:
        """Matter more or less from now on, whatever the peer would like."""
        self._chosen = True
        self._change(priority)

    def on_priority(self, priority: Priority) -> bool:
        """The peer would like another priority. It gets it, unless this side's application has chosen one.

        False when it had asked before (F-5).
        """
        if not self._chosen:
            self._change(priority)
        first, self._asked = not self._asked, True
        return first

    def _change(self, priority: Priority) -> None:
        """Go and stand where those of another priority do."""
        if priority != self.priority:
            self.priority = priority
            self._hub.ready.move(self)

    def _report_blocked(self) -> None:
        """Tell the peer, once for each limit, that the stream's credit is in the way (S-12)."""
        if self._blocked_at != self.limit:
            self._blocked_at = self.limit
            self._hub.control["stream_data_blocked", self.id] = None

    def raise_limit(self, limit: int) -> bool:
        """Take in the peer's MAX_STREAM_DATA; False when it is no higher than before."""
        if limit <= self.limit:
            return False
        self.limit = limit
        if self.state is _OPEN or self.state is _FINISHING:
            self._offer()
        return True

    def write_frame(self, out: Out, tokens: list[Token], room: int, most: int) -> int:
        """Write one STREAM frame: what was lost before what is new.

        This half leaves the line when it has nothing more to send, or may not send it now.

        Args:
            out: takes the bytes of the frame, in pieces.
            tokens: takes one token for the frame.
            room: bytes left in the packet.
            most: bytes of data that may be sent.

        Returns:
            Bytes used. Nothing may follow a frame that used all the room. With 0, and still in line, there is too
            little room.
        """
        if self._lost.bounds:
            return self._write_lost(out, tokens, room, most)
        start = self.sent_offset
        end = self.bytes_accepted if self.bytes_accepted < self.limit else self.limit
        size = end - start
        if size <= 0:
            return self._write_end(out, tokens, room)
        if not self._no_delay and self._holds_back(size, room):
            return 0
        if size > most:
            size = most
        hub = self._hub
        credit = hub.credit
        allowed = credit.limit - credit.used
        if size > allowed:
            size = allowed
            if not size:
                return 0
        used = self._write_stretch(out, tokens, room, start, size)
        if used:
            stop = self.sent_offset
            credit.used += stop - start
            if stop == end:
                hub.ready.drop(self)
                if stop < self.bytes_accepted:
                    self._report_blocked()
                elif self._wanted:
                    self._grow()
            if credit.used == credit.limit:
                hub.report_blocked()
        return used

    def _grow(self) -> None:
        """All is on its way and more is to be written; if the peer takes more, the buffer is too small (S-13)."""
        credit = self._hub.credit
        if self.capacity < self._most and self.sent_offset < self.limit and credit.used < credit.limit:
            self.capacity = min(2 * self.capacity, self._most)
            self._tell()

    def _write_lost(self, out: Out, tokens: list[Token], room: int, most: int) -> int:
        """Send the first lost stretch again, or as much of it as fits."""
        lost = self._lost.bounds
        start, stop = lost[0], lost[1]
        used = self._write_stretch(out, tokens, room, start, min(stop - start, most))
        if used:
            lost[0] = cast(StreamToken, tokens[-1])[2]
            if lost[0] == stop:
                del lost[:2]
                self._offer()
        return used

    def _write_end(self, out: Out, tokens: list[Token], room: int) -> int:
        """Tell the end alone: nothing else is left to do for who stands in line."""
        used = self._write_stretch(out, tokens, room, self._final, 0)
        if used:
            self._offer()
        return used

    def _holds_back(self, size: int, room: int) -> bool:
        """Nagle's rule: a little data waits while earlier data is on its way, if more may follow.

        Nothing can follow into a full buffer, and what fills a frame is not little.
        """
        if self._wanted or self.acked_offset == self.sent_offset or self.state is not _OPEN:
            return False
        if size >= min(NAGLE_SIZE, self.max_frame_size, room):
            return False
        self._held = True
        self._hub.ready.drop(self)
        return True

    def _write_stretch(self, out: Out, tokens: list[Token], room: int, start: int, size: int) -> int:
        """Write a frame with at most `size` bytes from `start` on, and an end where that is.

        The frame that fills the packet needs no length. One that would fill it but for a few bytes is moved to the
        end by as much padding, since with a length it would not fit.
        """
        if size >= room >= BULK and start:  # far more than fits: neither the end, nor a length, nor a purpose
            header = stream_header(self.id, start, None, False)
            size = room - len(header)
            used = room
            fin = False
        else:
            opener = self._opener if start == 0 else b""
            used = len(opener)
            left = room - used
            fin = start + size == self._final
            header = stream_header(self.id, start, size, fin)
            if len(header) + size > left:
                space = left - len(stream_header(self.id, start, None, fin))
                if size > space:
                    if space < MIN_PIECE:
                        return 0
                    size = space
                    fin = False
                elif size < space:
                    out.append(bytes(space - size))
                    used += space - size
                header = stream_header(self.id, start, None, fin)
            if opener:
                out.append(opener)
            used += len(header) + size
        out.append(header)
        stop = start + size
        if size:
            if start == self.sent_offset:
                self._buffer.cut(out, start, size)
                self.sent_offset = stop
            else:
                self._buffer.cut_again(out, start, size)
        if fin:
            self._fin_pending = False
        tokens.append((self, start, stop, fin))
        return used

    # -- the fate of frames ----------------------------------------------------------------------------------------

    def on_acked(self, start: int, stop: int, fin: bool) -> bool:
        """A frame with these bytes arrived; tell whether this half is over now."""
        if self.state is not _OPEN and self.state is not _FINISHING:
            return False
        if fin:
            self._fin_acked = True
            self._fin_pending = False
            self._offer()
        self._settle(start, stop)
        return self._fin_acked and self._end()

    def _settle(self, start: int, stop: int) -> None:
        """Nothing of these bytes is to be sent any more."""
        acked = self.acked_offset
        if start > acked:
            if start < stop:
                self._acked.add(start, stop)
        elif stop > acked:
            if self._acked.bounds:
                stop = self._acked.absorb(stop)
            self.acked_offset = stop
            self._hub.undelivered -= stop - acked
            self._buffer.free(stop)
            if self._wanted or self._watches or self._held:
                self._tell()
        if self._lost.bounds and start < stop:
            self._lost.remove(start, stop)
            self._offer()

    def _end(self) -> bool:
        """The end has arrived: this half is over once everything before it has; tell whether it is."""
        if self.acked_offset != self._final:
            return False
        self.state = SendState.FINISHED
        self._hub.undelivered -= 1
        self._hub.events.append(StreamFinished(self.id))
        return True

    def on_lost(self, start: int, stop: int, fin: bool) -> None:
        """A frame with these bytes was lost; what of it has not arrived otherwise is sent again."""
        if self.state is not _OPEN and self.state is not _FINISHING:
            return
        start = max(start, self.acked_offset)
        if start < stop:
            self._lost.add(start, stop)
            for low, high in self._acked.overlaps(start, stop):
                self._lost.remove(low, high)
        if fin and not self._fin_acked:
            self._fin_pending = True
        self._offer()

    def on_stop(self, code: int) -> bool:
        """The peer wants no more; answer with a reset of the same code (S-9). False when this half is over."""
        if self.state is not _OPEN and self.state is not _FINISHING:
            return False
        self.reset(code)
        self._error = StreamClosedError(f"the peer stopped stream {self.id} with code {code}", stream_code=code)
        return True

    def on_reset_acked(self) -> bool:
        """The RESET_STREAM arrived; tell whether this half is over now."""
        if self.state is not _RESETTING:
            return False
        self.state = SendState.RESET
        self._hub.undelivered -= 1
        return True

    def _tell(self) -> None:
        """More is acknowledged: tell whoever waits for that."""
        acked = self.acked_offset
        events = self._hub.events
        if self._wanted and self.capacity - self.bytes_unacked >= self._wanted:
            self._wanted = 0
            events.append(StreamWritable(self.id))
        while self._watches and self._watches[0] <= acked:
            events.append(StreamAcked(self.id, self._watches.pop(0)))
        if self._held and acked >= self.sent_offset:
            self._held = False
            self._offer()
