"""The RTT estimator: R-3, R-4, R-5, R-6 of docs/protocol.md; RFC 9002, section 5."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.errors import ArgumentError
from stt_proto.recovery import GRANULARITY, INITIAL_RTT, RttEstimator

times = st.floats(min_value=0.0, max_value=10.0)


def test_before_the_first_sample() -> None:
    """R-6: 100 ms, or what the handshake measured."""
    rtt = RttEstimator()
    assert (rtt.smoothed, rtt.rttvar, rtt.samples, rtt.first_sample_at) == (0.1, 0.05, 0, inf)
    assert INITIAL_RTT == 0.1
    assert RttEstimator(0.03).smoothed == 0.03
    assert RttEstimator(0.03).timeout(0.025) == pytest.approx(0.03 + 4 * 0.015 + 0.025)


def test_the_first_sample_replaces_the_guess() -> None:
    """RFC 9002, 5.3: smoothed = sample, rttvar = half of it; the peer's delay is not taken off the first."""
    rtt = RttEstimator(0.5)
    rtt.update(0.08, 0.02, now=7.0)
    assert (rtt.latest, rtt.minimum, rtt.smoothed, rtt.rttvar) == (0.08, 0.08, 0.08, 0.04)
    assert (rtt.first_sample_at, rtt.samples) == (7.0, 1)


def test_the_variation_is_taken_against_the_old_smoothed_rtt() -> None:
    """R-3: neither against the minimum nor against the smoothed RTT that this sample makes."""
    rtt = RttEstimator()
    rtt.update(0.100, 0.0, 1.0)
    rtt.update(0.180, 0.0, 2.0)
    assert rtt.rttvar == pytest.approx(0.75 * 0.050 + 0.25 * 0.080)
    assert rtt.smoothed == pytest.approx(0.110)
    rtt.update(0.100, 0.0, 3.0)
    assert rtt.rttvar == pytest.approx(0.75 * 0.0575 + 0.25 * 0.010)
    assert rtt.smoothed == pytest.approx(0.10875)


def test_the_delay_of_the_peer_is_taken_off() -> None:
    """R-3, and never below the minimum, which itself ignores the delay."""
    rtt = RttEstimator()
    rtt.update(0.5, 0.0, 1.0)
    rtt.update(0.75, 0.25, 2.0)  # exactly down to the minimum
    assert rtt.smoothed == 0.5
    rtt.update(0.75, 0.26, 3.0)  # below: not believed
    assert rtt.smoothed == 0.875 * 0.5 + 0.125 * 0.75
    rtt.update(0.25, 0.5, 4.0)
    assert rtt.minimum == rtt.latest == 0.25


def test_the_minimum_starts_anew() -> None:
    """RFC 9002, 5.2: after persistent congestion the minimum is the newest sample."""
    rtt = RttEstimator()
    for sample in (0.050, 0.200):
        rtt.update(sample, 0.0, 1.0)
    rtt.restart_minimum()
    assert rtt.minimum == 0.200


def test_delays_have_a_floor() -> None:
    """R-4, R-5: nothing is timed closer than a millisecond."""
    rtt = RttEstimator()
    for _ in range(200):
        rtt.update(0.0, 0.0, 1.0)
    assert rtt.smoothed == 0.0
    assert rtt.loss_delay == GRANULARITY == 0.001
    assert rtt.timeout(0.0) == GRANULARITY


def test_loss_delay() -> None:
    """R-4: 9/8 of the larger of smoothed and latest."""
    rtt = RttEstimator()
    rtt.update(0.080, 0.0, 1.0)
    rtt.update(0.160, 0.0, 1.0)
    assert rtt.loss_delay == pytest.approx(9 / 8 * 0.160)
    rtt.update(0.080, 0.0, 1.0)
    assert rtt.loss_delay == pytest.approx(9 / 8 * rtt.smoothed)


@given(st.lists(st.tuples(times, times), min_size=1))
def test_it_stays_within_what_was_measured(samples: list[tuple[float, float]]) -> None:
    """R-3: the smoothed RTT lies between the smallest and the largest sample, whatever delays a peer claims."""
    rtt = RttEstimator()
    for now, (sample, delay) in enumerate(samples):
        rtt.update(sample, delay, now)
    low, high = min(s for s, _ in samples), max(s for s, _ in samples)
    assert rtt.minimum == low
    assert low - 1e-9 <= rtt.smoothed <= high + 1e-9
    assert 0 <= rtt.rttvar <= high + 1e-9


@pytest.mark.parametrize("initial", [-0.001, inf, nan])
def test_an_initial_rtt_is_a_time(initial: float) -> None:
    with pytest.raises(ArgumentError) as caught:
        RttEstimator(initial)
    assert caught.value.argument == "initial"
