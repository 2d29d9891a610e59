"""One direction of a network link, and what it does to datagrams."""

from __future__ import annotations

import random
from bisect import insort
from math import inf, log1p
from typing import NamedTuple

from attrs import asdict, define

from stt_proto.testing.checks import AGES, check_seconds, check_type
from stt_proto.testing.conditions import Conditions, GilbertElliott
from stt_proto.testing.queues import Queue, RateQueue, TraceQueue

NOT_ECT, CONGESTION_EXPERIENCED = 0, 3
"""Two of the four values of the ECN bits (RFC 3168, section 5)."""


class Arrival(NamedTuple):
    """A datagram that will come out at the other end.

    Attributes:
        at: when.
        data: as it is then.
        ecn: its two ECN bits as they are then.
    """

    at: float
    data: bytes
    ecn: int


@define
class Traffic:
    """What a link has done, in datagrams; `bytes` counts what was handed in.

    Each datagram that does not arrive is counted once: as `lost` (one by one, or because the link was not up), `burst`
    (in a burst), `cut` (in an outage), `overflowed` (the queue was full) or `too_large`. What was done to those that
    do arrive is counted for each fault.
    """

    sent: int = 0
    bytes: int = 0
    delivered: int = 0
    lost: int = 0
    burst: int = 0
    cut: int = 0
    overflowed: int = 0
    too_large: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    truncated: int = 0
    marked: int = 0

    def add(self, other: Traffic) -> None:
        """Count in what another link has done."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


class Bursts:
    """Where a link stands in a `GilbertElliott` model; made anew for each model."""

    __slots__ = ("_bad", "_left", "_random", "model")

    def __init__(self, model: GilbertElliott, rng: random.Random) -> None:
        self.model = model
        self._random = rng
        self._bad = True
        self._left = 0

    def drops(self) -> bool:
        """Move on by one datagram, and tell whether it is lost."""
        model = self.model
        if not self._left:
            self._bad = not self._bad
            self._left = self._run(model.bad if self._bad else model.good)
        self._left -= 1
        loss = model.loss_bad if self._bad else model.loss_good
        return loss == 1.0 or (loss > 0.0 and self._random.random() < loss)

    def _run(self, mean: float) -> int:
        """Draw a length with this mean, at least 1: what a coin tossed for each datagram would give."""
        return 1 if mean == 1.0 else 1 + int(log1p(-self._random.random()) / log1p(-1.0 / mean))


class Link:
    """One direction between two addresses; several pairs of addresses may share it.

    Args:
        conditions: what it is like.
        rng: decides what happens to which datagram; `World.random`, usually.

    Attributes:
        up: whether anything passes at all.
        traffic: what it has done.
        fate: what it did to the latest datagram: words of `Traffic`, or "" when it just carried it.
    """

    __slots__ = ("_bursts", "_conditions", "_last_arrival", "_outages", "_queue", "_random", "fate", "traffic", "up")

    def __init__(self, conditions: Conditions, rng: random.Random) -> None:
        check_type("rng", rng, random.Random)
        self.up = True
        self.traffic = Traffic()
        self.fate = ""
        self._random = rng
        self._last_arrival = 0.0
        self._outages: list[tuple[float, float]] = []
        self._queue: Queue | None = None
        self._bursts: Bursts | None = None
        self._conditions = Conditions()
        self.conditions = conditions

    @property
    def conditions(self) -> Conditions:
        """What it is like; may be replaced at any time. What is on its way arrives as it would have."""
        return self._conditions

    @conditions.setter
    def conditions(self, new: Conditions) -> None:
        check_type("conditions", new, Conditions)
        old, self._conditions = self._conditions, new
        if (new.rate, new.trace) != (old.rate, old.trace):
            begins = 0.0 if self._queue is None else self._queue.free_at
            if new.trace is not None:
                self._queue = TraceQueue(new.trace, begins)
            else:
                self._queue = None if new.rate is None else RateQueue(new.rate, begins)
        if new.burst != old.burst:
            self._bursts = None if new.burst is None else Bursts(new.burst, self._random)

    def outage(self, start: float, seconds: float = inf) -> None:
        """Carry nothing that is handed in from `start` on, for so long; what was under way then arrives."""
        check_seconds("start", start, -AGES)
        check_seconds("seconds", seconds, endless=True)
        insort(self._outages, (start, start + seconds))

    def take_the_place_of(self, other: Link) -> None:
        """Be out whenever another was going to be."""
        self._outages = list(other._outages)

    def carry(self, datagram: bytes, now: float, ecn: int = NOT_ECT) -> list[Arrival]:
        """Say when, and how damaged, the datagram arrives: no, one or two arrivals; `fate` says why."""
        conditions, traffic = self._conditions, self.traffic
        size = len(datagram)
        traffic.sent += 1
        traffic.bytes += size
        self.fate = ""
        if self._stops(size, now):
            return []
        leaves = now
        queue = self._queue
        if queue is not None:
            backlog = queue.backlog(now)
            if backlog + size > conditions.queue:
                self._note("overflowed")
                return []
            threshold = conditions.ecn_threshold
            if threshold is not None and backlog >= threshold and ecn != NOT_ECT:
                ecn = CONGESTION_EXPERIENCED
                self._note("marked")
            leaves = queue.enter(size, now)
        chance = self._random.random
        arrives = leaves + conditions.delay
        if conditions.jitter:
            arrives += conditions.jitter * chance()
        if conditions.reorder and chance() < conditions.reorder:
            self._note("reordered")
            arrives += conditions.reorder_delay
        elif arrives < self._last_arrival:
            arrives = self._last_arrival
        else:
            self._last_arrival = arrives
        damaged = self._damage(datagram) if conditions.corrupt or conditions.truncate else datagram
        arrivals = [Arrival(arrives, damaged, ecn)]
        if conditions.duplicate and chance() < conditions.duplicate:
            self._note("duplicated")
            arrivals.append(Arrival(arrives + conditions.reorder_delay * chance(), datagram, ecn))
        traffic.delivered += len(arrivals)
        return arrivals

    def _note(self, fate: str) -> None:
        """Count a fault, and remember it as a fate of the latest datagram."""
        setattr(self.traffic, fate, getattr(self.traffic, fate) + 1)
        self.fate = f"{self.fate}, {fate}" if self.fate else fate

    def _stops(self, size: int, now: float) -> bool:
        """Whether the datagram does not even get as far as the queue."""
        conditions = self._conditions
        if size > conditions.mtu:
            self._note("too_large")
        elif not self.up or (conditions.loss and self._random.random() < conditions.loss):
            self._note("lost")
        elif self._outages and self._is_out(now):
            self._note("cut")
        elif self._bursts is not None and self._bursts.drops():
            self._note("burst")
        else:
            return False
        return True

    def _is_out(self, now: float) -> bool:
        """Whether an outage is on; those that are over are forgotten."""
        outages = self._outages
        while outages and outages[0][1] <= now:
            del outages[0]
        return bool(outages) and outages[0][0] <= now

    def _damage(self, datagram: bytes) -> bytes:
        conditions, rng = self._conditions, self._random
        if not datagram:
            return datagram
        if conditions.corrupt and rng.random() < conditions.corrupt:
            self._note("corrupted")
            bit = rng.randrange(len(datagram) * 8)
            damaged = bytearray(datagram)
            damaged[bit >> 3] ^= 1 << (bit & 7)
            datagram = bytes(damaged)
        if conditions.truncate and rng.random() < conditions.truncate:
            self._note("truncated")
            datagram = datagram[: rng.randrange(len(datagram))]
        return datagram

    def __repr__(self) -> str:
        return f"<Link with {self._conditions}, {self.traffic.delivered} of {self.traffic.sent} delivered>"
