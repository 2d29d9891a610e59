"""HyStart++ (RFC 9406; docs/protocol.md, R-13)."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.recovery import Recovery
from stt_proto.recovery.congestion.hystart import HyStart
from tests.proto.bottleneck import DATAGRAM, Bottleneck
from tests.proto.walks import walks

FLIGHT = 10


class Flight:
    """Rounds of ten packets, each acknowledged by itself."""

    def __init__(self) -> None:
        self.hystart = HyStart()
        self.acked = -1

    def ack(self, sample: float | None) -> bool:
        """Acknowledge the next packet; a flight more has been sent by then."""
        self.acked += 1
        return self.hystart.on_acked(self.acked, (self.acked // FLIGHT + 1) * FLIGHT, sample)

    def round(self, *samples: float | None) -> bool:
        """Acknowledge a flight with these samples, the last of them repeated; tell whether slow start is over."""
        assert self.acked % FLIGHT == FLIGHT - 1
        wanted = [*samples, *[samples[-1]] * (FLIGHT - len(samples))]
        return True in [self.ack(sample) for sample in wanted]


@pytest.mark.parametrize(
    ("rtt", "rise"),
    [
        (0.020, 0.004),  # an eighth would be 2.5 ms: at least 4
        (0.100, 0.0125),
        (0.400, 0.016),  # an eighth would be 50 ms: at most 16
    ],
)
def test_how_much_longer_is_longer(rtt: float, rise: float) -> None:
    """RFC 9406, 4.2: an eighth of the round trip, from 4 to 16 ms."""
    flight = Flight()
    flight.round(rtt)
    flight.round(rtt + rise - 1e-6)
    assert flight.hystart.divisor == 1
    flight = Flight()
    flight.round(rtt)
    flight.round(rtt + rise + 1e-9)
    assert flight.hystart.divisor == 4


def test_just_as_much_longer_is_longer() -> None:
    """RFC 9406, 4.2: "currentRoundMinRTT >= (lastRoundMinRTT + RttThresh)", in numbers that a float holds exactly."""
    flight = Flight()
    flight.round(0.0625)
    flight.round(0.0625 + 0.0078125)
    assert flight.hystart.divisor == 4


def test_eight_samples_are_needed() -> None:
    flight = Flight()
    flight.round(0.1)
    for _ in range(7):
        flight.ack(0.2)
    assert flight.hystart.divisor == 1
    flight.ack(None)  # it gave no sample, and does not count
    assert flight.hystart.divisor == 1
    flight.ack(0.2)
    assert flight.hystart.divisor == 4


def test_the_shortest_of_a_round_counts() -> None:
    flight = Flight()
    flight.round(0.5, 0.1, 0.5)
    flight.round(0.5, 0.11, 0.5)
    assert flight.hystart.divisor == 1
    flight.round(0.13)
    assert flight.hystart.divisor == 4


def test_a_round_without_samples_says_nothing() -> None:
    flight = Flight()
    flight.round(0.1)
    flight.round(None)
    flight.round(0.2)
    flight.round(0.2)
    assert flight.hystart.divisor == 1


def test_slow_start_is_over_after_five_cautious_rounds() -> None:
    """RFC 9406, 4.2: the round in which caution began is the first of them."""
    flight = Flight()
    flight.round(0.1)
    for _ in range(5):
        assert flight.round(0.2) is False
        assert flight.hystart.divisor == 4
    assert flight.ack(0.2) is True


def test_jitter_ends_no_slow_start() -> None:
    """RFC 9406, 4.2: the round trip shrinks below the one that made us cautious, so that it goes on as before."""
    flight = Flight()
    flight.round(0.1)
    flight.round(0.2)
    flight.round(0.19, 0.3)
    assert flight.hystart.divisor == 1
    for _ in range(10):
        assert flight.round(0.19) is False
    flight.round(0.3)
    assert flight.hystart.divisor == 4


def test_slow_start_ends_before_the_queue_overflows() -> None:
    """R-13: where the queue holds some round trips, nothing is lost in the first slow start."""
    lost: dict[str, int] = {}
    for name in ("newreno", "cubic"):
        link = Bottleneck(1.25e6, 0.1, queue=16 * 125_000, congestion=name)
        link.run_until(lambda link=link: link.recovery.controller.window >= link.recovery.controller.ssthresh)  # type: ignore[misc]
        lost[name] = link.overflows
        if name == "cubic":
            assert link.recovery.controller.window > 125_000, "and the link is full"
            assert link.recovery.controller.ssthresh < 16 * 125_000
    assert lost["cubic"] == 0 < lost["newreno"]


samples = st.one_of(st.none(), st.floats(0.0, 10.0))


@given(walks(st.tuples(st.integers(0, 3), st.integers(0, 30), samples), 100))
def test_any_order(steps: Iterable[tuple[int, int, float | None]]) -> None:
    """Whatever is acknowledged, it is cautious or not, and slow start ends in caution only."""
    hystart = HyStart()
    newest = sent = 0
    for more, flight, sample in steps:
        sent += flight
        newest = min(newest + more, sent)
        over = hystart.on_acked(newest, sent + 1, sample)
        assert hystart.divisor in (1, 4)
        assert not over or hystart.divisor == 4


def test_only_the_first_slow_start_has_it() -> None:
    """RFC 9406, 4.3: not the one after persistent congestion."""
    recovery = Recovery(DATAGRAM, congestion="cubic")
    controller = recovery.controller
    assert controller._hystart is not None  # type: ignore[attr-defined]
    link = Bottleneck(1.25e6, 0.1, queue=50_000, congestion="cubic")
    link.run_until(lambda: link.recovery.packets_lost)
    assert link.recovery.controller._hystart is None  # type: ignore[attr-defined]
