"""The socket filter: it computes what the core computes, in a model of classic BPF and in the kernel."""

from __future__ import annotations

import operator
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stt_anyio.workers import ports
from stt_anyio.workers.filter import Instruction, attach, program
from stt_anyio.workers.ports import Routing, SharedPort
from stt_proto import WorkerIds
from tests.proto.fleet import SECRET, by_kernel

LOOPBACK = ("127.0.0.1", 0)
linux = pytest.mark.skipif(sys.platform != "linux", reason="classic BPF on sockets that share a port is Linux's")

first_bytes = st.one_of(
    st.integers(0, 255),
    st.sampled_from([0x40, 0x60, *(0xC0 | kind for kind in range(16)), *(0xE0 | kind for kind in range(16))]),
)
datagrams = st.builds(
    lambda first, rest: bytes((first,)) + rest, first_bytes, st.one_of(st.binary(max_size=30), st.binary(max_size=1400))
)


COMPUTE = {0x00: operator.add, 0x20: operator.mul, 0x50: operator.and_, 0x70: operator.rshift}


def run(lines: Sequence[Instruction], data: bytes) -> int:
    """A machine for classic BPF, after the kernel's documentation (networking/filter.rst)."""
    a = x = at = 0
    memory = [0] * 16
    while True:
        code, if_so, if_not, k = lines[at]
        at += 1
        kind, size = code & 0x07, {0x00: 4, 0x08: 2, 0x10: 1}[code & 0x18]
        source = x if code & 0x08 else k
        match kind:
            case 0x00:  # LD, from an absolute place
                assert code & 0xE0 == 0x20
                if k + size > len(data):
                    return 0
                a = int.from_bytes(data[k : k + size])
            case 0x01:  # LDX, immediate
                assert code & 0xE0 == 0x00
                x = k
            case 0x02:
                memory[k] = a
            case 0x04:  # ALU
                a = COMPUTE[code & 0xF0](a, source) & 0xFFFFFFFF
            case 0x05:  # JMP
                taken = {0x10: a == source, 0x40: bool(a & source)}[code & 0xF0]
                at += if_so if taken else if_not
            case 0x06:  # RET A
                assert code & 0x18 == 0x10
                return a
            case 0x07:  # TAX
                assert code & 0xF8 == 0x00
                x = a


@given(datagrams, st.integers(1, 64), st.binary(min_size=32, max_size=32))
@example(b"\xc1" + bytes(24), 2, SECRET)
@example(b"\xc8" + bytes(23), 2, SECRET)
@settings(max_examples=500)
def test_the_program_computes_what_the_core_computes(datagram: bytes, count: int, secret: bytes) -> None:
    """C-7, C-8: of datagrams of every form and length; what is too short is the first worker's."""
    ids = WorkerIds(secret, 0, count)
    assert run(program(ids), datagram) == by_kernel(ids, datagram)


@given(st.integers(1, 64), st.binary(min_size=32, max_size=32))
def test_the_program_is_one_that_the_kernel_takes(count: int, secret: bytes) -> None:
    """No loop, no jump out of it, 4,096 instructions at most, and a return at the end of every way."""
    lines = program(WorkerIds(secret, 0, count))
    assert len(lines) <= 4096
    for at, line in enumerate(lines):
        assert 0 <= line.if_so <= 255
        assert 0 <= line.if_not <= 255
        assert 0 <= line.k < 1 << 32
        if line.code & 0x07 == 0x05:
            assert at + 1 + max(line.if_so, line.if_not) < len(lines)
    assert lines[-1].code & 0x07 == 0x06


@contextmanager
def shared_port(family: socket.AddressFamily, host: str, count: int) -> Iterator[SharedPort]:
    try:
        port = SharedPort(family, (host, 0), WorkerIds(SECRET, 0, count))
    except OSError:
        pytest.skip(f"no {host} here")
    try:
        if port.routing is Routing.HAND_OVER:
            pytest.skip("the kernel takes no filters")
        for sock in port.sockets:
            sock.settimeout(5.0)
        yield port
    finally:
        port.close()


@linux
@pytest.mark.parametrize("count", [2, 3, 16])
@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_kernel_computes_it_too(family: socket.AddressFamily, host: str, count: int) -> None:
    """C-8: it looks at the payload of UDP, and counts sockets in the order in which they were bound."""
    ids = WorkerIds(SECRET, 0, count)
    with shared_port(family, host, count) as port, socket.socket(family, socket.SOCK_DGRAM) as sender:
        seen = set()

        def send(datagram: bytes) -> None:
            whose = by_kernel(ids, datagram)
            seen.add(whose)
            sender.sendto(datagram, port.local)
            assert port.sockets[whose].recv(2000) == datagram

        for number in range(64):
            name = (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8)
            send(b"\x40" + name + bytes(20))
            send(b"\xc3" + bytes(8) + name + bytes(40))
            send(b"\xc1" + bytes(16) + name + bytes(1175))
            send(b"\xe8" + bytes(16) + name + bytes(20))
        for size in range(1, 40):
            send(b"\xc1" + bytes(size))
            send(b"\x7f" + b"\x55" * size)
        assert seen == set(range(count))


@linux
def test_the_places_outlive_a_worker() -> None:
    """Supervision: copies of the sockets are closed and opened again; nothing moves as long as the parent has them."""
    ids = WorkerIds(SECRET, 0, 3)
    names = [next(name for name in (bytes([n] * 8) for n in range(99)) if ids.worker_of(name) == w) for w in range(3)]
    with (
        shared_port(socket.AF_INET, "127.0.0.1", 3) as port,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        for _ in range(3):
            copies = [sock.dup() for sock in port.sockets]
            copies[0].close()
            for worker, name in enumerate(names):
                sender.sendto(b"\x40" + name + bytes([worker]), port.local)
                assert port.sockets[worker].recv(2000)[-1] == worker
            for copy in copies:
                copy.close()


def test_a_port_that_is_taken() -> None:
    """The first places of a group would be somebody else's, who shares too."""
    with shared_port(socket.AF_INET, "127.0.0.1", 2) as port:
        with pytest.raises(OSError, match="in use"):
            SharedPort(socket.AF_INET, port.local, WorkerIds(SECRET, 0, 2))


def test_where_there_are_no_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fall-back is told: by the system's name, by what the kernel says."""
    monkeypatch.setattr(ports, "attach", lambda sock, lines: False)
    port = SharedPort(socket.AF_INET, LOOPBACK, WorkerIds(SECRET, 0, 2))
    port.close()
    assert port.routing is Routing.HAND_OVER
    port = SharedPort(socket.AF_INET, LOOPBACK, WorkerIds(SECRET, 0, 1))
    port.close()
    assert port.routing is Routing.SINGLE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        assert not attach(sock, [Instruction(0xFFFF, 0, 0, 0)])
        monkeypatch.setattr(sys, "platform", "darwin")
        assert not attach(sock, program(WorkerIds(SECRET, 0, 2)))
