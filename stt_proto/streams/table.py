"""All streams of one session: who exists, what comes in, what goes out.

Four series of ids (two openers, two kinds) are counted apart; a stream that is over in all its directions leaves the
table, and only an interval of ids remembers it. What the peer sends is checked here as far as it is about ids and
limits, then goes to the half that it concerns.

Going out, nothing is ever searched. Halves with something to send stand in the ordered sets of the `Hub`, the first
is served first, and serving costs what is written, however many streams there are (`write_frames`). Control frames
are keys in another such set: the frame itself is made when it is sent, from how things stand then (R-9).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any, cast

from stt_proto.clock import NEVER, Clock
from stt_proto.config import Config
from stt_proto.errors import ArgumentError, InvalidFrameError, SttError, TooManyStreamsError
from stt_proto.events import StreamOpened, StreamReset, StreamsAvailable
from stt_proto.streams.control import KEPT, ControlFrames
from stt_proto.streams.expiry import Expiries, ExpiringSendStream, Expiry
from stt_proto.streams.flow import CreditWindow, GrowthBudget, SendCredit, is_due
from stt_proto.streams.hub import EventQueue, Hub, Token
from stt_proto.streams.ids import OwnIds, PeerIds, is_bidirectional
from stt_proto.streams.receive import ReceiveStream
from stt_proto.streams.schedule import Priority, checked_priority
from stt_proto.streams.send import SendStream
from stt_proto.streams.stream import Stream
from stt_proto.wire import FrameType, Parameters, StreamOpen

__all__ = ["MIN_ROOM", "StreamTable"]

MIN_ROOM = 400
"""Bytes of room in which `write_frames` always gets something done: the longest purpose, and a piece of data."""


WISHES = 64
"""Changed wishes for a priority that are suspicious once (F-5): a user may scroll through a hundred streams."""


class StreamTable(ControlFrames):
    """The streams of one session.

    Args:
        initiator: whether this side dialled.
        config: limits and defaults of this side.
        events: takes what the host is to know.
        budget: what the windows of all sessions of the endpoint may grow by, together; `None` for no such bound.
        clock: of the endpoint; without one it is not known when there was a stream last.

    Attributes:
        emptied_at: when the last stream that there was was over.
        control_ready: keys of control frames to be sent, in order; see `encode_control`.
        suspicious: frames since this was last cleared that were legal and said nothing (F-5).
        repeated: those among them that say once more what is known, as whoever sends them again does.
    """

    __slots__ = (
        "_clock",
        "_config",
        "_error",
        "_parity",
        "_peer_frames",
        "_peer_window",
        "_wishes",
        "control_ready",
        "emptied_at",
        "repeated",
        "suspicious",
    )

    def __init__(
        self,
        initiator: bool,
        config: Config,
        events: EventQueue,
        budget: GrowthBudget | None = None,
        clock: Clock | None = None,
    ) -> None:
        allowed = config.max_concurrent_streams
        self._parity = parity = 0 if initiator else 1
        super().__init__(
            Hub(
                events,
                config.session_receive_window,
                config.limits.session_pieces,
                max_window=config.max_session_receive_window,
                budget=budget,
            ),
            own=(OwnIds(parity), OwnIds(parity | 2)),
            peer=(PeerIds(allowed), PeerIds(allowed)),
        )
        self._config = config
        self._clock = clock
        self.emptied_at = NEVER
        self._peer_window = 0
        self._peer_frames: frozenset[int] = frozenset()
        self._error: SttError | None = None
        self.control_ready = self._hub.control
        self.suspicious = self.repeated = 0
        self._wishes = 0  # that were not the first for their stream

    # -- the application -------------------------------------------------------------------------------------------

    def open(
        self,
        bidirectional: bool = True,
        stream_id: int | None = None,
        purpose: str = "",
        max_frame_size: int | None = None,
        no_delay: bool | None = None,
        priority: Priority | None = None,
        max_lifetime: float | None = None,
        max_attempts: int | None = None,
    ) -> Stream:
        """Open a stream. The peer hears of it with the first data, the end, or a reset.

        Args:
            bidirectional: whether the peer may send on it too.
            stream_id: one of this side's, of this kind, never used; the smallest of these when `None`.
            purpose: a word for the peer, up to 255 bytes of UTF-8.
            max_frame_size: bytes put into a packet while another stream waits, 1 to 65,536.
            no_delay: whether small writes go at once, though earlier ones are unacknowledged.
            priority: how much it matters beside the others; with `None` the peer may have a say.
            max_lifetime: seconds after which what is written is given up, 0.001 to 86,400.
            max_attempts: times that it is sent before it is given up, 1 to 16. A peer that has not announced EXPIRED
                gets all of it, whatever these two say.

        Raises:
            ArgumentError: an argument is outside its range.
            StreamIdConflict: `stream_id` is another side's or kind's, or was used.
            TooManyStreamsError: the peer allows no more; `StreamsAvailable` will tell when it does.
            RemoteError: the session has ended; its error.
        """
        if self._error is not None:
            raise self._error.with_traceback(None)
        config = self._config
        if max_frame_size is None:
            max_frame_size = config.default_max_frame_size
        elif type(max_frame_size) is not int or not 1 <= max_frame_size <= 65_536:
            raise ArgumentError(
                f"max_frame_size is {max_frame_size!r}; it must be from 1 to 65,536", argument="max_frame_size"
            )
        if not isinstance(purpose, str):
            raise ArgumentError(f"purpose is {purpose!r}; it must be text", argument="purpose")
        if priority is not None:
            checked_priority(priority)
        expiry = Expiry.make(max_lifetime, max_attempts)
        if not self.is_understood(FrameType.EXPIRED):
            expiry = None
        ids = self._own[not bidirectional]
        try:
            if stream_id is None:
                stream_id = ids.allocate()
            else:
                stream_id = ids.claim(stream_id)
        except TooManyStreamsError:
            if ids.report_blocked():
                self.control_ready["streams_blocked", int(bidirectional)] = None
            raise
        send = self._sending_half(
            stream_id,
            expiry,
            max_frame_size=max_frame_size,
            no_delay=config.no_delay if no_delay is None else no_delay,
            opener=StreamOpen(stream_id, purpose).encode() if purpose else b"",
            priority=priority,
        )
        recv = self._receiving_half(stream_id) if bidirectional else None
        stream = self._streams[stream_id] = Stream(stream_id, self, send, recv, opened=True, purpose=purpose)
        ids.use(stream_id)
        return stream

    def get(self, stream_id: int) -> Stream | None:
        """Give a stream that the application may know of and that is not over."""
        stream = self._streams.get(stream_id)
        return stream if stream is not None and stream.opened else None

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[Stream]:
        """All streams, in the order in which they came to be."""
        return iter(self._streams.values())

    def retire(self, stream_id: int) -> None:
        """Forget a stream if it is over; its opener may then open another."""
        stream = self._streams.get(stream_id)
        if stream is None or not stream.done:
            return
        del self._streams[stream_id]
        if not self._streams:
            self._streams.clear()  # an emptied dictionary keeps its memory, a cleared one does not
            self._hub.shrink()
            if self._clock is not None:
                self.emptied_at = self._clock.now
        kind = stream_id >> 1 & 1
        if stream_id & 1 != self._parity and self._peer[kind].end():
            self.control_ready["max_streams", 1 - kind] = None

    def fail_all(self, error: SttError) -> None:
        """The session has ended: what arrived stays readable, and every later command raises `error`."""
        self._error = error
        for stream in self._streams.values():
            if stream.send is not None:
                stream.send.fail(error)
            if stream.recv is not None:
                stream.recv.fail(error)
        self._hub.undelivered = 0
        self._hub.give_up_growth()
        self.control_ready.clear()

    def is_understood(self, frame: int) -> bool:
        """Whether the peer has announced frames of this type (X-2)."""
        return frame in self._peer_frames

    @property
    def credit(self) -> SendCredit:
        """The session's credit for sending; for looking only."""
        return self._hub.credit

    @property
    def window(self) -> CreditWindow:
        """The session's credit for receiving; for looking only."""
        return self._hub.window

    @property
    def undelivered(self) -> int:
        """Bytes, ends and resets that the peer has not acknowledged; 0 when everything has arrived."""
        return self._hub.undelivered

    @property
    def bytes_written(self) -> int:
        """Bytes taken from the application on all streams."""
        return self._hub.bytes_written

    @property
    def bytes_read(self) -> int:
        """Bytes given to the application on all streams."""
        return self._hub.bytes_read

    # -- frames of the peer ----------------------------------------------------------------------------------------
    #
    # All of these raise a RemoteError whose code is the one to close the session with, and nothing else. A stream
    # that has ended is `None` for them: what comes for it is ignored (S-9).

    def set_peer_parameters(self, parameters: Parameters) -> None:
        """Take in what the handshake told; before it, nothing can be opened."""
        self._hub.credit.raise_limit(parameters.max_data)
        self._peer_window = parameters.max_stream_data
        self._peer_frames = parameters.extension_frames
        self._own[0].begin(parameters.max_streams_bidi)
        self._own[1].begin(parameters.max_streams_uni)

    def on_stream(self, stream_id: int, offset: int, data: bytes | memoryview, fin: bool) -> None:
        """Take in a STREAM frame."""
        stream = self._streams.get(stream_id)
        recv = None if stream is None else stream.recv
        if stream is None or recv is None:
            stream = self._find(stream_id, receiving=True)
            if stream is None:
                if not data:
                    self._on_empty(offset, fin)
                return
            recv = cast(ReceiveStream, stream.recv)
        if not data and not (fin and recv.final_size < 0) and (offset or stream.opened):
            self._on_empty(offset, fin)
        if not offset and not stream.opened:
            self._announce(stream)
        recv.on_data(offset, data, fin)
        if recv.done:
            self.retire(stream_id)

    def on_stream_open(self, stream_id: int, purpose: str) -> None:
        """Take in a STREAM_OPEN frame."""
        if stream_id & 1 == self._parity:
            raise InvalidFrameError(f"STREAM_OPEN for stream {stream_id}, which is not the sender's")
        stream = self._find(stream_id, receiving=True)
        if stream is None or stream.opened:
            self._on_repeated()
        else:
            stream.purpose = purpose
            self._announce(stream)

    def on_reset(self, stream_id: int, code: int, final_size: int) -> None:
        """Take in a RESET_STREAM frame."""
        stream = self._find(stream_id, receiving=True)
        if stream is None:
            self._on_repeated()
            return
        recv = cast(ReceiveStream, stream.recv)
        if not stream.opened:
            self._announce(stream)
        if not recv.on_reset(code, final_size):
            self._on_repeated()
        if recv.done:
            self.retire(stream_id)

    def on_expired(self, stream_id: int, offset: int) -> None:
        """Take in an EXPIRED frame."""
        stream = self._find(stream_id, receiving=True)
        if stream is None:
            self._on_repeated()
            return
        recv = cast(ReceiveStream, stream.recv)
        if not stream.opened:
            self._announce(stream)
        if not recv.on_expired(offset):
            self._on_repeated()

    def on_stop(self, stream_id: int, code: int) -> None:
        """Take in a STOP_SENDING frame."""
        stream = self._find(stream_id, receiving=False)
        if stream is None or not cast(SendStream, stream.send).on_stop(code):
            self._on_repeated()
        elif stream.opened:
            self._hub.events.append(StreamReset(stream_id, code, stopped=True))

    def on_max_data(self, value: int) -> None:
        """Take in a MAX_DATA frame."""
        credit = self._hub.credit
        if value <= credit.limit:
            self._on_repeated()
        else:
            self.suspicious += not is_due(
                credit.limit, value, credit.used, credit.window, credit.reported == credit.limit
            )
        self._hub.raise_credit(value)

    def on_max_stream_data(self, stream_id: int, value: int) -> None:
        """Take in a MAX_STREAM_DATA frame."""
        stream = self._find(stream_id, receiving=False)
        if stream is None:
            self._on_repeated()
            return
        send = cast(SendStream, stream.send)
        if value <= send.limit:
            self._on_repeated()
        else:
            self.suspicious += not is_due(send.limit, value, send.sent_offset, self._peer_window)
        send.raise_limit(value)

    def on_priority(self, stream_id: int, urgency: int, incremental: bool) -> None:
        """Take in a PRIORITY frame."""
        stream = self._find(stream_id, receiving=False)
        if stream is None:
            self._on_repeated()
            return
        send, wish = cast(SendStream, stream.send), Priority(urgency, incremental)
        known = send.priority == wish
        if send.on_priority(wish):
            return
        if known:
            self._on_repeated()
        else:
            self._wishes += 1
            self.suspicious += not self._wishes % WISHES

    def on_max_streams(self, bidirectional: bool, value: int) -> None:
        """Take in a MAX_STREAMS frame."""
        ids = self._own[not bidirectional]
        if value <= ids.limit:
            self._on_repeated()
        else:
            self.suspicious += not ids.is_due(value)
        if ids.raise_limit(value) and ids.refused:
            ids.refused = False
            self._hub.events.append(StreamsAvailable(bidirectional))

    def on_data_blocked(self, limit: int) -> None:
        """Take in a DATA_BLOCKED frame."""
        window = self._hub.window
        if limit == window.blocked_at:
            self._on_repeated()
        elif not window.on_blocked(limit):
            self.suspicious += 1
        else:
            self._hub.announce_credit()

    def on_stream_data_blocked(self, stream_id: int, limit: int) -> None:
        """Take in a STREAM_DATA_BLOCKED frame."""
        stream = self._find(stream_id, receiving=True)
        if stream is None or not cast(ReceiveStream, stream.recv).window.on_blocked(limit):
            self.suspicious += 1

    def on_streams_blocked(self, bidirectional: bool, limit: int) -> None:
        """Take in a STREAMS_BLOCKED frame."""
        ids = self._peer[not bidirectional]
        if limit == ids.blocked_at:
            self._on_repeated()
        elif not ids.on_blocked(limit):
            self.suspicious += 1
        elif ids.due:
            self.control_ready["max_streams", int(bidirectional)] = None

    def _on_repeated(self) -> None:
        """A frame says what is known. Whoever got no acknowledgement sends it again, and so does a flood."""
        self.suspicious += 1
        self.repeated += 1

    def _on_empty(self, offset: int, fin: bool) -> None:
        """A STREAM frame without data and without news. An honest one has opened the stream, or ended it, before."""
        self.suspicious += 1
        self.repeated += fin or not offset

    def _find(self, stream_id: int, *, receiving: bool) -> Stream | None:
        """Give the stream that a frame of the peer is about, made now if that is its right; `None` once it ended.

        `receiving` tells which half of ours the frame concerns.
        """
        own = stream_id & 1 == self._parity
        kind = stream_id >> 1 & 1
        if kind and own == receiving:
            raise InvalidFrameError(f"a frame for the wrong direction of stream {stream_id}")
        stream = self._streams.get(stream_id)
        if stream is not None:
            return stream
        index = stream_id >> 2
        if own:
            if index not in self._own[kind].used:
                raise InvalidFrameError(f"a frame for stream {stream_id}, which was never opened")
            return None
        ids = self._peer[kind]
        if index >= ids.limit:
            raise InvalidFrameError(
                f"stream {stream_id} is beyond the limit of {ids.limit}", code=TooManyStreamsError.code
            )
        return None if index in ids.used else self._accept(stream_id)

    def _accept(self, stream_id: int) -> Stream:
        """Make a stream of the peer's; the application does not know it yet."""
        send = None
        if is_bidirectional(stream_id):
            config = self._config
            send = self._sending_half(
                stream_id, None, max_frame_size=config.default_max_frame_size, no_delay=config.no_delay
            )
        stream = Stream(stream_id, self, send, self._receiving_half(stream_id), opened=False)
        self._streams[stream_id] = stream
        self._peer[stream_id >> 1 & 1].use(stream_id)
        return stream

    def _sending_half(self, stream_id: int, expiry: Expiry | None, **options: Any) -> SendStream:
        config, hub = self._config, self._hub
        options |= {
            "limit": self._peer_window,
            "capacity": config.stream_send_buffer,
            "most": config.max_stream_send_buffer,
        }
        if expiry is None:
            return SendStream(stream_id, hub, **options)
        if hub.expiries is None:
            hub.expiries = Expiries()
        return ExpiringSendStream(stream_id, hub, expiry, hub.expiries, **options)

    def _receiving_half(self, stream_id: int) -> ReceiveStream:
        config = self._config
        return ReceiveStream(
            stream_id,
            self._hub,
            window=config.stream_receive_window,
            max_window=config.max_stream_receive_window,
            max_pieces=config.limits.stream_pieces,
        )

    def _announce(self, stream: Stream) -> None:
        """Tell the application of a stream that the peer opened, and what happened to it before (S-4)."""
        stream.opened = True
        events = self._hub.events
        events.append(StreamOpened(stream.id, stream.send is not None, stream.purpose))
        if stream.send is not None and stream.send.stopped:
            events.append(StreamReset(stream.id, stream.send.code, stopped=True))

    # -- time ------------------------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When `expire` wants to be called; `inf` for never."""
        expiries = self._hub.expiries
        deadline = None if expiries is None else expiries.deadlines.next()
        return inf if deadline is None else deadline.at

    def expire(self, now: float) -> None:
        """Let streams give up what has become too old."""
        if self._hub.expiries is not None:
            deadlines = self._hub.expiries.deadlines
            while (send := deadlines.pop_due(now)) is not None:
                deadlines.arm(send, send.expire(now), "stream")

    # -- the next packet -------------------------------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        """Whether `write_control` or `write_frames` have something to write."""
        hub = self._hub
        return bool(self.control_ready) or (hub.ready.count > 0 and hub.sendable)

    def write_frames(self, out: list[bytes | memoryview], tokens: list[Token], room: int) -> int:
        """Fill a packet with data of the streams whose turn it is.

        The most urgent go first (S-14). While several of one urgency wait, each puts in at most its maximum frame size
        and goes behind the others; one that is alone fills the packet (S-10). What a stream lost goes before what it
        has that is new (R-9).

        Args:
            out: takes the bytes of the frames, in pieces that are not changed afterwards.
            tokens: takes one token for each frame, for `on_token_acked` or `on_token_lost`.
            room: bytes left in the packet. From `MIN_ROOM` on, something is written if anything waits.

        Returns:
            Bytes used. When that is all the room, the last frame has no length: nothing may follow it.
        """
        return self._hub.ready.fill(out, tokens, room, self._hub.credit)

    # -- the fate of packets ---------------------------------------------------------------------------------------

    def on_token_acked(self, token: Token) -> None:
        """The packet with this frame arrived."""
        if len(token) == 4:
            send, start, stop, fin = token
            if send.on_acked(start, stop, fin):
                self.retire(send.id)
        elif len(token) == 3:
            sender = self._expiring(token[1])
            if sender is not None and sender.on_told(token[2]):
                self.retire(sender.id)
        elif token[0] == "reset":
            reset = self._sending_of(token[1])
            if reset is not None and reset.on_reset_acked():
                self.retire(reset.id)

    def on_token_lost(self, token: Token) -> None:
        """The packet with this frame was lost; sent again is what still counts."""
        if len(token) == 4:
            send, start, stop, fin = token
            send.on_lost(start, stop, fin)
        elif token[0] in KEPT and self._error is None:
            self.control_ready[token[0], token[1]] = None
