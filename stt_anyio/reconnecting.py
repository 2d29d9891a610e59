"""A client that comes back by itself: one peer, one session after the other, and requests that outlive them.

When to dial is decided by `stt_proto.reconnect`; here is who dials. Under asyncio and trio that is a task of the node;
`blocking/reconnecting.py` is the same without one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import anyio
from anyio.abc import AsyncResource
from anyio.lowlevel import checkpoint

from stt_anyio.errors import ArgumentError, BufferOverflowError, StateError, SttError
from stt_anyio.operation import MAX_REPLY, Operation
from stt_anyio.reconnecting_base import WITHIN_PREPARE, Peer, Reconnecting, lost_at_once
from stt_anyio.requests import exchange
from stt_anyio.session import Session
from stt_anyio.waiting import Bell, Feed, as_failure, finish, inside, is_failure, up_to
from stt_proto import Ticket
from stt_proto.reconnect import Connected, ReconnectPolicy, State
from stt_proto.types import Buffer

if TYPE_CHECKING:
    from stt_anyio.ways import Ways

MAX_STATES = 100
"""States that wait for one who iterates over them; the oldest goes first."""


class ReconnectingClient(Reconnecting[Session], AsyncResource):
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
        policy: ReconnectPolicy | None = None,
        ticket: Ticket | None = None,
        prepare: Callable[[Session], Awaitable[Any]] | None = None,
    ) -> None:
        super().__init__(node, peer, policy, ticket, prepare)
        self.node = node
        self._prepare = prepare
        self._changed = Bell()
        self._watchers: WeakSet[_States] = WeakSet()
        self._scope = anyio.CancelScope()
        self._finished = anyio.Event()
        self._task: int | None = None
        node.start_task(self._run)

    # -- looking on ------------------------------------------------------------------------------------------------

    def events(self) -> Feed[State]:
        """`async for state in client.events()`: how it stands, and each change from now on, until it is over.

        Of changes that nobody takes the last 100 are kept.
        """
        states = _States()
        states.put(self.state)
        self._watchers.add(states)
        return Feed(states.take, self._changed, lambda: self._engine.is_over)

    async def session(self) -> Session:
        """The session that there is; waits for one.

        Raises:
            SttError: what it was given up for.
            SessionClosedError: it was closed; also an `anyio.ClosedResourceError`.
            StateError: this is `prepare`, for which everybody waits; it has the session as its argument.
        """
        await checkpoint()
        self._check_outside()
        while (session := self._live()) is None:
            await self._changed.wait()
        return session

    def _check_outside(self) -> None:
        if self._task == anyio.get_current_task().id:
            raise StateError(WITHIN_PREPARE)

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
            StateError: this is `prepare`, for which everybody waits.

        Cancelled, what had not been sent is withdrawn.
        """
        self._check_outside()
        operation = Operation(data, repeat=repeat)
        with up_to(timeout):
            while True:
                try:
                    session = await self.session()
                except Exception as error:
                    raise operation.failed(str(error)) from error
                try:
                    return await exchange(session, operation, purpose, max_size)
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
            await finish(self._finished, self)

    async def close(self) -> None:
        """The same as `aclose`."""
        await self.aclose()

    def _end(self) -> None:
        """Nobody dials any more."""
        if not self._engine.is_over:
            self._engine.close()
            self._tell()
        self._scope.cancel()

    # -- the task --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        self._task = anyio.get_current_task().id
        try:
            with self._scope:
                while not self._engine.is_over:
                    await self._wait()
                    self._look()
                    if self._engine.next_dial <= self._now():
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

    async def _wait(self) -> None:
        """Wait until it is time to dial, or the session lost its path, found one, or ended."""
        session, connected = self._session, isinstance(self.state, Connected)
        with anyio.CancelScope(deadline=self._engine.next_dial):
            if session is None:
                await anyio.sleep_forever()
            else:
                await session.wait_until(lambda: session.is_detached is connected)

    async def _try(self) -> None:
        """Find the session that is detached, or dial."""
        ticket, old = self._begin(), self._session
        if old is not None:
            if await self._reattach(old):
                self._on_reattached(old)
                return
            self._leave()
        try:
            session = await self._dial(ticket)
        except BaseException as error:
            if not is_failure(error):
                raise
            self._on_failed(as_failure(error))
        else:
            self._on_dialled(session)

    async def _reattach(self, session: Session) -> bool:
        """Whether a detached session has a path again: it is looked for over every way to the peer."""
        for address, transport in self._home.ways():
            if session.is_closed or not session.is_detached:
                break
            with suppress(SttError, OSError):
                await session.add_path(address, transport, self._reattaching)
        return self._is_back(session)

    async def _dial(self, ticket: Ticket | None) -> Session:
        """Dial, and have the application do with the session what it does with each."""
        peer = self._peer
        session = await self.node.connect(
            peer.address, peer.peer_node_id, peer.timeout, peer.transport, websocket=peer.websocket, ticket=ticket
        )
        try:
            if self._prepare is not None:
                with inside(self, self.node):
                    await self._prepare(session)
        except BaseException as error:
            if is_failure(error) and (lost := lost_at_once(session, as_failure(error))) is not None:
                raise lost from error
            session.abort()
            raise
        return session


class _States:
    """What one iteration over states has before it."""

    __slots__ = ("__weakref__", "_waiting")

    def __init__(self) -> None:
        self._waiting: deque[State] = deque(maxlen=MAX_STATES)

    def put(self, state: State) -> None:
        self._waiting.append(state)

    def take(self) -> State | None:
        return self._waiting.popleft() if self._waiting else None
