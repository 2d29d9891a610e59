"""Watches the sessions of a node; `stt_proto.health` decides what is well."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import AsyncResource
from anyio.lowlevel import checkpoint

from stt_anyio.errors import ArgumentError
from stt_anyio.session import Session
from stt_anyio.waiting import Bell, Feed
from stt_proto.health import Health, HealthChanged, HealthPolicy

if TYPE_CHECKING:
    from stt_anyio.ways import Ways

MAX_CHANGES = 10_000
"""Changes that wait for one who iterates over them; the oldest goes first."""
AT_ONCE = 100
"""Sessions looked at before others on the event loop get their turn."""


class HealthMonitor(AsyncResource):
    """Watches all sessions of a node, and tells when one becomes unwell, or well again.

    Made by `STTNode.monitor_health`. `async for session, change in monitor.events():`; `async with monitor:` ends it.

    Args:
        node: whose sessions they are.
        policy: the bounds, and how often to look; a `HealthPolicy()` when not given.

    Raises:
        ArgumentError: `policy` is none.
        StateError: the node is not running.
    """

    def __init__(self, node: Ways, policy: HealthPolicy | None = None) -> None:
        if not isinstance(policy, HealthPolicy | None):
            raise ArgumentError(f"policy is of type {type(policy).__name__}", argument="policy")
        self._node = node
        self._policy = policy or HealthPolicy()
        self._watched: dict[Session, Health] = {}
        self._changes: deque[tuple[Session, HealthChanged]] = deque(maxlen=MAX_CHANGES)
        self._changed = Bell()
        self._scope = anyio.CancelScope()
        self._finished = anyio.Event()
        node.start_task(self._run)

    @property
    def unhealthy(self) -> list[Session]:
        """The sessions that are unwell."""
        return [session for session, health in self._watched.items() if not health.healthy and not session.is_closed]

    def problems(self, session: Session) -> frozenset[str]:
        """What is wrong with a session: `rtt`, `loss`, `silence`; nothing with one that is well or not known."""
        health = self._watched.get(session)
        return frozenset() if health is None else health.problems

    def events(self) -> Feed[tuple[Session, HealthChanged]]:
        """What changes, until the monitor is closed or the node stops. Those who iterate share it.

        Of changes that nobody takes the last 10,000 are kept, and none of a session that is over.
        """
        return Feed(self._take, self._changed, self._finished.is_set)

    def _take(self) -> tuple[Session, HealthChanged] | None:
        return self._changes.popleft() if self._changes else None

    async def _run(self) -> None:
        try:
            with self._scope:
                while True:
                    await anyio.sleep(self._policy.interval)
                    await self._look()
        finally:
            self._watched = {}
            self._finished.set()
            self._changed.ring()

    async def _look(self) -> None:
        """Look at every session, a few at a time."""
        sessions: list[Any] = list(self._node.sessions.values())
        self._watched = {session: self._watched.get(session) or Health(self._policy) for session in sessions}
        if any(session not in self._watched for session, _ in self._changes):
            kept = [(session, change) for session, change in self._changes if session in self._watched]
            self._changes = deque(kept, MAX_CHANGES)
        for number, session in enumerate(sessions):
            if number % AT_ONCE == AT_ONCE - 1:
                await checkpoint()
            if session.is_closed:
                continue
            stats = session.get_stats()
            change = self._watched[session].look(
                now=stats.created_at + stats.uptime,
                last_heard=session.last_active,
                rtt=stats.rtt,
                sent=stats.packets_sent,
                lost=stats.packets_lost,
            )
            if change is not None:
                self._changes.append((session, change))
                self._changed.ring()

    async def aclose(self) -> None:
        """Watch no more."""
        self._scope.cancel()
        await self._finished.wait()

    async def close(self) -> None:
        """The same as `aclose`."""
        await self.aclose()
