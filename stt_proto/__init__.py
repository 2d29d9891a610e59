"""STT: secure sessions as a pure state machine. No I/O, no clock, no randomness of its own.

    endpoint = Endpoint(Config(identity=..., shared_seed=...), now=0.0, unix_time=1.7e9, entropy=os.urandom)

Bytes, time and commands go in; bytes, events and the next deadline come out. `stt_anyio` binds it to asyncio, trio and
plain sockets; docs/integrating.md shows how to bind it to anything else.
"""

from __future__ import annotations

from stt_proto import errors, events
from stt_proto.config import CARRIERS, Config, Limits
from stt_proto.endpoint import Endpoint
from stt_proto.events import Event
from stt_proto.handshake import UsedTickets
from stt_proto.identity import Identity
from stt_proto.reconnect import ReconnectPolicy
from stt_proto.recovery import CongestionController, ControllerFactory, PathState, RttEstimator, SentPacket
from stt_proto.session import KeyLog, Session, SessionStats, Stream, Trace, TracedFrame, TracedSession
from stt_proto.streams import Priority
from stt_proto.tickets import Ticket, TicketRefusal
from stt_proto.types import (
    CarrierTraits,
    CloseReason,
    Deadline,
    EndpointCounters,
    HandshakeStep,
    NetworkPath,
    PathInfo,
    PathStatus,
    SessionState,
    Stray,
    Transmit,
)
from stt_proto.workers import WorkerIds

__all__ = [
    "CARRIERS",
    "CarrierTraits",
    "CloseReason",
    "Config",
    "CongestionController",
    "ControllerFactory",
    "Deadline",
    "Endpoint",
    "EndpointCounters",
    "Event",
    "HandshakeStep",
    "Identity",
    "KeyLog",
    "Limits",
    "NetworkPath",
    "PathInfo",
    "PathState",
    "PathStatus",
    "Priority",
    "ReconnectPolicy",
    "RttEstimator",
    "SentPacket",
    "Session",
    "SessionState",
    "SessionStats",
    "Stray",
    "Stream",
    "Ticket",
    "TicketRefusal",
    "Trace",
    "TracedFrame",
    "TracedSession",
    "Transmit",
    "UsedTickets",
    "WorkerIds",
    "errors",
    "events",
]
