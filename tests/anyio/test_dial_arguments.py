"""What a call is asked for that cannot be is refused at once: nothing is looked up, opened or sent before (A11)."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from math import nan
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio import STTNode
from stt_anyio.errors import ArgumentError, SessionClosedError
from stt_anyio.memory import MemoryCarrier, MemoryNetwork, memory_nodes
from stt_proto.types import NetworkPath
from tests.anyio.virtual import LOOPS, virtual

WRONG: list[dict[str, Any]] = [
    {"peer_node_id": b"short"},
    {"peer_node_id": "x" * 32},
    {"timeout": nan},
    {"timeout": "5"},
    {"ticket": b"ticket"},
    {"early_data": "text"},
    {"early_data": bytes(769)},
]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


class Asked(MemoryCarrier):
    """One that counts who asks it for a path, and takes its time."""

    asked = 0

    async def path_to(self, address: Any) -> NetworkPath:
        self.asked += 1
        await anyio.sleep(1)
        return await super().path_to(address)


@pytest.mark.parametrize("options", WRONG, ids=repr)
@pytest.mark.parametrize("websocket", [None, "ws://host/"])
async def test_connect_opens_nothing_for_what_it_will_not_take(options: dict[str, Any], websocket: str | None) -> None:
    """A connection was opened, and shut; or, without a path, another error came after the time was over."""
    carrier = Asked(MemoryNetwork(), "one")
    async with STTNode(carriers=[carrier], shared_seed="x") as node:
        begun = anyio.current_time()
        with pytest.raises(ArgumentError) as caught:
            await node.connect("nowhere", websocket=websocket, **options)
        assert [caught.value.argument] == list(options)
        assert anyio.current_time() == begun
        assert not carrier.asked


@pytest.mark.parametrize("timeout", [nan, "5", True], ids=repr)
async def test_a_timeout_that_is_none_is_refused_by_every_call(timeout: Any) -> None:
    """NaN was a ValueError of the loop and a str a TypeError, some of them after half of the work was done."""
    async with memory_nodes(extension_frames={0x90}) as (_, two):
        with anyio.fail_after(60):
            session = await two.connect("one")
            stream = session.open_stream()
            client = two.reconnecting("one")
            await client.session()
            pool = two.pool()
            calls: dict[str, Callable[[], Awaitable[Any]]] = {
                "stop": lambda: two.stop(timeout),
                "drain": lambda: two.drain(timeout),
                "connect": lambda: two.connect("one", timeout=timeout),
                "send_to_all": lambda: two.send_to_all(b"x", timeout=timeout),
                "rotate_all_keys": lambda: two.session_manager.rotate_all_keys(timeout),
                "pool.get": lambda: pool.get_or_create("one", timeout=timeout),
                "request": lambda: session.request(b"x", timeout),
                "client.request": lambda: client.request(b"x", timeout=timeout),
                "rotate_key": lambda: session.rotate_key(timeout),
                "add_path": lambda: session.add_path("one", timeout=timeout),
                "migrate": lambda: session.migrate("one", timeout=timeout),
                "send": lambda: stream.send(b"x", timeout),
                "flush": lambda: stream.flush(timeout),
                "receive": lambda: stream.receive(timeout=timeout),
            }
            for name, call in calls.items():
                with pytest.raises(ArgumentError) as caught:
                    await call()
                assert caught.value.argument == "timeout", name
            with pytest.raises(ArgumentError):
                two.reconnecting("one", timeout=timeout)
            assert session.key_version == 0
            assert stream.bytes_accepted == 0
            assert session.is_active()
            await pool.aclose()
            await client.aclose()


async def test_a_context_of_the_wrong_side_is_refused_at_once() -> None:
    """A server's context failed in the middle of a dial, and a client's at each connection that came."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with memory_nodes() as (one, _):
        with pytest.raises(ArgumentError) as caught:
            await one.connect_websocket("wss://nowhere.invalid/", ssl_context=server)
        assert caught.value.argument == "ssl_context"
        with pytest.raises(ArgumentError) as caught:
            await one.listen_websocket("127.0.0.1", ssl_context=client)
        assert caught.value.argument == "ssl_context"


@pytest.mark.parametrize("steps", range(2, 12))
async def test_closing_a_connectable_while_it_dials_leaves_nothing(steps: int) -> None:
    """Session and stream lived on; who waited for the stream learns that it was closed. It can be used again."""
    async with memory_nodes() as (_, two):
        with anyio.fail_after(60):
            connectable = two.connectable("one")
            ended: list[bool] = []

            async def connect() -> None:
                try:
                    await connectable.connect()  # perhaps it is there before
                except SessionClosedError as error:
                    ended.append(isinstance(error, anyio.ClosedResourceError))

            async with anyio.create_task_group() as tasks:
                for _ in range(2):
                    tasks.start_soon(connect)
                for _ in range(steps):
                    await checkpoint()
                await connectable.aclose()
            assert all(ended)
            for _ in range(20):
                await checkpoint()
            assert not two.sessions
            stream = await connectable.connect()
            await stream.send(b"x", timeout=5)
            await connectable.aclose()
            assert not two.sessions
