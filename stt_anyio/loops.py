"""What differs between asyncio and trio: how a socket is watched, a task of nobody is started, the clock is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, NoReturn, Protocol

import anyio
from anyio.lowlevel import EventLoopToken, current_token


class HasFileno(Protocol):
    """Something that the system can wait for."""

    def fileno(self) -> int: ...


def clock_of(loop: EventLoopToken) -> Callable[[], float]:
    """The clock that the loop's own deadlines are in, without the way through anyio: it is read for every batch."""
    if isinstance(loop.native_token, asyncio.AbstractEventLoop):
        # A loop that does not say otherwise reads this clock, by way of a Python method.
        plain = type(loop.native_token).time is asyncio.BaseEventLoop.time
        return time.monotonic if plain else loop.native_token.time
    import trio

    return trio.lowlevel.current_clock().current_time


def spawn(loop: EventLoopToken, run: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> object:
    """Start a task that belongs to the loop and to no task group of a caller."""
    if isinstance(loop.native_token, asyncio.AbstractEventLoop):
        return loop.native_token.create_task(run(*arguments), name="STTNode")
    import trio

    return trio.lowlevel.spawn_system_task(run, *arguments, name="STTNode")


async def when_readable(sock: HasFileno, call: Callable[[], None]) -> NoReturn:
    """Call `call()` whenever a socket has something to read, until this is cancelled or that raises.

    Under asyncio the loop calls it, from one registration: to wait for each time anew, in a task, takes two system
    calls more and another turn of the loop, which is a good part of a round trip.
    """
    loop = current_token().native_token
    if isinstance(loop, asyncio.AbstractEventLoop):
        with suppress(NotImplementedError):  # the proactor of Windows
            await _call_when_readable(loop, sock.fileno(), call)
    while True:
        await anyio.wait_readable(sock)
        call()


async def _call_when_readable(loop: asyncio.AbstractEventLoop, descriptor: int, call: Callable[[], None]) -> None:
    failed: asyncio.Future[None] = loop.create_future()
    with suppress(ImportError):  # where it is, anyio asks it which loop is running, and it looks for a task
        from sniffio import current_async_library_cvar

        current_async_library_cvar.set("asyncio")

    def read() -> None:
        try:
            call()
        except Exception as error:
            if not failed.done():
                failed.set_exception(error)

    loop.add_reader(descriptor, read)
    try:
        await failed
    finally:
        loop.remove_reader(descriptor)
