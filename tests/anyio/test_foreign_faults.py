"""Whatever comes out of the application's own code, the node goes on, and so does everybody else.

Under asyncio that is also a `CancelledError`: who asks for the result of a future that somebody cancelled gets one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio import BlockingNode, STTNode
from stt_anyio.errors import ConnectionRefusedError
from stt_anyio.memory import MemoryNetwork, memory_nodes, memory_sessions
from tests.anyio.virtual import LOOPS, virtual

ASYNCIO = pytest.mark.parametrize("anyio_backend", [virtual("asyncio")], ids=["asyncio"])


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


def dead_future() -> asyncio.Future[None]:
    """One that somebody else has cancelled."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


async def settle() -> None:
    """Let everybody do what there is to do."""
    for _ in range(50):
        await checkpoint()


async def goes_on(*nodes: STTNode) -> None:
    """See that the nodes serve each other."""
    one, two = nodes
    with anyio.fail_after(10):
        session = await two.connect("one")
        assert one.running
        assert two.running
        stream = session.open_stream()
        await stream.send(b"x", timeout=5)
        session.abort()


def told(kind: str, gone: asyncio.Future[None]) -> Callable[..., Any]:
    def call(*arguments: Any) -> None:
        gone.result()

    async def wait(*arguments: Any) -> None:
        await gone

    return call if kind == "called" else wait


@ASYNCIO
@pytest.mark.parametrize("kind", ["called", "awaited"])
async def test_a_callback_may_end_in_the_cancellation_of_another(kind: str) -> None:
    """It is a failure like any other: its session is closed with reason `error`, it is counted, and that is all."""
    with anyio.fail_after(60):
        async with memory_nodes() as nodes:
            one, two = nodes
            fault = told(kind, dead_future())
            two.on_session_established(fault)
            session = await two.connect("one")
            assert await session.wait_closed() == "error"
            assert two.get_stats().handler_errors == 1
            two._on_established.clear()
            two.on_session_closed(fault)
            session = await two.connect("one")
            await session.close()
            await settle()
            assert two.get_stats().handler_errors == 2
            two._on_closed.clear()
            await goes_on(one, two)


@ASYNCIO
async def test_a_callback_that_was_cancelled_in_the_middle_of_a_cancelled_task() -> None:
    """The task that calls back is being cancelled too: what the callback raised is its own all the same."""
    with anyio.fail_after(60):
        async with memory_sessions() as (session, peer):
            gone = dead_future()
            session.node.on_session_closed(lambda *_: gone.result())
            with anyio.CancelScope() as scope:
                scope.cancel()
                await session.close()
            assert session.is_closed
            assert session.node.get_stats().handler_errors == 1
            assert await peer.wait_closed()
            assert session.node.running


# -- what is asked about a peer ------------------------------------------------------------------------------------


def raises(*arguments: Any) -> Any:
    raise KeyError("not in my table")


def gives_nonsense(*arguments: Any) -> Any:
    return 5.0


@pytest.mark.parametrize("fault", [raises, gives_nonsense])
@pytest.mark.parametrize("name", ["admit", "namespace_of"])
async def test_who_cannot_be_judged_is_refused(
    name: str, fault: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """H-29: the peer learns that it is refused; the node goes on, says what was wrong, and counts it."""
    judges: list[Callable[..., Any]] = [fault]
    usual: Any = None if name == "admit" else ""

    def judge(*arguments: Any) -> Any:
        return judges[0](*arguments) if judges else usual

    network = MemoryNetwork()
    with anyio.fail_after(60):
        options: dict[str, Any] = {"shared_seed": "x", "server_mode": True}
        async with (
            STTNode(carriers=[network.carrier("one")], **options, **{name: judge}) as one,
            STTNode(carriers=[network.carrier("two")], **options) as two,
        ):
            with pytest.raises(ConnectionRefusedError):
                await two.connect("one")
            assert one.get_stats().handler_errors == 1
            assert not one.sessions
            if name == "namespace_of":  # it is asked of those who are dialled too
                with pytest.raises(ConnectionRefusedError):
                    await one.connect("two")
                assert one.get_stats().handler_errors == 2
                assert not one.sessions
            assert "Traceback" in caplog.text
            judges.clear()
            await goes_on(one, two)


@pytest.mark.parametrize("name", ["admit", "namespace_of"])
async def test_who_cannot_be_judged_any_more_does_not_come_back_with_a_ticket(name: str) -> None:
    """H-29, H-37: with a ticket it is asked earlier; nothing is let in, and nothing ends."""
    judges: list[Callable[..., Any]] = []

    def judge(*arguments: Any) -> Any:
        return judges[0](*arguments) if judges else None if name == "admit" else "tenant"

    network = MemoryNetwork()
    with anyio.fail_after(60):
        options: dict[str, Any] = {"shared_seed": "x", "server_mode": True}
        async with (
            STTNode(carriers=[network.carrier("one")], **options, max_early_data=700, **{name: judge}) as one,
            STTNode(carriers=[network.carrier("two")], **options) as two,
        ):
            session = await two.connect("one")
            while session.ticket is None:
                await checkpoint()
            await session.close()
            judges.append(raises)
            with pytest.raises(ConnectionRefusedError):
                await two.connect("one", ticket=session.ticket, early_data=b"early")
            assert not one.sessions
            judges.clear()
            await goes_on(one, two)


@pytest.mark.parametrize("name", ["admit", "namespace_of"])
def test_who_cannot_be_judged_is_refused_by_a_node_without_a_loop(name: str) -> None:
    """The same there."""
    options: dict[str, Any] = {"shared_seed": "x", "host": "127.0.0.1", "background": True}
    judges: list[Callable[..., Any]] = [raises]
    usual = None if name == "admit" else ""
    judge = {name: lambda *arguments: judges[0](*arguments) if judges else usual}
    with BlockingNode(server_mode=True, **options, **judge) as server, BlockingNode(**options) as client:
        with pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", server.port))
        assert server.get_stats().handler_errors == 1
        judges.clear()
        assert client.connect(("127.0.0.1", server.port)).is_active()
