"""What is spoken on connections: length frames, WebSocket, TLS, CONNECT. No sockets, no event loop, no waiting."""

from __future__ import annotations

from stt_anyio.links.base import Link, MessageLink, Sink
from stt_anyio.links.framed import FramedLink
from stt_anyio.links.proxy import ProxyLink, proxy_of
from stt_anyio.links.target import WebSocketTarget, server_links, target_of
from stt_anyio.links.tls import TlsLink
from stt_anyio.links.websocket import SUBPROTOCOL, Origins, WebSocketClientLink, WebSocketServerLink

__all__ = [
    "SUBPROTOCOL",
    "FramedLink",
    "Link",
    "MessageLink",
    "Origins",
    "ProxyLink",
    "Sink",
    "TlsLink",
    "WebSocketClientLink",
    "WebSocketServerLink",
    "WebSocketTarget",
    "proxy_of",
    "server_links",
    "target_of",
]
