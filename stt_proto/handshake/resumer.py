"""The side that dials with a ticket: RESUME out, RESUMED in, and a full handshake beside it as soon as in doubt (4.4).

Whoever merely watches must not be able to end a resumption, nor may a ticket that is good for nothing cost a dial more
than a moment. So nothing that speaks against the ticket ends anything: it only lets the full handshake begin, beside
the resumption, and whichever answer opens first wins. Then there is nothing to be decided, and nothing to be believed.
Nor does a full handshake that fails early end the dial: a forger who is nearer than the responder can have it fail at
once, so the resumption has its time all the same.

It is driven like an `Initiator`, and is one as soon as there is a full handshake.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from attrs import evolve

from stt_proto.crypto import SUITES, X25519_SIZE, PrivateKey, Secret, channel_identifier
from stt_proto.errors import EncryptionError, HandshakeError, SessionResumptionError, SttError
from stt_proto.handshake.cookies import CookiePurse
from stt_proto.handshake.established import Established, SessionSecrets
from stt_proto.handshake.initiator import FIRST_RETRANSMISSION, JITTER, PADDED_HELLO, Initiator, InitiatorState
from stt_proto.handshake.resumption import VERSION, begin_resume, open_resumed
from stt_proto.handshake.schedule import hello_hash
from stt_proto.identity import Identity
from stt_proto.tickets import Ticket, TicketRefusal
from stt_proto.types import HandshakeStep
from stt_proto.wire import (
    Message,
    MessageType,
    Parameters,
    Refused,
    Resumed,
    Retry,
    add_early_data,
    decode_parameters_untrusted,
    encode_datagram,
    encode_pieces,
    take_reset_token_untrusted,
)

PATIENCE = 0.75
"""Seconds of silence after which the full handshake begins beside the resumption (H-37); half of the handshake timeout
where that is less. Long enough for a geostationary satellite, or for a repetition where the way is shorter."""

ANSWERS_TRIED = 64
"""RESUMED messages that are tried: each costs two multiplications, and anybody who watches can send some."""

TICKET_USED = 0x0207
REFUSAL_CODES = {
    SessionResumptionError.code: TicketRefusal.UNKNOWN,
    0x0206: TicketRefusal.EXPIRED,
    TICKET_USED: TicketRefusal.USED,
    0x0208: TicketRefusal.GENERATION,
    0x0209: TicketRefusal.PEER,
    0x020A: TicketRefusal.FULL,
}
"""What the code of a REFUSED says of a ticket; every other one says that nobody is wanted at all."""

_DCID_SIZE = 8
_BESIDE = 160
"""Bytes of RESUME beside the ticket and the parameters, at most: header, check, key, tag, and the longest cookie."""


class Resumer(Secret):
    """One dial with a ticket; see `Initiator`, which it is used as.

    Attributes:
        local_cid: our connection ID, 8 bytes.
        refusal: what spoke against the ticket first; it says nothing where the ticket won.
        sent_early: whether early data went along.
        steps: what was sent and accepted, in order; whoever reports it empties the list.
    """

    __slots__ = (
        "_begin_full",
        "_cookies",
        "_datagrams",
        "_dcid",
        "_due",
        "_full",
        "_full_at",
        "_max_datagram",
        "_name",
        "_reliable",
        "_resume",
        "_resumed",
        "_retransmit_at",
        "_sent",
        "_sent_at",
        "_state",
        "_ticket",
        "_tried",
        "local_cid",
        "refusal",
        "sent_early",
        "steps",
    )

    def __init__(
        self,
        ticket: Ticket,
        *,
        identity: Identity,
        application: str,
        parameters: Parameters,
        local_cid: bytes,
        reliable: bool,
        max_datagram: int,
        entropy: Callable[[int], bytes],
        now: float,
        handshake_timeout: float,
        begin_full: Callable[[float], Initiator],
        early_data: bytes = b"",
    ) -> None:
        """Begin; RESUME waits in `take`.

        Args:
            ticket: what is used up by this.
            identity: who we are.
            application: the name that both sides must share.
            parameters: ours.
            local_cid: our connection ID, fresh, 8 bytes.
            reliable: whether the path's carrier is; if not, RESUME is padded.
            max_datagram: bytes of the largest datagram on the path.
            entropy: gives random bytes; drawn from once, here.
            now: seconds.
            handshake_timeout: seconds in all.
            begin_full: gives a full handshake that begins now, under the same connection ID.
            early_data: to go along, if the ticket and the datagram have room for it (H-38).

        Raises:
            EncryptionError: the peer's node id in the ticket is of small order.
        """
        random = entropy(_DCID_SIZE + X25519_SIZE)
        self._dcid = random[:_DCID_SIZE]
        header = MessageType.RESUME.first_byte + self._dcid + local_cid
        channel = channel_identifier(application.encode())
        ephemeral = PrivateKey(random[_DCID_SIZE:])
        payload = parameters.encode()
        self.sent_early = 0 < len(early_data) <= min(ticket.max_early_data, _room_for(ticket, payload))
        if self.sent_early:
            payload = add_early_data(payload, early_data)
        self._state, self._resume = begin_resume(ticket, channel, header, identity.static_key, ephemeral, payload)
        self._name = hello_hash(header + self._resume.core())
        self._ticket = ticket
        self._reliable = reliable
        self._max_datagram = max_datagram
        self._begin_full = begin_full
        self.local_cid = local_cid
        self._datagrams = self._encode()
        self._resumed: Established | None = None
        self._full: Initiator | None = None
        self.refusal: TicketRefusal | None = None
        self.steps = [HandshakeStep.RESUME]
        self._cookies = CookiePurse()
        self._due = 1
        self._sent = 0
        self._sent_at = now
        self._tried = 0
        self._retransmit_at = inf
        self._full_at = now + self._varied(min(PATIENCE, handshake_timeout / 2))

    # -- how it stands ---------------------------------------------------------------------------------------------

    @property
    def state(self) -> InitiatorState:
        """Where it stands; a resumption is confirmed by its only answer."""
        if self._resumed is not None:
            return InitiatorState.CONFIRMED
        if self._full is None or (self._full.error is not None and self.error is None):
            return InitiatorState.HELLO_SENT
        return self._full.state

    @property
    def established(self) -> Established | None:
        """Set when one of the two has succeeded."""
        return self._resumed if self._full is None else self._resumed or self._full.established

    @property
    def error(self) -> SttError | None:
        """Why it failed, once it has: not before patience is over, however soon the full handshake has."""
        return None if self._full is None or self._full_at < inf else self._full.error

    @property
    def ephemeral(self) -> bytes:
        """The ephemeral public key of the full handshake's HELLO; empty as long as there is none."""
        return b"" if self._full is None else self._full.ephemeral

    @property
    def deadline(self) -> float:
        """When `tick` wants to be called; `inf` when never."""
        if self._resumed is not None:
            return inf
        ours = min(self._retransmit_at, self._full_at)
        return ours if self._full is None else min(ours, self._full.deadline)

    # -- out and time ----------------------------------------------------------------------------------------------

    def take(self, now: float) -> tuple[bytes, ...]:
        """The datagrams of a message to send now, often none; ask until there are none."""
        if self._resumed is not None:
            return ()
        if not self._due:
            return () if self._full is None else self._full.take(now)
        self._due -= 1
        self._show_cookie()
        if not self._sent:
            self._sent_at = now
        self._sent += 1
        self._retransmit_at = now + self._varied(FIRST_RETRANSMISSION) if self._sent == 1 else inf
        return self._datagrams

    def tick(self, now: float) -> None:
        """Let time pass: repeat RESUME once, or begin the full handshake, or drive it. Idempotent for one `now`."""
        if self._full is not None:
            self._full.tick(now)
            self._follow()
        if now >= self._full_at:
            self._full_at = inf
            self._doubt(TicketRefusal.SILENCE, now)
        elif now >= self._retransmit_at:
            self._due = max(self._due, 1)
        else:
            return
        self._retransmit_at = inf

    def confirm(self) -> None:
        """A packet opened under the session's keys."""
        if self._full is not None and self._resumed is None:
            self._full.confirm()
            self._follow()

    # -- in --------------------------------------------------------------------------------------------------------

    def on_message(self, message: Message, now: float) -> None:
        """Take in a message that came undamaged over the dial's path; a bad one changes nothing (H-12)."""
        if self.established is not None or message.dcid != self.local_cid:
            return
        try:
            if message.type is MessageType.RESUMED:
                self._on_resumed(message, Resumed.decode_untrusted(message.body), now)
            elif message.type is not MessageType.CHALLENGE and message.scid == self._dcid:
                self._on_hint(message, now)
            elif self._full is not None:
                self._full.on_message(message, now)
                self._follow()
        except HandshakeError:
            return

    def _on_resumed(self, message: Message, resumed: Resumed, now: float) -> None:
        if resumed.hello_hash != self._name or self._tried >= ANSWERS_TRIED:
            return
        self._tried += 1
        try:
            encoded, reset_token = take_reset_token_untrusted(open_resumed(self._state, message, resumed))
            parameters = decode_parameters_untrusted(encoded)
        except EncryptionError:
            self._doubt(TicketRefusal.SHUT, now)
            return
        except HandshakeError:  # it was the peer's own, and there will be no better one
            self._tried = ANSWERS_TRIED
            self._doubt(TicketRefusal.SHUT, now)
            return
        suite = SUITES[self._ticket.suite]
        self._resumed = Established(
            initiator=True,
            secrets=SessionSecrets.derive(suite, self._state.symmetric),
            peer_node_id=self._ticket.peer_node_id,
            peer_parameters=parameters,
            local_cid=self.local_cid,
            peer_cid=message.scid,
            version=VERSION,
            rtt=now - self._sent_at if self._sent == 1 else None,
            peer_reset_token=reset_token,
        )
        self.steps.append(HandshakeStep.RESUMED)

    def _on_hint(self, message: Message, now: float) -> None:
        """RETRY and REFUSED: from the responder, or from whoever can watch (H-14)."""
        if message.type is MessageType.RETRY:
            retry = Retry.decode_untrusted(message.body)
            if retry.hello_hash == self._name and self._cookies.add(retry.cookie):
                self._due = max(self._due, self._cookies.urgent)
        elif message.type is MessageType.REFUSED:
            refused = Refused.decode_untrusted(message.body)
            if refused.hello_hash == self._name:
                self._doubt(REFUSAL_CODES.get(refused.code, TicketRefusal.REFUSED), now)

    # -- the full handshake ----------------------------------------------------------------------------------------

    def _doubt(self, reason: TicketRefusal, now: float) -> None:
        """Something speaks against the ticket: begin the full handshake too, once."""
        if self._full is None:
            self.refusal = reason
            self._full = self._begin_full(now)
            self._follow()

    def _follow(self) -> None:
        """Pass on what the full handshake has to report."""
        assert self._full is not None
        self.steps += self._full.steps
        self._full.steps.clear()

    def _varied(self, wait: float) -> float:
        """A wait with its jitter (H-18), which comes from a number that is random and no secret."""
        return wait * (1 + JITTER * (self._dcid[0] / 128 - 1))

    def _show_cookie(self) -> None:
        """Put the cookie into RESUME whose turn it is."""
        cookie = self._cookies.show()
        if cookie != self._resume.cookie:
            self._resume = evolve(self._resume, cookie=cookie)
            self._datagrams = self._encode()

    def _encode(self) -> tuple[bytes, ...]:
        message = Message(MessageType.RESUME, self._dcid, self.local_cid, self._resume.encode())
        if self._reliable:
            return encode_pieces(message, self._max_datagram)
        return (encode_datagram(message, PADDED_HELLO),)


def _room_for(ticket: Ticket, parameters: bytes) -> int:
    """Bytes of early data for which the one datagram has room, whatever cookie is asked for."""
    return PADDED_HELLO - _BESIDE - len(ticket.sealed) - len(parameters)
