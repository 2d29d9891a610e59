"""Partial reliability: data that is not worth sending for ever (docs/protocol.md, S-16, S-17).

`Expiry` answers two questions about stretches of bytes: which are too old, and which were lost once too often. What it
remembers is bounded, ages by how finely they are told apart, losses by the number of tries and the bytes in the buffer.

`ExpiringSendStream` does what follows. What is given up is settled, as if it had been acknowledged; once all before it
is settled too, an EXPIRED tells the peer to wait no longer. What was never sent is skipped in this way: it takes up
credit, as far as there is some, and the peer gives it back when its reader comes to the gap.
"""

from __future__ import annotations

from collections import deque
from math import inf, isfinite
from typing import Any

from stt_proto.clock import DeadlineQueue
from stt_proto.errors import ArgumentError
from stt_proto.streams.hub import Hub
from stt_proto.streams.intervals import IntervalSet
from stt_proto.streams.send import SendState, SendStream
from stt_proto.types import Buffer

__all__ = ["Expiries", "ExpiringSendStream", "Expiry", "checked_lifetime"]

GRAINS = 16
"""Into so many parts a lifetime is divided: what was written within one of them expires together, at its end."""
MOST_ATTEMPTS = 16
SHORTEST_LIFE, LONGEST_LIFE = 0.001, 86_400.0
"""Seconds."""


def checked_lifetime(value: object) -> float:
    """Give what was handed over if it is a lifetime, else raise `ArgumentError`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not isfinite(value) or not SHORTEST_LIFE <= value <= LONGEST_LIFE:  # type: ignore[arg-type,operator]
        raise ArgumentError(
            f"max_lifetime is {value!r}; it must be from 0.001 to 86,400 seconds", argument="max_lifetime"
        )
    return value  # type: ignore[return-value]


class Expiry:
    """What is known of the age and the losses of one sending half.

    Args:
        lifetime: seconds after which bytes are given up, or `None`.
        attempts: times that they are sent, or `None`.

    Attributes:
        stale: stretches that were given up and lie beyond what is settled.
    """

    __slots__ = ("_ages", "_attempts", "_lifetime", "_losses", "stale")

    def __init__(self, lifetime: float | None, attempts: int | None) -> None:
        self._lifetime = lifetime
        self._attempts = attempts
        self._ages: deque[tuple[float, int]] = deque()  # when what lies below an offset expires, both rising
        self._losses = [IntervalSet() for _ in range((attempts or 1) - 1)]  # what was lost once at least, twice, ...
        self.stale = IntervalSet()

    @classmethod
    def make(cls, max_lifetime: float | None, max_attempts: int | None) -> Expiry | None:
        """Take what an application asked for; `None` when it asked for nothing.

        Raises:
            ArgumentError: a value is outside its range.
        """
        if max_lifetime is not None:
            checked_lifetime(max_lifetime)
        if max_attempts is not None and (type(max_attempts) is not int or not 1 <= max_attempts <= MOST_ATTEMPTS):
            raise ArgumentError(
                f"max_attempts is {max_attempts!r}; it must be from 1 to {MOST_ATTEMPTS}", argument="max_attempts"
            )
        return None if max_lifetime is None and max_attempts is None else cls(max_lifetime, max_attempts)

    @property
    def deadline(self) -> float:
        """When something becomes too old; `inf` when nothing does."""
        return self._ages[0][0] if self._ages else inf

    def on_write(self, end: int, now: float) -> None:
        """All up to `end` is written."""
        lifetime, ages = self._lifetime, self._ages
        if lifetime is not None:
            if ages and now + lifetime <= ages[-1][0]:
                ages[-1] = ages[-1][0], end
            else:
                ages.append((now + lifetime * (1 + 1 / GRAINS), end))

    def too_old(self, now: float) -> int:
        """The offset below which all has become too old by now; 0 when nothing has."""
        ages, offset = self._ages, 0
        while ages and ages[0][0] <= now:
            offset = ages.popleft()[1]
        return offset

    def on_lost(self, start: int, stop: int) -> list[tuple[int, int]]:
        """These bytes were lost; give the stretches of them that were lost once too often."""
        losses = self._losses
        if not losses:
            return [] if self._attempts is None else [(start, stop)]
        given_up = losses[-1].overlaps(start, stop)
        for more, often in zip(losses[:0:-1], losses[-2::-1], strict=True):
            for low, high in often.overlaps(start, stop):
                more.add(low, high)
        losses[0].add(start, stop)
        return given_up

    def settle(self, offset: int) -> bool:
        """All below `offset`, which is above 0, is settled; tell whether some of it was given up."""
        ages = self._ages
        while ages and ages[0][1] <= offset:
            ages.popleft()
        for losses in self._losses:
            losses.remove(0, offset)
        bounds = self.stale.bounds
        if not bounds or bounds[0] >= offset:
            return False
        self.stale.remove(0, offset)
        return True


class Expiries:
    """What the halves of one session that give something up share.

    Attributes:
        deadlines: when something becomes too old.
        skipping: who gave up what was never sent, and lacks the credit to say so.
    """

    __slots__ = ("deadlines", "skipping")

    def __init__(self) -> None:
        self.deadlines: DeadlineQueue[ExpiringSendStream] = DeadlineQueue()
        self.skipping: dict[ExpiringSendStream, None] = {}


class ExpiringSendStream(SendStream):
    """A sending half that gives up what is too old, or was lost too often.

    Args:
        stream_id: its id.
        hub: what the streams of the session share.
        expiry: knows what is to be given up.
        expiries: what halves of this kind share.
        options: as for `SendStream`.

    Attributes:
        skip_offset: offset below which nothing is sent any more; 0 while nothing was given up.
        told: offset of the last EXPIRED that was made.
        given_up: bytes that were given up, and are not known to have arrived.
    """

    __slots__ = ("_confirmed", "_expiries", "_expiry", "_unopened", "given_up", "skip_offset", "told")

    def __init__(self, stream_id: int, hub: Hub, expiry: Expiry, expiries: Expiries, **options: Any) -> None:
        super().__init__(stream_id, hub, **options)
        self._expiry = expiry
        self._expiries = expiries
        self._confirmed = 0  # the largest offset of an EXPIRED that arrived
        self._unopened = False  # the first byte was given up
        self.skip_offset = 0
        self.told = 0
        self.given_up = 0

    # -- the application -------------------------------------------------------------------------------------------

    def write(self, data: Buffer, now: float = 0.0) -> int:
        """See `SendStream.write`; the life of `data` begins at `now`."""
        taken = super().write(data, now)
        if taken:
            self._expiry.on_write(self.bytes_accepted, now)
            self._expiries.deadlines.arm(self, self._expiry.deadline, "stream")
        return taken

    def reset(self, code: int) -> None:
        """See `SendStream.reset`."""
        if self._is_live:
            self._hub.undelivered -= self.owes
        super().reset(code)

    # -- what is given up ------------------------------------------------------------------------------------------

    @property
    def owes(self) -> bool:
        """Whether the peer does not know yet what was given up."""
        return self._confirmed < self.skip_offset

    def expire(self, now: float) -> float:
        """Give up what has become too old; tell when that has to be asked again, `inf` for never."""
        offset = self._expiry.too_old(now)
        if offset > self.acked_offset:
            self._give_up(self.acked_offset, offset)
            self._offer()
        return self._expiry.deadline

    def on_lost(self, start: int, stop: int, fin: bool) -> None:
        """See `SendStream.on_lost`."""
        super().on_lost(start, stop, fin)
        start = max(start, self.acked_offset)
        if self._is_live and start < stop:
            for low, high in self._expiry.on_lost(start, stop):
                self._give_up(low, high)

    def _give_up(self, start: int, stop: int) -> None:
        """Send nothing of these bytes any more, as far as they are not known to have arrived."""
        start = max(start, self.acked_offset)  # it may have moved on, over bytes that were ahead of a gap
        if start >= stop:
            return
        self.given_up += stop - start - sum(high - low for low, high in self._acked.overlaps(start, stop))
        self._expiry.stale.add(start, stop)
        self._unopened |= not start
        self._settle(start, stop)

    def _settle(self, start: int, stop: int) -> None:
        """See `SendStream._settle`; the peer is told when what was given up has nothing before it any more."""
        before = self.acked_offset
        super()._settle(start, stop)
        if self.acked_offset > before and self._expiry.settle(self.acked_offset):
            hub = self._hub
            hub.undelivered += not self.owes
            self.skip_offset = self.acked_offset
            hub.control["expired", self.id] = None

    # -- telling the peer ------------------------------------------------------------------------------------------

    @property
    def opener(self) -> bytes:
        """What precedes an EXPIRED: the purpose, where the bytes with which it came were given up (S-4)."""
        return self._opener if self._unopened else b""

    def announce(self) -> bool:
        """Find out up to where the peer can be told now, `told`; False when there is nothing to tell.

        What is skipped without ever having been sent needs credit like everything else: the offset goes as far as
        there is some, and the rest is told when there is more.
        """
        if not self._is_live or not self.owes:
            return False
        credit = self._hub.credit
        reach = min(self.skip_offset, self.limit, self.sent_offset + credit.limit - credit.used)
        if reach > self.sent_offset:
            credit.used += reach - self.sent_offset
            self.sent_offset = reach
        if self.sent_offset < self.skip_offset:
            self._expiries.skipping[self] = None
        else:
            self._expiries.skipping.pop(self, None)
            self._offer()
        self._hub.report_blocked()
        self.told = min(self.skip_offset, self.sent_offset)
        return self.told > self._confirmed

    def on_told(self, offset: int) -> bool:
        """An EXPIRED with this offset arrived; tell whether this half is over now."""
        if not self._is_live or not self.owes:
            return False
        self._confirmed = max(self._confirmed, offset)
        if self._confirmed < self.skip_offset:
            return False
        self._hub.undelivered -= 1
        return self._fin_acked and self._end()

    def raise_limit(self, limit: int) -> bool:
        """See `SendStream.raise_limit`; more of what was never sent can be skipped."""
        raised = super().raise_limit(limit)
        if raised and self._is_live and self.sent_offset < self.skip_offset:
            self._hub.control["expired", self.id] = None
        return raised

    # -- what the rest of it means here ----------------------------------------------------------------------------

    @property
    def _is_live(self) -> bool:
        return self.state is SendState.OPEN or self.state is SendState.FINISHING

    def _offer(self) -> None:
        """Nothing new is sent before what lies in between was skipped."""
        if self.sent_offset < self.skip_offset and not self._resends:
            self._hub.ready.drop(self)
        else:
            super()._offer()

    def _end(self) -> bool:
        """The end does not come before the peer knows what will not."""
        over = not self.owes and super()._end()
        if over:
            self._expiries.deadlines.forget(self)
        return over

    def _drop(self) -> None:
        super()._drop()
        self._expiries.deadlines.forget(self)
        self._expiries.skipping.pop(self, None)
