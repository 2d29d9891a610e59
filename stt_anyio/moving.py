"""What became of a path that somebody asked for, and waits for."""

from __future__ import annotations

from stt_proto.types import NetworkPath, PathInfo, PathStatus

REPLACED = "replaced"
"""Why a move came to nothing: another one was asked for."""


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
