"""The UDP socket: runs of datagrams in and out, one path for one address, and what the system complains about."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import anyio
import pytest

from stt_anyio import ArgumentError, NodeConfig, UdpCarrier
from stt_anyio import udp as udp_module
from stt_anyio.udp import READS_PER_WAKE_UP, UdpSocket, check_address, resolve_numeric
from stt_proto import NetworkPath, Transmit

LOOPBACK = ("127.0.0.1", 0)
linux = pytest.mark.skipif(sys.platform != "linux", reason="the system has no such option")


class Faulty(socket.socket):
    """A socket whose calls fail as planned: each takes the next of its `faults`, and works where that is `None`."""

    faults: ClassVar[dict[str, list[Any]]] = {}

    def _fail(self, call: str) -> None:
        planned = self.faults.get(call)
        if planned and (number := planned.pop(0)) is not None:
            raise OSError(number, "as planned")

    def sendmsg(self, *arguments: Any) -> int:
        self._fail("sendmsg")
        return super().sendmsg(*arguments)

    def recvmsg_into(self, *arguments: Any) -> Any:
        self._fail("recvmsg_into")
        return super().recvmsg_into(*arguments)

    def setsockopt(self, *arguments: Any) -> None:
        if arguments[:2] in self.faults.get("options", ()):
            raise OSError(errno.ENOPROTOOPT, "as planned")
        super().setsockopt(*arguments)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Sockets made from now on fail as this says."""
    monkeypatch.setattr(udp_module.socket, "socket", Faulty)
    monkeypatch.setattr(Faulty, "faults", {})
    return Faulty.faults


@pytest.fixture
def make() -> Iterator[Callable[..., UdpSocket]]:
    made: list[UdpSocket] = []

    def make(**options: Any) -> UdpSocket:
        made.append(UdpSocket(socket.AF_INET, LOOPBACK, NodeConfig(**options)))
        return made[-1]

    yield make
    for sock in made:
        sock.close()


def received(sock: UdpSocket) -> list[tuple[bytes, NetworkPath, int | None]]:
    """What one wake-up brings; waits for it, so loopback gets the moment that it needs."""
    waited = socket.socket(fileno=socket.dup(sock.fileno()))
    waited.settimeout(5)
    waited.recv(1, socket.MSG_PEEK)
    waited.detach()
    found: list[tuple[bytes, NetworkPath, int | None]] = []
    sock.receive(lambda data, path, size: found.append((bytes(data), path, size)))
    return found


def run_of(path: NetworkPath, *sizes: int) -> Transmit:
    """Datagrams of these sizes, all but the last equal; each holds its number."""
    return Transmit(path, tuple(bytes([number]) * size for number, size in enumerate(sizes)), sizes[0])


def datagrams(found: list[tuple[bytes, NetworkPath, int | None]]) -> list[bytes]:
    """Split runs."""
    split = []
    for data, _, size in found:
        split += [data[start : start + (size or len(data))] for start in range(0, len(data), size or len(data))]
    return split


# -- bytes ---------------------------------------------------------------------------------------------------------


@linux
def test_a_run_goes_out_and_comes_in_by_one_call_each(make: Callable[..., UdpSocket]) -> None:
    one, other = make(), make()
    assert one.segmentation
    assert other.coalescing
    assert one.send(run_of(one.path(other.local), 1200, 1200, 1200, 7)) is None
    found = received(other)
    assert [(len(data), size) for data, _, size in found] == [(3607, 1200)]
    assert datagrams(found) == [b"\0" * 1200, b"\1" * 1200, b"\2" * 1200, b"\3" * 7]
    single = Transmit(one.path(other.local), (b"one", b"datagram"))
    assert one.send(single) is None
    assert [(data, size) for data, _, size in received(other)] == [(b"onedatagram", None)]


@pytest.mark.parametrize("missing", [(17, 103), (17, 104)])
def test_systems_that_cannot_take_one_call_a_datagram(
    make: Callable[..., UdpSocket], faults: dict[str, list[Any]], missing: tuple[int, int]
) -> None:
    faults["options"] = [missing]
    one, other = make(), make()
    assert not (one.segmentation and other.coalescing)
    assert one.send(run_of(one.path(other.local), 1200, 1200, 7)) is None
    found: list[bytes] = []
    while len(found) < 3:
        found += datagrams(received(other))
    assert found == [b"\0" * 1200, b"\1" * 1200, b"\2" * 7]


@linux
@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL])
def test_segmentation_is_given_up_when_it_fails(
    make: Callable[..., UdpSocket], faults: dict[str, list[Any]], number: int
) -> None:
    one, other = make(), make()
    faults["sendmsg"] = [number]
    assert one.send(run_of(one.path(other.local), 1200, 1200)) is None
    assert not one.segmentation
    found: list[bytes] = []
    while len(found) < 2:
        found += datagrams(received(other))
    assert one.datagrams_dropped == 0


def test_systems_without_recvmsg(make: Callable[..., UdpSocket], monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows."""

    class Plain:
        def __init__(self, *arguments: Any) -> None:
            self._socket = socket.socket(*arguments)

        def __getattr__(self, name: str) -> Any:
            if name in ("recvmsg", "recvmsg_into", "sendmsg"):
                raise AttributeError(name)
            return getattr(self._socket, name)

    plain = type("plain", (), {**vars(socket), "socket": Plain})
    monkeypatch.setattr(udp_module, "socket", plain)
    monkeypatch.setattr(udp_module, "_LINUX", False)
    one, other = make(), make()
    assert not one.segmentation
    assert not one.coalescing
    assert one.send(run_of(one.path(other.local), 1200, 7)) is None
    found: list[bytes] = []
    while len(found) < 2:
        found += datagrams(received(other))
    assert found == [b"\0" * 1200, b"\1" * 7]


def test_one_wake_up_reads_so_much_and_no_more(make: Callable[..., UdpSocket]) -> None:
    one, other = make(), make()
    path = one.path(other.local)
    for number in range(READS_PER_WAKE_UP + 3):
        one.send(Transmit(path, (bytes([number]),)))
    assert [data[0] for data, _, _ in received(other)] == list(range(READS_PER_WAKE_UP))
    assert len(received(other)) == 3
    assert other.receive(lambda *_: None) == 0


# -- paths ---------------------------------------------------------------------------------------------------------


def test_one_address_is_one_path(make: Callable[..., UdpSocket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_module, "MAX_PATHS", 2)
    one, other = make(), make()
    path = other.path(one.local)
    assert path == NetworkPath("udp", other.local, one.local)
    one.send(Transmit(one.path(other.local), (b"x",)))
    assert received(other)[0][1] is path
    others = [other.path(("127.0.0.1", port)) for port in range(1, 4)]
    assert other.path(one.local) is path  # used lately, so remembered
    for port in range(10, 16):
        other.path(("127.0.0.1", port))
    assert other.path(("127.0.0.1", 1)) is not others[0]
    assert other.path(("127.0.0.1", 1)) == others[0]


def test_numeric_addresses_need_no_looking_up() -> None:
    assert resolve_numeric("127.0.0.1", 80) == (socket.AF_INET, ("127.0.0.1", 80))
    found = resolve_numeric("::1", 80)
    assert found is None or found[1] == ("::1", 80, 0, 0)
    assert resolve_numeric("localhost", 80) is None


# -- complaints ----------------------------------------------------------------------------------------------------


@linux
def test_a_full_socket_gives_back_what_is_left(make: Callable[..., UdpSocket], faults: dict[str, list[Any]]) -> None:
    one, other = make(), make()
    run = run_of(one.path(other.local), 1200, 1200, 1200, 7)
    faults["sendmsg"] = [errno.EAGAIN]
    assert one.send(run) is run
    faults["sendmsg"] = [errno.EIO, None, None, errno.EAGAIN]  # without segments, and full half-way
    left = one.send(run)
    assert left is not None
    assert list(left.datagrams()) == [b"\2" * 1200, b"\3" * 7]
    assert one.send(left) is None
    found: list[bytes] = []
    while len(found) < 4:
        found += datagrams(received(other))
    assert found == [b"\0" * 1200, b"\1" * 1200, b"\2" * 1200, b"\3" * 7]
    assert one.datagrams_dropped == 0


@linux
@pytest.mark.parametrize("number", [errno.EMSGSIZE, errno.ENOBUFS, errno.EPERM])
def test_what_the_system_refuses_is_lost(
    make: Callable[..., UdpSocket], faults: dict[str, list[Any]], number: int
) -> None:
    one, other = make(), make()
    faults["sendmsg"] = [number]
    assert one.send(Transmit(one.path(other.local), (b"x",))) is None
    assert one.datagrams_dropped == 1


@linux
@pytest.mark.parametrize("number", [errno.EBADF, errno.ENETDOWN])
def test_a_dead_socket_is_an_error(make: Callable[..., UdpSocket], faults: dict[str, list[Any]], number: int) -> None:
    one, other = make(), make()
    faults["sendmsg"] = [number]
    with pytest.raises(OSError, match="as planned"):
        one.send(Transmit(one.path(other.local), (b"x",)))
    faults["recvmsg_into"] = [number]
    with pytest.raises(OSError, match="as planned"):
        one.receive(lambda *_: None)


@linux
def test_no_route_is_a_hint_about_its_path(make: Callable[..., UdpSocket], faults: dict[str, list[Any]]) -> None:
    one, other = make(), make()
    hints: list[tuple[NetworkPath, str]] = []
    one.hint = lambda path, reason: hints.append((path, reason))
    path = one.path(other.local)
    faults["sendmsg"] = [errno.ENETUNREACH]
    assert one.send(Transmit(path, (b"x",))) is None
    assert hints == [(path, "unreachable")]
    assert one.datagrams_dropped == 1
    faults["recvmsg_into"] = [errno.ECONNRESET]  # as Windows has it, which does not say whom it is about
    one.send(Transmit(one.path(one.local), (b"x",)))
    assert [data for data, _, _ in received(one)] == [b"x"]
    assert len(hints) == 1


@linux
def test_port_unreachable_names_the_path_and_holds_up_no_other(make: Callable[..., UdpSocket]) -> None:
    one, other, gone = make(), make(), make()
    hints: list[tuple[NetworkPath, str]] = []
    one.hint = lambda path, reason: hints.append((path, reason))
    path = one.path(gone.local)
    gone.close()
    for _ in range(3):
        one.send(Transmit(path, (b"anybody?",)))
    one.send(Transmit(one.path(other.local), (b"hello",)))
    assert [data for data, _, _ in received(other)] == [b"hello"]
    one.receive(lambda *_: None)
    assert set(hints) == {(path, "refused")}
    assert len(hints) == 3


@linux
def test_complaints_are_read_a_few_at_a_time(make: Callable[..., UdpSocket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udp_module, "ERRORS_AT_ONCE", 2)
    one, gone = make(), make()
    hints: list[NetworkPath] = []
    path = one.path(gone.local)
    gone.close()
    for _ in range(5):
        one.send(Transmit(path, (b"anybody?",)))
    one.hint = lambda path, reason: hints.append(path)
    for _ in range(5):
        one.receive(lambda *_: None)
    assert hints
    assert set(hints) == {path}


def test_addresses_to_dial_are_checked() -> None:
    assert check_address(("example.org", 80)) == ("example.org", 80)
    assert check_address(("::1", 80, 0, 0)) == ("::1", 80)
    assert check_address(("fe80::1", 80, 0, 2)) == ("fe80::1%2", 80)
    for wrong in ("example.org:80", ("example.org", "80"), ("example.org", 0), ("", 80), (b"host", 80), ("h", 65_536)):
        with pytest.raises(ArgumentError) as caught:
            check_address(wrong)
        assert caught.value.argument == "address"


def test_the_port_is_taken(make: Callable[..., UdpSocket]) -> None:
    one = make(reuse_port=False)
    with pytest.raises(OSError, match="in use"):
        UdpSocket(socket.AF_INET, one.local, NodeConfig())


@linux
def test_ports_can_be_shared_and_buffers_asked_for(make: Callable[..., UdpSocket]) -> None:
    one = make(reuse_port=True, recv_buffer_size=65_536, send_buffer_size=65_536)
    other = UdpSocket(socket.AF_INET, one.local, NodeConfig(reuse_port=True))
    assert other.local == one.local
    assert 65_536 <= one.granted < other.granted
    other.close()


# -- under an event loop -------------------------------------------------------------------------------------------


class Node:
    """What a carrier sees of a node."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.pumped = anyio.Event()
        self.room = anyio.Event()

    def receive(self, data: Any, path: NetworkPath, segment_size: int | None = None) -> None:
        self.got.append(bytes(data))

    def pump(self) -> None:
        self.pumped.set()

    def writable(self, path: NetworkPath | None = None) -> None:
        self.room.set()

    def path_closed(self, path: NetworkPath, reason: str | None = None) -> None: ...

    def path_failed(self, path: NetworkPath, reason: str) -> None: ...


@linux
async def test_the_carrier_waits_for_room_and_goes_on_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Faulty, "faults", {"sendmsg": [errno.EAGAIN]})
    with monkeypatch.context() as patch:
        patch.setattr(udp_module.socket, "socket", Faulty)
        carrier = UdpCarrier(NodeConfig(bind_address="localhost"))
        await carrier.open()
    node = Node()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(carrier.run, node)
            await anyio.wait_all_tasks_blocked()
            path = await carrier.path_to(carrier.sockets[0].local)
            transmit = Transmit(path, (b"to myself",))
            assert carrier.send(transmit) is transmit
            await node.room.wait()
            assert carrier.send(transmit) is None
            await node.pumped.wait()
            tasks.cancel_scope.cancel()
    assert node.got == [b"to myself"]
    carrier.close()


async def test_names_are_looked_up_and_the_other_family_gets_a_socket() -> None:
    carrier = UdpCarrier(NodeConfig(bind_address="127.0.0.1"))
    await carrier.open()
    try:
        assert (await carrier.path_to(("localhost", 80))).remote == ("127.0.0.1", 80)
        for name in ("no.such.name.invalid", "a" * 70, "null\0character"):
            with pytest.raises(OSError):
                await carrier.path_to((name, 80))
        if socket.has_ipv6 and resolve_numeric("::1", 1) is not None:
            try:
                path = await carrier.path_to(("::1", 80))
            except OSError:
                return  # no IPv6 here
            assert path.remote == ("::1", 80, 0, 0)
            assert len(carrier.sockets) == 2
            assert (await carrier.path_to(("::1", 80))) is path
    finally:
        carrier.close()
