"""TCP, WebSocket, sockets and pairs of files without an event loop (rows A4, E2, E3, E6)."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any

import anyio
import pytest

from stt_anyio import BlockingNode, BlockingSession, SessionClosedError, STTNode
from stt_anyio.blocking.connections import Connections
from stt_anyio.connections.connection import HIGH
from stt_anyio.errors import (
    ArgumentError,
    ConnectionRefusedError,
    ConnectionTimeoutError,
    ProxyError,
    StateError,
    TlsError,
    UnreachableError,
    WebSocketHandshakeError,
)
from tests.anyio.certificates import contexts

LOOPBACK = "127.0.0.1"
KINDS = ["tcp", "ws", "wss", "socket", "pipes"]


@contextmanager
def nodes(**options: Any) -> Iterator[tuple[BlockingNode, BlockingNode]]:
    options = {"shared_seed": "x", "host": LOOPBACK, **options}
    with BlockingNode(server_mode=True, background=True, **options) as server, BlockingNode(**options) as client:
        yield server, client


def dial(kind: str, server: BlockingNode, client: BlockingNode) -> BlockingSession:
    match kind:
        case "tcp":
            return client.connect_tcp(*server.listen_tcp(), server.node_id)
        case "ws":
            _, port = server.listen_websocket()
            return client.connect_websocket(f"ws://{LOOPBACK}:{port}/stt", server.node_id)
        case "wss":
            ours, theirs = contexts()
            _, port = server.listen_websocket(ssl_context=ours)
            return client.connect_websocket(f"wss://localhost:{port}", ssl_context=theirs)
        case "socket":
            one, two = socket.socketpair()
            server.serve_stream(one)
            return client.connect_stream(two)
        case _:
            (r1, w1), (r2, w2) = os.pipe(), os.pipe()
            server.serve_stream((os.fdopen(r1, "rb", 0), os.fdopen(w2, "wb", 0)))
            return client.connect((os.fdopen(r2, "rb", 0), os.fdopen(w1, "wb", 0)), transport="stream")


@contextmanager
def sessions(kind: str, **options: Any) -> Iterator[tuple[BlockingSession, BlockingSession]]:
    with nodes(**options) as (server, client):
        ours = dial(kind, server, client)
        yield ours, server.accept(timeout=5)


def open_connections(node: BlockingNode) -> list[Any]:
    with node.lock:
        carriers: list[Connections] = list(node._connections.values())
        return [connection for carrier in carriers for connection in carrier.registry.by_path.values()]


def until(node: BlockingNode, condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        node.poll(0.01)


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """A TCP server for one connection; the port."""
    with socket.create_server((LOOPBACK, 0)) as listening:

        def serve() -> None:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            with accepted:
                handle(accepted)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


# -- what every kind does ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_exchange(kind: str) -> None:
    with sessions(kind) as (ours, theirs):
        assert ours.transport_type == theirs.transport_type == ("ws" if kind.startswith("ws") else "stream")

        def answer() -> None:
            stream = theirs.accept_stream(timeout=5)
            stream.send(b"".join(stream).upper())
            stream.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert ours.exchange(ours.open_stream(), b"hello", timeout=10) == b"HELLO"
        thread.join()


@pytest.mark.parametrize("kind", KINDS)
def test_twenty_megabytes(kind: str) -> None:
    data = os.urandom(20 << 20)
    with sessions(kind) as (ours, theirs):
        digests: list[bytes] = []

        def read() -> None:
            hashed = hashlib.sha256()
            for piece in theirs.accept_stream(timeout=10):
                hashed.update(piece)
            digests.append(hashed.digest())

        thread = threading.Thread(target=read)
        thread.start()
        stream = ours.open_stream()
        stream.send(data)
        stream.send_eof()
        stream.flush(timeout=20)
        thread.join()
        assert digests == [hashlib.sha256(data).digest()]
        assert ours.get_stats().packets_lost == 0
        assert ours.get_stats().bytes_sent < 21 << 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_connection_ends_with_its_session(kind: str) -> None:
    """P-22."""
    with nodes() as (server, client):
        for ending in (0, 1):
            both = dial(kind, server, client), server.accept(timeout=5)
            both[ending].close(timeout=5)
            assert both[1 - ending].wait_closed(timeout=5) == "graceful"
            until(client, lambda: not open_connections(client) and not open_connections(server))


def test_with_an_event_loop_on_the_other_side() -> None:
    """The same bytes on the wire."""

    async def serve(told: list[Any], over: threading.Event) -> None:
        async with STTNode(shared_seed="x", host=LOOPBACK, server_mode=True) as node:
            told += [await node.listen_tcp(), await node.listen_websocket()]
            over.set()
            for _ in range(2):
                session = await node.accept()
                stream = await session.accept_stream()
                await stream.send(await stream.receive())
                await session.wait_closed()

    told: list[Any] = []
    ready = threading.Event()
    thread = threading.Thread(target=anyio.run, args=(serve, told, ready))
    thread.start()
    assert ready.wait(10)
    with BlockingNode(shared_seed="x", host=LOOPBACK) as client:
        (_, tcp), (_, ws) = told
        for session in (client.connect_tcp(LOOPBACK, tcp), client.connect_websocket(f"ws://{LOOPBACK}:{ws}")):
            stream = session.open_stream()
            stream.send(b"hello")
            assert stream.receive(timeout=5) == b"hello"
            session.close(timeout=5)
    thread.join(10)


# -- what goes wrong -----------------------------------------------------------------------------------------------


def test_a_peer_that_reads_nothing_costs_a_bounded_amount() -> None:
    """P-22: and the writer goes on when it reads again."""
    credit = dict.fromkeys(("max_stream_recv_buffer", "max_session_recv_buffer", "stream_send_buffer"), 32 << 20)
    options = {"shared_seed": "x", "host": LOOPBACK, "recv_buffer_size": 1 << 20, **credit}
    one, two = socket.socketpair()
    with BlockingNode(server_mode=True, **options) as server, BlockingNode(background=True, **options) as client:
        server.serve_stream(one)
        dialled: list[BlockingSession] = []
        thread = threading.Thread(target=lambda: dialled.append(client.connect_stream(two)))
        thread.start()
        theirs = server.accept(timeout=10)
        thread.join()
        (ours,) = dialled
        (connection,) = open_connections(client)
        writer = threading.Thread(target=lambda: ours.open_stream().send(bytes(16 << 20)))
        writer.start()
        peer = theirs.accept_stream(timeout=10)
        received = 0
        while received < 8 << 20:  # which lets the windows grow beyond what a socket holds
            received += len(peer.receive(1 << 20, timeout=10))
        assert connection.backlog <= HIGH + (128 << 10)
        while received < 16 << 20:
            received += len(peer.receive(1 << 20, timeout=10))
            assert connection.backlog <= HIGH + (128 << 10)
        writer.join()
        assert ours.get_stats().packets_lost == 0


def test_a_connection_that_is_cut() -> None:
    one, two = socket.socketpair()
    with nodes(detach_timeout=0.0) as (server, client):
        server.serve_stream(one.dup())
        session = client.connect_stream(two)
        theirs = server.accept(timeout=5)
        one.shutdown(socket.SHUT_RDWR)
        one.close()
        assert session.wait_closed(timeout=5) == theirs.wait_closed(timeout=5) == "error"
        with pytest.raises(SessionClosedError, match="other side ended|reset|pipe"):
            session.open_stream()
        until(client, lambda: not open_connections(client) and not open_connections(server))


def test_strangers_who_say_nothing() -> None:
    """P-22: closed after the handshake timeout."""
    with nodes(handshake_timeout=0.2) as (server, client):
        host, port = server.listen_tcp()
        with socket.create_connection((host, port)) as stranger:
            stranger.settimeout(10)
            assert stranger.recv(1) == b""
        client.connect_tcp(host, port)


class Full(socket.socket):
    """A listening socket of a process that may open no more files for a while."""

    aborted = False
    failures = 0
    until = 0.0

    def accept(self) -> Any:
        now = time.monotonic()
        Full.until = Full.until or now + 0.05
        if not Full.aborted:
            Full.aborted = True
            raise OSError(errno.ECONNABORTED, "one that is gone, which says nothing of the next")
        if now < Full.until:
            Full.failures += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_too_many_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits to be accepted wakes the node without end, and it cannot help it: so it looks away for a moment."""
    Full.failures, Full.until = 0, 0.0
    sock = Full()
    sock.setblocking(False)
    sock.bind((LOOPBACK, 0))
    sock.listen()
    monkeypatch.setattr("stt_anyio.blocking.ways.listen_tcp", lambda *_: sock)
    with nodes() as (server, client):
        session = client.connect_tcp(*server.listen_tcp())
        assert session.is_active()
        assert Full.failures == 1
        Full.failures, Full.until = 0, 0.0
        assert client.connect_tcp(*sock.getsockname()).is_active(), "and again"
        assert Full.failures == 1
        Full.until = inf
        with socket.create_connection(sock.getsockname()):
            until(server, lambda: Full.failures == 2)
    assert sock.fileno() < 0, "closed, though it was not looked at"


def test_strangers_are_bounded() -> None:
    """P-22."""
    with nodes(handshake_timeout=60) as (server, _):
        host, port = server.listen_tcp()
        strangers = [socket.create_connection((host, port)) for _ in range(256)]
        until(server, lambda: len(open_connections(server)) == 256)
        with socket.create_connection((host, port)) as late:
            late.settimeout(10)
            assert late.recv(1) == b""
        for stranger in strangers:
            stranger.close()


def test_nobody_listens_or_answers() -> None:
    with nodes() as (_, client), socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConnectionRefusedError, match=str(port)):
            client.connect_tcp(LOOPBACK, port)
        with pytest.raises(UnreachableError):
            client.connect_tcp("no-such-host.invalid", 1)
        sock.listen()
        for dialling in (
            lambda: client.connect_tcp(LOOPBACK, port, timeout=0.05),
            lambda: client.connect_websocket(f"ws://{LOOPBACK}:{port}", timeout=0.05),
            lambda: client.connect_websocket(f"wss://{LOOPBACK}:{port}", timeout=0.05),
        ):
            with pytest.raises(ConnectionTimeoutError):
                dialling()
        assert all(connection.leaving for connection in open_connections(client))


def test_certificates_and_handshakes() -> None:
    """A11: the same typed errors as with an event loop."""
    ours, theirs = contexts()
    with nodes() as (server, client):
        _, secure = server.listen_websocket(ssl_context=ours, path="/stt")
        with pytest.raises(TlsError, match="certificate does not verify"):
            client.connect_websocket(f"wss://localhost:{secure}/stt")
        with pytest.raises(WebSocketHandshakeError, match="404"):
            client.connect_websocket(f"wss://localhost:{secure}/", ssl_context=theirs)
        with serving(lambda stream: stream.sendall(b"HTTP/1.1 407 No\r\n\r\n")) as port:
            with pytest.raises(ProxyError, match="407"):
                client.connect_websocket(f"wss://localhost:{secure}/stt", proxy=f"http://{LOOPBACK}:{port}")
        with serving(lambda stream: None) as port, pytest.raises(OSError, match="closed|ended|reset"):
            client.connect_tcp(LOOPBACK, port, timeout=5)
        until(client, lambda: not open_connections(client))


@pytest.mark.parametrize(
    ("address", "transport"),
    [("here", "tcp"), (5, "stream"), ((1, 2), "stream"), ("http://host", "websocket"), ((LOOPBACK, 1), "pigeon")],
)
def test_no_address(address: Any, transport: str) -> None:
    with nodes() as (_, client), pytest.raises(ArgumentError):
        client.connect(address, transport=transport)


def test_it_has_udp_in_any_case() -> None:
    with pytest.raises(ArgumentError, match="listen_websocket"):
        BlockingNode(shared_seed="x", transport="websocket")


def test_what_needs_a_node_that_runs() -> None:
    node = BlockingNode(shared_seed="x", host=LOOPBACK)
    one, two = socket.socketpair()
    for call in (
        node.listen_tcp,
        node.listen_websocket,
        lambda: node.serve_stream(one),
        lambda: node.connect_stream(two),
    ):
        with pytest.raises(StateError):
            call()
    one.close()


# -- whichever is first --------------------------------------------------------------------------------------------


def test_udp_is_blocked() -> None:
    """E6."""
    with nodes() as (server, client), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind((LOOPBACK, 0))
        _, port = server.listen_websocket()
        session = client.connect(hole.getsockname(), server.node_id, websocket=f"ws://{LOOPBACK}:{port}")
        assert session.transport_type == "ws"
        until(client, lambda: not client._dialing)
        assert client.get_active_sessions() == [session]


def test_udp_works() -> None:
    """E6."""
    with nodes() as (server, client), socket.create_server((LOOPBACK, 0)) as silent:
        url = f"ws://{LOOPBACK}:{silent.getsockname()[1]}"
        session = client.connect((LOOPBACK, server.port), websocket=url)
        assert session.transport_type == "udp"


def test_neither_works() -> None:
    """E6."""
    with nodes() as (_, client), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole, socket.socket() as nobody:
        hole.bind((LOOPBACK, 0))
        nobody.bind((LOOPBACK, 0))
        url = f"ws://{LOOPBACK}:{nobody.getsockname()[1]}"
        with pytest.raises(ConnectionRefusedError) as caught:
            client.connect(hole.getsockname(), timeout=0.5, websocket=url)
        assert isinstance(caught.value.__cause__, ConnectionTimeoutError)
