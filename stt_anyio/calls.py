"""Callbacks of the application under asyncio and trio: each that is to be awaited has a task of its own."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.lowlevel import EventLoopToken

from stt_anyio.loops import spawn
from stt_anyio.session_base import SessionBase
from stt_anyio.waiting import FAILURES, Bell, is_failure

Failed = Callable[[BaseException, "SessionBase[Any] | None"], None]


class Calls:
    """Callbacks that have not finished.

    Args:
        failed: contains what one raised, with the session that it was called for.

    Attributes:
        changed: rings when one has finished.
    """

    def __init__(self, failed: Failed) -> None:
        self.changed = Bell()
        self._failed = failed
        self._open: set[_Call] = set()

    def begin(
        self, loop: EventLoopToken, callback: Callable[..., Any], session: SessionBase[Any] | None, *arguments: Any
    ) -> None:
        """Call back; what is to be awaited then is awaited elsewhere."""
        try:
            result = callback(*arguments)
        except FAILURES as error:
            self._failed(error, session)
            return
        if inspect.isawaitable(result):
            call = _Call()
            self._open.add(call)
            spawn(loop, self._finish, call, result, session)

    async def _finish(self, call: _Call, result: Awaitable[Any], session: SessionBase[Any] | None) -> None:
        """Wait for a callback, in a task that belongs to nobody, so that the callback may stop the node."""
        call.task = anyio.get_current_task().id
        with call.scope:
            try:
                await result
            except BaseException as error:
                if not is_failure(error):
                    raise
                self._failed(error, session)
            finally:
                self._open.discard(call)
                self.changed.ring()

    def __len__(self) -> int:
        return len(self._open)

    def besides(self, task: int) -> bool:
        """Whether there are others than in this task."""
        return any(call.task != task for call in self._open)

    def cancel(self) -> None:
        """Cut all of them off."""
        for call in self._open:
            call.scope.cancel()


class _Call:
    """A callback that has not finished."""

    __slots__ = ("scope", "task")

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.task = 0
