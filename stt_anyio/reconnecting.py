"""A client that comes back by itself: one peer, one session after the other, and requests that outlive them.

When to dial is decided by `stt_proto.reconnect`; here is who dials. Under asyncio and trio that is a task of the node;
`blocking/reconnecting.py` is the same without one.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

import anyio
from anyio.abc import AsyncResource
from anyio.lowlevel import checkpoint
from attrs import frozen

from stt_anyio.errors import (
    ArgumentError,
    BufferOverflowError,
    SessionClosedError,
    SttError,
    TooManyStreamsError,
    closed_here,
    connection_failed,
)
from stt_anyio.links import WebSocketTarget
from stt_anyio.operation import Operation
from stt_anyio.session import Session
from stt_anyio.stream import Stream
from stt_anyio.waiting import Bell, Feed
from stt_proto import Ticket
from stt_proto.reconnect import Connected, GivenUp, Reconnector, ReconnectPolicy, State
from stt_proto.types import Buffer

if TYPE_CHECKING:
    from stt_anyio.ways import Ways

MAX_REPLY = 64 << 20
"""Bytes of an answer that `request` collects."""
MAX_STATES = 100
"""States that wait for one who iterates over them; the oldest goes first."""
REATTACHING = 3.0
"""Seconds that each way has to bring a detached session back before a new one is dialled."""


@frozen(kw_only=True)
class Peer:
    """Whom to dial, and how: the arguments of `connect`."""

    address: Any
    peer_node_id: bytes | None = None
    transport: str | None = None
    websocket: WebSocketTarget | None = None
    timeout: float | None = 10.0

    def ways(self) -> list[tuple[Any, str | None]]:
        """The addresses to find a detached session at, the best first."""
        other = [] if self.websocket is None else [(self.websocket, "ws")]
        return [(self.address, self.transport), *other]


class ReconnectingClient(AsyncResource):
    """A peer, and a session with it for as long as that can be had. Made by `STTNode.reconnecting`.

    When the session ends, and neither the client nor that session was closed here, the peer is dialled again: with the
    last ticket, so in one round trip where the peer still takes it. A session that lost its path is first looked for
    over every way there is, which loses nothing. Between tries there are the waits of the policy. It ends when it is
    closed, when the node stops, or with the error that makes trying useless: another seed, say.
    """

    def __init__(
        self,
        node: Ways,
        peer: Peer,
        policy: ReconnectPolicy,
        ticket: Ticket | None = None,
        prepare: Callable[[Session], Awaitable[Any]] | None = None,
    ) -> None:
        self.node = node
        self._peer = peer
        self._prepare = prepare
        self._engine = Reconnector(policy, now=node.driver.clock(), entropy=os.urandom, ticket=ticket)
        self._session: Session | None = None
        self._changed = Bell()
        self._watchers: WeakSet[_States] = WeakSet()
        self._scope = anyio.CancelScope()
        self._finished = anyio.Event()
        self._sessions = 0
        node.start_task(self._run)

    # -- looking on ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """How it stands: a value of one of the classes of `stt_proto.reconnect`."""
        return self._engine.state

    @property
    def sessions(self) -> int:
        """How many sessions there have been."""
        return self._sessions

    def events(self) -> Feed[State]:
        """`async for state in client.events()`: how it stands, and each change from now on, until it is over.

        Of changes that nobody takes the last 100 are kept.
        """
        states = _States()
        states.put(self.state)
        self._watchers.add(states)
        return Feed(states.take, self._changed, lambda: self._engine.is_over)

    def __repr__(self) -> str:
        return f"<ReconnectingClient of {self._peer.address!r}, {self.state!r}>"

    async def session(self) -> Session:
        """The session that there is; waits for one.

        Raises:
            SttError: what it was given up for.
            SessionClosedError: it was closed; also an `anyio.ClosedResourceError`.
        """
        await checkpoint()
        while True:
            session = self._session
            if session is not None and isinstance(self.state, Connected) and session.is_active():
                return session
            if isinstance(self.state, GivenUp):
                error = self.state.error
                raise connection_failed(error) if isinstance(error, SttError) else error  # a new object for each
            if self._engine.is_over:
                raise closed_here(SessionClosedError("the client has been closed"))
            await self._changed.wait()

    # -- requests --------------------------------------------------------------------------------------------------

    async def request(
        self,
        data: Buffer,
        *,
        timeout: float | None = None,
        repeat: bool = False,
        purpose: str = "",
        max_size: int = MAX_REPLY,
    ) -> bytes:
        """Send a request on a stream of its own, end that direction, and return the whole answer.

        As long as nothing of it has left this machine it goes out on the next session, if one ends under it.

        Args:
            data: the request.
            timeout: seconds in all, waiting for a session included.
            repeat: send it again, on the next session, though it may have been done: for what does no harm twice.
            purpose: a word for the peer, at most 255 bytes.
            max_size: bytes of the longest answer, 64 MiB when not given.

        Raises:
            NotSentError: nothing of it has left this machine, and nothing will: there was no session in time, or there
                will be none. Also a `TimeoutError` when the time was over.
            OutcomeUnknownError: it was sent, at least in part, and there will be no answer: it may have been done.
                Also a `TimeoutError` when the time was over.
            StreamClosedError: the peer's answer was to reset the stream.
            BufferOverflowError: the answer is longer than `max_size`.
            ArgumentError: `data` is not bytes-like, or another argument is none.

        Cancelled, what had not been sent is withdrawn.
        """
        operation = Operation(data, repeat=repeat)
        with anyio.move_on_after(timeout):
            while True:
                try:
                    session = await self.session()
                except Exception as error:
                    raise operation.failed(str(error)) from error
                try:
                    return await _exchange(session, operation, purpose, max_size)
                except SttError as error:
                    if isinstance(error, ArgumentError | BufferOverflowError):
                        raise
                    operation.goes_on_after(error, session_is_over=not session.is_active())
        raise operation.timed_out(timeout)

    # -- ending ----------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End for good, and close the session gracefully; in a cancelled scope, abort it."""
        self._end()
        try:
            if self._session is not None:
                await self._session.close()
        finally:
            with anyio.CancelScope(shield=True):
                await self._finished.wait()

    async def close(self) -> None:
        """The same as `aclose`."""
        await self.aclose()

    def _end(self) -> None:
        """Nobody dials any more."""
        if not self._engine.is_over:
            self._engine.close()
            self._tell()
        self._scope.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # -- the task --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            with self._scope:
                while not self._engine.is_over:
                    if isinstance(self.state, Connected):
                        await self._watch()
                    elif await self._is_time():
                        await self._try()
        finally:
            self._end()  # also when the node stops, which cancels its tasks
            self._finished.set()

    def _tell(self) -> None:
        for states in self._watchers:
            states.put(self.state)
        self._changed.ring()

    def _now(self) -> float:
        return anyio.current_time()

    async def _watch(self) -> None:
        """Wait until the session has no path, or has ended."""
        session = self._session
        assert session is not None
        await session.wait_until(lambda: session.is_detached)
        self._engine.keep(session.ticket)
        if session.is_closed:
            self._on_end(session)
        else:
            self._engine.detached(self._now())
            self._tell()

    def _on_end(self, session: Session) -> None:
        """The session has ended: whoever ended it here wants no other."""
        self._session = None
        if session.ended_here:
            self._engine.close()
        else:
            self._engine.lost(session.close_reason or "error", session.core.close_error, self._now())
        self._tell()

    async def _is_time(self) -> bool:
        """Wait until it is time to dial; not if a session that was detached came back, or ended, before that."""
        session = self._session
        with anyio.CancelScope(deadline=self._engine.next_dial):
            if session is None:
                await anyio.sleep_forever()
            else:
                await session.wait_until(lambda: not session.is_detached)
        if session is None or (session.is_detached and not session.is_closed):
            return True
        if session.is_closed:
            self._on_end(session)
        else:
            self._engine.connected(self._now(), resumed=session.resumed)
            self._tell()
        return False

    async def _try(self) -> None:
        """Find the session that is detached, or dial."""
        ticket = self._engine.dial()
        self._tell()
        old = self._session
        if old is not None and await self._reattach(old):
            self._engine.connected(self._now(), resumed=old.resumed)
            self._tell()
            return
        try:
            session = await self._dial(ticket)
        except Exception as error:
            if not isinstance(error, SttError):
                self.node.handler_failed(error, None)  # out of `prepare`
            self._engine.failed(error, self._now())
        else:
            if old is None or not self._is_back(old):
                self._sessions += 1
                self._session = session
            else:
                session.abort()
            self._engine.connected(self._now(), resumed=session.resumed)
        if old is not None:
            self._leave(old)
        self._tell()

    def _is_back(self, session: Session) -> bool:
        """Whether a session that was detached goes on."""
        return not (session.is_closed or session.is_detached)

    def _leave(self, old: Session) -> None:
        """After a try: what becomes of the session that was detached."""
        if old.ended_here:  # the application closed it meanwhile
            self._engine.close()
            if self._session is not None:
                self._session.abort()
        elif self._session is not old or self._engine.is_over:
            old.abort()  # the peer is there, and does not know it any more; or nobody wants it
        elif old.is_closed:
            self._session = None

    async def _dial(self, ticket: Ticket | None) -> Session:
        """Dial, and have the application do with the session what it does with each."""
        peer = self._peer
        session = await self.node.connect(
            peer.address, peer.peer_node_id, peer.timeout, peer.transport, websocket=peer.websocket, ticket=ticket
        )
        try:
            if self._prepare is not None:
                await self._prepare(session)
        except BaseException as error:
            if isinstance(error, SttError) and session.is_closed and not session.ended_here:
                raise SessionClosedError(f"the session ended at once: {error}", reason="error") from error
            session.abort()
            raise
        return session

    async def _reattach(self, session: Session) -> bool:
        """Whether a detached session has a path again: it is looked for over every way to the peer."""
        for address, transport in self._peer.ways():
            if session.is_closed or not session.is_detached:
                break
            with suppress(SttError, OSError):
                await session.add_path(address, transport, REATTACHING)
        return self._is_back(session)


async def _exchange(session: Session, operation: Operation, purpose: str, max_size: int) -> bytes:
    """One try at a request."""
    while True:
        try:
            stream = session.open_stream(purpose=purpose)
            break
        except TooManyStreamsError:
            await session.wait_streams_available()
    answer = bytearray()
    failure: SttError | None = None

    async def send() -> None:
        with suppress(SttError):  # the peer has read enough; or `receive` tells
            await stream.send(operation.data)
            await stream.send_eof()

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            try:
                await _collect(stream, answer, max_size)
            except SttError as error:
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
    except BaseException:
        operation.note(stream, len(answer))
        stream.reset()  # so that the peer does not take a part of the request for all of it
        raise
    finally:
        stream._close()
    return bytes(answer)


async def _collect(stream: Stream, answer: bytearray, max_size: int) -> None:
    with suppress(anyio.EndOfStream):
        while True:
            answer += await stream.receive()
            if len(answer) > max_size:
                raise BufferOverflowError(f"the answer is longer than {max_size:,} bytes")


class _States:
    """What one iteration over states has before it."""

    __slots__ = ("__weakref__", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[State] = deque(maxlen=MAX_STATES)

    def put(self, state: State) -> None:
        self._waiting.append(state)

    def take(self) -> State | None:
        return self._waiting.popleft() if self._waiting else None
