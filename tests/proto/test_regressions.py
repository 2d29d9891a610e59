"""What fuzzing and simulation have found, each as small as it can be, so that it is found at once if it comes back."""

from __future__ import annotations

import copy
import pickle
from collections import deque
from hashlib import sha256

import pytest

from stt_proto import Endpoint
from stt_proto.config import Limits
from stt_proto.errors import ArgumentError, AuthenticationError, TooManyStreamsError
from stt_proto.handshake import CookieJar, Dropped, Reason, Reply
from stt_proto.identity import shared_seed_bytes
from stt_proto.packet import run_end
from stt_proto.streams.hub import Hub
from stt_proto.streams.send import SendStream
from stt_proto.testing import Conditions, SeededEntropy, World
from stt_proto.types import NetworkPath, SessionState
from stt_proto.wire import MessageType, Piece, decode_datagram_untrusted
from stt_proto.wire.header import FORM_BIT, HANDSHAKE_FORM, PACKET_FORM
from tests.proto import handshake_world
from tests.proto.worlds import Mover, assert_empty, back, filler, sealed, session_pair
from tests.worlds import bounds


def test_packet_behind_a_handshake_datagram_in_one_run() -> None:
    """P-14, C-1: a packet to a session's own ID is never answered by the reset that would end it.

    A system that coalesces hands over datagrams of one size and address as one run. A run was routed by its first
    datagram; behind one with the form of a handshake, in which the check stands where a packet has its ID, a packet was
    taken for nobody's. Whoever could watch could so make either side reset the other.
    """
    pair = session_pair()
    (packet,) = sealed(pair.session, bytes(60))
    connection_id = packet[1:9]
    hidden = bytes((HANDSHAKE_FORM | MessageType.HELLO,)) + connection_id + bytes(len(packet) - 9)
    run = hidden + packet
    assert run_end(run, 0, len(run), len(packet)) == len(run)
    before = pair.peer.stats().packets_received
    pair.server.endpoint.receive(run, back(pair.session.path), pair.now, len(packet))
    assert pair.peer.stats().packets_received == before + 1
    assert pair.server.endpoint.counters.resets_sent == 0

    junk = bytes((PACKET_FORM,)) + connection_id + bytes(len(packet) - 9)
    pair.server.endpoint.receive(hidden + junk, back(pair.session.path), pair.now, len(packet))
    pair.settle()
    assert pair.server.endpoint.counters.resets_sent == 0
    assert pair.session.state is pair.peer.state is SessionState.ESTABLISHED


def test_forged_piece_of_a_challenge() -> None:
    """H-14, W-3: one forged piece spoils one repetition of CHALLENGE, not the dial.

    It stayed in its group, and since every repetition has the same bytes and so the same group, it kept out the genuine
    pieces until the dial timed out. Whoever could watch could so end any dial with one datagram.
    """
    world = World(1)
    client, server = world.node("client"), world.node("server")
    forged: list[Piece] = []

    def forge(datagram: bytes, path: object) -> bytes:
        if datagram[0] & FORM_BIT and not forged:
            piece = decode_datagram_untrusted(datagram)
            if isinstance(piece, Piece):
                forged.append(piece)
                data = bytes(len(piece.data) // 2)
                client.endpoint.receive(encode_piece(piece._replace(offset=1, data=data)), session.path, world.now)
        return datagram

    world.taps.append(forge)
    session = client.connect(server)
    world.run_until(session.is_active, timeout=5.0)
    assert forged


def encode_piece(piece: Piece) -> bytes:
    """A single piece of a message, with its check."""
    first = bytes((piece.type.first_byte[0] | 0x20,))
    lengths = piece.total.to_bytes(2) + piece.offset.to_bytes(2)
    rest = b"".join((piece.dcid, piece.scid, piece.hash8, lengths, piece.data))
    return first + sha256(b"stt1 check" + first + rest).digest()[:8] + rest


def test_dial_that_ends_behind_a_full_carrier() -> None:
    """K-6, section 13: what a dial that is over had left to send does not keep its endpoint awake for ever.

    Its last datagram could not leave, since its carrier took nothing, and so it was never over; its deadline lay in the
    past all the while, so that the host did nothing any more but call `tick`.
    """
    world = World(1)
    client, server = world.node("client"), world.node("server", shared_seed=b"another seed")
    session = client.connect(server)
    world.run(0.1)
    client.endpoint.path_writable(session.path, False, world.now)
    world.run(60.0)
    assert isinstance(session.close_error, AuthenticationError)
    assert client.endpoint.next_deadline() is None
    client.endpoint.path_writable(session.path, True, world.now)
    world.run(1.0)
    assert_empty(client)


# -- what a reading with an attacker's eyes has found --------------------------------------------------------------


def test_cookie_that_comes_back_to_life() -> None:
    """H-22: a cookie is good in its tick and the next, and never again.

    One byte tells the tick, and only that byte was hashed: each cookie was good again every 2,560 s, for as long as the
    endpoint lived. Who had once received at an address could show it ever after.
    """
    jar = CookieJar(bytes(32))
    path = NetworkPath("udp", ("192.0.2.1", 4433), ("198.51.100.7", 50000))
    cookie = jar.make(path, bytes(16), 40.0)
    assert jar.check(cookie, path, bytes(16), 59.0)
    for rounds in (1, 2, 1000):
        assert not jar.check(cookie, path, bytes(16), 40.0 + rounds * 256 * 10.0)
    before_zero = jar.make(path, bytes(16), -5.0)  # a clock may begin anywhere
    assert jar.check(before_zero, path, bytes(16), 5.0)


def test_idle_peer_of_a_restarted_server() -> None:
    """P-14, K-4: who has nothing to say is told of a restart too, as soon as it asks for a sign of life.

    Its KEEP_ALIVE and its probes had 38 and 30 bytes, and what has less than 43 is not answered with a reset. It went
    on asking for the whole keep-alive timeout.
    """
    world = World(1)
    client, server = world.node("client"), world.node("server", reset_key=bytes(range(32)))
    session = client.connect(server)
    world.run_until(session.is_active)
    world.run(2.0)
    server.endpoint = Endpoint(server.config, now=world.now, unix_time=world.now, entropy=SeededEntropy("restarted"))
    world.run(server.config.keep_alive_interval)
    assert session.is_closed
    assert str(session.close_error) == "the peer has forgotten the session"


@pytest.mark.parametrize("frame", [b"", b"x"])
def test_no_packet_is_too_small_for_a_reset(frame: bytes) -> None:
    """P-14: whatever is to be acknowledged has at least 43 bytes, a stream's single byte as well as its end."""
    pair = session_pair()
    sizes: list[int] = []
    stream = pair.session.open_stream()
    stream.write(b"opened", pair.now)
    pair.settle()

    def measure(datagram: bytes, path: object) -> bytes:
        sizes.append(len(datagram))
        return datagram

    pair.world.taps.append(measure)
    if frame:
        stream.write(frame, pair.now)
    else:
        stream.finish(pair.now)
    pair.client.pump()
    assert sizes == [43]


def test_keys_are_in_one_place() -> None:
    """PROTOCOL: keys leave the process in no way, and there is one counter over the nonces of each.

    What seals and opens packets could be copied with `copy`, and the reset key be pickled.
    """
    engines = session_pair().session._engines
    assert engines is not None
    context = session_pair().session._context
    for secret in (engines.sealer, engines.sealer.keys, context.reset_tokens, context.expected_resets):
        for leak in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="holds a secret"):
                leak(secret)


def test_refused_seed_is_not_kept_by_the_error() -> None:
    """I-4, section 2: an error about the shared seed holds nothing of it, nor does the error behind it."""
    with pytest.raises(ArgumentError) as caught:
        shared_seed_bytes("correct horse \ud800 battery staple")
    error: BaseException | None = caught.value
    while error is not None:
        assert "horse" not in repr(error)
        error = error.__context__


def test_run_of_thousands_of_datagrams() -> None:
    """C-1: a run costs what it holds, however its connection IDs alternate.

    Where they did, each step looked at all that was left: 5,000 datagrams of 13 bytes, from anybody, took 1.4 s.
    """
    size, count = 13, 5000
    ids = (b"\x00" * 8, b"\xff" * 8)
    run = b"".join(bytes((PACKET_FORM,)) + ids[index & 1] + bytes(4) for index in range(count))
    same = (bytes((PACKET_FORM,)) + ids[0] + bytes(4)) * count
    assert run_end(run, 0, len(run), size) == size
    assert run_end(same, 0, len(same), size) == 64 * size
    assert run_end(same[: 64 * size + 5], 0, 64 * size + 5, size) == 64 * size  # what is left is too short for an ID
    assert run_end(same[: 64 * size + 12], 0, 64 * size + 12, size) == 64 * size + 12
    world = World(1)
    server = world.node("server")
    server.endpoint.receive(run, NetworkPath("udp", server.address, ("client", 1)), world.now, size)
    assert server.endpoint.counters.misdirected == count


def test_a_dial_on_a_link_that_has_recovered() -> None:
    """R-6: lost AUTH_PROOFs look like a long round trip to the responder; FINAL is repeated soon all the same."""
    world = World(7)
    client, server = world.node("client"), world.node("server")
    finals = 0

    def tap(datagram: bytes, path: NetworkPath) -> bytes | None:
        nonlocal finals
        proof = datagram[0] & 0xC0 == 0xC0 and datagram[0] & 0x0F == 3
        if proof and world.now < 3.0:
            return None
        if path.local == server.address and not datagram[0] & 0x80:
            finals += 1
            return None if finals == 1 else datagram
        return datagram

    world.taps.append(tap)
    session = client.connect(server)
    world.run_until(session.is_active, timeout=9.0)


@pytest.mark.parametrize("field", ["e", "share", "parameters"])
@pytest.mark.parametrize("reliable", [False, True])
def test_hellos_that_are_found_bad_late(field: str, reliable: bool) -> None:
    """H-4, H-19, H-21, H-23: a HELLO that is found to be bad only when keys are computed for it is counted.

    Such HELLOs cost as much as others, left no half-open handshake behind, and so were counted nowhere: no flood of
    them ever made the responder ask for a cookie.
    """
    world = handshake_world.World(reliable=reliable)
    outcomes = []
    for number in range(100):
        hello = handshake_world.spoofed_hello(world.entropy, **{field: handshake_world.SMALL_ORDER[1]})
        outcomes.append(world.hear(hello, number / 1000))
    answers = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
    reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Dropped)]
    if reliable:
        assert reasons == [Reason.MALFORMED] * 64 + [Reason.GUESSING] * 36
    else:
        assert reasons == [Reason.MALFORMED] * 8
        assert len(answers) == 92  # RETRY

    many = handshake_world.World(limits=Limits(unfinished_without_cookie=20))
    for number in range(21):
        hello = handshake_world.spoofed_hello(many.entropy, **{field: handshake_world.SMALL_ORDER[1]})
        outcome = many.hear(hello, 0.0, handshake_world.path_of((f"192.0.2.{number}", 1)))
        assert isinstance(outcome, Dropped if number < 20 else Reply)


# -- found by random worlds ----------------------------------------------------------------------------------------


def test_a_leap_of_the_clock_is_no_round_trip() -> None:
    """R-3: what took longer than 10 s says nothing of the path.

    A clock leapt by a day while packets were in flight, and their round trip was taken for a day. The pacer then gave
    out a few bytes a second: a session that lived, and would have delivered its data within weeks.
    """
    pair = session_pair(conditions=Conditions(delay=0.02))
    mover = Mover(pair.server)
    Mover(pair.client).send(pair.session.open_stream(), pair.session, filler(30_000))
    pair.client.jump_clock(86_400.0)
    pair.world.run_until(lambda: mover.ended, timeout=2.0)
    rtt = pair.session.stats().rtt
    assert rtt is not None
    assert rtt < 0.1


def test_a_handshake_through_a_leap_of_the_clock() -> None:
    """R-3, R-6: nor does the handshake take a leap for the round trip with which the session begins."""
    world = World(1, Conditions(delay=0.02))
    client, server = world.node("client", handshake_timeout=600.0), world.node("server")
    session = client.connect(server)
    world.run(0.03)  # CHALLENGE is on its way
    client._skew += 60.0  # a host that takes in what waits for it before it looks at its timers
    world.run_until(lambda: session.session_id, timeout=1.0)
    engines = bounds.engines_of(session)
    assert engines is not None
    assert engines.path.recovery.rtt.smoothed < 1.0
    world.run_until(session.is_active, timeout=2.0)


def test_data_for_a_session_that_is_over_is_not_acknowledged() -> None:
    """K-3: what is thrown away is not acknowledged.

    A session that was over acknowledged each packet that it answered. So the peer learned that its stream had arrived
    to the last byte, just before it learned that the session had been aborted before that.
    """
    pair = session_pair(conditions=Conditions(delay=0.02))
    (back_link,) = (link for (source, _), link in pair.world.links.items() if source == pair.server.address)
    back_link.outage(pair.now, 0.01)  # the SESSION_CLOSE of the abort is lost
    pair.peer.abort(pair.now)
    mover = Mover(pair.client)
    mover.send(pair.session.open_stream(), pair.session, b"too late")
    pair.settle()
    assert pair.session.is_closed
    assert not mover.finished


def test_data_for_a_session_that_was_refused_is_not_acknowledged() -> None:
    """H-29, K-3: nobody took the session, so nobody took its data."""
    world = World(1, Conditions(delay=0.02))
    client = world.node("client")
    server = world.node("server", admit=lambda peer, path, now: 0x0102)
    mover = Mover(client)
    session = client.connect(server)
    world.run_until(lambda: session.session_id)
    world.link_between(server.address, client.address).outage(world.now, 0.03)  # the SESSION_CLOSE is lost
    world.run(0.02)
    mover.send(session.open_stream(), session, b"early")
    world.run(1.0)
    assert session.is_closed
    assert not mover.finished


def test_a_refused_stream_is_reported_at_once() -> None:
    """S-12: the peer is told that its limit is in the way. The frame was ready, and nothing made the session send."""
    pair = session_pair(server={"max_concurrent_streams": 0})
    with pytest.raises(TooManyStreamsError):
        pair.session.open_stream()
    pair.settle()
    engines = bounds.engines_of(pair.session)
    assert engines is not None
    assert not engines.streams.has_pending


def test_the_end_of_a_stream_acknowledged_ahead_of_its_data() -> None:
    """R-9: an end without data leaves no empty interval among what was acknowledged ahead of a gap."""
    hub = Hub(deque(), 1000)
    hub.credit.raise_limit(1000)
    send = SendStream(0, hub, limit=1000, capacity=1000, max_frame_size=1000)
    send.write(b"data")
    send.write_frame([], [], 100, 100)
    send.finish()
    assert not send.on_acked(4, 4, True)
    assert not send._acked.bounds
    assert send.on_acked(0, 4, False)


def test_a_probe_whose_frames_mean_nothing_any_more() -> None:
    """R-5: a probe asks for an answer, whatever has become of what it was to repeat.

    The oldest packet in flight held a STOP_SENDING, and the stream had ended meanwhile. So each probe was found to be
    empty and was not sent; the packet stayed the oldest, and nothing behind it was ever sent again.
    """
    pair = session_pair(conditions=Conditions(delay=0.02))
    stream = pair.session.open_stream()
    stream.write(b"question", pair.now)
    pair.settle()
    (back_link,) = (link for (source, _), link in pair.world.links.items() if source == pair.server.address)
    back_link.outage(pair.now, 0.1)
    answering = pair.peer.stream(stream.stream_id)
    assert answering is not None
    answering.stop(7, pair.now)
    pair.server.pump()
    stream.finish(pair.now)
    pair.settle(0.05)
    answering.write(b"answer", pair.now)
    pair.settle(3.0)
    assert stream.read(100, pair.now) == b"answer"


def test_a_stream_of_short_frames_that_gathers_small_writes() -> None:
    """D1: two streams whose frames take a byte each waited for an acknowledgement after each byte."""
    pair = session_pair(conditions=Conditions(delay=0.02), server={"ack_delay": 0.5})
    streams = [pair.session.open_stream(max_frame_size=1, no_delay=False) for _ in range(2)]
    for stream in streams:
        stream.write(bytes(500), pair.now)
    pair.settle(1.0)
    for stream in streams:
        theirs = pair.peer.stream(stream.stream_id)
        assert theirs is not None
        assert len(theirs.read(1000, pair.now)) == 500


def test_a_host_that_asks_for_the_deadline_between_two_packets() -> None:
    """R-7: the pacer's word was not heard when the deadline had been asked for after the packet before."""
    pair = session_pair(conditions=Conditions(delay=0.02))
    stream = pair.session.open_stream()
    for _ in range(2):  # once for the window to open
        pair.settle(1.0)
        stream.write(bytes(400_000), pair.now)
    endpoint = pair.client.endpoint
    while endpoint.next_transmit(pair.now) is not None:
        endpoint.next_deadline()
    assert pair.session.deadline().reason == "pacing"
    assert endpoint.next_deadline() == pair.session.deadline()
