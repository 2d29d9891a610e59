"""An established session whose peer has the keys and keeps to no rule (docs/protocol.md, sections 6 to 11).

The peer sends generated rows of frames, made-up plaintext, packets out of order, repeated, in trains, damaged, under
numbers of its choice; the application opens, writes, reads, resets; time passes. Nothing raises but the documented
errors out of the application's own calls; what the peer sent as a stream is what is read; what does not open changes
nothing; what is sent in return opens, parses and acknowledges nothing that was never sent; all buffers and tables keep
to their bounds; and when it is over nothing is left.
"""

from __future__ import annotations

from fuzz.harness import Choices, instrumented, main

with instrumented(__name__):
    from fuzz.peers import (
        BEGIN,
        MAX_TICKS,
        Peer,
        check_bounds,
        check_session_bounds,
        held_for_sessions,
        let_time_pass,
        path_of,
        recorded,
        remember_curves,
    )
    from stt_proto.errors import DataExpiredError, LocalError, RemoteError, SttError
    from stt_proto.events import SessionClosed, SessionEstablished, StreamOpened
    from stt_proto.session import Stream as Handle
    from stt_proto.streams import Priority as StreamPriority
    from stt_proto.types import CloseReason
    from stt_proto.wire import (
        MAX_STREAM_COUNT,
        MAX_VARINT,
        Ack,
        AckFrequency,
        Confirm,
        DataBlocked,
        Datagram,
        Expired,
        Extension,
        Frame,
        KeepAlive,
        KeepAliveAck,
        MaxData,
        MaxStreamData,
        MaxStreams,
        NewConnectionId,
        Padding,
        PathChallenge,
        PathResponse,
        Ping,
        Priority,
        ResetStream,
        RetireConnectionId,
        Rotate,
        SessionClose,
        StopSending,
        Stream,
        StreamDataBlocked,
        StreamOpen,
        StreamsBlocked,
    )

PATTERN = bytes(range(251)) * 50
"""What the peer sends on stream n begins at place n % 251 of it, so that what is read can be checked."""
KEYS = (b"\x09".ljust(32, b"\0"), b"\x07".ljust(32, b"\x01"))
"""Public keys of the peer for a rotation."""
SECONDS = (0.0, 0.0001, 0.005, 0.03, 0.3, 2.0, 11.0, 31.0)
FAR = (0, 1, 7, 500, 65_536, 1 << 31, 1 << 32, 1 << 40, MAX_VARINT)
MAX_STREAMS_OPENED = 40
MAX_KEPT = 64
OTHER_PATH = path_of("198.51.100.9")
DATA_FOR_WRITES = b"abcdefghijklmnopqrstuvwxyz" * 400


class Run:
    """A session, its peer, and its application.

    Attributes:
        pure: whether all streams of the peer follow the pattern; made-up plaintext may hold anything.
        read: bytes that the application has read, by stream.
        sent: bytes that the peer has sent, by stream: the largest offset.
    """

    def __init__(self, choices: Choices) -> None:
        how = choices.byte()
        self.peer = Peer(recorded(how & 1 == 1, 1 + (how >> 1 & 1), "memory" if how & 12 == 12 else "udp"))
        self.endpoint, self.session = self.peer.endpoint, self.peer.session
        self.now = BEGIN
        self.pure = True
        self.read: dict[int, int] = {}
        self.offsets: dict[int, int] = {}
        self.streams: list[Handle] = []
        self.kept: list[tuple[int, list[bytes]]] = []
        self.established = 0
        self.closed = 0
        if how & 0xC0 != 0xC0 and how & 1:
            self.send(Ping().encode())
        self.listen()

    # -- the peer ------------------------------------------------------------------------------------------------

    def send(self, plain: bytes, number: int | None = None, size: int = 1200) -> None:
        """A packet of the peer's arrives."""
        self.deliver(self.seal(plain, number, size))

    def seal(self, plain: bytes, number: int | None = None, size: int = 1200) -> list[bytes]:
        """Make a packet of the peer's, and remember it to be repeated or damaged."""
        if number is None:
            number = self.peer.next_number
        datagrams = self.peer.seal(plain, number, size)
        if len(self.kept) < MAX_KEPT:
            self.kept.append((number, datagrams))
        return list(datagrams)

    def is_opened(self, number: int) -> bool:
        """Whether a packet with this number has opened, or can no more."""
        engines = self.session._engines
        assert engines is not None
        return engines.receiver.window.seen(number)

    def deliver(self, datagrams: list[bytes], ecn: int = 0) -> None:
        """Datagrams arrive on the path of the session."""
        for datagram in datagrams:
            self.endpoint.receive(datagram, self.peer.path, self.now, ecn=ecn)
        self.check()

    def check(self) -> None:
        """What holds at any time."""
        check_bounds(self.endpoint)
        if self.session.is_closed:  # the others were looked at already
            check_session_bounds(self.session)

    def listen(self) -> list[Frame]:
        """Take what the session sends and what it reports."""
        frames = self.peer.take(self.now)
        for session, event in self.endpoint.events():
            assert session is self.session
            if isinstance(event, StreamOpened):
                stream = self.session.stream(event.stream_id)
                if stream is not None and len(self.streams) < MAX_STREAMS_OPENED:
                    self.streams.append(stream)
            self.established += isinstance(event, SessionEstablished)
            self.closed += isinstance(event, SessionClosed)
        assert self.established <= 1
        assert self.closed <= 1
        assert self.session.is_closed == (self.session.close_error is not None)
        assert self.session.close_error is None or isinstance(self.session.close_error, SttError)
        return frames

    def state(self) -> tuple[object, ...]:
        """What only a packet that opens may change."""
        session, stats = self.session, self.session.stats()
        engines = session._engines
        assert engines is not None
        return (
            session.state,
            session.close_error,
            stats.packets_received,
            stats.bytes_received,
            stats.rtt,
            stats.packets_lost,
            engines.receiver.window.largest,
            engines.liveness.last_received,
            [*engines.control.ready],
            [(stream.id, stream.opened) for stream in engines.streams],
            engines.streams.window.received,
            engines.acks.due_at,
            len(self.endpoint._events),
        )


def fuzz_one(data: bytes) -> None:
    """Let the peer, the application and time do what the bytes say."""
    choices = Choices(data)
    run = Run(choices)
    while choices:
        STEPS[choices.below(len(STEPS))](run, choices)
    finish(run, choices)


def finish(run: Run, choices: Choices) -> None:
    """The session ends, if it has not; after a while nothing is left of it."""
    run.listen()
    run.check()
    if not run.session.is_closed:
        if len(run.kept) & 1:
            run.session.abort(run.now)
        else:
            run.session.close(run.now)
    let_time_pass(run.endpoint, run.now, run.now + 1000.0)
    assert run.session.is_closed
    assert run.session.close_error is not None
    held = held_for_sessions(run.endpoint)
    assert not held, held


# -- frames --------------------------------------------------------------------------------------------------------


def stream_id(run: Run, choices: Choices) -> int:
    """Of a stream that may be there, or any."""
    how = choices.byte()
    if how < 0xC0:
        return how & 3 | (how >> 2 & 15) << 2
    if how < 0xE0 and run.streams:
        return run.streams[how % len(run.streams)].stream_id
    return choices.number()


def pattern(stream: int, offset: int, size: int) -> bytes:
    """What the peer sends there."""
    start = (stream + offset) % 251
    return PATTERN[start : start + size]


def stream_frame(run: Run, choices: Choices) -> Frame:
    """Bytes of a stream: those that follow, or some that lie elsewhere."""
    stream = stream_id(run, choices)
    how, size = choices.byte(), choices.below(1100)
    offset = run.offsets.get(stream, 0)
    if how & 3 == 1:
        offset = choices.near(offset)
    elif how & 3 == 2:
        offset = choices.pick((0, 4095, 4096, 8191, 8192, 1 << 32, MAX_VARINT - size))
    if how & 0x70 == 0x10:
        size = 0
    if offset + size > MAX_VARINT:
        offset = MAX_VARINT - size
    run.offsets[stream] = max(run.offsets.get(stream, 0), offset + size)
    return Stream(stream, offset, pattern(stream, offset, size), how & 0x8C == 0x8C)


def ack_frame(run: Run, choices: Choices) -> Frame:
    """An acknowledgement of what was sent, or of something else."""
    seen = run.peer.seen
    how = choices.byte()
    if how & 7 or not seen:
        picked = [number for number in seen[-40:] if how & 8 or choices.byte() & 3]
        if not picked:
            picked = [choices.below(4)]
    else:
        picked = [choices.near(max(seen))]
    ranges: list[tuple[int, int]] = []
    for number in sorted(set(picked), reverse=True):
        if ranges and ranges[-1][0] == number + 1:
            ranges[-1] = number, ranges[-1][1]
        else:
            ranges.append((number, number))
    if how & 0xF0 == 0xF0:
        low, high = ranges[-1]
        ranges[-1] = max(0, low - choices.below(70)), high
    ecn = (choices.number(), choices.number(), choices.number()) if how & 0x60 == 0x20 else None
    return Ack(ranges[0][1], choices.number(), choices.number(), tuple(ranges[:64]), ecn)


def new_connection_id(run: Run, choices: Choices) -> Frame:
    """A connection ID of the peer's."""
    number = choices.near(choices.below(8))
    retire = min(number, choices.near(0))
    return NewConnectionId(number, retire, choices.take(1).ljust(8, b"i"), choices.take(1).ljust(16, b"t"))


def limit(choices: Choices) -> int:
    """Some limit."""
    return choices.near(choices.pick((0, 3, 8, 3000, 4096, 6000, 8192, MAX_VARINT - 63)))


def frame(run: Run, choices: Choices) -> Frame:
    """Any frame."""
    match choices.below(32):
        case 0 | 1 | 2 | 3 | 4:
            return stream_frame(run, choices)
        case 5 | 6 | 7:
            return ack_frame(run, choices)
        case 8:
            return Padding(1 + choices.below(40))
        case 9:
            return Ping()
        case 10:
            stream = stream_id(run, choices)
            return ResetStream(stream, choices.number(), choices.near(run.offsets.get(stream, 0)))
        case 11:
            return StopSending(stream_id(run, choices), choices.number())
        case 12:
            return KeepAlive(choices.take(1).ljust(8, b"k"))
        case 13:
            return KeepAliveAck(choices.take(1).ljust(8, b"k"))
        case 14:
            return MaxData(limit(choices))
        case 15:
            return MaxStreamData(stream_id(run, choices), limit(choices))
        case 16:
            return MaxStreams(choices.flag(), min(limit(choices), MAX_STREAM_COUNT))
        case 17:
            return DataBlocked(limit(choices))
        case 18:
            return StreamDataBlocked(stream_id(run, choices), limit(choices))
        case 19:
            return StreamsBlocked(choices.flag(), limit(choices))
        case 20 | 21:
            return new_connection_id(run, choices)
        case 22 | 23:
            return RetireConnectionId(choices.near(choices.below(6)))
        case 24:
            return PathChallenge(choices.take(1).ljust(8, b"p"))
        case 25:
            return PathResponse(choices.take(1).ljust(8, b"p"))
        case 26:
            if choices.below(4):
                return Confirm()
            detail = choices.chunk().decode("utf-8", "replace")
            return SessionClose(choices.number(), choices.pick([*CloseReason]), detail)
        case 27:
            return rotation(run, choices)
        case 28 | 29:
            return StreamOpen(stream_id(run, choices), choices.take(choices.below(5)).decode("utf-8", "ignore"))
        case 30:
            return extension_frame(run, choices)
        case _:
            return Datagram(PATTERN[: choices.below(1100)])


def rotation(run: Run, choices: Choices) -> Frame:
    """New keys, perhaps out of turn."""
    version = run.session.key_version + 1
    how = choices.below(16)
    key = bytes(32) if how == 1 else KEYS[how & 1]
    return Rotate(max(0, version + choices.below(4) - 2) if how < 3 else version, key)


def extension_frame(run: Run, choices: Choices) -> Frame:
    """A frame beyond those that everybody understands."""
    match choices.below(4):
        case 0:
            return Priority(stream_id(run, choices), choices.below(8), choices.flag())
        case 1:
            stream = stream_id(run, choices)
            offset = choices.near(run.offsets.get(stream, 0))
            run.offsets[stream] = max(run.offsets.get(stream, 0), offset)
            return Expired(stream, offset)
        case 2:
            return AckFrequency(choices.below(8), 1 + choices.number() % 5000, choices.number())
        case _:
            number = choices.below(8) if choices.flag() else choices.near(4096)
            return Extension(choices.pick((0x80, 0x80, 0xFF, 0x90)), number, PATTERN[: choices.below(1025)])


# -- steps of the peer ---------------------------------------------------------------------------------------------


def send_frames(run: Run, choices: Choices) -> None:
    """A packet with some frames."""
    plain, count = b"", 1 + choices.below(6)
    for _ in range(count):
        encoded = frame(run, choices).encode()
        if len(plain) + len(encoded) <= 1171:
            plain += encoded
    run.send(plain or Ping().encode())


def send_plain(run: Run, choices: Choices) -> None:
    """A packet with made-up plaintext, perhaps the last one damaged."""
    run.pure = False
    run.send(choices.chunk()[:1171])


def send_number(run: Run, choices: Choices) -> None:
    """A packet under a number of choice: skipped, far ahead, long ago."""
    far = choices.pick(FAR)
    number = run.peer.next_number
    number = max(0, number - far) if choices.flag() else min(number + far, MAX_VARINT)
    again = run.is_opened(number)
    before = run.state()
    run.send(frame(run, choices).encode(), number)
    if again:
        assert run.state() == before, "a number was opened twice"


def send_train(run: Run, choices: Choices) -> None:
    """A packet in segments, some of them missing, repeated, or in another order; in one run or one by one."""
    size = choices.pick((31, 64, 300, 1200))
    plain = b"".join(frame(run, choices).encode() for _ in range(1 + choices.below(4)))
    if len(plain) > (size - 16) * 50:
        return
    datagrams = run.seal(plain, None, size)
    how = choices.byte()
    if how & 1:
        datagrams = datagrams[::-1]
    if how & 2:
        del datagrams[choices.below(len(datagrams))]
    if how & 4:
        datagrams = [*datagrams, *datagrams]
    if how & 8 or any(len(datagram) < size for datagram in datagrams[:-1]):
        run.deliver(datagrams, ecn=how >> 6)
    elif datagrams:
        run.endpoint.receive(b"".join(datagrams), run.peer.path, run.now, size, ecn=how >> 6)
        run.check()


def send_batch(run: Run, choices: Choices) -> None:
    """Several packets of one size at once, as a system that coalesces hands them over."""
    datagrams = []
    for _ in range(2 + choices.below(6)):
        plain = frame(run, choices).encode()
        if len(plain) <= 171:
            datagrams += run.seal(plain.ljust(171, b"\0"))
    if datagrams:
        run.endpoint.receive(b"".join(datagrams), run.peer.path, run.now, 200)
        run.check()


def send_again(run: Run, choices: Choices) -> None:
    """What came before comes again, damaged or not: nothing of it opens, and nothing changes."""
    if not run.kept:
        return
    number, datagrams = choices.pick(run.kept)
    how = choices.byte()
    path = OTHER_PATH if how & 2 else run.peer.path
    if how & 1 and len(datagrams) == 1:
        changed = choices.damage(datagrams[0])
        if changed != datagrams[0]:
            before = run.state()
            run.endpoint.receive(changed, path, run.now, ecn=how >> 6)
            run.check()
            if changed[:1] and changed[0] & 0xA0 == 0:
                assert run.state() == before, "a damaged packet has changed something"
            return
    before, opened = run.state(), run.is_opened(number)
    for datagram in datagrams:
        run.endpoint.receive(datagram, path, run.now, ecn=how >> 6)
    run.check()
    if opened:
        assert run.state() == before, "a packet was taken twice"


def send_junk(run: Run, choices: Choices) -> None:
    """A datagram of which only the connection ID is right."""
    cid = run.peer.cids[choices.pick([*run.peer.cids])]
    before = run.state()
    first = 0x40 | choices.below(64)
    datagram = bytes((first,)) + cid + choices.chunk()
    run.endpoint.receive(datagram, OTHER_PATH if choices.flag() else run.peer.path, run.now)
    run.check()
    assert run.state() == before, "what does not open has changed something"


def change_cid(run: Run, choices: Choices) -> None:
    """The peer sends to another connection ID from now on, perhaps one that it has retired."""
    cids = run.peer.cids
    number = choices.pick([*cids])
    run.peer.cids = {number: cids[number], **cids}
    run.send(frame(run, choices).encode())
    if len(cids) > 1 and choices.flag():
        del cids[min(cids)]


def acknowledge(run: Run, choices: Choices) -> None:
    """The peer acknowledges everything, as it should."""
    run.listen()
    run.peer.follow()
    seen = run.peer.seen[-200:]
    ranges: list[tuple[int, int]] = []
    for number in reversed(seen):
        if ranges and ranges[-1][0] == number + 1:
            ranges[-1] = number, ranges[-1][1]
        else:
            ranges.append((number, number))
    if ranges:
        run.send(Ack(ranges[0][1], 0, 0, tuple(ranges[:64])).encode())


# -- steps of the application, and time ----------------------------------------------------------------------------


def use(run: Run, choices: Choices) -> None:
    """The application calls something; it gets what it asked for, or a documented error."""
    session, now = run.session, run.now
    stream = choices.pick(run.streams) if run.streams else None
    before = session.close_error
    try:
        match choices.below(16), stream:
            case 0 | 1, _:
                if len(run.streams) < MAX_STREAMS_OPENED:
                    purpose = choices.pick(("", "p", "x" * 255))
                    mortal = {"max_lifetime": 0.5, "max_attempts": 2} if purpose == "p" else {}
                    urgent = StreamPriority(0, purpose == "p") if purpose else None
                    run.streams.append(
                        session.open_stream(bidirectional=choices.flag(), purpose=purpose, priority=urgent, **mortal)
                    )
            case 2, _:
                session.send_datagram(DATA_FOR_WRITES[: choices.below(1200)], now)
            case 3, _:
                if session.receive_datagram() is None and session.receive_frame() is None:
                    session.send_frame(0x80, DATA_FOR_WRITES[: len(run.kept)], now, reliable=len(run.kept) % 2 > 0)
            case 4, _:
                if choices.below(8) == 0:
                    session.close(now, choices.pick(("graceful", "error")), "d" * choices.below(600))
            case 5, Handle():
                stream.watch_acked(choices.near(stream.bytes_accepted))
            case 6 | 7 | 8, Handle():
                stream.write(DATA_FOR_WRITES[: choices.below(8000)], now)
            case 9, Handle():
                stream.finish(now)
            case 10, Handle():
                stream.reset(choices.number(), now)
            case 11, Handle():
                stream.stop(choices.number(), now)
            case _, Handle():
                read(run, stream, 1 + choices.below(5000))
    except (LocalError, RemoteError) as error:
        assert session.close_error is before, error
    run.check()


def read(run: Run, stream: Handle, most: int) -> None:
    """Read, and compare with what the peer sends there."""
    offset = run.read.get(stream.stream_id, 0)
    try:
        data = stream.read(most, run.now)
    except DataExpiredError as error:
        assert error.skipped > 0
        run.read[stream.stream_id] = offset + error.skipped
        return
    assert len(data) <= most
    if run.pure:
        assert offset + len(data) <= run.offsets.get(stream.stream_id, 0)
        assert data == pattern(stream.stream_id, offset, len(data)), "other bytes than were sent"
    run.read[stream.stream_id] = offset + len(data)


def listen(run: Run, choices: Choices) -> None:
    """The session sends what it has."""
    run.listen()
    run.check()


def wait(run: Run, choices: Choices) -> None:
    """Time passes; the host does what it is asked to."""
    until = run.now + choices.pick(SECONDS)
    for _ in range(MAX_TICKS):
        deadline = run.endpoint.next_deadline()
        if deadline is None or deadline.at > until:
            break
        run.now = max(run.now, deadline.at)
        run.endpoint.tick(run.now)
        run.listen()
    else:
        raise AssertionError(f"wants to be woken for ever: {run.endpoint.next_deadline()}")
    run.now = until
    run.check()


def block_path(run: Run, choices: Choices) -> None:
    """The carrier is full, or has room again."""
    run.endpoint.path_writable(run.peer.path, choices.flag(), run.now)


STEPS = (
    send_frames,
    send_frames,
    send_frames,
    send_frames,
    send_plain,
    send_number,
    send_train,
    send_batch,
    send_again,
    send_junk,
    change_cid,
    acknowledge,
    use,
    use,
    use,
    listen,
    wait,
    block_path,
)


if __name__ == "__main__":
    remember_curves()
    main(fuzz_one)
