"""A node: an endpoint at an address of a world, and the host that drives it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from heapq import heappop, heappush
from math import inf, nextafter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve

from stt_proto.config import Config
from stt_proto.endpoint import Admit, Endpoint
from stt_proto.events import Event
from stt_proto.session.session import Session
from stt_proto.testing.checks import AGES, check_callable, check_seconds, is_whole, refusal
from stt_proto.testing.entropy import DeterministicKem, SeededEntropy
from stt_proto.testing.probe import held
from stt_proto.tickets import Ticket
from stt_proto.types import NetworkPath

if TYPE_CHECKING:
    from stt_proto.testing.world import World

MAX_TICKS = 1000
"""Times that a node may want to be woken at one moment before that counts as going round in circles."""

Listener = Callable[["Session | None", Event], None]
"""What is called with each event and the session that it is about, `None` for one of the endpoint itself."""

E = TypeVar("E")


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
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timers_set = 0
        self._wake_at = inf
        self._ticks = 0
        self._ticked_at = -inf
        self.endpoint = self._make_endpoint(config, 0)

    def _make_endpoint(self, config: Config, lives: int) -> Endpoint:
        world = self.world
        life = f"{world.seed}/{self.name}" + (f"/{lives}" if lives else "")
        return Endpoint(
            config,
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
        """Give the node one more address, as with another interface or port; links to and from there are others.

        It is in front of a translator of addresses behind which the node may be.

        Raises:
            ArgumentError: another node is there.
        """
        self.world.check_address(address, self)
        self.world.nodes[address] = self
        return address

    def path_to(
        self, other: Node, carrier: str = "udp", *, local: Hashable = None, remote: Hashable = None
    ) -> NetworkPath:
        """The path from here to another node; between other addresses of theirs than the first, if told.

        Raises:
            ArgumentError: `other` is no node of the same world.
        """
        self.world.address_of("other", other)
        return NetworkPath(
            carrier, self.address if local is None else local, other.address if remote is None else remote
        )

    def connect(
        self,
        other: Node,
        carrier: str = "udp",
        *,
        peer_node_id: bytes | None = None,
        ticket: Ticket | None = None,
        early_data: bytes = b"",
    ) -> Session:
        """Dial another node of the same world, as `Endpoint.connect` does, and pump."""
        path = self.path_to(other, carrier)
        session = self.endpoint.connect(path, peer_node_id, ticket, early_data, now=self.now)
        self.pump()
        return session

    def events(self, kind: type[E]) -> list[E]:
        """Every event of one kind so far."""
        return [event for _, _, event in self.log if isinstance(event, kind)]

    # -- the host --------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """The four steps: send what there is to send, deliver events, re-arm the timer.

        Needed after every command that a test gives to a session or stream, outside of a listener.
        """
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
            self._wake_by(deadline.at)
        if self._timers:
            self._wake_by(self._timers[0][0])

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something when the clock of this host shows a time, as a timer of its application would.

        If it sleeps then, it does so when it wakes; when it restarts before, never.
        """
        check_seconds("time", time, -AGES)
        check_callable("action", action)
        self._timers_set += 1
        heappush(self._timers, (time, self._timers_set, action))
        self._wake_by(time)

    def _wake_by(self, time: float) -> None:
        """Let the world wake this host when its clock shows a time, unless it does so earlier."""
        wake_at = time - self._skew
        while wake_at + self._skew < time:  # rounding must not wake it too early, again and again
            wake_at = nextafter(wake_at, inf)
        if wake_at < self._wake_at:
            self._wake_at = wake_at
            self.world.schedule(max(wake_at, self.world.now), partial(self._tick, wake_at))

    def receive(self, data: bytes, path: NetworkPath, ecn: int = 0) -> None:
        """The network brings a datagram."""
        if self.awake:
            self.endpoint.receive(data, path, self.now, ecn=ecn)
            self.pump()
            return
        kept = len(data) <= self._buffer
        if kept:
            self._buffer -= len(data)
            self._buffered.append((data, path, ecn))
        self.world.note_end(data, path, ecn, "asleep, kept" if kept else "asleep")

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
        timers, newest = self._timers, self._timers_set
        while self.awake and timers and timers[0][0] <= self.now and timers[0][1] <= newest:
            heappop(timers)[2]()
        if self.awake:
            self.endpoint.tick(self.now)
            self.pump()

    # -- what befalls it -------------------------------------------------------------------------------------------

    def jump_clock(self, seconds: float) -> None:
        """Set the monotonic clock of this host forward, or back with a negative number; the world's goes on."""
        check_seconds("seconds", seconds, -AGES)
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
        check_seconds("seconds", seconds, endless=True)
        if not is_whole(buffer):
            raise refusal("buffer", buffer, "a whole number of bytes, at least 0")
        self.world.remark(f"{self.name} falls asleep")
        self.awake = False
        self._naps += 1
        self._buffer = buffer
        if seconds < inf:
            self.world.schedule(self.world.now + seconds, partial(self._resume_from, self._naps))

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
            downtime: seconds for which nothing is there; what arrives meanwhile is lost. With `inf` until `resume`.
            changes: fields of its `Config` that are to be otherwise from now on.
        """
        check_seconds("downtime", downtime, endless=True)
        config = evolve(self.config, **changes)
        endpoint = self._make_endpoint(config, self._lives + 1)
        self.world.remark(f"{self.name} restarts")
        self.config, self.endpoint = config, endpoint
        self._lives += 1
        self._buffered.clear()
        self._timers.clear()
        self._wake_at = inf
        if downtime:
            self.pause(downtime)
        else:
            self.resume()

    def __repr__(self) -> str:
        return f"<Node {self.name}>"
