"""Which sessions use a path: what an endpoint asks when a carrier ends; and the words for those that are lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stt_proto.config import Config
from stt_proto.errors import ArgumentError
from stt_proto.types import NetworkPath

if TYPE_CHECKING:
    from stt_proto.session.session import Session

NOWHERE = NetworkPath("", None, None)
"""Where the active path of a detached session leads; nothing comes from there."""
SILENT, REMOVED = "silent", "removed"
"""Why a path is lost: nobody answered on it; the application gave it up."""


def check_path(path: NetworkPath, config: Config) -> None:
    """Refuse what is no path, or has a carrier that the configuration does not know.

    Raises:
        ArgumentError: names the argument `path`.
    """
    if not isinstance(path, NetworkPath):
        raise ArgumentError(f"path is {path!r}; it must be a NetworkPath", argument="path")
    if path.carrier not in config.carriers:
        raise ArgumentError(
            f"path has the carrier {path.carrier!r}; the configuration knows {sorted(config.carriers)}",
            argument="path",
        )


class PathIndex:
    """From each path to the sessions that have it.

    Most paths carry one session, and some ten thousand, as between two servers. A dictionary for each would cost an
    endpoint more than all the rest of this; a list would have to be searched.
    """

    __slots__ = ("_sessions",)

    def __init__(self) -> None:
        self._sessions: dict[NetworkPath, Session | dict[Session, None]] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, path: NetworkPath, session: Session) -> None:
        """A session has this path from now on."""
        held = self._sessions.get(path)
        if held is None or held is session:
            self._sessions[path] = session
        elif isinstance(held, dict):
            held[session] = None
        else:
            self._sessions[path] = {held: None, session: None}

    def remove(self, path: NetworkPath, session: Session) -> None:
        """It has this path no longer; one that it did not have is no mistake."""
        held = self._sessions.get(path)
        if held is session:
            del self._sessions[path]
        elif isinstance(held, dict):
            held.pop(session, None)
            if not held:
                del self._sessions[path]

    def sessions(self, path: NetworkPath) -> tuple[Session, ...]:
        """The sessions that have this path, in the order in which they came to it."""
        held = self._sessions.get(path)
        if held is None:
            return ()
        return tuple(held) if isinstance(held, dict) else (held,)
