"""Cookies: those of a responder, and those that a dial was given (docs/protocol.md, H-14, H-22)."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.handshake import CookieJar
from stt_proto.handshake.cookies import CookiePurse
from stt_proto.types import NetworkPath

KEY = bytes(range(32))
NAME = bytes(range(100, 116))
PATH = NetworkPath("udp", ("192.0.2.1", 4433), ("198.51.100.7", 50000))


def path_of(remote: object) -> NetworkPath:
    return NetworkPath("udp", ("192.0.2.1", 4433), remote)


def test_format() -> None:
    """H-22: low byte of the tick, then 16 bytes of HMAC over tick, lv(host), lv(port) and hello hash."""
    named = bytes(7) + b"\x07" + b"\x0c198.51.100.7" + b"\x0550000" + NAME
    assert CookieJar(KEY).make(PATH, NAME, 70.0) == b"\x07" + hmac.digest(KEY, named, "sha256")[:16]


@pytest.mark.parametrize("age", [0.0, 9.99, 10.0, 15.0])
def test_good_in_its_tick_and_the_next(age: float) -> None:
    """H-22: ticks last 10 s; the current and the one before are good."""
    jar = CookieJar(KEY)
    assert jar.check(jar.make(PATH, NAME, 40.0), PATH, NAME, 40.0 + age)


@pytest.mark.parametrize("later", [20.0, 1000.0, -1.0])
def test_not_good_at_any_other_time(later: float) -> None:
    """H-22: neither two ticks later nor before it was made."""
    jar = CookieJar(KEY)
    assert not jar.check(jar.make(PATH, NAME, 40.0), PATH, NAME, 40.0 + later)


def test_ticks_wrap_around() -> None:
    """H-22: one byte of the tick travels."""
    jar = CookieJar(KEY)
    cookie = jar.make(PATH, NAME, 2559.0)
    assert cookie[0] == 255
    assert jar.check(cookie, PATH, NAME, 2561.0)
    assert not jar.check(cookie, PATH, NAME, 2571.0)


@pytest.mark.parametrize(
    "remote",
    [("198.51.100.8", 50000), ("198.51.100.7", 50001), ("198.51.100.75", 0), "198.51.100.7", ("198.51.100.7",), 7],
)
def test_good_for_one_address(remote: object) -> None:
    """H-22: a cookie fits the host and the port that it was sent to, and no other."""
    jar = CookieJar(KEY)
    other = path_of(remote)
    cookie = jar.make(PATH, NAME, 0.0)
    assert not jar.check(cookie, other, NAME, 0.0)
    assert jar.check(jar.make(other, NAME, 0.0), other, NAME, 0.0)


def test_borders_between_host_and_port_cannot_be_moved() -> None:
    """H-22: lv() keeps them apart."""
    jar = CookieJar(KEY)
    assert jar.make(path_of(("a1", 2)), NAME, 0.0) != jar.make(path_of(("a", 12)), NAME, 0.0)


def test_good_for_one_hello_and_one_endpoint() -> None:
    """H-22: another HELLO, or the key of another endpoint, is another cookie."""
    cookie = CookieJar(KEY).make(PATH, NAME, 0.0)
    assert not CookieJar(KEY).check(cookie, PATH, bytes(16), 0.0)
    assert not CookieJar(bytes(32)).check(cookie, PATH, NAME, 0.0)


@given(cookie=st.binary(max_size=64))
def test_no_other_bytes_are_a_cookie(cookie: bytes) -> None:
    """H-22: whatever arrives as a cookie is only compared."""
    assert not CookieJar(KEY).check(cookie, PATH, NAME, 0.0)


@given(position=st.integers(0, 16), bit=st.integers(0, 7))
def test_every_bit_counts(position: int, bit: int) -> None:
    jar = CookieJar(KEY)
    cookie = bytearray(jar.make(PATH, NAME, 25.0))
    cookie[position] ^= 1 << bit
    assert not jar.check(bytes(cookie), PATH, NAME, 25.0)


def test_key_stays_inside() -> None:
    jar = CookieJar(KEY)
    assert KEY.hex() not in repr(jar)
    with pytest.raises(TypeError):
        jar.__reduce__()


# -- those that a dial was given -----------------------------------------------------------------------------------


def test_without_a_cookie() -> None:
    purse = CookiePurse()
    assert purse.urgent == 0
    assert purse.show() == b""


def test_the_first_few_are_urgent() -> None:
    """H-14: 4 in a dial; what was heard before is no news."""
    purse = CookiePurse()
    assert [purse.add(b"%d" % (number // 2)) for number in range(12)] == [True, False] * 6
    assert purse.urgent == 4
    assert [purse.show() for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    assert purse.urgent == 0


def test_the_newest_four_have_their_turns() -> None:
    """H-14: first those that were not shown yet."""
    purse = CookiePurse()
    for number in range(6):
        purse.add(b"%d" % number)
        if purse.urgent:
            purse.show()
    turns = [[purse.show() for _ in range(4)] for _ in range(5)]
    assert turns[0] == [b"5", b"4", b"3", b"2"]
    assert all(sorted(turn) == [b"2", b"3", b"4", b"5"] for turn in turns)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=30, max_size=60))
def test_a_cookie_that_is_heard_again_and_again_has_its_turn(crowd: list[tuple[int, bool]]) -> None:
    """H-14: up to 3 that nobody heard before come with each HELLO; the responder's own waits for 5 turns at most."""
    purse = CookiePurse()
    made_up = 0
    waited = 0
    for others, last in crowd:
        forged = [b"%d" % (made_up + number) for number in range(others)]
        made_up += others
        for cookie in (*forged, b"genuine") if last else (b"genuine", *forged):
            purse.add(cookie)
        while purse.urgent:
            purse.show()
        waited = 0 if purse.show() == b"genuine" else waited + 1
        assert waited <= 5
