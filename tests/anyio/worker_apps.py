"""What runs in the workers of the tests; they are processes of their own, so it must be in a module."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

from stt_anyio import Session, Stream, SttError, STTNode


async def echo(node: STTNode) -> None:
    """Answer every stream with the process id of the worker, a space, and what came, in capitals."""
    async with anyio.create_task_group() as tasks:
        while True:
            tasks.start_soon(_attend, await node.accept(), _answer)


async def _attend(session: Session, answer: Callable[[Stream], Awaitable[None]]) -> None:
    try:
        async with anyio.create_task_group() as tasks:
            while True:
                tasks.start_soon(answer, await session.accept_stream())
    except* SttError:
        pass


async def _answer(stream: Stream) -> None:
    data = b"".join([piece async for piece in stream])
    await stream.send(b"%d " % os.getpid() + data.upper())
    await stream.aclose()


async def sink(node: STTNode) -> None:
    """Read every stream to its end, and say how much it was."""
    async with anyio.create_task_group() as tasks:
        while True:
            tasks.start_soon(_attend, await node.accept(), _swallow)


async def _swallow(stream: Stream) -> None:
    size = 0
    async for piece in stream:
        size += len(piece)
    await stream.send(b"%d" % size)
    await stream.aclose()


async def raises(node: STTNode) -> None:
    """Fail."""
    raise RuntimeError("on purpose")


async def parents(node: STTNode) -> None:
    """Say which descriptors a program started from here would inherit; then fork, and die before the child does."""
    session = await node.accept()
    stream = await session.accept_stream()
    open_ones = {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2}
    found = []
    for descriptor in open_ones:
        with suppress(OSError):  # that of the directory
            found += [descriptor] * os.get_inheritable(descriptor)
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    await stream.send(b"%d %d" % (len(found), child), timeout=10)
    os._exit(1)


async def babbles(node: STTNode) -> None:
    """Tell the parent what a peer says; nobody ever should."""
    session = await node.accept()
    stream = await session.accept_stream()
    os.write(int(sys.argv[1]), b"".join([piece async for piece in stream]))
    await anyio.sleep_forever()


def hangs(node: STTNode) -> None:
    """Hold up the event loop for ever."""
    while True:
        time.sleep(60)


def counts(node: STTNode) -> None:
    """An application need not be a coroutine; when it returns, the worker ends."""


not_a_function = 1
