"""All receivers of an endpoint's broadcasts."""

from __future__ import annotations

from stt_proto.broadcast.delivery import Broadcast, Delivery
from stt_proto.broadcast.outbox import Outbox, SessionOutbox, StreamOutbox
from stt_proto.broadcast.policy import BroadcastPolicy
from stt_proto.errors import ArgumentError, SttError
from stt_proto.events import (
    Event,
    SessionClosed,
    StreamAcked,
    StreamFinished,
    StreamReset,
    StreamsAvailable,
    StreamWritable,
)
from stt_proto.session import Session
from stt_proto.session.stream import Stream

_OF_STREAMS = StreamAcked | StreamFinished | StreamReset | StreamWritable


class Broadcaster:
    """Sends one message to many sessions; the host passes on every event while this is true.

    An event costs the same however many receivers there are; an outbox with nothing in it is forgotten.

    Args:
        policy: the bounds for each receiver.
    """

    __slots__ = ("_outboxes", "_policy")

    def __init__(self, policy: BroadcastPolicy | None = None) -> None:
        self._policy = policy or BroadcastPolicy()
        self._outboxes: dict[Session, dict[int | None, Outbox]] = {}

    def __bool__(self) -> bool:
        return bool(self._outboxes)

    def __contains__(self, session: Session) -> bool:
        """Whether something is on its way to this session, or waits."""
        return session in self._outboxes

    @property
    def held(self) -> int:
        """Bytes of messages for all receivers, each counted for each."""
        return sum(outbox.held for boxes in self._outboxes.values() for outbox in boxes.values())

    def check(self, data: bytes) -> None:
        """Refuse a message that no receiver could ever take.

        Raises:
            ArgumentError: it is longer than `max_bytes` of the policy.
        """
        most = self._policy.max_bytes
        if len(data) > most:
            raise ArgumentError(f"data has {len(data):,} bytes; a broadcast has at most {most:,}", argument="data")

    def send(self, broadcast: Broadcast, session: Session, stream: Stream | None, now: float) -> Delivery:
        """Send a message to one of its receivers, or let it wait there; the host pumps after the last of them.

        Args:
            broadcast: the message.
            session: to whom.
            stream: on which stream of that session; on a new one of its own when `None`.
            now: seconds.
        """
        delivery = broadcast.to_one()
        self._outbox(session, stream).put(delivery, now)
        self._sweep(session)
        return delivery

    def outbox(self, session: Session, stream_id: int | None) -> Outbox | None:
        """What waits for a session, on a stream or on those of the messages; `None` when nothing does."""
        return self._outboxes.get(session, {}).get(stream_id)

    def withdraw(self, delivery: Delivery, session: Session, stream_id: int | None) -> None:
        """Do not send a message to one receiver after all, if it has not begun to leave."""
        outbox = self.outbox(session, stream_id)
        if outbox is not None:
            outbox.withdraw(delivery)
            self._sweep(session)

    def fail(self, session: Session, stream_id: int, error: SttError) -> None:
        """A stream was reset by this side: nothing leaves on it any more, which no event will tell."""
        outbox = self.outbox(session, stream_id)
        if outbox is not None:
            outbox.fail(error)
            self._sweep(session)

    def on_event(self, session: Session, event: Event, now: float) -> bool:
        """Go on with what the event makes possible; tell whether the host has to pump."""
        boxes = self._outboxes.get(session)
        if boxes is None:
            return False
        if isinstance(event, SessionClosed):
            for outbox in tuple(boxes.values()):
                outbox.fail(session.close_error)
        elif isinstance(event, _OF_STREAMS):
            box = boxes.get(event.stream_id) or boxes.get(None)
            if box is None:
                return False
            box.on_event(event, now)
        elif isinstance(event, StreamsAvailable) and None in boxes:
            boxes[None].on_event(event, now)
        else:
            return False
        self._sweep(session)
        return True

    def _outbox(self, session: Session, stream: Stream | None) -> Outbox:
        boxes = self._outboxes.setdefault(session, {})
        key = None if stream is None else stream.stream_id
        outbox = boxes.get(key)
        if outbox is None:
            if stream is None:
                outbox = SessionOutbox(session, self._policy)
            else:
                outbox = StreamOutbox(session, self._policy, stream)
            boxes[key] = outbox
        return outbox

    def _sweep(self, session: Session) -> None:
        """Forget what has nothing left to do."""
        boxes = self._outboxes.get(session, {})  # who hears that one is settled may have sent the next, and swept
        for key in [key for key, outbox in boxes.items() if outbox.is_idle]:
            del boxes[key]
        if not boxes:
            self._outboxes.pop(session, None)
