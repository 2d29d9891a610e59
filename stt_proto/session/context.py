"""What the sessions of one endpoint share: handed to each when it is made."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import frozen

from stt_proto.clock import Clock
from stt_proto.config import Config
from stt_proto.events import Event
from stt_proto.handshake import PieceCollector, TicketOffice
from stt_proto.packet import ConnectionIdTable, ExpectedResets, ResetTokens, TrainBudget
from stt_proto.session.detached import DetachedSessions
from stt_proto.session.routes import PathIndex
from stt_proto.session.sight import Sight
from stt_proto.streams import GrowthBudget
from stt_proto.types import NetworkPath

if TYPE_CHECKING:
    from stt_proto.session.session import Session


@frozen(eq=False)
class SessionContext:
    """The endpoint, as far as a session may see it.

    Attributes:
        config: of the endpoint.
        clock: of the endpoint.
        entropy: the only randomness.
        events: what happened, in order, on all sessions.
        ready: sessions that may have something to send, in the order of their turn.
        unarmed: sessions whose deadline may have changed.
        connection_ids: the routing table.
        reset_tokens: makes the tokens of our own connection IDs.
        expected_resets: the tokens by which peers would reset our sessions.
        train_budget: bytes of incomplete trains in all sessions.
        window_budget: bytes by which the receive windows of all sessions may have grown.
        dial_keys: the ephemeral keys of our own live dials (H-27).
        live: sessions that have begun and not ended, dials among them.
        sessions: those that are established, by id.
        pieces: handshake messages that are not complete.
        sight: the observers.
        by_path: which sessions have which path.
        detached: sessions without a path.
        full: paths whose carrier takes nothing now, each with the sessions that have something to send on it.
        tickets: gives tickets to those who have dialled.
        ticket_answers: what the host has said of tickets, by their id: whether they are good.
    """

    config: Config
    clock: Clock
    entropy: Callable[[int], bytes]
    events: deque[tuple[Session | None, Event]]
    ready: OrderedDict[Session, None]
    unarmed: dict[Session, None]
    connection_ids: ConnectionIdTable[Any]
    reset_tokens: ResetTokens
    expected_resets: ExpectedResets[Session]
    train_budget: TrainBudget
    window_budget: GrowthBudget
    dial_keys: dict[bytes, None]
    live: dict[Session, None]
    sessions: dict[bytes, Session]
    pieces: PieceCollector
    by_path: PathIndex
    detached: DetachedSessions
    full: dict[NetworkPath, dict[Session, None]]
    sight: Sight
    tickets: TicketOffice
    ticket_answers: dict[bytes, bool]


class EventSink:
    """Marks the events of one session as its own."""

    __slots__ = ("_events", "_session")

    def __init__(self, session: Session, events: deque[tuple[Session | None, Event]]) -> None:
        self._session = session
        self._events = events

    def append(self, event: Event) -> None:
        """Queue an event."""
        self._events.append((self._session, event))
