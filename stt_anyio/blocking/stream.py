"""A stream without an event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from stt_anyio.blocking.locked import locked
from stt_anyio.stream_base import StreamBase, single_bytes
from stt_proto import Priority

if TYPE_CHECKING:
    from stt_anyio.blocking.session import BlockingSession


class BlockingStream(StreamBase):
    """A stream whose calls wait. Two threads may use it, one in each direction.

    `with stream:` closes it at the end; when an exception leaves the block it is reset.
    """

    session: BlockingSession
    _waiter: Callable[[], None] | None = None  # called when something can go on here, with the lock held

    @property
    def lock(self) -> threading.RLock:
        """The lock of the node."""
        return self.session.lock

    def receive(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        """Receive what has arrived, 1 to `max_bytes` bytes; `b""` when the peer has ended its direction.

        Raises:
            DataExpiredError: the peer gave up what comes next, `skipped` bytes; said once, and it goes on behind them.
            StreamClosedError: the peer reset it (`stream_code` tells why), or this side closed it.
            SessionClosedError: the session is over.
            TimeoutError: nothing came in time; nothing was taken.
        """
        self._check_receive(max_bytes)
        return self.session.until(lambda: self._take(max_bytes), timeout)

    def __iter__(self) -> Iterator[bytes]:
        """`for data in stream:`: what arrives, until the peer has ended its direction."""
        while data := self.receive():
            yield data

    def send(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Send bytes; returns when all are in the send buffer, or with a `timeout` when the peer acknowledged them.

        After a `TimeoutError` what was taken (`bytes_accepted` tells how much) goes out all the same; `reset()`
        withdraws it.

        Raises:
            StreamClosedError: the peer refuses more, or this side has ended the stream.
            SessionClosedError: the session is over.
            TimeoutError: not acknowledged within `timeout` seconds.
            ArgumentError: `data` is not bytes-like.
        """
        rest = single_bytes(data)

        def write() -> bool | None:
            nonlocal rest
            if rest:
                self._check_send()
                taken = self._put(rest)
                self._driver.pump()
                if taken < len(rest):
                    rest = memoryview(rest)[taken:]
                    return None
                rest = b""
            return True if timeout is None or self._is_acknowledged(self.bytes_accepted) else None

        self._check_send()
        self._sending = True
        try:
            self.session.until(write, timeout)
        finally:
            self._sending = False

    def send_all(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """The same as `send`."""
        self.send(data, timeout)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until the peer's core has acknowledged everything that was sent so far; see `Stream.flush`."""
        offset = self.bytes_accepted
        self.session.until(lambda: self._is_acknowledged(offset) or None, timeout)

    def wait_writable(self, timeout: float | None = None) -> None:
        """Wait until a quarter of the send buffer is free, so that a `send` of that much will not wait."""
        self._check_send()
        offset = self.bytes_accepted - self._core.send_buffer * 3 // 4
        self.session.until(lambda: self._is_acknowledged(offset) or None, timeout)

    @locked
    def send_eof(self) -> None:
        """End this direction; receiving goes on. `StateError` when a broadcast on it has not left yet."""
        self._check_not_fed()
        self._finish()

    @locked
    def close(self) -> None:
        """End both directions; what was accepted is still delivered, whenever something pumps, without waiting here."""
        self._close()

    @property
    def priority(self) -> Priority:
        """See `Stream.priority`."""
        return super().priority

    @priority.setter
    @locked
    def priority(self, priority: Priority) -> None:
        self._core.priority = priority

    ask_priority = locked(StreamBase.ask_priority)
    reset = locked(StreamBase.reset)
    stop = locked(StreamBase.stop)

    def __enter__(self) -> BlockingStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.reset()
        self.close()

    def _wake(self) -> None:
        """Whoever waits looks again after every event; but one who waits for many is told which."""
        if self._waiter is not None:
            self._waiter()

    _wake_reader = _wake_writer = _wake_flusher = _wake
