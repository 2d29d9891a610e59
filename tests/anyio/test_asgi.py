"""A node in a web application: WebSockets that a web server speaks (`stt_anyio.asgi`; rows A5, E2)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from stt_anyio import STTNode
from stt_anyio.asgi import SttApplication
from tests.anyio.test_connections import LIMIT, PARAMETERS, connections, ends
from tests.anyio.wires import LOOPBACK, serving

pytestmark = pytest.mark.anyio

STT = Subprotocol("stt.v1")


class Harness:
    """As much of a web server as a test needs: WebSocket on one side, ASGI on the other."""

    def __init__(self, app: SttApplication, **scope: Any) -> None:
        self._app = app
        self._scope = scope

    async def handle(self, stream: anyio.abc.SocketStream) -> None:
        protocol = ServerProtocol(subprotocols=[STT], max_size=1 << 20)
        events: list[Any] = []

        async def flush() -> None:
            for data in protocol.data_to_send():
                if data:
                    await stream.send(data)

        async def next_event() -> Any:
            while not events:
                try:
                    protocol.receive_data(await stream.receive())
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return None
                events.extend(protocol.events_received())
                await flush()
            return events.pop(0)

        request = await next_event()
        first = True

        async def receive() -> dict[str, Any]:
            nonlocal first
            if first:
                first = False
                return {"type": "websocket.connect"}
            while True:
                event = await next_event()
                if event is None or event.opcode is Opcode.CLOSE:
                    code = 1005 if event is None else int.from_bytes(event.data[:2])
                    return {"type": "websocket.disconnect", "code": code}
                if event.opcode is Opcode.TEXT:
                    return {"type": "websocket.receive", "text": event.data.decode()}
                return {"type": "websocket.receive", "bytes": bytes(event.data)}

        async def send(message: Any) -> None:
            match message["type"]:
                case "websocket.accept":
                    response = protocol.accept(request)
                    protocol.send_response(response)
                case "websocket.send":
                    protocol.send_binary(message["bytes"])
                case "websocket.close" if protocol.state.name == "CONNECTING":
                    protocol.send_response(protocol.reject(403, "no"))
                case "websocket.close" if protocol.state.name == "OPEN":
                    protocol.send_close(message["code"])
            await flush()

        headers = [(name.lower().encode(), value.encode()) for name, value in request.headers.raw_items()]
        offered = [each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        await self._app(
            {
                "type": "websocket",
                "headers": headers,
                "subprotocols": offered,
                "client": ("192.0.2.1", 1),
                **self._scope,
            },
            receive,
            send,
        )


@asynccontextmanager
async def mounted(**parameters: Any) -> AsyncIterator[tuple[STTNode, STTNode, int]]:
    """A node in a web server at a port, and a client."""
    async with STTNode(server_mode=True, **PARAMETERS) as server, STTNode(**PARAMETERS) as client:
        with anyio.fail_after(LIMIT):
            async with serving(Harness(SttApplication(server), **parameters).handle) as port:
                yield server, client, port


async def test_sessions_through_a_web_server() -> None:
    async with mounted() as (server, client, port):
        sessions = [await client.connect_websocket(f"ws://{LOOPBACK}:{port}/stt", server.node_id) for _ in range(3)]
        theirs = [await server.accept() for _ in sessions]
        assert {session.peer_addr for session in theirs} == {("192.0.2.1", 1)}
        assert theirs[0].transport_type == "ws"
        data = os.urandom(5 << 20)
        async with anyio.create_task_group() as tasks:
            for session in sessions:
                stream = session.open_stream()
                tasks.start_soon(stream.send, data)
                tasks.start_soon(_check, server, session.session_id, data)
        await sessions[0].close()
        await theirs[1].close()
        assert await theirs[0].wait_closed() == await sessions[1].wait_closed() == "graceful"
        while len(connections(server)) > 1:
            await anyio.sleep(0.001)


async def _check(server: STTNode, session_id: bytes, data: bytes) -> None:
    session = server.get_session(session_id)
    assert session is not None
    stream = await session.accept_stream()
    received = b""
    while len(received) < len(data):
        received += await stream.receive()
    assert received == data


async def test_the_web_server_goes() -> None:
    async with mounted() as (server, client, port):
        session = await client.connect_websocket(f"ws://{LOOPBACK}:{port}")
        theirs = await server.accept()
        session.abort()
        assert await theirs.wait_closed() == "error"
        await ends(server)


@pytest.mark.parametrize(
    ("frame", "code"),
    [(Frame(Opcode.TEXT, b"hello"), 1003), (Frame(Opcode.BINARY, bytes(65_536)), 1009)],
)
async def test_bad_messages(frame: Frame, code: int) -> None:
    """P-21."""
    from tests.anyio.test_websocket import Browser

    async with mounted() as (_, _, port), await anyio.connect_tcp(LOOPBACK, port) as stream:
        client = Browser(stream, port)
        await client.open()
        await client.send(frame)
        assert await client.close_code() == code


class Wire:
    """An application without a server: what it is told, and what it says."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.said: list[Any] = []
        self._messages = list(messages)

    async def receive(self) -> Any:
        return self._messages.pop(0)

    async def send(self, message: Any) -> None:
        self.said.append(message)


@pytest.mark.parametrize("extensions", [{}, {"extensions": None}, {"extensions": {"websocket.http.response": {}}}])
@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ({"subprotocols": ["chat"], "headers": []}, 400),
        ({"headers": []}, 400),
        ({"subprotocols": ["stt.v1"], "headers": [(b"origin", b"https://evil.example")]}, 403),
        ({"subprotocols": ["stt.v1"], "headers": [(b"Origin", b"https://app.example"), (b"origin", b"null")]}, 403),
        ({"subprotocols": ["chat"], "headers": [(b"origin", b"https://evil.example")]}, 403),
    ],
)
async def test_handshakes_that_are_refused(scope: dict[str, Any], status: int, extensions: dict[str, Any]) -> None:
    """P-21: before the WebSocket is accepted, so that the server says 403; or what it is told, where it can be told."""
    async with STTNode(server_mode=True, **PARAMETERS) as node:
        wire = Wire({"type": "websocket.connect"})
        app = SttApplication(node, origins=["https://app.example"])
        await app({"type": "websocket", **scope, **extensions}, wire.receive, wire.send)
        assert wire.said == refusal(status if extensions.get("extensions") else None)


def refusal(status: int | None) -> list[dict[str, Any]]:
    """How an application refuses a WebSocket: with a status, or without where the server takes none."""
    if status is None:
        return [{"type": "websocket.close"}]
    start = {"type": "websocket.http.response.start", "status": status, "headers": [(b"content-length", b"0")]}
    return [start, {"type": "websocket.http.response.body", "body": b""}]


async def test_an_origin_that_may() -> None:
    async with STTNode(server_mode=True, **PARAMETERS) as node:
        wire = Wire({"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001})
        scope = {"subprotocols": ["stt.v1"], "headers": [(b"origin", b"https://app.example")]}
        await SttApplication(node, origins=["https://app.example"])(
            {"type": "websocket", **scope}, wire.receive, wire.send
        )
        assert wire.said == [{"type": "websocket.accept", "subprotocol": "stt.v1"}]
        assert not connections(node)


async def test_a_node_that_does_not_run() -> None:
    node = STTNode(server_mode=True, **PARAMETERS)
    wire = Wire({"type": "websocket.connect"})
    scope = {"type": "websocket", "subprotocols": ["stt.v1"], "headers": []}
    await SttApplication(node)(scope, wire.receive, wire.send)
    assert wire.said == refusal(None)
    wire = Wire({"type": "websocket.connect"})
    await SttApplication(node)(scope | {"extensions": {"websocket.http.response": {}}}, wire.receive, wire.send)
    assert wire.said == refusal(503)


async def test_strangers_are_bounded() -> None:
    """P-22."""
    async with STTNode(server_mode=True, **PARAMETERS) as node, anyio.create_task_group() as tasks:
        app, scope = SttApplication(node), {"type": "websocket", "subprotocols": ["stt.v1"], "headers": []}
        wires: list[Wire] = []

        def come() -> Callable[[], Any]:
            wire = Wire({"type": "websocket.connect"})
            wires.append(wire)

            async def receive() -> Any:
                if wire._messages:
                    return wire._messages.pop(0)
                return await anyio.sleep_forever()

            return receive

        for _ in range(256):
            tasks.start_soon(app, scope, come(), wires[-1].send)
        while len(connections(node)) < 256:
            await anyio.sleep(0.001)
        await app(scope, come(), wires[-1].send)
        assert wires[-1].said[-1] == {"type": "websocket.close", "code": 1013}
        tasks.cancel_scope.cancel()


async def test_plain_http() -> None:
    wire = Wire()
    await SttApplication(STTNode(**PARAMETERS))({"type": "http"}, wire.receive, wire.send)
    assert [message["type"] for message in wire.said] == ["http.response.start", "http.response.body"]
    assert wire.said[0]["status"] == 426


@pytest.mark.parametrize("lifespan", [True, False])
async def test_its_life(lifespan: bool) -> None:
    """Started and stopped with the server, where it is asked to."""
    node = STTNode(**PARAMETERS)
    running: list[bool] = []

    class Life(Wire):
        async def receive(self) -> Any:
            running.append(node.running)
            return await super().receive()

    wire = Life({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    await SttApplication(node, lifespan=lifespan)({"type": "lifespan"}, wire.receive, wire.send)
    assert running == [False, lifespan]
    assert not node.running
    assert [message["type"] for message in wire.said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_start_that_fails() -> None:
    async with STTNode(**PARAMETERS) as other:
        node = STTNode(**PARAMETERS | {"port": other.port})
        wire = Wire({"type": "lifespan.startup"})
        with pytest.raises(OSError, match="in use"):
            await SttApplication(node, lifespan=True)({"type": "lifespan"}, wire.receive, wire.send)
        assert wire.said[0]["type"] == "lifespan.startup.failed"
