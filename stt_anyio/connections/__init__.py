"""Carriers that are connections: TCP and other byte streams, and WebSockets."""

from __future__ import annotations

from stt_anyio.connections.carrier import ConnectionCarrier
from stt_anyio.connections.connection import Connection, Registry
from stt_anyio.connections.dialing import ACCEPT_PAUSE, check_listen, is_lost, listen_tcp
from stt_anyio.connections.sockets import FileMedium, Medium, SocketConnection, SocketMedium

__all__ = [
    "ACCEPT_PAUSE",
    "Connection",
    "ConnectionCarrier",
    "FileMedium",
    "Medium",
    "Registry",
    "SocketConnection",
    "SocketMedium",
    "check_listen",
    "is_lost",
    "listen_tcp",
]
