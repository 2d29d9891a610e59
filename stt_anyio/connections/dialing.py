"""Opening TCP connections and listening for them, with sockets of our own that never block."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from stt_anyio.errors import ArgumentError
from stt_anyio.links.hosts import is_host

HEAD_START = 0.25
"""Seconds that an address of a host has before the next one is tried beside it (RFC 8305)."""
BACKLOG = 1024
"""Connections that may wait to be accepted."""
ACCEPT_PAUSE = 0.1
"""Seconds after which accepting is tried again when this process may open no more files."""


async def open_tcp(host: str, port: int) -> socket.socket:
    """Connect to the address of `host` that answers first, with a head start for each before the next.

    Raises:
        OSError: there is no such host, or no way there; what the last address to fail said.
    """
    try:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except ValueError as error:
        raise OSError(f"{host!r} cannot be the name of a host") from error
    winners: list[socket.socket] = []
    errors: list[OSError] = []

    async def attempt(family: int, address: Any, failed: anyio.Event) -> None:
        try:
            sock = await _connect(family, address)
        except OSError as error:
            errors.append(error)
            failed.set()
            return
        if winners:
            sock.close()
            return
        winners.append(sock)
        tasks.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            for family, _, _, _, address in _interleaved(found):
                failed = anyio.Event()
                tasks.start_soon(attempt, family, address, failed)
                with anyio.move_on_after(HEAD_START):
                    await failed.wait()
        if winners:
            return winners.pop()
    finally:
        for sock in winners:
            sock.close()
    raise errors[-1]


def _interleaved(found: list[Any]) -> list[Any]:
    """Addresses of the two families in turn, so that one that leads nowhere costs a head start and no more."""
    first = [entry for entry in found if entry[0] == found[0][0]]
    other = [entry for entry in found if entry[0] != found[0][0]]
    mixed = [entry for pair in zip(first, other, strict=False) for entry in pair]
    shorter = min(len(first), len(other))
    return mixed + first[shorter:] + other[shorter:]


async def _connect(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        code = sock.connect_ex(address)
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN):
            await anyio.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        else:
            await checkpoint()
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


def is_lost(error: OSError) -> bool:
    """Whether a failure to accept is about one connection, which is gone, and says nothing of the next."""
    return error.errno in (errno.ECONNABORTED, errno.EPROTO)


def check_listen(host: Any, port: Any) -> None:
    """Where to listen, before the system makes another port of it: it would take 70,000 for 4,464.

    Raises:
        ArgumentError: `host` is neither `None` nor an address or a name, or `port` not 0 to 65,535.
    """
    if host is not None and not (isinstance(host, str) and (not host or is_host(host))):
        raise ArgumentError(f"host is {host!r}; it must be an address or the name of a host", argument="host")
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65_535:
        raise ArgumentError(f"port is {port!r}; it must be a whole number from 0 to 65,535", argument="port")


def listen_tcp(family: int, address: Any, reuse_port: bool = False) -> socket.socket:
    """A listening socket, bound to exactly that address.

    Raises:
        OSError: the address is taken, or not ours.
    """
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if sys.platform != "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
