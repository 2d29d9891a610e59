"""What one path has done, as a value."""

from __future__ import annotations

from attrs import frozen


@frozen
class RecoveryStats:
    """A snapshot of one path; times in seconds, sizes in bytes.

    Attributes:
        rtt_latest, rtt_smoothed, rtt_minimum: `None` before the first sample.
        rttvar: the mean deviation of the RTT.
        window: what may be in flight.
        ssthresh: below it is slow start.
        pacing_rate: in a second; `None` when only the window limits.
        bytes_in_flight: what is.
        bytes_delivered, bytes_lost: settled so far.
        packets_sent, packets_acked, packets_lost: packets that elicit or fill the window; the sent ones that are
            neither acknowledged nor lost are on their way, or were discarded. Lost probes of the MTU count as sent.
        datagram_loss: smoothed share of datagrams lost.
        pto_count: timeouts since the last answer.
        congestion_fault: what a congestion controller that is not ours did wrong, so that the default took its place.
    """

    rtt_latest: float | None
    rtt_smoothed: float | None
    rtt_minimum: float | None
    rttvar: float
    window: int
    ssthresh: float
    pacing_rate: float | None
    bytes_in_flight: int
    bytes_delivered: int
    bytes_lost: int
    packets_sent: int
    packets_acked: int
    packets_lost: int
    datagram_loss: float
    pto_count: int
    congestion_fault: str | None
