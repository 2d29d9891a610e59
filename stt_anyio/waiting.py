"""Waiting under asyncio and trio, made of `anyio.Event`: a bell, things that come in, handlers for each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Any, TypeVar

import anyio
from anyio.abc import Listener, TaskGroup
from anyio.lowlevel import checkpoint

T = TypeVar("T")


class Bell:
    """Wakes whoever waits; there is an event only while somebody does.

    Look, and if there is nothing: `await bell.wait()`, and look again. Where a call between the look and the wait may
    ring, `arm` before that call and wait for what it gave.
    """

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event: anyio.Event | None = None

    def ring(self) -> None:
        """Wake all who wait."""
        if self._event is not None:
            self._event.set()
            self._event = None

    def arm(self) -> anyio.Event:
        """The event that the next `ring` sets."""
        if self._event is None:
            self._event = anyio.Event()
        return self._event

    async def wait(self) -> None:
        """Wait for the next `ring`."""
        await self.arm().wait()


@contextmanager
def within(seconds: float | None, what: str) -> Iterator[None]:
    """Give a block so many seconds, or with `None` as many as it takes; `TimeoutError` says what did not happen."""
    with anyio.move_on_after(seconds) as scope:
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
        failed: Callable[[T, Exception], None],
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
        except Exception as error:
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
