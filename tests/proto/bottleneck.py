"""A sender, a bottleneck with a queue, a receiver, and the way back: what controllers are tried out on.

There is `Recovery` and `AckTracker`, and no packet: no session, no key, no byte. All time is simulated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Any

from stt_proto.recovery import AckTracker, Recovery, SentPacket

DATAGRAM = 1200
MAX_ACK_DELAY = 0.025


class Bottleneck:
    """The whole of it.

    Args:
        rate: bytes a second; may be changed.
        delay: seconds of a round trip without a queue.
        queue: bytes that may wait.
        congestion: the controller.
        loss, reorder: probabilities, for each datagram.
        segments: datagrams of a packet, which is lost when one of them is.
        gather: seconds for which acknowledgements are held back on the way, to be released together.

    Attributes:
        now: seconds.
        delivered: the tokens that arrived.
        overflows: datagrams that found the queue full.
        on_ack: is called after each acknowledgement was taken in.
    """

    def __init__(
        self,
        rate: float,
        delay: float,
        queue: int,
        congestion: Any = "newreno",
        *,
        loss: float = 0.0,
        reorder: float = 0.0,
        segments: int = 1,
        gather: float = 0.0,
    ) -> None:
        self.rate, self.delay, self.queue = rate, delay, queue
        self.loss, self.reorder, self.segments, self.gather = loss, reorder, segments, gather
        self.recovery = Recovery(DATAGRAM, congestion=congestion, max_ack_delay=MAX_ACK_DELAY)
        self.acks = AckTracker(MAX_ACK_DELAY)
        self.random = Random(7)
        self.now = 0.0
        self.number = 0
        self.free_at = 0.0
        self.delivered: set[object] = set()
        self.confirmed: set[object] = set()
        self.overflows = 0
        self.waiting: list[object] = []
        self.supply: Callable[[], object] | None = None
        self.on_ack: Callable[[], object] | None = None
        self._events: list[tuple[float, int, str, object]] = []
        self._serial = 0
        self._woken_at = inf

    def run(self, tokens: Sequence[object], until: float) -> float:
        """Send these until all are acknowledged or the time is over; the time it took."""
        self.waiting = list(reversed(tokens))
        wanted = len(set(tokens))
        self._fill()
        while self._events and len(self.confirmed) < wanted and self.now < until:
            self._step()
        return self.now

    def run_until(self, condition: Callable[[], object], until: float = 60.0) -> None:
        """Send without end until something holds; it has to, before the time is over."""
        self.supply = object
        self._fill()
        while not condition():
            assert self._events[0][0] <= until, f"not reached within {until:g} s"
            self._step()

    def run_for(self, seconds: float) -> int:
        """Send without end for so long; the packets that arrived in it."""
        before, end = len(self.delivered), self.now + seconds
        self.at(end, "nothing")
        self.run_until(lambda: self.now >= end, end)
        return len(self.delivered) - before

    def at(self, time: float, kind: str, value: object = None) -> None:
        """Let something happen at a time; `call` calls a function."""
        self._serial += 1
        heappush(self._events, (time, self._serial, kind, value))

    def _wake(self, time: float) -> None:
        """Arm the one timer, if it is not armed for an earlier time."""
        if time < self._woken_at:
            self._woken_at = time
            self.at(time, "tick")

    def _transmit(self, token: object) -> None:
        size = self.segments * DATAGRAM
        packet = SentPacket(self.number, self.now, size, self.segments, True, True, token)
        self.number += 1
        self.recovery.on_sent(packet)
        lost = False
        for _ in range(self.segments):
            waiting = max(self.free_at - self.now, 0.0) * self.rate
            if waiting + DATAGRAM > self.queue:
                self.overflows += 1
                lost = True
            elif self.random.random() < self.loss:
                lost = True
            else:
                self.free_at = max(self.free_at, self.now) + DATAGRAM / self.rate
        if not lost:
            late = self.delay if self.random.random() < self.reorder else 0.0
            self.at(self.free_at + self.delay / 2 + late, "packet", packet)

    def _has_work(self) -> bool:
        if not self.waiting and self.supply is not None:
            self.waiting.append(self.supply())
        return bool(self.waiting)

    def _fill(self) -> None:
        """Send what may be sent; the timer wakes us for the rest."""
        recovery = self.recovery
        while (working := self._has_work()) and (recovery.probes or recovery.can_send(DATAGRAM)):
            wait_until = recovery.pacing_deadline(self.now, DATAGRAM)
            if wait_until and not recovery.probes:
                self._wake(wait_until)
                break
            self._transmit(self.waiting.pop())
        if not working:
            recovery.on_app_limited()
        while recovery.probes and (oldest := recovery.oldest_eliciting()):
            self._transmit(oldest.tokens)
        self._wake(recovery.deadline)

    def _step(self) -> None:
        self.now, _, kind, value = heappop(self._events)
        lost: list[SentPacket] = []
        if kind == "packet":
            assert isinstance(value, SentPacket)
            self.delivered.add(value.tokens)
            self.acks.on_packet(value.number, value.segments, True, self.now)
            self.at(self.acks.due_at, "due")
        elif kind == "due":
            if self.acks.due_at <= self.now and (ack := self.acks.take(self.now)):
                arrives = self.now + self.delay / 2
                if self.gather:
                    arrives = (arrives // self.gather + 1) * self.gather
                self.at(arrives, "ack", ack)
        elif kind == "ack":
            _, delay, ranges, _ = value  # type: ignore[misc]
            acked, lost = self.recovery.on_ack(ranges, delay / 125_000, self.now)
            self.confirmed.update(packet.tokens for packet in acked)
            if self.on_ack is not None:
                self.on_ack()
        elif kind == "call":
            value()  # type: ignore[operator]
        elif self.now == self._woken_at:
            self._woken_at = inf
            lost = self.recovery.on_timeout(self.now)
        self.waiting.extend(packet.tokens for packet in lost if packet.tokens not in self.confirmed)
        if kind in ("ack", "tick", "call"):
            self._fill()
