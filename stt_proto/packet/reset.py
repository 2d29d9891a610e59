"""Stateless reset: how an endpoint that has forgotten a session tells its peer (docs/protocol.md, P-14 and C-5).

A restarted server can neither open nor seal for its old sessions. All it still has is its reset key, and with it the
token of any ID it once issued; the peer was told that token while the session lived. A datagram that ends in it is
therefore the server's word that the session is gone.
"""

from __future__ import annotations

import hmac
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from stt_proto.crypto import Secret
from stt_proto.errors import ArgumentError
from stt_proto.types import Buffer
from stt_proto.wire.header import (
    FORM_BITS,
    PACKET_FORM,
    PACKET_HEADER,
    RESET_TOKEN_SIZE,
    TRAIN_BIT,
)

__all__ = ["MAX_RESET", "MIN_RESET", "ExpectedResets", "ResetTokens", "reset_token"]

MIN_RESET = PACKET_HEADER + RESET_TOKEN_SIZE
"""Bytes of the shortest datagram that is taken for a reset: as short as the shortest packet."""
MAX_RESET = 42
"""Bytes of the resets sent. Only longer datagrams are answered, so two endpoints cannot answer each other for ever."""

_MIN_KEY = 32

Owner = TypeVar("Owner")


class ResetTokens(Secret):
    """Makes the tokens of the IDs that this endpoint issues, and the resets that end in them."""

    __slots__ = ("_key", "_per_second", "_sent")

    def __init__(self, key: bytes, per_second: int = 10) -> None:
        """Begin with a key.

        Args:
            key: at least 32 bytes, random or configured, never made from a seed.
            per_second: resets sent within any second.

        Raises:
            ArgumentError: the key is too short.
        """
        if len(key) < _MIN_KEY:
            raise ArgumentError(f"the reset key must have at least {_MIN_KEY} bytes", argument="key")
        self._key = key
        self._per_second = per_second
        self._sent: deque[float] = deque()

    def token(self, connection_id: bytes) -> bytes:
        """The token of an ID, 16 bytes (C-5)."""
        return hmac.digest(self._key, connection_id, "sha256")[:RESET_TOKEN_SIZE]

    def make_reset(
        self, connection_id: bytes, trigger_size: int, now: float, entropy: Callable[[int], bytes]
    ) -> bytes | None:
        """Answer a packet to an ID that nobody has.

        Args:
            connection_id: the ID that the packet was sent to.
            trigger_size: bytes of its datagram.
            now: seconds.
            entropy: for what stands before the token, so that it looks like any packet.

        Returns:
            The datagram, shorter than the one that it answers; `None` when that is too short, or when enough were sent
            within the last second.
        """
        sent = self._sent
        while sent and sent[0] <= now - 1.0:
            sent.popleft()
        if trigger_size <= MAX_RESET or len(sent) >= self._per_second:
            return None
        sent.append(now)
        noise = entropy(MAX_RESET - RESET_TOKEN_SIZE)
        first = PACKET_FORM | noise[0] & ~(FORM_BITS | TRAIN_BIT)
        return bytes((first,)) + noise[1:] + self.token(connection_id)


def reset_token(datagram: Buffer) -> bytes | None:
    """The token in a datagram that may be a reset; `None` when its form rules that out."""
    if len(datagram) < MIN_RESET or datagram[0] & (FORM_BITS | TRAIN_BIT) != PACKET_FORM:
        return None
    return bytes(datagram[-RESET_TOKEN_SIZE:])


class ExpectedResets(Secret, Generic[Owner]):
    """The tokens by which peers would reset the sessions of an endpoint.

    They are looked up in one step, however many there are. What is looked up is a keyed hash, so the time that it takes
    tells nothing about any token (RFC 9000, 10.3.1).
    """

    __slots__ = ("_key", "_owners")

    def __init__(self, key: bytes) -> None:
        """Begin with a random key of 32 bytes."""
        self._key = key
        self._owners: dict[bytes, Owner] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def add(self, token: bytes, owner: Owner) -> None:
        """Expect a token."""
        self._owners[self._hash(token)] = owner

    def discard(self, token: bytes, owner: Owner) -> None:
        """Expect a token no more. One that another owner gave meanwhile stays."""
        key = self._hash(token)
        if self._owners.get(key) is owner:
            del self._owners[key]

    def owner_of(self, datagram: Buffer) -> Owner | None:
        """Whose session a datagram that did not open resets, or `None`."""
        token = reset_token(datagram) if self._owners else None
        return None if token is None else self._owners.get(self._hash(token))

    def _hash(self, token: bytes) -> bytes:
        return hmac.digest(self._key, token, "sha256")
