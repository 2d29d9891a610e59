"""The handshake: two strangers with one shared seed become a session (docs/protocol.md, section 4).

`Initiator` dials, `Responder` answers for a whole endpoint; both walk the one `schedule` of keys, and both end in an
`Established`. They take messages and time and give datagrams and values: nothing here knows a packet, a stream, a
session or a socket.
"""

from __future__ import annotations

from stt_proto.handshake.cookies import CookieJar
from stt_proto.handshake.established import Established, SessionSecrets
from stt_proto.handshake.guesses import GuessMeter
from stt_proto.handshake.half_open import HalfOpen
from stt_proto.handshake.initiator import TRANSITIONS, Initiator, InitiatorState, Input
from stt_proto.handshake.outcomes import (
    Accepted,
    Challenged,
    Dropped,
    Ended,
    Offered,
    Outcome,
    Reason,
    Reply,
    Terms,
)
from stt_proto.handshake.pieces import PieceCollector
from stt_proto.handshake.reports import FailureReports
from stt_proto.handshake.responder import LEAST_HELLO, Responder
from stt_proto.handshake.resumer import TICKET_USED, Resumer
from stt_proto.handshake.resumption import Resuming
from stt_proto.handshake.rotation import KeyChain, VersionSecrets, next_secrets
from stt_proto.handshake.tickets import TicketOffice, TicketTerms, ticket_secret
from stt_proto.handshake.used_tickets import UsedTickets
from stt_proto.handshake.waiting import Waiting

__all__ = [
    "LEAST_HELLO",
    "TICKET_USED",
    "TRANSITIONS",
    "Accepted",
    "Challenged",
    "CookieJar",
    "Dropped",
    "Ended",
    "Established",
    "FailureReports",
    "GuessMeter",
    "HalfOpen",
    "Initiator",
    "InitiatorState",
    "Input",
    "KeyChain",
    "Offered",
    "Outcome",
    "PieceCollector",
    "Reason",
    "Reply",
    "Responder",
    "Resumer",
    "Resuming",
    "SessionSecrets",
    "Terms",
    "VersionSecrets",
    "next_secrets",
    "TicketOffice",
    "TicketTerms",
    "UsedTickets",
    "Waiting",
    "ticket_secret",
]
