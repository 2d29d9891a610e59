"""Which path is the best? By kind, then by round trip (docs/protocol.md, M-8).

A carrier that may lose datagrams comes before one that loses none: there a lost packet holds up nobody else's bytes,
and a packet may be a train. Where something works already, another path must be clearly better to be worth a move.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from stt_proto.paths.path import Path

FASTER = 0.7
"""Share of the round trip of the active path below which another one of the same kind is worth a move."""
LEAST_GAIN = 0.01
"""Seconds of a round trip that a move has to gain."""
SETTLED = 10.0
"""Seconds after a move in which a shorter round trip is no reason for another (M-8)."""


def _rank(path: Path) -> tuple[bool, float]:
    """The better the smaller; what was never measured is taken for slow."""
    rtt = path.recovery.rtt
    return path.traits.reliable, rtt.smoothed if rtt.samples else inf


def best(paths: Iterable[Path]) -> Path | None:
    """The best of the validated paths among these; `None` when there is none."""
    return min((path for path in paths if path.validated), key=_rank, default=None)


def better(active: Path, paths: Iterable[Path], *, moved_for: float) -> Path | None:
    """A validated path that is clearly better than the active one.

    Args:
        active: the one in use.
        paths: the others.
        moved_for: seconds since the last move.
    """
    other = best(paths)
    if other is None:
        return None
    (reliable, rtt), (its_reliable, its_rtt) = _rank(active), _rank(other)
    if reliable is not its_reliable:
        return other if reliable else None
    held_back = active.recovery.max_ack_delay  # perhaps as part of what was measured there
    faster = its_rtt < min(FASTER * rtt, rtt - LEAST_GAIN - held_back)
    return other if moved_for >= SETTLED and faster and rtt < inf else None
