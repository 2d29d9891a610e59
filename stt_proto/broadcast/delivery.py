"""A message on its way to many, what has become of it for each, and that as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum

from attrs import frozen

from stt_proto.errors import SttError


class Fate(Enum):
    """What has become of one message for one receiver.

    `QUEUED`: it waits, or is on its way. `ACKNOWLEDGED`: the receiver's core has all of it. `DROPPED`: the message, or
    a part of it, will not arrive: the receiver was too slow, or it was withdrawn. `FAILED`: the session or the stream
    had ended, or did before it was acknowledged; it may have arrived.
    """

    QUEUED = "queued"
    ACKNOWLEDGED = "acknowledged"
    DROPPED = "dropped"
    FAILED = "failed"


@frozen
class Receipt:
    """What has become of a message for one receiver.

    Attributes:
        fate: that.
        error: why it failed; else `None`.
    """

    fate: Fate
    error: SttError | None = None


@frozen
class BroadcastResult:
    """Who got a message, as it was when this was made.

    Attributes:
        receipts: by session id, in the order in which they were asked for.
    """

    receipts: Mapping[bytes, Receipt]

    def _with(self, fate: Fate) -> tuple[bytes, ...]:
        return tuple(each for each, receipt in self.receipts.items() if receipt.fate is fate)

    @property
    def acknowledged(self) -> tuple[bytes, ...]:
        """The ids of the sessions whose peers have all of it."""
        return self._with(Fate.ACKNOWLEDGED)

    @property
    def queued(self) -> tuple[bytes, ...]:
        """The ids of those for whom it is still on its way."""
        return self._with(Fate.QUEUED)

    @property
    def dropped(self) -> tuple[bytes, ...]:
        """The ids of those who were too slow for it."""
        return self._with(Fate.DROPPED)

    @property
    def failed(self) -> dict[bytes, SttError]:
        """Why it failed, by the ids of those with whom it did."""
        return {each: receipt.error for each, receipt in self.receipts.items() if receipt.error is not None}


class Delivery:
    """One message on its way to one receiver.

    Attributes:
        broadcast: the message, and all who are to have it.
        taken: bytes of it that the stream has taken.
        end: where it ends on the stream.
        given_up: bytes that its stream had given up before it began.
        fate, error: as in `Receipt`.
    """

    __slots__ = ("broadcast", "end", "error", "fate", "given_up", "taken")

    def __init__(self, broadcast: Broadcast) -> None:
        self.broadcast = broadcast
        self.taken = self.end = self.given_up = 0
        self.fate = Fate.QUEUED
        self.error: SttError | None = None

    @property
    def rest(self) -> bytes | memoryview:
        """What the stream has not taken yet."""
        data = self.broadcast.data
        return memoryview(data)[self.taken :] if self.taken else data

    @property
    def size(self) -> int:
        """Bytes of the message."""
        return len(self.broadcast.data)

    def settle(self, fate: Fate, error: SttError | None = None) -> None:
        """Say what has become of it; the first word is the last."""
        if self.fate is Fate.QUEUED:
            self.fate, self.error = fate, error
            self.broadcast.one_settled()


class Broadcast:
    """One message on its way to many.

    Args:
        data: the message; all who are to have it share this one copy.
        on_settled: called when the fate of all who were to have it so far is known; again, if there come more.

    Attributes:
        data: the message.
        unsettled: for how many it is still on its way.
    """

    __slots__ = ("_on_settled", "data", "unsettled")

    def __init__(self, data: bytes, on_settled: Callable[[], None] | None = None) -> None:
        self.data = data
        self.unsettled = 0
        self._on_settled = on_settled

    @property
    def settled(self) -> bool:
        """Whether it is known for all what became of it."""
        return not self.unsettled

    def to_one(self) -> Delivery:
        """One more is to have it."""
        self.unsettled += 1
        return Delivery(self)

    def one_settled(self) -> None:
        """The fate of one more is known."""
        self.unsettled -= 1
        if not self.unsettled and self._on_settled is not None:
            self._on_settled()
