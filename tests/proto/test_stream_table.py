"""All streams of a session together: ids, limits, order of service, and two tables wired to each other."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_proto.config import Config
from stt_proto.errors import (
    ArgumentError,
    FlowControlError,
    InvalidFrameError,
    RemoteError,
    ResourcesExhaustedError,
    SessionClosedError,
    StateError,
    StreamClosedError,
    StreamIdConflict,
    TooManyStreamsError,
)
from stt_proto.events import (
    StreamAcked,
    StreamFinished,
    StreamOpened,
    StreamReadable,
    StreamReset,
    StreamsAvailable,
    StreamWritable,
)
from stt_proto.identity import Identity
from stt_proto.streams import CONTROL_KINDS, MIN_ROOM, Stream, StreamTable
from stt_proto.wire import (
    DataBlocked,
    Frame,
    MaxData,
    MaxStreamData,
    MaxStreams,
    Padding,
    Parameters,
    ResetStream,
    StopSending,
    StreamDataBlocked,
    StreamOpen,
    StreamsBlocked,
    decode_frames_untrusted,
)
from stt_proto.wire import Stream as StreamFrame

IDENTITY = Identity.from_seed(bytes(range(32)))
PACKET = 1200


def make_config(**changes: Any) -> Config:
    return Config(identity=IDENTITY, shared_seed=b"shared", **changes)


def parameters_of(config: Config) -> Parameters:
    return Parameters(
        max_data=config.session_receive_window,
        max_stream_data=config.stream_receive_window,
        max_streams_bidi=config.max_concurrent_streams,
        max_streams_uni=config.max_concurrent_streams,
    )


class Side:
    """A table and what a session does for it."""

    def __init__(self, initiator: bool, config: Config, peer_config: Config) -> None:
        self.events: deque[Any] = deque()
        self.table = StreamTable(initiator, config, self.events)
        self.table.set_peer_parameters(parameters_of(peer_config))

    def packet(self, room: int = PACKET) -> tuple[bytes, list[Any]]:
        """What the next packet holds: its plaintext and its tokens."""
        out: list[bytes | memoryview] = []
        tokens: list[Any] = []
        used = self.table.write_control(out, tokens, room)
        used += self.table.write_frames(out, tokens, room - used)
        plain = b"".join(out)
        assert len(plain) == used <= room
        return plain, tokens

    def take_in(self, plain: bytes) -> None:
        for frame in decode_frames_untrusted(plain):
            self.take_in_frame(frame)

    def take_in_frame(self, frame: Frame) -> None:
        table = self.table
        match frame:
            case StreamFrame():
                table.on_stream(*frame)
            case StreamOpen():
                table.on_stream_open(*frame)
            case ResetStream():
                table.on_reset(*frame)
            case StopSending():
                table.on_stop(*frame)
            case MaxData():
                table.on_max_data(*frame)
            case MaxStreamData():
                table.on_max_stream_data(*frame)
            case MaxStreams():
                table.on_max_streams(*frame)
            case DataBlocked():
                table.on_data_blocked(*frame)
            case StreamDataBlocked():
                table.on_stream_data_blocked(*frame)
            case StreamsBlocked():
                table.on_streams_blocked(*frame)
            case _:
                assert isinstance(frame, Padding)

    def drain(self) -> list[Any]:
        events = list(self.events)
        self.events.clear()
        return events


def make_pair(config: Config | None = None, peer_config: Config | None = None) -> tuple[Side, Side]:
    config = config or make_config()
    peer_config = peer_config or config
    return Side(True, config, peer_config), Side(False, peer_config, config)


def deliver(source: Side, target: Side, room: int = PACKET) -> list[bytes]:
    """Carry packets over until nothing is left, and acknowledge each."""
    packets = []
    while source.table.has_pending:
        plain, tokens = source.packet(room)
        if not plain:
            break
        packets.append(plain)
        target.take_in(plain)
        for token in tokens:
            source.table.on_token_acked(token)
    return packets


def settle(a: Side, b: Side) -> None:
    while a.table.has_pending or b.table.has_pending:
        deliver(a, b)
        deliver(b, a)


# -- the model: two tables, and a network that loses, repeats and reorders -----------------------------------------


class Network:
    """Carries packets from one side to the other, as badly as its dice say."""

    def __init__(self, source: Side, target: Side, dice: random.Random, loss: float) -> None:
        self.source, self.target, self.dice, self.loss = source, target, dice, loss
        self.flying: list[tuple[bytes, list[Any]]] = []
        self.acks: list[list[Any]] = []

    def send(self) -> bool:
        if not self.source.table.has_pending or len(self.flying) > 30:
            return False
        room = self.dice.choice([MIN_ROOM, 500, PACKET, 9000, 58_000])
        plain, tokens = self.source.packet(room)
        if plain:
            self.flying.append((plain, tokens))
        return bool(plain)

    def arrive(self) -> None:
        dice = self.dice
        if self.flying:
            plain, tokens = self.flying.pop(dice.randrange(len(self.flying)))
            fate = dice.random()
            if fate < self.loss:
                for token in tokens:
                    self.source.table.on_token_lost(token)
                return
            self.target.take_in(plain)
            if fate < 2 * self.loss:  # it arrived, but counts as lost at first; what was sent arrives twice
                for token in tokens:
                    self.source.table.on_token_lost(token)
            self.acks.append(tokens)
        if self.acks and dice.random() < 0.7:
            for token in self.acks.pop(dice.randrange(len(self.acks))):
                self.source.table.on_token_acked(token)

    @property
    def idle(self) -> bool:
        return not self.flying and not self.acks and not self.source.table.has_pending


class Writer:
    """Writes one direction of a stream, bit by bit, and ends it."""

    def __init__(self, stream: Stream, data: bytes, ending: str, dice: random.Random) -> None:
        self.stream, self.data, self.ending, self.dice = stream, data, ending, dice
        self.offset = 0
        self.over = False

    def step(self) -> None:
        if self.over:
            return
        size = self.dice.choice([1, 7, 300, 1000, 5000, 100_000])
        if self.offset < len(self.data):
            piece: Any = self.data[self.offset : self.offset + size]
            if self.dice.random() < 0.3:
                piece = bytearray(piece)
            self.offset += self.stream.write(piece)
            if isinstance(piece, bytearray):
                piece[:] = bytes(len(piece))  # it was borrowed: what was taken must not change with it
        elif self.ending == "reset":
            self.stream.reset(7)
            self.over = True
        else:
            self.stream.finish()
            self.over = True


@settings(max_examples=120)
@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.sampled_from([0, 1, 50, 3000, 20_000, 120_000]), min_size=1, max_size=6),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
    window=st.sampled_from([1024, 4096, 65_536]),
    no_delay=st.booleans(),
)
def test_every_byte_arrives_once_and_in_order(
    seed: int, sizes: list[int], loss: float, window: int, no_delay: bool
) -> None:
    """S-4 to S-6, S-9, R-9: whatever the network does, streams carry exactly what was written."""
    dice = random.Random(seed)
    config = make_config(
        stream_receive_window=window,
        session_receive_window=window * 2,
        stream_send_buffer=8192,
        max_concurrent_streams=3,
        default_max_frame_size=dice.choice([100, 16_384]),
        no_delay=no_delay,
    )
    a, b = make_pair(config)
    networks = [Network(a, b, dice, loss), Network(b, a, dice, loss)]
    sent: dict[tuple[bool, int], tuple[bytes, str]] = {}
    got: dict[tuple[bool, int], bytearray] = {}
    ends: dict[tuple[bool, int], str] = {}
    writers: list[Writer] = []
    known: dict[tuple[bool, int], Stream] = {}
    to_open = [(a, size) for size in sizes]

    def begin(side: Side, stream: Stream, size: int) -> None:
        data = dice.randbytes(size)
        ending = "reset" if dice.random() < 0.15 else "finish"
        sent[side is a, stream.id] = data, ending
        writers.append(Writer(stream, data, ending, dice))

    for _ in range(100_000):
        if to_open and dice.random() < 0.3:
            side, size = to_open[-1]
            try:
                stream = side.table.open(bidirectional=dice.random() < 0.6, purpose=dice.choice(["", "chat"]))
            except TooManyStreamsError:
                pass
            else:
                to_open.pop()
                begin(side, stream, size)
                if stream.recv is not None:
                    known[side is a, stream.id] = stream
        for writer in writers:
            writer.step()
        for network in networks:
            network.send()
            network.arrive()
        for side in (a, b):
            for event in side.drain():
                if isinstance(event, StreamOpened):
                    opened = side.table.get(event.stream_id)
                    assert opened is not None
                    known[side is a, event.stream_id] = opened
                    if event.bidirectional:
                        begin(side, opened, dice.choice(sizes))
        for key, stream in list(known.items()):
            if key in ends or dice.random() < 0.5:
                continue
            try:
                data = stream.read(dice.choice([1, 100, 4096, 1 << 20]))
            except StreamClosedError as error:
                assert error.stream_code == 7
                ends[key] = "reset"
                continue
            got.setdefault(key, bytearray()).extend(data)
            if stream.at_eof:
                ends[key] = "finish"
        if not to_open and all(writer.over for writer in writers) and all(net.idle for net in networks):
            if all(not side.table.undelivered for side in (a, b)) and not len(a.table) and not len(b.table):
                break
    else:
        pytest.fail("it does not come to an end")

    for (by_a, stream_id), (data, ending) in sent.items():
        key = (not by_a, stream_id)
        assert ends[key] == ending
        arrived = bytes(got.get(key, b""))
        assert arrived == data if ends[key] == "finish" else data.startswith(arrived)
    for side, peer in ((a, b), (b, a)):
        window_of, credit = side.table.window, peer.table.credit
        assert window_of.received == window_of.consumed == credit.used <= credit.limit
        assert not side.table.has_pending
