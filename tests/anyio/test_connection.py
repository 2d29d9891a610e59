"""One connection and the place where it is registered, without a system behind them."""

from __future__ import annotations

from typing import Any

from stt_anyio.connections import Connection, Registry
from stt_anyio.links import FramedLink
from stt_proto import Limits, NetworkPath, Transmit

PATH = NetworkPath("stream", ("here", 1), ("there", 2))


class Port:
    """What a carrier tells its node."""

    def __init__(self) -> None:
        self.ended: list[NetworkPath] = []
        self.writable = self.receive = self.at_end = lambda *_: None

    def path_closed(self, path: NetworkPath, reason: str | None) -> None:
        self.ended.append(path)


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
    port: Any = Port()
    registry = Registry(Limits(), 10.0, lambda: 0.0, lambda _: None)
    registry.port = port
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
