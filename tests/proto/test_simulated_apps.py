"""The small applications of the simulator, and many worlds from many seeds."""

from __future__ import annotations

from hashlib import sha256

import pytest

from stt_proto import NetworkPath, Session, SessionState
from stt_proto.errors import SessionClosedError, StreamClosedError, TooManyStreamsError
from stt_proto.events import Event, HandshakeFailed, StreamOpened, StreamReadable, StreamWritable
from stt_proto.testing import (
    CELLULAR,
    PRESETS,
    Conditions,
    GilbertElliott,
    Inbox,
    Tally,
    Traffic,
    World,
    explore,
    random_conditions,
    send,
    serve_echo,
)
from tests.proto.worlds import Pair, filler, session_pair

# -- sending and receiving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_there_and_back_on_every_network(name: str) -> None:
    """Larger than all buffers, as soon as the session is established, with the end."""
    world = World(1, PRESETS[name])
    client, server = world.node("client", stream_send_buffer=20_000), world.node("server")
    serve_echo(server)
    inbox = Inbox(client)
    session = client.connect(server)
    upload = send(client, session, filler(100_000), purpose="there and back")
    assert upload.stream is None
    assert not upload.done
    world.run_until(lambda: upload.done and inbox.complete)
    assert upload.finished
    assert upload.error is None
    assert inbox.digests == [upload.digest] == [sha256(filler(100_000)).hexdigest()]
    (incoming,) = inbox.complete
    assert incoming.size == 100_000
    assert (incoming.session, incoming.stream_id, incoming.reset_code) == (session, 0, None)
    assert client.listeners == [inbox._on_event]
    session.close(world.now)
    world.assert_idle()


def test_an_echo_that_gets_stuck() -> None:
    """What cannot be written now is kept, and goes before what is read next."""
    pair = session_pair(server={"stream_send_buffer": 2000}, client={"stream_receive_window": 5000})
    serve_echo(pair.server)
    inbox = Inbox(pair.client)
    upload = send(pair.client, pair.session, filler(30_000))
    pair.world.run_until(lambda: inbox.complete)
    assert inbox.digests == [upload.digest]


def test_an_echo_of_nothing() -> None:
    pair = session_pair()
    serve_echo(pair.server)
    inbox = Inbox(pair.client)
    upload = send(pair.client, pair.session, b"")
    pair.world.run_until(lambda: upload.done and inbox.complete)
    assert inbox.complete[0].size == 0


def test_an_echo_knows_what_it_cannot_answer() -> None:
    """One-way streams, streams that are reset, sessions that end: none of it is an error, and others go on."""
    pair = session_pair()
    serve_echo(pair.server)
    one_way = send(pair.client, pair.session, b"one way", bidirectional=False)
    pair.world.run_until(lambda: one_way.done)
    broken = pair.session.open_stream()
    broken.write(b"half of", pair.now)
    pair.settle(0.1)
    broken.reset(7, pair.now)
    broken.stop(8, pair.now)
    pair.settle(0.1)
    inbox = Inbox(pair.client)
    whole = send(pair.client, pair.session, b"whole")
    pair.world.run_until(lambda: inbox.complete)
    assert inbox.digests == [whole.digest]
    open_stream = pair.session.open_stream()
    open_stream.write(b"unfinished", pair.now)
    pair.session.abort(pair.now)
    pair.settle(1.0)
    pair.world.send(b"\xc1" + bytes(1199), NetworkPath("udp", ("nobody", 1), pair.server.address))
    pair.settle(1.0)
    pair.world.assert_idle()


def test_an_inbox_tells_what_came() -> None:
    pair = session_pair()
    inbox = Inbox(pair.server)
    streams = [pair.session.open_stream(purpose=purpose) for purpose in ("ended", "open", "reset")]
    for stream in streams:
        stream.write(b"data", pair.now)
    streams[0].finish(pair.now)
    pair.settle(0.1)
    streams[2].reset(9, pair.now)
    pair.settle(0.1)
    for datagram in (b"one", b"two"):
        pair.session.send_datagram(datagram, pair.now)
    pair.settle(0.1)
    assert [incoming.purpose for incoming in inbox.streams.values()] == ["ended", "open", "reset"]
    assert [str(incoming) for incoming in inbox.streams.values()] == [
        "<Incoming on stream 0, 4 bytes, ended>",
        "<Incoming on stream 4, 4 bytes, open>",
        "<Incoming on stream 8, 4 bytes, reset with 9>",
    ]
    assert inbox.datagrams == [b"one", b"two"]
    assert inbox.complete == [inbox.streams[pair.peer, 0]]


def test_an_inbox_and_what_is_over() -> None:
    """It hears of the endpoint's own events, of its own side's resets, and of data in a stream that is gone."""
    pair = session_pair()
    inbox = Inbox(pair.client)
    Inbox(pair.server)
    pair.client.listeners[0](None, HandshakeFailed(pair.session.path, "timeout"))
    stream = pair.session.open_stream()
    stream.write(b"x", pair.now)
    pair.settle(0.1)
    heard = pair.peer.stream(0)
    assert heard is not None
    heard.write(b"answer", pair.now)
    heard.reset(5, pair.now)
    pair.settle(0.1)
    assert inbox.streams[pair.session, 0].reset_code == 5
    stream.stop(1, pair.now)
    heard.stop(6, pair.now)
    pair.settle(0.1)
    assert inbox.streams[pair.session, 0].reset_code == 5, "6 is about our own side"
    assert [event.stream_id for event in pair.server.events(StreamOpened)] == [0]


def test_an_inbox_leaves_what_another_has_read() -> None:
    """The application of the node comes first; a stream that it has read to the end is gone."""
    pair = session_pair()
    inbox = Inbox(pair.server)

    def read(session: Session | None, event: Event) -> None:
        if session is not None and isinstance(event, StreamReadable):
            stream = session.stream(event.stream_id)
            assert stream is not None
            assert stream.read(100, pair.now) == b"taken"

    pair.server.on_event = read
    upload = send(pair.client, pair.session, b"taken", bidirectional=False)
    pair.world.run_until(lambda: upload.done)
    assert [(incoming.size, incoming.ended) for incoming in inbox.streams.values()] == [(0, False)]


def ended(pair: Pair, *, closing: bool) -> None:
    if closing:
        pair.session.close(pair.now)
    else:
        pair.session.abort(pair.now)


@pytest.mark.parametrize("closing", [True, False])
def test_sending_over_what_ends(closing: bool) -> None:
    """It is done, with the error, and listens no longer."""
    pair = session_pair(conditions=Conditions(rate=1e6))
    upload = send(pair.client, pair.session, filler(3_000_000))
    pair.world.run(1.0)
    assert not upload.done
    ended(pair, closing=closing)
    pair.settle(30.0)
    assert isinstance(upload.error, SessionClosedError)
    assert upload.done
    assert not upload.finished
    assert pair.client.listeners == []


def test_sending_over_what_ends_in_the_middle_of_an_event() -> None:
    """A listener before it ends the session while the event at hand is on its way to the sender."""
    pair = session_pair()

    def end(session: Session | None, event: Event) -> None:
        if isinstance(event, StreamWritable):
            pair.session.abort(pair.now)
            pair.client.pump()

    pair.client.listeners.append(end)
    Inbox(pair.server)
    upload = send(pair.client, pair.session, filler(3_000_000))
    pair.settle(5.0)
    assert isinstance(upload.error, SessionClosedError)
    assert pair.client.listeners == [end]


def test_sending_over_what_never_begins() -> None:
    world = World(1)
    client, server = world.node("client"), world.node("server", shared_seed="another")
    upload = send(client, client.connect(server), b"in vain")
    other = send(server, client.connect(server), b"not its session")
    world.run_until(lambda: upload.done)
    assert upload.session.state is SessionState.CLOSED
    assert upload.error is upload.session.close_error
    assert not other.done


def test_sending_what_the_peer_does_not_want() -> None:
    pair = session_pair()
    first = send(pair.client, pair.session, filler(2_000_000))
    second = send(pair.client, pair.session, filler(2_000_000))
    pair.settle(1.0)
    heard = pair.peer.stream(0)
    assert heard is not None
    heard.stop(77, pair.now)
    pair.settle(1.0)
    assert isinstance(first.error, StreamClosedError)
    assert first.error.stream_code == 77
    assert not second.done


def test_sending_more_than_the_peer_allows() -> None:
    pair = session_pair(server={"max_concurrent_streams": 1})
    first, second = (send(pair.client, pair.session, b"x") for _ in range(2))
    assert isinstance(second.error, TooManyStreamsError)
    pair.world.run_until(lambda: first.done)
    assert first.finished


# -- many worlds ---------------------------------------------------------------------------------------------------


def echo(world: World) -> None:
    """What must hold on every network: what was sent comes back, and nothing is left."""
    client, server = world.node("client"), world.node("server")
    serve_echo(server)
    inbox = Inbox(client)
    session = client.connect(server)
    upload = send(client, session, filler(20_000, world.seed))
    world.run_until(lambda: inbox.complete and upload.done, timeout=120.0)
    assert inbox.digests == [upload.digest]
    session.close(world.now)
    world.assert_idle(within=60.0)


def test_exploring() -> None:
    """Each world is another network; all faults that the links know have happened somewhere."""
    tally = explore(echo, range(60), random_conditions)
    assert tally.worlds == 60
    assert tally.datagrams > 3000
    assert tally.seconds > 60
    happened = {name for name in Traffic.__slots__ if getattr(tally.traffic, name, 0)}  # type: ignore[attr-defined]
    assert happened >= {"lost", "burst", "duplicated", "reordered", "corrupted", "truncated"}


def test_exploring_one_network() -> None:
    assert explore(echo, [1, 2], CELLULAR).worlds == 2
    assert explore(echo, []) == Tally()


def test_exploring_finds_and_tells() -> None:
    """The exception is the scenario's own; its notes say which world, and the call that makes it again."""

    def unlucky(world: World) -> None:
        world.run(1.0)
        if world.seed == 13:
            raise LookupError("found")

    with pytest.raises(LookupError, match="found") as failed:
        explore(unlucky, range(100), Conditions(delay=0.5))
    world = "World(seed=13, conditions=Conditions(delay=0.5))"
    assert failed.value.__notes__ == [
        f"the same again: {world}, at 1.000000 s",
        f"that is {__name__}.{unlucky.__qualname__}({world})",
    ]


def test_random_conditions() -> None:
    """The same for the same seed; every kind of fault is there somewhere and missing somewhere."""
    drawn = [random_conditions(seed) for seed in range(300)]
    assert drawn == [random_conditions(seed) for seed in range(300)]
    for name in ("jitter", "loss", "duplicate", "reorder", "corrupt", "truncate"):
        values = [getattr(conditions, name) for conditions in drawn]
        assert 0.2 < sum(value > 0 for value in values) / 300 < 0.6
    for name in ("rate", "burst", "ecn_threshold"):
        values = [getattr(conditions, name) for conditions in drawn]
        assert None in values
        assert sum(value is not None for value in values) > 50
    assert all(eval(repr(one), {"Conditions": Conditions, "GilbertElliott": GilbertElliott}) == one for one in drawn)
