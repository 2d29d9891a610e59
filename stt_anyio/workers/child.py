"""The worker process: told what it is to be, it runs one node and the application, until it is told to stop."""

from __future__ import annotations

import inspect
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
from anyio.abc import UNIXSocketStream

from stt_anyio.errors import SttError
from stt_anyio.workers.setup import END_TIMEOUT, GONE, Control, Setup, find_app, open_store, read
from stt_anyio.workers.statistics import figures_of
from stt_anyio.workers.worker import Place, WorkerNode
from stt_proto import WorkerIds

logger = logging.getLogger("stt.workers")


def main() -> None:
    """Run the worker; the descriptor of the control socket is the first argument."""
    control = _inherited(int(sys.argv[1]))
    try:
        setup = read(control)
    except (EOFError, OSError):
        sys.exit(1)
    threading.Thread(target=_end_as_orphan, args=(control.dup(), setup.grace), daemon=True).start()
    sys.exit(anyio.run(_run, setup, control, backend=setup.backend))


def _end_as_orphan(control: socket.socket, grace: float) -> None:
    """Wait until the parent is gone, and end the process if it does not end itself: its loop may hang in what the
    application does, and it would keep the port."""
    poll = select.poll()
    poll.register(control, 0)  # it hangs up, that is told always
    poll.poll()
    time.sleep(grace + END_TIMEOUT)
    os._exit(1)


def place_of(setup: Setup) -> Place:
    """The sockets that this process has inherited."""
    return Place(
        ids=WorkerIds(setup.secret, setup.index, setup.count),
        sock=_inherited(setup.sock),
        inbox=_inherited(setup.inbox),
        outboxes=[None if each is None else _inherited(each) for each in setup.outboxes],
    )


def _inherited(descriptor: int) -> socket.socket:
    """A socket that was left open for this process, and for none that it starts."""
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)


async def _run(setup: Setup, control_socket: socket.socket) -> int:
    async with AsyncExitStack() as stack:
        return await _serve(setup, control_socket, stack)


async def _serve(setup: Setup, control_socket: socket.socket, stack: AsyncExitStack) -> int:
    """Be the worker; the stack is closed after it."""
    control = Control(await UNIXSocketStream.from_socket(control_socket))
    try:
        app = find_app(setup.app)
        await open_store(setup.config, stack)
        node = WorkerNode(
            place_of(setup),
            setup.config,
            node_seed=setup.node_seed,
            shared_seed=setup.shared_seed,
            server_mode=True,
        )
        await node.start()
    except (SttError, OSError) as error:
        await _tell(control, failed=str(error) or type(error).__name__)
        return 1
    except Exception as error:  # of the application's module
        logger.exception("the module of worker %d cannot be imported", setup.index)
        await _tell(control, failed=f"{type(error).__name__}: {error}")
        return 1
    worker = _Worker(node, control, setup)
    try:
        await worker.run(app)
    finally:
        await node.stop(setup.grace)
        with anyio.CancelScope(shield=True):
            await _tell(control, stats=worker.stats(), asked_to_end=worker.asked_to_end)
    return worker.exit_code


async def _tell(control: Control, **what: Any) -> None:
    try:
        await control.say(**what)
    except GONE:
        logger.debug("the parent is gone")


class _Worker:
    """A worker at work.

    Attributes:
        exit_code: of its process.
        asked_to_end: whether a SIGTERM came.
    """

    def __init__(self, node: WorkerNode, control: Control, setup: Setup) -> None:
        self._node = node
        self._control = control
        self._index = setup.index
        self.exit_code = 0
        self.asked_to_end = False

    async def run(self, app: Callable[..., Any]) -> None:
        """Until the parent says so or is gone, a SIGTERM comes, or the application ends."""
        async with anyio.create_task_group() as tasks:
            self._stop = tasks.cancel_scope.cancel
            tasks.start_soon(self._obey)
            tasks.start_soon(self._heed_signals)
            tasks.start_soon(self._apply, app)

    async def _apply(self, app: Callable[..., Any]) -> None:
        await _tell(self._control, ready=os.getpid())
        try:
            result = app(self._node)
            if inspect.isawaitable(result):
                await result
            logger.warning(
                "the application of worker %d has returned; it is to go on until it is cancelled", self._index
            )
        except Exception:
            logger.exception("the application of worker %d failed", self._index)
            self.exit_code = 1
        self._stop()

    async def _obey(self) -> None:
        try:
            while True:
                what = await self._control.hear()
                if what.get("stop"):
                    break
                await self._control.say(stats=self.stats())
        except GONE:
            logger.info("worker %d stops: its parent is gone", self._index)
        self._stop()

    async def _heed_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                break
        self.asked_to_end = True
        self._stop()

    def stats(self) -> dict[str, Any]:
        """What `WorkerStats` is made of."""
        return figures_of(self._node, self._node.udp.hand_over.counts)
