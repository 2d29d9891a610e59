"""A session under asyncio and trio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import anyio
from anyio import TypedAttributeProvider
from anyio.abc import AsyncResource, UnreliableObjectStream
from anyio.lowlevel import checkpoint

from stt_anyio.attributes import attributes_of
from stt_anyio.errors import StreamClosedError
from stt_anyio.moving import Attempt
from stt_anyio.operation import MAX_REPLY
from stt_anyio.requests import AnswerPolicy, Handler, answer, request
from stt_anyio.session_base import Callback, SessionBase
from stt_anyio.stream import Stream
from stt_anyio.timeouts import check_timeout
from stt_anyio.waiting import Bell, Incoming, within
from stt_proto import Session as CoreSession
from stt_proto import SessionState
from stt_proto.types import Buffer, CloseReason

if TYPE_CHECKING:
    from stt_anyio.node import STTNode


class Session(SessionBase[Stream], AsyncResource, TypedAttributeProvider):
    """A session with a peer: streams, datagrams, and a life that ends for a reason.

    `async with session:` closes it at the end, gracefully; in a cancelled scope it is aborted.
    """

    stream_class = Stream
    node: STTNode

    def __init__(self, node: STTNode, core: CoreSession) -> None:
        super().__init__(node, core)
        loop = node.asyncio_loop
        self._accepted = Bell(loop)
        self._datagram = Bell(loop)
        self._frame = Bell(loop)
        self._openers = Bell(loop)
        self._changed = Bell(loop)

    # -- streams ---------------------------------------------------------------------------------------------------

    async def accept_stream(self) -> Stream:
        """Wait for the next stream that the peer opens.

        From the first call on, the session keeps its streams to itself and `node.receive()` leaves them alone.

        Raises:
            SessionClosedError: the session is over, and so are the streams that had come in.
        """
        self.claimed = True
        await checkpoint()
        while not self.incoming:
            if self.is_closed:
                raise self.ended()
            await self._accepted.wait()
        stream_id = next(iter(self.incoming))
        return self.incoming.pop(stream_id)

    def listener(self) -> Incoming[Stream]:
        """The streams that the peer opens, as an `anyio.abc.Listener`."""
        return Incoming(
            self.accept_stream,
            self._stream_failed,
            lambda: self.extra_attributes,
        )

    async def serve(
        self, handler: Callable[[Stream], Awaitable[Any]], task_group: anyio.abc.TaskGroup | None = None
    ) -> None:
        """Call `await handler(stream)` for each that the peer opens, in a task of its own, until the session is over.

        A handler that raises ends the session with reason `error`. Where it only learned that the peer has given a
        stream up, its own stream is reset, and the session goes on.
        """
        await self.listener().serve(handler, task_group)

    def _stream_failed(self, stream: Stream, error: BaseException) -> None:
        """Contain what a handler raised; that the peer wants no answer any more is no fault of the application."""
        gone = isinstance(error, StreamClosedError) and isinstance(error, anyio.BrokenResourceError)
        if not (gone and self.is_active()):
            self.node.handler_failed(error, self)
            return
        self.node.handler_gave_up(error, self)
        stream.reset()
        stream._close()

    async def request(
        self, data: Buffer, timeout: float | None = None, *, purpose: str = "", max_size: int = MAX_REPLY
    ) -> bytes:
        """Send a request on a stream of its own, end that direction, and return the whole answer.

        Args:
            data: the request.
            timeout: seconds in all, waiting for a stream included.
            purpose: a word for the peer, at most 255 bytes.
            max_size: bytes of the longest answer, 64 MiB when not given.

        Raises:
            NotSentError: nothing of it has left this machine, and nothing will. Also a `TimeoutError` when the time was
                over.
            OutcomeUnknownError: it was sent, at least in part, and there will be no answer: it may have been done.
                Also a `TimeoutError` when the time was over.
            StreamClosedError: the peer's answer was to reset the stream; `stream_code` tells why.
            BufferOverflowError: the answer is longer than `max_size`.
            ArgumentError: `data` is not bytes-like, or another argument is none.

        Cancelled, what had not been sent is withdrawn.
        """
        return await request(self, data, timeout, purpose, max_size)

    async def answer(self, handler: Handler, policy: AnswerPolicy | None = None) -> None:
        """Answer the peer's requests, as `STTNode.answer` does for all sessions, until the session is over."""
        await answer(self, handler, policy)

    async def wait_streams_available(self, *, bidirectional: bool = True) -> None:
        """Wait until `open_stream` is worth another try, after it raised `TooManyStreamsError`."""
        await checkpoint()
        while not self.is_closed:
            if bidirectional not in self.refused:
                return
            await self._openers.wait()
        raise self.ended()

    # -- datagrams -------------------------------------------------------------------------------------------------

    async def receive_datagram(self) -> bytes:
        """Wait for an unreliable datagram.

        Raises:
            SessionClosedError: the session is over.
        """
        await checkpoint()
        while (data := self.core.receive_datagram()) is None:
            if self.is_closed:
                raise self.ended()
            await self._datagram.wait()
        self.driver.written = 0
        return data

    @property
    def datagrams(self) -> SessionDatagrams:
        """The session's datagrams, as an `anyio.abc.UnreliableObjectStream`."""
        return SessionDatagrams(self)

    # -- frames of the application's own ---------------------------------------------------------------------------

    async def receive_frame(self) -> tuple[int, bytes]:
        """Wait for a frame of the application's own for which there is no handler; gives its type and its content.

        Raises:
            SessionClosedError: the session is over.
        """
        await checkpoint()
        while (frame := self._take_frame()) is None:
            if self.is_closed:
                raise self.ended()
            await self._frame.wait()
        return frame

    def _call_frame_handler(self, handler: Callback, data: bytes) -> None:
        def call() -> Awaitable[None] | None:
            result = handler(self, data)
            if not isawaitable(result):
                return None
            self.frames_at_work += 1
            return self._finish_frame(result)

        self.node._call(call, None)

    async def _finish_frame(self, result: Awaitable[Any]) -> None:
        """Wait for a handler; then there is room for the next."""
        try:
            await result
        finally:
            self.frames_at_work -= 1
            if self.node.running:
                self._on_frames()

    # -- keys ------------------------------------------------------------------------------------------------------

    async def rotate_key(self, timeout: float | None = None) -> int:
        """Replace the keys of both sides, and wait until both use the new ones; gives the new `key_version`.

        Nothing is lost, and nobody else has to wait. If keys are being replaced already, by either side, this joins in.
        It happens by itself too: see the node's `rotate_after_packets`, `rotate_after_bytes`, `rotate_after_seconds`.

        Args:
            timeout: seconds to wait; after that, or when cancelled, it still goes on.

        Raises:
            StateError: the peer cannot (its `capabilities` have no `"rotation"`).
            SessionClosedError: the session is over.
            TimeoutError: it is not done yet.
        """
        check_timeout(timeout)
        await checkpoint()
        version = self._begin_rotation()
        with within(timeout, "the keys were not replaced"):
            await self.wait_rotated(version)
        return version

    async def wait_rotated(self, version: int) -> None:
        """Wait until both sides use keys of this version, or a later one."""
        while not self._rotated(version):
            await self._changed.wait()

    # -- paths -----------------------------------------------------------------------------------------------------

    async def add_path(self, address: Any, transport: str | None = None, timeout: float | None = 10.0) -> None:
        """Open another way to the peer, beside those that there are; returns when the peer has answered there.

        The side that dialled goes on there by itself when it is better, or the only one.

        Args:
            address: where the peer is reached, as for `node.connect`; or a `NetworkPath` of one of the node's carriers.
            transport: the carrier to use, by name, as for `node.connect`.
            timeout: seconds in all; `None` for as long as the peer is asked, which is up to 8, and on UDP for as long
                as the session is detached.

        Raises:
            ConnectionTimeoutError: no answer in time; also a `TimeoutError`.
            ConnectionRefusedError: nobody listens there; also the builtin one.
            UnreachableError: the name is unknown, no way leads there, or the connection was closed.
            WebSocketHandshakeError, ProxyError, TlsError: as `node.connect_websocket` says.
            StateError: there are three beside the one in use already; or, of a move, that another was asked for.
            ArgumentError: `address` or `transport` is none.
            SessionClosedError: the session is over.

        Whatever is raised, and when it is cancelled: what was opened is closed, and the session is where it was.
        """
        await checkpoint()
        await self.node.take(self, address, transport, timeout, migrate=False)

    async def migrate(self, address: Any = None, transport: str | None = None, timeout: float | None = 10.0) -> None:
        """Go on over another way to the peer; returns when the session does. What streams carry is not disturbed.

        Without an address it goes on over UDP from another port of this machine to where the peer is: for when the
        network has changed, or so that who watches does not know the session again. Then the way so far is given up
        a moment later, up to 1 s, and the port that nothing needs any more is closed: that of the node too, unless
        the node accepts sessions or was told its port.

        It brings a session back that is detached. The way so far is kept as long as it works, and until the new one
        is lost the session stays there, also if another one is better.

        Args, Raises:
            as for `add_path`; and `StateError` without an address when the session has no path over UDP.
        """
        await checkpoint()
        await self.node.take(self, address, transport, timeout, migrate=True)

    async def wait_settled(self, attempt: Attempt) -> None:
        """Wait until it is known what becomes of a path."""
        while not attempt.settled and not self.is_closed:
            await self._changed.wait()

    async def wait_until(self, look: Callable[[], bool]) -> None:
        """Wait until something holds that has to do with paths, or the session is over."""
        while not (look() or self.is_closed):
            await self._changed.wait()

    # -- ending ----------------------------------------------------------------------------------------------------

    async def close(self, reason: str = "graceful", detail: str = "") -> None:
        """Close: what streams have accepted is delivered, the peer is told, and that is acknowledged.

        Delivery takes 10 s at most. Returns when the session is over, at once if it is over already. Cancelled, it
        aborts.

        Args:
            reason: `"graceful"`, `"timeout"`, `"error"` or `"auth_failure"`: the peer's `close_reason`.
            detail: a sentence for the peer, at most 512 bytes.

        Raises:
            ArgumentError: one of them is something else.
        """
        try:
            await checkpoint()
            self.begin_close(reason, detail)
            await self.wait_closed()
        except anyio.get_cancelled_exc_class():
            self.abort()
            raise

    async def aclose(self) -> None:
        """Close gracefully; in a cancelled scope, abort."""
        await self.close()

    async def wait_closed(self) -> str:
        """Wait until the session is over, and say why: `graceful`, `timeout`, `error` or `auth_failure`."""
        await checkpoint()
        while not self.is_closed:
            await self._changed.wait()
        return self.close_reason or str(CloseReason.GRACEFUL)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close(str(CloseReason.GRACEFUL if kind is None else CloseReason.ERROR))

    # -- being woken -----------------------------------------------------------------------------------------------

    async def wait_established(self) -> None:
        """Wait until the handshake is through or has failed."""
        while self.state in (SessionState.INIT, SessionState.HANDSHAKING):
            await self._changed.wait()

    def on_established(self) -> None:
        self._changed.ring()

    def _wake_accept(self) -> None:
        self._accepted.ring()

    def _wake_datagrams(self) -> None:
        self._datagram.ring()

    def _wake_frames(self) -> None:
        self._frame.ring()

    def _wake_openers(self) -> None:
        self._openers.ring()

    def _wake_rotation(self) -> None:
        self._changed.ring()

    def _wake_moves(self) -> None:
        self._changed.ring()

    def _wake_all(self) -> None:
        for bell in (self._accepted, self._datagram, self._frame, self._openers, self._changed):
            bell.ring()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """`SttAttribute` and `anyio.abc.SocketAttribute`, as far as they apply."""
        return attributes_of(self)


class SessionDatagrams(UnreliableObjectStream[bytes]):
    """The datagrams of a session. Closing this closes nothing: they belong to the session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._closed = False

    async def receive(self) -> bytes:
        """Wait for a datagram; `EndOfStream` when the session has been closed gracefully."""
        if self._closed:
            await checkpoint()
            raise anyio.ClosedResourceError
        try:
            return await self._session.receive_datagram()
        except anyio.BrokenResourceError:
            if self._session.close_reason == CloseReason.GRACEFUL:
                raise anyio.EndOfStream from None
            raise

    async def send(self, item: bytes) -> None:
        """Send a datagram; when too many wait, the oldest is dropped."""
        await checkpoint()
        if self._closed:
            raise anyio.ClosedResourceError
        self._session.send_datagram(item)

    async def aclose(self) -> None:
        self._closed = True
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._session.extra_attributes
