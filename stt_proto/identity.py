"""Who a node is, and the two seeds it is made with.

The *node seed* is the node: its X25519 key follows from it, and the public key *is* the node id, so an id
needs no certificate and is proven by using it. Since a node id is public, anybody can try seeds against it at
leisure; therefore a node seed is 32 or more random bytes and never something that a person thought of.

The *shared seed* says who may talk to whom. It may be a passphrase: it goes into CPace and nowhere else, so
it can only be guessed by taking part in handshakes, and those are counted. The two must differ, or the public
node id would be what the shared seed is guessed against.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from collections.abc import Callable

from stt_proto.crypto import PrivateKey, Secret, hkdf_expand, hkdf_extract
from stt_proto.errors import ArgumentError

MIN_NODE_SEED = 32
"""Bytes that a node seed has at least."""

_SALT = b"stt1 node"
_KEY_INFO = b"stt1 node key"
_USE_INFO = b"stt1 use "

_NODE_KEY_TAG = "stt-node-seed-1"
_NODE_KEY = re.compile(rf"{_NODE_KEY_TAG} ((?:[0-9a-f]{{2}}){{{MIN_NODE_SEED},}})(?:\r?\n)?")


class Identity(Secret):
    """A node's identity: what proves its node id, and the root of its other keys.

    It shows its node id and nothing else, and can be neither pickled nor copied. The seed is not kept.
    """

    __slots__ = ("_key", "_root")

    def __init__(self, node_seed: bytes) -> None:
        """Make the identity of a seed; see `from_seed`."""
        self._root = hkdf_extract(_SALT, _node_seed_bytes(node_seed))
        self._key = PrivateKey(hkdf_expand(self._root, _KEY_INFO, 32))

    @classmethod
    def from_seed(cls, node_seed: bytes) -> Identity:
        """The identity of a node seed: at least 32 bytes from a random source (`generate_node_seed`).

        Raises:
            ArgumentError: it is text, or too short; `argument` is `node_seed`.
        """
        return cls(node_seed)

    @property
    def node_id(self) -> bytes:
        """The public key: 32 bytes, canonical, the same for the same seed."""
        return self._key.public_bytes

    @property
    def static_key(self) -> PrivateKey:
        """The static key of the handshake, as an object that agrees on keys and reveals none."""
        return self._key

    def exchange(self, peer_public: bytes) -> bytes:
        """Agree on 32 bytes with the holder of a public key: static Diffie-Hellman, which is what proves the
        node id.

        Raises:
            EncryptionError: the public key is not 32 bytes, or is of small order.
        """
        return self._key.exchange(peer_public)

    def derive(self, label: str, length: int) -> bytes:
        """A key for some other use, independent of the node's own and of those with other labels.

        Args:
            label: what for.
            length: bytes, 1 to 8,160.

        Raises:
            ArgumentError: `length` is out of range.
        """
        return hkdf_expand(self._root, _USE_INFO + label.encode(), length)

    def made_from(self, seed: bytes) -> bool:
        """Whether this is the seed behind this identity; takes the same time for any seed of one length."""
        return hmac.compare_digest(hkdf_extract(_SALT, seed), self._root)

    def __repr__(self) -> str:
        return f"<Identity {self.node_id.hex()}>"


# -- the rules for seeds -------------------------------------------------------------------------------------


def _node_seed_bytes(node_seed: object) -> bytes:
    """A node seed as bytes, if it can be one."""
    if not isinstance(node_seed, bytes | bytearray | memoryview):
        raise ArgumentError(
            f"node_seed must be random bytes, not {type(node_seed).__name__}: a node id is public, so what a "
            "person can remember could be guessed from it",
            argument="node_seed",
        )
    seed = bytes(node_seed)
    if len(seed) < MIN_NODE_SEED:
        raise ArgumentError(
            f"node_seed must have at least {MIN_NODE_SEED} bytes, not {len(seed)}", argument="node_seed"
        )
    return seed


def shared_seed_bytes(seed: bytes | str) -> bytes:
    """A shared seed as the bytes that both sides must have alike.

    Text is normalised to NFC and encoded as UTF-8, so that it does not matter how a keyboard composes an
    accent. Bytes stay as they are.

    Raises:
        ArgumentError: empty, not encodable, or neither text nor bytes; `argument` is `shared_seed`.
    """
    if isinstance(seed, str):
        text = unicodedata.normalize("NFC", seed)
        # Looked for, not tried: the error of an encoder quotes the seed, and would stay with ours as its context.
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise ArgumentError("shared_seed has no UTF-8 encoding", argument="shared_seed")
        seed = text.encode()
    elif not isinstance(seed, bytes | bytearray | memoryview):
        raise ArgumentError(f"shared_seed must be bytes or text, not {type(seed).__name__}", argument="shared_seed")
    if not seed:
        raise ArgumentError("shared_seed must not be empty", argument="shared_seed")
    return bytes(seed)


def seed_from_file_bytes(raw: bytes) -> bytes:
    """The shared seed in a file: its bytes, without the one newline (LF or CR LF) that editors add."""
    for newline in (b"\r\n", b"\n"):
        if raw.endswith(newline):
            return raw[: -len(newline)]
    return raw


def check_seeds(node_seed: bytes, shared_seed: bytes | str) -> None:
    """Check the two seeds of a node, alone and against each other.

    Raises:
        ArgumentError: `node_seed` is text, shorter than 32 bytes, or equal to `shared_seed`, and `argument`
            is `node_seed`; or `shared_seed` is none, and `argument` is `shared_seed`.
    """
    if hmac.compare_digest(_node_seed_bytes(node_seed), shared_seed_bytes(shared_seed)):
        raise ArgumentError(
            "node_seed must not equal shared_seed, which could then be guessed from the public node id",
            argument="node_seed",
        )


# -- making and keeping a node seed --------------------------------------------------------------------------


def generate_node_seed(entropy: Callable[[int], bytes]) -> bytes:
    """A new node seed, 32 bytes of `entropy(32)`."""
    return entropy(MIN_NODE_SEED)


def encode_node_key(node_seed: bytes) -> str:
    """A node seed as the text of a key file: one line, `stt-node-seed-1` and the seed in hexadecimal digits.

    Raises:
        ArgumentError: it is no node seed; `argument` is `node_seed`.
    """
    return f"{_NODE_KEY_TAG} {_node_seed_bytes(node_seed).hex()}\n"


def decode_node_key_untrusted(text: str) -> bytes:
    """The node seed in the text of a key file.

    Raises:
        ArgumentError: this is no key file, in a message that shows nothing of it; `argument` is `node_key`.
    """
    match = _NODE_KEY.fullmatch(text)
    if match is None:
        raise ArgumentError(
            f"not a node key: expected {_NODE_KEY_TAG} and at least {2 * MIN_NODE_SEED} hexadecimal digits",
            argument="node_key",
        )
    return bytes.fromhex(match[1])
