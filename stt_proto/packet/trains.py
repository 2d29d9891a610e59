"""Packet trains: one packet in many datagrams (docs/protocol.md, P-1, P-4 and P-9).

Where the system segments and coalesces (UDP_SEGMENT, UDP_GRO) a whole train leaves and arrives in one buffer, and is
cut and joined here by a few calls that run in C, with next to no work in Python for each segment. What arrives in
pieces is collected in a table.

That table is filled before anything is authenticated, so it is built for the worst. A train costs what was received of
it and nothing for what its header announces. The newest copy of a segment replaces an older one, and one that does not
fit to what is held makes it forgotten: whoever injects segments can spoil a train, but no state that he leaves behind
can spoil an undamaged copy that comes after it. A train that failed to open is not remembered, for the same reason.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import takewhile
from math import inf
from operator import eq
from struct import Struct

from attrs import define

from stt_proto.types import NetworkPath
from stt_proto.wire.header import MAX_TRAIN, TRAIN_HEADER

__all__ = [
    "FINISHED_KEPT",
    "PIECE_COST",
    "PREFIX",
    "PacketCounters",
    "Train",
    "TrainBudget",
    "TrainReassembler",
    "cut_train",
    "read_run",
    "segment_layout",
]

PREFIX = Struct(">13sBB")
"""What all segments of a train have in common, masked as it is; the segment index; the last index."""

PIECE_COST = 100
"""Bytes charged for a kept segment beyond its ciphertext: the object around it and its place in the table."""
FINISHED_KEPT = 256
"""Finished trains that are recognised."""

_CONGESTION_EXPERIENCED = 3
_MIN_PIECE = 16
"""Bytes of ciphertext that all segments but the last hold at least: segment 0 carries the sample for the mask."""


@lru_cache(maxsize=64)
def _row_layout(count: int, size: int) -> Struct:
    """So many pieces of one size, one after the other."""
    return Struct(f"{size}s" * count)


@lru_cache(maxsize=64)
def _run_layout(count: int, size: int) -> Struct:
    """So many segments of one size: header and piece of each."""
    return Struct(f"{TRAIN_HEADER}s{size - TRAIN_HEADER}s" * count)


@lru_cache(maxsize=64)
def segment_layout(size: int) -> Struct:
    """One segment: prefix, index, last index, piece."""
    return Struct(f">13sBB{size - TRAIN_HEADER}s")


@lru_cache(maxsize=64)
def _header_ends(last: int) -> tuple[bytes, ...]:
    """Segment index and last index of each segment of a train."""
    return tuple(bytes((index, last)) for index in range(last + 1))


def cut_train(prefix: bytes, sealed: bytes, room: int, segments: int) -> tuple[bytes, ...]:
    """Cut a packet into segments.

    Args:
        prefix: the masked header, 13 bytes.
        sealed: the ciphertext.
        room: bytes of it in each segment but the last.
        segments: how many there will be, 2 to 64.

    Returns:
        The header and the piece of each segment, in order.
    """
    last = segments - 1
    headers = prefix.join((b"", *_header_ends(last)))
    buffers = [b""] * (2 * segments)
    buffers[::2] = _row_layout(segments, TRAIN_HEADER).unpack(headers)
    buffers[1:-1:2] = _row_layout(last, room).unpack_from(sealed)
    buffers[-1] = sealed[last * room :]
    return tuple(buffers)


def read_run(view: memoryview, start: int, end: int, size: int) -> tuple[bytes, int, int, tuple[bytes, ...], int]:
    """Read the segments of one train that lie one after the other, in order.

    Args:
        view: where the datagrams lie.
        start: the first segment.
        end: where the run of datagrams ends, at least `size` behind `start`.
        size: bytes of each datagram but perhaps the last of the run, at least 16.

    Returns:
        What the segments have in common, the index of the first, the last index of the train, their pieces, at least
        one and all of one length but perhaps that of the last index, and where they end.
    """
    prefix, index, last = PREFIX.unpack_from(view, start)
    count = max(1, min((end - start) // size, last + 1 - index))
    fields = _run_layout(count, size).unpack_from(view, start)
    headers, pieces = fields[::2], fields[1::2]
    ends = _header_ends(last)[index : index + count]
    if b"".join(headers) != prefix.join((b"", *ends)):
        expected = (prefix + end for end in ends[1:])
        count = 1 + sum(takewhile(bool, map(eq, headers[1:], expected)))
        pieces = pieces[:count]
    stop = start + count * size
    if index + count == last and stop + TRAIN_HEADER < end and PREFIX.unpack_from(view, stop) == (prefix, last, last):
        # Had it the length of the others it would be among them, so it is the end of the run.
        return prefix, index, last, (*pieces, bytes(view[stop + TRAIN_HEADER : end])), end
    return prefix, index, last, pieces, stop


@define
class PacketCounters:
    """What happened to datagrams that gave no packet (P-8), and to trains (P-10).

    Attributes:
        malformed: too short, of the wrong form, reserved bits set, or a shape no train can have.
        unknown_epoch: of a key version that is not, or no longer, known.
        replayed: of a number opened before, or too old to tell.
        forged: complete packets that did not open, trains included (P-11).
        trains_failed: trains that were complete and did not open (P-10).
        trains_expired: trains that stayed incomplete for too long.
        trains_evicted: incomplete trains that made room for others.
        segments_refused: segments on a path where trains do not count.
        segments_repeated: segments held already, or of a train that was finished.
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


TrainKey = tuple[bytes, int, NetworkPath]
"""Masked header, last index and path: what tells which segments belong together (P-4)."""


class Train:
    """An incomplete train.

    Attributes:
        prefix: the masked header that its segments share.
        last: its last index.
        path: where its segments come from.
        pieces: ciphertext by index.
        room: bytes of ciphertext of the segments before the last, 0 before one of them was seen.
        cost: bytes charged for it.
        started: when its first segment arrived.
        ecn: the ECN bits of the first segment, or 3 once any was marked.
        number: the full packet number, once segment 0 was seen.
        flags: the unmasked first byte, likewise.
    """

    __slots__ = ("cost", "ecn", "flags", "last", "number", "owner", "path", "pieces", "prefix", "room", "started")

    def __init__(
        self, owner: TrainReassembler, prefix: bytes, last: int, path: NetworkPath, started: float, ecn: int
    ) -> None:
        self.owner = owner
        self.prefix = prefix
        self.last = last
        self.path = path
        self.pieces: dict[int, bytes] = {}
        self.room = 0
        self.cost = 0
        self.started = started
        self.ecn = ecn
        self.number = -1
        self.flags = 0

    @property
    def key(self) -> TrainKey:
        """What its segments have in common."""
        return self.prefix, self.last, self.path

    def join(self) -> bytes:
        """Its ciphertext, once it is complete."""
        return b"".join(map(self.pieces.__getitem__, range(self.last + 1)))


class TrainBudget:
    """What the incomplete trains of all sessions of an endpoint may hold together; the oldest goes first.

    Attributes:
        limit: bytes.
        cost: bytes held now.
    """

    __slots__ = ("_trains", "cost", "limit")

    def __init__(self, limit: int = 64 << 20) -> None:
        self.limit = limit
        self.cost = 0
        self._trains: dict[Train, None] = {}

    def __len__(self) -> int:
        return len(self._trains)

    def admit(self, train: Train) -> None:
        """Take in a train that holds nothing yet."""
        self._trains[train] = None

    def release(self, train: Train) -> None:
        """Forget a train and what was charged for it."""
        del self._trains[train]
        self.cost -= train.cost

    def shrink(self) -> None:
        """Evict the oldest trains of whatever session until the rest is within the limit."""
        while self.cost > self.limit:
            train = next(iter(self._trains))
            train.owner.evict(train)


class TrainReassembler:
    """The incomplete trains of one session.

    Attributes:
        lifetime: seconds that a train may stay incomplete. The session keeps it at 3 PTO (P-9).
        cost: bytes held now, with `PIECE_COST` for each segment.
        counters: shared with the receiver.
    """

    __slots__ = (
        "_budget",
        "_finished",
        "_max_bytes",
        "_max_trains",
        "_recent",
        "_trains",
        "cost",
        "counters",
        "lifetime",
    )

    def __init__(
        self, budget: TrainBudget, counters: PacketCounters, *, max_trains: int = 32, max_bytes: int = 2 << 20
    ) -> None:
        self._budget = budget
        self._max_trains = max_trains
        self._max_bytes = max_bytes
        self._trains: dict[TrainKey, Train] = {}
        self._finished: dict[TrainKey, None] = {}
        self.counters = counters
        # The train that the last segment belonged to; the next one nearly always does as well.
        self._recent: Train | None = None
        self.lifetime = 1.0
        self.cost = 0

    def __len__(self) -> int:
        return len(self._trains)

    def find(self, prefix: bytes, last: int, path: NetworkPath, now: float, ecn: int) -> Train | None:
        """Give the train that a segment belongs to, a new one if need be; `None` when it was finished before."""
        train = self._recent
        if train is not None and train.prefix == prefix and train.last == last and train.path is path:
            return train
        key = (prefix, last, path)
        train = self._trains.get(key)
        if train is None:
            if key in self._finished:
                self.counters.segments_repeated += 1
                return None
            if len(self._trains) >= self._max_trains:
                self.evict(next(iter(self._trains.values())))
            train = self._trains[key] = Train(self, prefix, last, path, now, ecn)
            self._budget.admit(train)
        self._recent = train
        return train

    def add(self, train: Train, index: int, piece: bytes, ecn: int) -> bool:
        """Put a segment into its train.

        Args:
            train: what `find` gave.
            index: 0 to the last index.
            piece: its ciphertext, at least one byte; kept.
            ecn: the ECN bits of its datagram.

        Returns:
            Whether the train is complete now. It is still held; `finish` or `drop` it.
        """
        size = len(piece)
        if (size != train.room if index < train.last else size > train.room) and not self._fit(train, index, size):
            return False
        pieces = train.pieces
        cost = size + PIECE_COST
        if index in pieces:
            cost = size - len(pieces[index])
            self.counters.segments_repeated += 1
        pieces[index] = piece
        return self._charge(train, cost, ecn)

    def add_run(self, train: Train, index: int, new: tuple[bytes, ...], ecn: int) -> bool:
        """Put several segments into their train at once.

        Args:
            train: what `find` gave.
            index: of the first; the others follow it.
            new: their ciphertext, two or more, all of one length but perhaps that of the last index, which is shorter.
            ecn: the ECN bits of their datagrams.

        Returns:
            Whether the train is complete now, as for `add`.
        """
        size = len(new[0])
        if size != train.room and not self._fit(train, index, size):
            return False
        pieces = train.pieces
        held = len(pieces)
        pieces.update(enumerate(new, index))
        self.counters.segments_repeated += held + len(new) - len(pieces)
        return self._charge(train, sum(map(len, pieces.values())) + PIECE_COST * len(pieces) - train.cost, ecn)

    def _charge(self, train: Train, cost: int, ecn: int) -> bool:
        """Account for what a train holds now, make room for it, and tell whether it is complete."""
        if ecn == _CONGESTION_EXPERIENCED:
            train.ecn = ecn
        budget = self._budget
        train.cost += cost
        self.cost += cost
        budget.cost += cost
        if len(train.pieces) > train.last:
            return True
        while self.cost > self._max_bytes:
            self.evict(next(iter(self._trains.values())))
        if budget.cost > budget.limit:
            budget.shrink()
        return False

    def _fit(self, train: Train, index: int, size: int) -> bool:
        """Settle the length of a train's segments by a segment of another length than those seen; the newest counts.

        Returns:
            False when no train has segments of this length.
        """
        if index == train.last:
            if train.room:
                self._empty(train)
            return True
        if size < _MIN_PIECE or (size + TRAIN_HEADER) * train.last + TRAIN_HEADER >= MAX_TRAIN:
            self.counters.malformed += 1
            if not train.pieces:
                self.drop(train)
            return False
        tail = train.pieces.get(train.last, b"")
        if train.room or len(tail) > size:
            self._empty(train)
        train.room = size
        return True

    def _empty(self, train: Train) -> None:
        """Forget the segments of a train, which one that came now contradicts."""
        train.pieces.clear()
        train.room = 0
        self.cost -= train.cost
        self._budget.cost -= train.cost
        train.cost = 0

    def drop(self, train: Train) -> None:
        """Forget a train."""
        del self._trains[train.key]
        self._budget.release(train)
        self.cost -= train.cost
        train.pieces.clear()
        if self._recent is train:
            self._recent = None

    def evict(self, train: Train) -> None:
        """Forget a train to make room for others."""
        self.drop(train)
        self.counters.trains_evicted += 1

    def finish(self, key: TrainKey) -> None:
        """Remember a train that opened, so that its segments are recognised, and forget those that are held."""
        train = self._trains.get(key)
        if train is not None:
            self.drop(train)
        finished = self._finished
        finished[key] = None
        if len(finished) > FINISHED_KEPT:
            del finished[next(iter(finished))]

    @property
    def deadline(self) -> float:
        """When `expire` has something to do, `inf` when nothing is held."""
        for train in self._trains.values():
            return train.started + self.lifetime
        return inf

    def expire(self, now: float) -> None:
        """Forget the trains that stayed incomplete for their lifetime."""
        while self.deadline <= now:
            self.drop(next(iter(self._trains.values())))
            self.counters.trains_expired += 1

    def close(self) -> None:
        """Forget everything and give the endpoint its budget back."""
        while self._trains:
            self.drop(next(iter(self._trains.values())))
        self._finished.clear()
