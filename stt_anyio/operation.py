"""What became of a request that sessions were lost under: told as it is, and never better."""

from __future__ import annotations

from stt_anyio.errors import (
    ArgumentError,
    DataExpiredError,
    NotSentError,
    OutcomeUnknownError,
    StreamClosedError,
    SttError,
    mixed,
)
from stt_anyio.stream_base import StreamBase, single_bytes
from stt_proto.types import Buffer

MAX_REPLY = 64 << 20
"""Bytes of an answer that `request` collects."""


class Operation:
    """One request, on one stream after the other, until an answer has come.

    Args:
        data: the request; it is all of what one direction of a stream carries.
        repeat: whether it may be sent again though it may have been done.

    Attributes:
        data: the request.
        sent: whether any of it may have left this machine.

    Raises:
        ArgumentError: `data` is not bytes-like.
    """

    __slots__ = ("_acknowledged", "_received", "_repeat", "_sent_bytes", "data", "sent")

    def __init__(self, data: Buffer, *, repeat: bool) -> None:
        if not isinstance(repeat, bool):
            raise ArgumentError(f"repeat is {repeat!r}; it must be True or False", argument="repeat")
        self.data = single_bytes(data)
        self.sent = False
        self._repeat = repeat
        self._sent_bytes = 0
        self._acknowledged = 0
        self._received = 0

    def note(self, stream: StreamBase, received: int) -> None:
        """Take down how far it came on a stream, before that is given up."""
        # An empty request is the end of its direction, of which the stream tells no count.
        self.sent = self.sent or stream.bytes_sent > 0 or not self.data
        self._sent_bytes = max(self._sent_bytes, stream.bytes_sent)
        self._acknowledged = max(self._acknowledged, stream.bytes_acknowledged)
        self._received = max(self._received, received)

    def goes_on_after(self, error: SttError, *, session_is_over: bool) -> bool:
        """Whether to make it again on the next session; else this raises what became of it.

        What concerns only the stream is the peer's answer, and raised as it is.
        """
        if isinstance(error, StreamClosedError | DataExpiredError) or not session_is_over:
            raise error
        if self.sent and not self._repeat:
            raise self.failed(f"the session ended under the request: {error}") from error
        return True

    def failed(self, why: str) -> SttError:
        """What the caller gets when there will be no answer."""
        if not self.sent:
            return NotSentError(f"not sent: {why}")
        return OutcomeUnknownError(
            f"it is unknown whether it was done: {why}",
            bytes_sent=self._sent_bytes,
            bytes_acknowledged=self._acknowledged,
            bytes_received=self._received,
        )

    def timed_out(self, seconds: float | None) -> SttError:
        """The same when the time of the call is over."""
        return mixed(self.failed(f"no answer within {seconds:g} seconds"), TimeoutError)
