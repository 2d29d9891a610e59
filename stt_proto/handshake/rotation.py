"""The keys of the next version: a small handshake inside a session (docs/protocol.md, V-2).

Three Diffie-Hellman results are mixed into a chain that began with the handshake. `ee` alone would lock out a thief of
all secrets who only listens; one who stands on the path could put ephemeral keys of his own in the place of both. So
the static keys take part: what he knows of `es` and `se` is never both, since each side puts its own static key into
one. The chain in turn carries on what the handshake rested on, CPace and the KEM among it.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

from stt_proto.crypto import X25519_SIZE, PrivateKey, Secret, hkdf_expand, hkdf_extract
from stt_proto.handshake.established import SECRET_SIZE, Established

_LABEL = b"stt1 rotate"
_VERSION_SIZE = 8


@frozen(eq=False)
class VersionSecrets(Secret):
    """What one key version is made from.

    Attributes:
        initiator_traffic: of packets from the initiator.
        responder_traffic: of packets from the responder.
        rotation: the chain, from which the version after this one is made.
    """

    initiator_traffic: bytes = field(repr=False)
    responder_traffic: bytes = field(repr=False)
    rotation: bytes = field(repr=False)


def next_secrets(
    rotation: bytes,
    version: int,
    *,
    initiator: bool,
    static: PrivateKey,
    ephemeral: PrivateKey,
    peer_static: bytes,
    peer_ephemeral: bytes,
) -> VersionSecrets:
    """Derive a key version; both sides get the same.

    Args:
        rotation: the chain of the version before, 32 bytes.
        version: of the new keys.
        initiator: whether this side dialled.
        static: this side's static key.
        ephemeral: the key that this side drew for this rotation.
        peer_static: the peer's node id.
        peer_ephemeral: the key in the peer's ROTATE.

    Raises:
        EncryptionError: the peer's key is of small order.
    """
    ee = ephemeral.exchange(peer_ephemeral)
    own_first, peer_first = ephemeral.exchange(peer_static), static.exchange(peer_ephemeral)
    if initiator:
        shared = ee + own_first + peer_first
        keys = ephemeral.public_bytes + peer_ephemeral
    else:
        shared = ee + peer_first + own_first
        keys = peer_ephemeral + ephemeral.public_bytes
    info = _LABEL + version.to_bytes(_VERSION_SIZE) + keys
    drawn = hkdf_expand(hkdf_extract(rotation, shared), info, 3 * SECRET_SIZE)
    return VersionSecrets(*(drawn[start : start + SECRET_SIZE] for start in range(0, len(drawn), SECRET_SIZE)))


class KeyChain(Secret):
    """One side's part in making key versions: the chain as it stands, and the ephemeral key of the rotation under way.

    Args:
        established: the handshake, with which the chain begins.
        static: this side's static key.
        entropy: where ephemeral keys come from.

    Attributes:
        initiator: whether this side dialled.
        version: of the keys that were derived last.
        key: the public key that this side has put into its ROTATE for the next version; `b""` before it has.
    """

    __slots__ = ("_chain", "_entropy", "_ephemeral", "_peer_static", "_static", "initiator", "key", "version")

    def __init__(self, established: Established, static: PrivateKey, entropy: Callable[[int], bytes]) -> None:
        self.initiator = established.initiator
        self._static = static
        self._peer_static = established.peer_node_id
        self._chain = established.secrets.rotation
        self._entropy = entropy
        self._ephemeral: PrivateKey | None = None
        self.version = 0
        self.key = b""

    def draw(self) -> None:
        """Draw the ephemeral key for the next version."""
        self._ephemeral = PrivateKey(self._entropy(X25519_SIZE))
        self.key = self._ephemeral.public_bytes

    def advance(self, peer_key: bytes) -> VersionSecrets:
        """Derive the next version from the key drawn and that of the peer, and forget what it was derived from.

        Raises:
            EncryptionError: the peer's key is of small order.
        """
        assert self._ephemeral is not None
        secrets = next_secrets(
            self._chain,
            self.version + 1,
            initiator=self.initiator,
            static=self._static,
            ephemeral=self._ephemeral,
            peer_static=self._peer_static,
            peer_ephemeral=peer_key,
        )
        self._chain = secrets.rotation
        self._ephemeral = None
        self.version += 1
        return secrets
