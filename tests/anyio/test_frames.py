"""Frames of the application's own, with handlers and without (D8)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from stt_anyio import BlockingNode, BlockingSession, Session, SessionClosedError
from stt_anyio.errors import ArgumentError, BufferOverflowError
from stt_proto import Limits

Sessions = Callable[..., AbstractAsyncContextManager[tuple[Session, Session]]]
KINDS: dict[str, Any] = {"extension_frames": [0x80, 0x81, 0x90]}


async def test_handlers_and_a_queue(sessions: Sessions) -> None:
    """A handler gets the frames of its type, those among them that have come already; the others can be waited for."""
    async with sessions(**KINDS) as (ours, theirs):
        assert "frames" in ours.capabilities
        got: list[tuple[Session, bytes]] = []
        later = anyio.Event()

        async def handler(session: Session, data: bytes) -> None:
            await anyio.lowlevel.checkpoint()
            got.append((session, data))
            later.set()

        ours.send_frame(0x80, b"early")
        ours.send_frame(0x90, b"for nobody")
        ours.send_frame(0x81, bytearray(b"counted"), reliable=False)
        seen: list[bytes] = []
        theirs.on_frame(0x81, lambda _, data: seen.append(data))
        while not seen:
            await anyio.sleep(0.001)
        assert seen == [b"counted"]
        theirs.on_frame(0x80, handler)
        await later.wait()
        assert got == [(theirs, b"early")]
        assert await theirs.receive_frame() == (0x90, b"for nobody")
        theirs.on_frame(0x80, None)
        ours.send_frame(0x80, b"without a handler")
        assert await theirs.receive_frame() == (0x80, b"without a handler")
        assert len(got) == 1
        theirs.on_frame(0x81, None)
        ours.send_frame(0x81, b"without any")
        assert await theirs.receive_frame() == (0x81, b"without any")


async def test_waiting_for_a_frame_ends_with_the_session(sessions: Sessions) -> None:
    async with sessions(**KINDS) as (ours, theirs):
        ours.send_frame(0x80, b"last words")
        await ours.close()
        assert await theirs.receive_frame() == (0x80, b"last words")
        for session in (ours, theirs):
            with pytest.raises(SessionClosedError):
                await session.receive_frame()
        with pytest.raises(SessionClosedError):
            ours.send_frame(0x80, b"too late")


async def test_a_handler_that_raises_ends_nothing(sessions: Sessions, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged and counted; the session and its other frames go on."""
    async with sessions(**KINDS) as (ours, theirs):
        got: list[bytes] = []

        def handler(session: Session, data: bytes) -> None:
            got.append(data)
            raise ValueError("no good")

        theirs.on_frame(0x80, handler)
        with caplog.at_level(logging.ERROR, "stt"):
            for data in (b"one", b"two"):
                ours.send_frame(0x80, data)
                while data not in got:
                    await anyio.sleep(0.001)
        assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ValueError, ValueError]
        assert theirs.is_active()
        assert theirs.node.get_stats().handler_errors == 2


async def test_what_is_wrong_with_a_frame(sessions: Sessions) -> None:
    async with sessions(**KINDS, limits=Limits(extension_frames=2)) as (ours, theirs):
        for kind, data in ((0x82, b""), (0x80, bytes(1025)), (0x80, "text")):
            with pytest.raises(ArgumentError):
                ours.send_frame(kind, data)  # type: ignore[arg-type]
        for kind in (0x82, 0x24):
            with pytest.raises(ArgumentError, match="kind"):
                ours.on_frame(kind, print)
        core = ours.core
        for _ in range(2):
            core.send_frame(0x80, b"x", ours.driver.clock())
        with pytest.raises(BufferOverflowError):
            ours.send_frame(0x80, b"x")
        theirs.on_frame(0x81, lambda session, data: None)
        ours.driver.pump()
        assert [await theirs.receive_frame() for _ in range(2)] == [(0x80, b"x")] * 2


def test_without_an_event_loop() -> None:
    """The same for blocking nodes: a handler is called while something pumps."""
    parameters: dict[str, Any] = {"shared_seed": "a seed", "host": "127.0.0.1", **KINDS}
    with (
        BlockingNode(server_mode=True, background=True, **parameters) as server,
        BlockingNode(**parameters) as client,
        client.connect(("127.0.0.1", server.port)) as session,
    ):
        got: list[bytes] = []
        called = threading.Event()

        def handler(_: BlockingSession, data: bytes) -> None:
            got.append(data)
            called.set()

        peer = server.accept(timeout=5)
        peer.on_frame(0x80, handler)
        session.send_frame(0x80, b"called")
        session.send_frame(0x81, b"waited for")
        assert peer.receive_frame(timeout=5) == (0x81, b"waited for")
        assert called.wait(5)
        assert got == [b"called"]
        with pytest.raises(TimeoutError):
            peer.receive_frame(timeout=0.01)
        peer.abort()
        with pytest.raises(SessionClosedError):
            peer.receive_frame(timeout=5)


async def test_handlers_that_do_not_finish_are_no_more_than_frames_may_wait(sessions: Sessions) -> None:
    """P-22: the peer cannot make this side start tasks without end; what is too much is dropped, the oldest first."""
    limits = Limits(extension_frames=4)
    async with sessions(**KINDS, limits=limits) as (ours, theirs):
        at_work: list[bytes] = []
        begun: list[bytes] = []
        finish = anyio.Event()

        async def slow(session: Session, data: bytes) -> None:
            begun.append(data)
            at_work.append(data)
            try:
                await finish.wait()
            finally:
                at_work.remove(data)

        for _ in range(2):  # those that have come already count too
            ours.send_frame(0x81, b"early")
        with anyio.fail_after(5):
            while theirs.frames is None or len(theirs.frames) < 2:
                theirs.on_frame(0x90, slow)  # for which none has come
                await anyio.lowlevel.checkpoint()
        theirs.on_frame(0x80, slow)
        theirs.on_frame(0x81, slow)
        stream = ours.open_stream()
        for number in range(20):
            with anyio.fail_after(5):
                while True:
                    try:
                        ours.send_frame(0x80, b"%d" % number)
                        break
                    except BufferOverflowError:
                        await anyio.lowlevel.checkpoint()
                await stream.send(b"x", timeout=5)
        assert len(at_work) == 4
        assert sorted(begun) == [b"0", b"1", b"early", b"early"]
        assert theirs.frames_at_work == 4
        finish.set()
        with anyio.fail_after(5):
            while at_work or len(begun) < 8:
                await anyio.lowlevel.checkpoint()
        assert sorted(begun[4:]) == [b"16", b"17", b"18", b"19"]  # trio begins tasks in any order
        ours.send_frame(0x81, b"after")
        with anyio.fail_after(5):
            while begun[-1] != b"after":
                await anyio.lowlevel.checkpoint()
        with anyio.fail_after(5):
            while theirs.frames_at_work:
                await anyio.lowlevel.checkpoint()
