"""What a worker is told when it starts, and what it and its parent say to each other later.

All of it goes over one pair of sockets that the worker inherits: the setup first, which holds the seeds and is
therefore in no argument and no variable, where every user of the machine, or every child, could read it; then lines of
JSON, both ways.
"""

from __future__ import annotations

import importlib
import json
import pickle
import socket
import struct
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import anyio
from anyio.abc import UNIXSocketStream
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import field, frozen

from stt_anyio.config import NodeConfig
from stt_anyio.errors import ArgumentError
from stt_anyio.stores import SessionStore

MAX_LINE = 65_536
"""Bytes of a line."""
END_TIMEOUT = 2.0
"""Seconds that a worker has to end, after those that its sessions have."""
GONE = (anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)
"""What it means that the other side is no more."""
_LENGTH = struct.Struct(">I")


@frozen(kw_only=True)
class Setup:
    """What one worker is to be.

    Attributes:
        app: `module:function`, called with the node.
        index, count: which worker of how many.
        secret: what all workers of the port share, and nobody else: makes the hash of connection IDs.
        sock, inbox: descriptors that the worker inherits.
        outboxes: likewise, by index; `None` in its own place.
        node_seed, shared_seed: of the node, the same for all workers.
        config: of the node; also with the secrets that workers share.
        backend: `"asyncio"` or `"trio"`.
        grace: seconds that sessions get when the worker stops.
    """

    app: str
    index: int
    count: int
    secret: bytes = field(repr=False)
    sock: int
    inbox: int
    outboxes: tuple[int | None, ...]
    node_seed: bytes = field(repr=False)
    shared_seed: bytes | str = field(repr=False)
    config: NodeConfig
    backend: str
    grace: float


def encode(setup: Setup) -> bytes:
    """The setup as it goes to the worker."""
    packed = pickle.dumps(setup)
    return _LENGTH.pack(len(packed)) + packed


def pickled(config: NodeConfig) -> bytes:
    """A configuration as another process can have it.

    Raises:
        ArgumentError: it holds something that cannot be there, a local function say.
    """
    try:
        return pickle.dumps(config)
    except Exception as error:
        raise ArgumentError(
            f"config cannot be given to another process ({error}); functions in it must be importable",
            argument="config",
        ) from None


def check_store(store: SessionStore) -> None:
    """A store goes to another process as its address, and is opened there.

    Raises:
        ArgumentError: it has none.
    """
    try:
        pickle.dumps(store)
    except Exception as error:
        raise ArgumentError(
            f"ticket_store cannot be given to workers, which open it by its address ({error}); one in a file or in"
            " Redis can",
            argument="ticket_store",
        ) from None


def copied(config: NodeConfig) -> NodeConfig:
    """A configuration as another process has it: its store is another object with the same address, not open."""
    copy: NodeConfig = pickle.loads(pickled(config))
    return copy


async def open_store(config: NodeConfig, stack: AsyncExitStack) -> None:
    """Open the store of used tickets, if there is one, for as long as the stack; one that need not be opened, is."""
    store: Any = config.ticket_store
    if isinstance(store, AbstractAsyncContextManager):
        await stack.enter_async_context(store)


def read(control: socket.socket) -> Setup:
    """Wait for the setup. It comes from the parent, over a socket that nobody else has."""
    (size,) = _LENGTH.unpack(_exactly(control, _LENGTH.size))
    setup = pickle.loads(_exactly(control, size))
    assert isinstance(setup, Setup)
    return setup


def _exactly(control: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = control.recv(size - len(data))
        if not more:
            raise EOFError("the parent is gone")
        data += more
    return data


def find_app(name: str) -> Callable[..., Any]:
    """The function that `module:function` names.

    Raises:
        ArgumentError: there is none, or its module cannot be imported.
    """
    module_name, _, path = name.partition(":")
    found: Any
    try:
        found = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArgumentError(f"app is {name!r}, which cannot be imported: {error}", argument="app") from error
    if not callable(found):
        raise ArgumentError(f"app is {name!r}, which is no function", argument="app")
    function: Callable[..., Any] = found
    return function


def name_of(app: str | Callable[..., Any]) -> str:
    """The `module:function` by which another process finds it.

    Raises:
        ArgumentError: it has none: it is a local function, or in the program's main file.
    """
    if isinstance(app, str):
        name = app
        fits = all(part and part.replace(".", "_").isidentifier() for part in app.partition(":")[::2])
    else:
        module, path = getattr(app, "__module__", None), getattr(app, "__qualname__", "")
        name = f"{module}:{path}"
        fits = module not in (None, "__main__") and "<" not in path and callable(app)
    if not fits or ":" not in name:
        raise ArgumentError(
            f"app is {app!r}; it must be 'module:function', or such a function, of a module that can be imported",
            argument="app",
        )
    return name


class Control:
    """Lines of JSON between a worker and its parent."""

    def __init__(self, stream: UNIXSocketStream) -> None:
        self._stream = stream
        self._turn = anyio.Lock()
        self._lines = BufferedByteReceiveStream(stream)

    async def begin(self, setup: bytes) -> None:
        """Tell a worker what it is to be. Raises `anyio.BrokenResourceError` when it is gone."""
        async with self._turn:
            await self._stream.send(setup)

    async def say(self, **what: Any) -> None:
        """Raises `anyio.BrokenResourceError` when the other side is gone."""
        async with self._turn:
            await self._stream.send(json.dumps(what).encode() + b"\n")

    async def hear(self) -> dict[str, Any]:
        """Raises `anyio.IncompleteRead` or `anyio.BrokenResourceError` when the other side is gone, `ValueError` when
        what it says is no such line."""
        try:
            what = json.loads(await self._lines.receive_until(b"\n", MAX_LINE))
        except anyio.DelimiterNotFound as error:
            raise ValueError(str(error)) from None
        if not isinstance(what, dict):
            raise ValueError("this is no object")
        return what

    async def aclose(self) -> None:
        await self._stream.aclose()
