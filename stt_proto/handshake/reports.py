"""Which failed attempts the host is told of: one a second from each source (docs/protocol.md, H-32).

Anybody can fail as often as he likes, and a host that writes a line for each would be the weaker of the two.
"""

from __future__ import annotations

from collections import OrderedDict

from stt_proto.types import NetworkPath, Source, source_of

INTERVAL = 1.0
"""Seconds between two reports of one source."""


class FailureReports:
    """The sources of which the host was told lately.

    Args:
        sources: how many are remembered; beyond, the longest unheard is forgotten.
    """

    __slots__ = ("_limit", "_told")

    def __init__(self, sources: int) -> None:
        self._limit = sources
        self._told: OrderedDict[Source, float] = OrderedDict()

    def __len__(self) -> int:
        """Sources remembered."""
        return len(self._told)

    def is_due(self, path: NetworkPath, now: float) -> bool:
        """Whether a failure on this path, now, is to be told; asking counts as telling."""
        source = source_of(path)
        last = self._told.get(source)
        if last is not None and now - last < INTERVAL:
            return False
        self._told[source] = now
        self._told.move_to_end(source)
        if len(self._told) > self._limit:
            self._told.popitem(last=False)
        return True
