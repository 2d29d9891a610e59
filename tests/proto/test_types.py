"""The values that cross the border of the core."""

from __future__ import annotations

import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.types import CloseReason, Deadline, HandshakeStep, NetworkPath, SessionState, Transmit

PATH = NetworkPath("udp", ("127.0.0.1", 1), ("192.0.2.7", 4433))


def test_names_that_others_rely_on() -> None:
    """C2, B1 and section 11: the words are part of the interface."""
    assert [state.name for state in SessionState] == ["INIT", "HANDSHAKING", "ESTABLISHED", "CLOSING", "CLOSED"]
    assert list(CloseReason) == ["graceful", "timeout", "error", "auth_failure"]
    assert list(HandshakeStep) == ["hello", "challenge", "auth_proof", "final", "resume", "resumed"]


def test_paths_are_values() -> None:
    same = NetworkPath("udp", ("127.0.0.1", 1), ("192.0.2.7", 4433))
    assert same == PATH
    assert hash(same) == hash(PATH)
    assert {PATH: 1}[same] == 1
    assert NetworkPath("ws", PATH.local, PATH.remote) != PATH
    with pytest.raises(FrozenInstanceError):
        PATH.carrier = "ws"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("remote", "host"),
    [
        (("192.0.2.7", 4433), "192.0.2.7"),
        (("fe80::1", 1, 0, 2), "fe80::1"),
        ("somebody", "somebody"),
        (7, "7"),
        ((), "()"),
    ],
)
def test_remote_host(remote: object, host: str) -> None:
    """H-22, H-23: what cookies are bound to and guesses are counted under."""
    assert NetworkPath("udp", None, remote).remote_host == host


@given(st.integers(1, 40), st.integers(1, 300), st.data())
def test_a_transmit_splits_at_its_segments(size: int, total: int, data: st.DataObject) -> None:
    """DESIGN 3, "Out": buffers in any number, none crossing a border, are the same datagrams."""
    whole = bytes(index & 0xFF for index in range(total))
    expected = [whole[start : start + size] for start in range(0, total, size)]
    buffers: list[bytes | memoryview] = []
    for datagram in expected:
        cut = data.draw(st.integers(0, len(datagram)))
        buffers += datagram[:cut], memoryview(datagram)[cut:]
    transmit = Transmit(PATH, tuple(buffers), size)
    assert list(transmit.datagrams()) == expected
    assert transmit.size == total
    alone = Transmit(PATH, tuple(buffers))
    assert list(alone.datagrams()) == [whole]
    assert alone.ecn == 0


def test_a_deadline_says_what_for() -> None:
    assert Deadline(1.5, "loss") == Deadline(1.5, "loss")
    assert Deadline(1.5).reason == ""
