"""Sessions that go on from another port: `migrate()` without an address (C8); without an event loop too."""

from __future__ import annotations

import gc
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio import BlockingNode, BlockingSession, Session, STTNode, UdpCarrier
from stt_anyio.errors import ArgumentError, ConnectionTimeoutError, SessionClosedError, StateError, UnreachableError
from stt_anyio.moving import Attempt
from stt_anyio.udp import UdpSocket
from stt_proto import Endpoint, NetworkPath
from stt_proto.types import Transmit
from tests.anyio.test_moves import HERE, Transfer

PARAMETERS: dict[str, Any] = {"shared_seed": "x", "host": HERE}


def _is_free(port: int) -> bool:
    """Whether nobody has a UDP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((HERE, port))
        except OSError:
            return False
    return True


def _pass_only(monkeypatch: pytest.MonkeyPatch, node: STTNode | BlockingNode, passes: Callable[[Any], bool]) -> None:
    """Of what comes to a node, let nothing in but what comes over such paths."""
    receive, endpoint = Endpoint.receive, node.endpoint

    def only(self: Endpoint, data: Any, path: NetworkPath, *rest: Any) -> None:
        if self is not endpoint or passes(path):
            receive(self, data, path, *rest)

    monkeypatch.setattr(Endpoint, "receive", only)


@asynccontextmanager
async def pairs(**parameters: Any) -> AsyncIterator[tuple[STTNode, STTNode, Session, Session]]:
    async with STTNode(server_mode=True, **PARAMETERS) as server, STTNode(**PARAMETERS, **parameters) as client:
        with anyio.fail_after(30):
            session = await client.connect((HERE, server.port))
            yield server, client, session, await server.accept()


def _sockets(node: STTNode) -> list[UdpSocket]:
    carrier = node._carriers["udp"]
    assert isinstance(carrier, UdpCarrier)
    return carrier.sockets


async def _echo(session: Session, peer: Session) -> None:
    stream = session.open_stream()
    await stream.send(b"there")
    other = await peer.accept_stream()
    assert await other.receive() == b"there"
    await other.send(b"back")
    assert await stream.receive() == b"back"


# -- asyncio and trio ----------------------------------------------------------------------------------------------


async def test_a_session_goes_on_from_another_port() -> None:
    """C8, M-7: in mid-transfer, both ways, three times; no byte is lost or repeated, and the old port is closed."""
    up, down = Transfer(12), Transfer(12)
    async with pairs() as (server, client, session, peer):
        ports = [client.port]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(up.receive, peer)
            tasks.start_soon(up.send, session)
            tasks.start_soon(down.receive, session)
            tasks.start_soon(down.send, peer)
            for number in range(3):
                up.allowed = down.allowed = 3 * number + 4
                await up.reach(3 * number + 2)
                await session.migrate()
                assert session.local_addr == peer.peer_addr == (HERE, client.port)
                assert session.peer_addr == (HERE, server.port)
                assert [info.path for info in session.paths] == [session.core.path]
                ports.append(client.port)
            up.allowed = down.allowed = 12
        up.check()
        down.check()
        assert len(set(ports)) == 4
        assert len(_sockets(client)) == 1
        await checkpoint()
        assert [_is_free(port) for port in ports] == [True, True, True, False]
        other = await client.connect((HERE, server.port))
        assert other.local_addr == session.local_addr, "the port is the node's own now"


async def test_a_port_that_was_asked_for_stays() -> None:
    """A node that was told its port keeps it, and so does one that others dial; the session's goes with the session."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((HERE, 0))
        port = sock.getsockname()[1]
    async with pairs(port=port) as (server, client, session, peer):
        for node, one, other in ((client, session, peer), (server, peer, session)):
            own = node.port
            for _ in range(2):
                await one.migrate()
                assert node.port == own != one.local_addr[1]
                assert len(_sockets(node)) == 2
                assert other.peer_addr == one.local_addr
                await _echo(session, peer)
        left = [session.local_addr[1], peer.local_addr[1]]
        await session.close()
        await peer.wait_closed()
        while not all(map(_is_free, left)):
            await checkpoint()
        assert (client.port, server.port) == (port, _sockets(server)[0].local[1])
        assert [len(_sockets(node)) for node in (client, server)] == [1, 1]


async def test_a_port_that_another_session_needs_stays() -> None:
    """The other session is not disturbed; when it has gone, the port may go with the next move."""
    async with pairs() as (server, client, session, peer):
        other = await client.connect((HERE, server.port))
        first = client.port
        await session.migrate()
        assert (client.port, other.local_addr[1]) == (first, first)
        await _echo(other, await server.accept())
        await _echo(session, peer)
        await other.close()
        assert client.port == first
        await session.migrate()
        assert client.port == session.local_addr[1] != first
        assert len(_sockets(client)) == 1


async def test_the_network_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the old port nothing passes any more, in either direction; `migrate` does not wait for that to be found."""
    async with pairs() as (server, client, session, peer):
        old = client.port
        _pass_only(monkeypatch, server, lambda path: path.remote[1] != old)
        _pass_only(monkeypatch, client, lambda path: path.local[1] != old)
        stream = session.open_stream()
        await stream.send(b"lost")
        await session.migrate()
        assert await (await peer.accept_stream()).receive() == b"lost"
        assert session.local_addr == (HERE, client.port)


async def test_a_session_that_has_lost_its_way_already(monkeypatch: pytest.MonkeyPatch) -> None:
    """C9, M-9: detached by silence, it comes back from another port to where the peer was last."""
    quick = {"keep_alive_interval": 0.05, "keep_alive_timeout": 0.2}
    async with pairs(**quick) as (server, client, session, peer):
        old = client.port
        _pass_only(monkeypatch, server, lambda path: path.remote[1] != old)
        _pass_only(monkeypatch, client, lambda path: path.local[1] != old)
        while not session.is_detached:
            await anyio.sleep(0.001)
        await session.migrate()
        assert not session.is_detached
        assert session.local_addr == (HERE, client.port)
        assert client.port != old
        await _echo(session, peer)


async def test_what_cannot_be_left() -> None:
    """A11: an address is needed on other carriers, and where the session has no path over UDP."""
    async with pairs() as (server, client, session, _):
        with pytest.raises(ArgumentError, match="address is missing") as caught:
            await session.migrate(transport="tcp")
        assert caught.value.argument == "address"
        with pytest.raises(ArgumentError, match="address"):
            await session.add_path(None)
        web = await client.connect_tcp(*await server.listen_tcp())
        with pytest.raises(StateError, match="no path over UDP"):
            await web.migrate()
        await web.migrate((HERE, server.port), "udp")
        await web.migrate(web.paths[1].path)
        assert web.transport_type == "stream"
        await web.migrate()
        assert web.transport_type == "udp", "from the spare path"
        await session.close()
        with pytest.raises(SessionClosedError):
            await session.migrate()


async def test_nobody_answers_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session is where it was, and the port that was opened is closed again; also when it is cancelled."""
    async with pairs() as (server, client, session, peer):
        (sock,), path = _sockets(client), session.core.path
        _pass_only(monkeypatch, server, lambda path: path.remote[1] == client.port)
        with pytest.raises(ConnectionTimeoutError, match=str(server.port)):
            await session.migrate(timeout=0.2)
        with anyio.move_on_after(0.05) as scope:
            await session.migrate()
        assert scope.cancelled_caught
        assert [info.path for info in session.paths] == [path]
        assert _sockets(client) == [sock]
        await _echo(session, peer)


async def test_no_port_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that the node is bound to is not this machine's any more: a typed error, and nothing has changed."""
    async with pairs() as (_, client, session, peer):

        def refuse(*_: Any) -> None:
            raise OSError(99, "Cannot assign requested address")

        with monkeypatch.context() as patch:
            patch.setattr("stt_anyio.udp.pool.UdpSocket", refuse)
            with pytest.raises(UnreachableError, match="Cannot assign"):
                await session.migrate()
        assert len(_sockets(client)) == 1
        await _echo(session, peer)


async def test_what_waits_for_a_socket_that_goes_is_lost() -> None:
    """A full socket is kept waiting for, with all that is to be sent behind it; when it is gone that ends."""
    async with pairs(port=0) as (_, client, session, peer):
        carrier = client._carriers["udp"]
        assert isinstance(carrier, UdpCarrier)
        path = carrier.path_beside(session.core.path)
        full = carrier.sockets[1]
        full.send = lambda transmit: transmit  # type: ignore[method-assign]
        client.driver._send(Transmit(path, (b"x",)))
        assert client.driver._held is not None
        client.driver.path_unused(path)
        await _echo(session, peer)
        assert carrier.send(Transmit(path, (b"x",))) is None, "lost with its socket"
        while full.fileno() >= 0:
            await checkpoint()


async def test_cancelled_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session goes on there, and the port that it has left is given up: who watches must not see both for long."""
    async with pairs() as (_, client, session, peer):
        real, old = session.wait_settled, client.port

        async def settled(attempt: Attempt) -> None:
            await real(attempt)
            scope.cancel()
            await checkpoint()

        monkeypatch.setattr(session, "wait_settled", settled)
        with anyio.CancelScope() as scope:
            await session.migrate()
        assert scope.cancelled_caught
        assert session.local_addr[1] == client.port != old
        assert len(session.paths) == 1
        while not _is_free(old):
            await checkpoint()
        await _echo(session, peer)


async def test_a_node_that_stops_in_the_middle_of_it() -> None:
    """Nothing is left open."""
    async with pairs() as (_, client, session, _peer):
        async with anyio.create_task_group() as tasks:

            async def move() -> None:
                with suppress(SessionClosedError):  # it may have got there
                    await session.migrate()

            tasks.start_soon(move)
            while len(sockets := _sockets(client)) < 2:
                await checkpoint()
            await client.stop(timeout=0.0)
        assert [sock.fileno() for sock in sockets] == [-1, -1]
    gc.collect()


# -- without an event loop -----------------------------------------------------------------------------------------


@contextmanager
def blocking(**parameters: Any) -> Iterator[tuple[BlockingNode, BlockingNode, BlockingSession, BlockingSession]]:
    parameters = {**PARAMETERS, **parameters}
    with (
        BlockingNode(server_mode=True, background=True, **PARAMETERS) as server,
        BlockingNode(background=True, **parameters) as client,
    ):
        session = client.connect((HERE, server.port))
        yield server, client, session, server.accept(timeout=5)


def _answer(session: BlockingSession, peer: BlockingSession) -> None:
    stream = session.open_stream()
    stream.send(b"there")
    other = peer.accept_stream(timeout=5)
    assert other.receive(timeout=5) == b"there"
    other.send(b"back")
    assert stream.receive(timeout=5) == b"back"


def _all(node: BlockingNode) -> list[UdpSocket]:
    assert node._sockets is not None
    return node._sockets.all


def test_blocking_sessions_do_so_too() -> None:
    """C8: the port is another one each time, and the old one is closed."""
    with blocking() as (server, client, session, peer):
        ports = [client.port]
        for _ in range(3):
            session.migrate()
            assert session.local_addr == peer.peer_addr == (HERE, client.port)
            ports.append(client.port)
            _answer(session, peer)
        assert len(set(ports)) == 4
        client.poll(0.01)
        assert [_is_free(port) for port in ports] == [True, True, True, False]
        assert client.connect((HERE, server.port)).local_addr == session.local_addr


def test_a_blocking_node_keeps_the_port_that_others_dial() -> None:
    """The port of the session goes with the session."""
    with blocking() as (server, client, session, peer):
        own = server.port
        for _ in range(2):
            peer.migrate()
            assert server.port == own != peer.local_addr[1]
            assert len(_all(server)) == 2
            _answer(session, peer)
        port = peer.local_addr[1]
        client._opening = 1  # a thread that dials has a path in its hands
        mine = client.port
        session.migrate()
        assert client.port == mine
        session.close()
        peer.wait_closed(timeout=5)
        server.poll(0.01)
        assert len(_all(server)) == 1
        assert _is_free(port)


def test_what_a_blocking_session_cannot_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """A11, and the session is where it was."""
    with blocking() as (server, client, session, peer):
        with pytest.raises(ArgumentError, match="address is missing"):
            session.migrate(transport="websocket")
        with pytest.raises(StateError, match="no path over UDP"):
            client.connect_tcp(*server.listen_tcp()).migrate()
        with monkeypatch.context() as patch:
            patch.setattr("stt_anyio.udp.pool.UdpSocket", lambda *_: (_ for _ in ()).throw(OSError(99, "none")))
            with pytest.raises(UnreachableError):
                session.migrate()
        _pass_only(monkeypatch, server, lambda path: path.remote[1] == client.port)
        with pytest.raises(ConnectionTimeoutError):
            session.migrate(timeout=0.1)
        assert len(_all(client)) == 1
        _answer(session, peer)


def test_what_waits_for_a_blocking_socket_that_goes_is_lost() -> None:
    """As `test_what_waits_for_a_socket_that_goes_is_lost`."""
    with blocking() as (_, client, session, peer), client.lock:
        path: NetworkPath = client._path_beside(session.core.path)
        full = _all(client)[1]
        full.send = lambda transmit: transmit  # type: ignore[method-assign]
        client.driver._send(Transmit(path, (b"x",)))
        assert client._sockets is not None
        assert client._sockets.blocked is full
        client.driver.path_unused(path)
        client.lock.release()
        try:
            _answer(session, peer)
        finally:
            client.lock.acquire()
        assert client._sockets.blocked is None
        assert client._sockets.send(Transmit(path, (b"x",))) is None
        assert full.fileno() < 0
