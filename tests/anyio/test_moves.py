"""Sessions of the hosts move, in mid-transfer: to other addresses and over other carriers, and back from none (C8, C9).

Without an event loop: `test_blocking_moves.py`.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio import NodeConfig, Session, STTNode, UdpCarrier
from stt_anyio.connections import ConnectionCarrier
from stt_anyio.errors import (
    ArgumentError,
    ConnectionTimeoutError,
    SessionClosedError,
    StateError,
    UnreachableError,
    WebSocketHandshakeError,
)
from stt_anyio.errors import ConnectionRefusedError as RefusedError
from stt_proto import NetworkPath
from stt_proto.types import PathStatus
from tests.anyio.wires import Cable, answering, serving
from tests.proto.worlds import filler

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"
PIECE = filler(1 << 20)


class Pair:
    """Two nodes on loopback, one session between them over UDP, and the URL of the server's WebSocket."""

    def __init__(self, server: STTNode, client: STTNode, session: Session, peer: Session, port: int) -> None:
        self.server, self.client, self.session, self.peer = server, client, session, peer
        self.web_port = port
        self.url = f"ws://{HERE}:{port}/"
        self.udp = HERE, server.port

    def connections(self) -> int:
        """WebSocket and TCP connections that the two nodes hold."""
        carriers = [*self.client._carriers.values(), *self.server._carriers.values()]
        return sum(len(each.connections.by_path) for each in carriers if isinstance(each, ConnectionCarrier))


@asynccontextmanager
async def pairs(*, limit: float = 30.0, **parameters: Any) -> AsyncIterator[Pair]:
    parameters = {"shared_seed": "x", "host": HERE, **parameters}
    async with STTNode(server_mode=True, **parameters) as server, STTNode(**parameters) as client:
        with anyio.fail_after(limit):
            _, port = await server.listen_websocket()
            session = await client.connect((HERE, server.port))
            yield Pair(server, client, session, await server.accept(), port)


class Transfer:
    """Numbered pieces through one stream, of which no more than `allowed` are sent; what arrives is hashed."""

    def __init__(self, pieces: int) -> None:
        self._pieces = self.allowed = pieces
        self._sent, self._received = hashlib.sha256(), hashlib.sha256()
        self.arrived = 0
        self.longest_gap = 0.0

    async def send(self, session: Session) -> None:
        stream = session.open_stream()
        for number in range(self._pieces):
            piece = number.to_bytes(8, "big") + PIECE
            self._sent.update(piece)
            while number >= self.allowed:
                await checkpoint()
            await stream.send(piece)
        await stream.send_eof()

    async def receive(self, session: Session) -> None:
        stream = await session.accept_stream()
        last = anyio.current_time()
        async for data in stream:
            self._received.update(data)
            self.arrived += len(data)
            now = anyio.current_time()
            self.longest_gap, last = max(self.longest_gap, now - last), now

    async def reach(self, pieces: int) -> None:
        """Wait until so many pieces have arrived, and no more than it takes to see it."""
        while self.arrived < pieces * len(PIECE):
            await checkpoint()

    def check(self) -> None:
        """What arrived is what was sent, each byte once."""
        assert self.arrived == self._pieces * (len(PIECE) + 8)
        assert self._received.digest() == self._sent.digest()


async def _move_three_times(pair: Pair, pieces: int) -> float:
    """UDP, WebSocket, UDP, WebSocket, each while bytes arrive; gives the longest gap in that, in seconds."""
    transfer, session = Transfer(pieces), pair.session
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transfer.receive, pair.peer)
        tasks.start_soon(transfer.send, session)
        for number, (address, transport, carrier) in enumerate(
            [(pair.url, "websocket", "ws"), (pair.udp, "udp", "udp"), (pair.url, "ws", "ws")], 1
        ):
            transfer.allowed = (number + 1) * pieces // 5  # so that it is not over before it has moved
            await transfer.reach(number * pieces // 5)
            await session.migrate(address, transport=transport)
            assert session.transport_type == carrier
        transfer.allowed = pieces
    transfer.check()
    assert pair.peer.transport_type == "ws", "M-7: the peer has followed"
    return transfer.longest_gap


async def test_udp_to_websocket_and_back() -> None:
    """C8, M-6, M-7: three moves between kinds of carriers in mid-transfer; no byte is lost or repeated."""
    async with pairs() as pair:
        await _move_three_times(pair, 20)
        await pair.session.close()
        await pair.peer.wait_closed()
        while pair.connections():  # those of the spare paths are closed with the session
            await anyio.sleep(0.001)


@pytest.mark.long
async def test_200_megabytes() -> None:
    """The same with 200 MB; nobody has to wait half a second for the next bytes."""
    async with pairs(limit=120) as pair:
        assert await _move_three_times(pair, 200) < 0.5


async def test_a_websocket_lives_longer_than_a_handshake() -> None:
    """P-22: a connection to which a session moved is no stranger's any more, so it is not cut off."""
    async with pairs() as pair:
        await pair.session.migrate(pair.url, "websocket")
        await _echo(pair)
        for node in (pair.server, pair.client):
            carrier = node._carriers["ws"]
            assert isinstance(carrier, ConnectionCarrier)
            (connection,) = carrier.connections.by_path.values()
            assert (connection.stranger, connection.deadline, connection.sessions) == (False, inf, 1)


async def test_tcp() -> None:
    """C8: over TCP too; `add_path` leaves the choice to the session, for which UDP is the better kind (M-8)."""
    async with pairs() as pair:
        address = await pair.server.listen_tcp()
        await pair.session.add_path(address, "tcp")
        assert pair.session.transport_type == "udp"
        assert [info.status for info in pair.session.paths] == [PathStatus.ACTIVE, PathStatus.SPARE]
        await pair.session.add_path(address, "tcp")
        await pair.session.migrate(pair.session.paths[1].path)
        assert pair.session.transport_type == "stream"
        await pair.session.migrate(pair.session.paths[0].path)
        await _echo(pair)


async def _echo(pair: Pair) -> None:
    """The session works, in both directions."""
    stream = pair.session.open_stream()
    await stream.send(b"there")
    other = await pair.peer.accept_stream()
    assert await other.receive() == b"there"
    await other.send(b"back")
    assert await stream.receive() == b"back"


@asynccontextmanager
async def cables(**parameters: Any) -> AsyncIterator[tuple[Pair, Cable]]:
    """A session that began on a WebSocket, whose cable can be cut."""
    parameters = {"shared_seed": "x", "host": HERE, **parameters}
    async with STTNode(server_mode=True, **parameters) as server, STTNode(**parameters) as client:
        _, port = await server.listen_websocket()
        cable = Cable(port)
        with anyio.fail_after(30):
            async with serving(cable.handle) as through:
                session = await client.connect_websocket(f"ws://{HERE}:{through}/")
                yield Pair(server, client, session, await server.accept(), port), cable


@pytest.mark.parametrize("migrate", [True, False], ids=["migrate", "add_path"])
async def test_the_websocket_is_cut(migrate: bool) -> None:
    """C9, M-9: both sides detach, who sends waits, and over UDP every stream goes on at its byte."""
    transfer = Transfer(20)
    async with cables() as (pair, cable), anyio.create_task_group() as tasks:
        tasks.start_soon(transfer.receive, pair.peer)
        tasks.start_soon(transfer.send, pair.session)
        transfer.allowed = 12
        await transfer.reach(4)
        cable.cut()
        while not (pair.session.is_detached and pair.peer.is_detached):
            await checkpoint()
        assert pair.session.is_active()
        assert pair.session.paths == ()
        transfer.allowed = 20
        await (pair.session.migrate if migrate else pair.session.add_path)(pair.udp, "udp")
        assert not pair.session.is_detached
        assert pair.session.transport_type == "udp"
    transfer.check()


async def test_the_websocket_stalls() -> None:
    """M-6: a connection over which nothing comes any more, and that nobody has closed, is left in time; what it held
    comes late, when it has been sent again, and is not taken twice."""
    transfer = Transfer(20)
    async with cables() as (pair, cable):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(transfer.receive, pair.peer)
            tasks.start_soon(transfer.send, pair.session)
            transfer.allowed = 12
            await transfer.reach(4)
            cable.stall()
            await pair.session.migrate(pair.udp, "udp")
            transfer.allowed = 20
        transfer.check()
        cable.go_on()
        await _echo(pair)
        assert pair.peer.transport_type == "udp"


async def test_udp_passes_again() -> None:
    """E6, M-8: a session on a WebSocket to which UDP is offered goes on there by itself."""
    async with cables() as (pair, _):
        assert pair.session.transport_type == "ws"
        await pair.session.add_path(pair.udp, "udp")
        assert pair.session.transport_type == "udp"
        await _echo(pair)
        assert pair.peer.transport_type == "udp"


async def test_a_path_that_is_given_up() -> None:
    """Its connection is closed on both sides, the other side forgets it too, and the path in use stays."""
    async with pairs() as pair:
        await pair.session.migrate(pair.url, "websocket")
        await pair.session.migrate(pair.udp, "udp")
        active, spare = (info.path for info in pair.session.paths)
        assert spare.carrier == "ws"
        pair.session.remove_path(active)
        pair.session.remove_path(spare)
        pair.session.remove_path(spare)
        assert [info.path for info in pair.session.paths] == [active]
        with pytest.raises(ArgumentError):
            pair.session.remove_path(NetworkPath("pigeon", 1, 2))
        while pair.connections() or len(pair.peer.paths) > 1:
            await checkpoint()
        await _echo(pair)


async def test_the_websocket_is_cut_and_udp_is_there() -> None:
    """M-5: a session with another path goes on there by itself, at once."""
    transfer = Transfer(12)
    async with cables() as (pair, cable), anyio.create_task_group() as tasks:
        await pair.session.add_path(pair.udp, "udp")
        await pair.session.migrate(pair.session.paths[1].path)
        assert pair.session.transport_type == "ws"
        tasks.start_soon(transfer.receive, pair.peer)
        tasks.start_soon(transfer.send, pair.session)
        await transfer.reach(3)
        cable.cut()
        while pair.session.transport_type != "udp":
            await checkpoint()
        assert not pair.session.is_detached
    transfer.check()


async def test_cut_without_a_detach_timeout() -> None:
    """M-9: with a detach timeout of 0 a connection takes its session with it, and nothing brings it back."""
    async with cables(detach_timeout=0.0) as (pair, cable):
        cable.cut()
        assert await pair.session.wait_closed() == "error"
        with pytest.raises(SessionClosedError):
            await pair.session.migrate(pair.udp, "udp")
        while pair.connections():
            await anyio.sleep(0.001)


async def test_addresses_that_lead_nowhere() -> None:
    """A typed error, and the session is where it was, with the path that it had and no other."""
    async with pairs() as pair, answering(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as web:
        before = [info.path for info in pair.session.paths]
        silent = UdpCarrier(NodeConfig(bind_address=HERE))
        await silent.open()
        cases: list[tuple[Any, str, type[Exception]]] = [
            ((HERE, 1), "tcp", RefusedError),
            *([((HERE, 1), "udp", RefusedError)] if sys.platform == "linux" else []),  # others do not tell
            (f"ws://{HERE}:1/", "websocket", RefusedError),
            (f"ws://{HERE}:{web}/", "websocket", WebSocketHandshakeError),
            (silent.sockets[0].local, "udp", ConnectionTimeoutError),
            (("no.such.host.invalid", 1), "tcp", UnreachableError),
            ("nonsense", "udp", ArgumentError),
            ((HERE, 1), "pigeon", ArgumentError),
        ]
        for address, transport, error in cases:
            for go in (pair.session.migrate, pair.session.add_path):
                with pytest.raises(error):
                    await go(address, transport=transport, timeout=0.1 if error is ConnectionTimeoutError else 10)
                assert [info.path for info in pair.session.paths] == before
        silent.close()
        assert not pair.connections()
        await _echo(pair)


async def test_somebody_else_answers() -> None:
    """M-4: a node without the keys of the session cannot answer there; nothing moves."""
    async with pairs() as pair, STTNode(shared_seed="x", host=HERE, server_mode=True) as other:
        with pytest.raises(TimeoutError):
            await pair.session.migrate((HERE, other.port), "udp", timeout=0.2)
        address = await other.listen_tcp()
        with pytest.raises(ConnectionTimeoutError):
            await pair.session.migrate(address, "tcp", timeout=0.2)
        assert len(pair.session.paths) == 1
        await _echo(pair)


async def test_where_it_was_asked_to_stay() -> None:
    """M-8: on a WebSocket that was asked for it stays after a move that failed, though UDP is the better kind."""
    async with pairs() as pair:
        await pair.session.migrate(pair.url, "websocket")
        with pytest.raises(RefusedError):
            await pair.session.migrate((HERE, 1), "tcp")
        silent = UdpCarrier(NodeConfig(bind_address=HERE))
        await silent.open()
        with pytest.raises(TimeoutError):
            await pair.session.migrate(silent.sockets[0].local, "udp", timeout=0.05)
        silent.close()
        spare = pair.session.paths[1].path
        await pair.session.add_path(spare)
        moves = pair.session.core._moves
        assert moves is not None
        assert moves.table.others[spare].challenge is not None
        while moves.table.others[spare].challenge is not None:  # until it is answered
            await checkpoint()
        assert pair.session.transport_type == "ws"


async def test_who_waits_is_told() -> None:
    """Of two moves the later one counts; a session that ends wakes who waits; what is cancelled leaves nothing."""
    async with pairs() as pair:
        silent = UdpCarrier(NodeConfig(bind_address=HERE))
        await silent.open()
        nobody = silent.sockets[0].local

        async def wait(error: type[Exception]) -> None:
            with pytest.raises(error):
                await pair.session.migrate(nobody, "udp")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, StateError)
            await anyio.wait_all_tasks_blocked()
            await pair.session.migrate(pair.url, "websocket")
        assert pair.session.transport_type == "ws"
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, Exception)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        assert len(pair.session.paths) == 2
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, SessionClosedError)
            await anyio.wait_all_tasks_blocked()
            pair.session.abort()
        silent.close()


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is this machine on Linux only")
async def test_a_transfer_moves_to_another_address() -> None:
    """C8, M-7: a server bound to all addresses is asked at another one; no byte is lost, and both send there."""
    carrier = UdpCarrier(NodeConfig(bind_address=HERE))
    data = filler(8 << 20)
    async with (
        STTNode(shared_seed="x", bind_address="0.0.0.0", server_mode=True) as server,
        STTNode(shared_seed="x", carriers=[carrier]) as client,
    ):
        session = await client.connect((HERE, server.port))
        (peer,) = server.get_active_sessions()
        received = hashlib.sha256()

        async def read() -> None:
            stream = await peer.accept_stream()
            async for chunk in stream:
                received.update(chunk)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                stream = session.open_stream()
                await stream.send(data[: 4 << 20])
                await session.migrate(await carrier.path_to((ELSEWHERE, server.port)))
                await stream.send(data[4 << 20 :])
                await stream.send_eof()
        assert received.digest() == hashlib.sha256(data).digest()
        assert session.peer_addr == (ELSEWHERE, server.port)
        assert peer.local_addr == (ELSEWHERE, server.port)
        assert len(session.paths) == 2
        assert not session.is_detached


async def test_what_is_no_path() -> None:
    """A11: the caller's mistake, at once."""
    async with (
        STTNode(shared_seed="x", bind_address=HERE, server_mode=True) as server,
        STTNode(shared_seed="x", bind_address=HERE) as client,
    ):
        session = await client.connect((HERE, server.port))
        with pytest.raises(ArgumentError):
            await session.add_path(NetworkPath("pigeon", 1, 2))
