"""What a handshake leaves behind: the secrets of the session, and the proof that it took place.

An `Established` is evidence. Of a full handshake it is made in exactly two places, after the last token of the key
schedule: by the initiator when a CHALLENGE opened, by the responder when an AUTH_PROOF did. Of a resumption likewise:
by the initiator when a RESUMED opened; by the responder with its RESUMED, and there it is evidence from the first
packet on that opens under its keys. Whoever holds one need not ask again who the peer is or whether it has the seed, or
had it when the ticket was given.
"""

from __future__ import annotations

from attrs import field, frozen

from stt_proto.crypto import Secret, Suite, SymmetricState, hkdf_expand
from stt_proto.wire import Parameters

SECRET_SIZE = 32
"""Bytes of every secret of a session."""

SESSION_ID_SIZE = 8
"""Bytes of the name that both sides have for a session."""

_DRAWN = 7 * SECRET_SIZE + SESSION_ID_SIZE


@frozen(eq=False)
class SessionSecrets(Secret):
    """Everything that is derived when a handshake is complete (H-6), each value once.

    Attributes:
        suite: the cipher suite that was agreed on.
        initiator_traffic: of packets from the initiator, key version 0.
        responder_traffic: of packets from the responder, key version 0.
        initiator_header: header protection of packets from the initiator; for the session's life.
        responder_header: header protection of packets from the responder; for the session's life.
        exporter: of exported keys (H-8).
        resumption: of tickets.
        rotation: of the chain of key rotation.
        session_id: 8 bytes, equal on both sides; names the session and authorises nothing (H-9).
    """

    suite: Suite
    initiator_traffic: bytes = field(repr=False)
    responder_traffic: bytes = field(repr=False)
    initiator_header: bytes = field(repr=False)
    responder_header: bytes = field(repr=False)
    exporter: bytes = field(repr=False)
    resumption: bytes = field(repr=False)
    rotation: bytes = field(repr=False)
    session_id: bytes

    @classmethod
    def derive(cls, suite: Suite, state: SymmetricState) -> SessionSecrets:
        """Draw all secrets from the chain and the transcript as they stand after the last token (H-6)."""
        drawn = hkdf_expand(state.ck, b"stt1 secrets" + state.h, _DRAWN)
        return cls(suite, *(drawn[start : start + SECRET_SIZE] for start in range(0, _DRAWN, SECRET_SIZE)))


@frozen(eq=False)
class Established(Secret):
    """A finished handshake, as one side sees it.

    Attributes:
        initiator: whether this side dialled.
        secrets: what the session's keys are made from.
        peer_node_id: the peer's public key, 32 bytes, canonical and proven.
        peer_parameters: what the peer announced, authenticated by the transcript.
        local_cid: this side's connection ID of sequence number 0.
        peer_cid: the peer's connection ID of sequence number 0.
        version: of the protocol.
        rtt: seconds between a message of ours and its answer; `None` when a repetition makes that ambiguous.
        peer_reset_token: of `peer_cid`, 16 bytes, where the handshake has told it; else none.
    """

    initiator: bool
    secrets: SessionSecrets
    peer_node_id: bytes
    peer_parameters: Parameters
    local_cid: bytes
    peer_cid: bytes
    version: int
    rtt: float | None
    peer_reset_token: bytes = field(default=b"", repr=False)
