"""What a carrier is: the page that says how packets get from here to there.

The core seals packets and says on which *path* each goes; a carrier moves them. UDP and memory are carriers, and a
class of yours can be one (MQTT, a message queue, a radio): name it, describe it with `CarrierTraits`, and give it the
five methods below. A node takes it as `STTNode(..., carriers=[mine])` and dials over it with
`node.connect(address, transport=mine.name)`.

A carrier never waits inside `send`, never looks into a packet, and never decides anything about the protocol.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from stt_proto.types import Buffer, CarrierTraits, NetworkPath, Transmit

ALIASES = {"tcp": "stream", "websocket": "ws"}
"""What else a carrier may be called in `connect(transport=)`."""
HEAD_START = 0.25
"""Seconds that UDP has to answer before a WebSocket is tried beside it, where `connect` was given both."""


class Port(Protocol):
    """The node, as its carriers see it: where they put what arrives."""

    def receive(self, data: Buffer, path: NetworkPath, segment_size: int | None = None, ecn: int = 0) -> None:
        """Hand over one message, or with `segment_size` a run of datagrams of that size. `data` is only borrowed.

        `ecn` are the two ECN bits of the IP header, where they are known.
        """

    def pump(self) -> None:
        """Say that the batch is over: now the node answers, and wakes whoever waited."""

    def writable(self, path: NetworkPath | None = None) -> None:
        """Say that there is room again: on one path, or (`None`) on the carrier as a whole."""

    def path_closed(self, path: NetworkPath, reason: str | None = None) -> None:
        """Say that this path has ended or was refused; `reason` is `"refused"`, `"unreachable"` or a sentence."""

    def path_failed(self, path: NetworkPath, reason: str) -> None:
        """Say that nobody seems to be there, on a carrier that cannot be sure: ends attempts to come there."""

    def datagram_refused(self, path: NetworkPath, size: int, limit: int | None = None) -> None:
        """Say that a datagram of `size` bytes was too large for this machine, and if it is known what would not be."""

    def at_end(self, call: Callable[[], None]) -> None:
        """Have something done when the node has no more to send for now: write what `send` only gathered, say."""


class Outlet(Protocol):
    """The sending half of a carrier, which is all that the pump needs."""

    @property
    def per_path(self) -> bool: ...

    @property
    def joins_runs(self) -> bool: ...

    def send(self, transmit: Transmit) -> Transmit | None: ...

    def check_path(self, path: NetworkPath) -> None: ...

    def path_used(self, path: NetworkPath) -> None: ...

    def path_unused(self, path: NetworkPath) -> None: ...


class Carrier(ABC):
    """A way to move packets.

    Attributes:
        name: the carrier's name in paths, and its `transport=` in `connect`.
        traits: what the core must know of it.
        per_path: how it gets full. False: all of it at once, as a socket does. True: each path for itself, as
            connections do; then a full one holds up no other.
        joins_runs: whether datagrams of one size for one path had better come together, as a run with a
            `segment_size`, because that costs next to nothing more than one of them.
    """

    name: str
    traits: CarrierTraits
    per_path: ClassVar[bool] = False

    @property
    def joins_runs(self) -> bool:
        return False

    async def open(self) -> None:  # noqa: B027
        """Get ready: bind, listen. Called once when the node starts, which fails if this raises."""

    @abstractmethod
    async def run(self, port: Port) -> None:
        """Receive until cancelled: `port.receive` for each message, then `port.pump` once for the batch.

        What this raises ends the node.
        """

    @abstractmethod
    async def path_to(self, address: Any) -> NetworkPath:
        """Resolve an address given to `connect`, open what must be opened, and give the path.

        The same peer should give the same object. Raises `OSError` when there is no way.
        """

    @abstractmethod
    def send(self, transmit: Transmit) -> Transmit | None:
        """Send at once, without waiting.

        Returns:
            `None` when it was taken (sent, or lost as networks lose things); else what is left of it, which the node
            keeps and offers again after `port.writable`.

        Raises:
            OSError: the carrier is dead; this ends the node.
        """

    def check_path(self, path: NetworkPath) -> None:  # noqa: B027
        """The application has made a path itself, for `add_path` or `migrate`.

        Raises:
            ArgumentError: names what of it `send` would not take.
        """

    def path_used(self, path: NetworkPath) -> None:  # noqa: B027
        """A session has this path now, its peer having proven to be there. For carriers that keep connections."""

    def path_unused(self, path: NetworkPath) -> None:  # noqa: B027
        """A session, or an attempt at one or at a move, has it no more: what was opened for it can be closed."""

    def close(self) -> None:  # noqa: B027
        """Give everything back; called once, after `run` was cancelled."""
