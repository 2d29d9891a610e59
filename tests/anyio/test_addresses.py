"""One node at several addresses: which of them a client that comes back dials, and when (MISSION G9)."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from stt_anyio import ArgumentError, OutcomeUnknownError, Session, STTNode
from stt_anyio.memory import MemoryNetwork
from stt_proto.reconnect import Connected, Detached, Lost, Waiting
from tests.anyio.test_reconnecting import FLEET, Server, clients, until
from tests.anyio.virtual import LOOPS, Radio, virtual


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


def fleet(network: MemoryNetwork) -> tuple[Server, Server]:
    """Two servers which stand for one node."""
    return Server(network, fleet_secret=FLEET), Server(network, "other", fleet_secret=FLEET)


async def test_the_next_address_after_each_failure() -> None:
    """G9: in turn, after the last the first again, with the waits of the policy in between."""
    next_ones, waits = [], []
    async with clients(MemoryNetwork(), addresses=["other", "third"]) as (_, client):
        async for state in client.events():
            if isinstance(state, Waiting) and state.error is not None:
                next_ones.append(repr(client).split("'")[1])
                waits.append(state.until - anyio.current_time())
                if len(waits) == 4:
                    break
    assert next_ones == ["other", "third", "server", "other"]
    for wait, full in zip(waits, (1, 2, 4, 8), strict=True):
        assert 0.75 * full <= wait <= full


async def test_a_server_that_is_gone_without_a_word() -> None:
    """G9, H-34: dialled elsewhere as soon as it is not found where it was; by ticket; and back again in its turn."""
    network = MemoryNetwork()
    one, other = fleet(network)
    async with other.up(), clients(network, addresses=["other"]) as (_, client):
        async with one.up():
            assert await client.request(b"one") == b"ONE"
            await anyio.sleep(20)
            one.mute = True
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(unknown, client)
                while b"two" not in one.done:
                    await anyio.sleep(0.01)
                one.radio.silent = True
                noticed = await until(client, Detached)
                assert noticed.until == anyio.current_time()
                assert await until(client, Connected, client.events()) == Connected(resumed=True)
                assert anyio.current_time() - noticed.until < 1.1  # one wait, and round trips
        assert await client.request(b"three") == b"THREE"
        assert (one.done, other.done) == ([b"one", b"two"], [b"three"])
        assert client.sessions == 2
        other.radio.silent = True
        async with one.up():
            one.mute = False
            await until(client, Detached)
            assert await client.request(b"four") == b"FOUR"
        assert one.done[-1] == b"four"


async def unknown(client: Any) -> None:
    """It is said of what was sent to who is gone that nobody knows."""
    with pytest.raises(OutcomeUnknownError):
        await client.request(b"two")


async def test_a_server_that_says_good_bye() -> None:
    """G9, H-34: dialled elsewhere at once, by ticket; and back again after the first wait of the policy."""
    network = MemoryNetwork()
    one, other = fleet(network)
    async with other.up(), clients(network, addresses=["other"]) as (_, client):
        async with one.up():
            assert await client.request(b"one") == b"ONE"
            await anyio.sleep(20)
            events = client.events()
        lost = await until(client, Lost, events)
        assert await client.request(b"two") == b"TWO"
        assert anyio.current_time() - lost.until < 0.1  # round trips
        assert client.state == Connected(resumed=True)
    assert (one.done, other.done) == ([b"one"], [b"two"])


@pytest.mark.parametrize("silent", [False, True])
async def test_one_that_is_gone_too(silent: bool) -> None:
    """G9: each of the servers is tried before any of them a second time, whichever way they went."""
    network = MemoryNetwork()
    one, _ = fleet(network)
    third = Server(network, "third", fleet_secret=FLEET)
    async with third.up(), clients(network, addresses=["other", "third"]) as (_, client):
        async with one.up():
            await client.session()
            await anyio.sleep(20)
            one.radio.silent = silent
            events = client.events()
            gone = await until(client, Detached if silent else Lost, events) if silent else None
        lost = gone or await until(client, Lost, events)
        waiting = await until(client, Waiting, events)
        assert waiting.until <= lost.until + (1.1 if silent else 0) + 1
        assert await client.request(b"hello") == b"HELLO"
        assert anyio.current_time() - waiting.until < (1.1 if silent else 0.1)
    assert third.done == [b"hello"]


@pytest.mark.parametrize("first", [True, False])
async def test_a_silence_that_passes(first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """G9: a session is looked for where it is, and goes on there; nobody else is dialled."""
    network = MemoryNetwork()
    servers = fleet(network)
    here, there = servers if first else servers[::-1]
    looked, add_path = [], Session.add_path

    async def spied(session: Session, address: Any, *more: Any) -> None:
        looked.append(address)
        await add_path(session, address, *more)

    monkeypatch.setattr(Session, "add_path", spied)
    async with here.up(), clients(network, addresses=["other"]) as (_, client):
        session = await client.session()
        async with there.up():
            here.radio.silent = True
            await until(client, Detached)
            here.radio.silent = False
            assert await client.request(b"hello") == b"HELLO"
            assert await client.session() is session
        assert (here.done, there.done) == ([b"hello"], [])
        assert looked == ["server" if first else "other"]


async def test_a_restart_that_nobody_heard_of() -> None:
    """G9: who has restarted says so, and the next one is dialled; where that is nobody it is he again."""
    network = MemoryNetwork()
    one = Server(network, reset_key=b"r" * 32)
    async with clients(network, addresses=["other"]) as (_, client):
        async with one.up():
            await client.session()
            await anyio.sleep(20)
            one.radio.silent = True
        async with one.up():
            lost = await until(client, Detached | Lost)  # type: ignore[arg-type]
            assert await client.request(b"hello") == b"HELLO"
            assert one.done == [b"hello"]
            assert anyio.current_time() - lost.until < 2.1
            assert client.sessions == 2


async def test_a_ticket_of_another_node() -> None:
    """G9: what is tried again at once, without the ticket, is the same address."""
    network = MemoryNetwork()
    one, other = fleet(network)
    async with one.up(), other.up(), STTNode(shared_seed="x", carriers=[Radio(network, "earlier")]) as earlier:
        first = await earlier.connect("server")
        while first.ticket is None:
            await anyio.sleep(0.01)
        ticket = first.ticket
    async with Server(network, node_seed=b"t" * 32).up(), other.up():
        async with clients(network, ticket=ticket, addresses=["other"]) as (_, client):
            await client.session()
            assert "'server'" in repr(client)


@pytest.mark.parametrize("addresses", [5, "other", None, ("127.0.0.1", 4433), [None]])
async def test_what_is_no_list_of_addresses(addresses: Any) -> None:
    """A11: also one pair of host and port, which is easily meant."""
    async with STTNode(shared_seed="x", carriers=[Radio(MemoryNetwork(), "client")]) as node:
        with pytest.raises(ArgumentError) as caught:
            node.reconnecting("server", addresses=addresses)
        assert caught.value.argument == "addresses"
