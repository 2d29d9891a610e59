"""Handshake messages that take more than one datagram are put together here (W-3).

Pieces are not authenticated before the message is whole, so they are worth little memory: few groups, few bytes, few
pieces, the oldest first out. A group whose bytes do not have the hash that its pieces named is thrown away whole; the
next repetition of the message starts it anew. And of pieces that contradict each other the newest counts: whoever
forges one spoils one repetition, and leaves nothing behind that could stand in the way of those after it.

What was kept goes with the handshake that it is for. A HELLO or RESUME in pieces is for none yet, so it has a time of
its own, and goes with its path.
"""

from __future__ import annotations

from math import inf

from stt_proto.types import NetworkPath
from stt_proto.wire import FIRST_MESSAGES, Message, Piece

GROUPS = 64
"""Groups kept for an endpoint."""

GROUPS_PER_HANDSHAKE = 4
"""Groups kept for one path and destination connection ID."""

MAX_PIECES = 32
"""Pieces of one message; the largest message takes 8 in datagrams of 1,200 bytes."""

_Group = tuple[NetworkPath, int, bytes, bytes, bytes, int]


class PieceCollector:
    """The incomplete messages of an endpoint, as initiator and as responder."""

    __slots__ = ("_groups", "_hellos", "_limit", "_timeout")

    def __init__(self, limit: int = GROUPS, timeout: float = 10.0) -> None:
        """Keep at most `limit` groups in all, and those of a HELLO or RESUME for at most `timeout` seconds."""
        self._limit = limit
        self._timeout = timeout
        self._groups: dict[_Group, dict[int, bytes]] = {}
        self._hellos: dict[_Group, float] = {}  # until when; by age, as all last equally long

    def __len__(self) -> int:
        """Groups kept."""
        return len(self._groups)

    @property
    def deadline(self) -> float:
        """When `expire` wants to be called; `inf` when never."""
        return next(iter(self._hellos.values()), inf)

    def add(self, piece: Piece, path: NetworkPath, reliable: bool, now: float) -> Message | None:
        """Take in a piece; give the message when this was the last one of it.

        The caller has checked that the destination connection ID is one in use, unless the piece is of a first message.
        That is only taken in pieces from a reliable carrier: elsewhere it has to pay with a datagram of its own (W-4).

        Args:
            piece: as decoded.
            path: where it came from.
            reliable: whether the path's carrier is.
            now: seconds.
        """
        if piece.type in FIRST_MESSAGES and not reliable:
            return None
        key = (path, piece.type, piece.dcid, piece.scid, piece.hash8, piece.total)
        group = self._groups.get(key)
        if group is None:
            group = self._open(key, now)
        if not _put(group, piece):
            return None
        if sum(map(len, group.values())) < piece.total:
            return None
        self._drop(key)
        body = b"".join(group[offset] for offset in sorted(group))
        message = Message(piece.type, piece.dcid, piece.scid, body)
        return message if message.hash8 == piece.hash8 else None

    def forget(self, path: NetworkPath, dcid: bytes) -> None:
        """Drop what was kept for a handshake that is over."""
        for key in self._of_handshake(path, dcid):
            self._drop(key)

    def path_closed(self, path: NetworkPath) -> None:
        """Drop what came on a path that is gone."""
        for key in [key for key in self._groups if key[0] == path]:
            self._drop(key)

    def expire(self, now: float) -> None:
        """Drop what was kept of HELLOs whose time is over."""
        for key in [key for key, until in self._hellos.items() if until <= now]:
            self._drop(key)

    def _open(self, key: _Group, now: float) -> dict[int, bytes]:
        """Make room for a group and begin it; the oldest of the same handshake, or of all, goes first."""
        groups = self._groups
        siblings = self._of_handshake(key[0], key[2])
        if len(siblings) >= GROUPS_PER_HANDSHAKE:
            self._drop(siblings[0])
        elif len(groups) >= self._limit:
            self._drop(next(iter(groups)))
        group: dict[int, bytes] = {}
        groups[key] = group
        if key[1] in FIRST_MESSAGES:
            self._hellos[key] = now + self._timeout
        return group

    def _drop(self, key: _Group) -> None:
        del self._groups[key]
        self._hellos.pop(key, None)

    def _of_handshake(self, path: NetworkPath, dcid: bytes) -> list[_Group]:
        return [key for key in self._groups if key[2] == dcid and key[0] == path]


def _put(group: dict[int, bytes], piece: Piece) -> bool:
    """Put a piece into its group, in place of those that it overlaps; False when it is there, or there are too many."""
    start = piece.offset
    end = start + len(piece.data)
    if group.get(start) == piece.data:
        return False
    for offset in [offset for offset, data in group.items() if start < offset + len(data) and offset < end]:
        del group[offset]
    if len(group) >= MAX_PIECES:
        return False
    group[start] = piece.data
    return True
