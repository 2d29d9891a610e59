"""Sessions of blocking nodes move over other carriers, and back from none (C8, C9); see `test_moves.py`."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stt_anyio import BlockingNode, BlockingSession
from stt_anyio.errors import ArgumentError, SessionClosedError
from stt_anyio.errors import ConnectionRefusedError as RefusedError
from stt_proto import NetworkPath
from tests.proto.worlds import filler

HERE = "127.0.0.1"
PIECE = filler(1 << 20)


@contextmanager
def pairs(**parameters: Any) -> Iterator[tuple[BlockingNode, BlockingNode, str]]:
    """Two nodes, and the URL of the server's WebSocket."""
    parameters = {"shared_seed": "x", "host": HERE, "background": True, **parameters}
    with BlockingNode(server_mode=True, **parameters) as server, BlockingNode(**parameters) as client:
        _, port = server.listen_websocket()
        yield server, client, f"ws://{HERE}:{port}/"


def _cut(node: BlockingNode) -> None:
    """The WebSockets of a node end."""
    with node.lock:
        for connection in tuple(node._connections["ws"].registry.by_path.values()):
            connection.close("cut")


def _transfer(
    session: BlockingSession, peer: BlockingSession, meanwhile: dict[int, Callable[[], None]], pieces: int = 20
) -> None:
    """Numbered pieces through one stream; something happens when so many of them have arrived."""
    received, sent, total = hashlib.sha256(), hashlib.sha256(), 0

    def send() -> None:
        stream = session.open_stream()
        for number in range(pieces):
            piece = number.to_bytes(8, "big") + PIECE
            sent.update(piece)
            stream.send(piece)
        stream.send_eof()

    sender = threading.Thread(target=send)
    sender.start()
    stream = peer.accept_stream(timeout=10)
    while data := stream.receive(timeout=10):
        received.update(data)
        total += len(data)
        for number in [number for number in meanwhile if total >= number * len(PIECE)]:
            meanwhile.pop(number)()
    sender.join()
    assert total == pieces * (len(PIECE) + 8)
    assert received.digest() == sent.digest()
    assert not meanwhile


@pytest.mark.parametrize("pieces", [20, pytest.param(200, marks=pytest.mark.long)])
def test_udp_to_websocket_and_back(pieces: int) -> None:
    """C8, M-6, M-7: three moves in mid-transfer; no byte is lost or repeated."""
    with pairs() as (server, client, url):
        session = client.connect((HERE, server.port))
        peer = server.accept(timeout=5)
        carriers = []

        def move(address: Any, transport: str) -> Callable[[], None]:
            def go() -> None:
                session.migrate(address, transport=transport)
                carriers.append(session.transport_type)

            return go

        web, udp = move(url, "websocket"), move((HERE, server.port), "udp")
        _transfer(session, peer, {pieces // 5: web, 2 * pieces // 5: udp, 3 * pieces // 5: web}, pieces)
        assert carriers == ["ws", "udp", "ws"]
        assert peer.transport_type == "ws"
        session.close()
        peer.wait_closed(timeout=5)
        give_up = time.monotonic() + 5
        while client._connections["ws"].registry.by_path:  # that it is closed is no event that `until` would see
            assert time.monotonic() < give_up
            time.sleep(0.001)


def test_the_websocket_is_cut() -> None:
    """C9, M-9: the session detaches, who sends waits, and over UDP every stream goes on at its byte."""
    with pairs() as (server, client, url):
        session = client.connect_websocket(url)
        peer = server.accept(timeout=5)
        states = []

        def cut() -> None:
            _cut(client)
            states.append(session.is_detached)
            session.migrate((HERE, server.port), "udp")
            states.append(session.is_detached)

        _transfer(session, peer, {4: cut})
        assert states == [True, False]
        assert session.transport_type == "udp"


def test_addresses_that_lead_nowhere() -> None:
    """A typed error, and the session is where it was, with the path that it had and no other."""
    with pairs() as (server, client, url), BlockingNode(shared_seed="x", host=HERE) as silent:
        session = client.connect((HERE, server.port))
        peer = server.accept(timeout=5)
        before = [info.path for info in session.paths]
        cases: list[tuple[Any, str, type[Exception]]] = [
            ((HERE, 1), "tcp", RefusedError),
            *([((HERE, 1), "udp", RefusedError)] if sys.platform == "linux" else []),  # others do not tell
            (f"ws://{HERE}:1/", "websocket", RefusedError),
            ((HERE, silent.port), "udp", TimeoutError),
            ("nonsense", "udp", ArgumentError),
            ((HERE, 1), "pigeon", ArgumentError),
            (NetworkPath("pigeon", 1, 2), "udp", ArgumentError),
        ]
        for address, transport, error in cases:
            for go in (session.migrate, session.add_path):
                with pytest.raises(error):
                    go(address, transport=transport, timeout=0.1 if error is TimeoutError else 10)
                assert [info.path for info in session.paths] == before
        stream = session.open_stream()
        stream.send(b"still there")
        assert peer.accept_stream(timeout=5).receive(timeout=5) == b"still there"
        session.add_path(url, "websocket")
        assert session.transport_type == "udp"
        threading.Timer(0.05, session.abort).start()
        with pytest.raises(SessionClosedError):
            session.migrate((HERE, silent.port), "udp")
        with pytest.raises(SessionClosedError):
            session.migrate((HERE, server.port), "udp")
