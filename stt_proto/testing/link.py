"""One direction of a network link, and what it does to datagrams."""

from __future__ import annotations

import random

from attrs import define, frozen


@frozen(kw_only=True)
class Conditions:
    """What a link is like. Probabilities are for each datagram, from 0 to 1.

    Attributes:
        delay: seconds that every datagram takes.
        jitter: up to so many seconds more, at random; the order is kept.
        rate: bits a second that fit through, `None` for no bound.
        queue: bytes that may wait for the rate; what comes on top is dropped.
        loss: dropped at random.
        duplicate: delivered twice.
        reorder: held back by `reorder_delay`, so that later ones overtake it.
        reorder_delay: seconds.
        corrupt: one bit flipped.
        truncate: cut at a random place.
        mtu: larger ones vanish.
    """

    delay: float = 0.01
    jitter: float = 0.0
    rate: float | None = None
    queue: int = 1 << 20
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_delay: float = 0.01
    corrupt: float = 0.0
    truncate: float = 0.0
    mtu: int = 65_535


@define
class Traffic:
    """What a link has done, in datagrams; `bytes` counts what was handed in."""

    sent: int = 0
    bytes: int = 0
    delivered: int = 0
    lost: int = 0
    overflowed: int = 0
    too_large: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0
    truncated: int = 0


class Link:
    """One direction between two addresses.

    Attributes:
        conditions: may be replaced at any time.
        up: whether anything passes at all.
        traffic: what it has done.
    """

    __slots__ = ("_busy_until", "_last_arrival", "_random", "conditions", "traffic", "up")

    def __init__(self, conditions: Conditions, rng: random.Random) -> None:
        self.conditions = conditions
        self.up = True
        self.traffic = Traffic()
        self._random = rng
        self._busy_until = 0.0
        self._last_arrival = 0.0

    def carry(self, datagram: bytes, now: float) -> list[tuple[float, bytes]]:
        """Say when, and how damaged, the datagram arrives: no, one or two arrivals."""
        conditions, traffic, chance = self.conditions, self.traffic, self._random.random
        traffic.sent += 1
        traffic.bytes += len(datagram)
        if len(datagram) > conditions.mtu:
            traffic.too_large += 1
            return []
        if not self.up or (conditions.loss and chance() < conditions.loss):
            traffic.lost += 1
            return []
        departs = now
        if conditions.rate is not None:
            waiting = max(0.0, self._busy_until - now) * conditions.rate / 8
            if waiting + len(datagram) > conditions.queue:
                traffic.overflowed += 1
                return []
            self._busy_until = max(now, self._busy_until) + len(datagram) * 8 / conditions.rate
            departs = self._busy_until
        arrives = departs + conditions.delay + (conditions.jitter * chance() if conditions.jitter else 0.0)
        if conditions.reorder and chance() < conditions.reorder:
            traffic.reordered += 1
            arrives += conditions.reorder_delay
        else:
            arrives = self._last_arrival = max(arrives, self._last_arrival)
        arrivals = [(arrives, self._damage(datagram))]
        if conditions.duplicate and chance() < conditions.duplicate:
            traffic.duplicated += 1
            arrivals.append((arrives + conditions.reorder_delay * chance(), datagram))
        traffic.delivered += len(arrivals)
        return arrivals

    def _damage(self, datagram: bytes) -> bytes:
        conditions, traffic, rng = self.conditions, self.traffic, self._random
        if not datagram:
            return datagram
        if conditions.corrupt and rng.random() < conditions.corrupt:
            traffic.corrupted += 1
            bit = rng.randrange(len(datagram) * 8)
            damaged = bytearray(datagram)
            damaged[bit >> 3] ^= 1 << (bit & 7)
            datagram = bytes(damaged)
        if conditions.truncate and rng.random() < conditions.truncate:
            traffic.truncated += 1
            datagram = datagram[: rng.randrange(len(datagram))]
        return datagram
