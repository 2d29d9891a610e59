"""Acknowledgement, loss and congestion (RFC 9002; docs/protocol.md, section 10).

Two halves that meet only on the wire: `AckTracker` says what arrived, one for a session; `Recovery` learns what of the
sent packets did, one for a path, and with its `CongestionController` and `Pacer` decides how much may be sent and
when. Nothing here knows what a packet holds.
"""

from __future__ import annotations

from stt_proto.recovery.ack_rate import AckRate
from stt_proto.recovery.acks import DELAY_UNITS, AckTracker, Ranges
from stt_proto.recovery.congestion import (
    CONTROLLERS,
    Bbr,
    CongestionController,
    ControllerFactory,
    Cubic,
    GuardedController,
    NewReno,
    PathState,
    make_controller,
)
from stt_proto.recovery.loss import Recovery
from stt_proto.recovery.pacer import Pacer
from stt_proto.recovery.rtt import GRANULARITY, INITIAL_RTT, LONGEST_RTT, RttEstimator
from stt_proto.recovery.sent import SentPacket
from stt_proto.recovery.stats import RecoveryStats

__all__ = [
    "CONTROLLERS",
    "DELAY_UNITS",
    "GRANULARITY",
    "INITIAL_RTT",
    "LONGEST_RTT",
    "AckRate",
    "AckTracker",
    "Bbr",
    "CongestionController",
    "ControllerFactory",
    "Cubic",
    "GuardedController",
    "NewReno",
    "Pacer",
    "PathState",
    "Ranges",
    "Recovery",
    "RecoveryStats",
    "RttEstimator",
    "SentPacket",
    "make_controller",
]
