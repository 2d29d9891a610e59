"""What a manager counts, and what it says of it. The numbers always add up."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from attrs import frozen

from stt_proto.manager.records import EndReason

REFUSALS = ("sessions", "peer", "namespace", "shutdown", "requests", "requests_in_all", "rate")
"""What can be refused for: a limit on sessions (in all, of a peer, of a namespace), a shutdown, a limit on requests (of
a session, in all), a rate."""


@frozen(kw_only=True)
class ManagerStats:
    """How many sessions are held; a snapshot.

    Attributes:
        total: all of them: `active + closing + closed`.
        active: that can be used.
        closing: that are at their last work, or about to be swept.
        closed: that are over and not forgotten.
    """

    total: int
    active: int
    closing: int
    closed: int


@frozen(kw_only=True)
class ManagerMetrics:
    """What happened since the manager was made; a snapshot.

    Always `created == active + closing + sum(ended.values())`, and `requests_begun == requests_ended +
    requests_in_flight`.

    Attributes:
        created: sessions that began here, those that were restored among them.
        restored: sessions that came from a record.
        active: sessions that can be used.
        closing: sessions that are at their last work, or about to be swept.
        ended: sessions that are over, by reason; each counts once.
        forgotten: of those, how many are no longer remembered.
        requests_begun: requests.
        requests_ended: requests.
        requests_failed: of those, how many ended by an exception.
        requests_in_flight: requests of all sessions, those that are over among them.
        streams: streams that are open.
        refused: what was refused, by limit (`REFUSALS`).
    """

    created: int
    restored: int
    active: int
    closing: int
    ended: Mapping[EndReason, int]
    forgotten: int
    requests_begun: int
    requests_ended: int
    requests_failed: int
    requests_in_flight: int
    streams: int
    refused: Mapping[str, int]


class Counters:
    """The numbers behind them."""

    __slots__ = (
        "active", "closing", "created", "ended", "forgotten", "refused", "requests_begun", "requests_ended",
        "requests_failed", "restored", "streams",
    )  # fmt: skip

    def __init__(self) -> None:
        self.created = self.restored = self.active = self.closing = self.forgotten = self.streams = 0
        self.requests_begun = self.requests_ended = self.requests_failed = 0
        self.ended = dict.fromkeys(EndReason, 0)
        self.refused = dict.fromkeys(REFUSALS, 0)

    @property
    def requests_in_flight(self) -> int:
        """Begun and not ended."""
        return self.requests_begun - self.requests_ended

    def metrics(self, streams: int) -> ManagerMetrics:
        """A snapshot, with as many streams open."""
        return ManagerMetrics(
            created=self.created,
            restored=self.restored,
            active=self.active,
            closing=self.closing,
            ended=MappingProxyType(dict(self.ended)),
            forgotten=self.forgotten,
            requests_begun=self.requests_begun,
            requests_ended=self.requests_ended,
            requests_failed=self.requests_failed,
            requests_in_flight=self.requests_in_flight,
            streams=streams,
            refused=MappingProxyType(dict(self.refused)),
        )
