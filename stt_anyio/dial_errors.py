"""What a dial, or a move, that came to nothing is told as, and how an address is written in it."""

from __future__ import annotations

import re
from typing import Any

from stt_anyio.errors import ConnectionRefusedError as RefusedError
from stt_anyio.errors import (
    ConnectionTimeoutError,
    StateError,
    SttError,
    UnreachableError,
    connection_failed,
)
from stt_anyio.links import WebSocketTarget
from stt_anyio.moving import REPLACED, Attempt
from stt_proto import NetworkPath

_SECRETS = re.compile(r"(?<=//).*@|[?#].*", re.DOTALL)
"""In a URL: a user with a password, and what is asked for, which may be a token."""


def spoken(address: Any) -> str:
    """An address as people write it: `host:port`, an IPv6 host in brackets; of a URL nothing that may be a secret."""
    match address:
        case str():
            return _SECRETS.sub("", address)
        case WebSocketTarget():
            return spoken(address.url)
        case (str(host), int(port), *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case NetworkPath():
            return spoken(address.remote)
    return str(address)


def no_way(address: Any, error: OSError) -> SttError:
    """What `connect` raises when there is no path to an address."""
    if isinstance(error, ConnectionRefusedError):
        return connection_failed(RefusedError(f"nobody listens at {spoken(address)}"))
    return connection_failed(UnreachableError(f"no way to {spoken(address)}: {error.strerror or error}"))


def no_answer(address: Any, timeout: float | None) -> SttError:
    """What `connect` raises when `timeout` seconds are over."""
    return connection_failed(ConnectionTimeoutError(f"no answer from {spoken(address)} within {timeout:g} seconds"))


def no_move(attempt: Attempt) -> SttError:
    """What `add_path` and `migrate` raise when a path came to nothing."""
    if attempt.reason == REPLACED:
        return StateError("another move was asked for meanwhile")
    where = spoken(attempt.path.remote)
    match attempt.reason:
        case "refused":
            return connection_failed(RefusedError(f"nobody listens at {where}"))
        case "silent":
            return connection_failed(ConnectionTimeoutError(f"no answer from {where}"))
    return connection_failed(UnreachableError(f"no way to {where}: {attempt.reason}"))
