"""What one host has the other has too, under the same name, or it is said here why not."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from stt_anyio import (
    BlockingNode,
    BlockingReconnectingClient,
    BlockingRequest,
    BlockingSession,
    BlockingSessionManager,
    BlockingStream,
    ReconnectingClient,
    Request,
    Session,
    SessionManager,
    Stream,
    STTNode,
)

TWINS = [
    (STTNode, BlockingNode),
    (Session, BlockingSession),
    (Stream, BlockingStream),
    (SessionManager, BlockingSessionManager),
    (ReconnectingClient, BlockingReconnectingClient),
    (Request, BlockingRequest),
]

TASKS = "it starts a task for each thing that comes in; blocking programs take them with `accept`, into threads"
ITERATED = "an endless iterator beside everything else; blocking programs have callbacks, and what waits"
ANYIO = "what anyio's own interfaces ask for"
INSIDE = "for the rooms of its host, which wait for each other; not in docs/api.md"

ONLY_ASYNC = {
    "STTNode": {
        "affinity_pool": "`stt_proto.manager.ContentAffinityPool`, which it is made of, takes sessions of any host",
        "carrier_for": INSIDE,
        "connectable": ANYIO,
        "events": ITERATED,
        "listener": ANYIO,
        "monitor_health": "it watches in a task; a blocking program looks at `session.get_stats()` when it likes",
        "pool": "its dials are shared by tasks, and go on when those who asked are cancelled",
        "serve": TASKS,
        "serve_listener": "takes anyio's listeners; sockets that listen are taken by `listen_tcp`",
        "start_task": INSIDE,
        "take_websocket": "for ASGI applications, which live in event loops",
    },
    "Session": {
        "aclose": ANYIO,
        "datagrams": ANYIO,
        "extra": ANYIO,
        "extra_attributes": ANYIO,
        "listener": ANYIO,
        "on_established": INSIDE,
        "serve": TASKS,
        "wait_established": INSIDE,
        "wait_rotated": INSIDE,
        "wait_settled": INSIDE,
        "wait_until": INSIDE,
    },
    "Stream": {
        "aclose": "anyio's name; `close` here",
        "extra": ANYIO,
        "extra_attributes": ANYIO,
    },
    "ReconnectingClient": {
        "aclose": ANYIO,
        "events": ITERATED,
    },
}

ONLY_BLOCKING = {
    "BlockingNode": {
        "poll": "an event loop does by itself what this does",
        "until": "under an event loop everything waits for itself",
    },
    "BlockingSession": {
        "exchange": "sends and receives at once, for which asynchronous programs have tasks",
        "exchange_into": INSIDE,
        "lock": INSIDE,
        "over": INSIDE,
        "until": INSIDE,
    },
    "BlockingStream": {"lock": INSIDE},
}

RENAMED = {"Stream.send": {"item": "data"}}
"""Arguments that anyio's interfaces name."""


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize(("ours", "theirs"), TWINS, ids=lambda kind: kind.__name__)
def test_public_names_are_the_same(ours: type, theirs: type) -> None:
    assert public(ours) - public(theirs) == set(ONLY_ASYNC.get(ours.__name__, ()))
    assert public(theirs) - public(ours) == set(ONLY_BLOCKING.get(theirs.__name__, ()))


@pytest.mark.parametrize(("ours", "theirs"), TWINS, ids=lambda kind: kind.__name__)
def test_arguments_are_the_same_but_for_timeouts(ours: type, theirs: type) -> None:
    """What waits takes a `timeout` in blocking programs; all other arguments, and their defaults, are the same."""
    for name in sorted(public(ours) & public(theirs)):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert isinstance(mine, property) == isinstance(other, property), name
        if not inspect.isroutine(mine):
            continue
        here, there = arguments(mine), arguments(other)
        names = RENAMED.get(f"{ours.__name__}.{name}", {})
        renamed = {names.get(each, each): what for each, what in here.items()}
        assert ("timeout" in there) >= ("timeout" in here), name
        assert without_timeout(renamed) == without_timeout(there), name


def arguments(method: Any) -> dict[str, tuple[Any, Any]]:
    """Kinds and defaults, by name."""
    return {each.name: (each.kind, each.default) for each in inspect.signature(method).parameters.values()}


def without_timeout(these: dict[str, tuple[Any, Any]]) -> list[tuple[str, tuple[Any, Any]]]:
    """All other arguments, in their order."""
    return [(name, what) for name, what in these.items() if name != "timeout"]
