"""Asking without an event loop; see `stt_anyio/requests.py`."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING

from stt_anyio.errors import ArgumentError, BufferOverflowError, SttError, TooManyStreamsError
from stt_anyio.operation import Operation
from stt_anyio.timeouts import check_timeout
from stt_proto.types import Buffer

if TYPE_CHECKING:
    from stt_anyio.blocking.session import BlockingSession
    from stt_anyio.blocking.stream import BlockingStream


class Deadline:
    """When a call is to be over. `ArgumentError` when its `timeout` is none."""

    def __init__(self, timeout: float | None) -> None:
        check_timeout(timeout)
        self._at = inf if timeout is None else time.monotonic() + timeout

    @property
    def left(self) -> float | None:
        """Seconds until then; `None` when never."""
        return None if self._at == inf else max(0.0, self._at - time.monotonic())

    def least(self, seconds: float | None) -> float | None:
        """What is left, and no more than so many seconds."""
        left = self.left
        return seconds if left is None else left if seconds is None else min(left, seconds)


def request(session: BlockingSession, data: Buffer, timeout: float | None, purpose: str, max_size: int) -> bytes:
    """See `BlockingSession.request`."""
    operation = Operation(data, repeat=False)
    try:
        return exchange(session, operation, Deadline(timeout), purpose, max_size)
    except SttError as error:
        if isinstance(error, ArgumentError | BufferOverflowError):
            raise
        operation.goes_on_after(error, session_is_over=not session.is_active())
        raise operation.failed(f"the session ended: {error}") from error
    except TimeoutError:
        raise operation.timed_out(timeout) from None


def exchange(session: BlockingSession, operation: Operation, deadline: Deadline, purpose: str, max_size: int) -> bytes:
    """One try at a request."""
    stream = _open(session, purpose, deadline)
    answer = bytearray()
    try:
        return session.exchange_into(answer, stream, operation.data, deadline.left, max_size)
    except BaseException:
        with session.lock:
            operation.note(stream, len(answer))
            stream.reset()  # so that the peer does not take a part of the request for all of it
        raise
    finally:
        stream.close()


def _open(session: BlockingSession, purpose: str, deadline: Deadline) -> BlockingStream:
    while True:
        try:
            return session.open_stream(purpose=purpose)
        except TooManyStreamsError:
            session.wait_streams_available(deadline.left)
