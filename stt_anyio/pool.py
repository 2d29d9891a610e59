"""A pool of sessions: one for each peer, dialled once however many ask, and shared by all of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import AsyncResource
from anyio.lowlevel import checkpoint

from stt_anyio.dial_errors import no_answer
from stt_anyio.errors import (
    ArgumentError,
    SessionClosedError,
    SttError,
    TooManySessionsError,
    closed_here,
    connection_failed,
)
from stt_anyio.session import Session
from stt_anyio.timeouts import check_timeout
from stt_proto.manager.checks import check_node_id

if TYPE_CHECKING:
    from stt_anyio.ways import Ways

MAX_SESSIONS = 65_536


class _Entry:
    """A peer: its session, or the dial that leads to it.

    Attributes:
        session, error: what has come of the dial; neither when its time was over.
        dialled: set then.
        scope: of the dial, whose deadline is that of the most patient of those who wait for it.
        users: those who wait for the dial, and leases: while there are some, the session is not closed to make room.
    """

    __slots__ = ("dialled", "error", "scope", "session", "users")

    def __init__(self) -> None:
        self.session: Session | None = None
        self.error: Exception | None = None
        self.dialled = anyio.Event()
        self.scope = anyio.CancelScope(deadline=-inf)
        self.users = 0

    @property
    def is_useless(self) -> bool:
        """Whether it was dialled, and nothing is left of that."""
        return self.dialled.is_set() and (self.session is None or not self.session.is_active())

    @property
    def is_idle(self) -> bool:
        """Whether nobody would miss it."""
        session = self.session
        if self.users or session is None or session.streams or session.incoming:
            return False
        record = session.record
        return not (record is not None and record.requests) and session.core not in session.node.broadcaster

    @contextmanager
    def used(self) -> Iterator[None]:
        """One more needs it."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    async def wait(self, until: float) -> None:
        """Wait for the dial, which goes on at least as long."""
        if not self.dialled.is_set():  # else nothing may happen between the look at the session and its use
            self.scope.deadline = max(self.scope.deadline, until)
            with self.used():
                await self.dialled.wait()

    def result(self) -> Session | None:
        """What has come of the dial; `None` when its time was over. Raises what `connect` would."""
        if isinstance(self.error, SttError):
            raise connection_failed(self.error) from self.error  # a new one for each who waits
        if self.error is not None:
            raise self.error
        if self.session is not None and not self.session.is_active():
            raise connection_failed(self.session.ended())
        return self.session


class SessionPool(AsyncResource):
    """Sessions that are dialled when they are first asked for. Made by `STTNode.pool`.

    A peer is who has the `peer_node_id` that was asked for, wherever; without one, who answers at an address. A session
    that has ended is dialled again by the next who asks. `async with pool:` closes all of them at the end.

    Args:
        node: who dials.
        max_sessions: peers at once, 1 to 65,536. For one more, the session goes that was asked for longest ago among
            those that nobody has leased and on which nothing is in flight: no stream, tracked request or broadcast.

    Raises:
        ArgumentError: `max_sessions` is out of its range.
    """

    def __init__(self, node: Ways, max_sessions: int = 100) -> None:
        if type(max_sessions) is not int or not 1 <= max_sessions <= MAX_SESSIONS:
            raise ArgumentError(
                f"max_sessions is {max_sessions!r}; it must be a whole number from 1 to {MAX_SESSIONS:,}",
                argument="max_sessions",
            )
        self._node = node
        self._max = max_sessions
        self._entries: OrderedDict[Any, _Entry] = OrderedDict()  # the one asked for longest ago first
        self._closed = False

    def __len__(self) -> int:
        """The sessions that are there, and the dials."""
        return sum(not entry.is_useless for entry in self._entries.values())

    async def get_or_create(
        self,
        address: Any,
        peer_node_id: bytes | None = None,
        timeout: float | None = 10.0,
        transport: str | None = None,
    ) -> Session:
        """The session with a peer; it is dialled if there is none.

        All who ask meanwhile wait for the same dial, each as long as his `timeout`, and get the same error. The dial
        goes on as long as any of them would wait; one who is cancelled, or less patient, takes nothing from the others.

        Args:
            address, peer_node_id, timeout, transport: as for `STTNode.connect`.

        Raises:
            SttError: all that `connect` raises.
            TooManySessionsError: the pool is full, and all in it are in use.
            SessionClosedError: the pool is closed; or the session ended as soon as it was there.
        """
        return (await self._entry(address, peer_node_id, timeout, transport))[1]

    @asynccontextmanager
    async def lease(
        self,
        address: Any,
        peer_node_id: bytes | None = None,
        timeout: float | None = 10.0,
        transport: str | None = None,
    ) -> AsyncIterator[Session]:
        """The same, as `async with pool.lease(...) as session:`: it is not closed to make room inside."""
        entry, session = await self._entry(address, peer_node_id, timeout, transport)
        with entry.used():
            yield session

    async def _entry(
        self, address: Any, peer_node_id: bytes | None, timeout: float | None, transport: str | None
    ) -> tuple[_Entry, Session]:
        check_timeout(timeout)
        await checkpoint()
        with anyio.move_on_after(timeout) as patience:
            while True:
                entry = self._current(address, peer_node_id, transport)
                await entry.wait(patience.deadline)
                self._check_open()
                session = entry.result()
                if session is not None:
                    return entry, session
                if anyio.current_time() >= patience.deadline:
                    break  # else another one's time was over, who asked just before this one did
        raise no_answer(address, timeout)

    def _current(self, address: Any, peer_node_id: bytes | None, transport: str | None) -> _Entry:
        """What there is of a peer, or a dial that begins now."""
        self._check_open()
        self._node.driver  # noqa: B018  # raises when the node is not running
        carrier = self._node.carrier_for(transport).name
        if peer_node_id is not None:
            check_node_id(peer_node_id)
        key = (carrier, address) if peer_node_id is None else peer_node_id
        try:
            entry = self._entries.get(key)
        except TypeError:
            raise ArgumentError(f"address is {address!r}; it must be hashable here", argument="address") from None
        if entry is None or entry.is_useless:
            entry = self._begin(key, entry, (address, peer_node_id, None, transport))
        self._entries.move_to_end(key)
        return entry

    def _check_open(self) -> None:
        if self._closed:
            raise closed_here(SessionClosedError("the pool is closed"))

    def _begin(self, key: Any, old: _Entry | None, arguments: tuple[Any, ...]) -> _Entry:
        if old is None and len(self._entries) >= self._max:
            self._make_room()
        entry = self._entries[key] = _Entry()
        try:
            self._node.start_task(self._dial, key, entry, arguments)
        except BaseException:
            del self._entries[key]
            raise
        return entry

    def _make_room(self) -> None:
        for useless in (True, False):
            for key, entry in self._entries.items():
                if entry.is_useless if useless else entry.is_idle:
                    del self._entries[key]
                    if entry.session is not None:
                        entry.session.begin_close()
                    return
        raise TooManySessionsError(f"the pool has {self._max:,} sessions, and all are in use")

    async def _dial(self, key: Any, entry: _Entry, arguments: tuple[Any, ...]) -> None:
        """In a task of the node, so that it is nobody's who may be cancelled."""
        over = True
        try:
            with entry.scope:
                entry.session = await self._node.connect(*arguments)
            over = self._closed
        except Exception as error:
            entry.error = error
        finally:  # also when the node stops
            if entry.session is None:
                if over and entry.error is None:
                    entry.error = closed_here(SessionClosedError("the pool was closed, or its node stopped"))
                if self._entries.get(key) is entry:
                    del self._entries[key]
            elif self._closed:
                entry.session.begin_close()  # it came in the moment in which the pool was closed
            entry.dialled.set()

    async def aclose(self) -> None:
        """Close all its sessions, and end its dials; in a cancelled scope, abort them."""
        self._closed = True
        entries, self._entries = self._entries, OrderedDict()
        async with anyio.create_task_group() as tasks:
            for entry in entries.values():
                entry.scope.cancel()
                tasks.start_soon(_end, entry)

    async def close(self) -> None:
        """The same as `aclose`."""
        await self.aclose()


async def _end(entry: _Entry) -> None:
    try:
        await entry.dialled.wait()
    finally:
        if entry.session is not None:
            await entry.session.close()
