"""The header of packets, alone and in trains, before and after its protection is removed (docs/protocol.md, section 7).

A receiver with keys gets runs of datagrams: made up, genuine, damaged, repeated, out of order, and segments of trains
with any index. Nothing raises; only what was sealed opens, once, and whole; what does not open leaves no trace but
counters and a bounded number of segments.
"""

from __future__ import annotations

from functools import cache
from math import inf

from fuzz.harness import Choices, instrumented, main

with instrumented(__name__):
    from attrs import astuple

    from fuzz.peers import path_of
    from stt_proto.crypto import SUITES
    from stt_proto.packet import (
        MAX_PACKET_NUMBER,
        PacketKeys,
        PacketReceiver,
        Sealer,
        TrainBudget,
        decode_number,
        run_end,
    )
    from stt_proto.types import NetworkPath
    from stt_proto.wire.header import MAX_TRAIN

CID = b"connctID"
OTHER_CID = b"anotherI"
MAX_TRAINS, MAX_BYTES = 3, 1 << 17
SIZES = (31, 32, 40, 64, 100, 1200)
FAR = (0, 1, 5, 511, 512, 65_535, 65_536, 65_537, 1 << 31, 1 << 32, 1 << 61)


@cache
def keys_of(suite: int, version: int) -> PacketKeys:
    """Keys, the same in every run."""
    return PacketKeys(SUITES[suite], bytes((version,)) * 32, b"h" * 32, version)


class Run:
    """A receiver and what was sealed for it."""

    def __init__(self, choices: Choices) -> None:
        self.suite = 1 + choices.below(2)
        self.budget = TrainBudget(2 * MAX_BYTES)
        self.receiver = PacketReceiver(
            keys_of(self.suite, 0), self.budget, max_trains=MAX_TRAINS, max_train_bytes=MAX_BYTES
        )
        self.paths = path_of(), path_of("198.51.100.9")
        self.number = -1
        self.datagrams: list[bytes] = []
        self.plain: dict[int, bytes] = {}
        self.opened: set[int] = set()
        self.version_of: dict[int, int] = {}
        self.version = self.begun = 0
        self.newest: float = 0.0  # the smallest number opened of the version that begins
        self.overlapping = False
        self.now = 0.0

    def begin(self) -> None:
        """The first packet of the next version has opened."""
        self.begun += 1
        assert self.begun <= self.version

    def seal(self, choices: Choices) -> None:
        """Make a packet, alone in its datagram or a train."""
        version = choices.below(3)
        step = choices.pick(FAR) if choices.below(8) == 0 else choices.below(4)
        self.number = min(self.number + 1 + step, MAX_PACKET_NUMBER)
        plain = choices.chunk() * (1 + choices.below(64))
        size = choices.pick(SIZES)
        if self.number in self.plain or len(plain) > 40 * (size - 31):
            return
        sealer = Sealer(keys_of(self.suite, version))
        buffers, _, _ = sealer.seal(self.number, CID, [plain], size)
        whole = b"".join(buffers)
        self.plain[self.number] = plain
        self.version_of[self.number] = version
        self.datagrams += (whole[start : start + size] for start in range(0, len(whole), size))

    def receive(self, datagrams: list[bytes], size: int | None, path: NetworkPath, may_train: bool, ecn: int) -> None:
        """Take in a run, as an endpoint does: cut where the connection ID changes."""
        view = memoryview(b"".join(datagrams))
        start = 0
        while start < len(view):
            end = run_end(view, start, len(view), size)
            assert start < end <= len(view)
            self._receive(view, start, end, size, path, may_train, ecn)
            start = end

    def _receive(
        self, view: memoryview, start: int, end: int, size: int | None, path: NetworkPath, may_train: bool, ecn: int
    ) -> None:
        receiver = self.receiver
        before = receiver.window.largest
        counted = sum(astuple(receiver.counters))
        opened = receiver.receive(view, start, end, size, path, self.now, may_train, ecn)
        for packet in opened:
            assert self.plain[packet.number] == packet.plain
            assert packet.number not in self.opened, "a packet opened twice"
            assert packet.size <= MAX_TRAIN
            version = self.version_of[packet.number]
            assert self.version - self.overlapping <= version <= self.version, "a version that is gone, or to come"
            assert version == self.version or packet.number < self.newest, "an old key for a new packet"
            if version == self.version:
                self.newest = min(self.newest, packet.number)
            self.opened.add(packet.number)
        assert receiver.window.largest == max([before, *(packet.number for packet in opened)])
        assert opened or len(receiver.trains) or sum(astuple(receiver.counters)) > counted
        assert len(receiver.trains) <= MAX_TRAINS
        assert receiver.trains.cost == self.budget.cost <= MAX_BYTES
        assert len(self.budget) == len(receiver.trains)


def fuzz_one(data: bytes) -> None:
    """Seal, damage and receive."""
    choices = Choices(data)
    run = Run(choices)
    while choices:
        match choices.below(10):
            case 0 | 1 | 2:
                run.seal(choices)
            case 3 | 4 | 5:
                receive_some(run, choices)
            case 6:
                receive_made_up(run, choices)
            case 7:
                run.now += choices.pick((0.0, 0.5, 2.0))
                run.receiver.expire(run.now)
                assert run.receiver.deadline > run.now
            case 8:
                check_number(choices)
            case _:
                change_keys(run, choices)


def receive_some(run: Run, choices: Choices) -> None:
    """Some of the datagrams, in any order, perhaps damaged, perhaps in one run."""
    if not run.datagrams:
        return
    if choices.below(4) == 0:  # all that is left, as they were sent
        chosen, run.datagrams = run.datagrams[:64], run.datagrams[64:]
    else:
        chosen = [choices.pick(run.datagrams) for _ in range(1 + choices.below(8))]
    how = choices.byte()
    if how & 1:
        at = choices.below(len(chosen))
        chosen[at] = choices.damage(chosen[at])
    if how & 2:
        at = choices.below(len(chosen))
        chosen[at] = chosen[at][:1] + OTHER_CID + chosen[at][9:]
    path = run.paths[how >> 2 & 1]
    may_train, ecn = how >> 3 & 3 != 0, how >> 5 & 3
    if how & 0x80:
        run.receive(chosen, max(13, choices.below(2000)), path, may_train, ecn)
        return
    for datagram in chosen:
        run.receive([datagram], None, path, may_train, ecn)


def receive_made_up(run: Run, choices: Choices) -> None:
    """Datagrams of which only the connection ID is right."""
    datagrams = []
    for _ in range(1 + choices.below(4)):
        first = choices.byte()
        datagrams.append(bytes((first if choices.flag() else first & 0x3F | 0x40,)) + CID + choices.chunk())
    size = choices.pick((None, *SIZES))
    run.receive(datagrams, size, run.paths[0], True, 0)


def check_number(choices: Choices) -> None:
    """The full number is one of those that end in the same four bytes, and the one nearest to what is expected."""
    largest, low = choices.number() - 1, choices.number() & 0xFFFF_FFFF
    number = decode_number(low, largest)
    assert number >= 0
    assert number & 0xFFFF_FFFF == low
    distance = abs(number - (largest + 1))
    assert distance <= abs(number + (1 << 32) - (largest + 1))
    assert number < 1 << 32 or distance <= abs(number - (1 << 32) - (largest + 1))


def change_keys(run: Run, choices: Choices) -> None:
    """The next version begins, or the one before goes."""
    if not run.overlapping:
        run.version += 1
        run.newest = inf
        run.receiver.overlap(bytes((run.version & 0xFF,)) * 32, run.begin)
    else:
        run.receiver.settle()
    run.overlapping = not run.overlapping


if __name__ == "__main__":
    main(fuzz_one)
