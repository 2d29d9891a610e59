"""Metadata of a session: what the application wants to remember with it, in a form that nothing can change."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from types import MappingProxyType
from typing import Any

from stt_proto.errors import ArgumentError

Scalar = str | bytes | int | float | bool | None
Metadata = Mapping[str, Scalar]

MAX_METADATA_ENTRIES = 1024
MAX_METADATA_BYTES = 32_768
MAX_METADATA_KEY = 255

NO_METADATA: Metadata = MappingProxyType({})


def frozen_metadata(
    metadata: Any, max_entries: int = MAX_METADATA_ENTRIES, max_bytes: int = MAX_METADATA_BYTES
) -> Metadata:
    """A copy that can be given to anybody: read-only, and values that cannot change.

    Keys are text of 1 to 255 bytes in UTF-8; values are text, bytes, whole numbers of 64 bits, finite numbers, True,
    False and `None`. Numbers count as 8 bytes.

    Raises:
        ArgumentError: it is something else, or too much; `argument` is `metadata`.
    """
    if metadata is None:
        return NO_METADATA
    if not isinstance(metadata, Mapping):
        raise _refuse(f"metadata is of type {type(metadata).__name__}; it must be a mapping")
    copy = dict(metadata)
    if len(copy) > max_entries:
        raise _refuse(f"metadata has {len(copy):,} entries; at most {max_entries:,}")
    size = 0
    for key, value in copy.items():
        if type(key) is not str or not 1 <= _size(key) <= MAX_METADATA_KEY:
            raise _refuse(f"keys of metadata must be text of 1 to {MAX_METADATA_KEY} bytes")
        size += _size(key) + _size(value)
    if size > max_bytes:
        raise _refuse(f"metadata has {size:,} bytes; at most {max_bytes:,}")
    return MappingProxyType(copy)


def _size(value: Any) -> int:
    kind = type(value)
    if kind is str:
        try:
            return len(value.encode())
        except UnicodeEncodeError:
            raise _refuse("text in metadata must have an UTF-8 encoding") from None
    if kind is bytes:
        return len(value)
    if value is None or kind is bool or (kind is float and isfinite(value)):
        return 8
    if kind is int and -(1 << 63) <= value < 1 << 63:
        return 8
    raise _refuse("values of metadata must be text, bytes, True, False, None, or numbers of 64 bits")


def _refuse(message: str) -> ArgumentError:
    return ArgumentError(message, argument="metadata")
