"""One receiver of broadcasts: its backlog, and the streams on which that leaves as they have room.

Nobody waits here: what a stream does not take now leaves when an event says that it has room.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from stt_proto.broadcast.backlog import Backlog
from stt_proto.broadcast.delivery import Delivery, Fate
from stt_proto.broadcast.policy import BroadcastPolicy, SlowReceiver
from stt_proto.errors import StreamClosedError, SttError, TooManyStreamsError
from stt_proto.events import Event, StreamFinished, StreamReset, StreamWritable
from stt_proto.session import Session
from stt_proto.session.stream import Stream

PURPOSE = "broadcast"
"""The word that goes with a stream opened for one message."""


class Outbox(ABC):
    """What one session has yet to get."""

    __slots__ = ("_backlog", "_session")

    def __init__(self, session: Session, policy: BroadcastPolicy) -> None:
        self._session = session
        self._backlog = Backlog(policy)

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing in it."""
        return not self._backlog

    @property
    def held(self) -> int:
        """Bytes of messages that it holds on to."""
        return self._backlog.size

    def put(self, delivery: Delivery, now: float) -> None:
        """Send one more, or see what the policy says."""
        gone = self._backlog.put(delivery)
        for each in gone:
            each.settle(Fate.DROPPED)
        if delivery in gone:
            if self._backlog.policy.slow is SlowReceiver.CLOSE:
                self._session.abort(now)
        else:
            self.fill(now)

    def withdraw(self, delivery: Delivery) -> None:
        """Do not send one after all, if it has not begun to leave."""
        if self._backlog.withdraw(delivery):
            delivery.settle(Fate.DROPPED)

    def fail(self, error: SttError | None) -> None:
        """Nothing leaves any more."""
        for delivery in self._backlog.clear():
            delivery.settle(Fate.FAILED, error or StreamClosedError("the session has ended"))

    def _refuse(self, error: SttError) -> None:
        """Nothing more begins to leave; what has begun goes on."""
        for delivery in self._backlog.clear_waiting():
            delivery.settle(Fate.FAILED, error)

    def _end(self, delivery: Delivery, fate: Fate, error: SttError | None = None) -> None:
        self._backlog.end(delivery)
        delivery.settle(fate, error)

    @abstractmethod
    def fill(self, now: float) -> None:
        """Let leave what may."""

    @abstractmethod
    def on_event(self, event: Event, now: float) -> None:
        """Something happened to the session, or to a stream of this outbox."""


class StreamOutbox(Outbox):
    """All messages one after the other on one stream; as the messages of a stream are, without borders.

    Args:
        session: whose stream it is.
        policy: the bounds.
        stream: which; until the outbox `is_writing` no more, nobody else may write on it.
    """

    __slots__ = ("_current", "_stream")

    def __init__(self, session: Session, policy: BroadcastPolicy, stream: Stream) -> None:
        super().__init__(session, policy)
        self._stream = stream
        self._current: Delivery | None = None

    @property
    def is_writing(self) -> bool:
        """Whether something has not been handed to the stream, or not all of it."""
        return self._current is not None or self._backlog.waits

    @property
    def is_inside(self) -> bool:
        """Whether the stream has the beginning of a message, and not its end."""
        return self._current is not None and self._current.taken > 0

    def fail(self, error: SttError | None) -> None:
        self._current = None
        super().fail(error)

    def fill(self, now: float) -> None:
        stream, backlog = self._stream, self._backlog
        try:
            while self._current is not None or backlog.peek() is not None:
                if self._current is None:
                    self._current = backlog.begin()
                    self._current.given_up = stream.bytes_given_up
                delivery = self._current
                delivery.taken += stream.write(delivery.rest, now)
                if delivery.taken < delivery.size:
                    return
                self._current = None
                delivery.end = stream.bytes_accepted
                stream.watch_acked(delivery.end)
        except SttError as error:
            self._refuse(error)

    def _refuse(self, error: SttError) -> None:
        current, self._current = self._current, None
        assert current is not None  # it is a write that was refused
        self._end(current, Fate.FAILED, error)
        super()._refuse(error)
        try:
            for delivery in self._backlog.begun:  # the stream has all of them, and tells, unless it was reset
                self._stream.watch_acked(delivery.end)
        except SttError:
            self.fail(error)

    def on_event(self, event: Event, now: float) -> None:
        if isinstance(event, StreamReset):
            if event.stopped:
                self.fail(_stopped(event.code))
            return
        acked = self._stream.acked_offset
        for delivery in tuple(self._backlog.begun):
            if delivery is self._current or delivery.end > acked:
                break
            whole = self._stream.bytes_given_up == delivery.given_up
            self._end(delivery, Fate.ACKNOWLEDGED if whole else Fate.DROPPED)
        self.fill(now)


class SessionOutbox(Outbox):
    """Each message on a one-way stream of its own, so that none waits for a lost packet of another."""

    __slots__ = ("_streams",)

    def __init__(self, session: Session, policy: BroadcastPolicy) -> None:
        super().__init__(session, policy)
        self._streams: dict[int, tuple[Stream, Delivery]] = {}

    def fail(self, error: SttError | None) -> None:
        self._streams.clear()
        super().fail(error)

    def fill(self, now: float) -> None:
        backlog = self._backlog
        while backlog.peek() is not None:
            try:
                stream = self._session.open_stream(bidirectional=False, purpose=PURPOSE)
            except TooManyStreamsError:
                return  # `StreamsAvailable` will come
            except SttError as error:
                self._refuse(error)
                return
            delivery = backlog.begin()
            self._streams[stream.stream_id] = stream, delivery
            self._write(stream, delivery, now)

    def _write(self, stream: Stream, delivery: Delivery, now: float) -> None:
        try:
            delivery.taken += stream.write(delivery.rest, now)
            if delivery.taken == delivery.size:
                stream.finish(now)
        except SttError as error:
            self._end_stream(stream.stream_id, Fate.FAILED, error)

    def _end_stream(self, stream_id: int, fate: Fate, error: SttError | None = None) -> None:
        _, delivery = self._streams.pop(stream_id)
        self._end(delivery, fate, error)

    def on_event(self, event: Event, now: float) -> None:
        stream_id = getattr(event, "stream_id", None)
        if stream_id in self._streams:
            match event:
                case StreamWritable():
                    self._write(*self._streams[stream_id], now)
                case StreamFinished():
                    self._end_stream(stream_id, Fate.ACKNOWLEDGED)
                case StreamReset():
                    self._end_stream(stream_id, Fate.FAILED, _stopped(event.code))
        self.fill(now)


def _stopped(code: int) -> StreamClosedError:
    return StreamClosedError(f"the peer wants no more of this stream (code {code})", stream_code=code)
