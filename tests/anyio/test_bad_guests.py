"""Guests who behave badly while somebody else has a session: nothing moves, nothing stops (M-3 to M-5, P-21)."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from websockets.frames import CloseCode
from websockets.typing import Subprotocol

from stt_anyio import BlockingNode, STTNode
from tests.anyio.relay import PERFECT, Relay
from tests.anyio.test_moves import Transfer
from tests.anyio.test_websocket import BAD, Browser

HERE = "127.0.0.1"
PARAMETERS: dict[str, Any] = {"shared_seed": "x", "host": HERE}
LIMIT = 30.0


class Thief:
    """Somebody who sees what a client sends, and has no keys: says it again, and things like it, from elsewhere."""

    def __init__(self, relay: Relay, server: int) -> None:
        self._seen: deque[bytes] = deque(maxlen=64)
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.bind((HERE, 0))
        self._sock.connect((HERE, server))
        self._sock.setblocking(False)
        self.sent = 0  # bytes
        take = relay._there.take

        def watch(datagram: bytes, send: Callable[[bytes], None], now: float) -> None:
            self._seen.append(datagram)
            take(datagram, send, now)

        relay._there.take = watch  # type: ignore[method-assign]

    def speak(self, copies: bool) -> None:
        """The last packets once more; or others under their connection ID, as long as challenges are, and longer."""
        for datagram in [each for each in tuple(self._seen) if each and not each[0] & 0x80][-8:]:
            lies = (
                (datagram,) if copies else (datagram[:9] + os.urandom(1200), datagram[:-1] + bytes((datagram[-1] ^ 1,)))
            )
            for lie in lies:
                try:
                    self.sent += self._sock.send(lie)
                except BlockingIOError:
                    return

    def answered(self) -> int:
        """Bytes that it got."""
        size = 0
        try:
            while True:
                size += len(self._sock.recv(65_535))
        except BlockingIOError:
            return size

    def __enter__(self) -> Thief:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()


@pytest.mark.parametrize("copies", [False, True], ids=["forged", "copied"])
async def test_a_thief_of_connection_ids(copies: bool) -> None:
    """G-3, C-1, M-3, M-4: a path claimed by who has no keys, again and again during a transfer: nothing moves.

    What is forged does not even make an address that is asked. A copy may, if it is faster than what it is a copy of.
    """
    async with STTNode(server_mode=True, **PARAMETERS) as server, STTNode(**PARAMETERS) as client:
        with (
            anyio.fail_after(LIMIT),
            Relay((HERE, server.port), 1, PERFECT) as relay,
            Thief(relay, server.port) as thief,
        ):
            session = await client.connect(relay.address)
            peer = await server.accept()
            before, transfer, answered = peer.paths[0].path, Transfer(3), 0
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(transfer.receive, peer)
                tasks.start_soon(transfer.send, session)
                while transfer.arrived < 3 << 20 or peer.get_stats().receive_errors < 50:
                    thief.speak(copies)
                    answered += thief.answered()
                    assert [info.path for info in peer.paths if info.active or not copies] == [before]
                    await checkpoint()
            transfer.check()
            assert answered <= (3 * thief.sent if copies else 0)
            assert not session.is_detached
            session.abort()


@pytest.mark.parametrize("name", [name for name, (_, code) in BAD.items() if code])
async def test_bad_messages_without_an_event_loop(name: str) -> None:
    """P-21: a blocking node closes with the same codes, and no session notices."""
    frames, code = BAD[name]
    with BlockingNode(server_mode=True, background=True, **PARAMETERS) as server:
        _, port = server.listen_websocket()
        async with STTNode(**PARAMETERS) as node:
            with anyio.fail_after(LIMIT):
                session = await node.connect_websocket(f"ws://{HERE}:{port}/")
                async with await anyio.connect_tcp(HERE, port) as stream:
                    browser = Browser(stream, port)
                    assert (await browser.open()).status_code == 101
                    for frame in frames:
                        await browser.send(frame)
                    assert await browser.close_code() == code
                async with await anyio.connect_tcp(HERE, port) as stream:
                    browser = Browser(stream, port)
                    await browser.open()
                    await stream.send(b"\xc2\x81\0\0\0\0x")  # RSV1: compressed, it says
                    assert await browser.close_code() == CloseCode.PROTOCOL_ERROR
                assert session.is_active()


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", b"426"),
    ],
)
async def test_handshakes_without_an_event_loop(request_text: bytes, status: bytes) -> None:
    """P-21: so for what is no handshake, and for another subprotocol."""
    with BlockingNode(server_mode=True, background=True, **PARAMETERS) as server:
        _, port = server.listen_websocket()
        answer = b""
        with anyio.fail_after(LIMIT):
            async with await anyio.connect_tcp(HERE, port) as stream:
                await stream.send(request_text)
                try:
                    while True:
                        answer += await stream.receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    pass
            assert answer.partition(b" ")[2].startswith(status)
            async with await anyio.connect_tcp(HERE, port) as stream:
                response = await Browser(stream, port, subprotocols=[Subprotocol("chat")]).open()
                assert response.status_code == 400
