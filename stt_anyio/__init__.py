"""STT for asyncio, trio and plain threads: the hosts of `stt_proto`.

    async with STTNode(shared_seed="correct horse", port=4433, server_mode=True) as node:
        async for packet in node.receive():
            print(packet.session_id.hex(), packet.data)

    async with STTNode(shared_seed="correct horse") as node:
        session = await node.connect_udp("192.0.2.1", 4433)
        stream = session.open_stream()
        await stream.send(b"hello")

`STTNode` runs on asyncio and on trio (through anyio), `BlockingNode` on neither. `stt_anyio.trio` has streams for
programs written against trio itself, `stt_anyio.memory` pairs of nodes without sockets, for tests.

Errors are here too, all under `SttError`. Two of them have names that Python has taken, so `import *` leaves them out:
`stt_anyio.ConnectionError` and `stt_anyio.ConnectionRefusedError`.
"""

from __future__ import annotations

from stt_anyio.affinity import ContentAffinityPool
from stt_anyio.attributes import SttAttribute
from stt_anyio.blocking import (
    BlockingNode,
    BlockingReconnectingClient,
    BlockingRequest,
    BlockingSession,
    BlockingSessionManager,
    BlockingStream,
)
from stt_anyio.carrier import Carrier, Port
from stt_anyio.config import NodeConfig
from stt_anyio.connectable import StreamConnectable
from stt_anyio.errors import (
    ArgumentError,
    AuthenticationError,
    ConfigError,
    ConnectionTimeoutError,
    DataExpiredError,
    EncryptionError,
    InvalidFrameError,
    NotSentError,
    OutcomeUnknownError,
    PoolMissError,
    ProtocolError,
    ProxyError,
    RateLimitedError,
    SessionClosedError,
    SessionError,
    SessionExpiredError,
    SessionNotFound,
    SessionResumptionError,
    SessionTimeoutError,
    ShuttingDownError,
    StateError,
    StoreDamagedError,
    StoreUnavailableError,
    StreamClosedError,
    StreamError,
    StreamIdConflict,
    SttError,
    TlsError,
    TooManyRequestsError,
    TooManySessionsError,
    TooManyStreamsError,
    UnreachableError,
    VersionConflictError,
    VersionError,
    WebSocketClosedError,
    WebSocketHandshakeError,
)
from stt_anyio.errors import (
    ConnectionError as ConnectionError,
)
from stt_anyio.errors import (
    ConnectionRefusedError as ConnectionRefusedError,
)
from stt_anyio.health import HealthMonitor
from stt_anyio.links import WebSocketTarget
from stt_anyio.node import STTNode
from stt_anyio.node_base import NodeStats, ReceivedPacket, TransportStats
from stt_anyio.pool import SessionPool
from stt_anyio.reconnecting import ReconnectingClient
from stt_anyio.requests import AnswerPolicy, Request, RequestRefused
from stt_anyio.session import Session, SessionDatagrams
from stt_anyio.session_manager import SessionManager
from stt_anyio.stream import Stream
from stt_anyio.udp import UdpCarrier
from stt_proto import (
    CarrierTraits,
    Identity,
    NetworkPath,
    Priority,
    ReconnectPolicy,
    SessionState,
    SessionStats,
    Ticket,
    TicketRefusal,
    Transmit,
)
from stt_proto.broadcast import BroadcastPolicy, BroadcastResult, Fate, Receipt, SlowReceiver
from stt_proto.health import HealthChanged, HealthPolicy, HealthReading

STTSession = Session
STTStream = Stream

__all__ = [
    "AnswerPolicy",
    "ArgumentError",
    "AuthenticationError",
    "BlockingNode",
    "BlockingReconnectingClient",
    "BlockingRequest",
    "BlockingSession",
    "BlockingSessionManager",
    "BlockingStream",
    "BroadcastPolicy",
    "BroadcastResult",
    "Carrier",
    "CarrierTraits",
    "ConfigError",
    "ConnectionTimeoutError",
    "ContentAffinityPool",
    "DataExpiredError",
    "EncryptionError",
    "Fate",
    "HealthChanged",
    "HealthMonitor",
    "HealthPolicy",
    "HealthReading",
    "Identity",
    "InvalidFrameError",
    "NetworkPath",
    "NodeConfig",
    "NodeStats",
    "NotSentError",
    "OutcomeUnknownError",
    "PoolMissError",
    "Port",
    "Priority",
    "ProtocolError",
    "ProxyError",
    "RateLimitedError",
    "Receipt",
    "ReceivedPacket",
    "ReconnectPolicy",
    "ReconnectingClient",
    "Request",
    "RequestRefused",
    "STTNode",
    "STTSession",
    "STTStream",
    "Session",
    "SessionClosedError",
    "SessionDatagrams",
    "SessionError",
    "SessionExpiredError",
    "SessionManager",
    "SessionNotFound",
    "SessionPool",
    "SessionResumptionError",
    "SessionState",
    "SessionStats",
    "SessionTimeoutError",
    "ShuttingDownError",
    "SlowReceiver",
    "StateError",
    "StoreDamagedError",
    "StoreUnavailableError",
    "Stream",
    "StreamClosedError",
    "StreamConnectable",
    "StreamError",
    "StreamIdConflict",
    "SttAttribute",
    "SttError",
    "Ticket",
    "TicketRefusal",
    "TlsError",
    "TooManyRequestsError",
    "TooManySessionsError",
    "TooManyStreamsError",
    "Transmit",
    "TransportStats",
    "UdpCarrier",
    "UnreachableError",
    "VersionConflictError",
    "VersionError",
    "WebSocketClosedError",
    "WebSocketHandshakeError",
    "WebSocketTarget",
]
