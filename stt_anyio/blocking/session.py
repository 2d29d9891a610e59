"""A session without an event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from stt_anyio.blocking.answers import BlockingHandler, answer
from stt_anyio.blocking.locked import locked
from stt_anyio.blocking.requests import request
from stt_anyio.blocking.stream import BlockingStream
from stt_anyio.errors import BufferOverflowError, StreamClosedError
from stt_anyio.operation import MAX_REPLY
from stt_anyio.requests import AnswerPolicy
from stt_anyio.session_base import SessionBase
from stt_anyio.stream_base import single_bytes
from stt_anyio.timeouts import check_timeout
from stt_proto.types import Buffer

if TYPE_CHECKING:
    from stt_anyio.blocking.node import BlockingNode

_DONE = memoryview(b"")
"""What `exchange` has left when it has sent everything."""

T = TypeVar("T")


class BlockingSession(SessionBase[BlockingStream]):
    """A session whose calls wait. `with session:` closes it at the end."""

    stream_class = BlockingStream
    node: BlockingNode
    over: threading.Event | None = None  # for a thread that waits for nothing else but time
    _waiter: Callable[[], None] | None = None  # called when a stream has come in, and at the end; with the lock held

    @property
    def lock(self) -> threading.RLock:
        """The lock of the node."""
        return self.node.lock

    def until(self, attempt: Callable[[], T | None], timeout: float | None) -> T:
        """See `BlockingNode.until`."""
        return self.node.until(attempt, timeout)

    def accept_stream(self, timeout: float | None = None) -> BlockingStream:
        """Wait for the next stream that the peer opens; see `Session.accept_stream`."""

        def accept() -> BlockingStream | None:
            if self.incoming:
                return self.incoming.pop(next(iter(self.incoming)))
            if self.is_closed:
                raise self.ended()
            return None

        check_timeout(timeout)
        self.claimed = True
        return self.until(accept, timeout)

    def wait_streams_available(self, timeout: float | None = None, *, bidirectional: bool = True) -> None:
        """Wait until `open_stream` is worth another try, after it raised `TooManyStreamsError`."""

        def look() -> bool | None:
            if self.is_closed:
                raise self.ended()
            return None if bidirectional in self.refused else True

        self.until(look, timeout)

    def receive_datagram(self, timeout: float | None = None) -> bytes:
        """Wait for an unreliable datagram."""

        def take() -> bytes | None:
            data = self.core.receive_datagram()
            if data is None and self.is_closed:
                raise self.ended()
            return data

        return self.until(take, timeout)

    def receive_frame(self, timeout: float | None = None) -> tuple[int, bytes]:
        """Wait for a frame of the application's own for which there is no handler; see `Session.receive_frame`."""

        def take() -> tuple[int, bytes] | None:
            frame = self._take_frame()
            if frame is None and self.is_closed:
                raise self.ended()
            return frame

        return self.until(take, timeout)

    def request(
        self, data: Buffer, timeout: float | None = None, *, purpose: str = "", max_size: int = MAX_REPLY
    ) -> bytes:
        """Send a request on a stream of its own, and return the whole answer; see `Session.request`."""
        return request(self, data, timeout, purpose, max_size)

    def answer(self, handler: BlockingHandler, policy: AnswerPolicy | None = None) -> None:
        """Answer the peer's requests, as `BlockingNode.answer` does for all sessions, until the session is over.

        Raises:
            StateError: somebody else answers them already.
        """
        answer(self.node, handler, policy, self)

    def exchange(
        self, stream: BlockingStream, data: Buffer, timeout: float | None = None, max_size: int = MAX_REPLY
    ) -> bytes:
        """Send a request, end that direction, and return the whole answer.

        Both at once, so a peer that answers while it still listens is no deadlock.

        Raises:
            ArgumentError: `data` is not bytes-like.
            BufferOverflowError: the answer is longer than `max_size` bytes, 64 MiB when not given.
            StreamClosedError: the peer reset the stream.
            TimeoutError: the answer was not there in time.
        """
        return self.exchange_into(bytearray(), stream, data, timeout, max_size)

    def exchange_into(
        self, answer: bytearray, stream: BlockingStream, data: Buffer, timeout: float | None, max_size: int
    ) -> bytes:
        """`exchange`, with what comes of the answer in `answer`, whatever is raised."""
        rest = single_bytes(data)

        def step() -> bytes | None:
            nonlocal rest
            if rest is not _DONE:
                try:
                    rest = memoryview(rest)[self._put(stream, rest) :]
                    if not rest:
                        rest = _DONE
                        stream._finish()
                except StreamClosedError:  # the peer has read enough, and may still answer
                    rest = _DONE
            while (piece := stream._take(65536)) is not None:
                if not piece:
                    if rest is not _DONE:  # the answer came first; what the peer has of the request has no end
                        stream.reset()
                    return bytes(answer)
                answer.extend(piece)
                if len(answer) > max_size:
                    raise BufferOverflowError(f"the answer is longer than {max_size:,} bytes")
            return None

        return self.until(step, timeout)

    def _put(self, stream: BlockingStream, data: bytes | memoryview) -> int:
        taken = stream._put(data)
        self.driver.pump()
        return taken

    def _wake_all(self) -> None:
        """It has ended."""
        if self.over is not None:
            self.over.set()
        self._wake_accept()

    def _wake_accept(self) -> None:
        if self._waiter is not None:
            self._waiter()

    def rotate_key(self, timeout: float | None = None) -> int:
        """Replace the keys of both sides, and wait until both use the new ones; see `Session.rotate_key`."""
        check_timeout(timeout)
        with self.lock:
            version = self._begin_rotation()
        return self.until(lambda: version if self._rotated(version) else None, timeout)

    def add_path(self, address: Any, transport: str | None = None, timeout: float | None = 10.0) -> None:
        """Open another way to the peer, and wait until the peer has answered there; see `Session.add_path`."""
        self.node.take(self, address, transport, timeout, migrate=False)

    def migrate(self, address: Any = None, transport: str | None = None, timeout: float | None = 10.0) -> None:
        """Go on over another way to the peer, or from another port, and wait until the session does; see
        `Session.migrate`."""
        self.node.take(self, address, transport, timeout, migrate=True)

    def close(self, reason: str = "graceful", detail: str = "", timeout: float | None = None) -> None:
        """Close: what streams have accepted is delivered, the peer is told, and that is acknowledged."""
        check_timeout(timeout)
        with self.lock:
            self.begin_close(reason, detail)
        self.until(lambda: self.is_closed or None, timeout)

    def wait_closed(self, timeout: float | None = None) -> str:
        """Wait until the session is over, and say why: `graceful`, `timeout`, `error` or `auth_failure`."""
        return self.until(lambda: (self.close_reason or "graceful") if self.is_closed else None, timeout)

    remove_path = locked(SessionBase.remove_path)
    open_stream = locked(SessionBase.open_stream)
    get_stream = locked(SessionBase.get_stream)
    send_datagram = locked(SessionBase.send_datagram)
    send_frame = locked(SessionBase.send_frame)
    on_frame = locked(SessionBase.on_frame)
    abort = locked(SessionBase.abort)
    get_stats = locked(SessionBase.get_stats)
    get_statistics = locked(SessionBase.get_statistics)
    export_keying_material = locked(SessionBase.export_keying_material)

    def __enter__(self) -> BlockingSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close("graceful" if kind is None else "error")

    def _wake(self) -> None:
        """Nothing to do: whoever waits looks again after every event."""

    _wake_datagrams = _wake_frames = _wake_openers = _wake_rotation = _wake_moves = _wake
