"""A client that comes back, without an event loop: see `stt_anyio/reconnecting.py`.

There is no thread that keeps the session up: it is looked after, and dialled again, in the calls that need it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from stt_anyio.blocking.requests import Deadline, exchange
from stt_anyio.blocking.session import BlockingSession
from stt_anyio.errors import ArgumentError, BufferOverflowError, StateError, SttError
from stt_anyio.operation import MAX_REPLY, Operation
from stt_anyio.reconnecting_base import WITHIN_PREPARE, Peer, Reconnecting, lost_at_once
from stt_proto import Ticket
from stt_proto.reconnect import Connected, ReconnectPolicy
from stt_proto.types import Buffer

if TYPE_CHECKING:
    from stt_anyio.blocking.ways import BlockingWays


class BlockingReconnectingClient(Reconnecting[BlockingSession]):
    """A peer, and a session with it whenever one is asked for. Made by `BlockingNode.reconnecting`.

    As `ReconnectingClient`, but it dials within `session` and `request`, in the thread that calls; other threads that
    call meanwhile wait for that.
    """

    def __init__(
        self,
        node: BlockingWays,
        peer: Peer,
        policy: ReconnectPolicy | None = None,
        ticket: Ticket | None = None,
        prepare: Callable[[BlockingSession], Any] | None = None,
    ) -> None:
        super().__init__(node, peer, policy, ticket, prepare)
        self.node = node
        self._prepare = prepare
        self._dialling = threading.Lock()
        self._dialler: int | None = None  # the thread that has it

    def _now(self) -> float:
        return time.monotonic()

    def _tell(self) -> None:
        """Nobody iterates over states here."""

    def session(self, timeout: float | None = None) -> BlockingSession:
        """The session that there is; dials for one, and again, for as long as that may help.

        Raises:
            TimeoutError: there was none in time.
            SttError: what it was given up for.
            SessionClosedError: it was closed; also an `anyio.ClosedResourceError`.
            StateError: this is `prepare`, for which everybody waits; it has the session as its argument.
        """
        self._check_outside()
        deadline = Deadline(timeout)
        left = deadline.left
        if not self._dialling.acquire(timeout=-1 if left is None else min(left, threading.TIMEOUT_MAX)):
            raise TimeoutError(f"no session within {timeout:g} seconds")
        self._dialler = threading.get_ident()
        try:
            if self._session is not None:
                self.node.poll()  # it may have ended long ago, in a program that calls seldom
            while (session := self._now_live()) is None:
                wait = self._engine.next_dial - self._now()
                if wait <= 0:
                    self._try(deadline)
                else:
                    self._wait(deadline.least(wait))
                if deadline.left == 0 and self._now_live() is None:
                    raise TimeoutError(f"no session within {timeout:g} seconds")
            return session
        finally:
            self._dialler = None
            self._dialling.release()

    def _check_outside(self) -> None:
        if self._dialler == threading.get_ident():
            raise StateError(WITHIN_PREPARE)

    def _now_live(self) -> BlockingSession | None:
        with self.node.lock:
            self._look()
            return self._live()

    def _wait(self, seconds: float | None) -> None:
        """Wait until it is time to dial; or for what happens to the session before that, or for `close`."""
        session, connected = self._session, isinstance(self.state, Connected)

        def look() -> bool | None:
            changed = session is not None and (session.is_closed or session.is_detached is connected)
            return True if changed or self._engine.is_over else None

        with suppress(TimeoutError):
            self.node.until(look, None if seconds == inf else seconds)

    def _try(self, deadline: Deadline) -> None:
        """Find the session that is detached, or dial."""
        with self.node.lock:
            ticket, old = self._begin(), self._session
        try:
            if old is not None:
                if self._reattach(old, deadline):
                    with self.node.lock:
                        self._on_reattached(old)
                    return
                self._leave()
            session = self._dial(ticket, deadline)
        except Exception as error:
            with self.node.lock:
                self._on_failed(error)
        except BaseException:  # Ctrl-C; the program may go on, and call again
            with self.node.lock:
                self._engine.withdrawn(self._now())
            raise
        else:
            with self.node.lock:
                self._on_dialled(session)

    def _reattach(self, session: BlockingSession, deadline: Deadline) -> bool:
        """Whether a detached session has a path again: it is looked for over every way to the peer."""
        for address, transport in self._home.ways():
            if session.is_closed or not session.is_detached:
                break
            with suppress(SttError, OSError):
                session.add_path(address, transport, deadline.least(self._reattaching))
        return self._is_back(session)

    def _dial(self, ticket: Ticket | None, deadline: Deadline) -> BlockingSession:
        """Dial, and have the application do with the session what it does with each."""
        peer, timeout = self._peer, deadline.least(self._peer.timeout)
        session = self.node.connect(
            peer.address, peer.peer_node_id, timeout, peer.transport, websocket=peer.websocket, ticket=ticket
        )
        try:
            if self._prepare is not None:
                self._prepare(session)
        except BaseException as error:
            if (lost := lost_at_once(session, error)) is not None:
                raise lost from error
            session.abort()
            raise
        return session

    def request(
        self,
        data: Buffer,
        timeout: float | None = None,
        *,
        repeat: bool = False,
        purpose: str = "",
        max_size: int = MAX_REPLY,
    ) -> bytes:
        """Send a request on a stream of its own, end that direction, and return the whole answer.

        Arguments and errors are those of `ReconnectingClient.request`.
        """
        self._check_outside()
        operation, deadline = Operation(data, repeat=repeat), Deadline(timeout)
        while True:
            try:
                session = self.session(deadline.left)
            except Exception as error:
                if type(error) is TimeoutError:
                    raise operation.timed_out(timeout) from None
                raise operation.failed(str(error)) from error
            try:
                return exchange(session, operation, deadline, purpose, max_size)
            except SttError as error:
                if isinstance(error, ArgumentError | BufferOverflowError):
                    raise
                operation.goes_on_after(error, session_is_over=not session.is_active())
            except TimeoutError:
                raise operation.timed_out(timeout) from None

    def close(self) -> None:
        """End for good, and close the session gracefully; threads that wait are told."""
        with self.node.lock:
            self._engine.close()
            self.node._stir()
            session = self._session
        if session is not None:
            session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
