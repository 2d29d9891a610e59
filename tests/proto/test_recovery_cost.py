"""What an acknowledgement costs and what an idle path holds (docs/protocol.md, section 10)."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from stt_proto.recovery import AckTracker, Recovery, SentPacket
from tests.proto.lossy import DATAGRAM, MAX_ACK_DELAY, acknowledge, packet, path


class Watched(SentPacket):
    """A packet that counts how often somebody looks at its number or its index."""

    looks = 0
    _values: dict[str, int]

    def __init__(self, number: int) -> None:
        self._values = {}
        super().__init__(number, number / 1e5, DATAGRAM, 1, True, True)

    def _get(self, name: str) -> int:
        Watched.looks += 1
        return self._values[name]

    number = property(lambda self: self._get("number"), lambda self, value: self._values.update(number=value))  # type: ignore[assignment]
    index = property(lambda self: self._get("index"), lambda self, value: self._values.update(index=value))  # type: ignore[assignment]


class WatchedRanges(tuple[tuple[int, int], ...]):
    """Ranges that count how often somebody takes one out."""

    __slots__ = ()
    looks = 0

    def __getitem__(self, key: Any) -> Any:
        WatchedRanges.looks += 1
        return super().__getitem__(key)


@pytest.mark.parametrize("in_flight", [10, 1_000, 10_000])
def test_an_ack_costs_what_it_settles(in_flight: int) -> None:
    """Neither what is in flight nor what was acknowledged long ago is looked at again."""
    recovery = path()
    for number in range(in_flight + 400):
        recovery.on_sent(Watched(number))
        if number >= in_flight:
            Watched.looks = WatchedRanges.looks = 0
            newest = number - in_flight
            # Sixty ranges of old, and one with everything that our packets lie in.
            ranges = WatchedRanges([(0, newest), *((-n, -n) for n in range(2, 122, 2))])
            acked, lost = recovery.on_ack(ranges, 0.0, number / 1e5)
            assert len(acked) == 1
            assert not lost
            assert Watched.looks <= 12
            assert WatchedRanges.looks <= 4


@pytest.mark.parametrize("in_flight", [10, 1_000, 10_000])
def test_an_ack_for_another_path_costs_little(in_flight: int) -> None:
    """Small ranges above, between and below what is outstanding here."""
    recovery = path()
    for number in range(in_flight):
        recovery.on_sent(Watched(10 * number))
    top = 10 * in_flight
    for ranges in (
        ((top + 1, top + 2),),
        ((top + 1, top + 2), (11, 19)),
        ((top + 1, top + 2), (11, 19), (1, 9)),
    ):
        Watched.looks = 0
        assert recovery.on_ack(ranges, 0.0, 1.0) == ([], [])
        assert Watched.looks <= 2 + 16 * len(ranges)


def test_losses_are_looked_at_once() -> None:
    """An ACK with a hole below costs the hole, once."""
    recovery = path()
    for number in range(5_000):
        recovery.on_sent(Watched(number))
    acknowledge(recovery, [1_000], 0.02)
    Watched.looks = 0
    for number in range(1_001, 1_101):
        assert acknowledge(recovery, range(1_000, number + 1), 0.021)[1] in ([], [998], [999])
    assert Watched.looks <= 100 * 16


@pytest.mark.parametrize("used", [False, True])
def test_an_idle_path_is_small(used: bool) -> None:
    """Under 2 KiB for both halves, also after a burst."""

    def make(number: int) -> tuple[Recovery, AckTracker]:
        recovery, acks = Recovery(DATAGRAM, initial_rtt=0.03 + number / 1e6), AckTracker(MAX_ACK_DELAY)
        if used:
            for sent in range(300):
                recovery.on_sent(packet(sent, number + sent / 1e4))
                acks.on_packet(sent, 1, True, number + sent / 1e4)
            for acked in range(0, 300, 2):
                recovery.on_ack(((0, acked + 1),), 0.001, number + 0.1 + acked / 1e4)
            acks.take(number + 1.0)
        return recovery, acks

    made = [make(0)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made += [make(number) for number in range(1, 101)]
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert (after - before) / 100 < 1.5 * 1024
    assert all(recovery.bytes_in_flight == 0 for recovery, _ in made)
