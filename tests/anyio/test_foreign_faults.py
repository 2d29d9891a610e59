"""Whatever comes out of the application's own code, the node goes on, and so does everybody else.

Under asyncio that is also a `CancelledError`: who asks for the result of a future that somebody cancelled gets one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream
from anyio.lowlevel import checkpoint

from stt_anyio import BlockingNode, Session, STTNode
from stt_anyio.errors import ArgumentError, ConnectionRefusedError, SttError
from stt_anyio.memory import MemoryCarrier, MemoryNetwork, memory_nodes, memory_sessions
from stt_anyio.stores import MemorySessionStore
from stt_proto.reconnect import GivenUp
from stt_proto.types import NetworkPath
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
    judging: dict[str, Any] = {name: judge}
    with anyio.fail_after(60):
        options: dict[str, Any] = {"shared_seed": "x", "server_mode": True}
        async with (
            STTNode(carriers=[network.carrier("one")], **options, **judging) as one,
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
    judging: dict[str, Any] = {name: judge}
    with anyio.fail_after(60):
        options: dict[str, Any] = {"shared_seed": "x", "server_mode": True}
        async with (
            STTNode(carriers=[network.carrier("one")], **options, max_early_data=700, **judging) as one,
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
    options[name] = lambda *arguments: judges[0](*arguments) if judges else usual
    with BlockingNode(server_mode=True, **options) as server, BlockingNode(**options) as client:
        with pytest.raises(ConnectionRefusedError):
            client.connect(("127.0.0.1", server.port))
        assert server.get_stats().handler_errors == 1
        judges.clear()
        assert client.connect(("127.0.0.1", server.port)).is_active()


# -- what belongs to the application -------------------------------------------------------------------------------


class Stream(ByteStream):
    """A byte stream that fails as it is told.

    Args:
        receive, close: what happens there.
    """

    def __init__(self, receive: Callable[[], Awaitable[Any]], close: Callable[[], Awaitable[Any]]) -> None:
        self._receive = receive
        self._close = close

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await self._receive()
        raise anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        await checkpoint()

    async def send_eof(self) -> None:
        await checkpoint()

    async def aclose(self) -> None:
        await self._close()


async def unplugged() -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("served", [True, False])
async def test_a_stream_that_cannot_be_closed_ends_nothing_but_itself(
    served: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The error came out of the task of the connection, and ended the node with all its sessions."""
    async with memory_nodes() as nodes:
        one, two = nodes
        with anyio.fail_after(60):
            other = await two.connect("one")
            if served:
                await one.serve_stream(Stream(unplugged, unplugged))
            else:
                with pytest.raises(SttError, match="connection was closed"):
                    await one.connect_stream(Stream(unplugged, unplugged))
            await settle()
            assert other.is_active()
            assert "could not be closed" in caplog.text
            await goes_on(one, two)


@ASYNCIO
async def test_a_stream_may_end_in_the_cancellation_of_another() -> None:
    """It breaks that connection, as any error there does."""
    async with memory_nodes() as nodes:
        one, two = nodes
        gone = dead_future()

        async def cancelled() -> None:
            await gone

        with anyio.fail_after(60):
            other = await two.connect("one")
            await one.serve_stream(Stream(cancelled, cancelled))
            with pytest.raises(SttError, match="connection was closed"):
                await one.connect_stream(Stream(cancelled, cancelled))
            assert other.is_active()
            await goes_on(one, two)


@ASYNCIO
async def test_what_prepares_a_session_may_end_in_the_cancellation_of_another() -> None:
    """The client gives up and says why; it was the node that ended, and said nothing."""
    async with memory_nodes() as nodes:
        one, two = nodes
        gone = dead_future()

        async def prepare(session: Session) -> None:
            await gone

        with anyio.fail_after(60):
            other = await two.connect("one")
            client = two.reconnecting("one", prepare=prepare)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="cancelled by somebody else"):
                    await client.session()
            assert isinstance(client.state, GivenUp)
            assert two.get_stats().handler_errors == 1
            assert other.is_active()
            await goes_on(one, two)


@ASYNCIO
async def test_a_store_of_tickets_may_end_in_the_cancellation_of_another() -> None:
    """H-36: that ticket is refused, and counted as doubtful; those that follow are good again."""
    gone = dead_future()
    faults = [1]

    class Store(MemorySessionStore):
        async def take_once(self, *arguments: Any, **options: Any) -> Any:
            if faults:
                faults.clear()
                await gone
            return await super().take_once(*arguments, **options)

    network = MemoryNetwork()
    options: dict[str, Any] = {"shared_seed": "x"}
    with anyio.fail_after(60):
        async with (
            STTNode(carriers=[network.carrier("one")], server_mode=True, ticket_store=Store(), **options) as one,
            STTNode(carriers=[network.carrier("two")], **options) as two,
        ):
            ticket, resumed = None, []
            for _ in range(3):
                session = await two.connect("one", ticket=ticket)
                resumed.append(session.resumed)
                while session.ticket is None:
                    await checkpoint()
                ticket = session.ticket
            assert resumed == [False, False, True]
            assert one.get_stats().tickets_in_doubt == 1
            await goes_on(one, two)


# -- paths that the application makes ------------------------------------------------------------------------------

JUNK: list[Any] = [
    "junk",
    None,
    ("127.0.0.1", "80"),
    ("127.0.0.1", 0),
    ("127.0.0.1", 80, 0, 0),
    ("127.1", 80),
    ("localhost", 80),
    ("::1", 80, 0, 0),
    ("\0", 1),
]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
@pytest.mark.parametrize("remote", JUNK, ids=repr)
async def test_a_path_that_the_socket_would_not_take_is_refused(remote: Any) -> None:
    """The timer asked there again a second later, and that ended the node."""
    options: dict[str, Any] = {"shared_seed": "x", "host": "127.0.0.1"}
    async with STTNode(server_mode=True, **options) as server, STTNode(**options) as client:
        with anyio.fail_after(20):
            session = await client.connect(("127.0.0.1", server.port))
            path = NetworkPath("udp", ("127.0.0.1", client.port), remote)
            for ask in (session.add_path, session.migrate):
                with pytest.raises(ArgumentError) as caught:
                    await ask(path)
                assert caught.value.argument == "remote"
            assert not session.attempts
            assert len(session.paths) == 1
            await session.add_path(session.core.path)


def test_a_path_that_the_socket_would_not_take_is_refused_without_a_loop() -> None:
    """The same there."""
    options: dict[str, Any] = {"shared_seed": "x", "host": "127.0.0.1", "background": True}
    with BlockingNode(server_mode=True, **options) as server, BlockingNode(**options) as client:
        session = client.connect(("127.0.0.1", server.port))
        with pytest.raises(ArgumentError) as caught:
            session.add_path(NetworkPath("udp", ("127.0.0.1", client.port), ("127.0.0.1", "80")))
        assert caught.value.argument == "remote"
        assert not session.attempts
        session.add_path(session.core.path)


class Fussy(MemoryCarrier):
    """One that does not check paths, and raises at what it cannot send."""

    def send(self, transmit: Any) -> Any:
        if transmit.path.remote == "odd":
            raise TypeError("an odd path")
        return super().send(transmit)


@pytest.mark.parametrize("migrate", [True, False])
async def test_a_carrier_that_does_not_take_a_path_is_not_asked_again(migrate: bool) -> None:
    """What was begun is undone: neither the attempt nor the path is left, for the timer to try once more."""
    network = MemoryNetwork()
    with anyio.fail_after(60):
        async with (
            STTNode(carriers=[network.carrier("one")], shared_seed="x", server_mode=True) as one,
            STTNode(carriers=[Fussy(network, "two")], shared_seed="x") as two,
        ):
            session = await two.connect("one")
            ask = session.migrate if migrate else session.add_path
            with pytest.raises(TypeError, match="an odd path"):
                await ask(NetworkPath("memory", "two", "odd"))
            assert not session.attempts
            assert not two.attempts
            await anyio.sleep(20)
            assert session.is_active()
            assert [info.path.remote for info in session.paths] == ["one"]
            await goes_on(one, two)
