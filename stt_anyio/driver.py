"""The pump: what every host does after every call on the core, in four steps.

1. Take every transmit and hand it to its carrier.
2. Deliver every event.
3. Arm the timer, if the core now wants to be woken earlier than before.
4. Nothing else.

There is no waiting in here, so the asyncio, trio and blocking hosts share it. What differs between them stands outside:
who waits for the socket and the timer, and what `deliver` wakes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from stt_anyio.carrier import Outlet
from stt_anyio.runs import Runs
from stt_proto import Endpoint, Session
from stt_proto.events import Event
from stt_proto.types import Buffer, NetworkPath, Transmit

SENDS_PER_PUMP = 64
"""Transmits after which others on the event loop get their turn, though the core has more; it goes on at once."""
SMALL = 1500
"""Bytes of a write that may wait for others to leave with."""
GATHERED = 32
"""Small writes after which they leave, though more come; fewer than an application's queues hold."""
_BLOCKED_PAUSE = 0.001
"""Seconds between two ticks while the socket is full: what is due then cannot be sent anyway."""


class Driver:
    """Pumps one endpoint.

    Args:
        endpoint: the core.
        clock: seconds on a monotonic clock, the one that `arm` is told times of.
        outlets: the carriers, by name.
        deliver: takes each event; must not raise.
        arm: called with a time earlier than any that is armed; the host then calls `tick` at that time.
        fail: called when a carrier died under a send; nothing is taken from the core from then on.
        path_failed: called with a path and a reason when the system says that nobody is there.
        sends_per_pump: transmits after which one pump stops and asks to be called again at once.
        gather: called when small writes begin to come one upon the other; the host then looks at `written`, and calls
            `pump_gathered` as soon as no more of them come. Without it each leaves by itself.

    Attributes:
        armed: when `tick` is due; `inf` when never.
        gathering: whether small writes wait for those that follow them.
        written: small writes since the application took something that had arrived, or since as many as may be
            gathered have left.
    """

    __slots__ = (
        "_again",
        "_arm",
        "_at_end",
        "_budget",
        "_deliver",
        "_fail",
        "_gather",
        "_held",
        "_held_paths",
        "_outlets",
        "_pumping",
        "_runs",
        "armed",
        "clock",
        "endpoint",
        "gathering",
        "path_failed",
        "written",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        clock: Callable[[], float],
        outlets: Mapping[str, Outlet],
        deliver: Callable[[Session | None, Event], None],
        arm: Callable[[float], None],
        fail: Callable[[OSError], None],
        path_failed: Callable[[NetworkPath, str], None],
        sends_per_pump: float = inf,
        gather: Callable[[], None] | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.clock = clock
        self.armed = inf
        self._outlets = outlets
        self._deliver = deliver
        self._arm = arm
        self._fail = fail
        self.path_failed = path_failed
        self._budget = sends_per_pump
        self._gather = gather
        self.gathering = False
        self.written = 0
        self._held: Transmit | None = None
        self._held_paths: dict[NetworkPath, Transmit] = {}
        self._runs = Runs()
        self._at_end: list[Callable[[], None]] = []
        self._pumping = False
        self._again = False

    # -- bytes and time in -----------------------------------------------------------------------------------------

    def receive(self, data: Buffer, path: NetworkPath, segment_size: int | None = None, ecn: int = 0) -> None:
        """Hand over what arrived; `pump` after the batch."""
        self.endpoint.receive(data, path, self.clock(), segment_size, ecn)

    def tick(self) -> None:
        """The timer went off."""
        self.armed = inf
        self.endpoint.tick(self.clock())
        self.pump()

    def path_closed(self, path: NetworkPath, reason: str | None = None) -> None:
        """A carrier says that a path has ended."""
        self._held_paths.pop(path, None)
        self._runs.forget(path)
        self.endpoint.path_closed(path, self.clock(), reason)
        self.pump()

    def datagram_refused(self, path: NetworkPath, size: int, limit: int | None = None) -> None:
        """A datagram was too large for this machine."""
        self.endpoint.datagram_refused(path, size, self.clock(), limit)
        self.pump()

    def writable(self, path: NetworkPath | None = None) -> None:
        """A carrier has room again: send what was kept, then go on."""
        if path is None:
            held, self._held = self._held, None
        else:
            held = self._held_paths.pop(path, None)
            if held is not None:
                self.endpoint.path_writable(path, True, self.clock())
        if held is not None:
            self._send(held)
        self.pump()

    def at_end(self, call: Callable[[], None]) -> None:
        """A carrier wants to write what it has gathered."""
        self._at_end.append(call)

    def check_path(self, path: NetworkPath) -> None:
        """See that the carrier of a path would take it; of carriers that there are not the core says so."""
        if isinstance(path, NetworkPath) and (outlet := self._outlets.get(path.carrier)) is not None:
            outlet.check_path(path)

    def path_used(self, path: NetworkPath) -> None:
        """A session uses a path."""
        self._outlets[path.carrier].path_used(path)

    def path_unused(self, path: NetworkPath) -> None:
        """A session, or an attempt at one, uses it no more."""
        self._outlets[path.carrier].path_unused(path)

    def close(self) -> None:
        """Stop for good: calls that come later, on what is over anyway, send nothing."""
        self._pumping = True

    # -- the four steps --------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Send, deliver, arm. Called in the middle of itself, by whatever an event set off, it goes round once more."""
        if self._pumping:
            self._again = True
            return
        if self.endpoint.is_idle and self._held is None and self.armed != inf:
            return
        self._pumping = True
        try:
            endpoint, deliver, budget = self.endpoint, self._deliver, self._budget
            now = self.clock()
            while True:
                self._again = False
                while budget and self._held is None and (transmit := endpoint.next_transmit(now)) is not None:
                    self._put(transmit)
                    budget -= 1
                if self._runs:
                    self._runs.finish()
                    self._send_runs()
                while self._at_end:
                    self._at_end.pop()()
                for session, event in endpoint.events():
                    deliver(session, event)
                if not self._again:
                    break
            at = endpoint.next_tick() if budget else now
            if self._held is not None:
                at = max(at, now + _BLOCKED_PAUSE)
            if at < self.armed:
                self.armed = at
                self._arm(at)
        finally:
            self._pumping = False

    def pump_after(self, size: int) -> None:
        """Pump after a write of so many bytes, unless it had better leave together with those that follow it.

        What follows something that the application took, as an answer does, leaves at once. The small writes behind
        it, as long as they come in every turn of the event loop, share packets and system calls: a packet costs more
        than the turn.
        """
        gather = self._gather
        if gather is None or size > SMALL:
            self.pump()
            return
        self.written += 1
        if self.written == 1:
            self.pump()
        elif self.written > GATHERED:
            self.written = 1
            self.pump()
        elif not self.gathering:
            self.gathering = True
            gather()

    def pump_gathered(self) -> None:
        """There was a turn of the event loop without a small write: what was gathered leaves."""
        self.gathering = False
        self.written = 0
        self.pump()

    def _put(self, transmit: Transmit) -> None:
        """Send at once, or together with what comes next for the same path."""
        outlet, runs = self._outlets[transmit.path.carrier], self._runs
        if not outlet.joins_runs or (not runs and (transmit.segment_size is not None or not self.endpoint.has_more)):
            self._send(transmit)
            return
        runs.put(transmit)
        self._send_runs()

    def _send_runs(self) -> None:
        """Send what is complete, as far as there is room."""
        while self._held is None and (run := self._runs.take()) is not None:
            self._send(run)

    def _send(self, transmit: Transmit) -> None:
        outlet = self._outlets[transmit.path.carrier]
        try:
            left = outlet.send(transmit)
        except OSError as error:
            self._held = transmit  # and nothing more is taken
            self._fail(error)
            return
        if left is None:
            return
        if outlet.per_path:
            self._held_paths[left.path] = left
            self.endpoint.path_writable(left.path, False, self.clock())
        else:
            self._held = left
