"""What the tests of loss detection share: packets, ACK frames, a path with something on its way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stt_proto.recovery import Ranges, Recovery, SentPacket

DATAGRAM = 1200
MAX_ACK_DELAY = 0.025


def to_ranges(numbers: Iterable[int], most: int = 64) -> Ranges:
    """The ranges of an ACK frame, newest first."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers, reverse=True):
        if ranges and ranges[-1][0] == number + 1:
            ranges[-1] = number, ranges[-1][1]
        else:
            ranges.append((number, number))
    return tuple(ranges[:most])


def packet(number: int, now: float, size: int = DATAGRAM, **more: Any) -> SentPacket:
    eliciting = more.pop("eliciting", True)
    return SentPacket(number, now, size, more.pop("segments", 1), eliciting, more.pop("in_flight", True), (), **more)


def path(sent: Sequence[float] = (), **options: Any) -> Recovery:
    """A path on which packets 0, 1, ... were sent at these times."""
    recovery = Recovery(DATAGRAM, max_ack_delay=MAX_ACK_DELAY, **options)
    for number, now in enumerate(sent):
        recovery.on_sent(packet(number, now))
    return recovery


def acknowledge(recovery: Recovery, numbers: Iterable[int], now: float, **options: Any) -> tuple[list[int], list[int]]:
    """What one ACK of these numbers settles: newly acknowledged, lost."""
    acked, lost = recovery.on_ack(to_ranges(numbers), options.pop("delay", 0.0), now, **options)
    return [p.number for p in acked], [p.number for p in lost]
