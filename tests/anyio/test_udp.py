"""The UDP socket: runs of datagrams in and out, one path for one address, and what the system complains about."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from stt_anyio import ArgumentError, NodeConfig, STTNode, UdpCarrier
from stt_anyio.blocking import BlockingNode
from stt_anyio.udp import UdpSocket, check_address, options, resolve_numeric, udpsocket
from stt_anyio.udp.udpsocket import READS_PER_WAKE_UP
from stt_proto import NetworkPath, Transmit
from tests.anyio.sockets import Faulty, datagrams, linux, received, run_of

# -- bytes ---------------------------------------------------------------------------------------------------------


@linux
def test_a_run_goes_out_and_comes_in_by_one_call_each(make_socket: Callable[..., UdpSocket]) -> None:
    one, other = make_socket(), make_socket()
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
    make_socket: Callable[..., UdpSocket], faults: dict[str, list[Any]], missing: tuple[int, int]
) -> None:
    faults["options"] = [missing]
    one, other = make_socket(), make_socket()
    assert not (one.segmentation and other.coalescing)
    assert one.send(run_of(one.path(other.local), 1200, 1200, 7)) is None
    found: list[bytes] = []
    while len(found) < 3:
        found += datagrams(received(other))
    assert found == [b"\0" * 1200, b"\1" * 1200, b"\2" * 7]


@linux
@pytest.mark.parametrize("number", [errno.EIO, errno.EINVAL])
def test_segmentation_is_given_up_when_it_fails(
    make_socket: Callable[..., UdpSocket], faults: dict[str, list[Any]], number: int
) -> None:
    one, other = make_socket(), make_socket()
    faults["sendmsg"] = [number]
    assert one.send(run_of(one.path(other.local), 1200, 1200)) is None
    assert not one.segmentation
    found: list[bytes] = []
    while len(found) < 2:
        found += datagrams(received(other))
    assert one.datagrams_dropped == 0


def test_systems_without_recvmsg(make_socket: Callable[..., UdpSocket], monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows."""

    class Plain:
        def __init__(self, *arguments: Any) -> None:
            self._socket = socket.socket(*arguments)

        def __getattr__(self, name: str) -> Any:
            if name in ("recvmsg", "recvmsg_into", "sendmsg"):
                raise AttributeError(name)
            return getattr(self._socket, name)

    plain = type("plain", (), {**vars(socket), "socket": Plain})
    monkeypatch.setattr(udpsocket, "socket", plain)
    monkeypatch.setattr(options, "LINUX", False)
    one, other = make_socket(), make_socket()
    assert not one.segmentation
    assert not one.coalescing
    assert one.send(run_of(one.path(other.local), 1200, 7)) is None
    found: list[bytes] = []
    while len(found) < 2:
        found += datagrams(received(other))
    assert found == [b"\0" * 1200, b"\1" * 7]


def test_one_wake_up_reads_so_much_and_no_more(make_socket: Callable[..., UdpSocket]) -> None:
    one, other = make_socket(), make_socket()
    path = one.path(other.local)
    for number in range(READS_PER_WAKE_UP + 3):
        one.send(Transmit(path, (bytes([number]),)))
    assert [data[0] for data, _, _ in received(other)] == list(range(READS_PER_WAKE_UP))
    assert len(received(other)) == 3
    assert other.receive(lambda *_: None) == 0


# -- paths ---------------------------------------------------------------------------------------------------------


def test_one_address_is_one_path(make_socket: Callable[..., UdpSocket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udpsocket, "MAX_PATHS", 2)
    one, other = make_socket(), make_socket()
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
def test_a_full_socket_gives_back_what_is_left(
    make_socket: Callable[..., UdpSocket], faults: dict[str, list[Any]]
) -> None:
    one, other = make_socket(), make_socket()
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
@pytest.mark.parametrize("number", [errno.ENOBUFS, errno.EPERM, errno.EINVAL])
def test_what_the_system_refuses_is_lost(
    make_socket: Callable[..., UdpSocket], faults: dict[str, list[Any]], number: int
) -> None:
    one, other = make_socket(), make_socket()
    faults["sendmsg"] = [number]
    assert one.send(Transmit(one.path(other.local), (b"x",))) is None
    assert one.datagrams_dropped == 1


@linux
@pytest.mark.parametrize("number", [errno.EBADF, errno.ENETDOWN])
def test_a_dead_socket_is_an_error(
    make_socket: Callable[..., UdpSocket], faults: dict[str, list[Any]], number: int
) -> None:
    one, other = make_socket(), make_socket()
    faults["sendmsg"] = [number]
    with pytest.raises(OSError, match="as planned"):
        one.send(Transmit(one.path(other.local), (b"x",)))
    faults["recvmsg_into"] = [number]
    with pytest.raises(OSError, match="as planned"):
        one.receive(lambda *_: None)


@linux
def test_no_route_is_a_hint_about_its_path(make_socket: Callable[..., UdpSocket], faults: dict[str, list[Any]]) -> None:
    one, other = make_socket(), make_socket()
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
def test_port_unreachable_names_the_path_and_holds_up_no_other(make_socket: Callable[..., UdpSocket]) -> None:
    one, other, gone = make_socket(), make_socket(), make_socket()
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
def test_complaints_are_read_a_few_at_a_time(
    make_socket: Callable[..., UdpSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(udpsocket, "ERRORS_AT_ONCE", 2)
    one, gone = make_socket(), make_socket()
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


def test_the_port_is_taken(make_socket: Callable[..., UdpSocket]) -> None:
    one = make_socket(reuse_port=False)
    with pytest.raises(OSError, match="in use"):
        UdpSocket(socket.AF_INET, one.local, NodeConfig())


@linux
def test_ports_can_be_shared_and_buffers_asked_for(make_socket: Callable[..., UdpSocket]) -> None:
    one = make_socket(reuse_port=True, recv_buffer_size=65_536, send_buffer_size=65_536)
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

    def receive(self, data: Any, path: NetworkPath, segment_size: int | None = None, ecn: int = 0) -> None:
        self.got.append(bytes(data))

    def pump(self) -> None:
        self.pumped.set()

    def writable(self, path: NetworkPath | None = None) -> None:
        self.room.set()

    def path_closed(self, path: NetworkPath, reason: str | None = None) -> None: ...

    def path_failed(self, path: NetworkPath, reason: str) -> None: ...

    def datagram_refused(self, path: NetworkPath, size: int, limit: int | None = None) -> None: ...


@linux
async def test_the_carrier_waits_for_room_and_goes_on_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Faulty, "faults", {"sendmsg": [errno.EAGAIN]})
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Faulty)
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


# -- with everything -----------------------------------------------------------------------------------------------

TRANSFER = 16 << 20
PIECE = bytes(1 << 17)


@linux
@pytest.mark.parametrize("datagram_size", [None, 1452])
async def test_nodes_find_out_what_loopback_carries(udp_sessions: Any, datagram_size: int | None) -> None:
    """P-17, P-20, R-11: large datagrams, marks that are honest; unless the size is told."""
    with anyio.fail_after(60):
        async with udp_sessions(datagram_size=datagram_size) as (ours, theirs):
            stream = ours.open_stream()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_drain, theirs)
                for _ in range(TRANSFER // len(PIECE)):
                    await stream.send(PIECE)
                await stream.aclose()
            stats = ours.get_stats()
            assert stats.mtu == 1452 if datagram_size else stats.mtu > 1472
            assert (stats.mtu_black_holes, stats.ecn) == (0, "capable")
            sock: UdpSocket = ours.node._carriers["udp"].sockets[0]
            sock.too_large(ours.core.path, stats.mtu, 1300)
            assert ours.get_stats().mtu == 1300


async def _drain(session: Any) -> None:
    stream = await session.accept_stream()
    total = 0
    async for piece in stream:
        total += len(piece)
    assert total == TRANSFER


@linux
def test_blocking_nodes_find_it_out_too() -> None:
    """P-17, P-20, R-11."""
    shared: dict[str, Any] = {"shared_seed": "between us", "host": "127.0.0.1", "background": True}
    with BlockingNode(server_mode=True, **shared) as server, BlockingNode(**shared) as client:
        session = client.connect((server.host, server.port))
        taker = threading.Thread(target=_take_all, args=(server.accept(10),))
        taker.start()
        stream = session.open_stream()
        for _ in range(TRANSFER // len(PIECE)):
            stream.send(PIECE)
        stream.close()
        taker.join(60)
        assert not taker.is_alive()
        stats = session.get_stats()
        assert stats.mtu > 1472
        assert (stats.mtu_black_holes, stats.ecn) == (0, "capable")
        assert client._sockets is not None
        with client.lock:
            client._sockets.all[0].too_large(session.core.path, stats.mtu, 1300)
        assert session.get_stats().mtu == 1300


def _take_all(session: Any) -> None:
    stream = session.accept_stream()
    left = TRANSFER
    while left:
        left -= len(stream.receive())


@linux
async def test_all_addresses_of_a_node_can_be_dialled() -> None:
    """H-30: what is bound to all of them answers from the one that was asked."""
    secret = {"shared_seed": "between us"}
    with anyio.fail_after(20):
        async with STTNode(host="0.0.0.0", server_mode=True, **secret) as server, STTNode(**secret) as client:
            for host in ("127.0.0.1", "127.0.0.2"):
                session = await client.connect((host, server.port))
                peer = await server.accept()
                assert peer.session_id == session.session_id
                assert peer.core.path.local == (host, server.port)


@linux
def test_single_packets_leave_by_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is a packet of its own for the core goes out in runs, and is one again at the other end."""
    calls: list[int] = []
    original = socket.socket.sendmsg

    class Counting(socket.socket):
        def sendmsg(self, buffers: Any, *arguments: Any) -> int:
            sent = original(self, buffers, *arguments)
            calls.append(sent)
            return sent

    monkeypatch.setattr(socket, "socket", Counting)
    secret: dict[str, Any] = {"shared_seed": "between us", "host": "127.0.0.1", "datagram_size": 1200}
    with BlockingNode(server_mode=True, background=True, **secret) as server, BlockingNode(**secret) as client:
        session = client.connect((server.host, server.port))
        peer = server.accept(10)
        with client.lock:
            del calls[:]
            sent = [bytes([number]) * 1000 for number in range(8)]  # all of which the first window takes
            for data in sent:
                session.core.send_datagram(data, client.driver.clock())
            client.driver.pump()
            assert len(calls) < len(sent) // 2
        assert [peer.receive_datagram(10) for _ in sent] == sent
