"""Which connection ID of the peer goes with which path of a session (docs/protocol.md, C-6).

Each path has one of its own, so that nobody who sees two of them can tell that they belong to one session. There may be
too few of them for a while: the peer is given more of ours, and so does likewise. Where a path cannot wait for that it
borrows the ID in use, and gives it back as soon as there is another.
"""

from __future__ import annotations

from stt_proto.paths import Path, PathTable
from stt_proto.session.engines import Engines

CONNECTION_IDS = 2
"""Connection IDs that are issued at first: the one in use, and one for the peer to move with (C-2)."""


def give_id(path: Path, engines: Engines, table: PathTable) -> None:
    """Find an ID of the peer that no path uses; without one that of the active path is borrowed."""
    remote_ids = engines.remote_ids
    taken = [other.remote_id for other in table if other is not path]
    free = remote_ids.unused([*taken, remote_ids.number])
    path.borrows = free is None
    path.remote_id = remote_ids.number if free is None else free


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
    if path.borrows or remote_ids.id_of(path.remote_id) is None:
        give_id(path, engines, table)
        if path.borrows and path.opened_here and not at_once:
            return None
    return remote_ids.id_of(path.remote_id) or remote_ids.current


def use_id(path: Path, engines: Engines, table: PathTable) -> None:
    """A path becomes the active one; it goes on with its own ID, if there is one now."""
    if path.borrows or engines.remote_ids.id_of(path.remote_id) is None:
        give_id(path, engines, table)
    engines.remote_ids.use(path.remote_id)


def stop_borrowing(engines: Engines, table: PathTable) -> None:
    """The peer has issued an ID, or taken some back: the active path uses none that is known elsewhere, if it can."""
    path, remote_ids = engines.path, engines.remote_ids
    if path.remote_id != remote_ids.number:  # the peer took it back
        path.remote_id = remote_ids.number
        path.borrows = any(other.remote_id == remote_ids.number for other in table)
    if path.borrows:
        number = path.remote_id
        use_id(path, engines, table)
        _retire(number, engines, table)


def retire_id(path: Path, engines: Engines, table: PathTable) -> None:
    """A path is gone: its ID too, unless another path has it, or nobody has ever seen it there."""
    if path.validated or path.received or path.sent:
        _retire(path.remote_id, engines, table)


def _retire(number: int, engines: Engines, table: PathTable) -> None:
    kept = any(other.remote_id == number and not other.borrows for other in table)
    if not kept and engines.remote_ids.retire(number):
        engines.control.put(("retire", number))


def issue_more(engines: Engines, now: float) -> None:
    """There are several paths, here or at the peer's: it needs IDs for them."""
    for number in engines.local_ids.widen(engines.peer.connection_id_limit, now):
        engines.control.put(("new_id", number))
