"""What the reconnecting clients of all hosts have in common: everything but the waiting and the dialling."""

from __future__ import annotations

import os
from abc import abstractmethod
from typing import Any, Generic, TypeVar

from attrs import evolve, field, frozen
from attrs.converters import optional

from stt_anyio.dial_errors import spoken
from stt_anyio.errors import ArgumentError, SessionClosedError, SttError, closed_here, connection_failed
from stt_anyio.links import WebSocketTarget, target_of
from stt_anyio.node_base import NodeBase
from stt_anyio.session_base import SessionBase
from stt_anyio.timeouts import check_timeout
from stt_proto import Ticket
from stt_proto.reconnect import Connected, GivenUp, Reconnector, ReconnectPolicy, State

REATTACHING = 3.0
"""Seconds that each way has to bring a detached session back before a new one is dialled; the first wait of the policy,
where that is shorter and there are other addresses to dial."""
WITHIN_PREPARE = "`prepare` waits for what waits for it: use the session that it is given"

SessionT = TypeVar("SessionT", bound=SessionBase[Any])


def _addresses(addresses: Any) -> tuple[Any, ...]:
    if not isinstance(addresses, list | tuple) or any(isinstance(address, int | None) for address in addresses):
        raise ArgumentError("addresses is no list of addresses", argument="addresses")
    return tuple(addresses)


@frozen(kw_only=True)
class Peer:
    """Whom to dial, and how: the arguments of `connect`, and where else the same node is.

    Raises:
        ArgumentError: `others` is no list of addresses (one pair of host and port is none), `websocket` no target, or
            `timeout` none.
    """

    address: Any = field(repr=False)  # a URL may hold a password
    others: tuple[Any, ...] = field(default=(), repr=False, converter=_addresses)
    peer_node_id: bytes | None = None
    transport: str | None = None
    websocket: WebSocketTarget | None = field(default=None, converter=optional(target_of))
    timeout: float | None = field(default=10.0, validator=lambda *given: check_timeout(given[2]))

    def ways(self) -> list[tuple[Any, str | None]]:
        """The addresses to find a detached session at, the best first."""
        other = [] if self.websocket is None else [(self.websocket, "ws")]
        return [(self.address, self.transport), *other]

    def elsewhere(self) -> Peer:
        """The same at its next address; after the last comes the first."""
        first, *rest = *self.others, self.address
        return evolve(self, address=first, others=tuple(rest))


class Reconnecting(Generic[SessionT]):
    """A client that comes back, but for the waiting."""

    def __init__(
        self, node: NodeBase[SessionT], peer: Peer, policy: ReconnectPolicy | None, ticket: Ticket | None, prepare: Any
    ) -> None:
        policy = ReconnectPolicy() if policy is None else policy
        for name, value, fits, allowed in (
            ("policy", policy, isinstance(policy, ReconnectPolicy), "a ReconnectPolicy"),
            ("ticket", ticket, isinstance(ticket, Ticket | None), "a Ticket: Ticket.from_bytes makes one of bytes"),
            ("prepare", prepare, prepare is None or callable(prepare), "a function"),
        ):
            if not fits:
                raise ArgumentError(f"{name} is of type {type(value).__name__}; it must be {allowed}", argument=name)
        self._owner = node
        self._peer = self._home = peer  # whom to dial next; and where the session is, or was
        self._reattaching = min(REATTACHING, policy.first) if peer.others else REATTACHING
        self._engine = Reconnector(policy, now=node.driver.clock(), entropy=os.urandom, ticket=ticket)
        self._session: SessionT | None = None
        self._sessions = 0

    @property
    def state(self) -> State:
        """How it stands: a value of one of the classes of `stt_proto.reconnect`."""
        return self._engine.state

    @property
    def sessions(self) -> int:
        """How many sessions there have been."""
        return self._sessions

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {spoken(self._peer.address)!r}, {self.state!r}>"

    @abstractmethod
    def _now(self) -> float: ...

    @abstractmethod
    def _tell(self) -> None:
        """The state has changed."""

    def _live(self) -> SessionT | None:
        """The session that there is; raises what it was given up for."""
        session, state = self._session, self.state
        if isinstance(state, Connected) and session is not None and session.is_active():
            return session
        if isinstance(state, GivenUp):
            error = state.error
            raise connection_failed(error) if isinstance(error, SttError) else error  # a new object for each
        if self._engine.is_over:
            raise closed_here(SessionClosedError("the client has been closed"))
        return None

    def _look(self) -> None:
        """See what has become of the session: whoever ended it here wants no other."""
        session, engine = self._session, self._engine
        if session is None or engine.is_over:
            return
        if session.is_closed:
            self._leave()
            self._session = None
            engine.keep(session.ticket)
            if session.ended_here:
                engine.close()
            else:
                engine.lost(session.close_reason or "error", session.core.close_error, self._now())
            self._tell()
        elif session.is_detached is isinstance(self.state, Connected):
            if session.is_detached:
                engine.keep(session.ticket)
                engine.detached(self._now())
            else:
                engine.connected(self._now(), resumed=session.resumed)
            self._tell()

    def _begin(self) -> Ticket | None:
        """A try begins."""
        ticket = self._engine.dial()
        self._tell()
        return ticket

    def _on_failed(self, error: Exception) -> None:
        """A try came to nothing."""
        old, now = self._session, self._now()
        if not isinstance(error, SttError):
            self._owner.handler_failed(error, None)  # out of `prepare`
        self._engine.failed(error, now)
        if self._engine.next_dial > now:  # else the same is dialled again at once, without the ticket
            self._peer = self._peer.elsewhere()
        if old is not None and (old.ended_here or self._engine.is_over):
            old.abort()  # it has no path, and nobody waits for it
        self._tell()
        self._look()

    def _on_dialled(self, session: SessionT) -> None:
        """A try led to a session. One that was detached, and is not back, the peer does not know any more."""
        old = self._session
        if self._engine.is_over or (old is not None and (old.ended_here or self._is_back(old))):
            session.abort()
        else:
            self._session = session
            self._home = self._peer
            self._sessions += 1
        if old is not None and not self._is_back(old):
            old.abort()
        self._engine.connected(self._now(), resumed=session.resumed)
        self._tell()
        self._look()

    def _is_back(self, session: SessionT) -> bool:
        """Whether a session that was detached goes on."""
        return not (session.is_closed or session.is_detached)

    def _leave(self) -> None:
        """The session is not to be had where it was: the next address, but once for each session."""
        if self._peer is self._home:
            self._peer = self._peer.elsewhere()

    def _on_reattached(self, session: SessionT) -> None:
        """A try brought the session back."""
        self._engine.connected(self._now(), resumed=session.resumed)
        self._tell()


def lost_at_once(session: SessionBase[Any], error: BaseException) -> SttError | None:
    """What a try failed with whose session ended while it was prepared; `None` when it was not the session."""
    if isinstance(error, Exception) and session.is_closed and not session.ended_here:
        return SessionClosedError(f"the session ended at once: {error}", reason="error")
    return None
