"""Trains that are incomplete: the table in which their segments are collected, and its bounds (docs/protocol.md, P-9).

That table is filled before anything is authenticated, so it is built for the worst. A train costs what was received of
it and nothing for what its header announces. The newest copy of a segment replaces an older one, and one that does not
fit to what is held makes it forgotten: whoever injects segments can spoil a train, but no state that he leaves behind
can spoil an undamaged copy that comes after it. For the same reason a train that was complete and did not open stays
for a while like one that is incomplete, and is tried again when a segment of it is replaced.
"""

from __future__ import annotations

from math import inf

from stt_proto.packet.counters import PacketCounters
from stt_proto.types import NetworkPath

__all__ = ["FINISHED_KEPT", "PIECE_COST", "Train", "TrainBudget", "TrainKey", "TrainReassembler"]

PIECE_COST = 100
"""Bytes charged for a kept segment beyond its ciphertext: the object around it and its place in the table."""
FINISHED_KEPT = 256
"""Finished trains that are recognised."""

_CONGESTION_EXPERIENCED = 3

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
        """Give the train that a segment belongs to, a new one if need be; `None` when it was finished before.

        The caller has seen that a train can have such a segment, since a new train is held from now on.
        """
        train = self._recent
        if train is not None and train.prefix == prefix and train.last == last and train.path is path:
            return train
        key = (prefix, last, path)
        train = self._trains.get(key)
        if train is None:
            if key in self._finished:
                self.counters.segments_repeated += 1
                return None
            if not self._max_trains:
                self.counters.segments_refused += 1
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
            Whether the train is complete, and not as it was when that was asked last. It stays until `finish`.
        """
        size = len(piece)
        if size != train.room and (index < train.last or size > train.room):
            self._fit(train, index, size)
        pieces = train.pieces
        cost = size + PIECE_COST
        if index in pieces:
            self.counters.segments_repeated += 1
            old = pieces[index]
            if old == piece:
                return False
            cost = size - len(old)
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
            Whether the train is complete.
        """
        size = len(new[0])
        if size != train.room:
            self._fit(train, index, size)
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
        while self.cost > self._max_bytes:
            self.evict(next(iter(self._trains.values())))
        if budget.cost > budget.limit:
            budget.shrink()
        return len(train.pieces) > train.last

    def _fit(self, train: Train, index: int, size: int) -> None:
        """Take a segment of another length than those before it for the right one, and forget what contradicts it."""
        last, pieces = train.last, train.pieces
        if index < last:
            # The last segment stays if it can.
            kept = {last: pieces[last]} if last in pieces and len(pieces[last]) <= size else {}
            train.room = size
        elif train.room:
            kept = {}
            train.room = 0
        else:
            return
        if len(kept) < len(pieces):
            cost = sum(map(len, kept.values())) + PIECE_COST * len(kept) - train.cost
            train.cost += cost
            self.cost += cost
            self._budget.cost += cost
            train.pieces = kept

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
        oldest = next(iter(self._trains.values()), None)
        return inf if oldest is None else oldest.started + self.lifetime

    def expire(self, now: float) -> None:
        """Forget the trains that stayed incomplete for their lifetime."""
        while self._trains and self.deadline <= now:
            self.drop(next(iter(self._trains.values())))
            self.counters.trains_expired += 1

    def close(self) -> None:
        """Forget everything, and hold nothing from now on."""
        self._max_trains = 0
        while self._trains:
            self.drop(next(iter(self._trains.values())))
        self._finished.clear()
