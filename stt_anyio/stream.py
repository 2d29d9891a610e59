"""A stream under asyncio and trio: an `anyio.abc.ByteStream` that can be flushed and reset."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from stt_anyio.attributes import attributes_of
from stt_anyio.stream_base import StreamBase, single_bytes
from stt_anyio.waiting import Bell, within
from stt_proto import Stream as CoreStream

if TYPE_CHECKING:
    from stt_anyio.session import Session


class Stream(StreamBase, ByteStream):
    """Bytes both ways (or one way), reliable and in order.

    `async with stream:` closes it at the end; when an exception leaves the block it is reset, so that the peer does not
    take half of something for all of it.

    Every method that can wait is a checkpoint even when it does not, taken *before* any bytes are: cancelled or timed
    out, `receive` took nothing. Two tasks in one direction get `anyio.BusyResourceError`.

    Errors are `StreamClosedError` (this stream) or `SessionClosedError` (all of it), each also anyio's
    `ClosedResourceError` when this side closed and `BrokenResourceError` when the peer or the network did.
    """

    def __init__(self, session: Session, core: CoreStream) -> None:
        super().__init__(session, core)
        loop = session.node.asyncio_loop
        self._receiving = False
        self._rested = False  # `receive` has just waited: others had their turn
        self._readable = Bell(loop)
        self._writable = Bell(loop)
        self._acknowledged = Bell(loop)

    def __await__(self) -> Generator[Any, None, Stream]:
        """`await session.open_stream()` is as good as without: a checkpoint, and the stream itself."""
        yield from checkpoint().__await__()
        return self

    # -- receiving -------------------------------------------------------------------------------------------------

    async def receive(self, max_bytes: int = 65536, timeout: float | None = None) -> bytes:
        """Receive what has arrived, 1 to `max_bytes` bytes.

        Raises:
            EndOfStream: the peer has ended its direction, and everything was received.
            DataExpiredError: the peer gave up what comes next, `skipped` bytes; said once, and it goes on behind them.
            StreamClosedError: the peer reset it (`stream_code` tells why), or this side closed it.
            SessionClosedError: the session is over, and all that had arrived was received.
            TimeoutError: nothing came within `timeout` seconds.
        """
        self._check_receive(max_bytes)
        if timeout is not None:
            with within(timeout, "nothing was received"):
                return await self.receive(max_bytes)
        if self._receiving:
            await checkpoint()
            raise anyio.BusyResourceError("receiving from")
        self._receiving = True
        try:
            if self._has_something():  # else it will wait, and that is a checkpoint
                await checkpoint()
            while (data := self._take(max_bytes)) is None:
                await self._readable.wait()
                self._rested = True
        finally:
            self._receiving = False
        if not data:
            raise anyio.EndOfStream
        return data

    # -- sending ---------------------------------------------------------------------------------------------------

    async def send(self, item: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """Send bytes; returns when all are in the send buffer.

        With a `timeout` it returns when the peer's core has acknowledged them. Cancelled or timed out, what was taken
        goes out all the same, and `bytes_accepted` tells how much that is; `reset()` withdraws it.

        Raises:
            StreamClosedError: the peer refuses more, or this side has ended the stream.
            SessionClosedError: the session is over.
            TimeoutError: not acknowledged within `timeout` seconds.
            ArgumentError: `item` is not bytes-like.
        """
        if timeout is not None:
            with within(timeout, "not all was acknowledged"):
                await self._send(item)
                await self.flush()
        else:
            await self._send(item)

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        rest = single_bytes(data)
        await self._begin_sending()
        try:
            while True:
                taken = self._put(rest)
                room = self._writable.arm() if taken < len(rest) else None
                if room is None:
                    self._driver.pump_after(taken)
                    return
                self._driver.pump()
                rest = memoryview(rest)[taken:]
                await room.wait()
        finally:
            self._sending = False

    async def _begin_sending(self) -> None:
        if self._sending:
            await checkpoint()
            raise anyio.BusyResourceError("sending to")
        self._sending, self._cut = True, False
        try:
            if self._rested:  # an answer goes at once, and not one turn of the loop later
                self._rested = False
                await checkpoint_if_cancelled()
            else:
                await checkpoint()
            self._check_send()
        except BaseException:
            self._sending = False
            raise

    async def send_all(self, data: bytes | bytearray | memoryview, timeout: float | None = None) -> None:
        """The same as `send`."""
        await self.send(data, timeout)

    async def flush(self, timeout: float | None = None) -> None:
        """Wait until the peer's core has acknowledged everything that was sent so far.

        Raises:
            StreamClosedError: the peer refuses more, or this side has closed or reset the stream.
            SessionClosedError: the session is over.
            TimeoutError: not within `timeout` seconds; the data stays on its way.
        """
        if timeout is not None:
            with within(timeout, "not all was acknowledged"):
                await self.flush()
            return
        await checkpoint()
        await self._wait_acknowledged(self.bytes_accepted)

    async def _wait_acknowledged(self, offset: int) -> None:
        while not self._is_acknowledged(offset):
            acknowledged = self._acknowledged.arm()
            self._driver.pump()
            await acknowledged.wait()

    async def wait_writable(self) -> None:
        """Wait until a quarter of the send buffer is free, so that a `send` of that much will not wait."""
        await self._begin_sending()
        try:
            await self._wait_acknowledged(self.bytes_accepted - self._core.send_buffer * 3 // 4)
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """End this direction; receiving goes on.

        Raises:
            StateError: a broadcast on it has not left yet.
        """
        if self._sending:
            await checkpoint()
            raise anyio.BusyResourceError("sending to")
        await checkpoint()
        self._check_not_fed()
        self._finish()

    # -- ending ----------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End both directions; what was accepted is still delivered, by the session, without waiting here.

        In a cancelled scope, and in the middle of a broadcast or of another task's `send`, it resets instead: the peer
        must not take a part for the whole.
        """
        self._close()
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class():
            if not self.session.is_closed:
                self.reset()
            raise

    async def close(self) -> None:
        """The same as `aclose`."""
        await self.aclose()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:  # the peer must not take for whole what is not
            self.reset()
        await self.aclose()

    # -- being woken -----------------------------------------------------------------------------------------------

    def _wake_reader(self) -> None:
        self._readable.ring()

    def _wake_writer(self) -> None:
        self._writable.ring()

    def _wake_flusher(self) -> None:
        self._acknowledged.ring()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """`SttAttribute` and `anyio.abc.SocketAttribute`, as far as they apply."""
        return attributes_of(self.session, self)
