"""Marks of congestion: which packets may carry them, and whether the path and the peer can be believed (R-11)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from math import inf

import pytest

from stt_proto.paths.ecn import ECT0, TEST_PACKETS, Counts, EcnState, EcnValidation
from stt_proto.recovery import SentPacket
from stt_proto.testing import Arrival, Conditions, Link
from tests.proto.worlds import Mover, Pair, filler, session_pair


class Validated:
    """A path with its validation, and a peer that counts what it sees."""

    def __init__(self) -> None:
        self.ecn = EcnValidation(True)
        self.next = 0
        self.sent: dict[int, int] = {}
        self.counts = [0, 0, 0]
        self.ack(self.send(1))

    @property
    def state(self) -> EcnState:
        return self.ecn.state

    def send(self, count: int) -> list[int]:
        numbers = list(range(self.next, self.next + count))
        self.next += count
        for number in numbers:
            self.sent[number] = self.ecn.test(number) if self.ecn.testing else self.ecn.codepoint
        return numbers

    def ack(self, numbers: list[int], counts: Counts | str | None = "true") -> None:
        """The peer acknowledges these; it tells what it saw, or something else."""
        for number in numbers:
            self.counts[0] += self.sent[number] == ECT0
        if counts == "true":
            counts = (self.counts[0], self.counts[1], self.counts[2]) if any(self.counts) else None
        assert counts is None or isinstance(counts, tuple)
        if self.ecn.active:
            self.ecn.on_acked([packet(number) for number in numbers], numbers[-1], counts, self.next)

    def lose(self, numbers: list[int]) -> None:
        self.ecn.on_lost([packet(number) for number in numbers])


def packet(number: int) -> SentPacket:
    return SentPacket(number, 0.0, 1200, 1, True, True)


def capable() -> Validated:
    path = Validated()
    path.ack(path.send(2))
    assert path.state is EcnState.CAPABLE
    return path


# -- the machine ---------------------------------------------------------------------------------------------------


def test_nothing_is_marked_before_the_first_acknowledgement() -> None:
    """R-11: the peer may hold early packets, and count them later as they are not."""
    ecn = EcnValidation(True)
    assert (ecn.state, ecn.codepoint, ecn.testing, ecn.active) == (EcnState.UNTESTED, 0, False, True)
    ecn.on_acked([packet(0)], 0, None, 1)
    assert (ecn.state, ecn.testing) == (EcnState.TESTING, True)


def test_carriers_that_cannot_mark() -> None:
    ecn = EcnValidation(False)
    assert (ecn.state, ecn.codepoint, ecn.testing, ecn.active) == (EcnState.FAILED, 0, False, False)


def test_a_few_packets_are_a_test() -> None:
    """R-11: ten, and then nothing until there is an answer."""
    path = Validated()
    marked = path.send(TEST_PACKETS)
    unmarked = path.send(5)
    assert [path.sent[number] for number in unmarked] == [0] * 5
    assert {path.sent[number] for number in marked} == {ECT0}
    assert path.state is EcnState.UNKNOWN
    path.ack(marked)
    assert path.state is EcnState.CAPABLE
    path.ack(unmarked)
    assert path.state is EcnState.CAPABLE
    assert [path.sent[number] for number in path.send(3)] == [ECT0] * 3


def test_one_answer_is_enough() -> None:
    """R-11: the rest of the test, on its way or lost, changes nothing."""
    path = Validated()
    first, second = path.send(3), path.send(3)
    path.lose(first[:1])
    path.ack(first[1:])
    assert path.state is EcnState.CAPABLE
    path.lose(second)
    path.ack(path.send(4))
    assert path.state is EcnState.CAPABLE


def test_the_marks_of_routers_count_too() -> None:
    """R-11: ECT(0) that became CE on the way."""
    path = capable()
    numbers = path.send(4)
    path.ack(numbers, (path.counts[0] + 1, 0, 3))
    assert path.state is EcnState.CAPABLE


def fails(tell: Callable[[Validated, list[int]], Counts | None]) -> None:
    for path in (Validated(), capable()):
        numbers = path.send(4)
        path.ack(numbers, tell(path, numbers))
        assert (path.state, path.ecn.active) == (EcnState.FAILED, False)
        assert [path.sent[number] for number in path.send(20)] == [0] * 20


def test_counts_that_do_not_come() -> None:
    """R-11: a path that clears the bits, or a peer that cannot see them."""
    fails(lambda path, numbers: None)


def test_counts_that_are_too_small() -> None:
    """R-11: some of what was acknowledged lost its mark."""
    fails(lambda path, numbers: (path.counts[0] + 3, 0, 0))


def test_counts_that_are_too_large() -> None:
    """R-11: what was not marked arrived with a mark."""
    fails(lambda path, numbers: (path.counts[0] + 5, 0, 0))
    fails(lambda path, numbers: (path.counts[0], 0, 5))


def test_another_mark_than_ours() -> None:
    """R-11: nobody sends ECT(1) here."""
    fails(lambda path, numbers: (path.counts[0] + 4, 1, 0))


def test_acknowledgements_out_of_order() -> None:
    """R-11, RFC 9000, 13.4.2.1: one that was overtaken has old counts, which are no sign of anything."""
    path = capable()
    numbers = path.send(6)
    old = (path.counts[0] + 2, 0, 0)
    path.ack(numbers[2:], (path.counts[0] + 6, 0, 0))
    path.ecn.on_acked([packet(number) for number in numbers[:2]], numbers[1], old, path.next)
    assert path.state is EcnState.CAPABLE


def test_acknowledgements_without_marked_packets() -> None:
    """R-11: counts may rise for what is not known to be acknowledged, and be missing where nothing was marked."""
    path = Validated()
    path.send(TEST_PACKETS)
    path.ack(path.send(3))
    assert path.state is EcnState.UNKNOWN
    path.ack(path.send(3), (7, 0, 0))
    assert path.state is EcnState.UNKNOWN
    path.ack(path.send(3), (6, 0, 0))
    assert path.state is EcnState.FAILED


def test_marks_that_are_dropped() -> None:
    """R-11: a test of which nothing arrives is repeated once, since it may have been the network."""
    path = Validated()
    for state in (EcnState.UNTESTED, EcnState.FAILED):
        numbers = path.send(TEST_PACKETS)
        path.lose(numbers[:5])
        assert path.state is EcnState.UNKNOWN
        path.lose([*numbers[5:], 10_000])
        assert path.state is state
        path.ack(path.send(1))
    assert not path.ecn.active


def test_a_test_that_succeeds_ends_the_count_of_those_that_did_not() -> None:
    """R-11."""
    path = Validated()
    for _ in range(3):
        path.lose(path.send(TEST_PACKETS))
        path.ack(path.send(1))
        assert path.state is EcnState.TESTING
        path.ack(path.send(1))
        assert path.state is EcnState.CAPABLE
        path.ecn.on_timeout(2, path.next)
        path.ack(path.send(1))


def test_timeouts() -> None:
    """R-11: in a test the first ends it; later the second in a row makes a new one due. What was on its way counts."""
    path = Validated()
    path.ecn.on_timeout(0, path.next)  # a probe for another reason
    assert path.state is EcnState.TESTING
    path.ecn.on_timeout(1, path.next)  # of what was sent before: nothing was marked yet
    assert path.state is EcnState.UNTESTED
    path.ack(path.send(1))
    tested = path.send(2)
    path.ecn.on_timeout(1, path.next)
    assert path.state is EcnState.UNKNOWN
    path.ecn.on_timeout(2, path.next)
    path.ack([*tested, *path.send(2)])
    assert path.state is EcnState.CAPABLE
    path.ecn.on_timeout(1, path.next)
    assert path.state is EcnState.CAPABLE
    flying = path.send(5)
    path.ecn.on_timeout(2, path.next)
    assert path.state is EcnState.UNTESTED
    assert path.sent[path.send(1)[0]] == 0
    path.ack([*flying, path.next - 1])
    assert path.state is EcnState.TESTING
    path.ack(path.send(3))
    assert path.state is EcnState.CAPABLE
    path.ack(path.send(100))
    assert path.state is EcnState.CAPABLE


# -- sessions ------------------------------------------------------------------------------------------------------


class Tampering(Link):
    """A link that changes marks, `{what comes: what goes}`, `None` for nothing; and counts them."""

    changes: dict[int, int | None]
    seen: Counter[int]

    def carry(self, datagram: bytes, now: float, ecn: int = 0) -> list[Arrival]:
        self.seen[ecn] += 1
        changed = self.changes.get(ecn, ecn)
        return [] if changed is None else super().carry(datagram, now, changed)


def pair_over(conditions: Conditions, changes: dict[int, int | None] | None = None) -> Pair:
    """A session whose links change the marks from now on."""
    pair = session_pair(1, conditions)
    for ends in list(pair.world.links):
        link = Tampering(conditions, pair.world.random)
        link.changes, link.seen = changes or {}, Counter()
        pair.world.links[ends] = link
    return pair


def upload(pair: Pair, size: int) -> float:
    began = pair.now
    receiver, data = Mover(pair.server), filler(size)
    Mover(pair.client).send(pair.session.open_stream(), pair.session, data)
    pair.world.run_until(lambda: receiver.ended)
    assert list(receiver.ended.values()) == [hashlib.sha256(data).digest()]
    return pair.now - began


NARROW = Conditions(delay=0.01, rate=20e6, queue=1 << 18)


def ssthresh(pair: Pair) -> float:
    assert pair.session._engines is not None
    return pair.session._engines.path.recovery.controller.ssthresh


def test_marks_slow_down_before_anything_is_lost() -> None:
    """R-1, R-11: a queue that marks is never full; the same one without marks drops."""
    marking = pair_over(Conditions(delay=0.01, rate=20e6, queue=1 << 18, ecn_threshold=40_000))
    upload(marking, 8 << 20)
    stats = marking.session.stats()
    assert (stats.ecn, stats.packets_lost) == ("capable", 0)
    assert ssthresh(marking) < inf
    assert marking.world.traffic.marked > 0
    dropping = pair_over(NARROW)
    upload(dropping, 8 << 20)
    assert dropping.session.stats().ecn == "capable"
    assert dropping.session.stats().packets_lost > 0


@pytest.mark.parametrize(
    "changes",
    [{2: 0}, {2: 1}, {0: 2}, {2: None}, {2: 1, 0: 1}],
    ids=["cleared", "another", "set", "dropped", "always another"],
)
def test_a_path_that_cannot_be_trusted(changes: dict[int, int | None]) -> None:
    """R-11: it is noticed, and the transfer goes on without marks."""
    pair = pair_over(NARROW, changes)
    upload(pair, 4 << 20)
    pair.settle()
    upload(pair, 1 << 20)
    assert pair.session.stats().ecn == "failed"
    assert pair.session.stats().packets_lost < 200


def test_a_path_that_marks_everything() -> None:
    """R-11: CE on each datagram is slow, and believed: the window stays at its least, and nothing hangs."""
    pair = pair_over(Conditions(delay=0.001), {2: 3})
    upload(pair, 200_000)
    assert pair.session.stats().ecn == "capable"
    assert pair.session.stats().congestion_window < 20_000


def test_a_path_that_begins_to_drop_marks() -> None:
    """R-11: after two timeouts nothing is marked, and when two tests have failed nothing ever is."""
    pair = pair_over(NARROW)
    upload(pair, 1 << 20)
    assert pair.session.stats().ecn == "capable"
    for link in pair.world.links.values():
        assert isinstance(link, Tampering)
        link.changes = {2: None, 3: None}
    assert upload(pair, 4 << 20) < 10.0
    assert pair.session.stats().ecn == "failed"


def test_only_what_asks_for_an_acknowledgement_is_marked() -> None:
    """R-11: the acknowledgements themselves would be lost without a word if marks were dropped."""
    pair = pair_over(NARROW)
    upload(pair, 4 << 20)
    assert pair.peer.stats().ecn == "capable"
    link = pair.world.link_between(pair.server.address, pair.client.address)
    assert isinstance(link, Tampering)
    assert link.seen[0] > 10 * link.seen[ECT0] > 0


def test_nothing_is_marked_on_carriers_that_are_reliable() -> None:
    pair = session_pair(carrier="stream")
    upload(pair, 1 << 20)
    assert pair.session.stats().ecn == "failed"


def test_statistics_before_there_are_keys() -> None:
    world = session_pair().world
    stats = world.node("one").connect(world.node("two")).stats()
    assert (stats.ecn, stats.mtu_search, stats.mtu, stats.mtu_black_holes) == ("", "", 0, 0)
