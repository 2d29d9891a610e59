"""What may stand for a host in an address that is typed."""

from __future__ import annotations

_MAX_NAME = 253
"""Bytes (RFC 1035 section 2.3.4, without those of the form in which it is sent)."""


def is_host(text: str) -> bool:
    """Whether a resolver and TLS can be asked for it: a number, or a printable name with labels of 1 to 63 bytes."""
    try:
        return text.isprintable() and len(text.encode("idna")) <= _MAX_NAME
    except UnicodeError:
        return False
