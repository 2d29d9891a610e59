"""What runs in the workers of the tests; they are processes of their own, so it must be in a module."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

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


def counts(node: STTNode) -> None:
    """An application need not be a coroutine; when it returns, the worker ends."""


not_a_function = 1
