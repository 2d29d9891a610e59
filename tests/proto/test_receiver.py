"""Datagrams in, packets out: whole packets, trains in any pieces, and everything that an attacker may send."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise
from math import inf

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stt_proto.crypto import AES_256_GCM, CHACHA20_POLY1305
from stt_proto.packet import Opened, PacketKeys, PacketReceiver, Sealer, TrainBudget, capacity, run_end
from stt_proto.types import NetworkPath

DCID = b"\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11"
PATH, OTHER = NetworkPath("udp", 1, ("a", 1)), NetworkPath("udp", 1, ("b", 2))
KEYS = PacketKeys(AES_256_GCM, b"\x11" * 32, b"\x22" * 32)
CHACHA = PacketKeys(CHACHA20_POLY1305, b"\x11" * 32, b"\x22" * 32)
LATER = [PacketKeys(AES_256_GCM, bytes([i]) * 32, b"\x22" * 32, version=i) for i in range(6)]


def filler(length: int, seed: int = 0) -> bytes:
    return hashlib.shake_128(str(seed).encode()).digest(length)


def seal(number: int, plain: bytes, size: int = 1200, keys: PacketKeys = KEYS) -> list[bytes]:
    """The datagrams of one packet."""
    buffers, _, _ = Sealer(keys).seal(number, DCID, [plain], size)
    return [header + piece for header, piece in zip(buffers[::2], buffers[1::2], strict=True)]


def train(number: int, segments: int, size: int = 60, short: int = 0, seed: int = 0) -> tuple[bytes, list[bytes]]:
    plain = filler(capacity(size, segments) - short, seed or number)
    datagrams = seal(number, plain, size)
    assert len(datagrams) == segments
    return plain, datagrams


def new(keys: PacketKeys = KEYS, budget: TrainBudget | None = None) -> PacketReceiver:
    return PacketReceiver(keys, TrainBudget() if budget is None else budget)


def take(
    receiver: PacketReceiver,
    data: bytes | bytearray | memoryview,
    size: int | None = None,
    path: NetworkPath = PATH,
    now: float = 0.0,
    may_train: bool = True,
    ecn: int = 0,
) -> list[Opened]:
    return receiver.receive(data, 0, len(data), size, path, now, may_train, ecn)


def numbers(opened: list[Opened]) -> list[int]:
    return [packet.number for packet in opened]


def state(receiver: PacketReceiver) -> tuple[object, ...]:
    """Everything but the counters."""
    window = receiver.window
    return (
        window.largest,
        window._bits,
        dict(window._older),
        len(receiver.trains),
        receiver.trains.cost,
        dict(receiver.trains._finished),
    )


# -- packets in one datagram ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [KEYS, CHACHA])
@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: memoryview(bytearray(data))])
def test_a_packet(keys: PacketKeys, kind: type) -> None:
    """P-1 to P-7: opened, with all that recovery wants to know; the buffer is borrowed for the call."""
    receiver = new(keys)
    plain = filler(1000)
    (datagram,) = seal(7, plain, keys=keys)
    data = kind(b"before" + datagram + b"after")
    (packet,) = receiver.receive(data, 6, 6 + len(datagram), None, PATH, 0.0, False, 2)
    assert (packet.number, packet.plain, packet.epoch) == (7, plain, 0)
    assert (packet.segments, packet.size, packet.ecn) == (1, len(datagram), 2)
    assert repr(packet) == "Opened(number=7, 1000 bytes, segments=1)"
    assert type(packet.plain) is bytes
    if isinstance(data, bytearray):
        data.clear()  # raises if anything still holds it


def test_several_packets_in_one_run() -> None:
    """P-1: packets of one size that were coalesced, the last one shorter."""
    run = b"".join(seal(number, filler(71 if number < 4 else 3))[0] for number in range(5))
    receiver = new()
    assert numbers(take(receiver, run, 100)) == [0, 1, 2, 3, 4]
    assert numbers(take(new(), run[:100], 100)) == [0]


def test_an_empty_packet_opens() -> None:
    """P-1, P-12: 29 bytes are enough for a packet; that it lacks a frame is for others to say."""
    (packet,) = take(new(), seal(0, b"")[0])
    assert (packet.plain, packet.size) == (b"", 29)


def test_replayed() -> None:
    """P-7: asked before opening, marked after; a packet too old to tell is dropped."""
    receiver = new()
    old, first, last = seal(0, b"old")[0], seal(1, b"first")[0], seal(65_537, b"last")[0]
    assert numbers(take(receiver, first)) == [1]
    assert take(receiver, first) == []
    assert numbers(take(receiver, last)) == [65_537]
    assert take(receiver, old) == []
    assert take(receiver, first) == []
    assert receiver.counters.replayed == 3
    assert receiver.counters.forged == 0


@given(order=st.permutations(range(12)), start=st.sampled_from([0, 2**32 - 6, 2**48]))
def test_any_order(order: list[int], start: int) -> None:
    """P-6, P-7: packets out of order, also where the four bytes wrap."""
    receiver = new()
    receiver.window.largest = start - 1
    packets = [seal(start + i, filler(20, i))[0] for i in range(12)]
    opened = [packet for i in order for packet in take(receiver, packets[i])]
    assert numbers(opened) == [start + i for i in order]


@pytest.mark.parametrize("keys", [KEYS, CHACHA])
def test_every_flipped_bit(keys: PacketKeys) -> None:
    """P-8: one flipped bit anywhere, and nothing opens or changes but counters."""
    (datagram,) = seal(70_000, b"some frames", keys=keys)
    receiver = new(keys)
    before = state(receiver)
    for bit in range(8 * len(datagram)):
        damaged = bytearray(datagram)
        damaged[bit // 8] ^= 1 << bit % 8
        assert take(receiver, damaged) == []
    receiver.expire(inf)  # with the train bit flipped it may be held as a segment
    assert state(receiver) == before
    assert receiver.counters.forged > 150
    assert receiver.failed_trains == 0
    assert numbers(take(receiver, datagram)) == [70_000]


def test_every_truncation() -> None:
    """P-8: truncated and lengthened packets are dropped."""
    (datagram,) = seal(0, b"some frames")
    receiver = new()
    for length in range(len(datagram)):
        assert take(receiver, datagram[:length]) == []
    assert take(receiver, datagram + b"\0") == []
    assert numbers(take(receiver, datagram)) == [0]


@pytest.mark.parametrize("first", [0x00, 0x3F, 0x80, 0xC1, 0xFF])
def test_form(first: int) -> None:
    """Section 3: what is not a packet by its two highest bits is dropped."""
    receiver = new()
    assert take(receiver, bytes([first]) + seal(0, b"x" * 40)[0][1:]) == []
    assert receiver.counters.malformed == 1


def seal_by_hand(flags: int, number: int, plain: bytes = b"frames") -> bytes:
    """A packet whose tag is right and whose flags may be wrong."""
    header = bytes([flags]) + DCID + (number % 2**32).to_bytes(4, "big")
    sealed = KEYS.aead.encrypt((KEYS.iv ^ number).to_bytes(12, "big"), plain, header)
    mask = KEYS.header_mask(sealed[:16])
    masked = bytearray(header)
    masked[0] ^= mask[0] & 0x1F
    for i in range(4):
        masked[9 + i] ^= mask[1 + i]
    return bytes(masked) + sealed


def test_reserved_bits_and_epochs_that_are_not() -> None:
    """P-5: reserved bits set, or an epoch without keys: dropped, although the tag is right."""
    receiver = new()
    assert numbers(take(receiver, seal_by_hand(0x40, 0))) == [0]
    for bit in (4, 8, 16):
        assert take(receiver, seal_by_hand(0x40 | bit, 1)) == []
    assert receiver.counters.malformed == 3
    for epoch in (1, 2, 3):
        assert take(receiver, seal_by_hand(0x40 | epoch, 1)) == []
    assert receiver.counters.unknown_epoch == 3
    assert receiver.counters.forged == 0


def test_numbers_end() -> None:
    """P-6: a packet number is at most 2^62 - 1."""
    receiver = new()
    assert receiver.window.largest == -1
    receiver.window.mark(2**62 - 2)
    assert take(receiver, seal_by_hand(0x40, 2**62)) == []
    assert take(receiver, seal_by_hand(0x40, 2**62 + 1)) == []
    assert receiver.counters.malformed == 2
    assert numbers(take(receiver, seal_by_hand(0x40, 2**62 - 1))) == [2**62 - 1]


def test_key_versions() -> None:
    """P-5, P-6, V-5: two versions at once, told apart by the epoch; one window and one header protection for all."""
    receiver, first = new(LATER[0]), []
    packets = [seal(number, filler(30, number), keys=LATER[number])[0] for number in range(6)]
    assert take(receiver, packets[1]) == []
    receiver.overlap(bytes([1]) * 32, lambda: first.append(1))
    assert [packet.epoch for number in (1, 0) for packet in take(receiver, packets[number])] == [1, 0]
    assert first == [1]
    for version in range(2, 6):
        receiver.settle()
        assert take(receiver, packets[version]) == []
        receiver.overlap(bytes([version]) * 32, lambda: None)
        assert [packet.epoch for packet in take(receiver, packets[version])] == [version % 4]
    assert take(receiver, packets[4]) == []
    assert receiver.counters.replayed == 1


def test_too_many_forgeries() -> None:
    """P-11: so many packets that did not open, and the session must close."""
    assert AES_256_GCM.integrity_limit == 2**52
    assert CHACHA20_POLY1305.integrity_limit == 2**36
    keys = PacketKeys(attrs.evolve(AES_256_GCM, integrity_limit=2), b"\x11" * 32, b"\x22" * 32)
    receiver = new(keys)
    (datagram,) = seal(0, b"frames")
    damaged = datagram[:-1] + bytes([datagram[-1] ^ 1])
    take(receiver, damaged)
    assert not receiver.exhausted
    take(receiver, damaged)
    assert receiver.exhausted


# -- trains --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [KEYS, CHACHA])
@pytest.mark.parametrize(("size", "length"), [(1452, 64_000), (1200, 64_000), (60, 100), (60, 75), (100, 154)])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_train_in_one_run(keys: PacketKeys, size: int, length: int, kind: type) -> None:
    """P-1: opened without waiting; counts as one packet of so many datagrams."""
    plain = filler(length)
    datagrams = seal(9, plain, size, keys)
    run = b"".join(datagrams)
    receiver = new(keys)
    (packet,) = take(receiver, kind(run), size, ecn=1)
    assert (packet.number, packet.plain, packet.epoch) == (9, plain, 0)
    assert (packet.segments, packet.size, packet.ecn) == (len(datagrams), len(run), 1)
    assert len(receiver.trains) == 0
    assert take(receiver, run, size) == []
    assert receiver.counters.replayed == 1
    for datagram in datagrams:
        assert take(receiver, datagram) == []
    assert len(receiver.trains) == 0, "ghosts of duplicates open nothing (P-9)"


@given(data=st.data(), segments=st.integers(2, 12), short=st.integers(0, 42))
def test_a_train_in_any_pieces(data: st.DataObject, segments: int, short: int) -> None:
    """P-1, P-9: cut into runs anywhere, in any order, some of them twice: opened once, when all was there."""
    plain, datagrams = train(3, segments, short=short)
    cuts = sorted({0, segments, *data.draw(st.sets(st.integers(1, segments - 1)))})
    runs = [datagrams[a:b] for a, b in pairwise(cuts)]
    arriving = data.draw(st.permutations(runs + data.draw(st.lists(st.sampled_from(runs), max_size=3))))
    receiver = new()
    opened, seen, opened_at = [], set(), None
    for i, run in enumerate(arriving):
        opened += take(receiver, bytearray(b"".join(run)), len(run[0]), now=i * 0.01)
        seen.update(run)
        if opened_at is None and len(seen) == segments:
            opened_at = i
            assert [packet.plain for packet in opened] == [plain]
    assert numbers(opened) == [3]
    assert opened[0].size == sum(map(len, datagrams))
    assert len(receiver.trains) == 0
    assert receiver.trains.cost == 0


@given(data=st.data())
def test_trains_interleaved(data: st.DataObject) -> None:
    """P-4, P-9: segments of several trains and single packets, shuffled and coalesced as it comes."""
    size, packets = 60, {}
    for number in range(data.draw(st.integers(1, 5))):
        segments = data.draw(st.integers(1, 6))
        packets[number] = train(number, segments, size, data.draw(st.integers(0, 30)) if segments > 1 else 0)
    arriving = data.draw(st.permutations([datagram for _, datagrams in packets.values() for datagram in datagrams]))
    receiver = new()
    opened, run = [], []
    for datagram in arriving:
        run.append(datagram)
        if len(datagram) < size or data.draw(st.booleans()):
            opened += take(receiver, b"".join(run), size)
            run = []
    if run:
        opened += take(receiver, b"".join(run), size)
    assert {packet.number: packet.plain for packet in opened} == {n: plain for n, (plain, _) in packets.items()}
    assert len(opened) == len(packets)
    assert len(receiver.trains) == 0


def test_congestion_marks_of_a_train() -> None:
    """R-1: marked when any segment was."""
    _, datagrams = train(0, 4)
    receiver = new()
    opened = [
        packet for i, datagram in enumerate(datagrams) for packet in take(receiver, datagram, ecn=3 if i == 2 else 2)
    ]
    assert [packet.ecn for packet in opened] == [3]


@pytest.mark.parametrize("marks", [(3, 2, 2), (2, 3, 2), (2, 2, 3)])
def test_congestion_marks_of_a_train_in_several_runs(marks: tuple[int, ...]) -> None:
    """R-1: each run tells its own mark; what began the train counts like what came after, but nothing is made up."""
    _, datagrams = train(0, 6)
    runs = [b"".join(datagrams[at : at + 2]) for at in (0, 2, 4)]
    marked, plain = new(), new()
    opened = [packet for run, ecn in zip(runs, marks, strict=True) for packet in take(marked, run, 60, ecn=ecn)]
    assert [packet.ecn for packet in opened] == [3]
    assert [packet.ecn for run in runs for packet in take(plain, run, 60, ecn=2)] == [2]


def test_trains_only_on_validated_paths() -> None:
    """P-9: segments are dropped where they may not be; packets in one datagram are not."""
    _, datagrams = train(0, 3)
    receiver = new()
    assert take(receiver, b"".join(datagrams), 60, may_train=False) == []
    assert take(receiver, datagrams[0], may_train=False) == []
    assert receiver.counters.segments_refused == 4
    assert len(receiver.trains) == 0
    assert numbers(take(receiver, seal(1, b"x")[0], may_train=False)) == [1]


def test_segments_of_two_paths() -> None:
    """P-4: the path is part of what tells which segments belong together."""
    _, datagrams = train(0, 3)
    receiver = new()
    take(receiver, datagrams[0])
    take(receiver, datagrams[1], path=OTHER)
    assert take(receiver, datagrams[2]) == []
    assert len(receiver.trains) == 2
    assert numbers(take(receiver, datagrams[1])) == [0]
    assert take(receiver, datagrams[0] + datagrams[2], 60, path=OTHER) == []
    assert receiver.counters.replayed == 1, "the copy on the other path"


def test_a_copy_that_opened_meanwhile() -> None:
    """P-7: asked again when a train is complete."""
    _, datagrams = train(0, 3)
    receiver = new()
    take(receiver, datagrams[0], path=OTHER)
    take(receiver, datagrams[1], path=OTHER)
    assert numbers(take(receiver, b"".join(datagrams), 60)) == [0]
    assert take(receiver, datagrams[2], path=OTHER) == []
    assert receiver.counters.replayed == 1


def test_replayed_trains_are_not_collected() -> None:
    """P-9: the replay window is asked as soon as segment 0 gives the number."""
    _, datagrams = train(0, 3)
    receiver = new()
    take(receiver, b"".join(datagrams), 60)
    for datagram in (datagrams[1], datagrams[0]):
        assert take(receiver, datagram, path=OTHER) == []
    assert len(receiver.trains) == 0
    take(receiver, datagrams[0] + datagrams[1], 60, path=OTHER)
    assert len(receiver.trains) == 0
    assert receiver.counters.replayed == 2


def test_keys_that_go_while_a_train_is_incomplete() -> None:
    """P-5: a packet of an epoch without keys is dropped."""
    _, datagrams = train(0, 3)
    receiver = new()
    take(receiver, datagrams[0])
    receiver.overlap(bytes(32), lambda: None)
    receiver.settle()
    take(receiver, datagrams[1])
    assert take(receiver, datagrams[2]) == []
    assert receiver.counters.unknown_epoch == 1


def segment(index: int, last: int, size: int, prefix: bytes = b"\x61" + DCID + b"abcd") -> bytes:
    return prefix + bytes([index, last]) + bytes(size - 15)


@pytest.mark.parametrize(
    "datagram",
    [
        segment(0, 0, 60),
        segment(4, 3, 60),
        segment(0, 64, 60),
        segment(64, 64, 60),
        segment(255, 255, 60),
        segment(0, 3, 30),
        segment(1, 3, 16),
        segment(0, 3, 15),
        segment(3, 3, 15),
        b"\x61" + bytes(10),
        segment(0, 63, 1040),
        segment(1, 63, 1040),
        segment(1, 3, 30),
        segment(1, 1, 65_507)[:15],
    ],
    ids=lambda datagram: f"{len(datagram)} bytes, {datagram[13:15].hex()}",
)
def test_segments_that_no_train_has(datagram: bytes) -> None:
    """P-1: indices and lengths out of range are dropped and hold nothing."""
    receiver = new()
    assert take(receiver, datagram) == []
    assert take(receiver, datagram + datagram, len(datagram)) == []
    assert receiver.counters.malformed == 3
    assert len(receiver.trains) == 0


def test_the_shortest_segments() -> None:
    """P-1: 31 bytes, of which the first carries all that hides the header; one by one, the last of them first."""
    plain, datagrams = train(0, 3, size=31)
    receiver = new()
    assert [packet.plain for datagram in reversed(datagrams) for packet in take(receiver, datagram)] == [plain]


def test_runs_that_no_train_has() -> None:
    """P-1: the same for segments that follow each other in a run."""
    for size, last in ((30, 5), (60, 80), (1100, 63)):
        receiver = new()
        run = b"".join(segment(index, last, size) for index in range(3))
        assert take(receiver, run, size) == []
        assert take(receiver, run, size) == []
        assert receiver.counters.malformed == 6
        assert len(receiver.trains) == 0


def test_a_train_too_long() -> None:
    """P-1: the datagrams of a train have at most 65,507 bytes together."""
    plain, datagrams = filler(45 * 1441 - 16), []
    header = b"\x60" + DCID + bytes(4)
    sealed = KEYS.aead.encrypt(KEYS.iv.to_bytes(12, "big"), plain, header + b"\x2c")
    mask = KEYS.header_mask(sealed[:16])
    masked = bytes([header[0] ^ mask[0] & 31]) + DCID + mask[1:5]
    datagrams = [masked + bytes([i, 44]) + sealed[i * 1441 : (i + 1) * 1441] for i in range(45)]
    assert sum(map(len, datagrams)) == 65_520
    receiver = new()
    assert take(receiver, b"".join(datagrams), 1456) == []
    for datagram in datagrams:
        assert take(receiver, datagram) == []
    assert receiver.counters.malformed == 2
    assert receiver.counters.forged == 0


def test_expiry_and_deadline() -> None:
    """P-9: incomplete trains go after the time that the session sets."""
    receiver = new()
    assert receiver.deadline == inf
    receiver.trains.lifetime = 0.2
    take(receiver, train(0, 3)[1][0], now=5.0)
    assert receiver.deadline == pytest.approx(5.2)
    receiver.expire(5.2)
    assert receiver.deadline == inf
    assert receiver.counters.trains_expired == 1


def test_closed() -> None:
    """P-9, K-3: a session that is over gives its budget back, collects nothing, and still opens what is whole."""
    budget = TrainBudget()
    receiver = new(budget=budget)
    _, datagrams = train(0, 3)
    take(receiver, datagrams[0])
    assert budget.cost > 0
    receiver.close()
    for datagram in datagrams:
        assert take(receiver, datagram) == []
    assert (budget.cost, len(budget)) == (0, 0)
    assert numbers(take(receiver, b"".join(datagrams), 60)) == [0]
    assert numbers(take(receiver, seal(1, b"x")[0])) == [1]


# -- attacks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_a_train_that_does_not_open(whole: bool) -> None:
    """P-10, P-8: counted, and an undamaged copy opens afterwards."""
    plain, datagrams = train(0, 4)
    forged = [*datagrams[:2], datagrams[2][:-1] + b"?", datagrams[3]]
    receiver = new()
    for run in [b"".join(forged)] if whole else forged:
        assert take(receiver, run, 60) == []
    assert receiver.failed_trains == receiver.counters.forged == 1
    assert receiver.window.largest == -1
    opened = [packet for datagram in datagrams for packet in take(receiver, datagram)]
    assert [packet.plain for packet in opened] == [plain]
    assert len(receiver.trains) == 0


@given(bit=st.integers(0, 8 * 60 * 3 - 1), alone=st.booleans())
def test_every_flipped_bit_of_a_train(bit: int, alone: bool) -> None:
    """P-2, P-8: the header is authenticated, the order is proved by the tag."""
    _, datagrams = train(5, 3)
    damaged = bytearray(b"".join(datagrams))
    damaged[bit // 8] ^= 1 << bit % 8
    receiver = new()
    if alone:
        assert all(take(receiver, damaged[i : i + 60]) == [] for i in range(0, 180, 60))
    else:
        assert take(receiver, damaged, 60) == []
    assert receiver.window.largest == -1
    assert numbers(take(receiver, b"".join(datagrams), 60)) == [5]


@given(order=st.permutations(range(4)))
def test_segments_in_false_order(order: list[int]) -> None:
    """P-2: the segment index is not authenticated, and need not be."""
    _, datagrams = train(5, 4)
    swapped = [datagrams[i][:13] + bytes([place]) + datagrams[i][14:] for place, i in enumerate(order)]
    opened = take(new(), b"".join(swapped), 60)
    assert numbers(opened) == ([5] if order == [0, 1, 2, 3] else [])


def forgeries(datagrams: list[bytes]) -> st.SearchStrategy[bytes]:
    """Segments that look as if they belonged to a train: other ciphertext, other lengths, other indices."""

    def forge(datagram: bytes, length: int, index: int | None, seed: int) -> bytes:
        end = datagram[13:] if index is None else bytes([index]) + datagram[14:]
        return datagram[:13] + end[:2] + filler(length, seed)

    lengths = st.sampled_from([1, 15, 16, 30, 44, 45, 46, 200, 900])
    return st.builds(forge, st.sampled_from(datagrams), lengths, st.none() | st.integers(0, 6), st.integers(0, 99))


@settings(max_examples=300)
@given(data=st.data(), short=st.integers(0, 40))
def test_forged_segments_do_not_prevent_an_undamaged_copy(data: st.DataObject, short: int) -> None:
    """P-9 [forged segments]: whatever was injected, duplicated and lost before, in whatever order: once every segment
    has come again, in any order and undisturbed, the packet is open, once, and as it was sent."""
    plain, datagrams = train(5, 4, short=short)
    receiver = new()
    soup = st.lists(st.sampled_from(datagrams) | forgeries(datagrams), max_size=14)
    opened = [packet for datagram in data.draw(soup) for packet in take(receiver, datagram)]
    for datagram in data.draw(st.permutations(datagrams)):
        opened += take(receiver, datagram)
    assert [(packet.number, packet.plain) for packet in opened] == [(5, plain)]


@settings(max_examples=150)
@given(data=st.data())
def test_attacked_flow(data: st.DataObject) -> None:
    """P-7 to P-9: segments lost, duplicated, damaged, forged, shuffled and coalesced. Nothing is opened that was not
    sealed, nothing twice, the bounds hold; and what is sent again in new packets gets through."""
    size = 60
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    packets = {n: train(n, rng.randint(1, 6), size, 0, seed=n + 1) for n in range(6)}
    budget = TrainBudget(4_000)
    receiver = PacketReceiver(KEYS, budget, max_trains=3, max_train_bytes=2_000)
    arriving = [
        datagram for _, datagrams in packets.values() for datagram in datagrams for _ in range(rng.choice((0, 1, 1, 2)))
    ]
    for datagram in rng.choices(arriving, k=10):
        damaged = bytearray(datagram)
        damaged[rng.choice((0, 9, 13, 14, rng.randrange(size)))] ^= 1 << rng.randrange(8)
        arriving.append(bytes(damaged))
        arriving.append(datagram[:15] + rng.randbytes(rng.choice((45, 45, 30, 1))))
    rng.shuffle(arriving)
    opened, now = [], 0.0
    while arriving:
        count = rng.choice((1, 1, 2, 5))
        run, arriving = arriving[:count], arriving[count:]
        now += 0.01
        opened += take(receiver, b"".join(run), size, rng.choice((PATH, PATH, OTHER)), now)
        assert len(receiver.trains) <= 3
        assert receiver.trains.cost == budget.cost <= 2_000
        assert len(budget) == len(receiver.trains)
    assert len(set(numbers(opened))) == len(opened)
    assert all(packet.plain == packets[packet.number][0] for packet in opened)
    plain, datagrams = train(100, 5, size)
    again = [packet for datagram in datagrams for packet in take(receiver, datagram, now=now)]
    assert [packet.plain for packet in again] == [plain]
    receiver.expire(now + 1.0)
    assert (len(receiver.trains), receiver.trains.cost, budget.cost, len(budget)) == (0, 0, 0, 0)


packet_like = st.builds(bytes.__add__, st.sampled_from([b"\x40", b"\x60", b"\x61"]), st.binary(max_size=300))


@given(
    data=st.binary(max_size=300) | packet_like,
    size=st.none() | st.integers(1, 310),
    may_train=st.booleans(),
)
@example(b"\x60" * 300, 16, True)
@example(b"\x60" + b"\x00" * 200, 31, True)
def test_any_bytes(data: bytes, size: int | None, may_train: bool) -> None:
    """G-2, G-3, P-8: any bytes, in any shape: nothing raises, nothing opens, nothing changes but what expires."""
    receiver = new()
    for kind in (bytes, bytearray, memoryview):
        assert take(receiver, kind(data), size, may_train=may_train) == []
        assert 0 <= run_end(data, 0, len(data), size) <= len(data)
    assert receiver.window.largest == -1
    counters = attrs.asdict(receiver.counters)
    assert sum(counters.values()) + len(receiver.trains) > 0 or not data
    receiver.expire(inf)
    assert receiver.trains.cost == 0


def test_a_flood_of_segments() -> None:
    """P-9: a million bytes of forged segments hold what they may hold and no more."""
    receiver = new()
    rng = random.Random(1)
    for _ in range(1_500):
        prefix = b"\x60" + DCID + rng.randbytes(4)
        take(receiver, segment(rng.randrange(1, 63), 63, 1000, prefix), now=rng.random())
        assert len(receiver.trains) <= 32
    assert receiver.counters.trains_evicted == receiver.failed_trains == 1_500 - 32
    plain, datagrams = train(0, 5)
    opened = [packet for datagram in datagrams for packet in take(receiver, datagram)]
    assert [packet.plain for packet in opened] == [plain]


# -- runs ----------------------------------------------------------------------------------------------------------


@given(ids=st.lists(st.sampled_from([b"A" * 8, b"B" * 8]), min_size=1, max_size=8), tail=st.integers(0, 39))
def test_a_run_goes_to_one_session(ids: list[bytes], tail: int) -> None:
    """C-1: runs are parted where the connection ID changes, or where there is none."""
    size = 40
    datagrams = [b"@" + connection_id + bytes(size - 9) for connection_id in ids]
    if tail:
        datagrams[-1] = datagrams[-1][:tail]
    run = memoryview(b"before" + b"".join(datagrams))
    start, parts = 6, []
    while start < len(run):
        end = run_end(run, start, len(run), size)
        parts.append((start, end))
        assert start < end
        start = end
    first = ids[0] if len(datagrams[0]) > 8 else datagrams[0][1:9]
    same = 0
    for datagram in datagrams:
        if datagram[1:9] != first:
            break
        same += 1
    assert parts[0] == (6, 6 + sum(map(len, datagrams[:same])))
    assert parts[-1][1] == len(run)


def test_single_datagrams_and_short_ones_are_one_run() -> None:
    """G-2: nothing to part."""
    assert run_end(bytes(100), 0, 100, None) == 100
    assert run_end(bytes(100), 0, 100, 100) == 100
    assert run_end(bytes(100), 0, 100, 12) == 100
