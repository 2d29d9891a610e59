"""One connection and the place where it is registered, without a system behind them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stt_anyio.connections import Connection, FileMedium, Registry, SocketConnection
from stt_anyio.links import FramedLink
from stt_proto import Limits, NetworkPath, Transmit

PATH = NetworkPath("stream", ("here", 1), ("there", 2))


class Port:
    """What a carrier tells its node."""

    def __init__(self) -> None:
        self.ended: list[NetworkPath] = []
        self.received: list[tuple[bytes, NetworkPath]] = []
        self.writable = self.at_end = lambda *_: None

    def receive(self, message: bytes, path: NetworkPath) -> None:
        self.received.append((bytes(message), path))

    def path_closed(self, path: NetworkPath, reason: str | None) -> None:
        self.ended.append(path)


def registered() -> tuple[Registry, Any]:
    """Where connections are entered, and what is told of them."""
    port: Any = Port()
    registry = Registry(Limits(), 10.0, lambda: 0.0, lambda _: None)
    registry.port = port
    return registry, port


class Mute(Connection):
    """Nothing can be written, and once it is `broken` that shows."""

    broken = False

    def flush(self) -> None:
        if self.broken:
            self.broke("broken pipe")

    def release(self) -> None:
        pass


def test_a_connection_that_breaks_while_it_is_written_is_never_full() -> None:
    """Its path is closed before what did not fit is given back. It was full for ever then, and the next there too."""
    registry, port = registered()
    connection = Mute(FramedLink(), PATH, stranger=False)
    registry.add(connection)
    connection.link.start()
    packet = Transmit(PATH, (bytes(60_000),))
    while connection.send(packet) is None:
        assert connection.backlog < 1 << 20
    assert connection.full
    connection.full = False
    connection.broken = True
    assert connection.send(packet) is None, "lost with its path"
    assert not connection.full
    assert port.ended == [PATH]
    assert registry.send(packet) is None


# -- who is counted, and under which name --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "same", "other"),
    [
        (lambda number: "198.51.100.7", "198.51.100.7", "198.51.100.8"),
        (lambda number: f"2001:db8:0:ff{number:02x}::{number + 1:x}", "2001:db8:0:ffaa:1:2:3:4", "2001:db8:0:fe00::1"),
        (lambda number: "::ffff:198.51.100.7", "198.51.100.7", "::ffff:198.51.100.8"),
    ],
)
def test_strangers_of_one_source(address: Callable[[int], str], same: str, other: str) -> None:
    """P-22: 256 for an IPv4 address or a /56 of IPv6, whatever the address in it; they are free again at the end."""

    def stranger(host: str, port: int) -> Mute:
        return Mute(FramedLink(), NetworkPath("stream", ("here", 1), (host, port, 0, 0)), stranger=True)

    registry, _ = registered()
    taken = [stranger(address(number), number) for number in range(256)]
    assert all(registry.add(each) for each in taken)
    assert not registry.add(stranger(same, 999))
    assert registry.add(stranger(other, 999))
    taken[0].close()
    assert registry.add(stranger(same, 999))
    assert not registry.add(stranger(same, 1000))


def test_a_new_connection_from_a_port_whose_old_one_was_not_read_to_its_end() -> None:
    """Both are there until the old one was read: what came on it is its own, and so is its end."""
    registry, port = registered()
    old, new = (Mute(FramedLink(), PATH, stranger=True) for _ in range(2))
    for connection in (old, new):
        assert registry.add(connection)
        connection.link.start()
    assert old.path == PATH
    assert (new.path.carrier, new.path.remote) == (PATH.carrier, PATH.remote)
    new.take_in(b"\0\3new")
    old.take_in(b"\0\3old")
    assert port.received == [(b"new", new.path), (b"old", PATH)]
    registry.path_used(PATH)
    assert (old.stranger, new.stranger) == (False, True)
    old.take_end()
    assert port.ended == [PATH]
    assert registry.send(Transmit(PATH, (b"x",))) is None
    assert list(registry.by_path.values()) == [new]
    assert registry.send(Transmit(new.path, (b"x",))) is None
    assert new.backlog > 0
    new.close()
    assert not registry.by_path
    assert not registry.timed


@contextmanager
def pipes() -> Iterator[tuple[FileMedium, int, int]]:
    """Both ends of a connection over two pipes: a medium, and the numbers of the other side's files."""
    (r1, w1), (r2, w2) = os.pipe(), os.pipe()
    try:
        yield FileMedium(os.fdopen(r1, "rb", 0), os.fdopen(w2, "wb", 0)), r2, w1
    finally:
        os.close(r2)
        os.close(w1)


def test_numbers_of_closed_files_are_somebody_elses() -> None:
    """A pipe that was ended is closed; who opens a file then gets its number, and nobody else may touch that."""
    released: list[set[int]] = []
    with pipes() as (medium, _, _):
        registry, _ = registered()
        connection = SocketConnection(FramedLink(), PATH, medium, stranger=False)
        connection.on_written = lambda connection: released.append(connection.medium.waited)
        connection.on_released = lambda connection: released.append(connection.medium.waited)
        registry.add(connection)
        connection.link.start()
        reads, writes = medium.reads, medium.writes
        connection.leave()
        assert released.pop() == {reads, writes}
        opened = os.open(os.devnull, os.O_RDWR)  # which has the number already, as a rule
        somebody = opened if opened == writes else os.dup2(opened, writes)
        medium.end()
        with pytest.raises(OSError):
            medium.write([b"to somebody else"])
        connection.close()
        assert released.pop() == {reads}
        os.fstat(somebody)  # raises if it was closed
        with pytest.raises(OSError):
            os.fstat(reads)
        for number in {somebody, opened}:
            os.close(number)
