"""Unreliable datagrams."""

from __future__ import annotations

from typing import Any

import pytest

from stt_proto.config import Config, Limits
from stt_proto.errors import ArgumentError, InvalidFrameError
from stt_proto.identity import Identity
from stt_proto.streams import DatagramQueues
from stt_proto.wire import Datagram, decode_frames_untrusted

IDENTITY = Identity.from_seed(bytes(range(32)))


def make_queues(peer_max: int = 65_535, **changes: Any) -> DatagramQueues:
    queues = DatagramQueues(Config(identity=IDENTITY, shared_seed=b"shared", **changes))
    queues.peer_max = peer_max
    return queues


def test_datagrams_are_sent_in_order_as_far_as_they_fit() -> None:
    """Section 8, DATAGRAM."""
    queues = make_queues()
    assert not queues.has_pending
    assert queues.pop_fitting(1000) is None
    for data in (b"one", bytearray(b"two"), memoryview(b"three"), bytes(500)):
        queues.send(data)
    assert queues.has_pending
    out: list[bytes | memoryview] = []
    used = queues.write_frames(out, 100)
    plain = b"".join(out)
    assert used == len(plain)
    assert decode_frames_untrusted(plain) == [Datagram(b"one"), Datagram(b"two"), Datagram(b"three")]
    assert queues.pop_fitting(502) is None
    assert queues.pop_fitting(503) == bytes(500)
    assert not queues.has_pending


def test_datagrams_that_are_too_old_are_not_sent() -> None:
    """D6, S-11: whatever is in front of them or behind; they count as dropped."""
    queues = make_queues()
    queues.send(b"old", 1.0, 10.0)
    queues.send(b"older", 0.5, 10.0)
    queues.send(b"for ever")
    queues.send(bytes(2000))
    queues.send(b"too old behind one too large", 2.0, 10.0)
    queues.send(b"new", 5.0, 10.0)
    assert queues.pop_fitting(1000, 1200, 10.999) == b"old"
    assert queues.pop_fitting(1000, 1200, 11.0) == b"for ever"
    assert queues.dropped_sending == 1
    assert queues.pop_fitting(1000, 1200, 12.0) == b"new"
    assert (queues.dropped_sending, queues.dropped_too_large) == (2, 1)
    queues.send(b"last", 0.001, 20.0)
    out: list[bytes | memoryview] = []
    assert queues.write_frames(out, 1000, 1200, 21.0) == 0
    assert not queues.has_pending


@pytest.mark.parametrize("lifetime", [0, -1.0, 86_401, "1", True])
def test_what_is_no_lifetime(lifetime: Any) -> None:
    queues = make_queues()
    with pytest.raises(ArgumentError) as caught:
        queues.send(b"x", lifetime)
    assert caught.value.argument == "max_lifetime"
    assert not queues.has_pending


def test_bytes_are_kept_and_anything_else_is_copied() -> None:
    queues = make_queues()
    kept, copied = b"kept", bytearray(b"copied")
    queues.send(kept)
    queues.send(copied)
    copied[:] = b"------"
    assert queues.pop_fitting(100) is kept
    assert queues.pop_fitting(100) == b"copied"


def test_what_fits_into_no_packet_is_dropped() -> None:
    """A datagram that is never sent must not hold up those behind it."""
    queues = make_queues()
    queues.send(bytes(2000))
    queues.send(b"small")
    assert queues.pop_fitting(100, 1200) == b"small"
    assert queues.dropped_too_large == 1
    queues.send(bytes(1000))
    assert queues.pop_fitting(100, 1200) is None
    assert queues.has_pending


@pytest.mark.parametrize("peer_max", [0, 10])
def test_the_peers_limit_is_kept(peer_max: int) -> None:
    """Section 5, max_datagram: none when it is 0."""
    queues = make_queues(peer_max)
    with pytest.raises(ArgumentError) as caught:
        queues.send(bytes(11))
    assert caught.value.argument == "data"
    if peer_max:
        queues.send(bytes(10))
        queues.send(b"")
    else:
        with pytest.raises(ArgumentError):
            queues.send(b"")


def test_only_bytes_are_sent() -> None:
    with pytest.raises(ArgumentError) as caught:
        make_queues().send("text")  # type: ignore[arg-type]
    assert caught.value.argument == "data"


def test_the_oldest_goes_when_too_many_wait() -> None:
    """S-11: 256 datagrams, each way."""
    queues = make_queues()
    assert queues.dropped_sending == queues.dropped_receiving == 0
    for i in range(300):
        queues.send(i.to_bytes(2))
        queues.on_datagram(i.to_bytes(2))
    assert queues.dropped_sending == queues.dropped_receiving == 44
    assert queues.pop_fitting(100) == queues.receive() == (44).to_bytes(2)


def test_the_oldest_goes_when_too_many_bytes_wait() -> None:
    """S-11: 1 MiB, each way."""
    queues = make_queues()
    for _ in range(40):
        queues.send(bytes(50_000))
        queues.on_datagram(bytes(50_000))
    assert queues.dropped_sending == queues.dropped_receiving == 40 - (1 << 20) // 50_000


def test_limits_come_from_the_configuration() -> None:
    """S-11."""
    queues = make_queues(limits=Limits(datagrams=1))
    queues.on_datagram(b"a")
    queues.on_datagram(b"b")
    assert queues.receive() == b"b"
    assert queues.receive() is None


@pytest.mark.parametrize(("announced", "size"), [(10, 11), (0, 0)])
def test_a_datagram_beyond_what_was_announced_closes_the_session(announced: int, size: int) -> None:
    """S-11."""
    queues = make_queues(max_datagram_size=announced)
    with pytest.raises(InvalidFrameError) as caught:
        queues.on_datagram(bytes(size))
    assert caught.value.code == 0x0401


def test_what_arrived_does_not_keep_its_packet() -> None:
    queues = make_queues()
    assert not queues.has_arrived
    assert queues.receive() is None
    packet = bytearray(b"datagram")
    queues.on_datagram(memoryview(packet))
    packet[:] = bytes(8)
    assert queues.has_arrived
    assert queues.receive() == b"datagram"
