"""What became of a path that somebody asked for, and waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stt_anyio.errors import ArgumentError, StateError
from stt_proto.types import NetworkPath, PathInfo, PathStatus

if TYPE_CHECKING:
    from stt_anyio.node_base import NodeBase
    from stt_anyio.session_base import SessionBase

REPLACED = "replaced"
"""Why a move came to nothing: another one was asked for."""
_LINGER = 3
"""Round trips after a move in which what the peer had sent to the old port still comes in."""
_SHORTEST, _LONGEST = 0.05, 1.0


class Attempt:
    """One call of `add_path` or `migrate`.

    Args:
        path: where to.
        migrate: whether the session is to go on there.
        known: whether the session had this path, or was trying it, before.

    Attributes:
        done: whether the peer is there and, if it was asked to, the session goes on there.
        reason: why that will not be: that of `PathLost`, or `REPLACED`; `None` as long as it may be.
    """

    __slots__ = ("done", "known", "migrate", "path", "reason")

    def __init__(self, path: NetworkPath, *, migrate: bool, known: bool) -> None:
        self.path = path
        self.migrate = migrate
        self.known = known
        self.done = False
        self.reason: str | None = None

    @property
    def settled(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.done or self.reason is not None

    def look(self, paths: tuple[PathInfo, ...]) -> None:
        """See whether it is there already."""
        fit = {PathStatus.ACTIVE} if self.migrate else {PathStatus.ACTIVE, PathStatus.SPARE}
        self.done = any(info.path == self.path and info.status in fit for info in paths)

    def on_reached(self, path: NetworkPath, *, active: bool) -> None:
        """The peer has answered on a path; or, with `active`, the session goes on there."""
        if path == self.path and (active or not self.migrate) and not self.settled:
            self.done = True

    def on_lost(self, path: NetworkPath, reason: str) -> None:
        """A path carries nothing any more."""
        if path == self.path and not self.settled:
            self.reason = reason

    def on_move(self, path: NetworkPath) -> None:
        """The application wants the session to go on over this path, and over no other."""
        if self.migrate and path != self.path and not self.settled:
            self.reason = REPLACED


# -- to another port -----------------------------------------------------------------------------------------------


def way_of(session: SessionBase[Any], transport: str | None) -> NetworkPath:
    """The path over UDP that a session is to leave for one from another port.

    Raises:
        ArgumentError: `transport` is another one, on which an address is needed.
        StateError: the session has no such path.
    """
    if transport not in (None, "udp"):
        raise ArgumentError(f"address is missing; on {transport!r} it is needed", argument="address")
    for path in (session.core.path, *(info.path for info in session.core.paths)):
        if path.carrier == "udp":
            return path
    raise StateError("the session has no path over UDP: say an address")


def linger(session: SessionBase[Any]) -> float:
    """Seconds for which the old port is still heard after a move."""
    return min(max(_LINGER * (session.core.paths[0].rtt or 0.0), _SHORTEST), _LONGEST) if session.core.paths else 0.0


def leave(session: SessionBase[Any], way: NetworkPath) -> None:
    """Give up all paths of a session that begin at the port of this one: who saw both would know it again."""
    for info in session.core.paths:
        if _port(info.path) == _port(way) and not info.active:
            session.remove_path(info.path)


def is_free(node: NodeBase[Any]) -> bool:
    """Whether the node's own port is one that nobody has asked for, and nothing needs."""
    if node.accepting or node.config.port:
        return False
    paths = [*node._dialing.values(), *(attempt.path for attempt in node.attempts)]
    for session in node.sessions.values():
        paths += session.core.path, *(info.path for info in session.core.paths)
    return all(_port(path) != node.port for path in paths)


def _port(path: NetworkPath) -> Any:
    """The port at which a path over UDP begins; of others nothing that could be one."""
    local: Any = path.local
    return local[1] if path.carrier == "udp" else None
