"""Who got what is true (A6): what is told of each message is what became of it, however its receiver ends."""

from __future__ import annotations

from contextlib import suppress
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto import Session
from stt_proto.broadcast import Broadcast, Broadcaster, BroadcastPolicy, Delivery, Fate, SlowReceiver, StreamOutbox
from stt_proto.errors import RemoteError, SessionClosedError, ShuttingDownError, StateError
from stt_proto.events import Event, StreamOpened, StreamReadable
from tests.proto.worlds import Pair, session_pair

SMALL = {"stream_send_buffer": 65_536, "max_stream_send_buffer": 65_536}


class Hub:
    """One node that sends, with one receiver that takes down all that comes."""

    def __init__(self, pair: Pair, **policy: Any) -> None:
        self.pair = pair
        self.engine = Broadcaster(BroadcastPolicy(**policy))
        self.sent: list[tuple[Delivery, int | None]] = []
        self.came: dict[int, bytearray] = {}
        self.refusing = self.refused = False
        pair.client.listeners.append(self._on_event)
        pair.server.listeners.append(self._on_peer_event)

    def _on_event(self, session: Session | None, event: Event) -> None:
        if session is not None and self.engine:
            self.engine.on_event(session, event, self.pair.now)

    def _on_peer_event(self, session: Session | None, event: Event) -> None:
        if session is None or not isinstance(event, StreamOpened | StreamReadable):
            return
        stream = session.stream(event.stream_id)
        if stream is None:
            return
        if isinstance(event, StreamOpened) and self.refusing:
            stream.stop(7, self.pair.now)
            self.refused = True
            return
        with suppress(RemoteError, StateError):  # the session has ended, or it was refused
            while data := stream.read(1 << 20, self.pair.now):
                self.came.setdefault(event.stream_id, bytearray()).extend(data)

    def send(self, data: bytes, stream: Any = None) -> Delivery:
        delivery = self.engine.send(Broadcast(data), self.pair.session, stream, self.pair.now)
        self.sent.append((delivery, None if stream is None else stream.stream_id))
        self.pair.client.pump()
        return delivery

    def fates(self) -> list[str]:
        return [delivery.fate.value for delivery, _ in self.sent]


@pytest.mark.parametrize("on_one_stream", [False, True])
@pytest.mark.parametrize("why", ["closing", "draining"])
def test_what_has_begun_arrives_though_no_more_begins(on_one_stream: bool, why: str) -> None:
    """A session that is let go of takes no new message, but delivers what it has: each is told for itself."""
    pair = session_pair()
    hub = Hub(pair, max_messages=10)
    stream = pair.session.open_stream() if on_one_stream else None
    hub.send(bytes(20_000), stream)
    if why == "closing":
        pair.session.close(pair.now)
    elif not on_one_stream:  # one that is open already may go on
        pair.session.retiring = ShuttingDownError("nothing new")
    late = hub.send(b"late", stream)
    assert hub.sent[0][0].fate is Fate.QUEUED
    pair.settle(5.0)
    if why == "draining" and on_one_stream:
        assert hub.fates() == ["acknowledged"] * 2
    else:
        assert hub.fates() == ["acknowledged", "failed"]
        assert isinstance(late.error, SessionClosedError if why == "closing" else ShuttingDownError)
    assert len(next(iter(hub.came.values()))) >= 20_000
    assert not hub.engine


def test_those_that_wait_fail_with_the_first_that_is_refused() -> None:
    """Nothing waits for a stream that will never be; what is on its way is not given up for that."""
    pair = session_pair()
    hub = Hub(pair, max_messages=4)
    for _ in range(4):
        hub.send(b"x")  # two of them may be on their way
    pair.session.close(pair.now)
    pair.settle(5.0)
    assert hub.fates() == ["acknowledged"] * 2 + ["failed"] * 2
    assert not hub.engine


def test_a_stream_that_the_application_ended() -> None:
    """What it had taken whole arrives; a message that it took in part, and those behind, do not."""
    pair = session_pair(client=SMALL)
    hub = Hub(pair, max_messages=10)
    stream = pair.session.open_stream()
    for size in (10, 20_000, 100_000, 10):
        hub.send(bytes(size), stream)
    outbox = hub.engine.outbox(pair.session, stream.stream_id)
    assert isinstance(outbox, StreamOutbox)
    assert outbox.is_inside
    stream.finish(pair.now)
    pair.settle(5.0)
    assert hub.fates() == ["acknowledged"] * 2 + ["failed"] * 2
    assert isinstance(hub.sent[2][0].error, StateError)
    assert not hub.engine


def test_a_stream_that_was_reset_under_it() -> None:
    """Who resets it says so, or the next message finds out: all of them fail, and nothing is held any more."""
    pair = session_pair()
    hub = Hub(pair, max_messages=10)
    stream, other = pair.session.open_stream(), pair.session.open_stream()
    hub.send(bytes(20_000), stream)
    stream.reset(3, pair.now)
    hub.send(b"x", stream)
    hub.send(bytes(20_000), other)
    assert pair.session in hub.engine
    other.reset(3, pair.now)
    hub.engine.fail(pair.session, other.stream_id, StateError("reset"))
    assert hub.fates() == ["failed"] * 3
    assert pair.session not in hub.engine
    hub.engine.fail(pair.session, other.stream_id, StateError("reset"))


STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from([0, 1, 900, 5_000, 90_000])),
    st.tuples(st.just("append"), st.sampled_from([0, 1, 900, 5_000, 90_000])),
    st.tuples(st.just("withdraw"), st.integers(0, 20)),
    st.tuples(st.just("run"), st.sampled_from([0.0, 0.01, 0.05, 1.0])),
    st.tuples(st.just("outage"), st.sampled_from([0.1, 2.0, 300.0])),
    st.tuples(st.just("refuse"), st.just(0)),
    st.tuples(st.just("finish"), st.just(0)),
    st.tuples(st.just("close"), st.sampled_from(["ours", "theirs", "abort"])),
)


@given(
    st.sampled_from(SlowReceiver),
    st.integers(1, 6),
    st.sampled_from([100, 1_000, 20_000, 200_000]),
    st.lists(STEPS, max_size=25),
)
def test_what_is_told_is_what_became_of_it(
    slow: SlowReceiver, messages: int, size: int, steps: list[tuple[str, Any]]
) -> None:
    """Acknowledged: it came, whole, once, in order. Dropped: not a byte came. In the end none is queued."""
    pair = session_pair(client=SMALL)
    hub = Hub(pair, max_messages=messages, max_bytes=size, slow=slow)
    shared = pair.session.open_stream()
    for what, value in steps:
        match what:
            case "send" | "append" if value <= size:
                text = bytes([len(hub.sent)]) * value
                hub.send(text, shared if what == "append" else None)
            case "withdraw" if hub.sent:
                delivery, stream_id = hub.sent[value % len(hub.sent)]
                hub.engine.withdraw(delivery, pair.session, stream_id)
            case "run":
                pair.settle(value)
            case "outage":
                pair.world.outage(pair.client, pair.server, pair.now, value)
            case "refuse":
                hub.refusing = not hub.refusing
            case "finish" if not pair.session.is_closed:
                shared.finish(pair.now)
            case "close":
                session = pair.peer if value == "theirs" else pair.session
                (session.abort if value == "abort" else session.close)(pair.now)
        pair.pump()
        assert hub.engine.held <= 2 * size  # of the session, and of the stream
    pair.settle(500.0)
    assert not hub.engine
    came: dict[int, int] = {}
    for stream_id, data in hub.came.items():
        numbers = [(number, len(list(run))) for number, run in groupby(data)]
        assert stream_id == shared.stream_id or len(numbers) == 1
        assert [number for number, _ in numbers] == sorted({number for number, _ in numbers})
        assert not came.keys() & dict(numbers)
        came.update(numbers)
    for number, (delivery, _) in enumerate(hub.sent):
        assert delivery.fate is not Fate.QUEUED
        assert (delivery.error is None) is (delivery.fate is not Fate.FAILED)
        if delivery.fate is Fate.ACKNOWLEDGED:
            assert came.get(number, 0) == delivery.size or (hub.refused and number not in came)  # its core had it
        elif delivery.fate is Fate.DROPPED:
            assert number not in came
