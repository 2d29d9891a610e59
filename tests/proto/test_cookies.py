"""Cookies (docs/protocol.md, H-22)."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.handshake import CookieJar
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
