"""How much the manager holds."""

from __future__ import annotations

from typing import Any

from attrs import Attribute, field, frozen

from stt_proto.manager.checks import MAX_SECONDS, check_number, check_whole
from stt_proto.manager.config import LEVELS
from stt_proto.manager.metadata import MAX_METADATA_BYTES, MAX_METADATA_ENTRIES

_ORDINARY = 3


def _whole(low: int, high: int) -> Any:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        check_whole(attribute.name, value, low, high)

    return check


def _seconds(_: Any, attribute: Attribute[Any], value: Any) -> None:
    check_number(attribute.name, value, 0.0, MAX_SECONDS)


@frozen(kw_only=True)
class ManagerLimits:
    """Bounds of a manager. What is one too many is refused by an error that says so, and changes nothing.

    A session has its place until it is closed and the last of its requests has ended.

    Attributes:
        sessions: sessions in all.
        sessions_per_peer: sessions of one peer.
        sessions_per_namespace: sessions of one namespace.
        requests: requests in flight in all sessions. Those of priority 4 to 7 may be begun only while fewer than 7/8,
            6/8, 5/8 and 4/8 of these are, so that the more urgent ones find room when there is much to do.
        closed_sessions: sessions that are over and remembered, with the reason; the oldest is forgotten first.
        closed_retention: seconds that they are remembered.
        metadata_entries: entries of the metadata of a session.
        metadata_bytes: bytes of it, keys and values together.

    Raises:
        ArgumentError: names the parameter, the value and the allowed range.
    """

    sessions: int = field(default=100_000, validator=_whole(1, 1 << 24))
    sessions_per_peer: int = field(default=1_000, validator=_whole(1, 1 << 24))
    sessions_per_namespace: int = field(default=100_000, validator=_whole(1, 1 << 24))
    requests: int = field(default=1_000_000, validator=_whole(1, 1 << 32))
    closed_sessions: int = field(default=10_000, validator=_whole(0, 1 << 24))
    closed_retention: float = field(default=300.0, validator=_seconds)
    metadata_entries: int = field(default=64, validator=_whole(0, MAX_METADATA_ENTRIES))
    metadata_bytes: int = field(default=4096, validator=_whole(0, MAX_METADATA_BYTES))

    def requests_at(self, priority: int) -> int:
        """Requests in all sessions below which one of this priority may be begun."""
        return self.requests * (LEVELS - max(priority - _ORDINARY, 0)) // LEVELS or 1
