"""Waiting under asyncio and trio: for a bell, for things that come in, with handlers for each of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import anyio
from anyio.abc import Listener, TaskGroup
from anyio.lowlevel import checkpoint

from stt_anyio.timeouts import check_timeout

T = TypeVar("T")

FAILURES = (Exception, asyncio.CancelledError)
"""What comes out of code of the application that is called without waiting: no cancellation of the task that calls it
comes in the middle of that, so one that is seen there is somebody else's."""

_inside: ContextVar[tuple[object, ...]] = ContextVar("stt_inside", default=())


@contextmanager
def inside(*whose: object) -> Iterator[None]:
    """Mark what runs in a task of theirs, and what is started there: it must not wait for their end at any price."""
    token = _inside.set(whose)
    try:
        yield
    finally:
        _inside.reset(token)


async def finish(finished: anyio.Event, whose: object) -> None:
    """Wait for an end that has been brought about; when cancelled too, unless that end waits for who waits here."""
    with anyio.CancelScope(shield=all(each is not whose for each in _inside.get())):
        await finished.wait()


def is_failure(error: BaseException) -> bool:
    """Whether what came out of a handler is its own, and not the cancellation of the task that it runs in.

    Under asyncio who waits for a task or a future that somebody else cancels gets a `CancelledError` too. Let through,
    it would end the task group of all other handlers with this one.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)


def as_failure(error: BaseException) -> Exception:
    """A failure as something that can be kept, and raised in other tasks: there a `CancelledError` would be theirs."""
    if isinstance(error, Exception):
        return error
    failure = RuntimeError("what was waited for was cancelled by somebody else")
    failure.__cause__ = error
    return failure


class Signal(Protocol):
    """Something that is set once, and waited for: an `anyio.Event`, or less."""

    def set(self) -> None: ...

    async def wait(self) -> None: ...


class AsyncioSignal:
    """What `anyio.Event` is, at half the price: that one asks three times which loop is running, and the system too."""

    __slots__ = ("_is_set", "_loop", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._is_set = False
        self._waiters: list[asyncio.Future[None]] = []

    def set(self) -> None:
        self._is_set = True
        for waiter in self._waiters:
            if not waiter.done():  # its task was cancelled
                waiter.set_result(None)

    async def wait(self) -> None:
        if self._is_set:
            await checkpoint()
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if not self._is_set:  # cancelled: who looks again and again with a timeout leaves nothing
                self._waiters.remove(waiter)


class Bell:
    """Wakes whoever waits; there is a signal only while somebody does.

    Look, and if there is nothing: `await bell.wait()`, and look again. Where a call between the look and the wait may
    ring, `arm` before that call and wait for what it gave.

    Args:
        loop: the loop of all who wait, where it is asyncio's and that is known.
    """

    __slots__ = ("_loop", "_signal")

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._signal: Signal | None = None

    def ring(self) -> None:
        """Wake all who wait."""
        if self._signal is not None:
            self._signal.set()
            self._signal = None

    def arm(self) -> Signal:
        """The signal that the next `ring` sets."""
        if self._signal is None:
            self._signal = anyio.Event() if self._loop is None else AsyncioSignal(self._loop)
        return self._signal

    async def wait(self) -> None:
        """Wait for the next `ring`."""
        await self.arm().wait()


def up_to(timeout: float | None) -> anyio.CancelScope:
    """Give a block so many seconds, or with `None` as many as it takes.

    Raises:
        ArgumentError: `timeout` is none.
    """
    check_timeout(timeout)
    return anyio.move_on_after(timeout)


@contextmanager
def within(seconds: float | None, what: str) -> Iterator[None]:
    """Give a block so many seconds, or with `None` as many as it takes; `TimeoutError` says what did not happen."""
    with up_to(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise TimeoutError(f"{what} within {seconds:g} seconds")


class Feed(AsyncIterator[T]):
    """An iterator over what comes in.

    Args:
        take: gives the next item, or `None` when there is none yet.
        bell: rings when there may be one.
        over: whether there will be no more.
    """

    def __init__(self, take: Callable[[], T | None], bell: Bell, over: Callable[[], bool]) -> None:
        self._take = take
        self._bell = bell
        self._over = over

    def __aiter__(self) -> Feed[T]:
        return self

    async def __anext__(self) -> T:
        await checkpoint()
        while (item := self._take()) is None:
            if self._over():
                raise StopAsyncIteration
            await self._bell.wait()
        return item


class Incoming(Listener[T]):
    """An `anyio.abc.Listener` over something that can be accepted.

    Unlike anyio's own listeners this one survives its handlers: one that raises ends what it handled and nothing else.

    Args:
        accept: waits for the next one; raises `anyio.ClosedResourceError` or `anyio.BrokenResourceError` at the end.
        failed: contains what a handler raised.
        attributes: typed attributes.
    """

    def __init__(
        self,
        accept: Callable[[], Awaitable[T]],
        failed: Callable[[T, BaseException], None],
        attributes: Callable[[], Mapping[Any, Callable[[], Any]]] = dict,
    ) -> None:
        self._accept = accept
        self._failed = failed
        self._attributes = attributes
        self._serving: set[anyio.CancelScope] = set()
        self._closed = False

    async def accept(self) -> T:
        """Wait for the next one."""
        if self._closed:
            await checkpoint()
            raise anyio.ClosedResourceError
        return await self._accept()

    async def serve(self, handler: Callable[[T], Any], task_group: TaskGroup | None = None) -> None:
        """Call `await handler(item)` for each that comes in, each in a task of its own.

        Returns when there will be no more, or after `aclose`; without a `task_group` it waits for the handlers then.
        """
        async with AsyncExitStack() as stack:
            if task_group is None:
                task_group = await stack.enter_async_context(anyio.create_task_group())
            with anyio.CancelScope() as scope:
                self._serving.add(scope)
                try:
                    while not self._closed:
                        task_group.start_soon(self._handle, handler, await self._accept())
                except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                    pass
                finally:
                    self._serving.discard(scope)

    async def _handle(self, handler: Callable[[T], Any], item: T) -> None:
        try:
            await handler(item)
        except BaseException as error:
            if not is_failure(error):
                raise
            self._failed(item, error)

    async def aclose(self) -> None:
        """Stop listening; what was accepted goes on."""
        self._closed = True
        for scope in self._serving:
            scope.cancel()
        await checkpoint()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._attributes()
