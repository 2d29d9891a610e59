"""A world: nodes, the links between them, and virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from math import inf
from typing import Any

from attrs import evolve

from stt_proto.config import Config
from stt_proto.endpoint import Admit, Endpoint
from stt_proto.events import Event
from stt_proto.identity import Identity
from stt_proto.session.session import Session
from stt_proto.testing.entropy import DeterministicKem, SeededEntropy
from stt_proto.testing.link import Conditions, Link
from stt_proto.types import NetworkPath

SHARED_SEED = b"the seed that all nodes of a test share"
MAX_TICKS = 1000
"""Times that a node may want to be woken at one moment before that counts as going round in circles."""


class Node:
    """An endpoint at an address of a world.

    Attributes:
        name: of the node; its address is `(name, port)`.
        endpoint: the core.
        log: every event so far, `(time, session, event)`.
        on_event: called with `(session, event)` as they happen, to play an application.
    """

    def __init__(self, world: World, name: str, config: Config, admit: Admit | None = None) -> None:
        self.world = world
        self.name = name
        self.address = (name, 1)
        self.config = config
        self.endpoint = Endpoint(
            config,
            now=world.now,
            unix_time=world.unix_time + world.now,
            entropy=SeededEntropy(f"{world.seed}/{name}"),
            kem=DeterministicKem(SeededEntropy(f"{world.seed}/{name}/kem")),
            admit=admit,
        )
        self.log: list[tuple[float, Session | None, Event]] = []
        self.on_event: Callable[[Session | None, Event], None] | None = None
        self._tick_at = inf
        self._ticks = 0
        self._ticked_at = -inf

    def path_to(self, other: Node, carrier: str = "udp") -> NetworkPath:
        """The path from here to another node."""
        return NetworkPath(carrier, self.address, other.address)

    def connect(self, other: Node, carrier: str = "udp", **options: Any) -> Session:
        """Dial another node."""
        session = self.endpoint.connect(self.path_to(other, carrier), now=self.world.now, **options)
        self.pump()
        return session

    def events(self, kind: type[Any]) -> list[Any]:
        """Every event of one kind so far."""
        return [event for _, _, event in self.log if isinstance(event, kind)]

    def pump(self) -> None:
        """The four steps: send what there is to send, deliver events, re-arm the timer."""
        now, endpoint, world = self.world.now, self.endpoint, self.world
        while True:
            for transmit in endpoint.transmits(now):
                for datagram in transmit.datagrams():
                    world.send(datagram, transmit.path, transmit.ecn)
            happened = False
            for session, event in endpoint.events():
                happened = True
                self.log.append((now, session, event))
                if self.on_event is not None:
                    self.on_event(session, event)
            if not happened:
                break
        deadline = endpoint.next_deadline()
        if deadline is not None and deadline.at < self._tick_at:
            self._tick_at = deadline.at
            world.at(max(deadline.at, now), partial(self._tick, deadline.at))

    def _tick(self, at: float) -> None:
        if at != self._tick_at:
            return  # an earlier one took its place
        now = self.world.now
        self._ticks = self._ticks + 1 if now == self._ticked_at else 1
        self._ticked_at = now
        if self._ticks > MAX_TICKS:
            reason = self.endpoint.next_deadline()
            raise AssertionError(f"{self.name} wants to be woken for ever at {now:g}: {reason}, {self.world}")
        self._tick_at = inf
        self.endpoint.tick(now)
        self.pump()


class World:
    """Everything there is, from one seed.

    Args:
        seed: the same seed gives the same world, byte for byte.
        conditions: of links that are not set up one by one.
    """

    def __init__(self, seed: int, conditions: Conditions | None = None) -> None:
        self.seed = seed
        self.now = 0.0
        self.unix_time = 1_700_000_000.0
        self.random = random.Random(f"{seed}/network")
        self.conditions = conditions or Conditions()
        self.nodes: dict[tuple[str, int], Node] = {}
        self.links: dict[tuple[Any, Any], Link] = {}
        self.datagrams = 0
        self.taps: list[Callable[[bytes, NetworkPath], bytes | None]] = []
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = 0

    def node(
        self,
        name: str,
        *,
        node_seed: bytes | None = None,
        config: Config | None = None,
        admit: Admit | None = None,
        **changes: Any,
    ) -> Node:
        """Add a node.

        Args:
            name: of the node, unlike any other's here; its address is `(name, 1)`.
            node_seed: of its identity; made up from the world's seed and the name when `None`.
            config: its configuration, instead of one with that identity and `SHARED_SEED`.
            admit: as for `Endpoint`.
            changes: fields of its `Config` that are to be otherwise.
        """
        if config is None:
            seed = node_seed or SeededEntropy(f"{self.seed}/{name}/identity")(32)
            config = Config(identity=Identity.from_seed(seed), shared_seed=changes.pop("shared_seed", SHARED_SEED))
        node = Node(self, name, evolve(config, **changes), admit)
        self.nodes[node.address] = node
        return node

    def link(self, one: Node, other: Node, there: Conditions, back: Conditions | None = None) -> tuple[Link, Link]:
        """Set up both directions between two nodes; gives the links one -> other and other -> one."""
        links = Link(there, self.random), Link(back or there, self.random)
        self.links[one.address, other.address], self.links[other.address, one.address] = links
        return links

    def send(self, datagram: bytes, path: NetworkPath, ecn: int = 0) -> None:
        """Put a datagram on the wire, as if `path.local` had sent it."""
        for tap in self.taps:
            tapped = tap(datagram, path)
            if tapped is None:
                return
            datagram = tapped
        link = self.links.get((path.local, path.remote))
        if link is None:
            link = self.links[path.local, path.remote] = Link(self.conditions, self.random)
        back = NetworkPath(path.carrier, path.remote, path.local)
        for arrives, data in link.carry(datagram, self.now):
            self.at(arrives, partial(self._deliver, data, back, ecn))

    def _deliver(self, data: bytes, path: NetworkPath, ecn: int) -> None:
        self.datagrams += 1
        node = self.nodes.get(path.local)  # type: ignore[call-overload]
        if node is not None:
            node.endpoint.receive(data, path, self.now, ecn=ecn)
            node.pump()

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        self._serial += 1
        heappush(self._agenda, (time, self._serial, action))

    def step(self) -> bool:
        """Do the next thing; False when nothing is left to do."""
        if not self._agenda:
            return False
        time, _, action = heappop(self._agenda)
        self.now = max(self.now, time)
        action()
        return True

    def run(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        end = self.now + seconds
        while self._agenda and self._agenda[0][0] <= end:
            self.step()
        self.now = end

    def run_until(self, condition: Callable[[], object], timeout: float = 60.0) -> None:
        """Let time pass until something holds.

        Raises:
            AssertionError: it does not hold within `timeout` virtual seconds; the message names the seed.
        """
        end = self.now + timeout
        while not condition():
            if not self._agenda or self._agenda[0][0] > end:
                raise AssertionError(f"not reached within {timeout:g} s of virtual time in {self}")
            self.step()

    def __repr__(self) -> str:
        return f"World(seed={self.seed})"
