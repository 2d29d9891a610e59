"""Datagrams in, packets out: the receiving side of one session (docs/protocol.md, section 7).

In this order: form, header protection, epoch, replay window, opening; and only what opened is remembered (P-7, P-8).
Nothing here raises, whatever the bytes; what gives no packet is counted.

Stateless resets are not looked for here: they carry no ID that would lead to a session (see `reset`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct

from stt_proto.crypto import SAMPLE_SIZE, HeaderMask
from stt_proto.packet.counters import PacketCounters
from stt_proto.packet.keys import PacketKeys
from stt_proto.packet.numbers import MAX_PACKET_NUMBER, decode_number
from stt_proto.packet.protection import (
    FRUGAL,
    HEADER,
    LOW_BITS,
    MASK,
    TRAIN_DATA,
    FirstOpener,
    LastOpener,
    Opener,
)
from stt_proto.packet.replay import ReplayWindow
from stt_proto.packet.segments import read_run, segment_layout
from stt_proto.packet.trains import Train, TrainBudget, TrainKey, TrainReassembler
from stt_proto.types import Buffer, NetworkPath
from stt_proto.wire.header import (
    EPOCH_BITS,
    FORM_BITS,
    MASKED_BITS,
    MAX_SEGMENTS,
    MAX_TRAIN,
    PACKET_DCID,
    PACKET_FORM,
    PACKET_HEADER,
    RESERVED_BITS,
    TRAIN_BIT,
    TRAIN_HEADER,
)

__all__ = ["Opened", "PacketReceiver", "run_end"]

_HEADER_AND_SAMPLE = Struct(f"{HEADER.format}{SAMPLE_SIZE}s")
_MIN_PACKET = PACKET_HEADER + SAMPLE_SIZE
_MIN_SEGMENT = TRAIN_HEADER + SAMPLE_SIZE
_MAX_BEFORE_LAST = MAX_TRAIN - TRAIN_HEADER
_KIND_BITS = FORM_BITS | TRAIN_BIT
_PACKET = PACKET_FORM
_SEGMENT = PACKET_FORM | TRAIN_BIT


class Opened:
    """A packet that opened.

    Attributes:
        number: its full packet number.
        plain: the frames; ours, and immutable.
        epoch: its key version mod 4.
        segments: in how many datagrams it came.
        size: bytes of these.
        ecn: their ECN bits; 3 when any was marked.
    """

    __slots__ = ("ecn", "epoch", "number", "plain", "segments", "size")

    def __init__(self, number: int, plain: bytes, epoch: int, segments: int, size: int, ecn: int) -> None:
        self.number = number
        self.plain = plain
        self.epoch = epoch
        self.segments = segments
        self.size = size
        self.ecn = ecn

    def __repr__(self) -> str:
        return f"Opened(number={self.number}, {len(self.plain)} bytes, segments={self.segments})"


class PacketReceiver:
    """Opens the packets of one session, of all its paths, carriers and key versions. It begins at rest.

    Attributes:
        window: the packet numbers opened.
        trains: the incomplete trains.
        counters: what was dropped.
    """

    __slots__ = ("_forgery_limit", "_frugal", "_keys", "_mask", "_openers", "counters", "trains", "window")

    _mask: HeaderMask | None

    def __init__(
        self, keys: PacketKeys, budget: TrainBudget, *, max_trains: int = 32, max_train_bytes: int = 2 << 20
    ) -> None:
        """Begin with the keys of the handshake.

        Args:
            keys: of the packets that the peer sends. Header protection stays theirs when keys rotate.
            budget: the endpoint's, shared by its sessions.
            max_trains: incomplete trains held at once.
            max_train_bytes: bytes of these.
        """
        self.counters = PacketCounters()
        self.window = ReplayWindow()
        self.trains = TrainReassembler(budget, self.counters, max_trains=max_trains, max_bytes=max_train_bytes)
        self._keys = keys
        self._openers: dict[int, Opener] = {keys.epoch: Opener(keys)}
        self.rest()
        self._forgery_limit = keys.suite.integrity_limit

    def overlap(self, traffic_secret: bytes, told: Callable[[], None]) -> None:
        """Open packets of the next key version too, that of this secret, and call `told` when the first one has opened.

        From then on packets of the version before open only if their number is smaller (V-5). It ends with `settle`.
        """
        (before,) = self._openers.values()
        last, keys = LastOpener(before.keys), before.keys.next(traffic_secret)
        self._use(last, FirstOpener(keys, last, told))

    def settle(self) -> None:
        """Open packets of the newest key version only."""
        *_, newest = self._openers.values()
        self._use(Opener(newest.keys))

    def _use(self, *openers: Opener) -> None:
        """Open packets with these, the newest last."""
        self._openers = {opener.keys.epoch: opener for opener in openers}
        if self._mask is not None:
            self._wake()

    def _wake(self) -> None:
        for opener in self._openers.values():
            opener.wake()

    def rest(self) -> None:
        """Hold none of the library's objects, as `Sealer.rest` says."""
        self._frugal = FRUGAL
        self._mask = None
        for opener in self._openers.values():
            opener.rest()

    def _make_mask(self) -> HeaderMask:
        """What unmasks the next header."""
        mask = self._keys.header_mask
        if self._frugal:
            self._frugal -= 1
        else:
            self._mask = mask
            self._wake()
        return mask

    @property
    def exhausted(self) -> bool:
        """Whether so many packets did not open that the session must close (P-11)."""
        return self.counters.forged >= self._forgery_limit

    @property
    def failed_trains(self) -> int:
        """Trains that did not open, or that others pushed out: the count that ACK frames carry (P-10)."""
        return self.counters.trains_failed + self.counters.trains_evicted

    @property
    def deadline(self) -> float:
        """When `expire` has something to do, or `inf`."""
        return self.trains.deadline

    def expire(self, now: float) -> None:
        """Forget the trains that stayed incomplete for too long."""
        self.trains.expire(now)

    def close(self) -> None:
        """Give back what is held. What comes in afterwards is opened as before, but trains are collected no more."""
        self.trains.close()

    def receive(
        self,
        buffer: Buffer,
        start: int,
        end: int,
        segment_size: int | None,
        path: NetworkPath,
        now: float,
        may_train: bool,
        ecn: int = 0,
    ) -> list[Opened]:
        """Take in one datagram, or a run of datagrams that all carry one connection ID of this session.

        Args:
            buffer: where they lie; borrowed for the call.
            start: the offset of the first.
            end: the offset behind the last. `run_end` finds it where a run may concern several sessions.
            segment_size: bytes of each datagram but perhaps the last; `None` for a single one.
            path: where they came from.
            now: seconds.
            may_train: whether the path is validated; segments of trains are dropped where it is not (P-9).
            ecn: their ECN bits.

        Returns:
            The packets that opened, in the order in which they became complete.
        """
        view = buffer if type(buffer) is memoryview else memoryview(buffer)
        size = segment_size or end - start
        opened = []
        while start < end:
            stop = start + size
            if stop > end:
                stop = end
            packet = None
            kind = view[start] & _KIND_BITS
            if kind == _PACKET:
                packet = self._packet(view, start, stop, ecn)
            elif kind != _SEGMENT or stop - start <= TRAIN_HEADER:
                self.counters.malformed += 1
            elif not may_train:
                self.counters.segments_refused += 1
            elif stop == end:
                packet = self._segment(view, start, end, path, now, ecn)
            else:
                packet, stop = self._run(view, start, end, size, path, now, ecn)
            if packet is not None:
                opened.append(packet)
            start = stop
        return opened

    def _packet(self, view: memoryview, start: int, end: int, ecn: int) -> Opened | None:
        """Open a packet that lies in one datagram."""
        size = end - start
        if size < _MIN_PACKET:
            self.counters.malformed += 1
            return None
        flags, dcid, low, sample = _HEADER_AND_SAMPLE.unpack_from(view, start)
        known = self._identify(flags, low, sample)
        if known is None:
            return None
        flags, number = known
        epoch = flags & EPOCH_BITS
        associated = HEADER.pack(flags, dcid, number & LOW_BITS)
        plain = self._openers[epoch].open_untrusted(number, view[start + PACKET_HEADER : end], associated)
        if plain is None:
            self.counters.forged += 1
            return None
        self.window.mark(number)
        return Opened(number, plain, epoch, 1, size, ecn)

    def _segment(
        self, view: memoryview, start: int, end: int, path: NetworkPath, now: float, ecn: int
    ) -> Opened | None:
        """Take in a single segment, and open its train if it was the one missing."""
        prefix, index, last, piece = segment_layout(end - start).unpack_from(view, start)
        size = end - start
        if (
            index > last
            or not 0 < last < MAX_SEGMENTS
            or (index < last and not (size >= _MIN_SEGMENT and size * last < _MAX_BEFORE_LAST))
        ):
            self.counters.malformed += 1
            return None
        trains = self.trains
        train = trains.find(prefix, last, path, now, ecn)
        if train is None or (not index and not self._begin(train, piece)) or not trains.add(train, index, piece, ecn):
            return None
        return self._complete(train)

    def _run(
        self, view: memoryview, start: int, end: int, size: int, path: NetworkPath, now: float, ecn: int
    ) -> tuple[Opened | None, int]:
        """Take in the segments of a train that lie in one run, with little work for each; tell also where they end."""
        prefix, index, last, pieces, stop = read_run(view, start, end, size)
        if len(pieces) == 1:
            return self._segment(view, start, stop, path, now, ecn), stop
        if last >= MAX_SEGMENTS or size < _MIN_SEGMENT or size * last >= _MAX_BEFORE_LAST:
            self.counters.malformed += len(pieces)
            return None, stop
        if len(pieces) > last:
            sealed = b"".join(pieces)
            known = self._identify_train(prefix, sealed)
            if known is None:
                return None, stop
            return self._open_train((prefix, last, path), *known, sealed, stop - start, ecn), stop
        trains = self.trains
        train = trains.find(prefix, last, path, now, ecn)
        if (
            train is None
            or (not index and not self._begin(train, pieces[0]))
            or not trains.add_run(train, index, pieces, ecn)
        ):
            return None, stop
        return self._complete(train), stop

    def _begin(self, train: Train, piece: bytes) -> bool:
        """Learn from segment 0 which packet a train is; forget the train if it need not be waited for."""
        known = self._identify_train(train.prefix, piece)
        if known is None:
            self.trains.drop(train)
            return False
        train.flags, train.number = known
        return True

    def _complete(self, train: Train) -> Opened | None:
        """Open a train that is complete."""
        sealed = train.join()
        size = len(sealed) + (train.last + 1) * TRAIN_HEADER
        return self._open_train(train.key, train.flags, train.number, sealed, size, train.ecn)

    def _open_train(self, key: TrainKey, flags: int, number: int, sealed: bytes, size: int, ecn: int) -> Opened | None:
        """Open a complete train."""
        prefix, last, _ = key
        epoch = flags & EPOCH_BITS
        opener = self._openers.get(epoch)
        if opener is None:
            self.counters.unknown_epoch += 1  # its keys went while it was incomplete
        elif number <= self.window.largest and self.window.seen(number):
            self.counters.replayed += 1  # a copy of it was complete first
        elif size > MAX_TRAIN:
            self.counters.malformed += 1
        else:
            associated = TRAIN_DATA.pack(flags, prefix[PACKET_DCID], number & LOW_BITS, last)
            plain = opener.open_untrusted(number, sealed, associated)
            if plain is not None:
                self.window.mark(number)
                self.trains.finish(key)
                return Opened(number, plain, epoch, last + 1, size, ecn)
            self.counters.forged += 1
            self.counters.trains_failed += 1
        return None

    def _identify_train(self, prefix: bytes, sealed: bytes) -> tuple[int, int] | None:
        """As `_identify`, for the header that all segments share and the ciphertext of segment 0."""
        flags, _, low = HEADER.unpack(prefix)
        return self._identify(flags, low, sealed[:SAMPLE_SIZE])

    def _identify(self, flags: int, low: int, sample: Buffer) -> tuple[int, int] | None:
        """Unmask a header and ask whether its packet is worth opening.

        Returns:
            The flags, and the full packet number.
        """
        mask = self._mask or self._make_mask()
        flags_mask, low_mask = MASK.unpack(mask(sample))
        flags ^= flags_mask & MASKED_BITS
        window = self.window
        number = decode_number(low ^ low_mask, window.largest)
        if flags & RESERVED_BITS or number > MAX_PACKET_NUMBER:
            self.counters.malformed += 1
        elif flags & EPOCH_BITS not in self._openers:
            self.counters.unknown_epoch += 1
        elif number <= window.largest and window.seen(number):
            self.counters.replayed += 1
        else:
            return flags, number
        return None


def run_end(buffer: Buffer, start: int, end: int, segment_size: int | None) -> int:
    """Find how far a run of datagrams goes to one connection ID: it is what one session takes at once.

    Args:
        buffer: where the datagrams lie.
        start: the offset of the first, taken for a packet.
        end: the offset behind the last.
        segment_size: bytes of each but perhaps the last; `None` for a single one.

    Returns:
        The offset of the first datagram with another connection ID, or too short to have one, or `end`. Datagrams that
        are all too short are one run. No more than 64 are looked at, since where IDs alternate the next call looks at
        the same ones again; behind that many another run begins.
    """
    if segment_size is None or end - start <= segment_size or segment_size < PACKET_HEADER:
        return end
    count = min((end - start) // segment_size, MAX_SEGMENTS)
    ids = _ids_layout(count, segment_size).unpack_from(buffer, start)
    first = ids[0]
    if ids.count(first) < count:
        same = next(index for index, other in enumerate(ids) if other != first)
        return start + same * segment_size
    rest = start + count * segment_size
    return end if end - rest < segment_size and buffer[rest + 1 : rest + 9] == first else rest


@lru_cache(maxsize=64)
def _ids_layout(count: int, size: int) -> Struct:
    """The connection IDs of so many datagrams of one size."""
    return Struct(f"x8s{size - 9}x" * count)
