"""WebSockets: what is refused and how, certificates, proxies (docs/protocol.md, P-21; rows A4, A11, E2)."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.abc import SocketStream
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

from stt_anyio import ArgumentError, STTNode
from stt_anyio.errors import ProxyError, TlsError, WebSocketClosedError, WebSocketHandshakeError
from stt_anyio.links import WebSocketTarget
from tests.anyio.certificates import contexts
from tests.anyio.test_connections import LIMIT, PARAMETERS, connections, ends, nodes
from tests.anyio.wires import LOOPBACK, HttpProxy, answering, serving

pytestmark = pytest.mark.anyio

STT = Subprotocol("stt.v1")


class Browser:
    """Somebody else's WebSocket client, as badly behaved as a test wants."""

    def __init__(self, stream: SocketStream, port: int, **options: Any) -> None:
        options.setdefault("subprotocols", [STT])
        self.protocol = ClientProtocol(parse_uri(f"ws://{LOOPBACK}:{port}/"), **options)
        self.stream = stream
        self.events: list[Any] = []

    async def flush(self) -> None:
        for data in self.protocol.data_to_send():
            if data:
                await self.stream.send(data)

    async def until(self, kind: type[Any]) -> Any:
        """The next event of a kind."""
        while not (found := [event for event in self.events if isinstance(event, kind)]):
            self.protocol.receive_data(await self.stream.receive())
            self.events += self.protocol.events_received()
            await self.flush()
        self.events.remove(found[0])
        return found[0]

    async def open(self, **headers: str) -> Response:
        """Shake hands, whatever comes of it."""
        request = self.protocol.connect()
        for name, value in headers.items():
            request.headers[name.replace("_", "-")] = value
        self.protocol.send_request(request)
        await self.flush()
        response: Response = await self.until(Response)
        return response

    async def send(self, frame: Frame) -> None:
        self.protocol.send_frame(frame)
        await self.flush()

    async def close_code(self) -> int:
        """What the server closes with."""
        while self.protocol.close_rcvd is None:
            self.protocol.receive_data(await self.stream.receive())
            self.protocol.data_to_send()
        return int(self.protocol.close_rcvd.code)


@asynccontextmanager
async def browser(
    server: STTNode, path: str | None = None, origins: Any = (), **options: Any
) -> AsyncIterator[Browser]:
    _, port = await server.listen_websocket(path=path, origins=origins)
    async with await anyio.connect_tcp(LOOPBACK, port) as stream:
        yield Browser(stream, port, **options)


@pytest.fixture
async def server() -> AsyncIterator[STTNode]:
    async with STTNode(server_mode=True, **PARAMETERS) as node:
        with anyio.fail_after(LIMIT):
            yield node


# -- handshakes that are refused -----------------------------------------------------------------------------------


async def test_a_wrong_subprotocol(server: STTNode) -> None:
    for offered in ([Subprotocol("chat")], None):
        async with browser(server, subprotocols=offered) as client:
            assert (await client.open()).status_code == 400
    await ends(server)


async def test_compression_is_not_accepted(server: STTNode) -> None:
    """P-21: offered, and passed over."""
    async with browser(server, extensions=[ClientPerMessageDeflateFactory()]) as client:
        response = await client.open()
        assert response.status_code == 101
        assert "Sec-WebSocket-Extensions" not in response.headers
        await client.stream.send(b"\xc2\x81\0\0\0\0x")  # RSV1: compressed, it says
        assert await client.close_code() == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 101), ("https://app.example", 101), ("https://evil.example", 403), ("null", 403)],
)
async def test_origins(server: STTNode, origin: str | None, status: int) -> None:
    """P-21: a web page uses what its visitor can reach."""
    asked = None if origin is None else Origin(origin)
    async with browser(server, origins=["https://app.example"], origin=asked) as client:
        assert (await client.open()).status_code == status


async def test_without_a_list_no_web_page_may(server: STTNode) -> None:
    async with browser(server, origin=Origin("https://app.example")) as client:
        assert (await client.open()).status_code == 403


async def test_another_path(server: STTNode) -> None:
    async with browser(server, path="/stt") as client:
        assert (await client.open()).status_code == 404
    _, port = await server.listen_websocket(path="/stt")
    async with STTNode(**PARAMETERS) as node:
        await node.connect_websocket(f"ws://{LOOPBACK}:{port}/stt?token=1")
        with pytest.raises(WebSocketHandshakeError, match="404") as caught:
            await node.connect_websocket(f"ws://{LOOPBACK}:{port}/")
        assert (caught.value.status, caught.value.code) == (404, 0x0503)


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", b"426"),
        (b"POST / HTTP/1.1\r\nHost: here\r\n\r\n", b"405"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"\x16\x03\x01 this is TLS\r\n", b""),
        (b"\0\0\0\0\r\n", b""),
    ],
)
async def test_what_is_no_handshake(server: STTNode, request_text: bytes, status: bytes) -> None:
    """Plain HTTP, huge headers, something else: an answer if there can be one, and the end."""
    _, port = await server.listen_websocket()
    answer = b""
    async with await anyio.connect_tcp(LOOPBACK, port) as stream:
        await stream.send(request_text)
        try:
            while True:
                answer += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass
    assert answer.partition(b" ")[2].startswith(status)
    await ends(server)


async def test_headers_without_end(server: STTNode) -> None:
    """What is held is bounded while they come."""
    _, port = await server.listen_websocket()
    async with await anyio.connect_tcp(LOOPBACK, port) as stream:
        try:
            await stream.send(b"GET / HTTP/1.1\r\nX: ")
            for _ in range(1000):
                await stream.send(b"a" * 1000)
            while await stream.receive():
                pass
        except (anyio.BrokenResourceError, anyio.EndOfStream):
            pass
    await ends(server)


# -- messages that are refused -------------------------------------------------------------------------------------


BAD: dict[str, tuple[list[Frame], int]] = {
    "text": ([Frame(Opcode.TEXT, b"hello")], CloseCode.UNSUPPORTED_DATA),
    "a fragment of text": ([Frame(Opcode.TEXT, b"hello", fin=False)], CloseCode.UNSUPPORTED_DATA),
    "too large": ([Frame(Opcode.BINARY, bytes(65_536))], CloseCode.MESSAGE_TOO_BIG),
    "fragments, together too large": (
        [Frame(Opcode.BINARY, bytes(40_000), fin=False), Frame(Opcode.CONT, bytes(40_000))],
        CloseCode.MESSAGE_TOO_BIG,
    ),
    "empty fragments without end": (
        [Frame(Opcode.BINARY, b"", fin=False), *[Frame(Opcode.CONT, b"", fin=False)] * 100],
        CloseCode.MESSAGE_TOO_BIG,
    ),
    "an end without a beginning": ([Frame(Opcode.CONT, b"x")], CloseCode.PROTOCOL_ERROR),
    "a message in a message": (
        [Frame(Opcode.BINARY, b"x", fin=False), Frame(Opcode.BINARY, b"y")],
        CloseCode.PROTOCOL_ERROR,
    ),
    "a ping that is too long": ([Frame(Opcode.PING, b"")], 0),
}


@pytest.mark.parametrize("name", [name for name, (_, code) in BAD.items() if code])
async def test_bad_messages(server: STTNode, name: str) -> None:
    """P-21: each with its close code, and no other connection is disturbed."""
    frames, code = BAD[name]
    async with STTNode(**PARAMETERS) as node, browser(server) as client:
        session = await node.connect_websocket(f"ws://{LOOPBACK}:{client.protocol.uri.port}")
        await client.open()
        for frame in frames:
            await client.send(frame)
        assert await client.close_code() == code
        await client.stream.aclose()
        while len(connections(server)) > 1:
            await anyio.sleep(0.001)
        assert session.is_active()


async def test_frames_that_are_not_masked(server: STTNode) -> None:
    async with browser(server) as client:
        await client.open()
        await client.stream.send(b"\x82\x01x")
        assert await client.close_code() == CloseCode.PROTOCOL_ERROR


async def test_fragments_make_a_message_again(server: STTNode) -> None:
    """Proxies may cut: here everything that a client says comes in pieces of 100 bytes."""

    async def cut(stream: SocketStream) -> None:
        async with await anyio.connect_tcp(LOOPBACK, port) as other, anyio.create_task_group() as tasks:
            theirs = ServerProtocol(subprotocols=[STT])
            ours = ClientProtocol(parse_uri(f"ws://{LOOPBACK}:{port}"), subprotocols=[STT])
            ours.send_request(ours.connect())

            async def back() -> None:
                async for data in other:
                    ours.receive_data(data)
                    for event in ours.events_received():
                        if isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                            theirs.send_binary(bytes(event.data))
                    await say(stream, theirs)
                await stream.aclose()

            async def say(to: SocketStream, protocol: Any) -> None:
                for data in protocol.data_to_send():
                    if data:
                        await to.send(data)

            await say(other, ours)
            while ours.state.name != "OPEN":
                ours.receive_data(await other.receive())
            ours.events_received()
            tasks.start_soon(back)
            async for data in stream:
                theirs.receive_data(data)
                for event in theirs.events_received():
                    if not isinstance(event, Frame):
                        theirs.send_response(theirs.accept(event))
                    elif event.opcode is Opcode.BINARY:
                        pieces = [bytes(event.data)[at : at + 1100] for at in range(0, len(event.data), 1100)]
                        for number, piece in enumerate(pieces):
                            kind = Opcode.CONT if number else Opcode.BINARY
                            ours.send_frame(Frame(kind, piece, fin=number == len(pieces) - 1))
                            if number == 0:
                                ours.send_ping(b"in between")
                await say(stream, theirs)
                await say(other, ours)
            tasks.cancel_scope.cancel()

    _, port = await server.listen_websocket()
    async with serving(cut) as outside, STTNode(**PARAMETERS) as node:
        session = await node.connect_websocket(f"ws://{LOOPBACK}:{outside}")
        stream, data = session.open_stream(), os.urandom(200_000)
        await stream.send(data)
        await stream.send_eof()
        peer = await (await server.accept()).accept_stream()
        assert b"".join([piece async for piece in peer]) == data


# -- servers that are not what they should be ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "200 OK"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", 503, "503"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", None, "Accept"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", None, "did not receive a valid HTTP response"),
        (b"HTTP/1.1 101 " + b"a" * 10_000, None, "no more than 8192"),
        (b"", None, "closed the connection"),
    ],
)
async def test_a_server_that_does_not_upgrade(answer: bytes, status: int | None, said: str) -> None:
    async with nodes() as (_, client), answering(answer) as port:
        with pytest.raises(WebSocketHandshakeError, match=said) as caught:
            await client.connect_websocket(f"ws://{LOOPBACK}:{port}")
        assert (caught.value.status, caught.value.code) == (status, 0x0503)
        assert isinstance(caught.value, anyio.ConnectionFailed)
        await ends(client)


async def test_a_server_that_speaks_something_else() -> None:
    """Another subprotocol, or none: it would not understand a packet."""

    async def handle(stream: SocketStream) -> None:
        protocol = ServerProtocol()
        codes: list[int] = []
        while True:
            protocol.receive_data(await stream.receive())
            for event in protocol.events_received():
                if not isinstance(event, Frame):
                    protocol.send_response(protocol.accept(event))
                elif event.opcode is Opcode.CLOSE:
                    seen.append(int.from_bytes(event.data[:2]))
            for data in protocol.data_to_send():
                if data:
                    await stream.send(data)
            del codes[:]

    seen: list[int] = []
    async with nodes() as (_, client), serving(handle) as port:
        with pytest.raises(WebSocketHandshakeError, match=r"stt\.v1"):
            await client.connect_websocket(f"ws://{LOOPBACK}:{port}")
        await ends(client)
    assert seen == [CloseCode.PROTOCOL_ERROR]


async def test_a_server_that_closes_at_once() -> None:
    """The session ends with the code; while it is being dialled that is an error of the WebSocket."""

    async def handle(stream: SocketStream) -> None:
        protocol = ServerProtocol(subprotocols=[STT])
        protocol.receive_data(await stream.receive())
        protocol.send_response(protocol.accept(protocol.events_received()[0]))  # type: ignore[arg-type]
        for data in protocol.data_to_send():
            await stream.send(data)
        protocol.receive_data(await stream.receive())
        protocol.send_close(1013, "come back later")
        for data in protocol.data_to_send():
            await stream.send(data)
        await stream.receive()

    async with nodes() as (_, client), serving(handle) as port:
        with pytest.raises(OSError, match="1013 come back later"):
            await client.connect_websocket(f"ws://{LOOPBACK}:{port}")
        await ends(client)


# -- certificates --------------------------------------------------------------------------------------------------


async def test_certificates(server: STTNode) -> None:
    """A11: who cannot show the right one is not talked to."""
    ours, theirs = contexts()
    others, _ = contexts("other.example")
    _, port = await server.listen_websocket(ssl_context=ours)
    _, elsewhere = await server.listen_websocket(ssl_context=others)
    async with STTNode(**PARAMETERS) as node:
        session = await node.connect_websocket(f"wss://{LOOPBACK}:{port}", ssl_context=theirs)
        assert session.transport_type == "ws"
        for url, context in (
            (f"wss://localhost:{port}", None),  # an authority that nobody knows
            (f"wss://localhost:{elsewhere}", theirs),  # another authority, and another name
        ):
            with pytest.raises(TlsError, match="certificate does not verify") as caught:
                await node.connect_websocket(url, ssl_context=context)
            assert caught.value.code == 0x0504
            assert isinstance(caught.value, anyio.ConnectionFailed)
        while len(connections(node)) > 1:
            await anyio.sleep(0.001)


async def test_a_name_that_does_not_fit(server: STTNode) -> None:
    ours, theirs = contexts()
    _, port = await server.listen_websocket("127.0.0.2", ssl_context=ours)
    async with STTNode(**PARAMETERS) as node:
        with pytest.raises(TlsError, match="127.0.0.2"):
            await node.connect_websocket(f"wss://127.0.0.2:{port}", ssl_context=theirs)


async def test_a_server_without_tls(server: STTNode) -> None:
    _, port = await server.listen_websocket()
    async with STTNode(**PARAMETERS) as node:
        with pytest.raises(TlsError):
            await node.connect_websocket(f"wss://localhost:{port}", ssl_context=contexts()[1])
    async with nodes() as (_, client), serving(lambda stream: stream.aclose()) as closing:
        with pytest.raises(TlsError, match="ended in the TLS handshake"):
            await client.connect_websocket(f"wss://localhost:{closing}", ssl_context=contexts()[1])


async def test_a_client_without_tls(server: STTNode) -> None:
    _, port = await server.listen_websocket(ssl_context=contexts()[0])
    async with STTNode(**PARAMETERS) as node:
        with pytest.raises(WebSocketHandshakeError):
            await node.connect_websocket(f"ws://localhost:{port}")
    await ends(server)


# -- proxies -------------------------------------------------------------------------------------------------------


async def test_through_a_proxy_with_a_password(server: STTNode) -> None:
    """E2: `ws://` and `wss://`, the password in the URL or beside it; the proxy sees nothing but where to."""
    ours, theirs = contexts()
    _, plain = await server.listen_websocket()
    _, secure = await server.listen_websocket(ssl_context=ours)
    proxy = HttpProxy("user:pass:word")
    async with serving(proxy.handle) as port, STTNode(**PARAMETERS) as node:
        for url, where in (
            (f"ws://{LOOPBACK}:{plain}/stt", {"proxy": f"http://user:pass%3Aword@{LOOPBACK}:{port}"}),
            (f"wss://localhost:{secure}", {"proxy": f"http://{LOOPBACK}:{port}", "proxy_auth": "user:pass:word"}),
            (f"ws://localhost:{plain}", {"proxy": f"http://{LOOPBACK}:{port}", "proxy_auth": ("user", "pass:word")}),
        ):
            session = await node.connect_websocket(url, server.node_id, ssl_context=theirs, **where)
            stream = session.open_stream()
            await stream.send(b"through")
            await stream.flush()
            await session.close()
    assert [head.split(b"\r\n")[0] for head in proxy.asked] == [
        f"CONNECT {LOOPBACK}:{plain} HTTP/1.1".encode(),
        f"CONNECT localhost:{secure} HTTP/1.1".encode(),
        f"CONNECT localhost:{plain} HTTP/1.1".encode(),
    ]


@pytest.mark.parametrize(
    ("refusal", "status", "said"),
    [
        (None, 407, "other credentials"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", 403, "403 Forbidden"),
        (b"HTTP/1.0 502 Bad Gateway\r\n\r\n", 502, "502"),
        (b"RTFM\r\n\r\n", None, "no HTTP"),
        (b"HTTP/1.1 200 " + b"y" * 9000 + b"\r\n", None, "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n", None, "no HTTP"),
        (b"", None, "closed the connection"),
    ],
)
async def test_a_proxy_that_refuses(refusal: bytes | None, status: int | None, said: str) -> None:
    """A11: a typed error that says so, and no secret."""
    proxy = HttpProxy("user:right", refusal)
    async with nodes() as (server, client), serving(proxy.handle) as port:
        _, target = await server.listen_websocket()
        with pytest.raises(ProxyError, match=said) as caught:
            await client.connect_websocket(
                f"ws://{LOOPBACK}:{target}", proxy=f"http://{LOOPBACK}:{port}", proxy_auth="user:wrong"
            )
        assert (caught.value.status, caught.value.code) == (status, 0x0503)
        assert "wrong" not in repr(caught.value)
        await ends(client)


async def test_no_proxy_there() -> None:
    async with nodes() as (_, client):
        with pytest.raises(OSError, match="127.0.0.1:1"):
            await client.connect_websocket("ws://far.example/", proxy="http://127.0.0.1:1")


# -- requests ------------------------------------------------------------------------------------------------------


async def test_headers_and_credentials_of_the_request() -> None:
    asked: list[bytes] = []

    async def handle(stream: SocketStream) -> None:
        asked.append(await stream.receive())

    async with nodes() as (_, client), serving(handle) as port:
        with pytest.raises(WebSocketHandshakeError):
            await client.connect_websocket(
                f"ws://me:secret@{LOOPBACK}:{port}/a/b?c=d",
                headers={"X-Token": "t o k e n", "Cookie": "a=b"},
                origin="https://app.example",
            )
    lines = asked[0].split(b"\r\n")
    assert lines[0] == b"GET /a/b?c=d HTTP/1.1"
    assert {b"X-Token: t o k e n", b"Cookie: a=b", b"Origin: https://app.example"} <= set(lines)
    assert b"Authorization: Basic " + base64.b64encode(b"me:secret") in lines
    assert b"Sec-WebSocket-Protocol: stt.v1" in lines
    assert b"Extensions" not in asked[0]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"url": "http://host/"}, "url"),
        ({"url": "ws://"}, "url"),
        ({"url": "ws://host/#there"}, "url"),
        ({"url": "ws://host:70000/"}, "url"),
        ({"url": "ws://host:0/"}, "url"),
        ({"url": "wss://host:0/"}, "url"),
        ({"url": "ws://host/a b"}, "url"),
        ({"url": "ws://a..b/"}, "url"),
        ({"url": "wss://\x0e\x17:1"}, "url"),
        ({"url": f"wss://{'a' * 64}.example"}, "url"),
        ({"url": f"wss://{'a.' * 127}a"}, "url"),
        ({"url": 5}, "url"),
        ({"headers": {"X": "a\r\nY: b"}}, "headers"),
        ({"headers": {"X Y": "a"}}, "headers"),
        ({"headers": {"Sec-WebSocket-Key": "a"}}, "headers"),
        ({"headers": {"upgrade": "h2c"}}, "headers"),
        ({"headers": "X: y"}, "headers"),
        ({"headers": {"X": 5}}, "headers"),
        ({"ssl_context": True}, "ssl_context"),
        ({"ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, "ssl_context"),
        ({"proxy": "http://host:0"}, "proxy"),
        ({"proxy": "socks5://host"}, "proxy"),
        ({"proxy": "host:8080"}, "proxy"),
        ({"proxy": "https://a..b"}, "proxy"),
        ({"proxy": "http://host", "proxy_auth": "alone"}, "proxy_auth"),
        ({"origin": "https://a\r\nX: y"}, "origin"),
    ],
)
def test_no_target(options: dict[str, Any], name: str) -> None:
    """One error that names the option; what may hold a password is not quoted."""
    with pytest.raises(ArgumentError) as caught:
        WebSocketTarget(**{"url": "ws://user:hunter2@host/", **options})
    assert caught.value.argument == name
    assert "hunter2" not in str(caught.value)


def test_a_target_shows_no_secret() -> None:
    target = WebSocketTarget(
        url="wss://user:hunter2@host/",
        headers={"Cookie": "hunter2"},
        proxy="http://u:hunter2@proxy",
        proxy_auth="u:hunter2",
    )
    assert "hunter2" not in repr(target)


@pytest.mark.parametrize(
    ("name", "value"), [("origins", "https://one"), ("origins", [5]), ("path", "stt"), ("ssl_context", 5)]
)
async def test_no_listener(server: STTNode, name: str, value: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        await server.listen_websocket(**{name: value})
    assert caught.value.argument == name


def test_masking_is_done_in_c() -> None:
    """Else every byte that a client sends would cost an operation in Python; every wheel has it."""
    from stt_anyio.links import websocket

    assert type(websocket.apply_mask).__name__ == "builtin_function_or_method"


def test_errors_of_a_websocket_that_was_closed() -> None:
    error = WebSocketClosedError("closed", close_code=1001)
    assert (error.code, error.close_code, error.retryable) == (0x0502, 1001, True)
