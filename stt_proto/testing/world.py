"""A world: nodes, the links between them, and virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from itertools import count
from math import inf
from types import TracebackType
from typing import Any, Self

from attrs import evolve

from stt_proto.config import Config
from stt_proto.endpoint import Admit
from stt_proto.errors import ArgumentError
from stt_proto.events import SessionClosed
from stt_proto.identity import Identity
from stt_proto.lifecycle import NamespaceOf
from stt_proto.manager import SessionManager
from stt_proto.session.trace import KeyLog, Trace
from stt_proto.testing.checks import AGES, check_callable, check_seconds, check_type, refusal
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
LAST_CLOSED = 4
"""Closed sessions that it names."""

Tap = Callable[[bytes, NetworkPath], "bytes | None"]
"""What sees each datagram and its path, and gives what shall be sent instead, or `None` for nothing."""


class World:
    """Everything there is, from one seed.

    In a `with` statement, whatever fails inside gets a line that makes the same world again, and, with `record`, the
    last of what was on the wire.

    Args:
        seed: the same seed gives the same world, byte for byte.
        conditions: of links that are not set up one by one.
        record: keep a `transcript`, with every datagram in it.

    Raises:
        ArgumentError: `conditions` are none. Every method raises it at once for an argument of another type or out of
            range, and for a node of another world.

    Attributes:
        seed, conditions: as given.
        now: virtual time, seconds; begins at 0.
        unix_time: the wall clock when it was 0.
        random: for tests that want a say in what happens.
        nodes: by address.
        hosts: of translators of addresses, that they have or had.
        links: by the two addresses of a direction; one that is missing is made when it is first used.
        taps: called with each datagram and its path before it enters the link; give what shall be sent instead, or
            `None` for nothing.
        datagrams: how many have arrived.
        transcript: everything on the wire, or `None`.
    """

    def __init__(self, seed: int, conditions: Conditions | None = None, *, record: bool = False) -> None:
        check_type("conditions", conditions, Conditions | None)
        self.seed = seed
        self.now = 0.0
        self.unix_time = 1_700_000_000.0
        self.random = random.Random(f"{seed}/network")
        self.conditions = Conditions() if conditions is None else conditions
        self.nodes: dict[Hashable, Node] = {}
        self.hosts: dict[str, Nat] = {}
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

        Raises:
            ArgumentError: another node has the name or the address; the configuration is wrong.
        """
        check_type("name", name, str)
        if any(node.name == name for node in self.nodes.values()):
            raise ArgumentError(f"name is {name!r}, and there is such a node", argument="name")
        address = (name, 1) if address is None else address
        self.check_address(address)
        if config is None:
            seed = node_seed or SeededEntropy(f"{self.seed}/{name}/identity")(32)
            config = Config(identity=Identity.from_seed(seed), shared_seed=changes.pop("shared_seed", SHARED_SEED))
        options = {"trace": trace, "keylog": keylog, "manager": manager, "namespace_of": namespace_of}
        node = Node(self, name, evolve(config, **changes), admit, address, options)
        self.nodes[node.address] = node
        return node

    def check_address(self, address: Hashable, node: Node | None = None) -> None:
        """Refuse an address where another than this node is."""
        if address is None or self.nodes.get(address, node) is not node:
            raise refusal("address", address, "where no other node is")

    def address_of(self, name: str, node: Node) -> Hashable:
        """The first address of a node; refuse, as the argument of this name, what is no node of this world."""
        check_type(name, node, Node)
        if node.world is not self:
            raise refusal(name, node, "a node of this world")
        return node.address

    def link(self, one: Node, other: Node, there: Conditions, back: Conditions | None = None) -> tuple[Link, Link]:
        """Set up both directions between two nodes; gives the links one -> other and other -> one.

        They are new ones; only outages of those that were there go on, or will come.
        """
        source, target = self.address_of("one", one), self.address_of("other", other)
        check_type("there", there, Conditions)
        check_type("back", back, Conditions | None)
        links = Link(there, self.random), Link(there if back is None else back, self.random)
        for ends, link in zip(((source, target), (target, source)), links, strict=True):
            if ends in self.links:
                link.take_the_place_of(self.links[ends])
            self.links[ends] = link
        return links

    def nat(
        self,
        *nodes: Node,
        host: str | None = None,
        timeout: float = inf,
        symmetric: bool = False,
        filtering: bool = True,
    ) -> Nat:
        """Put nodes behind a translator of addresses, with the traits of `Nat`.

        Args:
            nodes: that are behind it, with their first address.
            host: its public address; "nat", "nat2" and so on when `None`.
            timeout: seconds, as for `Nat`.
            symmetric: as for `Nat`.
            filtering: likewise.
        """
        inside = [self.address_of("nodes", node) for node in nodes]
        if host is None:
            names = ("nat" if number == 1 else f"nat{number}" for number in count(1))
            host = next(name for name in names if name not in self.hosts)
        nat = Nat(host, timeout=timeout, symmetric=symmetric, filtering=filtering, world=self)
        self._nats.append(nat)
        self._behind.update((address, nat) for address in inside)
        return nat

    def outage(self, one: Node, other: Node, start: float, seconds: float = inf) -> None:
        """Cut both directions between two nodes from a time on, for so long. `Link.outage` cuts one."""
        source, target = self.address_of("one", one), self.address_of("other", other)
        for link in (self.link_between(source, target), self.link_between(target, source)):
            link.outage(start, seconds)
        self.remark(f"{one.name} and {other.name} are cut off from {start:g} to {start + seconds:g} s")

    def link_between(self, source: Node | Hashable, target: Node | Hashable) -> Link:
        """The link of a direction, from and to a node or an address; with the conditions of the world if not set up."""
        source = self.address_of("source", source) if isinstance(source, Node) else source
        target = self.address_of("target", target) if isinstance(target, Node) else target
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
        else:
            self.note_end(data, path, ecn, "not let in by the nat" if target is None else "nobody there")

    def note_end(self, data: bytes, path: NetworkPath, ecn: int, fate: str) -> None:
        """Tell the transcript, if there is one, of what has arrived and is not taken in."""
        if self.transcript is not None:
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
        """Do something at a time, or next when that is past. `Node.at` goes by the clock of a host.

        A command to a session or stream needs a `Node.pump` after it, here too.
        """
        check_seconds("time", time, -AGES)
        check_callable("action", action)
        self.schedule(time, action)

    def schedule(self, time: float, action: Callable[[], None]) -> None:
        """`at`, for hosts, which do it all the time and do it right."""
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
        """Let so much virtual time pass. No node is pumped: what a test has just written waits for `Node.pump`."""
        check_seconds("seconds", seconds)
        end = self.now + seconds
        while self._agenda and self._agenda[0][0] <= end:
            self.step()
        self.now = end

    def run_until(self, condition: Callable[[], object], timeout: float = 60.0) -> None:
        """Let time pass until something holds. No node is pumped: what a test has just written waits for `Node.pump`.

        Args:
            condition: is called after each step, and holds when it gives something true.
            timeout: virtual seconds; `inf` for as long as anything is left to happen.

        Raises:
            ArgumentError: `condition` gives something that is to be called, as `lambda: session.is_active` does.
            AssertionError: it does not hold within `timeout`; the message names the seed, and what was closed and why.
        """
        check_callable("condition", condition)
        check_seconds("timeout", timeout, endless=True)
        if callable(held := self._run_until(condition, timeout, lambda: "not reached")):
            raise ArgumentError(f"condition gives {held!r}, which always holds; call it", argument="condition")

    def _run_until(self, condition: Callable[[], object], timeout: float, complaint: Callable[[], str]) -> object:
        end = self.now + timeout
        while not (held := condition()):
            if not self._agenda:
                spent = f", and nothing is left to happen at {self.now:g} s"
            elif self._agenda[0][0] > end:
                spent = f" within {timeout:g} s of virtual time"
            else:
                self.step()
                continue
            raise AssertionError(f"{complaint()}{spent} in {self}{self._closed()}")
        return held

    def _closed(self) -> str:
        """The last sessions that were closed, and why."""
        closed = [
            f"; {node.name} has {session}: {session.close_error!r}"
            for node in dict.fromkeys(self.nodes.values())
            for _, session, event in node.log
            if session is not None and isinstance(event, SessionClosed)
        ]
        return "".join(closed[-LAST_CLOSED:])

    # -- rest ------------------------------------------------------------------------------------------------------

    def settle(self, timeout: float = 60.0) -> None:
        """Let time pass until all is quiet: nothing on the wire, nothing unacknowledged, no session half begun.

        Raises:
            AssertionError: it does not become quiet within `timeout` virtual seconds.
        """
        check_seconds("timeout", timeout, endless=True)
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
        check_seconds("within", within, endless=True)
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
