"""Who gets a place among the half-open handshakes, and who guesses too often (docs/protocol.md, H-21, H-23)."""

from __future__ import annotations

from math import inf

import pytest

from stt_proto.config import Limits
from stt_proto.handshake import Accepted, Challenged, Dropped, Ended, Reason
from stt_proto.wire import MessageType
from tests.proto.handshake_world import CLIENT, Entropy, World, path_of, spoofed_hello
from tests.proto.test_responder import begin, begin_proven, kind_of, source

# -- limits --------------------------------------------------------------------------------------------------------


def test_cookies_above_128_half_open() -> None:
    """H-21."""
    world = World()
    begin(world, 129)
    outcome = world.hear(spoofed_hello(world.entropy), path=source(500))
    assert kind_of(outcome) is MessageType.RETRY
    assert len(world.responder) == 129
    assert isinstance(begin_proven(world), Challenged)


def test_cookies_after_1000_unfinished_in_10_seconds() -> None:
    """H-21: who begins and ends quickly does not stay below the limit."""
    world = World(limits=Limits(unfinished_without_cookie=5))
    paths = [path_of(carrier="udp", remote=(f"10.0.0.{number}", 1)) for number in range(5)]
    for number, path in enumerate(paths):
        assert isinstance(world.hear(spoofed_hello(world.entropy), 0.1 * number, path), Challenged)
        world.responder.path_closed(path, 0.1 * number)
    assert kind_of(world.hear(spoofed_hello(world.entropy), 9.99)) is MessageType.RETRY
    assert kind_of(world.hear(spoofed_hello(world.entropy), 10.0)) is Challenged


def test_full() -> None:
    """H-21: a HELLO with a cookie pushes out the oldest that came without; when there is none, it is dropped."""
    world = World(limits=Limits(half_open=3))
    oldest, second, third = begin(world, 3)
    assert world.hear(spoofed_hello(world.entropy), path=source(9)) == Dropped(Reason.FULL)
    for expected in (oldest, second, third):
        outcome = begin_proven(world, 1.0)
        assert isinstance(outcome, Challenged)
        assert outcome.ended == Ended(expected, "timeout")
        assert world.responder.get(expected.local_cid) is None
        assert len(world.responder) == 3
    assert begin_proven(world, 1.0) == Dropped(Reason.FULL)


def test_full_of_those_who_have_shown_themselves() -> None:
    """H-21: the oldest of all makes room once it is more than 1 s old, and not before; nobody without a cookie enters.

    [One address that can show cookies kept all others out for as long as it liked.]
    """
    world = World(limits=Limits(half_open=3))
    opened = []
    for number in range(3):
        outcome = begin_proven(world, 0.1 * number, source(number))
        assert isinstance(outcome, Challenged)
        opened.append(outcome.half_open)
    assert begin_proven(world, 1.0, source(9)) == Dropped(Reason.FULL)
    outcome = begin_proven(world, 1.01, source(9))
    assert isinstance(outcome, Challenged)
    assert outcome.ended == Ended(opened[0], "timeout")
    assert begin_proven(world, 1.02, source(9)) == Dropped(Reason.FULL)
    assert world.hear(spoofed_hello(world.entropy), 5.0, source(10)) == Dropped(Reason.FULL)
    assert len(world.responder) == 3


def test_who_makes_room_had_no_cookie() -> None:
    """H-21: however young it is, and however old the others are."""
    world = World(limits=Limits(half_open=2))
    assert isinstance(begin_proven(world, 0.0, source(1)), Challenged)
    (young,) = begin(world, 1, 5.0, first=2)
    outcome = begin_proven(world, 5.0, source(3))
    assert isinstance(outcome, Challenged)
    assert outcome.ended == Ended(young, "timeout")


def test_a_source_has_its_share() -> None:
    """H-21: 256 places behind a cookie; more are dropped, and places that become free can be taken again."""
    world = World(limits=Limits(half_open=8, half_open_per_source=2))
    first, _ = (begin_proven(world, 0.0, path_of((CLIENT[0], port))) for port in (1, 2))
    assert isinstance(first, Challenged)
    assert begin_proven(world, 5.0, path_of((CLIENT[0], 3))) == Dropped(Reason.FULL)
    assert isinstance(begin_proven(world, 5.0, source(1)), Challenged), "another source"
    assert isinstance(world.hear(spoofed_hello(world.entropy), 5.0), Challenged), "the same source, not shown"
    world.responder.path_closed(first.half_open.path, 6.0)
    assert isinstance(begin_proven(world, 6.0, path_of((CLIENT[0], 4))), Challenged)
    assert begin_proven(world, 6.0, path_of((CLIENT[0], 5))) == Dropped(Reason.FULL)
    world.responder.expire(100.0)
    assert not world.responder._places


@pytest.mark.parametrize("reliable", [False, True])
def test_a_share_is_given_back_with_each_success(reliable: bool) -> None:
    """H-21: honest clients of one source are not counted any longer than they wait."""
    world = World(reliable=reliable, limits=Limits(half_open_per_source=1, half_open_without_cookie=0))
    path = path_of(carrier="ws") if reliable else path_of()
    for number in range(5):
        accepted = world.shake(world.dial(), 0.1 * number, path)
        assert accepted.half_open.proven is reliable
    assert not world.responder._places


def test_one_source_keeps_nobody_out() -> None:
    """H-21: with a cookie for each of a thousand HELLOs it takes its share; whoever else can be heard gets in."""
    world = World()
    for number in range(1200):
        begin_proven(world, 0.0, path_of((CLIENT[0], number)))
    assert len(world.responder) == 256
    accepted = world.shake(world.dial(0.5), 0.5, source(1))
    assert accepted.half_open.proven


def test_half_open_handshakes_last_for_the_timeout() -> None:
    """H-21: the oldest decides when to look again; each ends once."""
    world = World()
    assert world.responder.deadline == inf
    (first,) = begin(world, 1, 1.0)
    (second,) = begin(world, 1, 2.0, first=1)
    assert world.responder.deadline == 11.0
    assert world.responder.expire(10.99) == []
    assert world.responder.expire(11.0) == [Ended(first, "timeout")]
    assert world.responder.deadline == 12.0
    assert world.responder.expire(20.0) == [Ended(second, "timeout")]
    assert world.responder.deadline == inf
    assert len(world.responder) == 0


def test_path_closed() -> None:
    """What a carrier that is gone had begun is over, and counts."""
    world = World(reliable=True, limits=Limits(failed_guesses_burst=1))
    path, other = path_of(("10.0.0.1", 1), "ws"), path_of(("10.0.0.2", 1), "ws")
    for number in range(2):
        assert isinstance(world.hear(spoofed_hello(Entropy(number)), path=path), Challenged)
    assert isinstance(world.hear(spoofed_hello(Entropy(2)), path=other), Challenged)
    assert len(world.responder.path_closed(path, 1.0)) == 2
    assert len(world.responder) == 1
    assert world.hear(spoofed_hello(Entropy(3)), 1.0, path) == Dropped(Reason.GUESSING)


def test_only_the_newest_keep_an_expanded_key() -> None:
    """H-5: all others keep 64 bytes, from which the same key is made."""
    world = World()
    initiators = [world.dial() for _ in range(10)]
    begun = [world.challenge(initiator, path=source(number)) for number, initiator in enumerate(initiators)]
    assert [outcome.half_open._kem_key is None for outcome in begun] == [True] * 2 + [False] * 8
    for number, (initiator, outcome) in enumerate(zip(initiators, begun, strict=True)):
        world.tell(initiator, outcome.half_open.datagrams)
        (proof,) = initiator.take(0.0)
        assert isinstance(world.hear(proof, path=source(number)), Accepted)
    assert not world.responder._expanded


# -- metering ------------------------------------------------------------------------------------------------------


def test_silence_is_a_failed_guess() -> None:
    """H-23: after 8 in a minute the HELLOs of that source need a cookie; others do not."""
    world = World()
    for number in range(8):
        outcome = world.hear(spoofed_hello(world.entropy), float(number), path_of((CLIENT[0], number)))
        assert isinstance(outcome, Challenged)
    world.responder.expire(17.0)
    assert kind_of(world.hear(spoofed_hello(world.entropy), 18.0)) is MessageType.RETRY
    assert kind_of(world.hear(spoofed_hello(world.entropy), 18.0, source(1))) is Challenged


def test_success_is_no_guess() -> None:
    """H-23."""
    world = World()
    for number in range(20):
        accepted = world.shake(world.dial(), 0.01 * number)
        assert not accepted.half_open.proven


def test_failures_behind_a_cookie_drain_the_bucket() -> None:
    """H-23: 64, then one a second; with it empty HELLOs are dropped, with or without a cookie."""
    world = World()
    for _ in range(64):
        assert isinstance(begin_proven(world, 0.0), Challenged)
    world.responder.expire(10.0)
    assert begin_proven(world, 10.0) == Dropped(Reason.GUESSING)
    assert world.hear(spoofed_hello(world.entropy), 10.0) == Dropped(Reason.GUESSING)
    assert isinstance(begin_proven(world, 11.0), Challenged)
    assert isinstance(begin_proven(world, 10.0, source(1)), Challenged)


def test_guesses_over_reliable_carriers() -> None:
    """H-23: metered as one that has shown a cookie."""
    world = World(reliable=True)
    path = path_of(carrier="ws")
    for _ in range(64):
        assert isinstance(world.hear(spoofed_hello(world.entropy), 0.0, path), Challenged)
    world.responder.expire(10.0)
    assert world.hear(spoofed_hello(world.entropy), 10.0, path) == Dropped(Reason.GUESSING)


def test_guessing_at_a_responder() -> None:
    """H-23: who dials ten times a second, cookies and all, gets a bucket of guesses and then one a second."""
    world = World()
    answered = [0, 0, 0]
    for tenth in range(3000):
        now = tenth / 10
        answered[tenth // 1000] += isinstance(begin_proven(world, now), Challenged)
        world.responder.expire(now)
    assert answered[0] <= 64 + 100 + 100, "the bucket, the time, and those under way before the first was judged"
    assert sum(answered) <= 64 + 300 + 100
