"""Real hosts whose cable is out for a while, in mid-transfer (C9); for minutes, in virtual time: `test_detached.py`.

A short patience makes a session detach after one second; with that of the configuration it never notices 5 s.
"""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio import BlockingNode, BlockingSession, STTNode
from tests.anyio.relay import PERFECT, Relay
from tests.anyio.test_moves import PIECE, Transfer

HERE = "127.0.0.1"
IMPATIENT = {"keep_alive_interval": 0.3, "keep_alive_timeout": 1.0}
PIECES = 12
CASES = pytest.mark.parametrize(
    ("patience", "seconds", "detaches"),
    [
        pytest.param(IMPATIENT, 2.0, True, id="impatient"),
        pytest.param({}, 5.0, False, id="patient", marks=pytest.mark.long),
    ],
)


@CASES
async def test_the_cable_is_out(patience: dict[str, float], seconds: float, detaches: bool) -> None:
    """M-9, M-10: who sends waits, and everything goes on by itself at its byte when the cable is back."""
    parameters: dict[str, Any] = {"shared_seed": "x", "host": HERE, **patience}
    transfer = Transfer(PIECES)
    transfer.allowed = PIECES // 2
    async with STTNode(server_mode=True, **parameters) as server, STTNode(**parameters) as client:
        with anyio.fail_after(60), Relay((HERE, server.port), 1, PERFECT) as relay:
            session = await client.connect(relay.address)
            peer = await server.accept()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(transfer.receive, peer)
                tasks.start_soon(transfer.send, session)
                await transfer.reach(2)
                relay.cut, transfer.allowed = True, PIECES
                out = anyio.current_time()
                while detaches and not (session.is_detached and peer.is_detached):
                    await checkpoint()
                await anyio.sleep_until(out + seconds)
                assert session.is_active()
                assert session.is_detached == detaches
                assert transfer.arrived < PIECES * len(PIECE)
                relay.cut = False
            transfer.check()
            assert transfer.longest_gap > seconds * 0.9
            assert relay.swallowed
            assert not session.is_detached
            session.abort()


@CASES
def test_without_an_event_loop(patience: dict[str, float], seconds: float, detaches: bool) -> None:
    """M-9, M-10: the same."""
    parameters: dict[str, Any] = {"shared_seed": "x", "host": HERE, "background": True, **patience}
    sent, received, total = hashlib.sha256(), hashlib.sha256(), 0

    def send(session: BlockingSession) -> None:
        stream = session.open_stream()
        for number in range(PIECES):
            while number >= PIECES // 2 and not relay.cut and not relay.swallowed:
                time.sleep(0.0005)
            piece = number.to_bytes(8, "big") + PIECE
            sent.update(piece)
            stream.send(piece)
        stream.send_eof()

    def pull(session: BlockingSession, peer: BlockingSession) -> None:
        while total < 2 * len(PIECE):
            time.sleep(0.0005)
        relay.cut = True
        out = time.monotonic()
        while detaches and not (session.is_detached and peer.is_detached):
            time.sleep(0.001)
        time.sleep(max(0.0, out + seconds - time.monotonic()))
        assert session.is_active()
        assert session.is_detached == detaches
        assert total < PIECES * len(PIECE)
        relay.cut = False

    with BlockingNode(server_mode=True, **parameters) as server, BlockingNode(**parameters) as client:
        with Relay((HERE, server.port), 1, PERFECT) as relay, ThreadPoolExecutor(2) as threads:
            session = client.connect(relay.address)
            peer = server.accept(timeout=10)
            tasks = [threads.submit(send, session), threads.submit(pull, session, peer)]
            stream = peer.accept_stream(timeout=10)
            while data := stream.receive(timeout=30):
                received.update(data)
                total += len(data)
            for task in tasks:
                task.result(10)
            assert relay.swallowed
            assert not session.is_detached
            session.abort()
    assert total == PIECES * (len(PIECE) + 8)
    assert received.digest() == sent.digest()
