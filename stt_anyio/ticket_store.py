"""Which tickets were used, for all servers that share a store: each is asked about before it is answered (H-36)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from stt_anyio.stores import SessionStore
from stt_proto.events import TicketOffered
from stt_proto.manager.checks import MIN_SECONDS

logger = logging.getLogger("stt.node")

MAX_ASKED = 256
"""Tickets that the store is asked about at once; of any beyond that there is no telling, so they are refused."""
SPARE = 3600.0
"""Seconds that a used ticket is remembered beyond its end, as the clocks of those who take it may differ."""

Answer = Callable[[bool], None]


class TicketStore:
    """Asks a store, and answers.

    In doubt the answer is no: when the store is down, slow, full, or asked too much. Who came with the ticket is let in
    by the full handshake then.

    Args:
        store: where it is remembered.
        node_id: whose tickets they are.
        timeout: seconds after which nobody waits for the answer.
        clock: the wall clock.
    """

    def __init__(
        self, store: SessionStore, node_id: bytes, timeout: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._namespace = b"stt1 used tickets " + node_id
        self._timeout = timeout
        self._clock = clock
        self._asked = 0
        self._failing = False
        self._tasks: TaskGroup | None = None

    async def run(self) -> None:
        """Ask, until this is cancelled."""
        try:
            async with anyio.create_task_group() as self._tasks:
                await anyio.sleep_forever()
        finally:
            self._tasks = None

    def offered(self, event: TicketOffered, answer: Answer) -> None:
        """Find out whether this ticket may be used; `answer` is called with that, now or later."""
        if self._tasks is None or self._asked >= MAX_ASKED:
            answer(False)
            return
        self._asked += 1
        self._tasks.start_soon(self._ask, event, answer)

    async def _ask(self, event: TicketOffered, answer: Answer) -> None:
        unused = False
        ttl = max(event.expires_at - self._clock(), MIN_SECONDS) + SPARE
        try:
            with anyio.move_on_after(self._timeout):
                unused = await self._store.take_once(self._namespace, event.ticket_id, ttl=ttl)
                self._failing = False
        except Exception as error:  # also what a store of the application's own may raise
            if not self._failing:  # once, until it answers again
                self._failing = True
                logger.error("tickets are refused, as their store failed: %s", error)
        finally:
            self._asked -= 1
        answer(unused)
