"""Early data, as the applications on both sides see it: what came before a session was shown to be fresh."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

from stt_anyio.stream_base import StreamBase
from stt_proto import Session as CoreSession
from stt_proto.errors import ArgumentError

StreamT = TypeVar("StreamT", bound=StreamBase)


def check_one_way(early_data: bytes) -> None:
    """See that nothing is to go early where two ways are tried: it would go over both, and arrive twice.

    Raises:
        ArgumentError: something is.
    """
    if early_data:
        raise ArgumentError("early_data goes one way: give no websocket with it", argument="early_data")


class EarlyBeginning(Generic[StreamT]):
    """Part of `SessionBase`."""

    stream_class: ClassVar[type[Any]]
    core: CoreSession
    streams: dict[int, StreamT]

    @property
    def early_stream(self) -> StreamT | None:
        """The stream that begins with the `early_data` of `connect`, to be used like any other.

        `None` when there was none, when the stream is over, and when the peer takes no streams.
        """
        core = self.core.early_stream
        if core is None:
            return None
        stream = self.streams.get(core.stream_id)
        if stream is None:
            stream = self.streams[core.stream_id] = self.stream_class(self, core)
        return stream

    @property
    def early_data_accepted(self) -> bool | None:
        """Whether the peer took `early_data` with the ticket; `None` when it was sent in the ordinary way only."""
        return self.core.early_data_accepted

    @property
    def replayable(self) -> bool:
        """Whether all that came so far is early data, and may be a repetition of what was sent before, or elsewhere.

        So it is at most in a session that was accepted, for its first round trip, by a node with `max_early_data`.
        """
        return self.core.replayable
