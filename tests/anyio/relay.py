"""A UDP relay on loopback that treats datagrams as a bad network does, for tests over real sockets.

    with Relay(("127.0.0.1", server.port), seed=1) as relay:
        session = await client.connect(relay.address)

It runs in a thread of its own, so that it works beside any event loop and none. What happens to the datagram that is
the n-th of its direction is decided by the seed; which one that is, by the sockets.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable
from math import inf
from random import Random
from types import TracebackType

from attrs import define, frozen

Address = tuple[str, int]

MAX_CLIENTS = 64
"""Addresses that are relayed for; others are not heard."""
READS_PER_WAKE_UP = 64
_RECEIVE_BUFFER = 4 << 20
_MAX_DATAGRAM = 65_535
_STOPPING = 5.0
"""Seconds that the thread has to end when told to."""


@frozen(kw_only=True)
class Faults:
    """How often each happens to a datagram, 0 to 1, independently of each other.

    Attributes:
        drop: it does not arrive.
        duplicate: it arrives twice.
        reorder: it arrives after some that were sent later.
        corrupt: a byte of it is changed.
        most_late: datagrams that overtake a reordered one, at most.
        patience: seconds after which it goes on even if nothing overtakes it.
    """

    drop: float = 0.05
    duplicate: float = 0.01
    reorder: float = 0.05
    corrupt: float = 0.01
    most_late: int = 8
    patience: float = 0.01


PERFECT = Faults(drop=0.0, duplicate=0.0, reorder=0.0, corrupt=0.0)
"""Nothing happens to anything."""


@define
class Tally:
    """What became of the datagrams of one direction."""

    taken: int = 0
    dropped: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0

    def __str__(self) -> str:
        faults = (self.dropped, self.duplicated, self.reordered, self.corrupted)
        lost, twice, late, changed = (f"{100 * count / max(1, self.taken):.1f} %" for count in faults)
        return f"{self.taken} datagrams, {lost} dropped, {twice} duplicated, {late} reordered, {changed} corrupted"


@define
class _Late:
    """A datagram that others may overtake."""

    datagram: bytes
    send: Callable[[bytes], None]
    others: int
    until: float


class Direction:
    """One way through the relay: decides, and holds what is late. It knows no socket.

    Attributes:
        tally: what happened so far.
    """

    def __init__(self, faults: Faults, seed: str) -> None:
        self.tally = Tally()
        self._faults = faults
        self._random = Random(seed)
        self._late: list[_Late] = []

    def take(self, datagram: bytes, send: Callable[[bytes], None], now: float) -> None:
        """Do to one datagram what is due to it; what is to arrive goes to `send`, now or in a later call."""
        faults, tally, draw = self._faults, self.tally, self._random.random
        tally.taken += 1
        lost, twice, late, changed = (
            draw() < chance for chance in (faults.drop, faults.duplicate, faults.reorder, faults.corrupt)
        )
        tally.dropped += lost
        if not lost:
            if changed:
                tally.corrupted += 1
                datagram = self._corrupted(datagram)
            if late:
                tally.reordered += 1
                others = self._random.randint(1, faults.most_late)
                self._late.append(_Late(datagram, send, others + 1, now + faults.patience))
            else:
                send(datagram)
            if twice:
                tally.duplicated += 1
                send(datagram)
        for each in self._late:
            each.others -= 1
        self.release(now)

    def release(self, now: float) -> None:
        """Send on what has been overtaken by enough, or waited long enough."""
        due = [each for each in self._late if not each.others or each.until <= now]
        if due:
            self._late = [each for each in self._late if each.others and each.until > now]
            for each in due:
                each.send(each.datagram)

    @property
    def next_release(self) -> float | None:
        """When `release` has something to do at the latest."""
        return min((each.until for each in self._late), default=None)

    def _corrupted(self, datagram: bytes) -> bytes:
        at = self._random.randrange(len(datagram)) if datagram else 0
        changed = bytes(byte ^ self._random.randint(1, 255) for byte in datagram[at : at + 1])
        return datagram[:at] + changed + datagram[at + 1 :]


class Relay:
    """Listens on a port of its own, and passes on to `target` and back.

    Args:
        target: where to.
        seed: of what happens.
        faults: how often what happens.
        life: seconds after which it ends by itself, whatever becomes of the test.
        rebind: seconds after which clients come from other ports, as behind a translator of addresses that forgets;
            what is sent to the old ones vanishes.
        rebind_after: datagrams of clients after which the same happens, whatever the time.

    Attributes:
        address: where clients find it.
        rebound: how often clients got other ports.
        cut: while this is set nothing passes, and nobody is told.
        swallowed: datagrams that were lost to that.
        there: what happened on the way to the target.
        back: what happened on the way back.
    """

    def __init__(
        self,
        target: Address,
        seed: int,
        faults: Faults | None = None,
        life: float = 60.0,
        rebind: float = inf,
        rebind_after: float = inf,
    ) -> None:
        faults = faults or Faults()
        self._there, self._back = Direction(faults, f"{seed} there"), Direction(faults, f"{seed} back")
        self.there, self.back = self._there.tally, self._back.tally
        self._target = target
        self._life, self._rebind = life, rebind
        self._rebind_after = self._rebind_in = rebind_after
        self.rebound = 0
        self.cut = False
        self.swallowed = 0
        self._selector = selectors.DefaultSelector()
        self._front = _open()
        self._clients: dict[Address, socket.socket] = {}
        self._forgotten: list[socket.socket] = []  # open, so that who sends there is told nothing
        self._bell, self._ear = socket.socketpair()
        self.address: Address = self._front.getsockname()
        self._thread = threading.Thread(target=self._run, name="Relay", daemon=True)

    def __enter__(self) -> Relay:
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._selector.register(self._front, selectors.EVENT_READ, self._from_clients)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bell.close()
        self._thread.join(_STOPPING)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._pass_on(time.monotonic() + self._life)
        finally:
            self._selector.close()
            for sock in (self._bell, self._ear, self._front, *self._clients.values(), *self._forgotten):
                sock.close()

    def _pass_on(self, until: float) -> None:
        rebind_at = time.monotonic() + self._rebind
        while (now := time.monotonic()) < until:
            if now >= rebind_at:
                self._forget()
                rebind_at = now + self._rebind
            for direction in (self._there, self._back):
                direction.release(now)
            due = (self._there.next_release, self._back.next_release, rebind_at)
            wait = min([until, *(at for at in due if at is not None)]) - now
            for key, _ in self._selector.select(max(0.0, wait)):
                if key.data is None:
                    return
                key.data()

    def _forget(self) -> None:
        """Which client had which port: with the next datagram each gets another one."""
        for sock in self._clients.values():
            self._selector.unregister(sock)
            self._forgotten.append(sock)
        self.rebound += bool(self._clients)
        self._clients.clear()

    def _from_clients(self) -> None:
        for datagram, client in _read(self._front):
            if self.cut:
                self.swallowed += 1
                continue
            sock = self._clients.get(client) or self._welcome(client)
            self._rebind_in -= 1
            if not self._rebind_in:
                self._rebind_in = self._rebind_after
                self._forget()
            elif sock is not None:
                self._there.take(datagram, _sender(sock, self._target), time.monotonic())

    def _welcome(self, client: Address) -> socket.socket | None:
        """A socket by which the target knows a client that is new."""
        if len(self._clients) >= MAX_CLIENTS:
            return None
        sock = self._clients[client] = _open()
        send = _sender(self._front, client)

        def from_target() -> None:
            for datagram, sender in _read(sock):
                if self.cut:
                    self.swallowed += 1
                elif sender == self._target:
                    self._back.take(datagram, send, time.monotonic())

        self._selector.register(sock, selectors.EVENT_READ, from_target)
        return sock


def _open() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    sock.bind(("127.0.0.1", 0))
    return sock


def _read(sock: socket.socket) -> list[tuple[bytes, Address]]:
    """What has arrived; a part of it, if it is much, so that others get their turn."""
    found: list[tuple[bytes, Address]] = []
    try:
        while len(found) < READS_PER_WAKE_UP:
            found.append(sock.recvfrom(_MAX_DATAGRAM))
    except OSError:
        pass  # nothing more, or news that somebody is gone
    return found


def _sender(sock: socket.socket, to: Address) -> Callable[[bytes], None]:
    def send(datagram: bytes) -> None:
        try:
            sock.sendto(datagram, to)
        except OSError:
            pass  # full, or nobody there: lost, as on any network

    return send
