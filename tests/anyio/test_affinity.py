"""The pool of sessions by nearness to contents (I1), as sessions end."""

from __future__ import annotations

from typing import Any

import pytest

from stt_anyio import PoolMissError, SessionClosedError
from stt_anyio.errors import ArgumentError
from tests.anyio.virtual import LOOPS, Town, virtual


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


async def test_what_the_pool_counts_is_what_was_asked() -> None:
    """I1: one that has ended is no hit, takes nobody's place, and is found to be no session."""
    town = Town()
    async with town.node("server"), town.node("client") as client:
        pool = client.affinity_pool(max_pool_size=3)
        sessions = [await client.connect("server") for _ in range(4)]
        for session in sessions[:3]:
            pool.add_session(session, bytes(32))
        sessions[0].abort()
        sessions[1].abort()
        assert pool.get_session_for_content(bytes(32)) is sessions[2]
        with pytest.raises(SessionClosedError):
            pool.add_session(sessions[0], bytes(32))
        assert pool.add_session(sessions[3], bytes(32)) is None
        with pytest.raises(ArgumentError):
            pool.add_session("session", bytes(32))  # type: ignore[arg-type]
        for session in sessions[2:]:
            session.abort()
        with pytest.raises(PoolMissError):
            pool.get_session_for_content(bytes(32))
        stats = pool.get_pool_stats()
        assert (stats.hits, stats.misses, stats.evicted) == (1, 1, 0)


async def test_one_that_has_ended_goes_before_any_other() -> None:
    """I1: however lately it was used; nobody has to go for a new one while there is such a one."""
    town = Town()
    async with town.node("server"), town.node("client") as client:
        pool = client.affinity_pool(max_pool_size=2)
        a, b, c, d = [await client.connect("server") for _ in range(4)]
        pool.add_session(a, bytes(32))
        pool.add_session(b, b"\xff" * 32)
        b.abort()
        assert pool.add_session(c, b"\xf0" * 32) is None
        assert a in pool
        assert pool.add_session(d, b"\xf0" * 32) is a
