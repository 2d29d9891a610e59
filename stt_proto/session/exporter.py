"""Exported keys: for other protocols that want to be bound to this session (docs/protocol.md, H-8)."""

from __future__ import annotations

from stt_proto.crypto import hkdf_expand
from stt_proto.errors import ArgumentError, StateError
from stt_proto.wire import encode_varint

MAX_LABEL = 255
"""Bytes of the longest label."""
MAX_EXPORT = 8160
"""Bytes of the longest exported key: 255 blocks (RFC 5869)."""


def export_key(exporter: bytes, label: str, length: int) -> bytes:
    """Derive a key from the exporter secret, which is `b""` while there is none.

    Raises:
        ArgumentError: an argument is out of range.
        StateError: there is no secret yet.
    """
    try:
        name = label.encode()
    except (AttributeError, UnicodeEncodeError):
        raise ArgumentError("label must be text", argument="label") from None
    if len(name) > MAX_LABEL:
        raise ArgumentError(f"label has {len(name)} bytes; it must have at most {MAX_LABEL}", argument="label")
    if type(length) is not int or not 1 <= length <= MAX_EXPORT:
        raise ArgumentError(f"length is {length!r}; it must be from 1 to {MAX_EXPORT:,}", argument="length")
    if not exporter:
        raise StateError("the session has no keys yet")
    info = b"stt1 export " + encode_varint(len(name)) + name + length.to_bytes(2)
    return hkdf_expand(exporter, info, length)
