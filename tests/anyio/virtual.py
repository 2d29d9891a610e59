"""Event loops whose clock jumps to the next deadline when nobody has anything to do, and a radio that can be silent.

    @pytest.fixture(params=LOOPS)
    def anyio_backend(request):
        return virtual(request.param)

Nothing in such a test may wait for a thread or another process: the clock does not.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sniffio
import trio
from trio.testing import MockClock

from stt_anyio import STTNode
from stt_anyio.memory import MemoryCarrier, MemoryNetwork
from stt_proto.config import CARRIERS
from stt_proto.types import Transmit

LOOPS = ["asyncio", "trio"]


class _JumpSelector(selectors.DefaultSelector):
    """Never waits: what it is told to wait is added up."""

    waited = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nobody will ever do anything again"
            self.waited += max(timeout, 0.0)
        return ready


class JumpLoop(asyncio.SelectorEventLoop):
    """A loop for which no time passes but that which it waits."""

    def __init__(self) -> None:
        self._jumping = _JumpSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return 1000.0 + self._jumping.waited


def virtual(loop: str) -> tuple[str, dict[str, Any]]:
    """A backend of anyio's in virtual time."""
    if loop == "trio":
        return loop, {"clock": MockClock(autojump_threshold=0)}
    return loop, {"loop_factory": JumpLoop}


def tasks_alive() -> int:
    """Tasks of the loop that is running."""
    if sniffio.current_async_library() == "trio":
        return trio.lowlevel.current_statistics().tasks_living
    return len(asyncio.all_tasks())


class Radio(MemoryCarrier):
    """Like UDP: what is sent may vanish. `silent` radios send nothing, and hear nothing.

    Args:
        network, address: as for `MemoryCarrier`.
        name: of the carrier.
    """

    name = "radio"
    traits = CARRIERS["udp"]
    silent = False

    def __init__(self, network: MemoryNetwork, address: str, name: str = "radio") -> None:
        super().__init__(network, address)
        self.name = name

    def send(self, transmit: Transmit) -> Transmit | None:
        peer = self._network.carriers.get(transmit.path.remote)
        if self.silent or (isinstance(peer, Radio) and peer.silent):
            return None
        return super().send(transmit)


class Town:
    """Nodes on one network, by name."""

    def __init__(self) -> None:
        self.network = MemoryNetwork()
        self.radios: dict[str, Radio] = {}

    def radio(self, name: str) -> Radio:
        """The carrier of a node that the test makes itself."""
        self.radios[name] = Radio(self.network, name)
        return self.radios[name]

    @asynccontextmanager
    async def node(self, name: str, **options: Any) -> AsyncIterator[STTNode]:
        """One that accepts sessions."""
        options = {"shared_seed": "x", "server_mode": True, **options}
        async with STTNode(carriers=[self.radio(name)], **options) as node:
            yield node
