"""The filter by which the kernel gives each datagram to the worker whose it is: a classic BPF program (Linux).

`SO_ATTACH_REUSEPORT_CBPF` attaches it to a group of sockets that share a port, and needs no privilege. It sees the
payload of a datagram and gives the number of a socket in the group, in the order in which they were bound. What it
computes is `stt_proto.WorkerIds.worker_of`, of the ID by which a datagram goes (docs/protocol.md, C-8).

Classic BPF has two registers of 32 bits and no loops, and ends with 0 where a datagram is shorter than what is looked
at: socket 0 then, whose worker drops it.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

from stt_proto import WorkerIds

ATTACH_REUSEPORT_CBPF = 51
"""SO_ATTACH_REUSEPORT_CBPF, on all machines but those with SPARC and PA-RISC."""

LOAD_BYTE = 0x30  # BPF_LD | BPF_B | BPF_ABS: A = the byte at k
LOAD_HALF = 0x28  # BPF_LD | BPF_H | BPF_ABS: A = the two bytes at k, big-endian
SET_X = 0x01  # BPF_LDX | BPF_IMM
A_TO_X = 0x07  # BPF_MISC | BPF_TAX
ADD_X = 0x0C  # BPF_ALU | BPF_ADD | BPF_X
MULTIPLY = 0x24  # BPF_ALU | BPF_MUL | BPF_K
AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
SHIFT_RIGHT = 0x74  # BPF_ALU | BPF_RSH | BPF_K
JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_IF_ANY = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RETURN_A = 0x16  # BPF_RET | BPF_A

_FORM_BIT, _MESSAGE = 0x80, 0x0F
_HELLO, _RESUME = 1, 8
_PACKET_DCID, _DCID, _SCID = 1, 9, 17


class Instruction(NamedTuple):
    """One instruction: what, how many to skip if so and if not, and a constant."""

    code: int
    if_so: int
    if_not: int
    k: int


def program(ids: WorkerIds) -> list[Instruction]:
    """The filter for all workers of a port; `ids` are those of any of them."""
    by_dcid, by_scid, by_packet = (_worker_of(ids, offset) for offset in (_DCID, _SCID, _PACKET_DCID))
    size = len(by_dcid)
    return [
        Instruction(LOAD_BYTE, 0, 0, 0),
        Instruction(JUMP_IF_ANY, 0, 3 + 2 * size, _FORM_BIT),
        Instruction(AND, 0, 0, _MESSAGE),
        Instruction(JUMP_IF_EQUAL, 1 + size, 0, _HELLO),
        Instruction(JUMP_IF_EQUAL, size, 0, _RESUME),
        *by_dcid,
        *by_scid,
        *by_packet,
    ]


def _worker_of(ids: WorkerIds, offset: int) -> list[Instruction]:
    """`WorkerIds.worker_of` of the ID at an offset; the sum is in X."""
    first, *multipliers = ids.words
    lines = [Instruction(SET_X, 0, 0, first)]
    for index, multiplier in enumerate(multipliers):
        lines += [
            Instruction(LOAD_HALF, 0, 0, offset + 2 * index),
            Instruction(MULTIPLY, 0, 0, multiplier),
            Instruction(ADD_X, 0, 0, 0),
            Instruction(A_TO_X, 0, 0, 0),
        ]
    return [
        *lines,
        Instruction(SHIFT_RIGHT, 0, 0, 16),
        Instruction(MULTIPLY, 0, 0, ids.count),
        Instruction(SHIFT_RIGHT, 0, 0, 16),
        Instruction(RETURN_A, 0, 0, 0),
    ]


def attach(sock: socket.socket, lines: Sequence[Instruction]) -> bool:
    """Attach a program to the group of sockets that one belongs to; False where the system cannot."""
    if sys.platform != "linux":
        return False
    code = b"".join(struct.pack("HBBI", *line) for line in lines)
    memory = ctypes.create_string_buffer(code, len(code))
    try:
        sock.setsockopt(
            socket.SOL_SOCKET, ATTACH_REUSEPORT_CBPF, struct.pack("HP", len(lines), ctypes.addressof(memory))
        )
    except OSError:
        return False
    return True
