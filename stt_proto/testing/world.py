"""A world: nodes, the links between them, and virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from math import inf
from types import TracebackType
from typing import Any, Self

from attrs import evolve

from stt_proto.config import Config
from stt_proto.endpoint import Admit
from stt_proto.identity import Identity
from stt_proto.lifecycle import NamespaceOf
from stt_proto.manager import SessionManager
from stt_proto.session.trace import KeyLog, Trace
from stt_proto.testing.conditions import Conditions
from stt_proto.testing.entropy import SeededEntropy
from stt_proto.testing.link import Link, Traffic
from stt_proto.testing.nat import Nat
from stt_proto.testing.node import Node
from stt_proto.testing.probe import held, unrest
from stt_proto.testing.transcript import Entry, Transcript
from stt_proto.types import NetworkPath

SHARED_SEED = b"the seed that all nodes of a test share"
LAST_LINES = 20
"""Lines of the transcript that a failure shows."""

Tap = Callable[[bytes, NetworkPath], "bytes | None"]


class World:
    """Everything there is, from one seed.

    In a `with` statement, whatever fails inside gets a line that makes the same world again, and, with `record`, the
    last of what was on the wire.

    Args:
        seed: the same seed gives the same world, byte for byte.
        conditions: of links that are not set up one by one.
        record: keep a `transcript`, with every datagram in it.

    Attributes:
        seed, conditions: as given.
        now: virtual time, seconds; begins at 0.
        unix_time: the wall clock when it was 0.
        random: for tests that want a say in what happens.
        nodes: by address.
        links: by the two addresses of a direction; one that is missing is made when it is first used.
        taps: called with each datagram and its path before it enters the link; give what shall be sent instead, or
            `None` for nothing.
        datagrams: how many have arrived.
        transcript: everything on the wire, or `None`.
    """

    def __init__(self, seed: int, conditions: Conditions | None = None, *, record: bool = False) -> None:
        self.seed = seed
        self.now = 0.0
        self.unix_time = 1_700_000_000.0
        self.random = random.Random(f"{seed}/network")
        self.conditions = conditions or Conditions()
        self.nodes: dict[Hashable, Node] = {}
        self.links: dict[tuple[Hashable, Hashable], Link] = {}
        self.datagrams = 0
        self.taps: list[Tap] = []
        self.transcript = Transcript() if record else None
        self._agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = 0
        self._in_flight = 0
        self._returns: dict[NetworkPath, NetworkPath] = {}
        self._nats: list[Nat] = []
        self._behind: dict[Hashable, Nat] = {}

    # -- what there is ---------------------------------------------------------------------------------------------

    def node(
        self,
        name: str,
        *,
        node_seed: bytes | None = None,
        config: Config | None = None,
        admit: Admit | None = None,
        address: Hashable = None,
        trace: Trace | None = None,
        keylog: KeyLog | None = None,
        manager: SessionManager | None = None,
        namespace_of: NamespaceOf | None = None,
        **changes: Any,
    ) -> Node:
        """Add a node.

        Args:
            name: of the node, unlike any other's here.
            node_seed: of its identity; made up from the world's seed and the name when `None`.
            config: its configuration, instead of one with that identity and `SHARED_SEED`.
            admit: as for `Endpoint`.
            address: where it is, usually `(host, port)`; `(name, 1)` when `None`.
            trace: as for `Endpoint`.
            keylog: likewise.
            manager: as for `Endpoint`, made at the time of the world.
            namespace_of: as for `Endpoint`.
            changes: fields of its `Config` that are to be otherwise.
        """
        if config is None:
            seed = node_seed or SeededEntropy(f"{self.seed}/{name}/identity")(32)
            config = Config(identity=Identity.from_seed(seed), shared_seed=changes.pop("shared_seed", SHARED_SEED))
        options = {"trace": trace, "keylog": keylog, "manager": manager, "namespace_of": namespace_of}
        node = Node(self, name, evolve(config, **changes), admit, address, options)
        self.nodes[node.address] = node
        return node

    def link(self, one: Node, other: Node, there: Conditions, back: Conditions | None = None) -> tuple[Link, Link]:
        """Set up both directions between two nodes; gives the links one -> other and other -> one."""
        links = Link(there, self.random), Link(back or there, self.random)
        self.links[one.address, other.address], self.links[other.address, one.address] = links
        return links

    def nat(self, *nodes: Node, host: str = "nat", **traits: Any) -> Nat:
        """Put nodes behind a translator of addresses, with the traits of `Nat`."""
        nat = Nat(host, **traits)
        self._nats.append(nat)
        self._behind.update((node.address, nat) for node in nodes)
        return nat

    def outage(self, one: Node, other: Node, start: float, seconds: float = inf) -> None:
        """Cut both directions between two nodes from a time on, for so long. `Link.outage` cuts one."""
        for source, target in ((one.address, other.address), (other.address, one.address)):
            self.link_between(source, target).outage(start, seconds)

    def link_between(self, source: Hashable, target: Hashable) -> Link:
        """The link of a direction; with the conditions of the world when it was not set up."""
        link = self.links.get((source, target))
        if link is None:
            link = self.links[source, target] = Link(self.conditions, self.random)
        return link

    @property
    def traffic(self) -> Traffic:
        """What all links together have done."""
        total = Traffic()
        for link in dict.fromkeys(self.links.values()):
            total.add(link.traffic)
        return total

    # -- the wire --------------------------------------------------------------------------------------------------

    def send(self, datagram: bytes, path: NetworkPath, ecn: int = 0) -> None:
        """Put a datagram on the wire, as if `path.local` had sent it."""
        for tap in self.taps:
            tapped = tap(datagram, path)
            if tapped is None:
                if self.transcript is not None:
                    self.transcript.entries.append(Entry(self.now, path.local, path.remote, datagram, ecn, "taken"))
                return
            datagram = tapped
        back = self._returns.get(path)
        if back is None:
            back = self._returns[path] = NetworkPath(path.carrier, path.remote, path.local)
        target = path.remote
        if self._nats:
            back = NetworkPath(path.carrier, target, self._leave(path.local, target))
            target = self._wired_to(target)
        link = self.links.get((path.local, target)) or self.link_between(path.local, target)
        arrivals = link.carry(datagram, self.now, ecn)
        for at, data, marks in arrivals:
            self._in_flight += 1
            self._serial += 1
            heappush(self._agenda, (at, self._serial, self._deliver, (data, back, marks)))
        if self.transcript is not None:
            times = tuple(arrival.at for arrival in arrivals)
            entry = Entry(self.now, back.remote, back.local, datagram, ecn, link.fate, times)
            self.transcript.entries.append(entry)

    def _deliver(self, data: bytes, path: NetworkPath, ecn: int) -> None:
        self.datagrams += 1
        self._in_flight -= 1
        target: Hashable | None = path.local
        if self._nats:
            target = self._enter(path.local, path.remote)
        node = self.nodes.get(target)
        if node is not None:
            node.receive(data, path if target is path.local else evolve(path, local=target), ecn)
        elif self.transcript is not None:
            fate = "not let in by the nat" if target is None else "nobody there"
            self.transcript.entries.append(Entry(self.now, path.remote, path.local, data, ecn, fate))

    def _leave(self, source: Hashable, target: Hashable) -> Hashable:
        """The address from which the target sees the source send."""
        nat = self._behind.get(source)
        return source if nat is None or self._behind.get(target) is nat else nat.outbound(source, target, self.now)

    def _wired_to(self, target: Hashable) -> Hashable:
        """The node to which the wire to an address leads."""
        owners = (nat.owner(target) for nat in self._nats)
        return next((owner for owner in owners if owner is not None), target)

    def _enter(self, target: Hashable, source: Hashable) -> Hashable | None:
        """The address at which that arrives what was sent to another, or `None`."""
        for nat in self._nats:
            if nat.owner(target) is not None:
                return nat.inbound(target, source, self.now)
        behind = self._behind.get(target)
        return target if behind is None or self._behind.get(source) is behind else None

    def remark(self, text: str) -> None:
        """Put a line of text into the transcript, if there is one."""
        if self.transcript is not None:
            self.transcript.remark(self.now, text)

    # -- time ------------------------------------------------------------------------------------------------------

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        self._serial += 1
        heappush(self._agenda, (time, self._serial, action, ()))

    def step(self) -> bool:
        """Do the next thing; False when nothing is left to do."""
        if not self._agenda:
            return False
        time, _, action, arguments = heappop(self._agenda)
        if time > self.now:
            self.now = time
        action(*arguments)
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
        self._run_until(condition, timeout, lambda: "not reached")

    def _run_until(self, condition: Callable[[], object], timeout: float, complaint: Callable[[], str]) -> None:
        end = self.now + timeout
        while not condition():
            if not self._agenda or self._agenda[0][0] > end:
                raise AssertionError(f"{complaint()} within {timeout:g} s of virtual time in {self}")
            self.step()

    # -- rest ------------------------------------------------------------------------------------------------------

    def settle(self, timeout: float = 60.0) -> None:
        """Let time pass until all is quiet: nothing on the wire, nothing unacknowledged, no session half begun.

        Raises:
            AssertionError: it does not become quiet within `timeout` virtual seconds.
        """
        for node in self.nodes.values():
            node.pump()
        self._run_until(lambda: not self._in_flight and not self._restless(), timeout, self._unsettled)

    def _restless(self) -> str:
        for node in self.nodes.values():
            session = unrest(node.endpoint)
            if session is not None:
                return f"{node.name} has {session}"
        return ""

    def _unsettled(self) -> str:
        return f"not settled ({self._restless() or f'{self._in_flight} datagrams on the wire'})"

    def assert_idle(self, within: float = 30.0) -> None:
        """Let time pass until nothing is left of any session in any table of any node.

        Raises:
            AssertionError: something is left after so many virtual seconds; the message names it.
        """
        for node in self.nodes.values():
            node.pump()
        end = self.now + within
        while not all(node.idle for node in self.nodes.values()):
            if not self._agenda or self._agenda[0][0] > end:
                left = {node.name: held(node.endpoint) for node in self.nodes.values() if not node.idle}
                raise AssertionError(f"after {within:g} s of virtual time there is left: {left}, in {self}")
            self.step()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"the same again: {self!r}, at {self.now:.6f} s")
            if self.transcript is not None:
                error.add_note(f"the last of {len(self.transcript)} lines:\n{self.transcript.tail(LAST_LINES)}")

    def __repr__(self) -> str:
        conditions = "" if self.conditions == Conditions() else f", conditions={self.conditions!r}"
        return f"World(seed={self.seed}{conditions})"
