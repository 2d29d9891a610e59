"""A node in a web application: an ASGI application that takes WebSockets for it.

    node = STTNode(shared_seed=..., server_mode=True)
    application.mount("/stt", SttApplication(node))          # Starlette, FastAPI, Quart, ...

The web server does TCP, TLS and the WebSocket's handshake; what comes out of it are packets, which go to the node. The
node must run on the event loop of the web server: start it when the application starts, or say `lifespan=True` where
this is the whole application. The server should offer no compression, and take messages of 65,535 bytes.

What is refused is refused as by a node that listens itself (docs/protocol.md, P-21) where the server knows how an
application says so, the extension `websocket.http.response` of ASGI. Others turn every refusal into HTTP 403.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from itertools import count
from typing import Any

from websockets.frames import CloseCode

from stt_anyio.connections.streams import TaskConnection
from stt_anyio.errors import WebSocketClosedError
from stt_anyio.links import SUBPROTOCOL, MessageLink, Origins
from stt_anyio.node import STTNode
from stt_proto.types import NetworkPath
from stt_proto.wire.framing import MAX_MESSAGE

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_NUMBERS = count(1)


class SttApplication:
    """An ASGI application (version 3) whose WebSockets are connections of a node.

    Args:
        node: a node, which runs when WebSockets come in.
        origins: web pages that may connect, as for `STTNode.listen_websocket`.
        lifespan: whether to start the node when the server starts, and to stop it when the server stops.

    Raises:
        ArgumentError: `origins` is no list of origins.
    """

    def __init__(self, node: STTNode, *, origins: Iterable[str | re.Pattern[str]] = (), lifespan: bool = False) -> None:
        self.node = node
        self._origins = Origins.of(origins)
        self._lifespan = lifespan

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "websocket":
                await self._serve(scope, receive, send)
            case "lifespan":
                await self._live(receive, send)
            case "http":
                headers = [(b"upgrade", b"websocket"), (b"connection", b"upgrade"), (b"content-length", b"0")]
                await send({"type": "http.response.start", "status": 426, "headers": headers})
                await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            if self._lifespan:
                await self.node.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if self._lifespan:
            await self.node.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        await receive()  # "websocket.connect"
        status = self._refusal(scope)
        if status is not None:
            await _refuse(status, scope, send)
            return
        await send({"type": "websocket.accept", "subprotocol": SUBPROTOCOL})
        connection = AsgiConnection(_path_of(scope), receive, send)
        if not await self.node.take_websocket(connection):
            await send({"type": "websocket.close", "code": int(CloseCode.TRY_AGAIN_LATER)})

    def _refusal(self, scope: Message) -> HTTPStatus | None:
        """Why a WebSocket is not taken; `None` when it is."""
        if not self.node.running:
            return HTTPStatus.SERVICE_UNAVAILABLE
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"origin"]
        if len(origins) > 1 or not self._origins.allows(origins[0] if origins else None):
            return HTTPStatus.FORBIDDEN
        if SUBPROTOCOL not in scope.get("subprotocols", ()):
            return HTTPStatus.BAD_REQUEST
        return None


async def _refuse(status: HTTPStatus, scope: Message, send: Send) -> None:
    """Answer a handshake with an error, as far as the server lets an application choose which."""
    if "websocket.http.response" not in (scope.get("extensions") or ()):
        await send({"type": "websocket.close"})  # which is HTTP 403
        return
    headers = [(b"content-length", b"0")]
    await send({"type": "websocket.http.response.start", "status": int(status), "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b""})


class AsgiConnection(TaskConnection):
    """One WebSocket of a web server, accepted."""

    def __init__(self, path: NetworkPath, receive: Receive, send: Send) -> None:
        super().__init__(MessageLink(), path, stranger=True)
        self._receive = receive
        self._send = send
        self._code = CloseCode.NORMAL_CLOSURE
        self._gone = False

    async def receive(self) -> bytes | None:
        while True:
            message = await self._receive()
            if message["type"] != "websocket.receive":
                self._gone = True
                code = message.get("code")
                self.link.fail(WebSocketClosedError(f"the WebSocket was closed by the peer: {code}", close_code=code))
                return None
            data = message.get("bytes")
            if data is None:
                self._refuse(CloseCode.UNSUPPORTED_DATA, "only binary messages are understood")
            elif len(data) > MAX_MESSAGE:
                self._refuse(CloseCode.MESSAGE_TOO_BIG, "too large a message")
            else:
                return bytes(data)

    def _refuse(self, code: CloseCode, reason: str) -> None:
        """End it because of what the other side sent."""
        if not self.told:
            self._code = code
            told = f"the WebSocket was closed here: {int(code)} {reason}"
            self.link.fail(WebSocketClosedError(told, close_code=int(code)))
            self.tell(None)
            self.leave()

    async def write(self, buffers: list[bytes | memoryview]) -> None:
        for message in buffers:
            await self._send({"type": "websocket.send", "bytes": message})
            self.unsent -= len(message)
            self.relieve()

    async def write_end(self) -> None:
        await self._close()

    async def abandon(self) -> None:
        await self._close()

    async def _close(self) -> None:
        if not self._gone:
            self._gone = True
            await self._send({"type": "websocket.close", "code": int(self._code)})


def _path_of(scope: Message) -> NetworkPath:
    """A path for a WebSocket; a number makes it one of its own, whatever the server says of addresses."""
    host, port = scope.get("client") or ("", 0)
    return NetworkPath("ws", ("asgi", next(_NUMBERS)), (str(host), port))
