"""Round-trip times of one path (RFC 9002, section 5; docs/protocol.md, R-3, R-4, R-6).

Everything here is in seconds. The estimator knows no packet: whoever feeds it decides what is a sample.
"""

from __future__ import annotations

from math import inf

from stt_proto.errors import ArgumentError

GRANULARITY = 0.001
"""The smallest delay that a timer is trusted with (RFC 9002, kGranularity)."""

INITIAL_RTT = 0.1
"""The round trip assumed before anything was measured."""

LONGEST_RTT = 10.0
"""Seconds; what took longer is no round trip. It was this host that slept, or its clock that leapt."""


class RttEstimator:
    """Smoothed RTT and its variation.

    Args:
        initial: what the RTT is taken for before the first sample; at least 0.

    Attributes:
        latest: the last sample.
        minimum: the smallest sample, since the last `restart_minimum`.
        smoothed: the smoothed RTT.
        rttvar: the mean deviation of samples from it.
        first_sample_at: when the first sample was taken, `inf` before.
        samples: how many were taken.

    Raises:
        ArgumentError: `initial` is no time.
    """

    __slots__ = ("first_sample_at", "latest", "minimum", "rttvar", "samples", "smoothed")

    def __init__(self, initial: float = INITIAL_RTT) -> None:
        if not 0 <= initial < inf:
            raise ArgumentError(f"initial must be a time of at least 0 s, not {initial!r}", argument="initial")
        self.latest = self.minimum = self.smoothed = initial
        self.rttvar = initial / 2
        self.first_sample_at = inf
        self.samples = 0

    def update(self, sample: float, ack_delay: float, now: float) -> None:
        """Take in a sample.

        Args:
            sample: from the sending of a packet to its acknowledgement. One above `LONGEST_RTT` says nothing of the
                path, and is ignored (R-3).
            ack_delay: the part of it that the peer says it waited, already capped by what it promised. It is not
                believed where the rest would be shorter than the shortest round trip.
            now: the time of the acknowledgement.
        """
        if sample > LONGEST_RTT:
            return
        self.latest = sample
        self.samples += 1
        if self.samples == 1:
            self.minimum = self.smoothed = sample
            self.rttvar = sample / 2
            self.first_sample_at = now
            return
        if sample < self.minimum:
            self.minimum = sample
        elif sample >= self.minimum + ack_delay:
            sample -= ack_delay
        smoothed = self.smoothed
        # The variation is taken against the smoothed RTT as it was.
        self.rttvar = 0.75 * self.rttvar + 0.25 * abs(smoothed - sample)
        self.smoothed = 0.875 * smoothed + 0.125 * sample

    def restart_minimum(self) -> None:
        """Forget the minimum but for the last sample: after persistent congestion the path may be another."""
        self.minimum = self.latest

    @property
    def loss_delay(self) -> float:
        """How much earlier than now a packet was sent that a later acknowledged one proves lost."""
        delay = 1.125 * (self.smoothed if self.smoothed > self.latest else self.latest)
        return delay if delay > GRANULARITY else GRANULARITY

    def timeout(self, max_ack_delay: float) -> float:
        """The time within which an acknowledgement is to be expected: PTO without back-off (RFC 9002, 6.2.1)."""
        spread = 4 * self.rttvar
        return self.smoothed + (spread if spread > GRANULARITY else GRANULARITY) + max_ack_delay
