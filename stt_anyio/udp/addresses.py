"""Addresses to bind and to dial: what they may be, and what names stand for."""

from __future__ import annotations

import socket
from typing import Any

from stt_anyio.errors import ArgumentError

Address = tuple[Any, ...]
"""An address as sockets give it: `(host, port)`, and two numbers more with IPv6."""
Resolved = tuple[socket.AddressFamily, Address]


def check_address(address: Any) -> tuple[str, int]:
    """An address to dial: `(host, port)`, or the longer tuple that sockets give for IPv6.

    Raises:
        ArgumentError: it is none.
    """
    match address:
        case (str(host), int(port)) if host and 1 <= port <= 65_535:
            return host, port
        case (str(host), int(port), int(), int(scope)) if host and 1 <= port <= 65_535:
            return f"{host}%{scope}" if scope else host, port
    if isinstance(address, str) and "://" in address:  # not quoted: there may be a password in it
        raise ArgumentError(
            'address is a URL; it must be (host, port), or go with transport="websocket"', argument="address"
        )
    raise ArgumentError(f"address is {address!r}; it must be (host, port), the port 1 to 65,535", argument="address")


def any_of(family: socket.AddressFamily) -> Address:
    """Any address and port of a family."""
    return ("::" if family == socket.AF_INET6 else "0.0.0.0", 0)


def resolve_numeric(host: str, port: int) -> Resolved | None:
    """The address that `host` already is, or `None` when it is a name that must be looked up."""
    try:
        return look_up(host, port, socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)[0]
    except OSError:
        return None


def look_up(host: str, port: int, flags: int = 0) -> list[Resolved]:
    """The addresses of a host, by name or number, in the form in which packets come from them. May take seconds.

    Raises:
        OSError: there is no such name.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=flags)
    except ValueError as error:
        raise OSError(f"{host!r} cannot be the name of a host") from error
    return [(entry[0], entry[4]) for entry in found]
