"""The parts of which moves are made, each by itself: questions, doubt, choice, tables (M-2 to M-11)."""

from __future__ import annotations

from math import inf
from typing import Any, cast

import pytest

from stt_proto import CarrierTraits, Limits, NetworkPath, Session
from stt_proto.paths import (
    DOUBTED,
    MAX_HEARD,
    NEW,
    REGAIN,
    Doubt,
    EcnState,
    EcnValidation,
    Path,
    PathTable,
    best,
    better,
)
from stt_proto.paths.doubt import PAUSE
from stt_proto.paths.validation import Challenge, Patience
from stt_proto.recovery import AckTracker, Recovery, SentPacket
from stt_proto.session.detached import DetachedSessions
from stt_proto.session.routes import PathIndex

UDP = CarrierTraits(reliable=False, framed=True, max_packet=1200, overhead=28)
WEB = CarrierTraits(reliable=True, framed=True, max_packet=65_535, overhead=14)


def path(number: int = 0, traits: CarrierTraits = UDP, rtt: float | None = None, **options: Any) -> Path:
    made = Path(
        NetworkPath("x", number, number),
        traits,
        max_packet=65_535,
        max_segments=64,
        congestion="cubic",
        max_ack_delay=0.025,
        rtt=None,
        **options,
    )
    if rtt is not None:
        made.recovery.rtt.update(rtt, 0.0, 0.0)
    return made


# -- questions -----------------------------------------------------------------------------------------------------


def times(patience: Patience, pto: float, most: int = 20) -> list[float]:
    """When a question is asked, and in the end given up."""
    challenge, now = Challenge(bytes(8), patience, pto, 0.0), 0.0
    asked = []
    while not challenge.is_over(now) and len(asked) < most:
        assert challenge.wants_to_ask(now)
        challenge.on_asked(now)
        assert not challenge.wants_to_ask(now)
        asked.append(now)
        now = challenge.due_at
    return [*asked, now]


def test_when_a_new_path_is_asked() -> None:
    """M-2: after a PTO, at least 100 ms, then twice as long and at most 2 s; six times."""
    assert times(NEW, 0.02) == pytest.approx([0.0, 0.1, 0.3, 0.7, 1.5, 3.1, 5.1])
    assert times(NEW, 0.5) == pytest.approx([0.0, 0.5, 1.5, 3.5, 5.5, 7.5, 9.5])


def test_when_the_active_path_is_doubted() -> None:
    """M-5: four times, half a PTO apart."""
    assert times(DOUBTED, 0.2) == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert times(DOUBTED, 0.002) == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04])


def test_when_a_lost_path_is_asked() -> None:
    """M-10: at once, after 1 s, twice as long and at most 10 s, without end."""
    assert times(REGAIN, 0.2, 7) == pytest.approx([0.0, 1.0, 3.0, 7.0, 15.0, 25.0, 35.0, 45.0])


def test_a_question_that_cannot_be_asked_yet() -> None:
    """C-6: it waits, and none of its turns is lost."""
    challenge = Challenge(bytes(8), NEW, 0.2, 1.0)
    challenge.put_off(1.0)
    assert (challenge.asked, challenge.due_at) == (0, 1.2)
    challenge.on_asked(1.2)
    challenge.go_on()
    assert challenge.asked == 0


def test_answers() -> None:
    """M-4: a round trip is known when it was asked once, and answered the same way."""
    for over_it, often, sampled in ((True, 1, 1), (True, 2, 0), (False, 1, 0)):
        one = path(validated=False)
        one.ask(bytes(8), NEW, 1.0)
        assert one.challenge is not None
        for _ in range(often):
            one.challenge.on_asked(1.0)
        assert one.on_answered(1.25, over_it)
        assert one.recovery.rtt.samples == sampled
        assert one.validated
        assert not one.on_answered(1.5, over_it), "it was before"


def test_what_may_be_sent_to_strangers() -> None:
    """M-3: three times what came; there is no such bound where this side wants to go."""
    stranger = path(validated=False, opened_here=False)
    assert stranger.allowance == 0
    stranger.received, stranger.sent = 100, 50
    assert (stranger.allowance, stranger.question_size) == (250, 250)
    stranger.received = 1200
    assert stranger.question_size == 1200
    assert path(validated=False).allowance == path(opened_here=False).allowance == inf
    assert path(traits=WEB).question_size == 0


# -- doubt ---------------------------------------------------------------------------------------------------------


def test_doubt() -> None:
    """M-5: at most once a second; quiet is that nothing came since somebody looked; silent, that it did not answer."""
    doubt = Doubt()
    assert doubt.may_begin(0.0)
    assert doubt.is_quiet(0)
    assert not doubt.is_quiet(3)
    assert doubt.is_quiet(3)
    doubt.begin((3, 0), 5.0)
    assert doubt.since == 5.0
    assert not doubt.may_begin(5.0 + 0.9 * PAUSE)
    assert doubt.may_begin(5.0 + PAUSE)
    assert not doubt.has_signs((3, 0))
    assert doubt.has_signs((3, 1))
    assert not doubt.has_signs((3, 1))
    assert doubt.has_signs((4, 1))
    assert not doubt.is_silent(4)
    doubt.confirm(4)
    assert doubt.is_silent(4)
    assert not doubt.is_silent(5)
    doubt.dispel()
    assert not doubt.is_silent(4)
    doubt.confirm(5)
    doubt.on_moved(5)
    assert not doubt.is_silent(5)
    assert doubt.may_begin(0.0)
    assert doubt.is_quiet(5)


# -- choice --------------------------------------------------------------------------------------------------------


def test_the_best_of_several() -> None:
    """M-8: by kind, then by round trip; what was never measured is taken for slow, what is not validated for none."""
    web, slow, fast = path(1, WEB, 0.001), path(2, UDP, 0.3), path(3, UDP, 0.1)
    unknown, candidate = path(4), path(5, UDP, 0.01, validated=False)
    assert best([web, slow, fast, unknown, candidate]) is fast
    assert best([web, unknown]) is unknown
    assert best([candidate]) is None
    assert best([]) is None


@pytest.mark.parametrize(
    ("rtt", "other", "settled", "moves"),
    [
        (0.1, 0.06, True, True),
        (0.1, 0.06, False, False),
        (0.1, 0.071, True, False),
        (0.2, 0.139, True, True),
        (0.05, 0.016, True, False),
        (0.05, 0.014, True, True),
        (None, 0.01, True, False),
    ],
)
def test_what_is_worth_a_move(rtt: float | None, other: float, settled: bool, moves: bool) -> None:
    """M-8: less than 0.7 of it, and 10 ms and max_ack_delay less; not soon after another move."""
    one = path(1, UDP, other)
    assert better(path(0, UDP, rtt), [one], moved_for=10.0 if settled else 9.9) is (one if moves else None)


def test_kinds_come_first() -> None:
    """M-8: to the better kind at once, to the worse one never."""
    web, udp = path(1, WEB, 0.001), path(2, UDP, 0.3)
    assert better(web, [udp], moved_for=0.0) is udp
    assert better(udp, [web], moved_for=10.0) is None
    assert better(udp, [], moved_for=10.0) is None


# -- tables --------------------------------------------------------------------------------------------------------


def test_who_has_to_go() -> None:
    """M-3: of four that were heard the oldest that is not validated, else the oldest; never one of our own."""
    table = PathTable()
    table.remove(path(9))
    for number in range(MAX_HEARD):
        assert table.in_the_way() is None
        table.add(path(number, opened_here=False, validated=number == 0))
        table.add(path(100 + number))
    assert table.opened == MAX_HEARD
    going = table.in_the_way()
    assert going is not None
    assert going.network_path.local == 1
    for one in table:
        one.validated = True
    going = table.in_the_way()
    assert going is not None
    assert going.network_path.local == 0
    for one in table:
        table.remove(one)
    assert not table.others
    assert not PathTable().others


def test_which_sessions_have_a_path() -> None:
    """One, several, none; in their order, and twice is once."""
    index, here, there = PathIndex(), NetworkPath("x", 1, 1), NetworkPath("x", 2, 2)
    one, two, three = (cast(Session, name) for name in ("one", "two", "three"))
    index.remove(here, one)
    assert index.sessions(here) == ()
    for _ in range(2):
        index.add(here, one)
    assert index.sessions(here) == (one,)
    index.remove(here, two)
    for session in (two, two, three):
        index.add(here, session)
    index.add(there, two)
    assert index.sessions(here) == (one, two, three)
    assert len(index) == 2
    index.remove(here, two)
    index.remove(here, two)
    assert index.sessions(here) == (one, three)
    for session in (one, three):
        index.remove(here, session)
    index.remove(there, two)
    assert len(index) == 0


class Detached:
    """A session, as far as the book of those without a path goes."""

    def __init__(self, book: DetachedSessions, peer: bytes) -> None:
        self.book = book
        self.peer_node_id = peer
        self.ended_at: float | None = None

    def lose(self, size: int) -> None:
        self.book.add(cast(Any, self), size, 5.0)

    def weigh(self, size: int) -> None:
        self.book.weigh(cast(Any, self), size, 5.0)

    def give_up(self, now: float) -> None:
        self.ended_at = now
        self.book.remove(cast(Any, self))


def test_the_book_of_detached_sessions() -> None:
    """M-11: of one peer, of all, and their bytes; the longest detached goes, and gives its place to a new one."""
    book = DetachedSessions(Limits(detached_per_peer=2, detached_bytes=100), 16)
    a1, a2, a3, b1, b2, c1 = (Detached(book, peer) for peer in (b"a", b"a", b"a", b"b", b"b", b"c"))

    def ended() -> list[Detached]:
        return [each for each in (a1, a2, a3, b1, b2, c1) if each.ended_at is not None]

    a1.lose(10)
    a2.lose(10)
    b1.lose(0)
    assert ended() == []
    a3.lose(10)
    assert ended() == [a1], "two of a peer"
    book.remove(cast(Any, a1))
    b2.lose(0)
    assert len(book) == 4
    c1.lose(0)
    assert ended() == [a1, a2], "a quarter of 16"
    c1.weigh(90)
    assert ended() == [a1, a2]
    c1.weigh(91)
    assert ended() == [a1, a2, a3, b1], "the bytes that are there go with whoever has them"
    book.give_way(15, 7.0)
    assert b2.ended_at is None
    book.give_way(16, 7.0)
    assert b2.ended_at == 7.0
    c1.weigh(101)
    assert c1.ended_at == 5.0
    assert len(book) == 0
    book.give_way(16, 7.0)


# -- what goes along -----------------------------------------------------------------------------------------------


def test_marks_on_another_path() -> None:
    """R-11, M-1: the peer counts for the session, so what was marked before is in its counts for ever."""
    first = EcnValidation(True)
    packets = [SentPacket(number, 0.0, 1200, 1, True, True) for number in range(20)]
    first.on_acked(packets[:1], 0, None, 1)
    for number in range(1, 6):
        first.test(number)
    first.on_acked(packets[1:4], 3, (3, 0, 0), 6)
    assert first.state is EcnState.CAPABLE
    second = first.on_moved(True, 10)  # 6 to 9 were marked, too
    assert second.state is EcnState.UNTESTED
    second.on_acked(packets[10:11], 10, (7, 0, 0), 11)
    assert second.testing
    second.test(11)
    second.on_acked(packets[11:12], 11, (10, 0, 0), 12)
    assert second.state is EcnState.CAPABLE
    assert first.on_moved(False, 10).state is EcnState.FAILED
    liar = first.on_moved(True, 10)
    liar.on_acked(packets[10:11], 10, (99, 0, 0), 11)
    assert liar.state is EcnState.FAILED, "more than were ever marked"


def test_what_is_left_behind() -> None:
    """M-6: overdue after 9/8 of a round trip and max_ack_delay, settled by a PTO after the last."""
    recovery = Recovery(1200, initial_rtt=0.1)
    assert recovery.settled_by == inf
    assert not recovery.is_overdue(100.0)
    recovery.on_sent(SentPacket(0, 1.0, 1200, 1, True, True))
    recovery.on_sent(SentPacket(1, 2.0, 1200, 1, True, True))
    assert recovery.settled_by == 2.0 + recovery.pto
    assert not recovery.is_overdue(1.13)
    assert recovery.is_overdue(1.14)


def test_an_acknowledgement_is_said_again() -> None:
    """M-6: the last one went where nobody may be any more; with nothing to say, nothing is said."""
    acks = AckTracker()
    acks.repeat(1.0)
    assert acks.due_at == inf
    acks.on_packet(0, 1, True, 1.0)
    assert acks.take(1.0) is not None
    acks.repeat(2.0)
    assert acks.due_at == 2.0
    acks.on_acked(0)
    acks.take(2.0)
    acks.repeat(3.0)
    assert acks.due_at == inf
