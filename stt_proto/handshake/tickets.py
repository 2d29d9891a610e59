"""Tickets as the responder deals with them: it seals, opens and judges them (docs/protocol.md, section 4.4).

A ticket holds all that the responder needs to know, sealed for itself, so that nothing is kept for those who may never
come back. Only of those that were used something is kept, until they expire.

A ticket proves nothing by itself: it travels in clear, and whoever has stolen the key of the ring can make one. What
proves is the handshake (`resumption`), which takes the static keys of both. So a thief of that key stands for nobody
but himself; but he gets in without the shared seed, and is given more tickets there, until the generation of the seeds
is raised: which is why `admit` is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from hmac import compare_digest
from math import inf
from struct import Struct

from attrs import field, frozen

from stt_proto.clock import Clock
from stt_proto.crypto import AES_256_GCM, KEY_SIZE, TAG_SIZE, Secret, hkdf, hkdf_expand
from stt_proto.crypto.suite import NONCE_SIZE, InvalidTag
from stt_proto.crypto.x25519 import is_canonical
from stt_proto.handshake.established import SessionSecrets
from stt_proto.handshake.used_tickets import UsedTickets
from stt_proto.tickets import MAX_LIFETIME, TicketRefusal
from stt_proto.wire import TICKET_NONCE
from stt_proto.wire import Ticket as TicketFrame

KEY_ID_SIZE = 4
"""Bytes by which a responder knows the key of a ticket, before any key is used."""
SALT_SIZE = 16
"""Random bytes of each ticket, from which the key that seals it is made."""
ID_SIZE = 16
"""Bytes of the id of a ticket."""
SERVER_SIZE = 8
"""Bytes of it by which an endpoint knows the tickets again that it has given itself; random, like the others."""
FORMAT = 1
"""The layout of what is sealed, and the version of the protocol that goes with it."""
CLOCK_SKEW = 60.0
"""Seconds that a ticket may come from the future: servers that share a secret need not agree to the second."""
_LABEL = b"stt1 ticket"
_CONTENT = Struct(">BBIQI16s32s32s32s")
_HEAD = KEY_ID_SIZE + SALT_SIZE
TICKET_SIZE = _HEAD + _CONTENT.size + TAG_SIZE
"""Bytes of a ticket."""


def ticket_secret(resumption: bytes, nonce: bytes) -> bytes:
    """The secret of a ticket, which both sides of a session can make and which never travels but sealed (H-33)."""
    return hkdf_expand(resumption, b"stt1 ticket secret" + nonce, KEY_SIZE)


@frozen(eq=False)
class Grant(Secret):
    """What is sealed in a ticket.

    Attributes:
        ticket_id: 16 bytes, of which the first 8 name the endpoint that gave it.
        suite: of the session in which it was given.
        generation: of the seeds, when it was given.
        issued_at: wall clock, seconds since 1970.
        lifetime: seconds.
        initiator: node id of whom it was given to.
        responder: node id of who gave it.
        secret: 32 bytes that the initiator has too.
    """

    ticket_id: bytes
    suite: int
    generation: int
    issued_at: float
    lifetime: int
    initiator: bytes
    responder: bytes
    secret: bytes = field(repr=False)

    @property
    def expires_at(self) -> float:
        """Wall clock, seconds since 1970."""
        return self.issued_at + self.lifetime

    def encode(self) -> bytes:
        return _CONTENT.pack(
            FORMAT,
            self.suite,
            self.generation,
            max(round(self.issued_at * 1000), 0),
            self.lifetime,
            self.ticket_id,
            self.initiator,
            self.responder,
            self.secret,
        )

    @classmethod
    def decode(cls, content: bytes) -> Grant | None:
        """What was sealed, if it was sealed by this version."""
        version, suite, generation, issued_at, lifetime, ticket_id, *rest = _CONTENT.unpack(content)
        if version != FORMAT:
            return None
        return cls(ticket_id, suite, generation, issued_at / 1000, lifetime, *rest)


class RingKey(Secret):
    """One key of the ring, of which each ticket has a key of its own (H-34)."""

    __slots__ = ("_key", "key_id")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.key_id = hkdf_expand(key, b"stt1 ticket key id", KEY_ID_SIZE)

    @classmethod
    def of_fleet(cls, secret: bytes, channel: bytes) -> RingKey:
        """The key that all servers of one application have who share a secret."""
        return cls(hkdf(b"stt1 fleet", secret, b"stt1 ticket ring" + channel, KEY_SIZE))

    def seal(self, content: bytes, salt: bytes) -> bytes:
        """Make a ticket; a salt is used once."""
        head = self.key_id + salt
        key, nonce = self._of(salt)
        return head + AES_256_GCM.aead(key).encrypt(nonce, content, _LABEL + head)

    def open_untrusted(self, ticket: bytes) -> bytes | None:
        """What is in a ticket of the right size and key id, or `None` when it does not open."""
        head, sealed = ticket[:_HEAD], ticket[_HEAD:]
        key, nonce = self._of(head[KEY_ID_SIZE:])
        try:
            return AES_256_GCM.aead(key).decrypt(nonce, sealed, _LABEL + head)
        except InvalidTag:
            return None

    def _of(self, salt: bytes) -> tuple[bytes, bytes]:
        drawn = hkdf_expand(self._key, b"stt1 ticket key" + salt, KEY_SIZE + NONCE_SIZE)
        return drawn[:KEY_SIZE], drawn[KEY_SIZE:]


@frozen(kw_only=True)
class TicketTerms:
    """What a configuration says about tickets.

    Attributes:
        lifetime: seconds; 0 for no tickets at all.
        fleet_secret, previous_fleet_secret: 32 bytes, or `None`.
        channel: the name of the application, as CPace takes it.
        generation: of the seeds.
        suites: of those that are spoken.
        limit: ids of used tickets that are remembered.
    """

    lifetime: int
    fleet_secret: bytes | None = field(repr=False)
    previous_fleet_secret: bytes | None = field(repr=False)
    channel: bytes
    generation: int
    suites: Container[int]
    limit: int


class TicketOffice(Secret):
    """Gives tickets, and says what those that come back are worth. One for each endpoint.

    Args:
        node_id: whose tickets these are.
        terms: what the configuration says.
        clock: tells the wall clock.
        entropy: gives random bytes.

    Attributes:
        used: the tickets that were used.
    """

    __slots__ = ("_changes_at", "_clock", "_entropy", "_node_id", "_ring", "_server", "_terms", "used")

    def __init__(self, node_id: bytes, terms: TicketTerms, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._node_id = node_id
        self._terms = terms
        self._clock = clock
        self._entropy = entropy
        secrets = (terms.fleet_secret, terms.previous_fleet_secret)
        self._ring = [RingKey.of_fleet(secret, terms.channel) for secret in secrets if secret is not None]
        self._changes_at = inf if terms.fleet_secret is not None else -inf
        self._server = b""  # from the first ticket that is given; until then none can be ours
        self.used = UsedTickets(terms.limit)

    # -- giving ----------------------------------------------------------------------------------------------------

    def issue(self, secrets: SessionSecrets, initiator: bytes, now: float) -> TicketFrame | None:
        """A ticket for the initiator of a session; `None` when none are given."""
        lifetime = self._terms.lifetime
        if not lifetime:
            return None
        random = self._entropy(TICKET_NONCE + SALT_SIZE + ID_SIZE)
        self._server = self._server or random[-ID_SIZE:-SERVER_SIZE]
        nonce, salt = random[:TICKET_NONCE], random[TICKET_NONCE:-ID_SIZE]
        grant = Grant(
            self._server + random[-SERVER_SIZE:],
            secrets.suite.id,
            self._terms.generation,
            self._clock.unix(now),
            lifetime,
            initiator,
            self._node_id,
            ticket_secret(secrets.resumption, nonce),
        )
        return TicketFrame(lifetime, nonce, self._current_key(now).seal(grant.encode(), salt))

    def _current_key(self, now: float) -> RingKey:
        """The key to seal with. A random one is replaced after a lifetime, and then kept for as long."""
        if now >= self._changes_at:
            self._ring = [RingKey(self._entropy(KEY_SIZE)), *self._ring[:1]]
            self._changes_at = now + self._terms.lifetime
        return self._ring[0]

    # -- taking back -----------------------------------------------------------------------------------------------

    def examine(self, ticket: bytes, now: float) -> Grant | TicketRefusal:
        """What a ticket is worth, in order of what it costs to ask: at most one key and one opening."""
        if len(ticket) != TICKET_SIZE or not self._terms.lifetime:
            return TicketRefusal.UNKNOWN
        key = next((key for key in self._ring if compare_digest(key.key_id, ticket[:KEY_ID_SIZE])), None)
        content = None if key is None else key.open_untrusted(ticket)
        grant = None if content is None else Grant.decode(content)
        unix_time = self._clock.unix(now)
        if grant is None or grant.issued_at > unix_time + CLOCK_SKEW:
            return TicketRefusal.UNKNOWN
        if grant.lifetime > MAX_LIFETIME or not is_canonical(grant.initiator):  # a thief of the key sealed it
            return TicketRefusal.UNKNOWN
        if self.used.is_over(grant.expires_at, unix_time):
            return TicketRefusal.EXPIRED
        if not compare_digest(grant.responder, self._node_id):
            return TicketRefusal.PEER
        if grant.generation != self._terms.generation:
            return TicketRefusal.GENERATION
        return grant if grant.suite in self._terms.suites else TicketRefusal.REFUSED

    def check_use(self, grant: Grant, now: float) -> TicketRefusal | None:
        """Whether a ticket can be used now."""
        if grant.ticket_id in self.used:
            return TicketRefusal.USED
        return TicketRefusal.FULL if self.used.is_full(self._clock.unix(now)) else None

    def use(self, grant: Grant, now: float) -> bool:
        """A RESUME with this ticket has opened: remember that. Whether it is the first, as `check_use` has found."""
        return self.used.add(grant.ticket_id, grant.expires_at, self._clock.unix(now))

    def is_ours(self, grant: Grant) -> bool:
        """Whether this very endpoint gave it, and so knows of each use of it that it was the first (H-39)."""
        return compare_digest(grant.ticket_id[:SERVER_SIZE], self._server)
