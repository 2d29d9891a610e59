"""Metering of guesses (docs/protocol.md, H-23)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.handshake import GuessMeter
from stt_proto.types import NetworkPath, source_of
from tests.proto.walks import walks

MALLORY, TRENT = b"\xc6\x33\x64\x07", b"\xc6\x33\x64\x08"


def meter(**changes: Any) -> GuessMeter:
    return GuessMeter(**{"without_cookie": 8, "burst": 64, "per_second": 1.0, "sources": 4096, **changes})


def fail(guesses: GuessMeter, count: int, now: float, *, proven: bool, source: bytes = MALLORY) -> None:
    for _ in range(count):
        guesses.begin(source, proven, now)
        guesses.fail(source, proven, now)


# -- sources -------------------------------------------------------------------------------------------------------


def source(remote: object) -> bytes | str:
    return source_of(NetworkPath("udp", 0, remote))


def test_ipv4_is_counted_by_address() -> None:
    """H-23: IPv4 /32, whatever the port."""
    assert source(("198.51.100.7", 1)) == source(("198.51.100.7", 2)) == MALLORY
    assert source(("198.51.100.8", 1)) != MALLORY


def test_ipv6_is_counted_by_network() -> None:
    """H-23: IPv6 /56."""
    first = source(("2001:db8:0:ff00::1", 1, 0, 0))
    assert first == source(("2001:db8:0:ffff:1:2:3:4", 9, 0, 0)) == bytes.fromhex("20010db80000ff")
    assert first != source(("2001:db8:0:fe00::1", 1, 0, 0))


def test_mapped_ipv4_is_ipv4() -> None:
    """H-23: on a dual-stack socket the whole of IPv4 lies in one /56, so it is counted as what it is."""
    assert source(("::ffff:198.51.100.7", 1)) == MALLORY


def test_scoped_ipv6() -> None:
    assert source(("fe80::1%eth0", 1)) == source(("fe80::2%eth1", 1))


@pytest.mark.parametrize("remote", ["peer", 7, ("relay.example", 1), ()])
def test_other_addresses_stand_for_themselves(remote: object) -> None:
    """H-23: what is no IP address is a source as it stands."""
    found = source(remote)
    assert isinstance(found, str)
    assert found == source(remote)


# -- without a cookie ----------------------------------------------------------------------------------------------


def test_eight_failures_in_a_minute() -> None:
    """H-23: after 8 in a minute the HELLOs of that source need a cookie, for as long as 8 lie in the last minute."""
    guesses = meter()
    for second in range(8):
        assert not guesses.needs_cookie(MALLORY, float(second))
        fail(guesses, 1, float(second), proven=False)
    assert guesses.needs_cookie(MALLORY, 7.0)
    assert guesses.needs_cookie(MALLORY, 59.9)
    assert not guesses.needs_cookie(MALLORY, 60.0)
    assert not guesses.needs_cookie(TRENT, 7.0)


def test_guesses_under_way_count_until_they_succeed() -> None:
    """H-23: silence is a failure, so nobody gains by beginning many at once."""
    guesses = meter()
    for _ in range(8):
        guesses.begin(MALLORY, False, 0.0)
    assert guesses.needs_cookie(MALLORY, 0.0)
    guesses.succeed(MALLORY, False, 0.1)
    assert not guesses.needs_cookie(MALLORY, 0.1)


def test_failures_without_a_cookie_never_exhaust() -> None:
    """H-23: an address that may be forged cannot be shut out by who forges it."""
    guesses = meter()
    fail(guesses, 1000, 0.0, proven=False)
    assert not guesses.is_exhausted(MALLORY, 0.0)


def test_always_a_cookie() -> None:
    """A limit of zero asks everybody."""
    guesses = meter(without_cookie=0)
    assert guesses.needs_cookie(MALLORY, 0.0)
    fail(guesses, 1, 0.0, proven=False)
    assert guesses.needs_cookie(MALLORY, 1000.0)


# -- behind a cookie -----------------------------------------------------------------------------------------------


def test_bucket() -> None:
    """H-23: 64 failures behind a cookie, then one a second."""
    guesses = meter()
    fail(guesses, 63, 0.0, proven=True)
    assert not guesses.is_exhausted(MALLORY, 0.0)
    fail(guesses, 1, 0.0, proven=True)
    assert guesses.is_exhausted(MALLORY, 0.0)
    assert guesses.is_exhausted(MALLORY, 0.9)
    assert not guesses.is_exhausted(MALLORY, 1.0)
    assert not guesses.is_exhausted(TRENT, 0.0)
    fail(guesses, 1, 1.0, proven=True)
    assert guesses.is_exhausted(MALLORY, 1.9)


def test_failures_behind_a_cookie_count_for_both() -> None:
    """H-23: they are failed guesses of the source like any other."""
    guesses = meter()
    fail(guesses, 8, 0.0, proven=True)
    assert guesses.needs_cookie(MALLORY, 0.0)


def test_bucket_is_never_more_than_full() -> None:
    guesses = meter()
    fail(guesses, 1, 0.0, proven=True)
    fail(guesses, 63, 1e6, proven=True)
    assert not guesses.is_exhausted(MALLORY, 1e6)
    fail(guesses, 1, 1e6, proven=True)
    assert guesses.is_exhausted(MALLORY, 1e6)


def test_what_was_begun_at_once_is_paid_for_later() -> None:
    """H-23: k addresses buy k guesses a second, however the guesses are arranged in time."""
    guesses = meter()
    tried = 0
    for second in range(0, 7200, 10):
        if not guesses.is_exhausted(MALLORY, float(second)):
            fail(guesses, 500, second + 9.0, proven=True)
            tried += 500
    assert tried <= 64 + 7200 + 500


# -- memory --------------------------------------------------------------------------------------------------------


def test_table_is_bounded_and_forgets_the_longest_unseen() -> None:
    """H-23: at most 4,096 sources are remembered, the longest unseen goes first."""
    guesses = meter()
    fail(guesses, 8, 0.0, proven=False)
    fail(guesses, 8, 0.0, proven=False, source=TRENT)
    for number in range(4095):
        assert guesses.needs_cookie(MALLORY, 1.0), "asking is seeing"
        fail(guesses, 1, 1.0, proven=False, source=number.to_bytes(7))
    assert len(guesses) == 4096
    assert guesses.needs_cookie(MALLORY, 1.0)
    assert not guesses.needs_cookie(TRENT, 1.0)


def test_honest_sources_leave_nothing() -> None:
    guesses = meter()
    for _ in range(3):
        guesses.begin(MALLORY, False, 0.0)
        guesses.begin(TRENT, True, 0.0)
    for _ in range(3):
        guesses.succeed(MALLORY, False, 1.0)
        guesses.succeed(TRENT, True, 1.0)
    assert len(guesses) == 0


def test_success_does_not_wash_failures_away() -> None:
    """H-23: who has the seed of one session cannot clear the way for guesses; nor is an account lost early."""
    guesses = meter()
    fail(guesses, 8, 0.0, proven=True)
    guesses.begin(MALLORY, True, 1.0)
    guesses.succeed(MALLORY, True, 1.0)
    assert guesses.needs_cookie(MALLORY, 1.0)


def test_guess_of_a_source_forgotten_meanwhile() -> None:
    guesses = meter(sources=1)
    guesses.begin(MALLORY, False, 0.0)
    guesses.begin(TRENT, False, 0.0)
    guesses.fail(MALLORY, False, 1.0)
    guesses.succeed(TRENT, False, 1.0)
    assert len(guesses) == 1
    assert guesses.needs_cookie(MALLORY, 1.0)
    assert not guesses.needs_cookie(MALLORY, 61.0)


# -- tables that somebody fills ------------------------------------------------------------------------------------


def fill(guesses: GuessMeter, count: int, now: float, *, proven: bool, failures: int = 1) -> None:
    """Push everything out of a table: so many sources fail."""
    for number in range(count):
        fail(guesses, failures, now, proven=proven, source=number.to_bytes(7))


def test_forged_addresses_do_not_push_out_who_has_shown_his() -> None:
    """H-23: a guesser behind a cookie is remembered, whatever his friends say in the name of others."""
    guesses = meter(sources=16)
    fail(guesses, 8, 0.0, proven=False)
    fail(guesses, 64, 0.0, proven=True)
    fill(guesses, 1000, 0.5, proven=False, failures=8)
    assert guesses.is_exhausted(MALLORY, 0.9)
    assert guesses.needs_cookie(MALLORY, 0.9)
    assert len(guesses) == 17


def test_sources_that_have_shown_themselves_are_bounded_too() -> None:
    """H-23: 4,096 in each table; the longest unseen goes first, and asking is seeing."""
    guesses = meter()
    fail(guesses, 64, 0.0, proven=True)
    fail(guesses, 64, 0.0, proven=True, source=TRENT)
    for number in range(4095):
        assert guesses.is_exhausted(MALLORY, 0.5)
        fail(guesses, 1, 0.5, proven=True, source=number.to_bytes(7))
    assert len(guesses) == 4096
    assert guesses.is_exhausted(MALLORY, 0.5)
    assert not guesses.is_exhausted(TRENT, 0.5)


@pytest.mark.parametrize("proven", [False, True])
def test_who_fails_is_seen(proven: bool) -> None:
    """H-23: the longest unseen goes first; a failure is a sign of life like a question."""
    guesses = meter(sources=16)
    fail(guesses, 63, 0.0, proven=proven)
    fill(guesses, 15, 0.0, proven=proven)
    fail(guesses, 1, 0.0, proven=proven)
    fail(guesses, 1, 0.0, proven=proven, source=TRENT)
    assert guesses.needs_cookie(MALLORY, 0.0)
    assert guesses.is_exhausted(MALLORY, 0.0) is proven


def test_who_was_pushed_out_has_one_guess_left() -> None:
    """H-23: behind a cookie. [k addresses, more than are remembered, each with 64 guesses whenever it comes round.]"""
    guesses = meter(sources=16)
    fail(guesses, 64, 0.0, proven=True)
    fill(guesses, 16, 0.1, proven=True)
    assert not guesses.is_exhausted(MALLORY, 0.1), "it is forgotten"
    fail(guesses, 1, 0.1, proven=True)
    assert guesses.is_exhausted(MALLORY, 1.0)
    assert not guesses.is_exhausted(MALLORY, 1.1), "and from then on one a second, as anybody"


def test_many_sources_in_turn_buy_no_more_than_one_guess_each() -> None:
    """H-23: k addresses buy k guesses a round, beside one bucket for each place in the table."""
    guesses = meter(sources=16)
    tried = 0
    for round_ in range(50):
        for number in range(64):
            for _ in range(64):
                if not guesses.is_exhausted(number.to_bytes(7), float(round_)):
                    fail(guesses, 1, float(round_), proven=True, source=number.to_bytes(7))
                    tried += 1
    assert tried <= 16 * 64 + 50 * 64


def test_who_was_pushed_out_needs_a_cookie_after_one_guess() -> None:
    """H-23: without a cookie; whether that guess is under way or has failed."""
    guesses = meter(sources=16)
    fill(guesses, 16, 0.0, proven=False)
    assert not guesses.needs_cookie(MALLORY, 1.0)
    guesses.begin(MALLORY, False, 1.0)
    assert guesses.needs_cookie(MALLORY, 1.0)
    guesses.fail(MALLORY, False, 2.0)
    assert guesses.needs_cookie(MALLORY, 60.0)
    assert not guesses.needs_cookie(MALLORY, 62.0)


def test_who_was_pushed_out_and_has_the_seed() -> None:
    """H-23: an honest newcomer in the crowd needs no cookie for his next dial."""
    guesses = meter(sources=16)
    fill(guesses, 16, 0.0, proven=False)
    guesses.begin(MALLORY, False, 1.0)
    guesses.succeed(MALLORY, False, 1.1)
    assert not guesses.needs_cookie(MALLORY, 1.1)


@pytest.mark.parametrize("proven", [False, True])
def test_old_accounts_make_room_for_free(proven: bool) -> None:
    """H-23: where what is pushed out says nothing any more, a newcomer is as new as ever."""
    guesses = meter(sources=16)
    fill(guesses, 16, 0.0, proven=proven)
    fail(guesses, 7, 61.0, proven=proven)
    assert len(guesses) == 16
    assert not guesses.needs_cookie(MALLORY, 61.0)
    assert not guesses.is_exhausted(MALLORY, 61.0)


def test_guesses_under_way_count_when_they_are_pushed_out() -> None:
    """H-23: an account with a guess under way says something, so who comes in its place may be its owner."""
    guesses = meter(sources=16)
    for number in range(16):
        guesses.begin(number.to_bytes(7), False, 0.0)
    guesses.begin(MALLORY, False, 100.0)
    assert guesses.needs_cookie(MALLORY, 100.0)


def test_account_moves_with_what_it_says() -> None:
    """H-23: failures without a cookie count on when the source has shown one."""
    guesses = meter()
    fail(guesses, 7, 0.0, proven=False)
    fail(guesses, 1, 0.0, proven=True)
    assert guesses.needs_cookie(MALLORY, 0.0)
    assert len(guesses) == 1
    guesses.begin(MALLORY, False, 1.0)
    guesses.fail(MALLORY, False, 2.0)
    assert len(guesses) == 1


@given(walks(st.tuples(st.sampled_from(["begin", "succeed", "fail"]), st.booleans(), st.floats(0, 30)), 60))
def test_never_negative(history: list[tuple[str, bool, float]]) -> None:
    """Whatever order it is told things in, a quiet source is welcome again some time later."""
    guesses = meter()
    now = 0.0
    begun = [0, 0]
    for what, proven, later in history:
        now += later
        if what == "begin":
            guesses.begin(MALLORY, proven, now)
            begun[proven] += 1
        elif begun[proven]:
            getattr(guesses, what)(MALLORY, proven, now)
            begun[proven] -= 1
    for proven in (False, True):
        for _ in range(begun[proven]):
            guesses.succeed(MALLORY, proven, now)
    assert not guesses.needs_cookie(MALLORY, now + 61)
    assert not guesses.is_exhausted(MALLORY, now + 61)
