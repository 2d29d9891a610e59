"""What systems call things, and how one asks them: options of UDP sockets that the standard library does not name.

Everything here is asked for and may be missing; nothing fails for it.
"""

from __future__ import annotations

import functools
import logging
import socket
import struct
import sys
from typing import Protocol

logger = logging.getLogger("stt.udp")

LINUX = sys.platform == "linux"

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
RUN = (SOL_UDP, UDP_GRO)
"""As what the size of the datagrams of a run is told."""
ERRORS_QUEUED = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}
"""IP_RECVERR, IPV6_RECVERR: what becomes of datagrams is put into a queue, with the address that it is about."""

_PROBE = 3
"""IP_PMTUDISC_PROBE: set DF, and do not believe what was learnt of the way, for that is what probes are to find out."""
_NEVER_CUT = {
    "linux": {socket.AF_INET: (10, _PROBE), socket.AF_INET6: (23, _PROBE)},  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER
    "darwin": {socket.AF_INET: (28, 1), socket.AF_INET6: (62, 1)},  # IP_DONTFRAG, IPV6_DONTFRAG
    "freebsd": {socket.AF_INET: (67, 1), socket.AF_INET6: (62, 1)},
    "win32": {socket.AF_INET: (14, 1), socket.AF_INET6: (14, 1)},  # IP_DONTFRAGMENT
}

HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}
"""Bytes that IP and UDP put before a datagram."""

TOS = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_TOS),
    socket.AF_INET6: (socket.IPPROTO_IPV6, getattr(socket, "IPV6_TCLASS", 67)),
}
"""The byte of the IP header whose lowest two bits are ECN: as an option, and as what comes and goes with a datagram."""
_TELL_TOS = {
    socket.AF_INET: (socket.IPPROTO_IP, getattr(socket, "IP_RECVTOS", 13)),
    socket.AF_INET6: (socket.IPPROTO_IPV6, getattr(socket, "IPV6_RECVTCLASS", 66)),
}

TOLD_TOS = frozenset({*TOS.values(), *_TELL_TOS.values()})
"""As what it is told: Linux names the byte, others the option by which it was asked for."""

ANY = frozenset({"0.0.0.0", "::"})
"""Addresses to bind that stand for all of a machine."""
_ADDRESS = {
    socket.AF_INET: (socket.IPPROTO_IP, 8, 8),  # IP_PKTINFO, both ways
    socket.AF_INET6: (socket.IPPROTO_IPV6, 49, 50),  # IPV6_RECVPKTINFO, IPV6_PKTINFO
}
TOLD_ADDRESS = {(socket.IPPROTO_IP, 8): slice(4, 8), (socket.IPPROTO_IPV6, 50): slice(0, 16)}
"""Which bytes of what is told are the address of this machine that a datagram was sent to (Linux)."""

LEAST_BUFFER = 65_536
"""Bytes of buffer that every system grants."""
_BUFFERS = {
    "SO_RCVBUF": "net.core.rmem_max",
    "SO_SNDBUF": "net.core.wmem_max",
}
"""Options for the sizes of buffers, and what limits them on Linux."""


class HasOptions(Protocol):
    """A socket."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...

    def getsockopt(self, level: int, option: int, /) -> int: ...


def try_option(sock: HasOptions, level: int, option: int, *values: int) -> bool:
    """Set an option to each value in turn, the last of which stays; False if the system does not know it."""
    try:
        for value in values:
            sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def never_cut(sock: HasOptions, family: socket.AddressFamily) -> bool:
    """Have datagrams that are too large for the way vanish, instead of being cut into fragments (RFC 8899, 3).

    Returns:
        whether the system promised.
    """
    for system, options in _NEVER_CUT.items():
        if sys.platform.startswith(system):
            option, value = options[family]
            level = socket.IPPROTO_IPV6 if family == socket.AF_INET6 else socket.IPPROTO_IP
            return try_option(sock, level, option, value)
    return False


def tell_marks(sock: HasOptions, family: socket.AddressFamily) -> bool:
    """Have the system tell the ECN bits of each datagram; False if it cannot."""
    return try_option(sock, *_TELL_TOS[family], 1)


def tell_addresses(sock: HasOptions, family: socket.AddressFamily) -> bool:
    """Have the system tell to which address of this machine each datagram was sent; False if it cannot."""
    level, option, _ = _ADDRESS[family]
    return LINUX and try_option(sock, level, option, 1)


def set_buffer(sock: HasOptions, name: str, size: int) -> int:
    """Ask for a buffer.

    A warning is logged, once, when the system grants less: that makes bulk transfers slow, and nobody would guess it.

    Args:
        sock: the socket.
        name: `"SO_RCVBUF"` or `"SO_SNDBUF"`.
        size: bytes wanted.

    Returns:
        bytes granted, as the system counts. Linux gives twice of what is asked for, and counts what it needs itself.
    """
    option, asked = getattr(socket, name), size
    while not try_option(sock, socket.SOL_SOCKET, option, asked) and asked > LEAST_BUFFER:
        asked //= 2  # macOS refuses what is too much
    granted = sock.getsockopt(socket.SOL_SOCKET, option)
    usable = granted // 2 if LINUX else granted
    if usable < size:
        _warn_of_buffer(name, size, usable)
    return granted


@functools.lru_cache(maxsize=64)
def _warn_of_buffer(name: str, size: int, granted: int) -> None:
    """Remembers what it has said."""
    remedy = f"; raise it with: sysctl -w {_BUFFERS[name]}={size}" if LINUX else ""
    logger.warning("the system grants %d bytes of %s instead of %d%s", granted, name, size, remedy)


def segment_option(size: int) -> tuple[int, int, bytes]:
    """For one call: cut what is sent into datagrams of `size` bytes (Linux)."""
    return SOL_UDP, UDP_SEGMENT, struct.pack("H", size)


def source_option(family: socket.AddressFamily, host: str) -> tuple[int, int, bytes]:
    """For one call: send from this address of the machine."""
    level, _, kind = _ADDRESS[family]
    address = socket.inet_pton(family, host)
    if family == socket.AF_INET:
        return level, kind, struct.pack("i4s4x", 0, address)
    return level, kind, struct.pack("16si", address, 0)


def mark_option(family: socket.AddressFamily, ecn: int) -> tuple[int, int, bytes]:
    """For one call: set the ECN bits."""
    return *TOS[family], struct.pack("i", ecn)
