"""Pieces of a record as bytes: a writer, and a reader that never reads past the end and leaves nothing over.

Lengths are two bytes, numbers big-endian. What the reader raises for damaged data is `ArgumentError` and nothing else.
"""

from __future__ import annotations

from struct import Struct
from struct import error as StructError

from stt_proto.errors import ArgumentError
from stt_proto.manager.metadata import Metadata, Scalar, frozen_metadata

_LENGTH = Struct(">H")
_INTEGER = Struct(">q")
_NUMBER = Struct(">d")

_CONSTANTS: tuple[Scalar, ...] = (None, False, True)
"""Values that are tags themselves: 0, 1, 2."""
_TEXT, _BYTES, _WHOLE, _FLOAT = 3, 4, 5, 6


def damaged() -> ArgumentError:
    """The error for data that is no record."""
    return ArgumentError("data is no record of a session, or a damaged one", argument="data")


def put_bytes(data: bytes) -> bytes:
    """Up to 65,535 bytes, their length before them."""
    return _LENGTH.pack(len(data)) + data


def put_metadata(metadata: Metadata) -> bytes:
    """The entries, in their order, their number before them."""
    pieces = [_LENGTH.pack(len(metadata))]
    for key, value in metadata.items():
        pieces += (put_bytes(key.encode()), _put_scalar(value))
    return b"".join(pieces)


def _put_scalar(value: Scalar) -> bytes:
    if isinstance(value, str):
        return bytes((_TEXT,)) + put_bytes(value.encode())
    if isinstance(value, bytes):
        return bytes((_BYTES,)) + put_bytes(value)
    if value is None or isinstance(value, bool):
        return bytes((_CONSTANTS.index(value),))
    if isinstance(value, int):
        return bytes((_WHOLE,)) + _INTEGER.pack(value)
    return bytes((_FLOAT,)) + _NUMBER.pack(value)


class Reader:
    """Reads what was put, in the same order."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def unpack(self, struct: Struct) -> tuple[object, ...]:
        """The values of a structure."""
        try:
            values = struct.unpack_from(self._data, self._at)
        except StructError:
            raise damaged() from None
        self._at += struct.size
        return values

    def take(self, size: int) -> bytes:
        """The next bytes."""
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise damaged()
        self._at += size
        return taken

    def take_bytes(self) -> bytes:
        """What `put_bytes` put."""
        return self.take(int.from_bytes(self.take(2)))

    def take_metadata(self) -> Metadata:
        """What `put_metadata` put."""
        count = int.from_bytes(self.take(2))
        entries = {}
        try:
            for _ in range(count):
                key = self.take_bytes().decode()
                entries[key] = self._take_scalar()
        except UnicodeDecodeError:
            raise damaged() from None
        if len(entries) != count:
            raise damaged()
        return frozen_metadata(entries)

    def _take_scalar(self) -> Scalar:
        tag = self.take(1)[0]
        if tag < len(_CONSTANTS):
            return _CONSTANTS[tag]
        if tag == _TEXT:
            return self.take_bytes().decode()
        if tag == _BYTES:
            return self.take_bytes()
        if tag == _WHOLE:
            return int.from_bytes(self.take(8), signed=True)
        if tag == _FLOAT:
            return float(*_NUMBER.unpack(self.take(8)))
        raise damaged()

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise damaged()
