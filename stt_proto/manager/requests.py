"""Work in progress of one session: requests that were begun and not ended, and streams that are open."""

from __future__ import annotations

from attrs import field, frozen

from stt_proto.manager.use import Use


@frozen(eq=False)
class RequestToken:
    """A request that was begun. It ends once, with the manager that gave it.

    Attributes:
        session_id: of the session that works on it.
    """

    session_id: bytes = field(repr=bytes.hex)


class Work:
    """What a session is at.

    Attributes:
        counted: streams of which the manager was told that they are open.
        use: what the session says of itself; `None` when it says nothing.
    """

    __slots__ = ("_requests", "counted", "use")

    def __init__(self, use: Use | None = None) -> None:
        self._requests: dict[RequestToken, None] = {}  # an empty set is three times as large
        self.counted = 0
        self.use = use

    @property
    def said(self) -> int:
        """Streams of which the session says that they are open."""
        return 0 if self.use is None else self.use.open_streams

    @property
    def streams(self) -> int:
        """How many are open."""
        return self.counted + self.said

    @property
    def requests(self) -> int:
        """How many are in flight."""
        return len(self._requests)

    @property
    def is_idle(self) -> bool:
        """Whether there is none of either."""
        return not self._requests and not self.streams

    def begin(self, session_id: bytes) -> RequestToken:
        """Begin a request."""
        token = RequestToken(session_id)
        self._requests[token] = None
        return token

    def end(self, token: RequestToken) -> bool:
        """End a request; False when it has ended, or was never one of these."""
        if token not in self._requests:
            return False
        del self._requests[token]
        return True
