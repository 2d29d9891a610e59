"""A node comes to its end whatever happens to the call that asks for it, in virtual time."""

from __future__ import annotations

import asyncio
from math import nan
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio import STTNode
from stt_anyio.errors import ArgumentError, StateError
from stt_anyio.memory import MemoryCarrier, MemoryNetwork
from tests.anyio.virtual import LOOPS, Town, virtual


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


class Slow(MemoryCarrier):
    """One that takes its time to open, as a look-up does."""

    def __init__(self) -> None:
        super().__init__(MemoryNetwork(), "slow")
        self.opening = anyio.Event()
        self.closed = 0

    async def open(self) -> None:
        self.opening.set()
        await anyio.sleep_forever()

    def close(self) -> None:
        super().close()
        self.closed += 1


async def test_a_start_under_way_ends_when_the_node_is_stopped() -> None:
    """`stop` waited for a start that waited for a name server, for ever; nothing is left bound."""
    carrier = Slow()
    node = STTNode(carriers=[carrier], shared_seed="x")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:

            async def start() -> None:
                with pytest.raises(StateError, match="stopped while it started"):
                    await node.start()
                ended.append(anyio.current_time())

            ended: list[float] = []
            begun = anyio.current_time()
            tasks.start_soon(start)
            await carrier.opening.wait()
            with pytest.raises(StateError, match="running already"):
                await node.start()
            await node.stop()
            assert not node.running
            assert carrier.closed == 1
            await node.stop()
    assert ended == [begun]


async def test_a_stop_at_every_step_of_a_start_is_heard() -> None:
    """However far the start has come, the node does not run afterwards, and can be started again."""
    network = MemoryNetwork()
    node = STTNode(carriers=[network.carrier("one")], shared_seed="x", server_mode=True)
    for steps in range(12):
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                outcome: list[str] = []
                begun = anyio.Event()

                async def start(outcome: list[str] = outcome, begun: anyio.Event = begun) -> None:
                    begun.set()
                    try:
                        await node.start()
                        outcome.append("started")
                    except StateError as error:
                        outcome.append(str(error))

                tasks.start_soon(start)
                await begun.wait()
                for _ in range(steps):
                    await checkpoint()
                await node.stop()
        assert not node.running
        assert outcome[0] in ("started", "the node was stopped while it started")
        assert not network.carriers


@pytest.mark.parametrize("timeout", [nan, "5"])
async def test_a_stop_with_no_timeout_is_refused_and_another_stops(timeout: Any) -> None:
    """It had left a mark that made the end of the block wait for ever."""
    network = MemoryNetwork()
    with anyio.fail_after(10):
        async with STTNode(carriers=[network.carrier("one")], shared_seed="x") as node:
            with pytest.raises(ArgumentError) as caught:
                await node.stop(timeout)
            assert caught.value.argument == "timeout"
            assert node.running
    assert not node.running


@pytest.mark.parametrize("anyio_backend", [virtual("asyncio")], ids=["asyncio"])
async def test_a_stop_that_is_cancelled_by_asyncio_cuts_off_what_it_waited_for() -> None:
    """Nothing shields from `Task.cancel`: the node ended never, and each stop after that waited for ever."""
    town = Town()
    async with town.node("server"), town.node("client") as client:
        session = await client.connect("server")
        await session.open_stream().send(b"x")
        town.radios["server"].silent = True  # the close is never answered
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.stop(timeout=5), 0.3)
        with anyio.fail_after(1):
            await client.stop()
        assert not client.running
        assert session.is_closed


class Broken(MemoryCarrier):
    """One that cannot be closed; and when `dead` not be sent on either."""

    dead = False

    def close(self) -> None:
        super().close()
        raise OSError(5, "Input/output error")

    def send(self, transmit: Any) -> Any:
        if self.dead:
            raise ValueError("dead")
        return super().send(transmit)


async def test_a_carrier_that_cannot_be_closed_holds_up_no_stop(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and the other carriers are given back."""
    network = MemoryNetwork()
    other = MemoryCarrier(network, "other")
    other.name = "other"
    carriers = [Broken(network, "broken"), other]
    node = STTNode(carriers=carriers, shared_seed="x")
    await node.start()
    with anyio.fail_after(10):
        await node.stop()
    assert not node.running
    assert not network.carriers
    assert "could not be closed" in caplog.text


async def test_a_carrier_that_fails_at_the_end_leaves_nobody_waiting() -> None:
    """Who waits for a session learns that it is over, though nothing can be sent any more."""
    network = MemoryNetwork()
    broken = Broken(network, "one")
    one = STTNode(carriers=[broken], shared_seed="x")
    await one.start()
    async with STTNode(carriers=[network.carrier("two")], shared_seed="x", server_mode=True):
        session = await one.connect("two")
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.wait_closed)
                tasks.start_soon(anyio.sleep, 1)
                await checkpoint()
                broken.dead = True
                one._fail(OSError("unplugged"))
            with pytest.raises(OSError, match="unplugged"):
                await one.stop()
    assert not one.running


@pytest.mark.parametrize("anyio_backend", [virtual("asyncio")], ids=["asyncio"])
async def test_a_carrier_that_ends_in_a_foreign_cancellation_ends_the_node_with_an_error() -> None:
    """A task group under asyncio takes such an end for its own, and says nothing."""
    gone = asyncio.get_running_loop().create_future()
    gone.cancel()

    class Cancelled(MemoryCarrier):
        async def run(self, port: Any) -> None:
            await gone

    node = STTNode(carriers=[Cancelled(MemoryNetwork(), "one")], shared_seed="x")
    await node.start()
    with anyio.fail_after(1):
        while node.running:
            await checkpoint()
        with pytest.raises(RuntimeError, match="cancellation"):
            await node.stop()
