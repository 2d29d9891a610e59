"""Who does not belong here is told so soon, is reported there, and leaves nothing behind (H-13, H-15, H-24)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from stt_anyio import AuthenticationError, BlockingNode, STTNode
from stt_proto.events import HandshakeFailed
from stt_proto.testing import tables
from tests.figures import RecordProperty, tell

LOOPBACK = "127.0.0.1"
SEED = "a seed for tests"
ANOTHER = "another seed"
SOMEBODY_ELSE = STTNode(bytes(32), SEED).node_id
SOON = 5.0
"""Seconds. Two round trips and the grace of 0.75 s, on a machine that is busy: half of what a timeout would take."""
LIMIT = 60.0

CASES = pytest.mark.parametrize(("seed", "wanted"), [(ANOTHER, None), (SEED, SOMEBODY_ELSE)], ids=["seed", "peer"])


def left_in(node: STTNode | BlockingNode) -> dict[str, int]:
    """What a node, or its core, still holds."""
    held = {**tables(node.endpoint), "node's sessions": len(node.sessions), "node's dials": len(node._dialing)}
    return {name: count for name, count in held.items() if count}


def nobody(*nodes: STTNode | BlockingNode) -> bool:
    """Whether nothing is left of any session."""
    return not any(left_in(node) for node in nodes)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await anyio.sleep(0.002)


@CASES
async def test_refused_reported_forgotten(seed: str, wanted: bytes | None, record_property: RecordProperty) -> None:
    told: list[tuple[float, bytes, str]] = []
    async with (
        STTNode(shared_seed=SEED, host=LOOPBACK, server_mode=True) as server,
        STTNode(shared_seed=seed, host=LOOPBACK) as client,
    ):
        with anyio.fail_after(LIMIT):
            server.on_session_closed(
                lambda session_id, reason: told.append((time.perf_counter(), session_id, str(reason)))
            )
            events = server.events()
            started = time.perf_counter()
            with pytest.raises(AuthenticationError) as caught:
                await client.connect_udp(LOOPBACK, server.port, peer_node_id=wanted)
            refused_at = time.perf_counter()
            assert isinstance(caught.value, anyio.ConnectionFailed)
            assert refused_at - started < SOON

            await until(lambda: told)
            ((told_at, session_id, reason),) = told
            assert (session_id, reason) == (b"", "auth_failure")
            assert told_at - started < SOON
            tell(record_property, refused_after_s=refused_at - started, reported_after_s=told_at - started)
            async for session, event in events:
                if isinstance(event, HandshakeFailed):
                    assert (session, event.reason) == (None, "auth_failure")
                    assert event.path.remote == (LOOPBACK, client.port)
                    break

            await until(lambda: nobody(server, client))
            for node in (server, client):
                assert node.get_stats().established == 0
                assert not any(node.get_stats().closed.values())
            assert server.get_stats().handshakes_failed == 1


async def test_friends_do_not_notice() -> None:
    """A crowd of strangers, all at once, beside a session that goes on; and the next friend gets in (H-23)."""
    async with (
        STTNode(shared_seed=SEED, host=LOOPBACK, server_mode=True) as server,
        STTNode(shared_seed=SEED, host=LOOPBACK) as friend,
        STTNode(shared_seed=ANOTHER, host=LOOPBACK) as stranger,
    ):
        with anyio.fail_after(LIMIT):
            session = await friend.connect_udp(LOOPBACK, server.port)
            stream = session.open_stream()
            refused = 0

            async def intrude() -> None:
                nonlocal refused
                with pytest.raises(AuthenticationError):
                    await stranger.connect_udp(LOOPBACK, server.port)
                refused += 1

            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(intrude)
                await until(lambda: refused)
                await stream.send(b"still here", timeout=SOON)
            assert refused == 20
            await until(lambda: nobody(stranger))
            await stream.send(b"and still", timeout=SOON)
            assert (await friend.connect_udp(LOOPBACK, server.port)).is_active()
            await until(lambda: not left_in(server).get("half-open"))
            assert len(server.sessions) == server.get_stats().established == 2
            assert not any(server.get_stats().closed.values())


@CASES
def test_blocking(seed: str, wanted: bytes | None) -> None:
    told: list[tuple[bytes, str]] = []
    with (
        BlockingNode(shared_seed=SEED, host=LOOPBACK, server_mode=True, background=True) as server,
        BlockingNode(shared_seed=seed, host=LOOPBACK, background=True) as client,
    ):
        server.on_session_closed(lambda session_id, reason: told.append((session_id, str(reason))))
        started = time.perf_counter()
        with pytest.raises(AuthenticationError):
            client.connect((LOOPBACK, server.port), peer_node_id=wanted)
        assert time.perf_counter() - started < SOON
        server.until(lambda: told or None, timeout=SOON)
        assert told == [(b"", "auth_failure")]
        for node in (server, client):
            give_up = time.monotonic() + LIMIT
            while time.monotonic() < give_up:
                with node.lock:
                    if nobody(node):
                        break
                node.poll(0.01)
            assert nobody(node)
