"""Carriers that are connections, on real sockets: TCP, TLS, WebSocket, Unix sockets, pipes (A4, A5, E2, E3, E6)."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import SocketStream

from stt_anyio import (
    ArgumentError,
    BlockingNode,
    ConnectionRefusedError,
    ConnectionTimeoutError,
    Session,
    SessionClosedError,
    StateError,
    STTNode,
    UnreachableError,
    WebSocketTarget,
    udp,
)
from stt_anyio.connections import ConnectionCarrier
from stt_anyio.connections.connection import HIGH
from stt_anyio.dial_errors import spoken
from stt_anyio.errors import TooManySessionsError, WebSocketHandshakeError
from stt_anyio.memory import MemoryNetwork
from tests.anyio.certificates import contexts, files
from tests.anyio.wires import LOOPBACK, Cable, HttpProxy, PipeStream, serving

pytestmark = pytest.mark.anyio

KIB = 1 << 10
LIMIT = 30.0
PARAMETERS: dict[str, Any] = {"shared_seed": "a seed for tests", "host": LOOPBACK}
KINDS = ["tcp", "ws", "wss", "unix", "pipe", "tls"]

Nodes = tuple[STTNode, STTNode]
Pair = Callable[..., AbstractAsyncContextManager[Nodes]]


@asynccontextmanager
async def nodes(udp: bool = True, **parameters: Any) -> AsyncIterator[Nodes]:
    parameters, network = PARAMETERS | parameters, MemoryNetwork()
    there, here = [{} if udp else {"carriers": [network.carrier(name)]} for name in ("there", "here")]
    async with STTNode(server_mode=True, **there, **parameters) as server, STTNode(**here, **parameters) as client:
        with anyio.fail_after(LIMIT):
            yield server, client


async def dial(kind: str, server: STTNode, client: STTNode, tasks: anyio.abc.TaskGroup, folder: Path) -> Session:
    """A session between two nodes over a connection of some kind."""
    match kind:
        case "tcp":
            return await client.connect_tcp(*await server.listen_tcp())
        case "ws":
            host, port = await server.listen_websocket()
            return await client.connect_websocket(f"ws://{host}:{port}/stt")
        case "wss":
            ours, theirs = contexts()
            _, port = await server.listen_websocket(ssl_context=ours)
            return await client.connect_websocket(f"wss://localhost:{port}", ssl_context=theirs)
        case "unix":
            tasks.start_soon(server.serve_listener, await anyio.create_unix_listener(folder / "socket"))
            return await client.connect_stream(await anyio.connect_unix(folder / "socket"))
        case "pipe":
            one, two = PipeStream.pair()
            tasks.start_soon(server.serve_stream, one)
            return await client.connect_stream(two)
        case _:  # a byte stream of anyio that is more than a socket
            ours, theirs = contexts()
            from anyio.streams.tls import TLSListener

            listener = await anyio.create_tcp_listener(local_host=LOOPBACK)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            tasks.start_soon(server.serve_listener, TLSListener(listener, ours, standard_compatible=False))
            stream = await anyio.connect_tcp(
                LOOPBACK, port, ssl_context=theirs, tls_hostname="localhost", tls_standard_compatible=False
            )
            return await client.connect_stream(stream)


@asynccontextmanager
async def pair(kind: str, folder: Path, **parameters: Any) -> AsyncIterator[tuple[Session, Session, Nodes]]:
    """Both ends of a session, and their nodes."""
    async with nodes(**parameters) as (server, client), anyio.create_task_group() as tasks:
        ours = await dial(kind, server, client, tasks, folder)
        yield ours, await server.accept(), (server, client)
        tasks.cancel_scope.cancel()


def connections(node: STTNode) -> list[Any]:
    """What a node has open."""
    carriers = [carrier for carrier in node._carriers.values() if isinstance(carrier, ConnectionCarrier)]
    return [connection for carrier in carriers for connection in carrier.connections.by_path.values()]


async def ends(node: STTNode) -> None:
    """Wait until a node has nothing open."""
    while connections(node):
        await anyio.sleep(0.001)


async def send(session: Session, pieces: list[bytes]) -> None:
    stream = session.open_stream()
    for piece in pieces:
        await stream.send(piece)
    await stream.send_eof()
    await stream.flush()


async def read(session: Session) -> bytes:
    stream = await session.accept_stream()
    hashed = hashlib.sha256()
    async for piece in stream:
        hashed.update(piece)
    return hashed.digest()


# -- what every kind does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_there_and_back(kind: str, tmp_path: Path) -> None:
    async with pair(kind, tmp_path) as (ours, theirs, _):
        assert ours.transport_type == theirs.transport_type == ("ws" if kind.startswith("ws") else "stream")
        stream = ours.open_stream()
        await stream.send(b"hello")
        peer = await theirs.accept_stream()
        assert await peer.receive() == b"hello"
        await peer.send(b"and back")
        assert await stream.receive() == b"and back"
        ours.send_datagram(b"unreliable")
        assert await theirs.receive_datagram() == b"unreliable"


@pytest.mark.parametrize("kind", KINDS)
async def test_twenty_megabytes_each_way_at_once(kind: str, tmp_path: Path) -> None:
    """Intact, and nothing is sent twice (R-17)."""
    pieces = [os.urandom(1 << 20) for _ in range(20)]
    digest = hashlib.sha256(b"".join(pieces)).digest()
    async with pair(kind, tmp_path) as (ours, theirs, _):
        digests: list[bytes] = []

        async def take(session: Session) -> None:
            digests.append(await read(session))

        async with anyio.create_task_group() as tasks:
            for session in (ours, theirs):
                tasks.start_soon(send, session, pieces)
                tasks.start_soon(take, session)
        assert digests == [digest, digest]
        for session in (ours, theirs):
            stats = session.get_stats()
            assert stats.packets_lost == 0
            assert stats.bytes_sent < 21 << 20


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_ends_with_its_session(kind: str, tmp_path: Path) -> None:
    """P-22: on both sides, whoever closes; gracefully on both."""
    for side in (0, 1):
        folder = tmp_path / str(side)
        folder.mkdir()
        async with pair(kind, folder) as (ours, theirs, both):
            both_ends = (ours, theirs)
            await both_ends[side].close()
            assert await both_ends[1 - side].wait_closed() == "graceful"
            for node in both:
                await ends(node)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_dial_that_fails_leaves_nothing(kind: str, tmp_path: Path) -> None:
    """The peer is another one than asked for, or refuses."""
    async with nodes() as (server, client), anyio.create_task_group() as tasks:
        server.disable_accept_connections()
        with pytest.raises(ConnectionRefusedError):
            await dial(kind, server, client, tasks, tmp_path)
        for node in (server, client):
            await ends(node)
        tasks.cancel_scope.cancel()


async def test_udp_and_websocket_and_tcp_on_one_node(tmp_path: Path) -> None:
    """A5: sessions of one node, whatever they come over."""
    async with nodes() as (server, client):
        host, port = await server.listen_websocket()
        tcp = await server.listen_tcp()
        sessions = [
            await client.connect_udp(LOOPBACK, server.port, server.node_id),
            await client.connect_websocket(f"ws://{host}:{port}", server.node_id),
            await client.connect_tcp(*tcp, server.node_id),
            await client.connect(f"ws://{host}:{port}", server.node_id, transport="websocket"),
            await client.connect(tcp, server.node_id, transport="tcp"),
        ]
        theirs = [await server.accept() for _ in sessions]
        assert [session.transport_type for session in theirs] == ["udp", "ws", "stream", "ws", "stream"]
        assert {session.peer_addr[0] for session in theirs} == {LOOPBACK}
        assert set((await server.send_to_all(b"to all")).acknowledged) == {session.session_id for session in sessions}


# -- nodes without UDP ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
async def test_a_node_without_udp(transport: str) -> None:
    """A1: it binds exactly what it is asked for, and nothing else; a client binds nothing."""
    parameters = PARAMETERS | {"transport": transport}
    async with STTNode(server_mode=True, **parameters) as server, STTNode(**parameters) as client:
        assert server.host == LOOPBACK
        assert server.port > 0
        assert client.port == 0
        assert [*server._udp_sockets(), *client._udp_sockets()] == []
        address = (LOOPBACK, server.port) if transport == "tcp" else f"ws://{LOOPBACK}:{server.port}/"
        session = await client.connect(address, server.node_id)
        assert session.transport_type in ("stream", "ws")
        with pytest.raises(ArgumentError, match="stream, ws"):
            await client.connect(address, transport="udp")
        taken = STTNode(server_mode=True, **parameters | {"port": server.port})
        with pytest.raises(OSError, match="in use"):
            await taken.start()
        assert not taken.running


async def test_a_node_for_wss(tmp_path: Path) -> None:
    """`tls`, `tls_cert`, `tls_key`; a certificate that is none is an error of `start`."""
    cert, key, root = files(tmp_path)
    parameters = PARAMETERS | {"transport": "websocket", "tls": True}
    trusting = ssl.create_default_context(cafile=str(root))
    async with STTNode(server_mode=True, tls_cert=cert, tls_key=key, **parameters) as server:
        async with STTNode(**PARAMETERS) as client:
            await client.connect_websocket(f"wss://localhost:{server.port}", ssl_context=trusting)
            with pytest.raises(WebSocketHandshakeError):
                await client.connect_websocket(f"ws://localhost:{server.port}")
    broken = STTNode(server_mode=True, tls_cert=root, tls_key=key, **parameters)
    with pytest.raises(ssl.SSLError):
        await broken.start()
    assert not broken.running


async def test_the_proxy_of_the_configuration() -> None:
    proxy = HttpProxy("user:word")
    parameters = PARAMETERS | {"transport": "websocket", "proxy_auth": "user:word"}
    async with STTNode(server_mode=True, **PARAMETERS) as server, serving(proxy.handle) as port:
        _, target = await server.listen_websocket()
        async with STTNode(proxy=f"http://{LOOPBACK}:{port}", **parameters) as client:
            await client.connect_websocket(f"ws://{LOOPBACK}:{target}")
            await client.connect(f"ws://{LOOPBACK}:{target}")
            assert len(proxy.asked) == 2


# -- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tcp", "ws"])
async def test_a_cable_that_is_cut(kind: str) -> None:
    """M-9: the sessions on it end, with the reason, where they do not wait for another way; no other does."""
    async with nodes(detach_timeout=0.0) as (server, client):
        other = await client.connect_udp(LOOPBACK, server.port)
        host, port = await (server.listen_tcp() if kind == "tcp" else server.listen_websocket())
        cable = Cable(port)
        async with serving(cable.handle) as outside:
            if kind == "tcp":
                ours = await client.connect_tcp(host, outside)
            else:
                ours = await client.connect_websocket(f"ws://{host}:{outside}")
            await server.accept()
            theirs = await server.accept()
            stream = ours.open_stream()
            await stream.send(b"x")
            cable.cut()
            for session in (ours, theirs):
                assert await session.wait_closed() == "error"
            with pytest.raises(SessionClosedError, match="ended|closed|reset|broke"):
                await stream.send(b"y")
            for node in (server, client):
                await ends(node)
            assert other.is_active()


@pytest.mark.parametrize("kind", ["tcp", "ws"])
async def test_a_peer_that_reads_nothing_costs_a_bounded_amount(kind: str) -> None:
    """P-22: what waits to be written is bounded, whatever credit allows; the writer waits, and goes on when it can."""
    credit = dict.fromkeys(("stream_recv_buffer", "session_recv_buffer", "stream_send_buffer"), 32 << 20)
    async with nodes(udp=False, **credit) as (server, client):
        host, port = await (server.listen_tcp() if kind == "tcp" else server.listen_websocket())
        cable = Cable(port)
        async with serving(cable.handle) as outside, anyio.create_task_group() as tasks:
            if kind == "tcp":
                ours = await client.connect_tcp(host, outside)
            else:
                ours = await client.connect_websocket(f"ws://{host}:{outside}")
            (connection,) = connections(client)
            theirs = await server.accept()
            cable.stall()
            stream, total = ours.open_stream(), 64 << 20
            tasks.start_soon(stream.send, bytes(total))
            seen = 0
            while not connection.full:
                await anyio.lowlevel.checkpoint()
                seen = max(seen, connection.backlog)
            assert HIGH <= seen <= HIGH + 128 * KIB
            assert ours.is_active()
            cable.go_on()
            received = 0
            peer = await theirs.accept_stream()
            while received < total:
                received += len(await peer.receive(1 << 20))
            assert ours.get_stats().packets_lost == 0


async def test_garbage_ends_the_connection_and_nothing_else() -> None:
    """P-13: a length of 0, or nothing that the endpoint knows."""
    async with nodes(handshake_timeout=0.5) as (server, client):
        host, port = await server.listen_tcp()
        async with await anyio.connect_tcp(host, port) as stream:
            await stream.send(b"\0\0 and more")
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
        async with await anyio.connect_tcp(host, port) as stream:  # P-22: nobody who proves himself in time
            await stream.send(b"\0\5hello\0\4all!")
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await stream.receive()
        await client.connect_tcp(host, port)


async def test_a_server_that_answers_with_garbage() -> None:
    async def handle(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"\0\0")
        await stream.receive()

    async with nodes() as (_, client), serving(handle) as port:
        with pytest.raises(OSError, match="without bytes") as caught:
            await client.connect_tcp(LOOPBACK, port)
        assert isinstance(caught.value, anyio.ConnectionFailed)
        await ends(client)


class Failing(socket.socket):
    """A listening socket to which accepting fails, first for one connection and then for want of files."""

    errors = (errno.ECONNABORTED, errno.EMFILE)
    failures = 0

    def accept(self) -> Any:
        Failing.failures += 1
        if Failing.failures <= len(self.errors):
            raise OSError(self.errors[Failing.failures - 1], "no")
        return super().accept()


async def test_a_listener_that_fails_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is gone holds up nobody; without files it is tried again after a moment, and no sooner."""
    Failing.failures = 0
    sock = Failing()
    sock.setblocking(False)
    sock.bind((LOOPBACK, 0))
    sock.listen()
    monkeypatch.setattr("stt_anyio.ways.listen_tcp", lambda *_: sock)
    async with nodes() as (server, client):
        started = anyio.current_time()
        session = await client.connect_tcp(*await server.listen_tcp())
        assert session.is_active()
        assert Failing.failures == 3
        assert 0.1 <= anyio.current_time() - started < 5


async def test_strangers_are_bounded() -> None:
    """P-22: no more than 256 from one address; those with a session do not count."""
    async with nodes(handshake_timeout=60) as (server, client):
        host, port = await server.listen_tcp()
        session = await client.connect_tcp(host, port)
        streams = [await anyio.connect_tcp(host, port) for _ in range(256)]
        while len(connections(server)) < 257:
            await anyio.sleep(0.001)
        async with await anyio.connect_tcp(host, port) as late:
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
                await late.receive()
        assert session.is_active()
        for stream in streams:
            await stream.aclose()
        while len(connections(server)) > 1:
            await anyio.sleep(0.001)
        await client.connect_tcp(host, port)


async def test_nobody_listens() -> None:
    sock = socket.socket()
    sock.bind((LOOPBACK, 0))
    port = sock.getsockname()[1]
    async with nodes() as (_, client):
        for dialling in (client.connect_tcp(LOOPBACK, port), client.connect_websocket(f"ws://{LOOPBACK}:{port}")):
            with pytest.raises(ConnectionRefusedError) as caught:
                await dialling
            assert isinstance(caught.value, anyio.ConnectionFailed)
            assert f"{LOOPBACK}:{port}" in str(caught.value)
        with pytest.raises(UnreachableError):
            await client.connect_tcp("no-such-host.invalid", 1)
    sock.close()


async def test_nobody_answers() -> None:
    """Whoever is there says nothing: the timeout is for all of it, and nothing is left behind."""
    async with nodes() as (_, client), serving(lambda stream: anyio.sleep_forever()) as port:
        for dialling in (
            client.connect_tcp(LOOPBACK, port, timeout=0.05),
            client.connect_websocket(f"ws://{LOOPBACK}:{port}", timeout=0.05),
            client.connect_websocket(f"wss://{LOOPBACK}:{port}", timeout=0.05),
        ):
            with pytest.raises(ConnectionTimeoutError):
                await dialling
            assert not connections(client) or all(each.leaving for each in connections(client))


async def test_one_session_too_many() -> None:
    async with nodes(max_concurrent_sessions=1) as (server, client):
        host, port = await server.listen_tcp()
        await client.connect_tcp(host, port)
        with pytest.raises(TooManySessionsError):
            await client.connect_tcp(host, port)
        while len(connections(client)) > 1:
            await anyio.sleep(0.001)


@pytest.mark.parametrize("transport", ["udp", "tcp", "websocket"])
async def test_stopped_while_it_is_dialled(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever still looks up a name then is told; no socket is opened any more, and nobody waits for ever."""
    real, found, stopped = anyio.getaddrinfo, anyio.Event(), anyio.Event()
    opened: list[tuple[Any, ...]] = []

    async def slow(*arguments: Any, **options: Any) -> Any:
        found.set()
        await stopped.wait()
        return await real(LOOPBACK, port, **options)

    async def slow_udp(*arguments: Any) -> Any:
        await slow()
        return [(socket.AF_INET6, ("::1", port, 0, 0))]

    def udp_socket(*arguments: Any) -> Any:
        opened.append(arguments)
        return udp.UdpSocket(*arguments)

    async def dial() -> None:
        address = f"ws://localhost:{port}/" if transport == "websocket" else ("localhost", port)
        with pytest.raises(StateError):
            await node.connect(address, timeout=None, transport=transport)

    node = STTNode(shared_seed="x", host=LOOPBACK)
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        await node.start()
        monkeypatch.setattr(anyio, "getaddrinfo", slow)
        monkeypatch.setattr(udp.carrier, "_look_up", slow_udp)
        monkeypatch.setattr(udp.carrier, "UdpSocket", udp_socket)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(dial)
                await found.wait()
                await node.stop()
                stopped.set()
    assert not opened


@pytest.mark.parametrize("host", ["h" * 300, "a" * 70 + ".example", "\ud800"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_what_can_be_no_name(host: str, transport: str) -> None:
    """A name that no resolver would be asked for is unknown, like others; without an event loop too."""
    async with STTNode(shared_seed="x", host=LOOPBACK) as node:
        with pytest.raises(UnreachableError):
            await node.connect((host, 9), transport=transport)
    with BlockingNode(shared_seed="x", host=LOOPBACK) as blocking, pytest.raises(UnreachableError):
        blocking.connect((host, 9), transport=transport)


@pytest.mark.parametrize("as_target", [False, True])
async def test_passwords_in_a_url_are_shown_to_nobody(as_target: bool) -> None:
    """No secrets in errors and representations: who is not answered is told by whom, and not with which password."""
    with socket.create_server((LOOPBACK, 0)) as mute:
        url = f"ws://user:hun@ter2@{LOOPBACK}:{mute.getsockname()[1]}/stt?token=hunter2#hunter2"
        address = WebSocketTarget(url=url.partition("#")[0]) if as_target else url.partition("#")[0]
        where = f"ws://{LOOPBACK}:{mute.getsockname()[1]}/stt"
        assert spoken(url) == where
        said: list[str] = []
        async with STTNode(shared_seed="x", host=LOOPBACK) as node:
            for transport, error in (("websocket", ConnectionTimeoutError), ("udp", ArgumentError)):
                with pytest.raises(error) as caught:
                    await node.connect(address, transport=transport, timeout=0.05)
                said.append(str(caught.value))
            async with node.reconnecting(address, transport="websocket") as client:
                said += [repr(client), repr(client._peer)]
        with BlockingNode(shared_seed="x", host=LOOPBACK) as blocking:
            client = blocking.reconnecting(address, transport="websocket")
            said.append(repr(client))
            client.close()
        assert where in said[0]
        assert all(where in text for text in (said[2], said[4]))
        for text in said:
            assert "ter2" not in text


async def test_what_needs_a_node_that_runs() -> None:
    node = STTNode(**PARAMETERS)
    for call in (node.listen_tcp, node.listen_websocket):
        with pytest.raises(StateError):
            await call()
    one, two = PipeStream.pair()
    for stream, call in ((one, node.serve_stream), (two, node.connect_stream)):
        with pytest.raises(StateError):
            await call(stream)
        await stream.aclose()


@pytest.mark.parametrize(
    ("address", "transport"),
    [
        ("here", "tcp"),
        (("host", 0), "tcp"),
        ("http://host", "websocket"),
        (("127.0.0.1", 1), "websocket"),
        ("ws://host:99999", "websocket"),
        ("ws://user@host/", "websocket"),
        (("127.0.0.1", 1), "carrier pigeon"),
    ],
)
async def test_no_address(address: Any, transport: str) -> None:
    async with STTNode(**PARAMETERS) as node:
        with pytest.raises(ArgumentError):
            await node.connect(address, transport=transport)


@pytest.mark.skipif(sys.platform == "win32", reason="addresses are shared there")
async def test_the_address_is_taken() -> None:
    async with nodes() as (server, client):
        host, port = await server.listen_tcp()
        with pytest.raises(OSError, match="in use"):
            await client.listen_tcp(host, port)


# -- whichever is first --------------------------------------------------------------------------------------------


@asynccontextmanager
async def blackhole() -> AsyncIterator[tuple[str, int]]:
    """A UDP address at which nobody says anything."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, 0))
        yield sock.getsockname()


async def test_udp_is_blocked() -> None:
    """E6: the WebSocket is tried after a moment, and wins; nothing is left of the other."""
    async with nodes() as (server, client), blackhole() as address:
        host, port = await server.listen_websocket()
        session = await client.connect(address, server.node_id, websocket=f"ws://{host}:{port}")
        assert session.transport_type == "ws"
        assert client.get_active_sessions() == [session]
        assert not client._dialing


async def test_udp_works() -> None:
    """E6: then the WebSocket is not even tried."""
    async with nodes() as (server, client), serving(lambda stream: anyio.sleep_forever()) as port:
        session = await client.connect((LOOPBACK, server.port), websocket=f"ws://{LOOPBACK}:{port}")
        assert session.transport_type == "udp"
        assert not connections(client)


async def test_udp_is_refused_at_once() -> None:
    """E6: nobody waits for a head start that is over."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOOPBACK, 0))
        address = sock.getsockname()
    async with nodes() as (server, client):
        host, port = await server.listen_websocket()
        session = await client.connect(address, websocket=f"ws://{host}:{port}")
        assert session.transport_type == "ws"


async def test_neither_works() -> None:
    """E6: what was wrong with the first that failed, and why the other did."""
    async with nodes() as (_, client), blackhole() as address:
        with socket.socket() as sock:
            sock.bind((LOOPBACK, 0))
            with pytest.raises(ConnectionRefusedError) as caught:
                await client.connect(address, timeout=0.6, websocket=f"ws://{LOOPBACK}:{sock.getsockname()[1]}")
        assert isinstance(caught.value.__cause__, ConnectionTimeoutError)
        assert not client._dialing


async def test_a_race_that_is_cancelled() -> None:
    async with nodes() as (_, client), blackhole() as address, serving(lambda _: anyio.sleep_forever()) as port:
        with anyio.move_on_after(0.3):
            await client.connect(address, websocket=f"ws://{LOOPBACK}:{port}")
        assert not client._dialing
        assert not client.sessions
