"""What is counted while packets come in: the only trace that what does not open may leave (docs/protocol.md, P-8)."""

from __future__ import annotations

from attrs import define

__all__ = ["PacketCounters"]


@define
class PacketCounters:
    """What happened to datagrams that gave no packet (P-8), and to trains (P-10).

    Attributes:
        malformed: too short, of the wrong form, reserved bits set, or a shape no train can have.
        unknown_epoch: of a key version that is not, or no longer, known.
        replayed: of a number opened before, or too old to tell.
        forged: complete packets that did not open, trains included (P-11).
        trains_failed: how often a train was complete and did not open (P-10).
        trains_expired: trains that stayed incomplete for too long.
        trains_evicted: incomplete trains that made room for others (P-10).
        segments_refused: segments where trains do not count: before the path is validated, after the session closed.
        segments_repeated: segments, or runs of them, that were held already or are of a train that is finished.
    """

    malformed: int = 0
    unknown_epoch: int = 0
    replayed: int = 0
    forged: int = 0
    trains_failed: int = 0
    trains_expired: int = 0
    trains_evicted: int = 0
    segments_refused: int = 0
    segments_repeated: int = 0
