"""What programs write again and again around a node, ready-made."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskGroup

from stt_anyio.affinity import ContentAffinityPool
from stt_anyio.health import HealthMonitor
from stt_anyio.pool import SessionPool
from stt_anyio.requests import AnswerPolicy, Handler, answer, checked
from stt_anyio.session import Session
from stt_anyio.ways import Ways
from stt_proto.health import HealthPolicy


class Patterns(Ways):
    """Part of `STTNode`."""

    @abstractmethod
    async def serve(
        self, handler: Callable[[Session], Awaitable[Any]], task_group: TaskGroup | None = None
    ) -> None: ...

    async def answer(self, handler: Handler, policy: AnswerPolicy | None = None) -> None:
        """Answer the requests of all sessions that peers establish, until the node stops.

        A request is what one direction of a stream carries, and the answer is the other. What a session asks beyond the
        bounds of the policy waits on its streams; so one that asks too much delays itself. On a node that takes early
        data, `request.session.replayable` says whether a request may come a second time.

        Args:
            handler: `await handler(request)` gives the answer. What it raises is logged and counted, and refuses that
                request with `REQUEST_FAILED`; `RequestRefused(code)` refuses it with another code. It is cancelled when
                its time is over, or its session.
            policy: the bounds; an `AnswerPolicy()` when not given.

        Raises:
            ArgumentError: an argument is none.
        """
        policy = checked(handler, policy)
        in_all = anyio.Semaphore(policy.max_in_all)
        await self.serve(partial(answer, handler=handler, policy=policy, in_all=in_all))

    def pool(self, max_sessions: int = 100) -> SessionPool:
        """Sessions that are dialled when they are first asked for, and shared by all who ask."""
        return SessionPool(self, max_sessions)

    def affinity_pool(self, max_pool_size: int = 100, *, half_life: float = 60.0) -> ContentAffinityPool:
        """Sessions by nearness to contents."""
        return ContentAffinityPool(self, max_pool_size, half_life=half_life)

    def monitor_health(self, policy: HealthPolicy | None = None) -> HealthMonitor:
        """Watch all sessions of the node; iterate over the result for what changes."""
        return HealthMonitor(self, policy)
