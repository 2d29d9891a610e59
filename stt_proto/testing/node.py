"""A node: an endpoint at an address of a world, and the host that drives it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from math import inf, nextafter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from attrs import evolve

from stt_proto.config import Config
from stt_proto.endpoint import Admit, Endpoint
from stt_proto.events import Event
from stt_proto.session.session import Session
from stt_proto.testing.entropy import DeterministicKem, SeededEntropy
from stt_proto.testing.probe import held
from stt_proto.types import NetworkPath

if TYPE_CHECKING:
    from stt_proto.testing.world import World

MAX_TICKS = 1000
"""Times that a node may want to be woken at one moment before that counts as going round in circles."""

Listener = Callable[["Session | None", Event], None]


class Node:
    """An endpoint at an address of a world. `World.node` makes one.

    Attributes:
        name: of the node.
        address: where it is; `(name, 1)` if not told.
        config: of its endpoint.
        endpoint: the core.
        log: every event so far, `(time, session, event)`.
        on_event: called with `(session, event)` as they happen, to play an application.
        listeners: more of the same kind, called after it.
        awake: whether the host runs.
    """

    def __init__(
        self,
        world: World,
        name: str,
        config: Config,
        admit: Admit | None = None,
        address: Hashable = None,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.world = world
        self.name = name
        self.address: Hashable = (name, 1) if address is None else address
        self.config = config
        self.log: list[tuple[float, Session | None, Event]] = []
        self.on_event: Listener | None = None
        self.listeners: list[Listener] = []
        self.awake = True
        self._admit = admit
        self._options = options  # of its endpoint
        self._lives = 0
        self._skew = 0.0
        self._naps = 0
        self._buffer = 0
        self._buffered: deque[tuple[bytes, NetworkPath, int]] = deque()
        self._wake_at = inf
        self._ticks = 0
        self._ticked_at = -inf
        self.endpoint = self._make_endpoint()

    def _make_endpoint(self) -> Endpoint:
        world = self.world
        life = f"{world.seed}/{self.name}" + (f"/{self._lives}" if self._lives else "")
        return Endpoint(
            self.config,
            now=self.now,
            unix_time=world.unix_time + world.now,
            entropy=SeededEntropy(life),
            kem=DeterministicKem(SeededEntropy(f"{life}/kem")),
            admit=self._admit,
            **self._options,
        )

    # -- what a test asks ------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """What the clock of this host shows; that of the world, unless it was made to jump."""
        return self.world.now + self._skew

    @property
    def sessions(self) -> list[Session]:
        """The established sessions, in the order of their beginning."""
        return list(self.endpoint.sessions.values())

    @property
    def idle(self) -> bool:
        """Whether nothing is left of any session in any table of the endpoint."""
        return not held(self.endpoint)

    def also_at(self, address: Hashable) -> Hashable:
        """Give the node one more address, as with another interface or port; links to and from there are others."""
        self.world.nodes[address] = self
        return address

    def path_to(
        self, other: Node, carrier: str = "udp", *, local: Hashable = None, remote: Hashable = None
    ) -> NetworkPath:
        """The path from here to another node; between other addresses of theirs than the first, if told."""
        return NetworkPath(
            carrier, self.address if local is None else local, other.address if remote is None else remote
        )

    def connect(self, other: Node, carrier: str = "udp", **options: Any) -> Session:
        """Dial another node."""
        session = self.endpoint.connect(self.path_to(other, carrier), now=self.now, **options)
        self.pump()
        return session

    def events(self, kind: type[Any]) -> list[Any]:
        """Every event of one kind so far."""
        return [event for _, _, event in self.log if isinstance(event, kind)]

    # -- the host --------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """The four steps: send what there is to send, deliver events, re-arm the timer."""
        if not self.awake:
            return
        endpoint, world = self.endpoint, self.world
        now, send = self.now, world.send
        while True:
            for transmit in endpoint.transmits(now):
                path, ecn = transmit.path, transmit.ecn
                for datagram in transmit.datagrams():
                    send(datagram, path, ecn)
            happened = False
            for session, event in endpoint.events():
                happened = True
                self.log.append((world.now, session, event))
                if self.on_event is not None:
                    self.on_event(session, event)
                for listener in tuple(self.listeners):
                    listener(session, event)
            if not happened:
                break
        deadline = endpoint.next_deadline()
        if deadline is not None:
            wake_at = deadline.at - self._skew
            while wake_at + self._skew < deadline.at:  # rounding must not wake it too early, again and again
                wake_at = nextafter(wake_at, inf)
            if wake_at < self._wake_at:
                self._wake_at = wake_at
                world.at(max(wake_at, world.now), partial(self._tick, wake_at))

    def receive(self, data: bytes, path: NetworkPath, ecn: int = 0) -> None:
        """The network brings a datagram."""
        if self.awake:
            self.endpoint.receive(data, path, self.now, ecn=ecn)
            self.pump()
        elif len(data) <= self._buffer:
            self._buffer -= len(data)
            self._buffered.append((data, path, ecn))

    def _tick(self, at: float) -> None:
        if at != self._wake_at or not self.awake:
            return  # an earlier one took its place, or `resume` will see to it
        now = self.world.now
        self._ticks = self._ticks + 1 if now == self._ticked_at else 1
        self._ticked_at = now
        if self._ticks > MAX_TICKS:
            reason = self.endpoint.next_deadline()
            raise AssertionError(f"{self.name} wants to be woken for ever at {now:g}: {reason}, in {self.world}")
        self._wake()

    def _wake(self) -> None:
        self._wake_at = inf
        self.endpoint.tick(self.now)
        self.pump()

    # -- what befalls it -------------------------------------------------------------------------------------------

    def jump_clock(self, seconds: float) -> None:
        """Set the monotonic clock of this host forward, or back with a negative number; the world's goes on."""
        self.world.remark(f"the clock of {self.name} jumps by {seconds:g} s")
        self._skew += seconds
        if self.awake:
            self._wake()

    def pause(self, seconds: float = inf, *, buffer: int = 0) -> None:
        """Let the host sleep: it takes nothing in, sends nothing, and its timers are late.

        Args:
            seconds: until it wakes; without them, until `resume`.
            buffer: bytes of datagrams that the system keeps for it, as for a process that is stopped; what comes on
                top is lost. With 0 all of it, as for a computer that is suspended.
        """
        self.world.remark(f"{self.name} falls asleep")
        self.awake = False
        self._naps += 1
        self._buffer = buffer
        if seconds < inf:
            self.world.at(self.world.now + seconds, partial(self._resume_from, self._naps))

    def _resume_from(self, nap: int) -> None:
        if nap == self._naps:
            self.resume()

    def resume(self) -> None:
        """Wake the host: it finds what was kept for it, and notices what time it is."""
        if self.awake:
            return
        self.world.remark(f"{self.name} wakes")
        self.awake = True
        while self._buffered:
            data, path, ecn = self._buffered.popleft()
            self.endpoint.receive(data, path, self.now, ecn=ecn)
        self._wake()

    def restart(self, downtime: float = 0.0, **changes: Any) -> None:
        """Let the process end without a word and begin anew: it has its configuration, and remembers nothing else.

        A `reset_key` in the configuration stays the same; without one it is another one each time, as in earnest.

        Args:
            downtime: seconds for which nothing is there; what arrives meanwhile is lost.
            changes: fields of its `Config` that are to be otherwise from now on.
        """
        self.world.remark(f"{self.name} restarts")
        self._lives += 1
        self.config = evolve(self.config, **changes)
        self.endpoint = self._make_endpoint()
        self._buffered.clear()
        self._wake_at = inf
        if downtime:
            self.pause(downtime)
        else:
            self.resume()

    def __repr__(self) -> str:
        return f"<Node {self.name}>"
