"""What each handshake message says (docs/protocol.md, section 3.2).

A frozen value each, `encode` to its body and `decode_untrusted` back. A body that is too short, too long,
or has a field outside its range is a `HandshakeError` and nothing else; encoding a value with a field of a
wrong size is an `ArgumentError` that names it. Encoding what was decoded gives the same bytes (but for
padding), which the transcript hash relies on.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Self

from attrs import frozen

from stt_proto.errors import ArgumentError, HandshakeError
from stt_proto.wire.header import TAG_SIZE
from stt_proto.wire.messages import MessageType
from stt_proto.wire.parameters import MAX_PARAMETERS

__all__ = [
    "HELLO_HASH_SIZE",
    "MAX_COOKIE",
    "Abort",
    "AuthProof",
    "Challenge",
    "Hello",
    "Refused",
    "Resume",
    "Resumed",
    "Retry",
    "VersionList",
]

HELLO_HASH_SIZE = 16
"""Bytes of a hello hash (W-6)."""
MAX_COOKIE = 64
"""Bytes of the longest cookie."""
MAX_TICKET = 512
"""Bytes of the longest ticket."""
MAX_CHOICES = 16
"""How many versions, and how many suites, a list may hold."""

SID_SIZE = 16
KEY_SIZE = 32
SHARE_SIZE = 32
SEALED_KEM_KEY_SIZE = 1184 + TAG_SIZE
SEALED_KEM_CIPHERTEXT_SIZE = 1088 + TAG_SIZE
SEALED_STATIC_SIZE = KEY_SIZE + TAG_SIZE
SEALED_CODE_SIZE = 2 + TAG_SIZE


class _Reader:
    """Takes one field after the other from a body; a field that is not all there raises `HandshakeError`."""

    __slots__ = ("_data", "_offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        end = self._offset + size
        if end > len(self._data):
            raise HandshakeError("a handshake message is too short")
        field = self._data[self._offset : end]
        self._offset = end
        return field

    def number(self, size: int) -> int:
        """The next integer of `size` bytes."""
        return int.from_bytes(self.take(size))

    def counted(self, low: int, high: int, *, size: int = 1) -> bytes:
        """A length of `size` bytes, `low` to `high`, and as many bytes."""
        count = self.number(size)
        if not low <= count <= high:
            raise HandshakeError(f"a field of a handshake message has {count} bytes")
        return self.take(count)

    def choices(self) -> tuple[int, ...]:
        """A list of versions or suites, one byte each."""
        return tuple(self.counted(1, MAX_CHOICES))

    def rest(self, low: int, high: int) -> bytes:
        """All that is left, `low` to `high` bytes."""
        rest = self._data[self._offset :]
        if not low <= len(rest) <= high:
            raise HandshakeError(f"a handshake message ends in {len(rest)} bytes")
        return rest

    def padding(self) -> None:
        """All that is left are zero bytes."""
        padding = self._data[self._offset :]
        if padding != bytes(len(padding)):
            raise HandshakeError("a handshake message is padded with something else than zero bytes")

    def done(self) -> None:
        """Nothing may be left."""
        self.rest(0, 0)


def _sized(value: bytes, low: int, high: int, argument: str) -> bytes:
    if not low <= len(value) <= high:
        allowed = f"{low}" if low == high else f"{low} to {high}"
        raise ArgumentError(f"{argument} has {len(value)} bytes; it must have {allowed}", argument=argument)
    return value


def _exactly(value: bytes, size: int, argument: str) -> bytes:
    return _sized(value, size, size, argument)


def _counted(value: bytes, low: int, high: int, argument: str, *, size: int = 1) -> bytes:
    return len(_sized(value, low, high, argument)).to_bytes(size) + value


def _number(value: int, size: int, argument: str) -> bytes:
    try:
        return value.to_bytes(size)
    except OverflowError:
        raise ArgumentError(f"{argument} is {value}; it must fit into {size} bytes", argument=argument) from None


def _choices(values: tuple[int, ...], argument: str) -> bytes:
    return _counted(b"".join(_number(value, 1, argument) for value in values), 1, MAX_CHOICES, argument)


@frozen
class Hello:
    """The first message: what the initiator offers.

    Attributes:
        versions, suites: 1 to 16 numbers each, the preferred first.
        sid: 16 bytes, CPace's session id.
        e: the ephemeral X25519 key, 32 bytes.
        share: the CPace share, 32 bytes.
        parameters: encoded, at most 1,024 bytes.
        cookie: of a RETRY, at most 64 bytes, or nothing.
    """

    versions: tuple[int, ...]
    suites: tuple[int, ...]
    sid: bytes
    e: bytes
    share: bytes
    parameters: bytes
    cookie: bytes = b""

    def core(self) -> bytes:
        """All that is authenticated: everything but the cookie and the padding."""
        return b"".join(
            (
                _choices(self.versions, "versions"),
                _choices(self.suites, "suites"),
                _exactly(self.sid, SID_SIZE, "sid"),
                _exactly(self.e, KEY_SIZE, "e"),
                _exactly(self.share, SHARE_SIZE, "share"),
                _counted(self.parameters, 0, MAX_PARAMETERS, "parameters", size=2),
            )
        )

    def hello_hash(self, dcid: bytes, scid: bytes) -> bytes:
        """Name this HELLO in the answers to it (W-6): 16 bytes, the same with and without a cookie."""
        message = b"".join((MessageType.HELLO.first_byte, dcid, scid, self.core()))
        return sha256(message).digest()[:HELLO_HASH_SIZE]

    def encode(self) -> bytes:
        return self.core() + _counted(self.cookie, 0, MAX_COOKIE, "cookie")

    @classmethod
    def decode_untrusted(cls, body: bytes) -> Self:
        """Decode a body with its padding, which must be zero bytes; raises only `HandshakeError`."""
        reader = _Reader(body)
        hello = cls(
            reader.choices(),
            reader.choices(),
            reader.take(SID_SIZE),
            reader.take(KEY_SIZE),
            reader.take(SHARE_SIZE),
            reader.counted(0, MAX_PARAMETERS, size=2),
            reader.counted(0, MAX_COOKIE),
        )
        reader.padding()
        return hello


@frozen
class Challenge:
    """The responder's answer to HELLO.

    Attributes:
        hello_hash: of the HELLO that it answers.
        version, suite: chosen from those offered.
        e: the ephemeral X25519 key, 32 bytes.
        share: the CPace share, 32 bytes.
        sealed_kem_key: 1,200 bytes.
        sealed_static: 48 bytes.
        sealed_parameters: 16 to 1,040 bytes.
    """

    hello_hash: bytes
    version: int
    suite: int
    e: bytes
    share: bytes
    sealed_kem_key: bytes
    sealed_static: bytes
    sealed_parameters: bytes

    def clear(self) -> bytes:
        """The part that is not sealed."""
        return b"".join(
            (
                _exactly(self.hello_hash, HELLO_HASH_SIZE, "hello_hash"),
                _number(self.version, 1, "version"),
                _number(self.suite, 1, "suite"),
                _exactly(self.e, KEY_SIZE, "e"),
                _exactly(self.share, SHARE_SIZE, "share"),
            )
        )

    def encode(self) -> bytes:
        return b"".join(
            (
                self.clear(),
                _exactly(self.sealed_kem_key, SEALED_KEM_KEY_SIZE, "sealed_kem_key"),
                _exactly(self.sealed_static, SEALED_STATIC_SIZE, "sealed_static"),
                _sized(self.sealed_parameters, TAG_SIZE, TAG_SIZE + MAX_PARAMETERS, "sealed_parameters"),
            )
        )

    @classmethod
    def decode_untrusted(cls, body: bytes) -> Self:
        """Decode a body; raises only `HandshakeError`."""
        reader = _Reader(body)
        return cls(
            reader.take(HELLO_HASH_SIZE),
            reader.number(1),
            reader.number(1),
            reader.take(KEY_SIZE),
            reader.take(SHARE_SIZE),
            reader.take(SEALED_KEM_KEY_SIZE),
            reader.take(SEALED_STATIC_SIZE),
            reader.rest(TAG_SIZE, TAG_SIZE + MAX_PARAMETERS),
        )


@frozen
class AuthProof:
    """The initiator proves that it holds the seed and its key.

    Attributes:
        sealed_kem_ciphertext: 1,104 bytes.
        sealed_static: 48 bytes.
        sealed_empty: 16 bytes; opens only if everything fits.
    """

    sealed_kem_ciphertext: bytes
    sealed_static: bytes
    sealed_empty: bytes

    def encode(self) -> bytes:
        return b"".join(
            (
                _exactly(self.sealed_kem_ciphertext, SEALED_KEM_CIPHERTEXT_SIZE, "sealed_kem_ciphertext"),
                _exactly(self.sealed_static, SEALED_STATIC_SIZE, "sealed_static"),
                _exactly(self.sealed_empty, TAG_SIZE, "sealed_empty"),
            )
        )

    @classmethod
    def decode_untrusted(cls, body: bytes) -> Self:
        """Decode a body; raises only `HandshakeError`."""
        reader = _Reader(body)
        proof = cls(reader.take(SEALED_KEM_CIPHERTEXT_SIZE), reader.take(SEALED_STATIC_SIZE), reader.take(TAG_SIZE))
        reader.done()
        return proof


@frozen
class Retry:
    """Asks for the same HELLO with a cookie of 1 to 64 bytes."""

    hello_hash: bytes
    cookie: bytes

    def encode(self) -> bytes:
        hello_hash = _exactly(self.hello_hash, HELLO_HASH_SIZE, "hello_hash")
        return hello_hash + _counted(self.cookie, 1, MAX_COOKIE, "cookie")

    @classmethod
    def decode_untrusted(cls, body: bytes) -> Self:
        """Decode a body; raises only `HandshakeError`."""
        reader = _Reader(body)
        retry = cls(reader.take(HELLO_HASH_SIZE), reader.counted(1, MAX_COOKIE))
        reader.done()
        return retry


@frozen
class Refused:
    """No session is accepted; the code, of section 12, tells why."""

    hello_hash: bytes
    code: int

    def encode(self) -> bytes:
        return _exactly(self.hello_hash, HELLO_HASH_SIZE, "hello_hash") + _number(self.code, 2, "code")

    @classmethod
    def decode_untrusted(cls, body: bytes) -> Self:
        """Decode a body; raises only `HandshakeError`."""
        reader = _Reader(body)
        refused = cls(reader.take(HELLO_HASH_SIZE), reader.number(2))
        reader.done()
        return refused


@frozen
class VersionList:
    """The message VERSION: the versions and suites of a responder that shares none with the initiator."""

    hello_hash: bytes
    versions: tuple[int, ...]
    suites: tuple[int, ...]

    def encode(self) -> bytes:
        hello_hash = _exactly(self.hello_hash, HELLO_HASH_SIZE, "hello_hash")
        return hello_hash + _choices(self.versions, "versions") + _choices(self.suites, "suites")

    @classmethod
    def decode_untrusted(cls, body: bytes) -> Self:
        """Decode a body; raises only `HandshakeError`."""
        reader = _Reader(body)
        version = cls(reader.take(HELLO_HASH_SIZE), reader.choices(), reader.choices())
        reader.done()
        return version


@frozen
class Abort:
    """The initiator gives up; the code is sealed, 18 bytes, so that only who dialled can say so."""

    sealed_code: bytes

    def encode(self) -> bytes:
        return _exactly(self.sealed_code, SEALED_CODE_SIZE, "sealed_code")

    @classmethod
    def decode_untrusted(cls, body: bytes) -> Self:
        """Decode a body; raises only `HandshakeError`."""
        reader = _Reader(body)
        abort = cls(reader.take(SEALED_CODE_SIZE))
        reader.done()
        return abort


@frozen
class Resume:
    """The first message of who has a ticket (4.4).

    Attributes:
        version: of the protocol, that of the session in which the ticket was given.
        e: the ephemeral X25519 key, 32 bytes.
        ticket: 1 to 512 bytes.
        sealed_parameters: 16 to 1,040 bytes.
        cookie: of a RETRY, at most 64 bytes, or nothing.
    """

    version: int
    e: bytes
    ticket: bytes
    sealed_parameters: bytes
    cookie: bytes = b""

    def clear(self) -> bytes:
        """What is not sealed, but for `e`, which the pattern takes in itself."""
        return _number(self.version, 1, "version") + _counted(self.ticket, 1, MAX_TICKET, "ticket", size=2)

    def core(self) -> bytes:
        """All that is authenticated: everything but the cookie and the padding."""
        sealed = _counted(self.sealed_parameters, TAG_SIZE, TAG_SIZE + MAX_PARAMETERS, "sealed_parameters", size=2)
        return self.clear() + _exactly(self.e, KEY_SIZE, "e") + sealed

    def encode(self) -> bytes:
        return self.core() + _counted(self.cookie, 0, MAX_COOKIE, "cookie")

    @classmethod
    def decode_untrusted(cls, body: bytes) -> Self:
        """Decode a body with its padding, which must be zero bytes; raises only `HandshakeError`."""
        reader = _Reader(body)
        version = reader.number(1)
        ticket = reader.counted(1, MAX_TICKET, size=2)
        e = reader.take(KEY_SIZE)
        sealed_parameters = reader.counted(TAG_SIZE, TAG_SIZE + MAX_PARAMETERS, size=2)
        resume = cls(version, e, ticket, sealed_parameters, reader.counted(0, MAX_COOKIE))
        reader.padding()
        return resume


@frozen
class Resumed:
    """The responder's answer to RESUME.

    Attributes:
        hello_hash: of the RESUME that it answers.
        e: the ephemeral X25519 key, 32 bytes.
        sealed_parameters: 16 to 1,040 bytes.
    """

    hello_hash: bytes
    e: bytes
    sealed_parameters: bytes

    def encode(self) -> bytes:
        return b"".join(
            (
                _exactly(self.hello_hash, HELLO_HASH_SIZE, "hello_hash"),
                _exactly(self.e, KEY_SIZE, "e"),
                _sized(self.sealed_parameters, TAG_SIZE, TAG_SIZE + MAX_PARAMETERS, "sealed_parameters"),
            )
        )

    @classmethod
    def decode_untrusted(cls, body: bytes) -> Self:
        """Decode a body; raises only `HandshakeError`."""
        reader = _Reader(body)
        hello_hash, e = reader.take(HELLO_HASH_SIZE), reader.take(KEY_SIZE)
        return cls(hello_hash, e, reader.rest(TAG_SIZE, TAG_SIZE + MAX_PARAMETERS))
