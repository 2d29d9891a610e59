"""The parent of the workers: it binds the port, spawns them, brings back those that die, and stops them."""

from __future__ import annotations

import inspect
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import Process, TaskGroup, UNIXSocketStream
from anyio.lowlevel import checkpoint
from attrs import evolve

from stt_anyio.config import NodeConfig
from stt_anyio.errors import ArgumentError, StateError
from stt_anyio.node import STTNode
from stt_anyio.udp import Address, look_up
from stt_anyio.workers.ports import Routing, SharedPort, can_share
from stt_anyio.workers.setup import (
    END_TIMEOUT,
    GONE,
    Control,
    Setup,
    check_store,
    copied,
    encode,
    find_app,
    name_of,
    open_store,
    pickled,
)
from stt_anyio.workers.statistics import FleetStats, WorkerStats, summed, worker_stats
from stt_proto import Identity, Limits, WorkerIds
from stt_proto.workers import MAX_WORKERS

logger = logging.getLogger("stt.workers")

START_TIMEOUT = 60.0
"""Seconds that a worker has to start, each time."""
ANSWER_TIMEOUT = 2.0
"""Seconds that a worker has to tell its statistics."""
STEADY = 60.0
"""Seconds after which a worker counts as one that works, whatever became of it before."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a worker that died is started again; twice as many each time."""
LAST_WORDS = 1.0
"""Seconds in which all is read that a worker said before it died; what it has forked may keep the socket open."""
GRACE = 5.0
"""Seconds that workers give their sessions to close."""

_COMMAND = (
    "import signal; signal.signal(signal.SIGINT, lambda *_: None); from stt_anyio.workers.child import main; main()"
)
"""Ctrl-C goes to all processes of a terminal, also while they import; the parent tells them to stop. It is not ignored:
that would be inherited by every program that a worker starts."""


class WorkerFleet:
    """Several processes that serve one UDP port as one node.

    Use it as `async with WorkerFleet("shop:serve", 4, shared_seed=...) as fleet:`, in the task that leaves it too. Each
    worker is a fresh interpreter, never a fork: nothing of the parent's memory is in it but what it is told.

    Args:
        app: what runs in each worker: `"module:function"`, or a function that others can import. It is called with
            the worker's `STTNode`, which accepts sessions, and goes on until it is cancelled; where it ends or raises,
            its worker ends, and is started again.
        workers: how many, 1 to 64.
        node_seed: of the one node that all of them are; random when `None`.
        shared_seed: who may talk to it; `STT_SHARED_SEED` when not given.
        host: the address to bind, `0.0.0.0` by default.
        port: the port to bind, 0 for any; `fleet.port` tells which.
        config: the other parameters, of each worker; limits and buffers are a worker's. A `ticket_store` is opened in
            each by its address, and is in `node.config.ticket_store` there.
        restarts: times in a row that a worker may die young, before the fleet gives up.
        backend: `"asyncio"` or `"trio"`, in the workers.
        grace: seconds that sessions get to close when a worker stops.
        parameters: fields of `NodeConfig`, which come before those of `config`.

    Attributes:
        config: of the node of each worker.
        node_id: of the node.
        workers: how many there are: one where a port cannot be shared.
        routing: how a datagram gets to its worker; known once it has started.

    Raises:
        ArgumentError: names the parameter, the value and what is allowed.
    """

    def __init__(
        self,
        app: str | Callable[[STTNode], Any],
        workers: int,
        node_seed: bytes | None = None,
        shared_seed: bytes | str | None = None,
        host: str | None = None,
        port: int | None = None,
        *,
        config: NodeConfig | None = None,
        restarts: int = 5,
        backend: str = "asyncio",
        grace: float = GRACE,
        **parameters: Any,
    ) -> None:
        if type(workers) is not int or not 1 <= workers <= MAX_WORKERS:
            raise ArgumentError(
                f"workers is {workers!r}; it must be a whole number from 1 to {MAX_WORKERS}", argument="workers"
            )
        if backend not in ("asyncio", "trio"):
            raise ArgumentError(f"backend is {backend!r}; it must be 'asyncio' or 'trio'", argument="backend")
        if type(restarts) is not int or restarts < 0:
            raise ArgumentError(f"restarts is {restarts!r}; it must be a whole number from 0", argument="restarts")
        if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= 3600:
            raise ArgumentError(f"grace is {grace!r}; it must be from 0 to 3,600 seconds", argument="grace")
        if host is not None:
            parameters["bind_address"] = host
        if port is not None:
            parameters["port"] = port
        given = NodeConfig.from_environment(**parameters) if config is None else evolve(config, **parameters)
        actual = workers if can_share() else 1
        self.config = _checked(given, workers, actual)
        pickled(self.config)
        self._app = name_of(app)
        self._seeds = _seeds(node_seed, shared_seed)
        self._id_secret = os.urandom(32)  # not the fleet_secret: no ID is older than the fleet
        identity = Identity.from_seed(self._seeds[0])
        self.config.core_config(identity, self._seeds[1])  # so that what is wrong with it is said here
        self.node_id = identity.node_id
        self.workers = actual
        self._restarts, self._backend, self._grace = restarts, backend, grace
        self._slots: list[_Slot] = []
        self._port: SharedPort | None = None
        self._alone: STTNode | None = None
        self._exit = AsyncExitStack()
        self._stopping = False
        if self.workers < workers:
            logger.warning("a port cannot be shared on this system: one process instead of %d", workers)

    @property
    def routing(self) -> Routing:
        """How a datagram gets to its worker."""
        return Routing.SINGLE if self._port is None else self._port.routing

    @property
    def port(self) -> int:
        """The port that is served; the one asked for before it is."""
        return int(self._address()[1])

    @property
    def host(self) -> str:
        """The address that is served."""
        return str(self._address()[0])

    def _address(self) -> Address:
        if self._port is not None:
            return self._port.local
        node = self._alone
        return (self.config.bind_address, self.config.port) if node is None else (node.host, node.port)

    @property
    def pids(self) -> tuple[int | None, ...]:
        """The process ids of the workers, `None` for one that is down."""
        return tuple(slot.pid for slot in self._slots)

    # -- beginning and end -----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Bind, start all workers, and wait until each of them serves.

        Raises:
            OSError: the address is taken, or not ours.
            StateError: a worker did not start; the message says why. Later, when one dies too often, the body is
                cancelled and this comes out of it.
        """
        if self._stopping:
            raise StateError("a fleet is started once")
        self._slots = [_Slot(index) for index in range(self.workers)]
        tasks = await self._exit.enter_async_context(anyio.create_task_group())
        try:
            if can_share():
                await self._start(tasks)
            else:
                await self._start_here(tasks)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def _start(self, tasks: TaskGroup) -> None:
        config = self.config
        found = await anyio.to_thread.run_sync(look_up, config.bind_address, config.port)
        self._port = SharedPort(*found[0], WorkerIds(self._id_secret, 0, self.workers))
        if self._port.routing is Routing.HAND_OVER:
            logger.warning("the kernel takes no filter: workers hand over to each other what they get of each other's")
        for slot in self._slots:
            tasks.start_soon(self._keep, slot)
        for slot in self._slots:
            await slot.ready.wait()

    async def _start_here(self, tasks: TaskGroup) -> None:
        """Where processes cannot share a port: one node, in this process."""
        node_seed, shared_seed = self._seeds
        app = find_app(self._app)
        config = copied(self.config)
        await open_store(config, self._exit)
        node = STTNode(node_seed, shared_seed, config=config, server_mode=True)
        await self._exit.enter_async_context(node)
        self._alone = node

        slot = self._slots[0]
        slot.gone = anyio.Event()

        async def serve() -> None:
            with slot.scope:
                try:
                    result = app(node)
                    if inspect.isawaitable(result):
                        await result
                    raise StateError("the application has returned; it is to go on until it is cancelled")
                finally:
                    slot.gone.set()

        tasks.start_soon(serve)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stopping = True
        try:
            with anyio.CancelScope(shield=True):
                await self._stop()
            await self._leave(kind, error, traceback)
        finally:
            if self._port is not None:
                self._port.close()

    async def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._exit.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1 and group.exceptions[0] is error:
                return  # it goes on its way as it is
            reason = _reason(group)
            raise reason from reason.__cause__

    async def _stop(self) -> None:
        """Have all workers close their sessions and end; kill those that do not."""
        if self._alone is not None:
            self._slots[0].scope.cancel()
        with anyio.move_on_after(self._grace + END_TIMEOUT):
            async with anyio.create_task_group() as tasks:
                for slot in self._slots:
                    tasks.start_soon(slot.stop)
        for slot in self._slots:
            slot.kill()
            slot.scope.cancel()

    # -- workers ---------------------------------------------------------------------------------------------------

    async def _keep(self, slot: _Slot) -> None:
        """Start a worker, and start it again whenever it ends."""
        failures = 0
        with slot.scope:
            while True:
                began, slot.asked_to_end = anyio.current_time(), False
                try:
                    await self._live(slot)
                except OSError as error:  # no memory, no descriptors, no processes: that may pass
                    if not slot.ready.is_set():
                        raise StateError(f"worker {slot.index} did not start: {error}") from error
                    logger.error("worker %d cannot be started: %s", slot.index, error)
                if self._stopping:
                    return
                if not slot.ready.is_set():
                    raise StateError(f"worker {slot.index} did not start: {slot.failure or 'it died'}")
                failures = 0 if slot.asked_to_end else 1 if anyio.current_time() - began > STEADY else failures + 1
                if failures > self._restarts:
                    raise StateError(f"worker {slot.index} died {failures} times in a row")
                pause = min(FIRST_PAUSE * 2 ** max(0, failures - 1), LONGEST_PAUSE)
                logger.warning("worker %d has ended; it starts again in %g s", slot.index, pause)
                slot.restarts += 1
                await anyio.sleep(pause)

    async def _live(self, slot: _Slot) -> None:
        """One life of a worker, from the start of its process to its end; none when the fleet stops meanwhile."""
        if self._stopping:
            return
        ours, theirs = socket.socketpair()
        slot.gone = anyio.Event()
        try:
            with theirs:
                setup, inherited = self.setup(slot.index)
                message = encode(setup)
                process = await anyio.open_process(
                    [sys.executable, "-P", "-c", _COMMAND, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=None,
                    stderr=None,
                    pass_fds=[theirs.fileno(), *inherited],
                    env=_environment(),
                )
        except BaseException:
            ours.close()
            slot.gone.set()
            raise
        try:
            async with process, await UNIXSocketStream.from_socket(ours) as stream:
                self._begin(slot, process, stream)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(slot.hear, message)
                    tasks.start_soon(slot.expect, START_TIMEOUT)
                    await process.wait()
                    with anyio.move_on_after(LAST_WORDS):
                        await slot.heard.wait()
                    tasks.cancel_scope.cancel()
        finally:
            slot.end()

    def _begin(self, slot: _Slot, process: Process, stream: UNIXSocketStream) -> None:
        """A process has been started; one that comes too late to be told to stop has nothing to close."""
        slot.begin(process, Control(stream))
        if self._stopping:
            slot.kill()

    def setup(self, index: int) -> tuple[Setup, list[int]]:
        """What a worker is told, and the descriptors that it inherits."""
        port = self._port
        assert port is not None
        outboxes = [None if other == index else sock.fileno() for other, sock in enumerate(port.outboxes)]
        sock, inbox = port.sockets[index].fileno(), port.inboxes[index].fileno()
        setup = Setup(
            app=self._app,
            index=index,
            count=self.workers,
            secret=self._id_secret,
            sock=sock,
            inbox=inbox,
            outboxes=tuple(outboxes),
            node_seed=self._seeds[0],
            shared_seed=self._seeds[1],
            config=self.config,
            backend=self._backend,
            grace=self._grace,
        )
        return setup, [sock, inbox, *(each for each in outboxes if each is not None)]

    # -- statistics ------------------------------------------------------------------------------------------------

    async def stats(self) -> FleetStats:
        """What the workers have seen and moved, each since it was started last, and all together.

        One that does not answer within two seconds counts with what it said last.
        """
        if self._alone is not None:
            await checkpoint()
            return summed(self.routing, [WorkerStats.of_node(self._alone)])
        async with anyio.create_task_group() as tasks:
            for slot in self._slots:
                tasks.start_soon(slot.ask)
        return summed(
            self.routing, [worker_stats(slot.index, slot.pid, slot.restarts, slot.told) for slot in self._slots]
        )


class _Slot:
    """The place of one worker, whichever process has it.

    Attributes:
        index: of the worker.
        ready: whether it has ever served.
        gone: whether its process has ended.
        heard: whether all was heard that its process said.
        restarts: how often it was started again.
        told: what it said of itself last.
        failure: why it did not start.
        asked_to_end: whether its process ended because somebody sent it a SIGTERM.
        scope: of the task that keeps it. Who cancels the fleet does not cancel that: the worker is told to stop.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.ready = anyio.Event()
        self.gone = anyio.Event()
        self.gone.set()
        self.heard = anyio.Event()
        self.restarts = 0
        self.told: dict[str, Any] = {}
        self.failure = ""
        self.asked_to_end = False
        self.scope = anyio.CancelScope(shield=True)
        self._process: Process | None = None
        self._control: Control | None = None
        self._answered = anyio.Event()
        self._asked = False
        self._serving = anyio.Event()

    @property
    def pid(self) -> int | None:
        """The id of its process, while that serves."""
        return self._process.pid if self._process is not None and self._serving.is_set() else None

    def begin(self, process: Process, control: Control) -> None:
        """A process has been started for it."""
        self._process, self._control, self.told = process, control, {}
        self.heard = anyio.Event()

    def end(self) -> None:
        """Its process has ended."""
        self._process = self._control = None
        self._serving = anyio.Event()
        self._answer()
        self.gone.set()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def expect(self, timeout: float) -> None:
        """End the process if it does not serve in time."""
        with anyio.move_on_after(timeout):
            await self._serving.wait()
            return
        self.failure = f"it does not serve after {timeout:g} seconds"
        logger.error("worker %d: %s", self.index, self.failure)
        self.kill()

    async def hear(self, setup: bytes) -> None:
        """Tell the process what it is to be, and take in what it says, until it is gone."""
        control = self._control
        assert control is not None
        try:
            await control.begin(setup)
            while True:
                what = await control.hear()
                if "ready" in what:
                    self._serving.set()
                    self.ready.set()
                self.failure = what.get("failed", self.failure)
                self.asked_to_end = what.get("asked_to_end", self.asked_to_end)
                if "stats" in what:
                    self.told = what["stats"]
                    self._answer()
        except GONE:
            self.heard.set()
        except ValueError as error:
            logger.error("worker %d says what nobody understands: %s", self.index, error)
            self.kill()
            self.heard.set()

    async def say(self, **what: Any) -> bool:
        """Tell it something; False if it is not there."""
        if self._control is None:
            return False
        try:
            await self._control.say(**what)
        except GONE:
            return False
        return True

    async def stop(self) -> None:
        """Tell it to stop, and wait until its process has ended; nobody waits for the import of one that starts."""
        if self._serving.is_set():
            await self.say(stop=True)
        elif self._process is not None and self._process.returncode is None:
            self._process.terminate()
        await self.gone.wait()

    async def ask(self) -> None:
        """Have it tell its statistics; one that still owes an answer is not asked again."""
        answered = self._answered
        with anyio.move_on_after(ANSWER_TIMEOUT):
            if self._serving.is_set() and (self._asked or await self._request()):
                await answered.wait()

    async def _request(self) -> bool:
        self._asked = True
        try:
            return await self.say(stats=True)
        except BaseException:  # whoever asked is cancelled
            self._asked = False
            raise

    def _answer(self) -> None:
        """Whoever has asked need not wait any longer."""
        self._asked = False
        self._answered.set()
        self._answered = anyio.Event()


async def serve_workers(app: str | Callable[[STTNode], Any], workers: int, **parameters: Any) -> None:
    """Serve one port with several processes until cancelled; all arguments are those of `WorkerFleet`.

    Raises:
        ArgumentError, OSError, StateError: as `WorkerFleet` says.
    """
    async with WorkerFleet(app, workers, **parameters):
        await anyio.sleep_forever()


def _checked(config: NodeConfig, workers: int, actual: int) -> NodeConfig:
    """The configuration of each worker, of as many as there will be, with the secrets that all of them share."""
    if config.transport != "udp":
        raise ArgumentError(f"transport is {config.transport!r}; workers share a UDP port", argument="transport")
    if config.reuse_port:
        raise ArgumentError("reuse_port is True; a fleet shares its port with nobody else", argument="reuse_port")
    if config.ticket_file is not None and workers > 1:
        raise ArgumentError("ticket_file is one process's; workers cannot share it", argument="ticket_file")
    if config.ticket_store is not None:
        check_store(config.ticket_store)
    return evolve(
        config,
        limits=_divided(config.limits, actual),
        fleet_secret=config.fleet_secret or os.urandom(32),
        reset_key=config.reset_key or os.urandom(32),
    )


def _divided(limits: Limits, workers: int) -> Limits:
    """Those of a worker. Who guesses chooses his worker, by his connection ID; so each allows a part of the guesses."""
    return evolve(
        limits,
        failed_guesses_per_second=max(0.001, limits.failed_guesses_per_second / workers),
        failed_guesses_burst=max(1, limits.failed_guesses_burst // workers),
        failed_guesses_without_cookie=limits.failed_guesses_without_cookie // workers,
    )


def _reason(group: BaseExceptionGroup[Any]) -> BaseException:
    """Why a fleet ended: rather why workers failed than who was cancelled for it."""
    found = group.subgroup(StateError) or group
    reason: BaseException = found
    while isinstance(reason, BaseExceptionGroup) and (len(reason.exceptions) == 1 or found is not group):
        reason = reason.exceptions[0]
    return reason


def _seeds(node_seed: bytes | None, shared_seed: bytes | str | None) -> tuple[bytes, bytes | str]:
    if shared_seed is None:
        shared_seed = os.environ.get("STT_SHARED_SEED")
    if shared_seed is None:
        raise ArgumentError("shared_seed is missing; it says who may talk to this node", argument="shared_seed")
    return os.urandom(32) if node_seed is None else node_seed, shared_seed


def _environment() -> dict[str, str]:
    """That of this process, from which modules are found in the same places; without the shared seed."""
    places = [place or os.getcwd() for place in sys.path]
    environment = {name: value for name, value in os.environ.items() if name != "STT_SHARED_SEED"}
    return environment | {"PYTHONPATH": os.pathsep.join(places)}
