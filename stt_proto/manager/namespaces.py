"""Namespaces: what the sessions of one tenant, user or application share, under any name at all.

A name is text or bytes, and nothing is made of it that could be made of another: no character is replaced, no case
folded, no accent composed. Text and bytes are different names, too, when their bytes are the same.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from stt_proto.errors import ArgumentError

Namespace = str | bytes
"""The name of a namespace: up to `MAX_NAMESPACE` bytes, or characters that are as many in UTF-8."""

MAX_NAMESPACE = 1024

_LABEL = b"stt1 namespace "


def namespace_bytes(namespace: Namespace) -> bytes:
    """A name as bytes, of which it can be told what it was: `t` and the text in UTF-8, or `b` and the bytes.

    Characters that UTF-8 has no room for (halves of surrogate pairs) are kept too.

    Raises:
        ArgumentError: it is neither text nor bytes, or too long.
    """
    given: Any = namespace
    if isinstance(given, str):
        name = b"t" + given.encode("utf-8", "surrogatepass")
    elif isinstance(given, bytes):
        name = b"b" + given
    else:
        kind = type(given).__name__
        raise ArgumentError(f"namespace is of type {kind}; it must be text or bytes", argument="namespace")
    if len(name) - 1 > MAX_NAMESPACE:
        raise ArgumentError(f"namespace has {len(name) - 1:,} bytes; at most {MAX_NAMESPACE:,}", argument="namespace")
    return name


def namespace_from_bytes(name: bytes) -> Namespace:
    """Take back what `namespace_bytes` gave.

    Raises:
        ArgumentError: it never did.
    """
    try:
        if name[:1] == b"t" and len(name) <= MAX_NAMESPACE + 1:
            return name[1:].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        pass
    if name[:1] == b"b" and len(name) <= MAX_NAMESPACE + 1:
        return name[1:]
    raise ArgumentError("name is no namespace", argument="name")


def namespace_key(namespace: Namespace) -> str:
    """64 hexadecimal digits that stand for a name where not every name can stand: file names, tables, Redis keys.

    SHA-256 of what `namespace_bytes` gives, so two names have one key only if somebody breaks SHA-256.
    """
    return sha256(_LABEL + namespace_bytes(namespace)).hexdigest()
