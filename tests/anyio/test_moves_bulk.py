"""200 MB each move three times between UDP and WebSocket in mid-transfer, and nobody waits half a second (C8).

Twice: as the moves are, and with every packet on the old path lost, from a moment before the move is asked for.
"""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio import BlockingNode, BlockingSession, Session, STTNode
from tests.anyio.relay import PERFECT, Relay
from tests.anyio.test_moves import PIECE, Transfer
from tests.figures import RecordProperty, tell

HERE = "127.0.0.1"
GAP = 0.5
"""Seconds for which nothing may arrive, on a machine that is there for nothing else."""
LIMIT = 120.0
SIZES = pytest.mark.parametrize("pieces", [20, pytest.param(200, marks=pytest.mark.long)])
OLD_PATH = pytest.mark.parametrize("lost", [False, True], ids=["old-path-kept", "old-path-lost"])


class ThreadedCable:
    """A TCP relay in threads of its own, that can stall: what is in it stays there.

    Args:
        port: of this machine, where it leads.

    Attributes:
        port: where it begins.
        held: bytes that are in it.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self.held = 0
        self._running = threading.Event()
        self._running.set()
        self._listener = socket.create_server((HERE, 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        self._over = False
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> ThreadedCable:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over = True
        self._running.set()
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was first
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for sock in self._sockets:
            sock.close()

    def stall(self) -> None:
        self._running.clear()

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        self._sockets.append(near)
        far = socket.create_connection((HERE, self._to))
        self._sockets.append(far)
        for ends in ((near, far), (far, near)):
            pump = threading.Thread(target=self._pump, args=ends)
            self._threads.append(pump)
            pump.start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                if not self._running.is_set():
                    self.held += len(data)
                    self._running.wait()
                if self._over:
                    return
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Ways:
    """What leads to a server: two ways for UDP and two for WebSockets, each of which can fall silent.

    Args:
        udp: the server's port.
        web: that of its WebSocket.
    """

    def __init__(self, stack: ExitStack, udp: int, web: int) -> None:
        relays = [stack.enter_context(Relay((HERE, udp), 1, PERFECT, LIMIT)) for _ in range(2)]
        cables = [stack.enter_context(ThreadedCable(web)) for _ in range(2)]
        self.first, self._relays, self._cables = relays[0].address, relays, cables
        to_web = [f"ws://{HERE}:{cable.port}/" for cable in cables]
        self.moves: list[tuple[Any, str, str]] = [
            (to_web[0], "websocket", "ws"),
            (relays[1].address, "udp", "udp"),
            (to_web[1], "websocket", "ws"),
        ]
        """Where to, by which carrier, what that is called."""

    def silence(self, number: int) -> None:
        """The way before the n-th move loses everything from now on."""
        if number == 2:
            self._cables[0].stall()
        else:
            self._relays[number // 2].cut = True

    def lost(self, number: int) -> int:
        """What it has lost: bytes, or datagrams."""
        return self._cables[0].held if number == 2 else self._relays[number // 2].swallowed


# -- asyncio and trio ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def sessions() -> AsyncIterator[tuple[Session, Session, Ways]]:
    parameters: dict[str, Any] = {"shared_seed": "x", "host": HERE, "datagram_size": 1472}
    async with STTNode(server_mode=True, **parameters) as server, STTNode(**parameters) as client:
        with anyio.fail_after(LIMIT), ExitStack() as stack:
            _, web = await server.listen_websocket()
            ways = Ways(stack, server.port, web)
            session = await client.connect(ways.first)
            yield session, await server.accept(), ways
            session.abort()


@SIZES
@OLD_PATH
async def test_three_moves(pieces: int, lost: bool, record_property: RecordProperty) -> None:
    """C8, M-6, M-7: UDP, WebSocket, UDP, WebSocket; every byte once, and the next one soon."""
    transfer = Transfer(pieces)
    async with sessions() as (session, peer, ways), anyio.create_task_group() as tasks:
        tasks.start_soon(transfer.receive, peer)
        tasks.start_soon(transfer.send, session)
        began = time.perf_counter()
        for number, (address, transport, carrier) in enumerate(ways.moves, 1):
            transfer.allowed = (number + 1) * pieces // 5
            await transfer.reach(number * pieces // 5)
            if lost:
                ways.silence(number)
                while not ways.lost(number):
                    await checkpoint()
            await session.migrate(address, transport=transport)
            assert session.transport_type == carrier
        transfer.allowed = pieces
        await transfer.reach(pieces)
        seconds = time.perf_counter() - began
    transfer.check()
    told(record_property, pieces, lost, seconds, transfer.longest_gap)


def told(record_property: RecordProperty, pieces: int, lost: bool, seconds: float, gap: float) -> None:
    tell(record_property, mb=pieces, old_path_lost=lost, seconds=seconds, longest_gap_ms=gap * 1000)
    if pieces > 20:
        assert gap < GAP


# -- without an event loop -----------------------------------------------------------------------------------------


@contextmanager
def blocking_sessions() -> Iterator[tuple[BlockingSession, BlockingSession, Ways]]:
    parameters: dict[str, Any] = {"shared_seed": "x", "host": HERE, "datagram_size": 1472, "background": True}
    with BlockingNode(server_mode=True, **parameters) as server, BlockingNode(**parameters) as client:
        with ExitStack() as stack:
            _, web = server.listen_websocket()
            ways = Ways(stack, server.port, web)
            session = client.connect(ways.first)
            yield session, server.accept(timeout=10), ways
            session.abort()


@SIZES
@OLD_PATH
def test_three_moves_without_an_event_loop(pieces: int, lost: bool, record_property: RecordProperty) -> None:
    """C8, M-6, M-7: the same, with a thread that sends and one that receives and moves."""
    sent, received, total, gap = hashlib.sha256(), hashlib.sha256(), 0, 0.0
    allowed = 2 * pieces // 5

    def send(session: BlockingSession) -> None:
        stream = session.open_stream()
        for number in range(pieces):
            while number >= allowed:
                time.sleep(0.0005)
            piece = number.to_bytes(8, "big") + PIECE
            sent.update(piece)
            stream.send(piece)
        stream.send_eof()

    def move(session: BlockingSession, ways: Ways) -> None:
        nonlocal allowed
        for number, (address, transport, carrier) in enumerate(ways.moves, 1):
            while total < number * pieces // 5 * len(PIECE):
                time.sleep(0.0005)
            if lost:
                ways.silence(number)
                while not ways.lost(number):
                    time.sleep(0.0005)
            session.migrate(address, transport=transport)
            assert session.transport_type == carrier
            allowed = (number + 2) * pieces // 5

    with blocking_sessions() as (session, peer, ways), ThreadPoolExecutor(2) as threads:
        tasks = [threads.submit(send, session), threads.submit(move, session, ways)]
        stream = peer.accept_stream(timeout=10)
        began = last = time.perf_counter()
        while data := stream.receive(timeout=10):
            received.update(data)
            total += len(data)
            now = time.perf_counter()
            gap, last = max(gap, now - last), now
        for task in tasks:
            task.result(10)
        seconds = time.perf_counter() - began
    assert total == pieces * (len(PIECE) + 8)
    assert received.digest() == sent.digest()
    told(record_property, pieces, lost, seconds, gap)
