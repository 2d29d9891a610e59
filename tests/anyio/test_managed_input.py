"""What is wrong is told by `node.session_manager` and by sessions: typed, named, and nothing is changed."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest

from stt_anyio import (
    ArgumentError,
    BlockingNode,
    SessionClosedError,
    SessionExpiredError,
    SessionNotFound,
    STTNode,
)
from stt_anyio.memory import MemoryNetwork
from tests.anyio.virtual import LOOPS, virtual


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual(request.param)


SEED = b"s" * 16
TTLS: tuple[Any, ...] = (0, -1, nan, inf, "1", True, 10**400)
IDS: tuple[Any, ...] = (b"", bytes(7), bytes(9), "8 signs!", None, bytearray(8), [])
CONFIGS: tuple[dict[str, Any], ...] = (
    *({"ttl": ttl} for ttl in TTLS),
    {"colour": "red"},
    {"max_requests": 0, "colour": None},
)

# What is refused at once by every node, whether it waits or is awaited: the argument that is named, and the call.
WRONG: list[tuple[str, Callable[[Any, Any], Any]]] = [
    *(("session_id", lambda manager, _, bad=bad: manager.get_session(bad)) for bad in IDS),
    *(("session_id", lambda manager, _, bad=bad: manager.has_session(bad)) for bad in IDS),
    *(("session_id", lambda manager, _, bad=bad: manager.inspect(bad)) for bad in IDS),
    ("peer_node_id", lambda manager, _: manager.find_session_by_peer(bytes(8))),
    ("namespace", lambda manager, _: manager.get_active_sessions(7)),
    *(("seconds", lambda _, session, bad=bad: session.extend(bad)) for bad in TTLS),
    *((next(iter(bad)), lambda _, session, bad=bad: session.configure(**bad)) for bad in CONFIGS),
    ("if_version", lambda _, session: session.configure(if_version=0, ttl=5)),
    ("namespace", lambda _, session: session.set_namespace(None)),
]

# What is refused before anything is dialled, closed or drained.
WAITED: list[tuple[str, Callable[[Any], Any]]] = [
    *((next(iter(bad)), lambda manager, bad=bad: manager.create_session("server", config=bad)) for bad in CONFIGS),
    *(("namespace", lambda manager, bad=bad: manager.create_session("server", namespace=bad)) for bad in (0, [], 7)),
    ("metadata", lambda manager: manager.create_session("server", metadata={"": 1})),
    ("config", lambda manager: manager.create_session("server", config=[("ttl", 5)])),
    *(("session_id", lambda manager, bad=bad: manager.close_session(bad)) for bad in IDS),
    ("reason", lambda manager: manager.close_session(b"unknown!", "boredom")),
    ("detail", lambda manager: manager.close_session(b"unknown!", "error", "x" * 513)),
    ("reason", lambda manager: manager.close_all_sessions("boredom")),
    *(("timeout", lambda manager, bad=bad: manager.drain(bad)) for bad in (-1, nan, inf, "1", 10**400)),
]


def seen(manager: Any, session: Any) -> Any:
    return manager.metrics(), session.record, session.is_active(), manager.drain_status().is_draining


async def test_bad_input_is_named_and_changes_nothing() -> None:
    """F, G2, G6: a TTL that is none, keys that nobody knows, ids of the wrong length; nobody was dialled."""
    network = MemoryNetwork()
    async with (
        STTNode(shared_seed=SEED, carriers=[network.carrier("server")], server_mode=True) as server,
        STTNode(shared_seed=SEED, carriers=[network.carrier("client")]) as client,
    ):
        session, manager = await client.connect("server"), client.session_manager
        before = seen(manager, session)
        for argument, call in WRONG:
            with pytest.raises(ArgumentError) as caught:
                call(manager, session)
            assert caught.value.argument == argument
        for argument, waiting in WAITED:
            with pytest.raises(ArgumentError) as caught:
                await waiting(manager)
            assert caught.value.argument == argument
        assert seen(manager, session) == before
        assert server.session_manager.metrics().created == 1


def test_bad_input_without_an_event_loop() -> None:
    """F, G2, G6: the same."""
    options: dict[str, Any] = {"shared_seed": "a seed", "host": "127.0.0.1", "background": True}
    with BlockingNode(server_mode=True, **options) as server, BlockingNode(**options) as client:
        session, manager = client.connect(("127.0.0.1", server.port)), client.session_manager
        before = seen(manager, session)[1:]
        for argument, call in WRONG:
            with pytest.raises(ArgumentError) as caught:
                call(manager, session)
            assert caught.value.argument == argument
        for argument, waiting in WAITED:
            with pytest.raises(ArgumentError) as caught:
                waiting(manager)
            assert caught.value.argument == argument
        assert seen(manager, session)[1:] == before
        assert manager.metrics().created == 1


@pytest.mark.parametrize("end", ["closed", "expired", "forgotten"])
async def test_a_session_that_is_over_is_of_no_use(end: str) -> None:
    """G5, S11: every call says so, by an error that has a type, and none brings it back."""
    network = MemoryNetwork()
    async with (
        STTNode(shared_seed=SEED, carriers=[network.carrier("server")], server_mode=True),
        STTNode(shared_seed=SEED, carriers=[network.carrier("client")]) as client,
    ):
        session, manager = await client.connect("server"), client.session_manager
        stream = session.open_stream()
        await stream.aclose()
        if end == "expired":
            session.configure(ttl=0.001)
            await session.wait_closed()
        else:
            await session.close()
        if end == "forgotten":
            assert manager.cleanup_closed_sessions() == 1
        gone = SessionExpiredError if end == "expired" else SessionNotFound
        late: tuple[Callable[[], Any], ...] = (
            lambda: session.extend(60.0),
            lambda: session.configure(ttl=60),
            lambda: session.set_namespace("tenant"),
            session.track_request().__enter__,
        )
        for call in late:
            with pytest.raises(gone) as caught:
                call()
            assert type(caught.value) is gone
        for call in (session.open_stream, lambda: session.send_datagram(b"late")):
            with pytest.raises(SessionClosedError) as closed:
                call()
            assert closed.value.code == (SessionExpiredError.code if end == "expired" else SessionClosedError.code)
        assert not await manager.close_session(session.session_id)
        assert manager.get_session(session.session_id) is None
        assert (session.remaining_ttl, session.is_active(), manager.get_session_count()) == (0.0, False, 0)


@pytest.mark.parametrize("ttl", TTLS)
def test_a_node_has_no_such_lifetime(ttl: Any) -> None:
    """G2: nor is it taken for the default."""
    with pytest.raises(ArgumentError) as caught:
        STTNode(shared_seed=SEED, session_ttl=ttl)
    assert caught.value.argument == "session_ttl"
