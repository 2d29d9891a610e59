"""Keys that are replaced while a session goes on, as its users see it (C4)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from stt_anyio import BlockingNode, Session, SessionClosedError
from stt_anyio.errors import StateError
from stt_proto.session import engines as engines_module
from stt_proto.session.rotation import KeyRotation
from stt_proto.wire import FrameType

Sessions = Callable[..., AbstractAsyncContextManager[tuple[Session, Session]]]


async def test_both_sides_move(sessions: Sessions) -> None:
    """Either side asks, or both; the data that is on its way arrives, and the version is the same on both."""
    async with sessions() as (ours, theirs):
        assert "rotation" in ours.capabilities
        data = bytes(range(256)) * 4000
        async with anyio.create_task_group() as group:
            stream = ours.open_stream()
            group.start_soon(stream.send, data)
            assert await ours.rotate_key() == 1
            assert await theirs.rotate_key(timeout=5) in (1, 2)
            other = await theirs.accept_stream()
            got = b""
            while len(got) < len(data):
                got += await other.receive()
            assert got == data
        reached: list[int] = []

        async def ask(session: Session) -> None:
            reached.append(await session.rotate_key(timeout=5))

        async with anyio.create_task_group() as group:
            for session in (ours, theirs, ours):
                group.start_soon(ask, session)
        assert max(reached) == ours.key_version == theirs.key_version
        assert ours.last_key_rotation > ours.created_at


async def test_who_waits_is_woken_when_the_session_ends(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyRotation, "on_rotate", lambda *_: True)  # the peer never answers
    async with sessions() as (ours, _):
        with pytest.raises(TimeoutError, match="keys"):
            await ours.rotate_key(timeout=0.01)
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                with pytest.raises(SessionClosedError):
                    await ours.rotate_key()

            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            ours.abort()
        with pytest.raises(SessionClosedError):
            await ours.rotate_key()


async def test_a_peer_that_cannot(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines_module, "EXTENSION_FRAMES", engines_module.EXTENSION_FRAMES - {FrameType.ROTATE})
    async with sessions() as (ours, _):
        with pytest.raises(StateError):
            await ours.rotate_key()


async def test_by_itself(sessions: Sessions) -> None:
    """After as many packets as the configuration says."""
    async with sessions(rotate_after_packets=256) as (ours, theirs):
        while not theirs.key_version:
            ours.send_datagram(b"one more")
            await anyio.lowlevel.checkpoint()
        with anyio.fail_after(5):
            while not ours.key_version:
                await anyio.sleep(0.001)


def test_without_an_event_loop() -> None:
    """The same for blocking nodes."""
    parameters: dict[str, Any] = {"shared_seed": "a seed", "host": "127.0.0.1"}
    with (
        BlockingNode(server_mode=True, background=True, **parameters) as server,
        BlockingNode(background=True, **parameters) as client,
        client.connect(("127.0.0.1", server.port)) as session,
    ):
        peer = server.accept(timeout=5)
        assert session.rotate_key(timeout=5) == session.key_version == 1
        assert peer.rotate_key(timeout=5) == peer.key_version
        session.abort()
        with pytest.raises(SessionClosedError):
            session.rotate_key(timeout=5)
