"""The tickets that one session is given (docs/protocol.md, section 4.4)."""

from __future__ import annotations

from stt_proto.clock import Clock
from stt_proto.crypto import Secret
from stt_proto.errors import InvalidFrameError
from stt_proto.handshake import Established, TicketOffice, ticket_secret
from stt_proto.session.control import TICKET, ControlQueue
from stt_proto.tickets import LATEST_ISSUE, Ticket
from stt_proto.wire import FrameType
from stt_proto.wire import Ticket as TicketFrame

__all__ = ["TicketBook", "give_ticket"]


def give_ticket(control: ControlQueue, office: TicketOffice, established: Established, now: float) -> None:
    """Send the initiator of a session a ticket, if it understands that and there are any (H-33)."""
    if FrameType.TICKET not in established.peer_parameters.extension_frames:
        return
    ticket = office.issue(established.secrets, established.peer_node_id, now)
    if ticket is not None:
        control.ticket = ticket.encode()
        control.put(TICKET)


class TicketBook(Secret):
    """Makes tickets of what the responder sends, and keeps the last.

    Args:
        node_id: who we are.
        established: the session.
        clock: tells the wall clock.

    Attributes:
        latest: the last ticket that came, or `None`.
    """

    __slots__ = (
        "_clock",
        "_initiator",
        "_max_early_data",
        "_node_id",
        "_peer_node_id",
        "_resumption",
        "_suite",
        "latest",
    )

    def __init__(self, node_id: bytes, established: Established, clock: Clock) -> None:
        self._node_id = node_id
        self._peer_node_id = established.peer_node_id
        self._initiator = established.initiator
        self._resumption = established.secrets.resumption
        self._suite = established.secrets.suite.id
        self._max_early_data = established.peer_parameters.max_early_data
        self._clock = clock
        self.latest: Ticket | None = None

    def add(self, frame: TicketFrame, now: float) -> Ticket:
        """Take in a ticket; it takes the place of the one before.

        Raises:
            InvalidFrameError: it is the initiator's, which has none to give (H-33).
        """
        if not self._initiator:
            raise InvalidFrameError("a TICKET from the initiator")
        self.latest = Ticket(
            frame.sealed,
            ticket_secret(self._resumption, frame.nonce),
            self._node_id,
            self._peer_node_id,
            self._suite,
            min(max(self._clock.unix(now), 0.0), LATEST_ISSUE),  # whatever the host takes for the time
            frame.lifetime,
            self._max_early_data,
        )
        return self.latest
