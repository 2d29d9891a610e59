"""Resumption, the two messages: Noise KKpsk0, with the secret of a ticket as its psk (docs/protocol.md, section 4.4).

    RESUME        ticket in clear; psk, e, es, ss; {parameters, early data}
    RESUMED       e, ee, se; {parameters}

Both sides know each other's static key, from the session in which the ticket was given, so none is sent. The first
message proves who its sender is, but not that it was not sent before; so the responder waits for a packet under the
new keys, which only a RESUMED to fresh keys makes possible. The second proves all of the responder at once.

The pattern itself is run by `stt_proto.crypto.noise`; this is what surrounds it: what goes into the transcript besides
its tokens, and who waits for what.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve

from stt_proto.crypto import PATTERNS, SUITES, X25519_SIZE, HandshakeState, PrivateKey
from stt_proto.errors import EncryptionError
from stt_proto.handshake.established import Established, SessionSecrets
from stt_proto.handshake.tickets import Grant
from stt_proto.handshake.waiting import Answerer, Caller, Waiting
from stt_proto.tickets import Ticket
from stt_proto.types import NetworkPath
from stt_proto.wire import (
    Message,
    MessageType,
    Resume,
    Resumed,
    add_early_data_taken,
    add_reset_token,
    decode_parameters_untrusted,
    encode_pieces,
    take_early_data_untrusted,
)

PATTERN = PATTERNS["KKpsk0"]
VERSION = 1
"""The version of the protocol of which this is the resumption."""
COPIES = 4
"""Paths over which copies of one RESUME are answered (H-35)."""

_PROLOGUE = b"stt1 resume"


# -- the initiator -------------------------------------------------------------------------------------------------


def begin_resume(
    ticket: Ticket, channel: bytes, header: bytes, static: PrivateKey, ephemeral: PrivateKey, parameters: bytes
) -> tuple[HandshakeState, Resume]:
    """RESUME without a cookie, and the state in which its answer is awaited (initiator).

    Args:
        ticket: what is used up by this.
        channel: CI of CPace: the name of the application.
        header: type and connection IDs of RESUME.
        static: our static key.
        ephemeral: a fresh key.
        parameters: ours, encoded, perhaps with early data behind them (H-38).

    Raises:
        EncryptionError: the peer's node id in the ticket is of small order.
    """
    blank = Resume(VERSION, ephemeral.public_bytes, ticket.sealed, b"")
    state = HandshakeState(
        PATTERN,
        SUITES[ticket.suite],
        initiator=True,
        prologue=_PROLOGUE + channel + header + blank.clear(),
        static=static,
        remote_static=ticket.peer_node_id,
        psk=ticket.secret,
    )
    message = state.write_message(parameters, ephemeral)
    return state, evolve(blank, sealed_parameters=message[X25519_SIZE:])


def open_resumed(state: HandshakeState, message: Message, resumed: Resumed) -> bytes:
    """The responder's parameters (initiator). What does not open changes nothing.

    Raises:
        EncryptionError: it does not open.
    """
    before = state.symmetric
    state.symmetric = before.copy()
    state.symmetric.mix_hash(message.prefix + resumed.hello_hash)
    try:
        return state.read_message_untrusted(resumed.e + resumed.sealed_parameters)
    except EncryptionError:
        state.symmetric = before
        raise


# -- the responder -------------------------------------------------------------------------------------------------


class Resuming(Waiting):
    """A resumption that waits: first to be answered, then for the packet that confirms it.

    Attributes:
        grant: what is in the ticket.
        early_data: what came along, or nothing; not taken until the answer says so.
        peer_dcid: the connection ID that RESUME made up for us; a REFUSED to it repeats it (W-7).
        established: set with the answer; evidence as soon as a packet has opened under its keys.
    """

    __slots__ = ("_paths", "_peer_parameters", "_state", "early_data", "established", "grant", "peer_dcid")

    def __init__(
        self,
        answerer: Answerer,
        caller: Caller,
        resume: Resume,
        message: Message,
        grant: Grant,
        *,
        now: float,
        timeout: float,
    ) -> None:
        """Open RESUME: two multiplications.

        Args:
            answerer: what is ours in it.
            caller: who asks.
            resume: what was sent.
            message: in what.
            grant: what is in its ticket.
            now: seconds.
            timeout: seconds until it is given up.

        Raises:
            EncryptionError: it does not open, or is our own.
            HandshakeError: it opens and holds no parameters.
        """
        identity = answerer.identity
        if grant.initiator == identity.node_id and not answerer.allow_self:
            raise EncryptionError("a ticket of our own")
        super().__init__(caller, b"", answerer, now=now, timeout=timeout)
        self._state = HandshakeState(
            PATTERN,
            SUITES[grant.suite],
            initiator=False,
            prologue=_PROLOGUE + answerer.channel + message.prefix + resume.clear(),
            static=identity.static_key,
            remote_static=grant.initiator,
            psk=grant.secret,
        )
        payload = self._state.read_message_untrusted(resume.e + resume.sealed_parameters)
        encoded, self.early_data = take_early_data_untrusted(payload)
        self._peer_parameters = decode_parameters_untrusted(encoded)
        self.grant = grant
        self.peer_dcid = message.dcid
        self._paths = [caller.path]
        self.established: Established | None = None

    @property
    def peer_node_id(self) -> bytes:
        """Who asks, 32 bytes: proven, unless this is a copy of what was sent before."""
        return self.grant.initiator

    @property
    def paths(self) -> Sequence[NetworkPath]:
        """The paths over which copies of its RESUME came; the packet that confirms it says which is the true one."""
        return self._paths

    def join(self, path: NetworkPath) -> bool:
        """A copy of its RESUME came over this path; False when too many have (H-35)."""
        if len(self._paths) >= COPIES:
            return False
        self._paths.append(path)
        return True

    def leave(self, path: NetworkPath) -> bool:
        """The carrier of one of its paths is gone; whether it has another. Else it keeps this one, to be ended with."""
        if len(self._paths) == 1:
            return False
        self._paths.remove(path)
        return True

    def round_trip(self, now: float) -> float | None:
        """Seconds between RESUMED and what came upon it; `None` where that is ambiguous."""
        return super().round_trip(now) if len(self._paths) == 1 else None

    def answer(
        self,
        parameters: bytes,
        max_datagram: int,
        entropy: Callable[[int], bytes],
        *,
        take_early: bool = False,
        reset_token: bytes = b"",
    ) -> tuple[bytes, ...]:
        """Make RESUMED: two more multiplications and a fresh key.

        Args:
            parameters: ours, encoded.
            max_datagram: bytes of the largest datagram on this path.
            entropy: gives random bytes.
            take_early: whether its early data is taken.
            reset_token: of our connection ID, 16 bytes, or none.
        """
        if take_early:
            parameters = add_early_data_taken(parameters, len(self.early_data))
        if reset_token:
            parameters = add_reset_token(parameters, reset_token)
        suite, state = SUITES[self.grant.suite], self._state
        header = b"".join((MessageType.RESUMED.first_byte, self.peer_cid, self.local_cid))
        state.symmetric.mix_hash(header + self.hello_hash)
        message = state.write_message(parameters, PrivateKey(entropy(X25519_SIZE)))
        body = Resumed(self.hello_hash, message[:X25519_SIZE], message[X25519_SIZE:]).encode()
        reply = Message(MessageType.RESUMED, self.peer_cid, self.local_cid, body)
        self.datagrams = encode_pieces(reply, max_datagram)
        self.established = Established(
            initiator=False,
            secrets=SessionSecrets.derive(suite, state.symmetric),
            peer_node_id=self.peer_node_id,
            peer_parameters=self._peer_parameters,
            local_cid=self.local_cid,
            peer_cid=self.peer_cid,
            version=VERSION,
            rtt=None,
        )
        return self.datagrams
