"""Which connection ID of the peer goes with which path of a session (docs/protocol.md, C-6).

Each path that this side opens has one of its own, so that nobody who sees two of them can tell that they belong to one
session. There may be too few of them for a while: the peer is given more of ours, and so does likewise.
"""

from __future__ import annotations

from stt_proto.paths import Path, PathTable
from stt_proto.session.engines import Engines

CONNECTION_IDS = 2
"""Connection IDs that are issued at first: the one in use, and one for the peer to move with (C-2)."""


def free_id(engines: Engines, table: PathTable) -> int:
    """The number of an ID of the peer that no path uses; without one that of the active path."""
    remote_ids = engines.remote_ids
    taken = [path.remote_id for path in table] + [remote_ids.number]
    free = remote_ids.unused(taken)
    return remote_ids.number if free is None else free


def id_of(path: Path, engines: Engines, table: PathTable, *, at_once: bool) -> bytes | None:
    """The ID to send to on a path; `None` while one that this side opened waits for an ID of its own.

    Args:
        path: the path.
        engines, table: of its session.
        at_once: whether nothing better is left than to share the ID of the active path.
    """
    remote_ids = engines.remote_ids
    if path is engines.path:
        return remote_ids.current
    lacking = path.opened_here and path.remote_id == remote_ids.number
    if lacking or remote_ids.id_of(path.remote_id) is None:
        path.remote_id = free_id(engines, table)
        if path.opened_here and path.remote_id == remote_ids.number and not at_once:
            return None
    return remote_ids.id_of(path.remote_id) or remote_ids.current


def retire_id(path: Path, engines: Engines, table: PathTable) -> None:
    """A path is gone: its ID too, unless another path has it, or nobody has ever seen it there."""
    remote_ids, number = engines.remote_ids, path.remote_id
    used = path.validated or path.received
    if used and all(other.remote_id != number for other in table) and remote_ids.retire(number):
        engines.control.put(("retire", number))


def issue_more(engines: Engines, now: float) -> None:
    """There are several paths, here or at the peer's: it needs IDs for them."""
    for number in engines.local_ids.widen(engines.peer.connection_id_limit, now):
        engines.control.put(("new_id", number))
