"""What has happened to others: one test for each class of incident, whoever it happened to.

Here stand those that take a peer with the keys; those that anybody can cause, and those of time, stand in
`test_incidents_outside.py`, legal frames without end in `test_incidents_frames.py`. Where a test of another room shows
it, it is not repeated, but named.

| incident | requirement | test |
|---|---|---|
| PATH_CHALLENGE floods: quic-go, quiche, quicly | F-5 | test_a_packet_full_of_path_challenges |
| ... whose answers pile up: aioquic | F-5 | test_path_challenges_whose_answers_are_not_acknowledged |
| connection IDs retired without end: quic-go, quiche | C-4 | test_connection_ids_retired_as_fast_as_they_come |
| ... and then missing where they are needed | C-2, C-4 | test_connection_ids_retired_and_then_needed |
| connection IDs announced without end: neqo, quinn | C-3, C-4 | test_connection_ids_announced_without_end |
| an endless loop over connection IDs: quiche | C-3 | test_connection_ids_with_the_largest_numbers |
| acknowledgement of what was never sent: quiche | F-2 | test_a_broken_rule |
| optimistic acknowledgement: quiche, picoquic | F-2, P-6 | test_acknowledging_what_is_on_its_way |
| thousands of ranges to acknowledge: aioquic | F-3 | test_thousands_of_ranges |
| thousands of ranges acknowledged | F-3 | test_an_ack_costs_what_it_settles |
| numbers that overflow, if only in a log: ngtcp2 | F-1, R-3 | test_numbers_at_their_limits |
| tiny gapped fragments: quinn, picoquic, nginx | S-8 | test_tiny_gapped_fragments_of_one_stream |
| ... on all streams at once: OpenSSL | S-8 | test_tiny_gapped_fragments_of_all_streams |
| a buffer as large as a gap: aioquic | S-8 | test_one_byte_at_the_far_end |
| windows that grow with what was seen: aioquic, qh3 | S-3, S-6 | test_sparse_offsets_raise_no_window |
| rapid reset: h2 | S-3 | test_resets_come_no_faster_than_the_application_looks |
| a queue of forced resets, repeated stops: h2, aioquic | S-9 | test_stops_of_every_stream |
| streams that nobody accepts: go-libp2p | S-3, S-4 | test_streams_that_nobody_is_told_of |
| empty frames: h2 | F-5, S-11 | test_tiny_datagram_frames, test_floods |
| data on closed streams eats the credit: h2 | S-6, S-9 | test_data_on_closed_streams_starves_nobody |
| users who never read: h2, aiohttp, websockets | S-6, S-7 | test_a_user_who_never_reads |
| streams that nobody reads hold the credit of all | S-7, S-13 | test_one_stream_that_nobody_reads_stalls_no_other |
| ... and the last places of streams are never told of | S-3, S-12 | test_an_end_is_told_to_who_waits_for_it |
| one stream that lives long ends the supply of others | S-3 | test_a_stream_that_lives_long_ends_no_supply |
| frames that were sent only once: qh3 | S-9, R-9 | test_what_is_lost_of_the_last_words_of_a_stream |
| bookkeeping of what has ended: h2, aioquic | S-3 | test_ended_streams_cost_nothing |
| floods not yet invented: ngtcp2's glitches | F-5 | test_the_bucket, test_floods |
| tiny updates, answers, acknowledgements without end: HTTP/2 | F-5 | test_tiny_frames_without_end |
| ... in an order in which the network could bring them | F-5 | test_acknowledgements_in_the_wrong_order |
| ... and honest use that is taken for them | F-5 | test_honest_use_is_not_suspicious |
| a peer that never acknowledges: msquic | R-5 | test_a_peer_that_never_acknowledges |
| zero-length datagrams: curl | G-3 | test_zero_length_datagrams |
| reply loops, negotiations: aioquic | H-28 | test_nothing_that_answers_is_answered |
| reply loops, resets | P-14 | test_two_that_have_forgotten_each_other |
| reply loops, last words | K-3 | test_two_that_close |
| reply loops, acknowledgements | R-1 | test_acknowledgements_of_acknowledgements |
| a peer that wants signs of life too often | K-4 | test_a_peer_with_the_shortest_patience |
| handshake bytes without end: aioquic, quiche, s2n | W-3, H-30 | test_handshake_bytes_without_end |
| junk kept before there are keys: LSQUIC | H-26 | test_packets_without_end_before_the_keys |
| a bound on one way in, not on the other: undici | H-26 | test_packets_without_end_before_the_keys |
| a queue of newcomers: OpenSSL | H-21 | test_half_open_handshakes_with_true_addresses |
| sessions that nobody accepts | H-28 | test_the_session_limit, test_sessions_that_nobody_accepts_are_forgotten |
| spoofed replies end a handshake: tailscale-rs | H-12, H-14 | test_replies_forged_blindly |
| ... of somebody who sees everything | H-12, H-14 | test_a_watcher_does_not_end_a_dial |
| wrong key, wrong identity: libp2p, pyzmq | H-13, H-15 | test_a_wrong_seed_and_a_wrong_peer |
| cookies that never expire: aioquic | H-22 | test_good_in_its_tick_and_the_next |
| amplification | H-20, H-28 | test_amplification, test_amplification_limit |
| segments of packets without end: quicly | P-9 | test_segments_without_end |
| forged segments inside a train | P-9, P-10, P-16 | test_a_forged_segment_in_every_train |
| segments of nobody in place of all trains | P-9, P-10, P-16 | test_segments_that_push_out_every_train |
| a failed decryption changes state: snow | P-8, H-25 | test_what_does_not_open_changes_nothing |
| injected resets: quicly | P-14 | test_a_reset_with_another_key_means_nothing |
| moved by whoever repeats a packet: boringtun | C-1 | test_packets_from_elsewhere |
| panics on parameters, damage: quinn, qh3 | G-2 | test_mutated_datagrams, test_arbitrary_frames_under_valid_keys |
| decoders that do not move on: picoquic | F-1 | test_padding_costs_the_same_however_long |
| parameters given twice: qh3, msquic | X-1 | test_bad_parameters |
| lost probes of the MTU taken for congestion: qh3 | R-7 | test_the_loss_of_an_mtu_probe_is_no_congestion |
| clocks that go back, or leap a day | R-10 | test_a_clock_that_jumps, test_a_clock_that_jumps_in_a_handshake |
| timers that fire late: websockets | R-10 | test_timers_that_fire_late |
| ... always | R-10 | test_a_host_that_ticks_now_and_then |
| a bad network that is taken for a dead peer | K-4, K-5 | test_an_idle_session_through_heavy_damage |
| an answer that was lost, and a question repeated in vain | K-7 | test_last_words_that_were_the_first_ones |
| news of what nobody was told of | K-8 | test_established_before_anything_else |
| timers handled without end: hypercorn | R-5 | test_ticks_by_the_thousand |
| a back-off without end: hypercorn | R-5 | test_a_long_outage_is_over_soon_after_it_ends |
| an index that outlives its session: quinn | K-6 | test_a_world_of_incidents_leaves_nothing |
| an exception in one session's handler: hypercorn | G-2 | test_a_handler_that_raises_ends_its_session_and_no_other |
| an exception in what decides on admission | H-29 | test_admit_that_fails |
| frames of unknown kinds: quinn | F-1 | test_unknown_types |
| final sizes that contradict each other: qh3 | S-5 | test_nothing_contradicts_the_end |
| points of small order, taken for a bug: qh3 | H-4 | test_small_order_points_are_bad_messages |
| connection IDs that were given up come back | C-4 | test_an_id_that_we_gave_up_does_not_come_back |
| limits for each peer and none for all: libp2p | P-9 | test_the_endpoint_has_a_bound_too |
| ... over carriers that are connections | | test_strangers_are_bounded |
| keys that are replaced at the wrong time: boringtun | V-2 | test_rotations_that_cross, test_two_nodes |
| early data twice | H-39, H-40 | test_replayed, test_a_session_that_is_over_begins_no_other |
| logs that grow for ever, or fail: ngtcp2 | | test_a_file_is_bounded, test_a_session_outlives_a_full_disk |
| headers without end: tungstenite | | test_headers_without_end |
| decompression bombs: websockets | | test_compression_is_not_accepted |
| headers within headers: h2, h11 | | test_no_target |
| a carrier that ends in the handshake, for ever: rustls | | test_a_server_that_closes_at_once |

HPACK and chunked bodies have no counterpart here.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from attrs import evolve

from stt_proto import Session
from stt_proto.config import Limits
from stt_proto.errors import StreamClosedError
from stt_proto.events import DatagramReceived, Event, StreamOpened, StreamReadable, StreamReset
from stt_proto.testing import Conditions, World, tables
from stt_proto.wire import (
    Ack,
    Datagram,
    MaxData,
    MaxStreamData,
    MaxStreams,
    NewConnectionId,
    PathChallenge,
    PathResponse,
    ResetStream,
    RetireConnectionId,
    StopSending,
    Stream,
    StreamDataBlocked,
)
from tests.proto.insider import Insider, memory
from tests.proto.worlds import filler, sealed, session_pair

INVALID, RESOURCES, TOO_MANY_STREAMS = 0x0401, 0x0603, 0x0302
WINDOW = 1 << 20
LARGEST = (1 << 62) - 1

# -- path challenges -----------------------------------------------------------------------------------------------


def test_a_packet_full_of_path_challenges() -> None:
    """CVE-2023-49295, -6193, -50247; RFC erratum 8875. F-5: one answer waits at a time; 1,000 too many are the end."""
    peer = Insider()
    for packet in range(1, 8):
        peer.send(*[PathChallenge(number.to_bytes(8)) for number in range(129)])
        assert peer.all(PathResponse) == [PathResponse((128).to_bytes(8))] * packet
    assert peer.answered <= peer.sent
    peer.send(*[PathChallenge(number.to_bytes(8)) for number in range(129)])
    assert peer.code == RESOURCES


def test_path_challenges_whose_answers_are_not_acknowledged() -> None:
    """The same, one a packet: no more answers than questions, small ones, none of which waits; and the flood ends."""
    peer = Insider()
    recovery = peer.engines.path.recovery
    for number in range(2000):
        peer.send(PathChallenge(number.to_bytes(8)))
        assert recovery.bytes_in_flight <= recovery.controller.window
        assert len(peer.engines.control.ready) <= 1
        if peer.code is not None:
            break
    assert peer.code == RESOURCES
    assert len(peer.all(PathResponse)) <= 1000
    assert peer.answered <= 2 * peer.sent


# -- connection IDs ------------------------------------------------------------------------------------------------


def test_connection_ids_retired_as_fast_as_they_come() -> None:
    """CVE-2024-22189, -1410. C-4: at most 256 IDs in 10 s, of which 64 old ones are routed, and no table has more."""
    peer = Insider()
    table = peer.pair.server.endpoint._context.connection_ids
    most = retired = 0
    while peer.code is None:
        assert retired <= 256
        peer.send(RetireConnectionId(retired))
        peer.acknowledge()
        most = max(most, len(table))
        retired += 1
    assert peer.code == RESOURCES
    assert retired >= 200
    assert most <= 2 + 64
    assert len(peer.engines.local_ids._retired) <= 64


@pytest.mark.parametrize("what", ["the path is lost", "a path is added"])
def test_connection_ids_retired_and_then_needed(what: str) -> None:
    """C-2, C-4: a peer that has used up what it may ask for gets none for another path, and that is nobody's mistake.

    It was raised by `Endpoint.tick`, or `add_path`, as if whoever called had made one.
    """
    world = World(1)
    victim = world.node("victim", keep_alive_interval=1.0, keep_alive_timeout=5.0)
    flooder = world.node("flooder")
    session = victim.connect(flooder)
    world.run_until(session.is_active)
    world.run(0.5)
    ids = session._engines.local_ids  # type: ignore[union-attr]
    numbers = range(256 - len(ids._issued_at))
    for datagram in sealed(flooder.sessions[0], *map(RetireConnectionId, numbers)):
        victim.endpoint.receive(datagram, session.path, world.now)
    assert len(ids._issued_at) == 256
    if what == "a path is added":
        session.add_path(evolve(session.path, local=("victim", 9)), world.now)
    else:
        world.outage(victim, flooder, world.now, 9.0)
        world.run(8.0)
        assert session.is_detached
    assert (len(ids.live), ids._limit) == (2, 4)


def test_connection_ids_announced_without_end() -> None:
    """The other way round: what a peer announces and has retired leaves nothing behind, as long as it goes on."""
    peer = Insider()
    endpoint, remote = peer.pair.server.endpoint, peer.engines.remote_ids
    for number in range(2, 3000):
        peer.send(NewConnectionId(number, number, number.to_bytes(8), filler(16, number)))
        peer.acknowledge()
    assert peer.code is None
    assert tables(endpoint)["reset tokens"] == 1
    assert (len(remote._live), len(remote._retired)) == (1, 0)
    assert len(remote._retiring) <= 64
    assert len({frame.number for frame in peer.all(RetireConnectionId)}) == 3000 - 1


def test_connection_ids_with_the_largest_numbers() -> None:
    """CVE-2025-7054 [an endless loop]. C-3: a number is compared, and never counted up to."""
    peer = Insider()
    peer.send(NewConnectionId(LARGEST, LARGEST, b"far away", filler(16)))
    peer.send(NewConnectionId(LARGEST - 1, 0, b"far, too", filler(16, 1)))
    assert {frame.number for frame in peer.all(RetireConnectionId)} == {0, 1, LARGEST - 1}
    assert peer.code is None
    peer.send(RetireConnectionId(LARGEST))
    assert peer.code == INVALID


# -- acknowledgement -----------------------------------------------------------------------------------------------


def test_acknowledging_what_is_on_its_way() -> None:
    """CVE-2025-4820, -4821. F-2, P-6: who acknowledges everything, received or not, falls into a number left out."""
    peer = Insider(stream_send_buffer=1 << 24)
    stream = peer.victim.open_stream()
    peer.send(MaxData(LARGEST), MaxStreamData(1, LARGEST))
    sent = peer.engines.counters
    before = sent.packets_sent
    while peer.code is None:
        stream.write(bytes(1 << 16), peer.pair.now)
        peer.pair.server.pump()
        peer.pair.world.run(0.002)
        largest = peer.own.receiver.window.largest
        if peer.code is None:
            peer.send(Ack(largest, 0, 0, ((0, largest),), None))
        assert 0 < sent.packets_sent - before <= 5001
    assert peer.code == INVALID


def test_thousands_of_ranges() -> None:
    """aioquic 549 [its ACK no longer fitted]. F-3: whoever skips every second number gets 32 ranges, the newest."""
    peer = Insider()
    acks, skip = peer.engines.acks, peer.own.numbers.next
    for number in range(3000):
        skip()
        peer.send(Stream(0, number, b"x", False))
        assert len(acks._older) <= 31
    ranges = [frame.ranges for frame in peer.all(Ack)]
    assert len(ranges) == 3000
    assert max(map(len, ranges)) == 32
    assert ranges[-1][0] == (peer.own.numbers.next_number - 1,) * 2
    assert max(map(len, peer.answers)) <= 200


def test_numbers_at_their_limits() -> None:
    """CVE-2026-40170 [overflow while logging]. F-1, R-3: the largest number counts for what it is, or not at all."""
    peer = Insider()
    stream = peer.victim.open_stream()
    stream.write(filler(1000), peer.pair.now)
    peer.pair.server.pump()
    peer.pair.world.run(0.01)
    largest = peer.own.receiver.window.largest
    peer.send(Ack(largest, LARGEST, LARGEST, ((0, largest),), (LARGEST, LARGEST, LARGEST)))
    peer.send(MaxData(LARGEST), MaxStreamData(1, LARGEST), MaxStreams(True, 1 << 60), MaxStreams(False, 1 << 60))
    assert peer.code is None
    stats = peer.victim.stats()
    assert 0.01 <= (stats.rtt or 0.0) < 1.0
    assert repr(stats)
    assert repr(peer.engines.path.recovery.stats())
    assert stream.acked_offset == 1000
    peer.victim.open_stream(stream_id=(1 << 62) - 3).write(b"the last", peer.pair.now)
    peer.pair.server.pump()
    assert peer.all(Stream)[-1] == Stream((1 << 62) - 3, 0, b"the last", False)


# -- pieces of streams ---------------------------------------------------------------------------------------------


def fragments(stream_id: int, count: int) -> list[bytes]:
    """One byte in two."""
    return [Stream(stream_id, 2 * number + 1, b"x", False).encode() for number in range(count)]


def test_tiny_gapped_fragments_of_one_stream() -> None:
    """RUSTSEC-2026-0185, CVE-2026-25800 [1,600 bytes for one]. S-8: 1,024 pieces; the next is the end."""
    peer = Insider()
    frames = fragments(0, 1025)
    packets = [peer.pack(*frames[start : start + 128]) for start in range(0, 1024, 128)]
    with memory() as taken:
        for packet in packets:
            peer.deliver(packet)
        assert taken() < 300 * 1024
    assert peer.code is None
    peer.send(frames[1024])
    assert peer.code == RESOURCES


def test_tiny_gapped_fragments_of_all_streams() -> None:
    """The same on 512 streams at once. S-8: 16,384 pieces in all, so that they cost less than 5 MB."""
    peer = Insider()
    streams = [index << 2 | kind << 1 for kind in (0, 1) for index in range(256)]
    frames = [frame for pieces in zip(*(fragments(each, 33) for each in streams), strict=True) for frame in pieces]
    packets = [peer.pack(*frames[start : start + 128]) for start in range(0, len(frames), 128)]
    held = peer.engines.streams._hub
    with memory() as taken:
        for packet in packets:
            if peer.code is not None:
                break
            used, pieces = taken(), held.pieces
            peer.deliver(packet)
    assert peer.code == RESOURCES
    assert pieces == 16_384
    assert used < 5_000_000


def test_one_byte_at_the_far_end() -> None:
    """aioquic `handle_frame` [a buffer as large as the gap]. S-8: what was not received takes no room."""
    peer = Insider()
    packet = peer.pack(Stream(0, WINDOW - 1, b"x", True))
    peer.send(Stream(4, 0, b"", True))
    with memory() as taken:
        peer.deliver(packet)
        assert taken() < 100_000
    assert peer.code is None


def test_sparse_offsets_raise_no_window() -> None:
    """aioquic 589 [windows that double with the highest offset seen]. S-3, S-6: only what is consumed gives credit."""
    for frames in ([Stream(0, WINDOW - 1, b"x", False)], [Stream(4 * index, 5, b"x", False) for index in range(256)]):
        peer = Insider()
        for start in range(0, len(frames), 100):
            peer.send(*frames[start : start + 100])
        peer.pair.world.run(5.0)
        assert [*peer.all(MaxData), *peer.all(MaxStreamData), *peer.all(MaxStreams)] == []
        assert peer.code is None


# -- resets, stops, empty frames -----------------------------------------------------------------------------------


def test_resets_come_no_faster_than_the_application_looks() -> None:
    """CVE-2023-44487, RUSTSEC-2024-0003 [rapid reset]. S-3: a stream that was reset counts until the user knows."""
    peer = Insider()
    for number in range(256):
        peer.send(ResetStream(4 * number + 2, 7, 0))
    peer.acknowledge()
    assert len(peer.engines.streams) == 256
    assert peer.all(MaxStreams) == []
    assert len(peer.pair.server.events(StreamOpened)) == len(peer.pair.server.events(StreamReset)) == 256
    for number in range(40):
        stream = peer.victim.stream(4 * number + 2)
        assert stream is not None
        with pytest.raises(StreamClosedError):
            stream.read(1, peer.pair.now)
    peer.pair.server.pump()
    assert peer.all(MaxStreams)[-1] == MaxStreams(False, 256 + 40)
    peer.send(ResetStream(4 * (256 + 40) + 2, 7, 0))
    assert peer.code == TOO_MANY_STREAMS


def test_stops_of_every_stream() -> None:
    """RUSTSEC-2024-0332 [a queue of forced resets]. S-9: one RESET_STREAM a stream, as long as nobody acknowledges."""
    peer = Insider()
    for number in range(256):
        peer.send(Stream(4 * number, 0, b"x", False), StopSending(4 * number, 3))
    queued = len(peer.engines.streams.control_ready)
    assert len(peer.all(ResetStream)) + queued == 256
    for number in range(256):
        peer.send(StopSending(4 * number, 4))
    assert len(peer.engines.streams.control_ready) <= queued
    assert {frame.code for frame in peer.all(ResetStream)} == {3}


def test_streams_that_nobody_is_told_of() -> None:
    """S-3, S-4: frames that come before the first byte make a stream that counts, though no application knows it."""
    peer = Insider()
    for first in range(0, 1024, 16):
        peer.send(StreamDataBlocked(first, 0), MaxStreamData(first + 4, 5))
        peer.send(StopSending(first + 8, 1), Stream(first + 12, 5, b"x", False))
    assert len(peer.engines.streams) == 256
    assert peer.pair.server.events(StreamOpened) == []
    assert peer.code is None
    peer.send(StreamDataBlocked(4 * 256, 0))
    assert peer.code == TOO_MANY_STREAMS


@pytest.mark.parametrize("size", [0, 1])
def test_tiny_datagram_frames(size: int) -> None:
    """RUSTSEC-2026-0258 [empty frames]. S-11: what has no bytes is bounded by count: 256 are kept, one is told of."""
    peer = Insider()
    packets = [peer.pack(*[Datagram(bytes(size))] * 300) for _ in range(20)]
    with memory() as taken:
        for packet in packets:
            peer.deliver(packet)
        assert taken() < 100_000
    kept = 0
    while peer.victim.receive_datagram() is not None:
        kept += 1
    assert kept == 256
    assert len(peer.pair.server.events(DatagramReceived)) == 1
    assert peer.victim.stats().receive_errors == 20 * 300 - 256


# -- credit --------------------------------------------------------------------------------------------------------


def test_data_on_closed_streams_starves_nobody() -> None:
    """h2 1210 [one stream that was closed ate the connection's credit]. S-6, S-9: what is thrown away gives it back."""
    window = 1 << 16
    peer = Insider(stream_receive_window=window, session_receive_window=window)
    for number in range(40):
        stopped, over = 4 * number + 2, 4 * (number + 40) + 2
        peer.send(Stream(stopped, 0, filler(20_000, number), False))
        stream = peer.victim.stream(stopped)
        assert stream is not None
        stream.stop(1, peer.pair.now)
        peer.send(Stream(stopped, 20_000, filler(20_000, number), False))  # it goes on all the same
        peer.send(ResetStream(stopped, 0, 50_000))
        peer.send(Stream(over, 0, b"short", True))
        short = peer.victim.stream(over)
        assert short is not None
        assert (short.read(100, peer.pair.now), short.at_eof) == (b"short", True)
        for _ in range(3):
            peer.send(Stream(over, 0, filler(30_000, number), False))
        assert peer.code is None
        peer.acknowledge()
    peer.send(Stream(0, 0, filler(30_000), True))
    healthy = peer.victim.stream(0)
    assert healthy is not None
    assert healthy.read(1 << 20, peer.pair.now) == filler(30_000)
    limits = [frame.value for frame in peer.all(MaxData)]
    assert limits[-1] > 40 * 50_000
    assert peer.all(MaxStreamData) == []


def test_a_user_who_never_reads() -> None:
    """h2 976; aiohttp 1845. S-6, S-7, K-5: memory stays within the windows, the session lives, others go on."""
    small = {"stream_receive_window": 1 << 16, "session_receive_window": 1 << 18}
    pair = session_pair(1, Conditions(delay=0.001), server=small)
    forgotten = pair.session.open_stream()
    quick = pair.session.open_stream()
    hashed = hashlib.sha256()

    def on_event(session: Session | None, event: Event) -> None:
        if session is pair.peer and isinstance(event, StreamReadable) and event.stream_id == quick.stream_id:
            stream = session.stream(event.stream_id)
            assert stream is not None
            while data := stream.read(65_536, pair.now):
                hashed.update(data)

    pair.server.on_event = on_event
    whole, sent = filler(2_000_000), 0
    left = filler(1_000_000, "forgotten")
    left = left[forgotten.write(left, pair.now) :]
    with memory() as taken:
        for _ in range(200):
            sent += quick.write(whole[sent : sent + 100_000], pair.now)
            pair.settle(0.05)
        pair.settle(100.0)
        assert sent == len(whole)
        assert taken() < 1_500_000  # of which 1 MB is what the client could not deliver
    assert hashed.digest() == hashlib.sha256(whole).digest()
    assert pair.peer.is_active()
    assert forgotten.acked_offset == 1 << 16
    late = pair.peer.stream(forgotten.stream_id)
    assert late is not None
    read = b""
    for _ in range(200):
        read += late.read(1 << 20, pair.now)
        pair.settle(0.05)
    assert read == filler(1_000_000, "forgotten")


@pytest.mark.parametrize("seed", range(5))
def test_what_is_lost_of_the_last_words_of_a_stream(seed: int) -> None:
    """qh3 1.8.1 [frames that were sent once]. S-9, R-9: RESET_STREAM and STOP_SENDING are sent until they arrive."""
    pair = session_pair(seed)
    for _ in range(10):
        pair.session.open_stream().write(b"begun", pair.now)
    pair.settle()
    there, back = (pair.world.links[one.address, two.address] for one, two in (
        (pair.client, pair.server), (pair.server, pair.client)
    ))  # fmt: skip
    there.up = back.up = False
    for number in range(10):
        ours, theirs = pair.session.stream(4 * number), pair.peer.stream(4 * number)
        assert ours is not None
        assert theirs is not None
        if number % 2:
            ours.reset(number, pair.now)
        else:
            theirs.stop(number, pair.now)
    pair.settle(0.5)
    assert there.traffic.lost
    assert back.traffic.lost
    assert pair.server.events(StreamReset) == pair.client.events(StreamReset) == []
    there.up = back.up = True
    pair.settle(5.0)
    assert {(event.stream_id, event.code) for event in pair.server.events(StreamReset)} == {
        (4 * number, number) for number in range(1, 10, 2)
    }
    assert {(event.stream_id, event.code, event.stopped) for event in pair.client.events(StreamReset)} == {
        (4 * number, number, True) for number in range(0, 10, 2)
    }


def test_limits_are_those_of_the_configuration() -> None:
    """Section 13: the bounds above are parameters."""
    peer = Insider(limits=Limits(stream_pieces=16, session_pieces=20))
    peer.send(*fragments(0, 16), *fragments(4, 4))
    assert peer.code is None
    peer.send(*fragments(8, 1))
    assert peer.code == RESOURCES


def test_the_tables_name_tests_that_exist() -> None:
    """The table above, and those of docs/testing.md."""
    root = Path(__file__).parents[2]
    tests = "".join(path.read_text(encoding="utf-8") for path in (root / "tests").rglob("test_*.py"))
    page = (root / "docs" / "testing.md").read_text(encoding="utf-8")
    assert __doc__ is not None
    for text, least in ((__doc__, 55), (page, 250)):
        named = re.findall(r"\btest_\w+\b(?!\.py)", text)
        assert len(named) >= least
        assert [name for name in named if f"def {name}(" not in tests] == []
