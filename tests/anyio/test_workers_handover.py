"""Handing over between workers: whole, once, bounded, and in one piece where there are many."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from stt_anyio.udp import Address
from stt_anyio.workers.handover import MAX_MESSAGE, READS_PER_WAKE_UP, HandOver
from stt_proto import NetworkPath
from stt_proto.types import Stray
from tests.proto.worlds import filler

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")

BOUND: Address = ("0.0.0.0", 4433)
V6_BOUND: Address = ("::", 4433, 0, 0)
Taken = list[tuple[bytes, bytes, Address, int]]


@pytest.fixture
def workers() -> Iterator[Callable[..., list[HandOver]]]:
    """Makes the ends of so many workers."""
    made: list[HandOver] = []

    def make(count: int, family: socket.AddressFamily = socket.AF_INET, bound: Address = BOUND) -> list[HandOver]:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(count)]
        for index, (inbox, _) in enumerate(pairs):
            others = [None if other == index else pairs[other][1].dup() for other in range(count)]
            made.append(HandOver(family, bound, inbox, others))
        for _, outbox in pairs:
            outbox.close()
        return made

    yield make
    for each in made:
        each.close()


def taken(worker: HandOver) -> Taken:
    found: Taken = []
    while True:
        before = len(found)
        worker.take(lambda *what: found.append(what))
        if len(found) == before:
            return found


def stray(worker: int | None, datagram: bytes, local: Any = BOUND, remote: Any = ("192.0.2.7", 65_535)) -> Stray:
    return Stray(worker, datagram, NetworkPath("udp", local, remote), 2)


def test_what_is_handed_over_arrives_whole(workers: Callable[..., list[HandOver]]) -> None:
    """C-8: every byte, and from where, to where, with which marks."""
    one, two, three = workers(3)
    largest = filler(65_507)
    one.give([stray(1, b"x"), stray(2, b"y"), stray(1, largest), stray(1, b"", ("127.0.0.1", 4433))])
    there = ("192.0.2.7", 65_535)
    assert taken(two) == [(b"x", b"", there, 2), (largest, b"", there, 2), (b"", bytes([127, 0, 0, 1]), there, 2)]
    assert taken(three) == [(b"y", b"", there, 2)]
    assert taken(one) == []
    assert (one.counts.given, one.counts.dropped, two.counts.taken, three.counts.taken) == (4, 0, 3, 1)


def test_ipv6(workers: Callable[..., list[HandOver]]) -> None:
    """Flow and scope are of the address, and answers go nowhere without them."""
    one, two = workers(2, socket.AF_INET6, V6_BOUND)
    remote = ("fe80::1", 7, 5, 3)
    one.give([stray(1, b"x", V6_BOUND, remote), stray(1, b"y", ("::1", 4433, 0, 0), remote)])
    here = socket.inet_pton(socket.AF_INET6, "::1")
    assert taken(two) == [(b"x", b"", remote, 2), (b"y", here, remote, 2)]


def test_what_is_for_all_others(workers: Callable[..., list[HandOver]]) -> None:
    """C-9: each has it once, and who gives it has it already."""
    ends = workers(4)
    ends[2].give([stray(None, b"who knows this?")])
    assert [len(taken(end)) for end in ends] == [1, 1, 0, 1]
    assert ends[2].counts.given == 3


def test_many_go_in_few_messages(workers: Callable[..., list[HandOver]]) -> None:
    """A run of the system is one message; a system counts more for each than its bytes."""
    one, two = workers(2)
    datagrams = [filler(1200, number) for number in range(54)]
    for _ in range(3):
        one.give([stray(1, datagram) for datagram in datagrams])
    assert [datagram for datagram, *_ in taken(two)] == datagrams * 3
    assert one.counts.dropped == 0


def test_an_inbox_that_nobody_reads(workers: Callable[..., list[HandOver]]) -> None:
    """Bounded: what does not fit is dropped and counted, and nobody waits."""
    one, two = workers(2)
    for _ in range(5000):
        one.give([stray(1, filler(1000)) for _ in range(3)])
    counts = one.counts
    assert counts.given + counts.dropped == 15_000
    assert counts.dropped > 0
    assert len(taken(two)) == counts.given


def test_room_is_asked_for_at_both_ends() -> None:
    """Linux counts what waits at the sender's end; BSD and macOS at the reader's, where 4 KiB fit if nobody asks."""
    asked: list[tuple[str, int, int]] = []

    class Stingy(socket.socket):
        """As on macOS, where what is too much is refused."""

        def setsockopt(self, *what: Any) -> None:
            asked.append((self.name, *what[1:]))
            if what[2] > 1 << 20:
                raise OSError("no buffer space available")

        name = ""

    ends = []
    for name, end in zip(("inbox", "outbox"), socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM), strict=True):
        ends.append(Stingy(fileno=end.detach()))
        ends[-1].name = name
    HandOver(socket.AF_INET, BOUND, ends[0], [None, ends[1]]).close()
    granted = 1 << 20
    assert asked[2] == ("inbox", socket.SO_RCVBUF, granted)
    assert asked[-1] == ("outbox", socket.SO_SNDBUF, granted)


def test_others_get_their_turn(workers: Callable[..., list[HandOver]]) -> None:
    """A worker that is handed much does not forget its own socket."""
    one, two = workers(2)
    one.give([stray(1, filler(60_000))])
    assert MAX_MESSAGE > 60_000
    sent = 1
    while one.counts.dropped == 0 and sent < 3 * READS_PER_WAKE_UP:
        one.give([stray(1, b"x")])
        sent += 1
    found: Taken = []
    two.take(lambda *what: found.append(what))
    assert len(found) <= READS_PER_WAKE_UP


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are no sockets there")
def test_the_end(workers: Callable[..., list[HandOver]]) -> None:
    one, two = workers(2)
    assert one.fileno() >= 0
    two.close()
    one.give([stray(1, b"x")])
    assert (one.counts.given, one.counts.dropped) == (0, 1)
    assert two.fileno() == -1
