"""The health monitor (MISSION J) costs nothing that lasts."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import anyio
import pytest

from stt_anyio import HealthPolicy
from tests.anyio.virtual import LOOPS, Town, virtual


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


async def test_a_monitor_keeps_no_session_alive() -> None:
    """H4: what nobody asked of a session that is over is forgotten with it."""
    town = Town()
    async with town.node("a"), town.node("client") as client:
        monitor = client.monitor_health(HealthPolicy(max_rtt=0.001, interval=1.0, max_silence=1.0))
        for _ in range(3):
            session = await client.connect("a")
            await anyio.sleep(9.0)
            assert monitor.unhealthy == [session]
            session.abort()
            await anyio.sleep(2.0)
        gone = weakref.ref(session)
        del session
        client._left_behind.clear()
        gc.collect()
        assert gone() is None
        await monitor.close()
