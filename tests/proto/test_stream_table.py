"""All streams of a session together: ids, limits, order of service, and two tables wired to each other."""

from __future__ import annotations

import random
import tracemalloc
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
from stt_proto.streams import (
    CONTROL_KINDS,
    MIN_ROOM,
    Stream,
    StreamTable,
    is_bidirectional,
)
from stt_proto.wire import (
    DataBlocked,
    Expired,
    Frame,
    MaxData,
    MaxStreamData,
    MaxStreams,
    Padding,
    Parameters,
    Priority,
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
            case Priority():
                table.on_priority(*frame)
            case Expired():
                table.on_expired(*frame)
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
        written = not to_open and all(writer.over for writer in writers) and all(net.idle for net in networks)
        if written and not any(side.table.undelivered or len(side.table) for side in (a, b)):
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


# -- opening -------------------------------------------------------------------------------------------------------


def test_ids_tell_opener_and_kind() -> None:
    """S-1."""
    a, b = make_pair()
    assert [a.table.open().id, a.table.open(False).id, a.table.open().id] == [0, 2, 4]
    assert [b.table.open().id, b.table.open(False).id, b.table.open(False).id] == [1, 3, 7]
    assert [is_bidirectional(i) for i in range(4)] == [True, True, False, False]


def test_ids_can_be_chosen_and_skipped_ones_stay_usable() -> None:
    """S-2, D1."""
    a, _ = make_pair()
    assert a.table.open(stream_id=8).id == 8
    assert [a.table.open().id for _ in range(3)] == [0, 4, 12]
    assert a.table.open(stream_id=40).id == 40
    assert a.table.open(stream_id=16).id == 16
    assert a.table.open().id == 20
    assert a.table.open(False, stream_id=2).id == 2


@pytest.mark.parametrize("stream_id", [1, 2, 3, -4, 8, 0])
def test_ids_of_others_and_used_ones_are_refused(stream_id: int) -> None:
    """D1: StreamIdConflict; whether the stream is live (8) or over (0)."""
    a, b = make_pair()
    for opened in (0, 8):
        a.table.open(stream_id=opened)
    reset_and_settle(a, b, 0)
    with pytest.raises(StreamIdConflict):
        a.table.open(stream_id=stream_id)
    assert len(a.table) == 1


def reset_and_settle(a: Side, b: Side, stream_id: int) -> None:
    """End one stream of `a` in both directions."""
    stream = a.table.get(stream_id)
    assert stream is not None
    stream.reset(0)
    stream.stop(0)
    settle(a, b)
    other = b.table.get(stream_id)
    assert other is not None
    with pytest.raises(StreamClosedError):
        other.read(1)
    settle(a, b)
    assert a.table.get(stream_id) is None
    assert b.table.get(stream_id) is None


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("stream_id", "4"),
        ("stream_id", True),
        ("purpose", "x" * 256),
        ("purpose", "\ud800"),
        ("purpose", b"bytes"),
        ("max_frame_size", 0),
        ("max_frame_size", 65_537),
        ("max_frame_size", 1.5),
    ],
)
def test_arguments_of_open_are_checked(argument: str, value: Any) -> None:
    """A bad argument is named, and uses up no id."""
    a, _ = make_pair()
    with pytest.raises(ArgumentError) as caught:
        a.table.open(**{argument: value})
    assert caught.value.argument == argument
    assert a.table.open().id == 0


def test_the_peers_limit_of_streams_is_kept() -> None:
    """S-2, S-12, D9: a typed error, one report for each limit, one event when there is room again."""
    a, b = make_pair(peer_config=make_config(max_concurrent_streams=2))
    a.table.open()
    a.table.open()
    for _ in range(2):
        with pytest.raises(TooManyStreamsError):
            a.table.open()
    with pytest.raises(TooManyStreamsError):
        a.table.open(stream_id=8)
    a.table.open(False)
    assert list(a.table.control_ready) == [("streams_blocked", 1)]
    plain, _ = a.packet()
    assert decode_frames_untrusted(plain) == [StreamsBlocked(True, 2)]
    b.take_in(plain)
    assert b.table.suspicious == 0
    with pytest.raises(TooManyStreamsError):
        a.table.open()
    assert not a.table.control_ready
    reset_and_settle(a, b, 0)
    assert a.drain() == [StreamsAvailable(True)]
    assert a.table.open().id == 8
    with pytest.raises(TooManyStreamsError):
        a.table.open()
    assert list(a.table.control_ready) == [("streams_blocked", 1)]
    a.table.on_max_streams(True, 4)
    assert a.table.encode_control(("streams_blocked", 1)) is None


def test_nothing_can_be_opened_before_the_handshake() -> None:
    table = StreamTable(True, make_config(), deque())
    with pytest.raises(TooManyStreamsError):
        table.open()


# -- limits on the peer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream_id", [8, 10, 4000])
def test_streams_beyond_the_limit_close_the_session(stream_id: int) -> None:
    """S-2: code 0x0302."""
    b = Side(False, make_config(max_concurrent_streams=2), make_config())
    b.table.on_stream(4, 0, b"x", False)
    b.table.on_stream(6, 0, b"x", False)
    with pytest.raises(InvalidFrameError) as caught:
        b.table.on_stream(stream_id, 0, b"x", False)
    assert caught.value.code == 0x0302


def test_allowances_of_streams_that_nobody_needs() -> None:
    """S-3, F-5: more than 4,096 beyond those that were opened, or beyond what the peer allowed at first."""
    a, _ = make_pair(peer_config=make_config(max_concurrent_streams=10_000))
    a.table.open()
    a.table.on_max_streams(True, 10_001)
    assert a.table.suspicious == 0
    a.table.on_max_streams(True, 10_002)
    assert a.table.suspicious == 1
    few, _ = make_pair(peer_config=make_config(max_concurrent_streams=0))
    few.table.on_max_streams(True, 1)
    few.table.on_max_streams(True, 4096)
    assert few.table.suspicious == 0
    few.table.on_max_streams(True, 4097)
    assert few.table.suspicious == 1


def test_the_limit_rises_in_steps_as_streams_end() -> None:
    """S-3: by one for each stream that ended in all its directions, announced 16 at a time."""
    config = make_config(max_concurrent_streams=256)
    a, b = make_pair(config)
    for i in range(32):
        stream = a.table.open(False)
        stream.finish()
        deliver(a, b)
        assert (b.drain()[0].stream_id, len(b.table)) == (stream.id, 1)
        opened = b.table.get(stream.id)
        assert opened is not None
        assert opened.read(1) == b""
        assert len(a.table) == len(b.table) == 0
        announced = [key for key in b.table.control_ready if key[0] == "max_streams"]
        if i % 16 == 15:
            assert announced == [("max_streams", 0)]
            assert b.table.encode_control(("max_streams", 0)) == MaxStreams(False, 256 + i + 1).encode()
            b.table.control_ready.clear()
        else:
            assert not announced


def test_a_stream_that_lives_long_ends_no_supply() -> None:
    """S-3: the others of its kind go on for ever, on ids that are chosen and on those that are not."""
    a, b = make_pair(make_config(max_concurrent_streams=2))
    a.table.open(False).write(b"for good")
    for i in range(1, 10_000):
        chosen = i << 2 | 2 if i % 3 == 0 else None
        stream = a.table.open(False, chosen)
        assert stream.id == i << 2 | 2
        stream.finish()
        deliver(a, b)
        heard = b.table.get(stream.id)
        assert heard is not None
        heard.read(1)
        deliver(b, a)
    assert len(a.table) == len(b.table) == 1
    assert a.table.suspicious == b.table.suspicious == 0
    for side in (a, b):
        held = side.table.get(2)
        assert held is not None


def test_an_end_is_told_to_who_waits_for_it() -> None:
    """S-3, S-12: else not before there are 16; whether the peer said that it waits before, or after."""
    a, b = make_pair(make_config(max_concurrent_streams=256))
    streams = [a.table.open(False) for _ in range(256)]
    for stream in streams:
        stream.finish()
    deliver(a, b)

    def end(stream: Stream) -> None:
        heard = b.table.get(stream.id)
        assert heard is not None
        heard.read(1)

    def refused() -> bool:
        try:
            a.table.open(False)
        except TooManyStreamsError:
            return True
        return False

    for stream in streams[:15]:
        end(stream)
    assert not b.table.control_ready
    assert refused()
    deliver(a, b)
    assert list(b.table.control_ready) == [("max_streams", 0)]
    deliver(b, a)
    assert a.drain()[-1] == StreamsAvailable(False)
    assert [refused() for _ in range(16)] == 15 * [False] + [True]
    deliver(a, b)
    assert not b.table.control_ready, "there is nothing to tell"
    end(streams[15])
    deliver(b, a)
    assert [refused(), refused()] == [False, True]
    assert a.table.suspicious == b.table.suspicious == 0


def test_a_place_that_is_left_out_stays_taken() -> None:
    """S-2, S-3: each id that is skipped is a place less, so there are as few gaps to remember as places; a stream that
    was opened and never spoken of is such a one, and the others go on."""
    config = make_config(max_concurrent_streams=100)
    b = Side(False, config, config)
    limit, index, used = 100, 0, 0
    while used < 6000:
        index += 2 if used < 40 else 1  # 40 gaps, and then none
        assert index < limit
        b.table.on_stream(index << 2 | 2, 0, b"", True)
        used += 1
        opened = b.table.get(index << 2 | 2)
        assert opened is not None
        opened.read(1)
        if b.table.control_ready:
            (frame,) = decode_frames_untrusted(b.packet()[0])
            limit = frame.value
            assert limit == 100 + used
    assert len(b.table._peer[1].used.bounds) // 2 == 40
    b.table.on_stream(1 << 2 | 2, 0, b"late", False)
    assert len(b.table) == 1


@given(st.integers(1, 60), st.data())
def test_what_is_remembered_of_ids_is_bounded(allowed: int, data: st.DataObject) -> None:
    """S-3: however far apart a peer uses them, and whichever it leaves open: the gaps are no more than its places."""
    config = make_config(max_concurrent_streams=allowed)
    b = Side(False, config, config)
    ids = b.table._peer[1]
    for _ in range(data.draw(st.integers(0, 150))):
        index = data.draw(st.integers(0, ids.limit - 1))
        b.table.on_stream(index << 2 | 2, 0, b"", True)
        opened = b.table.get(index << 2 | 2)
        if opened is not None and data.draw(st.booleans()):
            opened.read(1)
        b.table.write_control([], [], PACKET)
        b.drain()
        assert len(b.table) <= allowed
        assert len(ids.used.bounds) // 2 <= 1 + allowed - len(b.table)


def test_ended_streams_cost_nothing() -> None:
    """S-3: a session may carry any number of streams one after another."""
    a, b = make_pair()
    for _ in range(600):
        stream = a.table.open()
        stream.write(b"ping")
        stream.finish()
        settle(a, b)
        other = b.table.get(stream.id)
        assert other is not None
        assert other.read(10) == b"ping"
        other.write(b"pong")
        other.finish()
        settle(a, b)
        assert stream.read(10) == b"pong"
        settle(a, b)
        assert len(a.table) == len(b.table) == 0
    assert stream.id == 4 * 599


# -- what the application hears ------------------------------------------------------------------------------------


def test_a_stream_is_opened_by_its_first_bytes() -> None:
    """S-4: not by what overtakes them."""
    b = Side(False, make_config(), make_config())
    b.table.on_stream(0, 5, b"later", False)
    assert b.drain() == []
    assert b.table.get(0) is None
    assert [stream.id for stream in b.table] == [0]
    b.table.on_stream(0, 0, b"first", False)
    assert b.drain() == [StreamOpened(0, True, ""), StreamReadable(0)]
    assert b.table.get(0) is not None


def test_a_stream_is_opened_with_its_purpose() -> None:
    """S-4, D1."""
    a, b = make_pair()
    stream = a.table.open(False, purpose="camera 1")
    assert stream.purpose == "camera 1"
    stream.write(b"x")
    deliver(a, b)
    assert b.drain() == [StreamOpened(2, False, "camera 1"), StreamReadable(2)]
    opened = b.table.get(2)
    assert opened is not None
    assert opened.purpose == "camera 1"
    b.table.on_stream_open(2, "other")
    assert opened.purpose == "camera 1"
    assert b.table.suspicious == 1


def test_a_stream_is_opened_by_its_reset() -> None:
    """S-4: and stays in the table until the application has seen why it ended."""
    b = Side(False, make_config(), make_config())
    b.table.on_reset(2, 5, 0)
    assert b.drain() == [StreamOpened(2, False, ""), StreamReset(2, 5), StreamReadable(2)]
    stream = b.table.get(2)
    assert stream is not None
    with pytest.raises(StreamClosedError):
        stream.read(1)
    assert len(b.table) == 0
    b.table.on_reset(2, 5, 0)
    assert b.table.suspicious == 1


def test_a_stop_before_the_first_bytes_is_told_after_them() -> None:
    """S-4, S-9."""
    a, b = make_pair()
    stream = a.table.open()
    stream.stop(9)
    settle(a, b)
    assert b.drain() == []
    assert len(b.table) == 1
    stream.write(b"x")
    settle(a, b)
    assert b.drain() == [StreamOpened(0, True, ""), StreamReset(0, 9, stopped=True), StreamReadable(0)]
    opened = b.table.get(0)
    assert opened is not None
    with pytest.raises(StreamClosedError):
        opened.write(b"x")


def test_a_stop_is_answered_and_told() -> None:
    """S-9."""
    a, b = make_pair()
    stream = a.table.open(False)
    stream.write(bytes(100))
    settle(a, b)
    opened = b.table.get(2)
    assert opened is not None
    opened.stop(9)
    settle(a, b)
    assert a.drain() == [StreamReset(2, 9, stopped=True)]
    ended = b.table.open(False)
    ended.finish()
    settle(b, a)
    reader = a.table.get(ended.id)
    assert reader is not None
    reader.stop(9)
    assert len(a.table) == len(b.table) == 0
    a.table.on_stop(2, 9)
    assert a.table.suspicious == 1


def test_one_way_streams_are_one_way() -> None:
    """S-1, D9: the wrong command is a StateError."""
    a, b = make_pair()
    stream = a.table.open(False)
    stream.write(b"x")
    deliver(a, b)
    opened = b.table.get(2)
    assert opened is not None
    for command in (lambda: stream.read(1), lambda: stream.stop(0)):
        with pytest.raises(StateError, match="cannot be read"):
            command()
    assert stream.at_eof
    for command in (
        lambda: opened.write(b"x"),
        opened.finish,
        lambda: opened.reset(0),
        lambda: opened.watch_acked(0),
    ):
        with pytest.raises(StateError, match="cannot be written"):
            command()


@pytest.mark.parametrize("code", [-1, 1 << 62, "1", True])
def test_codes_are_checked(code: Any) -> None:
    a, _ = make_pair()
    stream = a.table.open()
    for command in (stream.reset, stream.stop):
        with pytest.raises(ArgumentError) as caught:
            command(code)
        assert caught.value.argument == "code"


def test_edges_cross_from_side_to_side() -> None:
    """DESIGN section 3, events: what a bulk writer and its reader are told."""
    a, b = make_pair(make_config(stream_send_buffer=4096))
    stream = a.table.open(False)
    assert stream.write(bytes(5000)) == 4096
    stream.watch_acked(4096)
    deliver(a, b)
    assert a.drain() == [StreamWritable(2), StreamAcked(2, 4096)]
    stream.write(bytes(904))
    stream.finish()
    deliver(a, b)
    assert a.drain() == [StreamFinished(2)]
    assert b.drain() == [StreamOpened(2, False, ""), StreamReadable(2)]
    opened = b.table.get(2)
    assert opened is not None
    assert len(opened.read(10_000)) == 5000
    assert opened.at_eof
    assert (a.table.bytes_written, b.table.bytes_read) == (5000, 5000)


# -- frames that break a rule, or say nothing ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame",
    [
        StreamFrame(3, 0, b"x"),  # the peer's frame on a stream that this side opens one way
        StreamFrame(1, 0, b"x"),  # on one of ours that does not exist
        StreamFrame(5, 0, b"x"),
        StreamOpen(1, ""),
        StreamOpen(3, ""),
        ResetStream(3, 0, 0),
        ResetStream(5, 0, 0),
        StreamDataBlocked(3, 0),
        StopSending(2, 0),  # a stream that the peer opens one way
        StopSending(5, 0),
        MaxStreamData(2, 5),
        MaxStreamData(7, 5),
    ],
)
@pytest.mark.parametrize("live", [False, True])
def test_frames_in_the_wrong_direction_close_the_session(frame: Frame, live: bool) -> None:
    """S-9: as do those for streams of ours that were never opened."""
    b = Side(False, make_config(), make_config())
    if live:
        b.table.open(False)
        b.take_in_frame(StreamFrame(2, 0, b"x"))
    with pytest.raises(InvalidFrameError) as caught:
        b.take_in_frame(frame)
    assert caught.value.code == 0x0401


def test_frames_for_a_stream_that_has_ended_are_ignored() -> None:
    """S-9: repetitions of what arrived are no sign of anything; the rest counts as suspicious (F-5)."""
    a, b = make_pair()
    stream = a.table.open()
    stream.write(b"x")
    reset_and_settle(a, b, 0)
    b.table.suspicious = a.table.suspicious = 0
    for side in (a, b):
        side.take_in_frame(StreamFrame(0, 0, b"x"))
        assert side.table.suspicious == 0
        for frame in (
            StreamFrame(0, 0, b""),
            ResetStream(0, 0, 1),
            StopSending(0, 0),
            MaxStreamData(0, 1 << 40),
            StreamDataBlocked(0, 5),
        ):
            side.take_in_frame(frame)
        assert side.table.suspicious == 5
        assert len(side.table) == 0
        assert not side.table.has_pending
    b.take_in_frame(StreamOpen(0, "again"))
    assert b.table.suspicious == 6


@pytest.mark.parametrize(
    ("frames", "suspicious"),
    [
        ([StreamFrame(0, 0, b"")], 0),  # opens
        ([StreamFrame(0, 0, b""), StreamFrame(0, 0, b"")], 1),
        ([StreamFrame(0, 7, b"")], 1),
        ([StreamFrame(0, 0, b"", True)], 0),  # opens and ends
        ([StreamFrame(0, 0, b"x"), StreamFrame(0, 1, b"", True)], 0),  # ends
        ([StreamFrame(0, 0, b"x"), StreamFrame(0, 1, b"", True), StreamFrame(0, 1, b"", True)], 1),
        ([StreamFrame(0, 0, b"x"), StreamFrame(0, 0, b"x")], 0),
        ([MaxData(0)], 1),
        ([MaxData(1 << 40), MaxData(1 << 40)], 1),
        ([MaxStreams(True, 1 << 20), MaxStreams(True, 1 << 20)], 1),
        ([MaxStreamData(0, 1 << 40), MaxStreamData(0, 1 << 39)], 1),
        ([DataBlocked(3 << 19), DataBlocked(3 << 19)], 1),
        ([StreamDataBlocked(0, 1 << 20), StreamDataBlocked(0, 1 << 20)], 1),
        ([StreamDataBlocked(0, 5)], 1),  # was never announced
        ([DataBlocked(5)], 1),
        ([DataBlocked(3 << 19), DataBlocked((3 << 19) + 1)], 1),
        ([StreamsBlocked(False, 256), StreamsBlocked(False, 256)], 1),
        ([StreamsBlocked(False, 257)], 1),  # was never announced
        ([ResetStream(0, 1, 0), ResetStream(0, 1, 0)], 1),
        ([StopSending(0, 1), StopSending(0, 1)], 1),
    ],
)
def test_frames_that_say_nothing_are_counted(frames: list[Frame], suspicious: int) -> None:
    """F-5."""
    b = Side(False, make_config(), make_config())
    b.table.suspicious = 10  # which others in the same packet were
    for frame in frames:
        b.take_in_frame(frame)
    assert b.table.suspicious == 10 + suspicious


def test_the_halfs_errors_come_through() -> None:
    """S-6, S-8: with the code to close the session with."""
    b = Side(False, make_config(stream_receive_window=5000), make_config())
    with pytest.raises(FlowControlError):
        b.table.on_stream(0, 5000, b"x", False)
    b = Side(False, make_config(), make_config())
    for i in range(1024):
        b.table.on_stream(0, 2 * i + 1, b"x", False)
    with pytest.raises(ResourcesExhaustedError):
        b.table.on_stream(0, 5001, b"x", False)


# -- credit --------------------------------------------------------------------------------------------------------


def test_a_reader_that_stops_slows_only_its_writer() -> None:
    """S-6, D4: within the stream's window; the others go on."""
    config = make_config(stream_receive_window=10_000, session_receive_window=100_000)
    a, b = make_pair(config)
    slow, fast = a.table.open(), a.table.open()
    slow.write(bytes(50_000))
    for _ in range(20):
        fast.write(bytes(20_000))
        settle(a, b)
        reader = b.table.get(fast.id)
        assert reader is not None
        while reader.read(10_000):
            settle(a, b)
    assert b.table.bytes_read == 400_000
    stuck = b.table.get(slow.id)
    assert stuck is not None
    assert slow.send is not None
    assert slow.send.blocked
    got = 0
    while data := stuck.read(100_000):
        got += len(data)
        settle(a, b)
    assert got == 50_000


def test_the_sessions_credit_stops_and_restarts_everybody() -> None:
    """S-6, S-12: at the same cost for one stream as for many; each is told of once."""
    config = make_config(session_receive_window=10_000)
    a, b = make_pair(config)
    streams = [a.table.open() for _ in range(50)]
    for stream in streams:
        stream.write(bytes(1000))
    packets = deliver(a, b)
    assert b.table.window.received == 10_000
    frames = [frame for packet in packets for frame in decode_frames_untrusted(packet)]
    assert [frame for frame in frames if isinstance(frame, DataBlocked)] == [DataBlocked(10_000)]
    assert not a.table.has_pending
    assert a.packet() == (b"", [])
    while a.table.undelivered:
        assert a.table.credit.used <= a.table.credit.limit
        for stream in list(b.table):
            if stream.opened:
                stream.read(5000)
        settle(a, b)
    for stream in list(b.table):
        stream.read(5000)
    assert b.table.bytes_read == 50_000


def test_a_blocked_report_that_is_overtaken_is_not_sent() -> None:
    """S-12, R-9: frames are made from how things stand when they are sent."""
    a, _ = make_pair(peer_config=make_config(stream_receive_window=1024, session_receive_window=1024))
    a.table.open().write(bytes(2000))
    a.table.open().write(bytes(2000))
    a.packet(5000)
    assert set(a.table.control_ready) == {("stream_data_blocked", 0), ("data_blocked", 0)}
    assert a.table.encode_control(("stream_data_blocked", 0)) == StreamDataBlocked(0, 1024).encode()
    assert a.table.encode_control(("data_blocked", 0)) == DataBlocked(1024).encode()
    a.table.on_max_data(5000)
    a.table.on_max_stream_data(0, 5000)
    out: list[bytes | memoryview] = []
    assert a.table.write_control(out, [], 1200) == 0
    assert not a.table.control_ready
    for key in (("stream_data_blocked", 0), ("data_blocked", 0), ("max_stream_data", 12), ("reset", 12), ("stop", 12)):
        assert a.table.encode_control(key) is None


# -- the next packet -----------------------------------------------------------------------------------------------


def shares(side: Side, room: int) -> list[tuple[int, int]]:
    """Who put how much into the next packet."""
    plain, _ = side.packet(room)
    frames = decode_frames_untrusted(plain) if plain else []
    return [(frame.stream_id, len(frame.data)) for frame in frames if isinstance(frame, StreamFrame)]


def test_streams_take_turns() -> None:
    """S-10: each puts at most its maximum frame size into a packet, then goes behind the others."""
    a, _ = make_pair(make_config(default_max_frame_size=1000))
    for size in (2500, 10_000, 1200):
        a.table.open().write(bytes(size))
    a.table.open(max_frame_size=300).write(bytes(500))
    assert shares(a, 10_000) == [(0, 1000), (4, 1000), (8, 1000), (12, 300)]
    assert shares(a, 1500) == [(0, 1000), (4, 490)]
    assert shares(a, 20_000) == [(8, 200), (12, 200), (0, 500), (4, 8510)]
    assert a.table.has_pending is False


def test_a_stream_that_is_alone_fills_the_packet() -> None:
    """S-10."""
    a, _ = make_pair(make_config(default_max_frame_size=1000))
    a.table.open().write(bytes(30_000))
    assert shares(a, 20_000) == [(0, 19_998)]
    assert shares(a, 20_000) == [(0, 10_002)]


def test_the_order_is_kept_over_packets() -> None:
    """S-10: with a thousand streams waiting, each gets its turn."""
    a, _ = make_pair(make_config(max_concurrent_streams=1000, session_receive_window=1 << 24))
    ids = [a.table.open().id for _ in range(1000)]
    for stream in list(a.table):
        stream.write(bytes(3000))
    served = [shares(a, 1200)[0][0] for _ in range(2000)]
    assert served == ids * 2


def test_lost_data_takes_turns_too() -> None:
    """S-10, R-9: before new data of the same stream, beside that of others."""
    a, _ = make_pair(make_config(default_max_frame_size=1000))
    first, second = a.table.open(), a.table.open()
    first.write(bytes(5000))
    _, tokens = a.packet(6000)
    for token in tokens:
        a.table.on_token_lost(token)
    first.write(bytes(5000))
    second.write(bytes(3000))
    assert shares(a, 6000) == [(0, 1000), (4, 1000)]
    assert shares(a, 500) == [(0, 496)]
    assert shares(a, 500) == [(4, 496)]
    second.reset(0)
    assert shares(a, 20_000) == [(0, 3504), (0, 5000)]


def test_lost_data_of_several_streams_takes_turns() -> None:
    """S-10, R-9."""
    a, _ = make_pair(make_config(default_max_frame_size=1000))
    for _ in range(3):
        a.table.open().write(bytes(2000))
    while a.table.has_pending:
        _, tokens = a.packet(9000)
        for token in tokens:
            a.table.on_token_lost(token)
        if a.table.open().id == 16:
            break
    sent = shares(a, 9000)
    assert [stream_id for stream_id, _ in sent] == [0, 4, 8]
    assert all(size <= 1000 for _, size in sent)
    assert [stream_id for stream_id, _ in shares(a, 1500)] == [0, 4]
    assert [stream_id for stream_id, _ in shares(a, 1500)] == [8, 4]


def test_a_small_write_that_is_held_back_makes_way() -> None:
    """D1 `no_delay=False`: the others are served all the same."""
    a, _ = make_pair()
    held, other = a.table.open(no_delay=False), a.table.open()
    held.write(b"a")
    assert shares(a, 1200) == [(0, 1)]
    held.write(b"b")
    other.write(b"c")
    assert shares(a, 1200) == [(4, 1)]
    assert not a.table.has_pending


def test_too_little_room_is_left_alone() -> None:
    a, _ = make_pair()
    for _ in range(2):
        a.table.open(purpose="p" * 255).write(bytes(1000))
    assert a.packet(260) == (b"", [])
    assert a.table.has_pending
    plain, tokens = a.packet(MIN_ROOM)
    assert plain
    a.table.on_token_lost(tokens[0])
    assert a.packet(260) == (b"", [])
    assert len(a.table.control_ready) == 0


def test_control_frames_go_as_far_as_they_fit() -> None:
    """R-9: those that do not fit keep their place."""
    a, b = make_pair()
    for _ in range(10):
        stream = a.table.open()
        stream.write(b"x")
        stream.stop(1)
    out: list[bytes | memoryview] = []
    tokens: list[Any] = []
    size = len(StopSending(0, 1).encode())
    assert a.table.write_control(out, tokens, 4 * size - 1) == 3 * size
    assert tokens == [("stop", 0), ("stop", 4), ("stop", 8)]
    assert len(a.table.control_ready) == 7
    assert {kind for kind, _ in a.table.control_ready} <= CONTROL_KINDS
    assert b.table.encode_control(("max_data", 0)) == MaxData(3 << 19).encode()


# -- the fate of control frames ------------------------------------------------------------------------------------


def test_control_frames_are_sent_until_they_arrive() -> None:
    """Section 8, "kept until acknowledged"; R-9: or until they mean nothing any more."""
    a, b = make_pair()
    stream = a.table.open()
    stream.write(bytes(100))
    deliver(a, b)
    stream.reset(3)
    stream.stop(4)
    _, tokens = a.packet()
    assert tokens == [("reset", 0), ("stop", 0)]
    for token in tokens:
        a.table.on_token_lost(token)
    plain, tokens = a.packet()
    assert decode_frames_untrusted(plain) == [ResetStream(0, 3, 100), StopSending(0, 4)]
    b.take_in(plain)
    for token in tokens:
        a.table.on_token_acked(token)
    a.table.on_token_lost(("reset", 0))
    assert a.packet() == (b"", [])
    deliver(b, a)
    a.table.on_token_lost(("stop", 0))
    a.table.on_token_acked(("reset", 0))
    assert a.packet() == (b"", [])
    assert len(a.table) == 0


def test_credit_that_was_lost_is_announced_as_it_stands_then() -> None:
    """R-9, S-7."""
    a, b = make_pair(make_config(stream_receive_window=1000 * 4, session_receive_window=4000))
    stream = a.table.open()
    stream.write(bytes(4000))
    deliver(a, b)
    opened = b.table.get(0)
    assert opened is not None
    opened.read(2000)
    plain, tokens = b.packet()
    assert decode_frames_untrusted(plain) == [MaxData(6000), MaxStreamData(0, 6000)]
    opened.read(1000)
    for token in tokens:
        b.table.on_token_lost(token)
    assert decode_frames_untrusted(b.packet()[0]) == [MaxData(7000), MaxStreamData(0, 7000)]


def test_a_stream_that_ended_needs_no_credit_and_no_stop() -> None:
    """R-9: what had been asked for before the end arrived is not sent any more."""
    a, b = make_pair()
    stream = a.table.open()
    stream.write(bytes(1 << 19))
    deliver(a, b)
    opened = b.table.get(0)
    assert opened is not None
    opened.read(1 << 19)
    assert ("max_stream_data", 0) in b.table.control_ready
    stream.finish()
    deliver(a, b)
    assert b.table.encode_control(("max_stream_data", 0)) is None
    second = a.table.open()
    second.write(b"x")
    deliver(a, b)
    opened = b.table.get(second.id)
    assert opened is not None
    opened.stop(1)
    second.finish()
    deliver(a, b)
    assert b.table.encode_control(("stop", second.id)) is None
    assert len(b.table) == 2


def test_who_waits_for_the_session_says_so_until_it_is_heard() -> None:
    """S-12, section 8: what the peer must answer is repeated as long as it is true; what is for diagnosis is not."""
    a, b = make_pair(peer_config=make_config(session_receive_window=1024, max_concurrent_streams=1))
    a.table.open().write(bytes(2000))
    with pytest.raises(TooManyStreamsError):
        a.table.open()
    plain, tokens = a.packet()
    assert DataBlocked(1024) not in decode_frames_untrusted(plain), "not before it is"
    again, more = a.packet()
    assert set(tokens[:1] + more) == {("streams_blocked", 1), ("data_blocked", 0)}
    for token in tokens[:1] + more:
        a.table.on_token_lost(token)
    a.table.on_token_lost(("stream_data_blocked", 0))
    frames = decode_frames_untrusted(a.packet()[0])
    assert set(frames) == {StreamsBlocked(True, 1), DataBlocked(1024)}
    b.take_in(again)
    for frame in frames:
        b.take_in_frame(frame)
    assert b.table.suspicious - b.table.repeated == 0
    a.table.on_max_data(5000)
    a.table.on_max_streams(True, 2)
    for token in tokens[:1] + more:
        a.table.on_token_lost(token)
    assert not [frame for frame in decode_frames_untrusted(a.packet()[0]) if not isinstance(frame, StreamFrame)]


def test_what_is_repeated_says_how_things_stand() -> None:
    """S-12, R-9: a limit that is told so is told; what the peer then grants, however little, is no surprise."""
    a, _ = make_pair(peer_config=make_config(session_receive_window=1024))
    stream = a.table.open()
    stream.write(bytes(1024))
    a.packet()
    a.table.open().write(b"x")
    assert decode_frames_untrusted(a.packet()[0]) == [DataBlocked(1024)]
    a.table.on_max_data(1025)
    a.packet()
    assert a.table.credit.exhausted
    a.table.on_token_lost(("data_blocked", 0))
    assert decode_frames_untrusted(a.packet()[0]) == [DataBlocked(1025)]
    a.table.open().write(b"x")
    assert not a.table.control_ready, "that was said"
    a.table.on_max_data(1026)
    assert a.table.suspicious == 0
    a.table.on_max_data(1027)
    assert a.table.suspicious == 1, "nobody asked for this one"


# -- the end of the session ----------------------------------------------------------------------------------------


def test_the_end_of_the_session_ends_every_stream() -> None:
    """K-2, K-6: what arrived stays readable, then every command raises the reason."""
    a, b = make_pair()
    both, out = a.table.open(), a.table.open(False)
    for stream in (both, out):
        stream.write(b"hello")
    deliver(a, b)
    b.table.open()
    for stream in (both, out):
        stream.write(b"more")
    _, tokens = a.packet()
    both.stop(0)
    error = SessionClosedError("over", reason="timeout")
    for side in (a, b):
        side.table.fail_all(error)
        assert side.table.undelivered == 0
        assert not side.table.has_pending
        with pytest.raises(RemoteError) as caught:
            side.table.open()
        assert caught.value is error
    for stream in list(b.table):
        if stream.id in (0, 2):
            assert stream.read(10) == b"hello"
        if stream.recv is not None:
            with pytest.raises(SessionClosedError):
                stream.read(10)
    with pytest.raises(SessionClosedError):
        both.write(b"x")
    for token in [*tokens, ("stop", 0)]:
        a.table.on_token_lost(token)
        a.table.on_token_acked(token)
    assert not a.table.has_pending


# -- what it costs -------------------------------------------------------------------------------------------------


def test_idle_tables_and_streams_are_small() -> None:
    """An idle session has to fit into 20 KiB; its streams' part of it is a tenth."""
    config = make_config()
    events: deque[Any] = deque()
    assert traced(lambda: StreamTable(True, config, events)) < 20 * 1024 / 10
    a, _ = make_pair(config, make_config(max_concurrent_streams=2000))
    assert traced(a.table.open) < 1536

    def used() -> list[StreamTable]:
        sides = Side(True, config, config), Side(False, config, config)
        stream = sides[0].table.open(False)
        stream.finish()
        deliver(*sides)
        reader = sides[1].table.get(stream.id)
        assert reader is not None
        reader.read(1)
        assert not len(sides[0].table) + len(sides[1].table)
        return [side.table for side in sides]

    assert traced(used) / 2 - traced(deque) < 1800


def traced(make: Any, count: int = 200) -> float:
    """Bytes that one more of something takes."""
    make()
    tracemalloc.start()
    try:
        kept = [make() for _ in range(count)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return held / len(kept) - 8
