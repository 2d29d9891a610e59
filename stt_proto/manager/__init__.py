"""Records and policy of sessions: how long they live, what they are at, how many there may be, who shares what.

    manager = SessionManager(now=0.0, unix_time=1.7e9)
    manager.create_session(session_id, peer_node_id, now, namespace="tenant-a", config={"ttl": 600, "sliding": False})
    with manager.track_request(session_id, now):
        ...
    for record in manager.sweep(now):
        ...  # close the session that has this id

It knows ids and times, and no session: hosts tell it what happens and do what it says. docs/manager.md shows how.
"""

from __future__ import annotations

from stt_proto.manager.config import SessionConfig
from stt_proto.manager.drain import DrainStatus
from stt_proto.manager.limits import ManagerLimits
from stt_proto.manager.manager import SessionManager
from stt_proto.manager.metrics import ManagerMetrics, ManagerStats
from stt_proto.manager.namespaces import Namespace, namespace_key
from stt_proto.manager.pools import ContentAffinityPool, PoolStats
from stt_proto.manager.rate import TokenBucket
from stt_proto.manager.records import EndReason, SessionRecord
from stt_proto.manager.requests import RequestToken
from stt_proto.manager.store import MemoryStore, StoredEntry

__all__ = [
    "ContentAffinityPool",
    "DrainStatus",
    "EndReason",
    "ManagerLimits",
    "ManagerMetrics",
    "ManagerStats",
    "MemoryStore",
    "Namespace",
    "PoolStats",
    "RequestToken",
    "SessionConfig",
    "SessionManager",
    "SessionRecord",
    "StoredEntry",
    "TokenBucket",
    "namespace_key",
]
