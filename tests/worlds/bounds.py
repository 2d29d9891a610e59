"""What an endpoint holds, looked at from inside: every table within its limit, every account equal to what it counts.

The limits are those of docs/protocol.md, section 13. Beside them stand the rules without which something would hang or
leak one day, long before it does: whoever has something to send stands in line, whoever waits has a timer, and every
running total is the sum of its parts. This module reaches into the core, as `tests.proto.worlds` does.
"""

from __future__ import annotations

from collections import Counter
from math import inf

from stt_proto import Endpoint, Session, SessionState
from stt_proto.config import Config, Limits
from stt_proto.endpoint import OUTBOX
from stt_proto.handshake import Responder
from stt_proto.packet.connection_ids import MAX_LIVE, MAX_RETIRING
from stt_proto.packet.trains import FINISHED_KEPT, PIECE_COST, TrainReassembler
from stt_proto.recovery import Recovery
from stt_proto.recovery.acks import MAX_RANGES, AckTracker
from stt_proto.session.ending import MAX_ANSWERS
from stt_proto.session.engines import CONNECTION_ID_LIMIT, Engines
from stt_proto.session.extensions import SPAN, ExtensionFrames
from stt_proto.session.rotation import RotationState
from stt_proto.streams import DatagramQueues, ExpiringSendStream, StreamTable
from stt_proto.streams.hub import PIECE_SHARE
from stt_proto.streams.receive import ReceiveState, ReceiveStream
from stt_proto.streams.send import SendState, SendStream
from stt_proto.types import Source

CONTROL_FRAMES = 6 + MAX_LIVE + 3 * MAX_RETIRING
"""Control frames of a session that may wait, beside those of its streams."""
LONGEST_TIMEOUT = 10.0
"""Seconds after which what is in flight is asked for at the latest (R-5)."""
STREAM_FRAMES = 6
"""Kinds of control frames that one stream may have waiting."""


def engines_of(session: Session) -> Engines | None:
    """What works on the packets of a session."""
    return session._engines


def sessions_of(endpoint: Endpoint) -> list[Session]:
    """All sessions that an endpoint still knows: live, or lingering."""
    return [*endpoint._context.live, *endpoint._lingering]


def check(endpoint: Endpoint) -> None:
    """Look at everything in an endpoint whose host has done its four steps."""
    deadline = endpoint.next_deadline()
    config, context, limits = endpoint.config, endpoint._context, endpoint.config.limits
    most(len(context.live), config.max_concurrent_sessions, "sessions")
    most(len(context.sessions), config.max_concurrent_sessions, "established sessions")
    most(len(endpoint._lingering), config.max_concurrent_sessions, "sessions that linger")
    most(len(endpoint._responder), limits.half_open, "half-open handshakes")
    most(len(context.pieces), limits.piece_groups, "groups of pieces")
    most(len(endpoint._outbox), OUTBOX, "answers")
    most(context.train_budget.cost, limits.train_bytes_in_all, "bytes of trains")
    most(len(context.dial_keys), len(context.live), "dials")
    same(len(endpoint._events), 0, "events that nobody took")
    check_half_open(endpoint._responder, limits)

    routed = sum(
        not half_open.begun for half_open in endpoint._responder._by_cid.values()
    )  # else its session is (H-40)
    trains = cost = 0
    known = sessions_of(endpoint)
    for session in known:
        engines = engines_of(session)
        if session in context.live and (deadline is None or session.deadline().at < deadline.at):
            raise AssertionError(f"{session} waits for {session.deadline()}; the endpoint for {deadline}")
        if engines is None:
            routed += session in context.live
            continue
        routed += len(engines.local_ids._live) + len(engines.local_ids._retired)
        trains += len(engines.receiver.trains)
        cost += engines.receiver.trains.cost
        check_session(session, engines, config)
    same(len(context.connection_ids), routed, "connection IDs")
    same(len(context.train_budget), trains, "trains")
    same(context.train_budget.cost, cost, "bytes of trains")


def check_half_open(responder: Responder, limits: Limits) -> None:
    """H-21, H-23, H-26."""
    places = Counter[Source]()
    for half_open in responder._by_cid.values():
        most(len(half_open.held), limits.held_packets, "held packets")
        most(sum(map(len, half_open.held)), limits.held_bytes, "held bytes")
        places[half_open.source] += half_open.proven
    most(max(places.values(), default=0), limits.half_open_per_source, "half-open handshakes of a source")
    assert responder._places == +places, f"places of sources: {responder._places}, counted are {+places}"
    most(len(responder._guesses), 2 * limits.sources, "sources")


def check_session(session: Session, engines: Engines, config: Config) -> None:
    """Look at everything in one session."""
    limits = config.limits
    check_trains(engines.receiver.trains, limits)
    check_acks(engines.acks)
    check_recovery(engines.path.recovery, session._context.clock.now)
    check_datagrams(engines.datagrams, limits)
    most(len(engines.local_ids._live), MAX_LIVE, "connection IDs")
    most(len(engines.local_ids._retired), MAX_RETIRING, "retired connection IDs")
    most(len(engines.remote_ids._live), CONNECTION_ID_LIMIT, "connection IDs of the peer")
    most(len(engines.remote_ids._retiring), MAX_RETIRING, "retiring connection IDs of the peer")
    check_frames(engines.control.frames, limits)
    check_keys(engines)
    most(len(engines.control.ready), CONTROL_FRAMES + limits.extension_frames, "control frames")
    most(session._ending._answers, MAX_ANSWERS, "answers after the end")
    check_streams(engines.streams, config, session.state is not SessionState.CLOSED)


def check_keys(engines: Engines) -> None:
    """V-3 to V-5: the keys that are there are those that the state of their rotation calls for."""
    rotation, openers = engines.rotation, engines.receiver._openers
    both = rotation.state in (RotationState.AGREED, RotationState.MOVED, RotationState.OVERLAP)
    older = rotation.version - (rotation.state is RotationState.OVERLAP)
    versions = {opener.keys.version for opener in openers.values()}
    assert versions == {older, older + both}, f"keys of versions {versions} while {rotation.state}, {rotation.version}"
    assert all(opener.keys.epoch == epoch for epoch, opener in openers.items())
    moved = rotation.state in (RotationState.MOVED, RotationState.OVERLAP)
    same(engines.sealer.keys.version, older + moved, "version of the sealing key")
    most(engines.sealer.review_at, engines.sealer.limit, "packets before the next look at a key")


# -- packets -------------------------------------------------------------------------------------------------------


def check_trains(trains: TrainReassembler, limits: Limits) -> None:
    """P-9."""
    most(len(trains), limits.trains, "trains")
    most(trains.cost, limits.train_bytes, "bytes of trains")
    most(len(trains._finished), FINISHED_KEPT, "finished trains")
    held = 0
    for train in trains._trains.values():
        cost = sum(len(piece) + PIECE_COST for piece in train.pieces.values())
        same(train.cost, cost, "cost of a train")
        held += cost
    same(trains.cost, held, "cost of the trains of a session")


def check_acks(acks: AckTracker) -> None:
    """F-3."""
    most(len(acks._older) + 1, MAX_RANGES, "ranges")
    least = acks._low
    for low, high in acks._older:
        assert low <= high < least, f"ranges {acks._low}-{acks._high}, {acks._older}"
        least = low
    assert not acks.pending or acks.due_at < inf, "an acknowledgement that is owed has no time"


def check_recovery(recovery: Recovery, now: float) -> None:
    """R-4, R-5."""
    outstanding = recovery._sent[recovery._head :]
    same(recovery.bytes_in_flight, sum(packet.size for packet in outstanding), "bytes in flight")
    numbers = [packet.number for packet in outstanding]
    assert numbers == sorted(set(numbers)), f"packets in flight: {numbers}"
    waiting = any(packet.eliciting for packet in outstanding)
    on_time = recovery.reliable or recovery.deadline <= now + LONGEST_TIMEOUT
    assert not waiting or on_time, f"packets wait until {recovery.deadline:g}"
    at_least(recovery.controller.window, 2 * recovery.max_datagram_size, "congestion window")


def check_datagrams(datagrams: DatagramQueues, limits: Limits) -> None:
    """S-11."""
    for queue in (datagrams._incoming, datagrams._outgoing):
        if queue is not None:
            most(len(queue.items), limits.datagrams, "datagrams")
            most(queue.bytes, limits.datagram_bytes, "bytes of datagrams")
            same(queue.bytes, sum(map(len, queue.items)), "bytes of datagrams")


def check_frames(frames: ExtensionFrames, limits: Limits) -> None:
    """F-7."""
    arrived = frames._incoming or ()
    most(len(arrived), limits.extension_frames, "frames that arrived")
    most(frames._incoming_bytes, limits.extension_bytes, "bytes of frames that arrived")
    same(frames._incoming_bytes, sum(len(frame.data) for frame in arrived), "bytes of frames that arrived")
    most(len(frames._outgoing), limits.extension_frames, "frames on their way")
    most(frames._outgoing_bytes, limits.extension_bytes, "bytes of frames on their way")
    same(frames._outgoing_bytes, sum(map(len, frames._outgoing.values())), "bytes of frames on their way")
    assert frames.reliable.keys() <= frames._outgoing.keys(), "a frame that was forgotten is waited for"
    assert list(frames.reliable.values()) == sorted(frames.reliable.values()), "numbers of frames do not rise"
    if frames._seen is not None:
        most(len(frames._seen.bounds), SPAN + 2, "gaps among frames that arrived")


# -- streams -------------------------------------------------------------------------------------------------------


def check_streams(table: StreamTable, config: Config, alive: bool) -> None:
    """S-2, S-3, S-6, S-8."""
    hub = table._hub
    peers = [0, 0]
    unread = undelivered = 0
    for stream in table:
        if stream.id & 1 != table._parity:
            peers[stream.id >> 1 & 1] += 1
        if stream.recv is not None:
            unread += check_receiving(stream.recv, config)
        if stream.send is not None:
            undelivered += check_sending(stream.send, config, alive)
    for count, ids in zip(peers, table._peer, strict=True):
        most(count, config.max_concurrent_streams, "streams of the peer")
        used = sum(stop - start for start, stop in ids.used)
        most(ids.limit, used - count + config.max_concurrent_streams, "limit of streams")
        most(len(ids.used.bounds) // 2, 1 + config.max_concurrent_streams, "intervals of used stream ids")
    window = hub.window
    most(window.received, window.limit, "bytes received in a session")
    most(window.limit, window.consumed + window.size, "credit of a session")
    most(window.size, max(config.session_receive_window, config.max_session_receive_window), "window of a session")
    most(hub.credit.used, hub.credit.limit, "credit used")
    most(len(table.control_ready), 4 + STREAM_FRAMES * len(table) + STREAM_FRAMES * 256, "control frames of streams")
    if alive:
        same(hub.undelivered, undelivered, "what is undelivered")
        standing = [stream.send for stream in table if stream.send is not None and stream.send.stands]
        same(hub.ready.count, len(standing), "streams in line")
        same(hub.ready.unpaid, sum(send._resends for send in standing), "streams that need no credit")
        assert (
            hub.credit.used < hub.credit.limit
            or hub.ready.count == hub.ready.unpaid
            or (hub.credit.reported == hub.credit.limit)
        ), "the session's credit is missing, and nobody said so"
        same(window.received - window.consumed, unread, "bytes unread in a session")


def check_receiving(recv: ReceiveStream, config: Config) -> int:
    """One receiving half; give the bytes of the session's credit that it holds."""
    window = recv.window
    most(window.received, window.limit, f"bytes received on stream {recv.id}")
    most(window.limit, window.consumed + window.size, f"credit of stream {recv.id}")
    most(window.received - window.consumed, window.size, f"bytes unread on stream {recv.id}")
    most(window.size, max(config.stream_receive_window, config.max_stream_receive_window), f"window of {recv.id}")
    pieces = recv._pieces
    kept = sum(map(len, recv._chunks))
    if recv.state is ReceiveState.RECEIVING:
        same(kept, recv.bytes_readable, f"bytes readable on stream {recv.id}")
    if recv._holes:
        assert recv._tail is recv._holes[-1][2], f"what arrives on stream {recv.id} does not go behind its last hole"
        most(len(recv._holes), recv._max_pieces, f"holes of stream {recv.id}")
        behind = window.consumed + kept
        for start, size, chunks in recv._holes:
            same(start, behind, f"offset of a hole of stream {recv.id}")
            behind = start + size + sum(map(len, chunks))
        same(behind, recv._next, f"bytes in order on stream {recv.id}")
        kept = behind - window.consumed
    if pieces is not None:
        most(len(pieces), max(config.limits.stream_pieces, window.size // PIECE_SHARE), f"pieces of stream {recv.id}")
        bounds = list(zip(pieces._starts, pieces._stops, strict=True))
        behind = recv._next
        for (start, stop), run in zip(bounds, pieces._runs, strict=True):
            assert behind < start < stop, f"pieces of stream {recv.id}: {bounds} behind {recv._next}"
            same(sum(map(len, run)), stop - start, f"bytes of a piece of stream {recv.id}")
            kept += stop - start
            behind = stop
    most(kept, window.received - window.consumed, f"bytes kept of stream {recv.id}")
    return window.received - window.consumed


def check_sending(send: SendStream, config: Config, alive: bool) -> int:
    """One sending half; give what of it is undelivered."""
    name = f"stream {send.id}"
    expiring = isinstance(send, ExpiringSendStream)
    most(send.bytes_unacked, send.capacity, f"bytes unacknowledged on {name}")
    most(send.capacity, max(config.stream_send_buffer, config.max_stream_send_buffer), f"buffer of {name}")
    most(send.sent_offset, send.limit, f"bytes sent on {name}")
    assert expiring or send.acked_offset <= send.sent_offset, f"offsets of {name}"
    assert send.sent_offset <= send.bytes_accepted, f"offsets of {name}"
    lost, acked = list(send._lost), list(send._acked)
    assert all(send.acked_offset <= start < stop <= send.sent_offset for start, stop in lost), f"{name} lost {lost}"
    assert all(send.acked_offset < start < stop for start, stop in acked), f"{name} acked {acked}"
    assert expiring or not acked or acked[-1][1] <= send.sent_offset, f"{name} acked {acked}, sent {send.sent_offset}"
    assert not any(send._acked.overlaps(start, stop) for start, stop in lost), f"{name} lost {lost}, and acked {acked}"
    if not alive:
        return 0
    if send.state in (SendState.OPEN, SendState.FINISHING):
        unpaid = send.stands and send.line is not None and send in send.line.unpaid
        if isinstance(send, ExpiringSendStream):
            return check_expiring(send, unpaid)
        if send._resends:
            assert unpaid, f"{name} has lost data or an end to send, and does not stand in line"
        elif send.sent_offset < min(send.bytes_accepted, send.limit) and not send._held:
            assert send.stands, f"{name} has data to send, and does not stand in line"
            assert not unpaid, f"{name} needs credit, and stands with those who need none"
        else:
            assert not send.stands, f"{name} has nothing to send, and stands in line"
        return send.bytes_unacked + (send.state is SendState.FINISHING)
    assert not send.stands, f"{name} stands in line, and is {send.state}"
    return int(send.state is SendState.RESETTING)


def check_expiring(send: ExpiringSendStream, unpaid: bool) -> int:
    """S-16, S-17: one that is alive and gives up what is too old; give what of it is undelivered."""
    name = f"stream {send.id}"
    most(send.skip_offset, send.acked_offset, f"bytes given up on {name}")
    most(send.told, min(send.skip_offset, send.sent_offset), f"what the peer was told of {name}")
    skipping = send.sent_offset < send.skip_offset
    able = not skipping and send.sent_offset < min(send.bytes_accepted, send.limit) and not send._held
    assert unpaid is send._resends, f"{name} stands where it does not belong"
    assert send.stands is (send._resends or able), f"{name} stands in line, or does not, without a reason"
    if send._expiry.deadline < inf:
        assert send in send._expiries.deadlines._armed, f"data of {name} will not expire"
    return send.bytes_unacked + (send.state is SendState.FINISHING) + send.owes


# -- two ends ------------------------------------------------------------------------------------------------------


def check_pair(one: Engines, other: Engines) -> None:
    """No end believes in more credit than the other gave, or in more delivered than the other got."""
    for sender, receiver in ((one.streams, other.streams), (other.streams, one.streams)):
        most(sender.credit.limit, receiver.window.limit, "credit of a session")
        at_least(sender.credit.used, receiver.window.received, "bytes sent in a session")
        for own, granted in zip(sender._own, receiver._peer, strict=True):
            most(own.limit, granted.limit, "limit of streams")
        for stream in sender:
            theirs = receiver._streams.get(stream.id)
            if stream.send is None or theirs is None or theirs.recv is None:
                continue
            recv = theirs.recv
            most(stream.send.limit, recv.window.limit, f"credit of stream {stream.id}")
            if recv.state is ReceiveState.RECEIVING and stream.send.state in (SendState.OPEN, SendState.FINISHING):
                settled = stream.send.acked_offset
                if isinstance(stream.send, ExpiringSendStream) and stream.send.owes:
                    continue
                at_least(recv._next, settled, f"bytes arrived of stream {stream.id}")


def check_announced(one: Session, other: Session) -> None:
    """C-2: where nothing is lost any more, each end knows all connection IDs of the other, and their tokens."""
    for issuer, user in ((one, other), (other, one)):
        issued, known = engines_of(issuer), engines_of(user)
        assert issued is not None
        assert known is not None
        live = {number: connection_id for number, (connection_id, token) in known.remote_ids._live.items() if token}
        assert live == issued.local_ids._live, f"{user} does not know all connection IDs of its peer"


# -- comparisons ---------------------------------------------------------------------------------------------------


def most(value: int, limit: int, what: str) -> None:
    """`value` is at most `limit`."""
    assert value <= limit, f"{what}: {value:,}, allowed are {limit:,}"


def at_least(value: int, limit: int, what: str) -> None:
    """`value` is at least `limit`."""
    assert value >= limit, f"{what}: {value:,}, expected are {limit:,} or more"


def same(value: int, counted: int, what: str) -> None:
    """A running total is what a count gives."""
    assert value == counted, f"{what}: {value:,}, counted are {counted:,}"
