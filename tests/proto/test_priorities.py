"""Priorities: who sends first, and what that costs (docs/protocol.md, S-10, S-14, S-15)."""

from __future__ import annotations

import random
import sys
from collections import deque
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto import Priority
from stt_proto.errors import ArgumentError, InvalidFrameError, StateError
from stt_proto.events import StreamOpened
from stt_proto.streams import Hub, SendStream, Stream, StreamTable
from stt_proto.testing import Conditions
from stt_proto.wire import Parameters, ResetStream, decode_frames_untrusted
from stt_proto.wire import Priority as PriorityFrame
from stt_proto.wire import Stream as StreamFrame
from tests.proto.test_stream_table import Side, deliver, make_config, make_pair
from tests.proto.worlds import Mover, filler, session_pair

URGENT, USUAL, LAZY = Priority(0), Priority(3), Priority(7)


def shares(side: Side, room: int) -> list[tuple[int, int]]:
    """Who put how much into the next packet."""
    plain, _ = side.packet(room)
    frames = decode_frames_untrusted(plain) if plain else []
    return [(frame.stream_id, len(frame.data)) for frame in frames if isinstance(frame, StreamFrame)]


def writing(side: Side, *priorities: Priority | None, size: int = 5000, **options: Any) -> list[Stream]:
    """Streams of these priorities, each with something to send."""
    streams = [side.table.open(priority=priority, **options) for priority in priorities]
    for stream in streams:
        stream.write(bytes(size))
    return streams


# -- the value -----------------------------------------------------------------------------------------------------


def test_the_usual_priority() -> None:
    """S-14: urgency 3, incremental: streams that nobody speaks of take turns."""
    assert Priority() == Priority(3, True) == USUAL
    a, _ = make_pair()
    assert a.table.open().priority == USUAL
    assert a.table.open(priority=LAZY).priority == LAZY


@pytest.mark.parametrize(
    ("values", "argument"),
    [((-1,), "urgency"), ((8,), "urgency"), ((1.0,), "urgency"), ((True,), "urgency"), ((3, 1), "incremental")],
)
def test_what_is_no_priority(values: tuple[Any, ...], argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Priority(*values)
    assert caught.value.argument == argument


def test_only_priorities_can_be_set() -> None:
    a, b = make_pair()
    stream = a.table.open(False)
    for misuse in (
        lambda: a.table.open(priority=3),  # type: ignore[arg-type]
        lambda: setattr(stream, "priority", "high"),
        lambda: a.table.open().ask_priority(0),  # type: ignore[arg-type]
    ):
        with pytest.raises(ArgumentError) as caught:
            misuse()
        assert caught.value.argument == "priority"
    assert a.table.open(False).id == 6, "a stream that was refused takes no id"
    stream.write(b"x")
    deliver(a, b)
    theirs = b.table.get(stream.id)
    assert theirs is not None
    with pytest.raises(StateError):
        _ = theirs.priority
    with pytest.raises(StateError):
        theirs.priority = URGENT
    with pytest.raises(StateError):
        stream.ask_priority(URGENT)


# -- the order -----------------------------------------------------------------------------------------------------


def test_the_urgent_go_first_and_others_fill_the_packet() -> None:
    """S-14: strictly by urgency, and no room is left that anybody could use."""
    a, _ = make_pair(make_config(default_max_frame_size=1000))
    writing(a, LAZY, URGENT, USUAL)
    assert shares(a, 3000) == [(4, 2998)]
    assert shares(a, 3000) == [(4, 2002), (8, 990)]
    assert shares(a, 3000) == [(8, 2996)]
    assert shares(a, 9000) == [(8, 1014), (0, 5000)]


def test_a_stream_waits_as_long_as_there_is_a_more_urgent_one() -> None:
    """S-14, and what ends the waiting: no data, no credit, the end."""
    a, b = make_pair(make_config(default_max_frame_size=1000, stream_receive_window=4000))
    lazy, urgent = writing(a, LAZY, URGENT, size=3000)
    for _ in range(3):
        assert {stream_id for stream_id, _ in shares(a, 900)} == {urgent.id}
        urgent.write(bytes(900))
    assert urgent.send is not None
    while urgent.send.sent_offset < 4000:
        shares(a, 900)
    assert shares(a, 900)[0][0] == lazy.id, "the peer takes no more of the urgent one"
    a.table.on_max_stream_data(urgent.id, 8000)
    assert shares(a, 900)[0][0] == urgent.id
    urgent.reset(1)
    assert shares(a, 900)[0][0] == lazy.id
    assert b.table.window.received == 0


def test_streams_of_one_urgency_take_turns() -> None:
    """S-10: as many bytes each as their frame size, whatever stands at other urgencies."""
    a, _ = make_pair(make_config(default_max_frame_size=1000))
    writing(a, USUAL, LAZY, USUAL, LAZY, size=2000)
    assert shares(a, 9000) == [(0, 1000), (8, 1000)]
    assert shares(a, 9000) == [(0, 1000), (8, 1000), (4, 1000), (12, 1000)]


def test_those_that_are_not_incremental_go_one_after_the_other() -> None:
    """S-14: by their ids, though the later was ready first; and each fills its packets."""
    a, _ = make_pair(make_config(default_max_frame_size=1000))
    whole = Priority(3, incremental=False)
    first, second, third = (a.table.open(priority=whole) for _ in range(3))
    for stream in (third, second, first):
        stream.write(bytes(3000))
    assert shares(a, 2000) == [(first.id, 1998)]
    assert shares(a, 2000) == [(first.id, 1002), (second.id, 990)]
    first.write(bytes(500))
    assert shares(a, 2000) == [(first.id, 500), (second.id, 1490)]
    assert shares(a, 9000) == [(second.id, 520), (third.id, 3000)]


def test_both_kinds_at_one_urgency_alternate() -> None:
    """S-14: the first of those that are not incremental has every other turn."""
    a, _ = make_pair(make_config(default_max_frame_size=1000))
    whole = Priority(3, incremental=False)
    one, two, _three, _four = writing(a, whole, USUAL, USUAL, whole, size=5000)
    order = [shares(a, 500)[0][0] for _ in range(9)]
    assert order == [one.id, two.id, one.id, 8, one.id, two.id, one.id, 8, one.id]


def test_lost_data_has_the_priority_of_its_stream() -> None:
    """S-14, R-9."""
    a, _ = make_pair(make_config(default_max_frame_size=1000))
    lazy, usual = writing(a, LAZY, USUAL, size=2000)
    _, tokens = a.packet(9000)
    for token in tokens:
        a.table.on_token_lost(token)
    usual.write(bytes(1000))
    assert shares(a, 9000) == [(usual.id, 2000), (usual.id, 1000), (lazy.id, 2000)]


def test_lost_data_needs_no_credit_whatever_its_urgency() -> None:
    """S-6, S-14: without credit of the session those send who need none, in their order."""
    a, _ = make_pair(peer_config=make_config(session_receive_window=5000))
    urgent, usual, lazy = writing(a, URGENT, USUAL, LAZY, size=2000)
    tokens = a.packet(9000)[1]
    assert shares(a, 9000) == []
    assert not a.table.has_pending
    for token in tokens:
        a.table.on_token_lost(token)
    urgent.write(bytes(100))
    assert shares(a, 900) == [(urgent.id, 898)]
    urgent.priority = LAZY
    assert shares(a, 9000) == [(usual.id, 2000), (lazy.id, 1000), (urgent.id, 1102)]
    assert shares(a, 9000) == []
    a.table.on_max_data(5100)
    assert shares(a, 900) == [(lazy.id, 100)]


def test_the_end_alone_has_its_urgency() -> None:
    """S-14: an end that needs no credit does not push itself in front either."""
    a, _ = make_pair()
    (usual,) = writing(a, USUAL, size=2000)
    lazy = a.table.open(priority=LAZY)
    lazy.finish()
    assert shares(a, 1000) == [(usual.id, 998)]
    assert shares(a, 2000) == [(usual.id, 1002), (lazy.id, 0)]


def test_a_priority_can_change_at_any_time() -> None:
    """S-14: before, while and after a stream has something to send."""
    a, _ = make_pair(make_config(default_max_frame_size=1000))
    first, second = writing(a, None, None, size=5000)
    second.priority = URGENT
    assert shares(a, 1000) == [(second.id, 998)]
    second.priority = LAZY
    second.priority = LAZY
    assert shares(a, 1000) == [(first.id, 998)]
    first.priority = Priority(7, incremental=False)
    assert {stream_id for stream_id, _ in shares(a, 1000)} <= {first.id, second.id}
    while a.table.has_pending:
        shares(a, 9000)
    first.priority = USUAL
    for stream in (second, first):
        stream.write(bytes(100))
    assert shares(a, 1000) == [(first.id, 100), (second.id, 100)]
    first.reset(0)
    first.priority = URGENT
    assert not a.table.has_pending or shares(a, 1000) == []


class Naive:
    """The same rules, done by looking at everybody each time."""

    def __init__(self) -> None:
        self.members: list[SendStream] = []
        self.alternate = dict.fromkeys(range(8), False)

    def put(self, send: SendStream) -> None:
        if send not in self.members:
            self.members.append(send)

    def take(self, send: SendStream) -> None:
        if send in self.members:
            self.members.remove(send)

    def first(self) -> SendStream:
        urgency = min(send.priority.urgency for send in self.members)
        level = [send for send in self.members if send.priority.urgency == urgency]
        turns = [send for send in level if send.priority.incremental]
        sequence = sorted((send for send in level if not send.priority.incremental), key=lambda send: send.id)
        if sequence:
            self.alternate[urgency] = not self.alternate[urgency]
            if self.alternate[urgency] or not turns:
                return sequence[0]
        return turns[0]

    def pass_on(self, send: SendStream) -> None:
        self.take(send)
        self.put(send)


@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 12), steps=st.integers(1, 150))
def test_the_order_is_that_of_the_rules(seed: int, count: int, steps: int) -> None:
    """S-14: against a second reading of it, with streams that come, go and change."""
    rng = random.Random(seed)
    hub, naive = Hub(deque[Any](), 1 << 20), Naive()
    hub.credit.raise_limit(1 << 40)
    sends = [SendStream(4 * n, hub, limit=1 << 40, capacity=1 << 30, max_frame_size=1000) for n in range(count)]
    for _ in range(steps):
        send = rng.choice(sends)
        match rng.choice(["write", "write", "priority", "serve", "serve", "reset"]):
            case "write" if send.state.value == "open":
                send.write(bytes(20_000))
                naive.put(send)
            case "priority":
                before = send.priority
                send.set_priority(Priority(rng.choice([0, 3, 7]), rng.random() < 0.5))
                if send.stands and send.priority != before:
                    naive.pass_on(send)
            case "serve" if naive.members:
                expected = naive.first()
                tokens: list[Any] = []
                hub.ready.fill([], tokens, 100, hub.credit)
                assert [token[0] for token in tokens] == [expected]
                naive.pass_on(expected)
            case "reset" if rng.random() < 0.2:
                send.reset(0)
                naive.take(send)
            case _:
                pass
        assert hub.ready.count == len(naive.members)
        assert {send for send in sends if send.stands} == set(naive.members)


# -- what the receiver asks for ------------------------------------------------------------------------------------


def understanding(*, both: bool = True) -> tuple[Side, Side]:
    """Two sides that know PRIORITY, or of which the first does not."""
    a, b = make_pair()
    config = make_config()
    for side in (a, b):
        known = frozenset({0x24}) if both or side is a else frozenset[int]()
        side.table.set_peer_parameters(
            Parameters(
                max_data=1 << 21,
                max_stream_data=1 << 21,
                max_streams_bidi=config.max_concurrent_streams,
                max_streams_uni=config.max_concurrent_streams,
                extension_frames=known,
            )
        )
    return a, b


def asked(side: Side, other: Side) -> list[PriorityFrame]:
    """Carry over what waits, and give the wishes in it."""
    packets = deliver(side, other)
    return [frame for plain in packets for frame in decode_frames_untrusted(plain) if isinstance(frame, PriorityFrame)]


def opened(side: Side) -> list[int]:
    return [event.stream_id for event in side.drain() if isinstance(event, StreamOpened)]


def test_a_reader_can_ask_for_a_priority() -> None:
    """S-15: and gets it, where the sender has not said what it wants."""
    a, b = understanding()
    mine, theirs = a.table.open(), a.table.open(priority=LAZY)
    for stream in (mine, theirs):
        stream.write(b"x")
    deliver(a, b)
    assert opened(b) == [mine.id, theirs.id]
    for stream_id in (mine.id, theirs.id):
        stream = b.table.get(stream_id)
        assert stream is not None
        assert stream.ask_priority(Priority(1, False))
    assert asked(b, a) == [PriorityFrame(mine.id, 1, False), PriorityFrame(theirs.id, 1, False)]
    assert (mine.priority, theirs.priority) == (Priority(1, False), LAZY)
    assert a.table.suspicious == 0
    mine.priority = USUAL
    again = b.table.get(mine.id)
    assert again is not None
    again.ask_priority(URGENT)
    deliver(b, a)
    assert mine.priority == USUAL


def test_an_answer_can_be_asked_for_before_anything_of_it_is_there() -> None:
    """S-4, S-15: a wish that overtakes the first data counts."""
    a, b = understanding()
    question = a.table.open()
    question.ask_priority(URGENT)
    b.take_in(a.packet()[0])
    assert b.drain() == []
    question.write(b"?")
    deliver(a, b)
    answer = b.table.get(question.id)
    assert answer is not None
    assert answer.priority == URGENT


def test_a_peer_that_does_not_know_it_is_not_asked() -> None:
    """X-2."""
    a, b = understanding(both=False)
    stream = b.table.open()
    assert not stream.ask_priority(URGENT)
    assert not b.table.has_pending
    assert a.table.open().ask_priority(URGENT)


def test_a_wish_is_repeated_until_it_arrives_as_it_is_then() -> None:
    """S-15, R-9: and no longer than it matters."""
    a, b = understanding()
    stream = a.table.open()
    stream.ask_priority(URGENT)
    _, tokens = a.packet()
    stream.ask_priority(URGENT)
    assert not a.table.has_pending, "the same again is not worth a frame"
    stream.ask_priority(LAZY)
    a.packet()
    for token in tokens:
        a.table.on_token_lost(token)
    assert asked(a, b) == [PriorityFrame(0, 7, True)]
    for token in tokens:
        a.table.on_token_lost(token)
    b.table.on_stream(0, 0, b"", False)
    answer = b.table.get(0)
    assert answer is not None
    answer.finish()
    deliver(b, a)
    assert asked(a, b) == []
    stream.ask_priority(URGENT)
    assert asked(a, b) == [], "it has ended"
    assert a.table.encode_control(("priority", 0)) is None
    assert a.table.encode_control(("priority", 444)) is None
    other = a.table.open()
    assert a.table.encode_control(("priority", other.id)) is None


def test_wishes_that_say_nothing_are_counted() -> None:
    """F-5, S-15: the first is free, and so is one that was repeated; changing one's mind counts once in 64 times.

    [A peer that reorders ten thousand streams a thousand times a second.]
    """
    a, b = understanding()
    stream = a.table.open()
    stream.write(b"x")
    deliver(a, b)
    a.table.on_priority(stream.id, 0, True)
    assert a.table.suspicious == 0
    a.table.on_priority(stream.id, 0, True)
    assert (a.table.suspicious, a.table.repeated) == (1, 1)
    for number in range(1, 129):
        a.table.on_priority(stream.id, number % 2, True)
        assert (a.table.suspicious, a.table.repeated) == (1 + number // 64, 1)
    a.table.on_priority(stream.id, 1, True)
    assert stream.priority == Priority(1)
    stream.reset(0)
    stream.stop(0)
    deliver(a, b)
    b.take_in_frame(ResetStream(stream.id, 0, 1))
    deliver(b, a)
    a.table.suspicious = 0
    a.table.on_reset(stream.id, 0, 0)
    before = a.table.suspicious
    a.table.on_priority(stream.id, 0, True)
    assert a.table.suspicious == before + 1


@pytest.mark.parametrize("stream_id", [3, 4, 8])
def test_wishes_for_the_wrong_stream(stream_id: int) -> None:
    """S-9, S-15: one of the peer's own one-way streams, one never opened, one beyond the limit."""
    a, _ = make_pair(make_config(max_concurrent_streams=1))
    with pytest.raises(InvalidFrameError):
        a.table.on_priority(stream_id, 0, True)


def test_whoever_changes_his_mind_honestly_is_no_flood() -> None:
    """F-5, S-15: thirty streams that all matter more or less ten times a second, and one five hundred times."""
    pair = session_pair(conditions=Conditions(delay=0.02))
    streams = [pair.session.open_stream() for _ in range(30)]
    for stream in streams:
        stream.write(b"get", pair.now)
    pair.settle(0.5)
    for moment in range(150):
        for number, stream in enumerate(streams):
            stream.ask_priority(Priority((number + moment) % 8), pair.now)
        pair.settle(0.1)
    for moment in range(2000):
        streams[0].ask_priority(Priority(moment % 8), pair.now)
        pair.settle(0.002)
    assert pair.session.is_active()
    assert pair.peer.is_active()
    heard = pair.peer.stream(streams[1].stream_id)
    assert heard is not None
    assert heard.priority == Priority((1 + 149) % 8)


# -- what it costs -------------------------------------------------------------------------------------------------


def lines_run(action: Any) -> int:
    """How many lines of Python something takes."""
    count = 0

    def trace(*_: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def crowd(count: int, credit: int) -> StreamTable:
    """A table with so many streams that all have something to send, at two urgencies and of both kinds."""
    table = StreamTable(True, make_config(), deque())
    table.set_peer_parameters(Parameters(max_data=credit, max_stream_data=1 << 40, max_streams_bidi=count))
    for number in range(count):
        table.open(priority=Priority(3 + number % 2, number % 3 > 0)).write(bytes(5000))
    return table


def packet(table: StreamTable) -> list[Any]:
    tokens: list[Any] = []
    table.write_frames([], tokens, 1200 - table.write_control([], [], 1200))
    return tokens


def test_a_packet_costs_the_same_with_ten_thousand_streams() -> None:
    """S-14: also when credit comes and goes, when a packet is lost, and when a priority changes."""
    costs = []
    for count in (10, 10_000):
        table = crowd(count, credit=20_000)

        def use_up(table: StreamTable = table) -> None:
            while table.has_pending:
                packet(table)

        def one_cycle(table: StreamTable = table, use_up: Any = use_up) -> None:
            """The credit of a few packets, and one of them is lost."""
            table.on_max_data(table.credit.limit + 4000)
            lost = packet(table)
            use_up()
            for token in lost:
                table.on_token_lost(token)
            use_up()
            for stream in list(lost):
                stream[0].set_priority(Priority(stream[0].priority.urgency ^ 1, stream[0].priority.incremental))

        use_up()
        one_cycle()
        costs.append(max(lines_run(one_cycle) for _ in range(5)))
    assert costs[1] <= costs[0] * 1.5


def test_a_sequence_that_many_leave_early_stays_small() -> None:
    """S-14: a stream that never ends keeps its place, and a million others come and go behind it."""
    a, _ = make_pair(make_config(max_concurrent_streams=1 << 20))
    whole = Priority(3, incremental=False)
    writing(a, whole, size=1 << 20)
    for _ in range(3000):
        (stream,) = writing(a, whole, size=10)
        stream.reset(0)
    (level,) = a.table._hub.ready._levels
    assert len(level.sequence._heap) < 50
    assert len(level.sequence.members) == 1


# -- end to end ----------------------------------------------------------------------------------------------------


def test_an_urgent_stream_overtakes_a_bulk_transfer() -> None:
    """D5, S-14: on a link that the bulk fills for ten seconds, the urgent stream is through in one."""
    pair = session_pair(conditions=Conditions(delay=0.02, rate=4e6, queue=60_000))
    here, there = Mover(pair.client), Mover(pair.server)
    bulk = pair.session.open_stream()
    here.send(bulk, pair.session, filler(5_000_000))
    pair.world.run(3.0)
    began = pair.world.now
    urgent = pair.session.open_stream()
    urgent.priority = URGENT
    assert urgent.priority == URGENT
    assert urgent.bytes_given_up == 0
    here.send(urgent, pair.session, filler(200_000, 1))
    pair.world.run_until(lambda: (pair.peer, urgent.stream_id) in there.ended)
    assert pair.world.now - began < 1.2
    assert (pair.peer, bulk.stream_id) not in there.ended
    pair.world.run_until(lambda: (pair.peer, bulk.stream_id) in there.ended)


def test_a_reader_chooses_among_what_it_is_sent() -> None:
    """D5, S-15: two answers of equal size come one after the other, the second first, since the client says so."""
    pair = session_pair(conditions=Conditions(delay=0.02, rate=4e6, queue=60_000))
    here, there = Mover(pair.client), Mover(pair.server)
    there.answer = lambda session, stream_id: filler(400_000, stream_id)
    first, second = pair.session.open_stream(), pair.session.open_stream()
    assert first.ask_priority(LAZY, pair.now)
    for stream in (first, second):
        here.send(stream, pair.session, b"?")
    order: list[int] = []

    def done() -> bool:
        order.extend(stream_id for _, stream_id in here.ended if stream_id not in order)
        return len(order) == 2

    pair.world.run_until(done)
    assert order == [second.stream_id, first.stream_id]
    answer = pair.peer.stream(first.stream_id)
    assert answer is None or answer.priority == LAZY


def test_datagrams_go_before_every_stream() -> None:
    """S-11, S-14: a datagram waits for no stream, however urgent."""
    pair = session_pair()
    stream = pair.session.open_stream(priority=URGENT)
    stream.write(bytes(100_000), pair.now)
    pair.session.send_datagram(b"now", pair.now)
    pair.client.pump()
    pair.world.run_until(lambda: pair.peer.receive_datagram() == b"now" or None)
    received = pair.peer.stream(stream.stream_id)
    assert received is None or received.stream_id == stream.stream_id
    assert pair.peer.stats().stream_bytes_received == 0
