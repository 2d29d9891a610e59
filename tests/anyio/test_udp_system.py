"""What the UDP socket asks of the system, and what it believes: sizes, marks, buffers, addresses."""

from __future__ import annotations

import errno
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from stt_anyio import NodeConfig
from stt_anyio.udp import UdpSocket, options, udpsocket
from stt_proto import NetworkPath, Transmit
from tests.anyio.sockets import ICMP, LOCAL, complaint, datagrams, linux, received, run_of


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What sockets made from now on say of sizes."""
    told: list[tuple[Any, ...]] = []
    original = UdpSocket.__init__

    def init(self: UdpSocket, *arguments: Any) -> None:
        original(self, *arguments)
        self.too_large = lambda *refusal: told.append(refusal)

    monkeypatch.setattr(UdpSocket, "__init__", init)
    return told


@linux
@pytest.mark.parametrize(
    ("queue", "limit"),
    [
        (None, None),  # as systems without such a queue
        ([complaint(errno.EMSGSIZE, LOCAL, 1500)], 1472),
        ([complaint(errno.EMSGSIZE, ICMP, 600), complaint(errno.EMSGSIZE, LOCAL, 1400)], 1372),
        ([(socket.IPPROTO_IP, socket.IP_TOS, b"\0"), complaint(errno.EMSGSIZE, LOCAL, 1500)], 1472),
    ],
)
def test_a_datagram_too_large_for_the_machine(
    make_socket: Callable[..., UdpSocket],
    faults: dict[str, list[Any]],
    refusals: list[tuple[Any, ...]],
    queue: list[Any] | None,
    limit: int | None,
) -> None:
    """P-20: the protocol is told at once, with what the system says of its own network."""
    faults["options"] = [(socket.IPPROTO_IP, 11)] if queue is None else []
    one, other = make_socket(), make_socket()
    path = one.path(other.local)
    faults["sendmsg"], faults["queue"] = [errno.EMSGSIZE], list(queue or ())
    assert one.send(Transmit(path, (b"x" * 1800, b"y" * 200))) is None
    assert refusals == [(path, 2000, limit)]
    assert (one.datagrams_dropped, one.datagrams_too_large) == (1, 1)


@linux
def test_what_others_say_of_sizes_is_not_believed(
    make_socket: Callable[..., UdpSocket], faults: dict[str, list[Any]], refusals: list[tuple[Any, ...]]
) -> None:
    """G-3, P-20: ICMP comes as the error of some later call, which was not even tried; it is tried again."""
    one, other = make_socket(), make_socket()
    faults["sendmsg"], faults["queue"] = [errno.EMSGSIZE], [complaint(errno.EMSGSIZE, ICMP, 600)]
    one.send(Transmit(one.path(other.local), (b"x",)))
    assert [data for data, *_ in received(other)] == [b"x"]
    faults["sendmsg"], faults["queue"] = [errno.EMSGSIZE], [complaint(errno.EMSGSIZE, ICMP, 600)]
    run = run_of(one.path(other.local), 1200, 1200)
    assert one.send(run) is None
    found: list[bytes] = []
    while len(found) < 2:
        found += datagrams(received(other))
    assert one.segmentation
    assert refusals == []
    faults["sendmsg"], faults["queue"] = [errno.EMSGSIZE] * 3, [complaint(errno.EMSGSIZE, ICMP, 600)] * 3
    one.send(Transmit(one.path(other.local), (b"x",)))  # again and again: then it is lost
    assert (refusals, one.datagrams_dropped) == ([], 1)


@linux
@pytest.mark.parametrize("number", [errno.EMSGSIZE, errno.EINVAL])
def test_a_run_of_datagrams_that_are_too_large(
    make_socket: Callable[..., UdpSocket], faults: dict[str, list[Any]], refusals: list[tuple[Any, ...]], number: int
) -> None:
    """P-20: kernels call it one or the other; one datagram by itself tells, and segmentation is not at fault."""
    one, other = make_socket(), make_socket()
    path = one.path(other.local)
    faults["sendmsg"], faults["queue"] = [number, errno.EMSGSIZE], [complaint(errno.EMSGSIZE, LOCAL, 1200)]
    assert one.send(run_of(path, 1400, 1400, 1400, 7)) is None
    assert refusals == [(path, 1400, 1172)]
    assert one.segmentation
    assert (one.datagrams_dropped, one.datagrams_too_large) == (4, 1)
    faults["sendmsg"] = [errno.EINVAL] * 5  # for whatever reason
    assert one.send(run_of(path, 1400, 1400)) is None
    assert one.segmentation


# -- marks, buffers, addresses --------------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("ecn", [0, 1, 2, 3])
def test_marks_go_out_and_come_in(family: socket.AddressFamily, ecn: int) -> None:
    """R-11: with single datagrams and with runs."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        one, other = (UdpSocket(family, (host, 0), NodeConfig()) for _ in range(2))
    except OSError:
        pytest.skip("no IPv6 here")
    path = one.path(other.local)
    for transmit in (Transmit(path, (b"one",), None, ecn), Transmit(path, (b"a" * 1200, b"b" * 7), 1200, ecn)):
        assert one.send(transmit) is None
        received(other, marks := [])
        assert marks == [ecn]
    one.close()
    other.close()


@linux
def test_marks_are_given_up_when_they_are_what_fails(
    make_socket: Callable[..., UdpSocket], faults: dict[str, list[Any]]
) -> None:
    """R-11: and only then; segmentation stays."""
    one, other = make_socket(), make_socket()
    path = one.path(other.local)
    faults["sendmsg"] = [errno.EINVAL] * 3
    assert one.send(Transmit(path, (b"lost",), None, 2)) is None
    assert (one.marking, one.datagrams_dropped) == (True, 1)
    faults["sendmsg"] = [errno.EINVAL, errno.EINVAL]
    run = Transmit(path, (b"a" * 1200, b"b" * 7), 1200, 2)
    assert one.send(run) is None
    assert (one.marking, one.segmentation) == (False, True)
    found: list[bytes] = []
    while len(found) < 2:
        received(other, marks := [], found)
        assert set(marks) == {0}
    assert one.send(run) is None
    received(other, marks := [])
    assert marks == [0]


class Recorder:
    """A socket that grants so much and remembers what it was asked."""

    def __init__(self, granted: int = 0, refuses: int = 1 << 40) -> None:
        self.granted = granted
        self.refuses = refuses
        self.set: list[tuple[int, int, int]] = []

    def setsockopt(self, level: int, option: int, value: int) -> None:
        if value > self.refuses:
            raise OSError(errno.ENOBUFS, "as planned")
        self.set.append((level, option, value))

    def getsockopt(self, level: int, option: int) -> int:
        return self.granted


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("linux", ((0, 10, 3), (41, 23, 3))),
        ("darwin", ((0, 28, 1), (41, 62, 1))),
        ("freebsd14", ((0, 67, 1), (41, 62, 1))),
        ("win32", ((0, 14, 1), (41, 14, 1))),
    ],
)
def test_datagrams_are_never_cut(
    monkeypatch: pytest.MonkeyPatch, system: str, expected: tuple[tuple[int, int, int], ...]
) -> None:
    """P-17: every system has a word of its own for DF."""
    monkeypatch.setattr(sys, "platform", system)
    for family, asked in zip((socket.AF_INET, socket.AF_INET6), expected, strict=True):
        sock = Recorder()
        assert options.never_cut(sock, family)
        assert sock.set == [asked]
        assert not options.never_cut(Recorder(refuses=0), family)


def test_systems_that_may_cut_datagrams(
    make_socket: Callable[..., UdpSocket], monkeypatch: pytest.MonkeyPatch, faults: dict[str, list[Any]]
) -> None:
    """P-17: there nothing is searched for."""
    monkeypatch.setattr(sys, "platform", "unheard-of")
    sock = make_socket()
    assert not sock.never_cut
    config = NodeConfig()
    assert config.udp_traits(never_cut=False).max_probe is None
    assert config.udp_traits(never_cut=True).max_probe == 65_507
    assert config.udp_traits(never_cut=True).max_packet == 1200
    pinned = NodeConfig(datagram_size=1452).udp_traits(never_cut=True)
    assert (pinned.max_packet, pinned.max_probe) == (1452, None)


@linux
def test_df_is_set(make_socket: Callable[..., UdpSocket]) -> None:
    sock = make_socket()
    assert sock.never_cut
    assert sock._socket.getsockopt(socket.IPPROTO_IP, 10) == 3


def test_a_buffer_that_the_system_caps_is_worth_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One, which says what to do."""
    options._warn_of_buffer.cache_clear()
    monkeypatch.setattr(options, "LINUX", True)
    with caplog.at_level(logging.WARNING, "stt"):
        for _ in range(3):
            assert options.set_buffer(Recorder(425_984), "SO_RCVBUF", 4 << 20) == 425_984
        assert options.set_buffer(Recorder(8 << 20), "SO_SNDBUF", 4 << 20) == 8 << 20
    (record,) = caplog.records
    assert record.name == "stt.udp"
    assert "212992 bytes of SO_RCVBUF instead of 4194304" in record.message
    assert "net.core.rmem_max=4194304" in record.message
    options._warn_of_buffer.cache_clear()


def test_systems_that_refuse_what_is_too_much(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As macOS: half of it, and half of that."""
    options._warn_of_buffer.cache_clear()
    monkeypatch.setattr(options, "LINUX", False)
    sock = Recorder(1 << 20, refuses=1 << 20)
    assert options.set_buffer(sock, "SO_SNDBUF", 4 << 20) == 1 << 20
    assert [value for _, _, value in sock.set] == [1 << 20]
    assert options.set_buffer(Recorder(9000, refuses=0), "SO_SNDBUF", 4 << 20) == 9000
    assert [record.message for record in caplog.records] == [
        "the system grants 1048576 bytes of SO_SNDBUF instead of 4194304",
        "the system grants 9000 bytes of SO_SNDBUF instead of 4194304",
    ]
    options._warn_of_buffer.cache_clear()


@linux
def test_answers_leave_from_the_address_that_was_asked(
    make_socket: Callable[..., UdpSocket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """H-30: who dials one address of a machine with many waits for what comes from there."""
    monkeypatch.setattr(udpsocket, "MAX_PATHS", 4)
    everywhere, client = make_socket(("0.0.0.0", 0)), make_socket()
    port = everywhere.local[1]
    paths = []
    for host in ("127.0.0.1", "127.0.0.2"):
        for size in (None, 3):
            client.send(Transmit(client.path((host, port)), (b"ask",)))
            ((_, path, _),) = received(everywhere)
            assert path == NetworkPath("udp", (host, port), client.local)
            everywhere.send(Transmit(path, (b"ans", b"wer"), size))
            ((_, back, _), *_) = received(client)
            assert back is client.path((host, port))
            paths.append(path)
    assert paths[0] is paths[1]
    assert paths[2] is paths[3]
    assert udpsocket.owner_of(paths[0].local, [client, everywhere]) is everywhere
    for number in range(20):  # what is not used is forgotten
        everywhere.path(("127.0.0.1", 1000 + number))
    client.send(Transmit(client.path(("127.0.0.1", port)), (b"ask",)))
    ((_, path, _),) = received(everywhere)
    assert path == paths[0]
    assert path is not paths[0]


@linux
def test_what_we_dialled_may_answer_to_any_of_our_addresses(make_socket: Callable[..., UdpSocket]) -> None:
    """H-30: our own address is the system's choice, and the path is the one that was dialled."""
    everywhere, peer = make_socket(("0.0.0.0", 0)), make_socket()
    path = everywhere.path(peer.local)
    for host in ("127.0.0.1", "127.0.0.3"):
        peer.send(Transmit(peer.path((host, everywhere.local[1])), (b"hello",)))
        ((_, back, _),) = received(everywhere)
        assert back is path


@linux
def test_answers_by_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is only one address of this machine that is sure to be there, and it is told."""
    try:
        everywhere, client = (UdpSocket(socket.AF_INET6, (host, 0), NodeConfig()) for host in ("::", "::1"))
    except OSError:
        pytest.skip("no IPv6 here")
    client.send(Transmit(client.path(("::1", everywhere.local[1], 0, 0)), (b"ask",)))
    ((_, path, _),) = received(everywhere)
    assert path.local == ("::1", everywhere.local[1], 0, 0)
    assert everywhere.send(Transmit(path, (b"answer",))) is None
    assert [data for data, *_ in received(client)] == [b"answer"]
    everywhere.close()
    client.close()


def test_options_of_calls_are_bounded(make_socket: Callable[..., UdpSocket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udpsocket, "MAX_OPTIONS", 4)
    one, other = make_socket(), make_socket()
    for size in range(100, 120):
        one.send(run_of(one.path(other.local), size, 7))
        assert len(one._options) <= 5
