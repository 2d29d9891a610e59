"""No congestion control: for carriers that lose nothing, whose own transport has it (docs/protocol.md, R-17)."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from stt_proto.recovery.congestion.base import PathState
from stt_proto.recovery.sent import SentPacket

MOST_IN_FLIGHT = 32 << 20
"""Bytes on their way at most. Twice what a session's credit grows to by default, so that credit and the room of the
carrier decide; but what no credit counts, and a peer that acknowledges nothing, meet a bound."""


class Uncongested:
    """A window that never changes.

    Attributes:
        window: bytes that may be in flight.
        ssthresh: always `inf`.
        pacing_rate: always `None`.
    """

    __slots__ = ("pacing_rate", "ssthresh", "window")

    def __init__(self) -> None:
        self.window: float = MOST_IN_FLIGHT
        self.ssthresh = inf
        self.pacing_rate: float | None = None

    def on_sent(self, packet: SentPacket, path: PathState) -> None:
        """Changes nothing; nor do the others."""

    def on_acked(self, packets: Sequence[SentPacket], now: float, sample: float | None, path: PathState) -> None: ...

    def on_lost(self, packets: Sequence[SentPacket], now: float, persistent: bool, path: PathState) -> None: ...

    def on_congestion_mark(self, sent_time: float, now: float, path: PathState) -> None: ...

    def set_max_datagram_size(self, size: int) -> None: ...
