"""What a session has done, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from stt_proto.types import SessionState

if TYPE_CHECKING:
    from stt_proto.packet import PacketCounters
    from stt_proto.session.engines import Engines
    from stt_proto.session.facade import SessionFacade


@frozen(kw_only=True)
class SessionStats:
    """A snapshot; looking changes nothing.

    Attributes:
        session_id: 8 bytes, or `b""` before the handshake is through.
        peer_node_id: 32 bytes, or `b""`.
        state: where the session stands.
        created_at: wall clock, seconds since 1970.
        uptime: seconds since then.
        bytes_sent: bytes of datagrams handed to the carrier.
        bytes_received: bytes of datagrams that were taken in.
        packets_sent: packets sealed.
        packets_received: packets opened.
        datagrams_sent: datagrams handed to the carrier.
        stream_bytes_sent: stream bytes written by the application and accepted.
        stream_bytes_received: stream bytes read by the application.
        send_errors: datagrams that a limit refused before they were sent.
        receive_errors: datagrams that were dropped: damaged, replayed, forged, malformed.
        rtt: smoothed round trip in seconds, `None` before the first sample.
        min_rtt: the smallest, `None` before the first.
        packets_lost: packets declared lost.
        loss_rate: `packets_lost` by the packets whose fate is known, 0 to 1.
        congestion_window: bytes that may be in flight.
        bytes_in_flight: bytes that are.
        mtu: bytes of the largest datagram sent.
        mtu_search: how the search for a larger one stands: `"searching"`, `"complete"`; `"base"` after a black hole,
            `"error"` when not even what every path must carry arrives.
        mtu_black_holes: how often large datagrams vanished, so that smaller ones had to do.
        congestion_fault: what the application's own congestion controller did wrong, so that the default took its
            place; `None` if it did not.
        ecn: whether congestion may be marked on datagrams: `"untested"`, `"testing"`, `"unknown"`, `"capable"`; or
            `"failed"`.
    """

    session_id: bytes
    peer_node_id: bytes
    state: SessionState
    created_at: float
    uptime: float
    bytes_sent: int
    bytes_received: int
    packets_sent: int
    packets_received: int
    datagrams_sent: int
    stream_bytes_sent: int
    stream_bytes_received: int
    send_errors: int
    receive_errors: int
    rtt: float | None
    min_rtt: float | None
    packets_lost: int
    loss_rate: float
    congestion_window: int
    bytes_in_flight: int
    mtu: int
    mtu_search: str
    mtu_black_holes: int
    ecn: str
    congestion_fault: str | None


def snapshot(session: SessionFacade, engines: Engines | None, created: float, now: float) -> SessionStats:
    """Read everything off; before there are keys, off nothing."""
    if engines is None:
        return SessionStats(
            session_id=b"", peer_node_id=b"", state=session.state, created_at=session.created_at, uptime=now - created,
            bytes_sent=0, bytes_received=0, packets_sent=0, packets_received=0, datagrams_sent=0,
            stream_bytes_sent=0, stream_bytes_received=0, send_errors=0, receive_errors=0,
            rtt=None, min_rtt=None, packets_lost=0, loss_rate=0.0, congestion_window=0, bytes_in_flight=0,
            mtu=0, mtu_search="", mtu_black_holes=0, ecn="", congestion_fault=None,
        )  # fmt: skip
    path, counters, datagrams = engines.path, engines.counters, engines.datagrams
    recovery = path.recovery.stats()
    settled = recovery.packets_acked + recovery.packets_lost
    return SessionStats(
        session_id=session.session_id,
        peer_node_id=session.peer_node_id,
        state=session.state,
        created_at=session.created_at,
        uptime=now - created,
        bytes_sent=counters.bytes_sent,
        bytes_received=counters.bytes_received,
        packets_sent=counters.packets_sent,
        packets_received=counters.packets_received,
        datagrams_sent=counters.datagrams_sent,
        stream_bytes_sent=engines.streams.bytes_written,
        stream_bytes_received=engines.streams.bytes_read,
        send_errors=datagrams.dropped_sending + datagrams.dropped_too_large,
        receive_errors=_dropped(engines.receiver.counters)
        + datagrams.dropped_receiving
        + engines.control.frames.dropped,
        rtt=recovery.rtt_smoothed,
        min_rtt=recovery.rtt_minimum,
        packets_lost=recovery.packets_lost,
        loss_rate=recovery.packets_lost / settled if settled else 0.0,
        congestion_window=recovery.window,
        bytes_in_flight=recovery.bytes_in_flight,
        mtu=path.max_datagram,
        mtu_search=path.mtu.state.value,
        mtu_black_holes=path.mtu.black_holes,
        ecn=path.ecn.state.value,
        congestion_fault=recovery.congestion_fault,
    )


def _dropped(counters: PacketCounters) -> int:
    """Datagrams and trains that gave no packet."""
    return (
        counters.malformed
        + counters.unknown_epoch
        + counters.replayed
        + counters.forged
        + counters.trains_expired
        + counters.trains_evicted
        + counters.segments_refused
        + counters.segments_repeated
    )
