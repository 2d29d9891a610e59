"""Which tickets were used is asked before each is answered (H-36), and no event loop waits for who is asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from stt_anyio.stores import SessionStore
from stt_anyio.ticket_file import TicketFile
from stt_anyio.waiting import as_failure, is_failure
from stt_proto.events import TicketOffered
from stt_proto.manager.checks import MIN_SECONDS

logger = logging.getLogger("stt.node")

MAX_ASKED = 256
"""Tickets that are asked about at once; of any beyond that there is no telling, so they are refused."""
SPARE = 3600.0
"""Seconds that a used ticket is remembered beyond its end, as the clocks of those who take it may differ."""

Answer = Callable[[bool], None]
Ask = Callable[[bytes, float], Awaitable[bool]]
"""Told a ticket's id and when it expires: True for the first who asks, and from then on it was used."""


def in_store(store: SessionStore, node_id: bytes, clock: Callable[[], float] = time.time) -> Ask:
    """Have it remembered by a store, which servers may share.

    Args:
        store: where it is remembered.
        node_id: whose tickets they are.
        clock: the wall clock.
    """
    namespace = b"stt1 used tickets " + node_id

    async def ask(ticket_id: bytes, expires_at: float) -> bool:
        ttl = max(expires_at - clock(), MIN_SECONDS) + SPARE
        return await store.take_once(namespace, ticket_id, ttl=ttl)

    return ask


def in_file(file: TicketFile) -> Ask:
    """Have it remembered by a file, in a thread: a disk may take its time.

    One at a time, each whole: nobody can ask between somebody's question and what is written of it.
    """
    turn = anyio.CapacityLimiter(1)

    async def ask(ticket_id: bytes, expires_at: float) -> bool:
        return await anyio.to_thread.run_sync(file.use, ticket_id, expires_at, limiter=turn)

    return ask


def who_knows(store: SessionStore | None, file: TicketFile | None, node_id: bytes) -> Ask | None:
    """A store, or a file; `None` where the node alone remembers."""
    if store is not None:
        return in_store(store, node_id)
    return None if file is None else in_file(file)


class TicketDesk:
    """Asks, and answers.

    In doubt the answer is no: when who is asked is down, slow, full, or asked too much. Who came with the ticket is let
    in by the full handshake then.

    Args:
        ask: who knows.
        timeout: seconds after which nobody waits for the answer.
        doubted: called for each ticket that is refused because nobody can say whether it was used.
    """

    def __init__(self, ask: Ask, timeout: float, doubted: Callable[[], None]) -> None:
        self._ask = ask
        self._timeout = timeout
        self._doubted = doubted
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
        if self._tasks is None:
            answer(False)
        elif self._asked >= MAX_ASKED:
            self._doubt(f"{MAX_ASKED} wait for an answer")
            answer(False)
        else:
            self._asked += 1
            self._tasks.start_soon(self._find_out, event, answer)

    async def _find_out(self, event: TicketOffered, answer: Answer) -> None:
        unused: bool | None = None
        why: object = f"there was no answer within {self._timeout:g} s"
        try:
            with anyio.move_on_after(self._timeout):
                unused = await self._ask(event.ticket_id, event.expires_at)
        except BaseException as error:  # also what a store of the application's own may raise
            if not is_failure(error):
                raise
            why = as_failure(error)
        finally:
            self._asked -= 1
        if unused is None:
            self._doubt(why)
        else:
            self._failing = False
        answer(unused is True)

    def _doubt(self, why: object) -> None:
        """Have it counted, and say so: once, until there are answers again."""
        self._doubted()
        if not self._failing:
            self._failing = True
            logger.error("tickets are refused, as nobody can say which were used: %s", why)
