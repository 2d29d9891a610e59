"""What the core tells, in the words of qlog.

Two forms of qlog are written, and an event has a name in each: of draft-ietf-quic-qlog-quic-events-13, and of qlog 0.3,
which qvis reads. Its data is the same in both: where they call something by two names it stands there under both, since
readers pass over what they do not know. What QUIC does not have is called `stt:`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from stt_proto import CloseReason, NetworkPath, SessionState, TracedFrame
from stt_proto.events import (
    Event,
    HandshakeProgressed,
    KeepAliveMissed,
    KeysRotated,
    PathLost,
    PathValidated,
    ResumptionRefused,
    SessionClosed,
    SessionEstablished,
    SessionMoved,
    SessionReattached,
    SessionStateChanged,
)
from stt_proto.recovery import RecoveryStats
from stt_proto.wire import Parameters

Data = dict[str, Any]

DIGITS = 6
"""Decimals of times in milliseconds: nanoseconds."""


class Name(NamedTuple):
    """What an event is called, in the draft and in qlog 0.3."""

    draft: str
    old: str


CONNECTION_STARTED = Name("quic:connection_started", "connectivity:connection_started")
CONNECTION_CLOSED = Name("quic:connection_closed", "connectivity:connection_closed")
CONNECTION_STATE_UPDATED = Name("quic:connection_state_updated", "connectivity:connection_state_updated")
MTU_UPDATED = Name("quic:mtu_updated", "connectivity:mtu_updated")
PATH_UPDATED = Name("quic:tuple_assigned", "stt:path_updated")
PARAMETERS_SET = Name("quic:parameters_set", "transport:parameters_set")
PACKET_SENT = Name("quic:packet_sent", "transport:packet_sent")
PACKET_RECEIVED = Name("quic:packet_received", "transport:packet_received")
PACKET_DROPPED = Name("quic:packet_dropped", "transport:packet_dropped")
PACKET_LOST = Name("quic:packet_lost", "recovery:packet_lost")
METRICS_UPDATED = Name("quic:recovery_metrics_updated", "recovery:metrics_updated")
CONGESTION_STATE_UPDATED = Name("quic:congestion_state_updated", "recovery:congestion_state_updated")
ECN_STATE_UPDATED = Name("quic:ecn_state_updated", "recovery:ecn_state_updated")
KEY_UPDATED = Name("quic:key_updated", "security:key_updated")


def ours(name: str) -> Name:
    """An event that QUIC does not have."""
    return Name(f"stt:{name}", f"stt:{name}")


MESSAGE_SENT, MESSAGE_RECEIVED = ours("message_sent"), ours("message_received")
SESSION_OVER, TRUNCATED = ours("session_over"), ours("truncated")


def milliseconds(seconds: float) -> float:
    """A time as qlog has it."""
    return round(seconds * 1000, DIGITS)


# -- packets -------------------------------------------------------------------------------------------------------


def packet(
    number: int, size: int, datagrams: int, frames: Sequence[TracedFrame] | None = None, mtu_probe: bool = False
) -> Data:
    """A packet of an established session; `segments` are the datagrams of a train."""
    data: Data = {
        "header": {"packet_type": "1RTT", "packet_number": number},
        "raw": {"length": size},
        "segments": datagrams,
    }
    if frames is not None:
        data["frames"] = [frame_of(frame) for frame in frames]
    if mtu_probe:
        data["is_mtu_probe_packet"] = True
    return data


_DROPPED: Mapping[str, str] = MappingProxyType(
    {
        "malformed": "invalid",
        "unknown_epoch": "key_unavailable",
        "replayed": "duplicate",
        "forged": "decryption_failure",
        "segments_repeated": "duplicate",
        "segments_refused": "rejected",
        "trains_evicted": "rejected",
    }
)


def dropped(reason: str, count: int) -> Data:
    """Datagrams or trains that gave no packet."""
    return {
        "header": {"packet_type": "unknown"},
        "trigger": _DROPPED.get(reason, "general"),
        "details": {"reason": reason, "count": count},
    }


_FRAME_NAMES: Mapping[str, str] = MappingProxyType({"session_close": "connection_close", "confirm": "handshake_done"})
_FIELD_NAMES: Mapping[tuple[str, str], str] = MappingProxyType(
    {
        ("max_data", "value"): "maximum",
        ("max_stream_data", "value"): "maximum",
        ("max_streams", "value"): "maximum",
        ("new_connection_id", "number"): "sequence_number",
        ("retire_connection_id", "number"): "sequence_number",
        ("reset_stream", "code"): "error_code",
        ("stop_sending", "code"): "error_code",
        ("session_close", "code"): "error_code",
    }
)
ACK_DELAY_UNIT = 0.008
"""Milliseconds in one unit of the delay in an ACK frame."""


def frame_of(frame: TracedFrame) -> Data:
    """A frame: QUIC's where QUIC has it."""
    kind, fields = frame
    if kind == "ack":
        return _ack(fields)
    data: Data = {"frame_type": _FRAME_NAMES.get(kind, kind)}
    for name, value in fields.items():
        if name == "bidirectional":
            data["stream_type"] = "bidirectional" if value else "unidirectional"
        else:
            data[_FIELD_NAMES.get((kind, name), name)] = value
    if "error_code" in data:
        data["error"] = "unknown"
    if "length" in data:
        data["raw"] = {"length": data["length"]}
    return data


def _ack(fields: Mapping[str, Any]) -> Data:
    data: Data = {
        "frame_type": "ack",
        "ack_delay": round(fields["delay"] * ACK_DELAY_UNIT, DIGITS),
        "acked_ranges": fields["ranges"],
        "failed_trains": fields["failed_trains"],
    }
    if "ecn" in fields:
        data["ect0"], data["ect1"], data["ce"] = fields["ecn"]
    return data


# -- recovery ------------------------------------------------------------------------------------------------------


def metrics(stats: RecoveryStats) -> Data:
    """All that is worth a line; times in milliseconds, the rate in bits a second."""
    data: Data = {
        "congestion_window": stats.window,
        "bytes_in_flight": stats.bytes_in_flight,
        "pto_count": stats.pto_count,
    }
    for name, seconds in (
        ("min_rtt", stats.rtt_minimum),
        ("smoothed_rtt", stats.rtt_smoothed),
        ("latest_rtt", stats.rtt_latest),
        ("rtt_variance", None if stats.rtt_latest is None else stats.rttvar),
    ):
        if seconds is not None:
            data[name] = milliseconds(seconds)
    if stats.ssthresh < 1 << 62:
        data["ssthresh"] = int(stats.ssthresh)
    if stats.pacing_rate is not None:
        data["pacing_rate"] = int(stats.pacing_rate * 8)
    return data


# -- the session as a whole ----------------------------------------------------------------------------------------


def ways(path: NetworkPath) -> Data:
    """A carrier and two addresses."""
    return {"carrier": path.carrier, "local": _end(path.local), "remote": _end(path.remote)}


def another_path(path: NetworkPath) -> Data:
    """Where a session sends now, also in the words of the draft's `tuple_assigned`."""
    ends = ways(path)
    return {"tuple_id": "", "tuple_local": ends["local"], "tuple_remote": ends["remote"], **ends}


def started(path: NetworkPath) -> Data:
    """Where a session begins; qlog 0.3 wants the addresses flat."""
    data = ways(path)
    match path.local, path.remote:
        case (str(here), int(port), *_), (str(there), int(far_port), *_):
            data |= {
                "ip_version": "v6" if ":" in there else "v4",
                "src_ip": here,
                "dst_ip": there,
                "src_port": port,
                "dst_port": far_port,
            }
    return data


def _end(address: Hashable) -> Data:
    match address:
        case (str(host), int(port), *_):
            family = "v6" if ":" in host else "v4"
            return {f"ip_{family}": host, f"port_{family}": port}
    return {"stt_address": str(address)}


def parameters(initiator: str, values: Parameters) -> Data:
    """What one side announced; `initiator` is `local` or `remote`, and was called `owner`."""
    return {
        "initiator": initiator,
        "owner": initiator,
        "max_idle_timeout": values.idle_timeout,
        "max_udp_payload_size": values.max_packet,
        "max_ack_delay": values.max_ack_delay,
        "active_connection_id_limit": values.connection_id_limit,
        "initial_max_data": values.max_data,
        "initial_max_stream_data_bidi_local": values.max_stream_data,
        "initial_max_stream_data_bidi_remote": values.max_stream_data,
        "initial_max_stream_data_uni": values.max_stream_data,
        "initial_max_streams_bidi": values.max_streams_bidi,
        "initial_max_streams_uni": values.max_streams_uni,
        "max_datagram_frame_size": values.max_datagram,
        "max_segments": values.max_segments,
    }


def keys(version: int, suite: str | None = None) -> list[tuple[Name, Data]]:
    """That there are keys, of either direction; never the keys."""
    told = {"key_phase": version, "generation": version} | ({} if suite is None else {"suite": suite})
    return [(KEY_UPDATED, {"key_type": f"{side}_1rtt_secret", **told}) for side in ("client", "server")]


_STATES: Mapping[SessionState, str] = MappingProxyType(
    {
        SessionState.INIT: "attempted",
        SessionState.HANDSHAKING: "handshake_started",
        SessionState.ESTABLISHED: "handshake_confirmed",
        SessionState.CLOSING: "closing",
        SessionState.CLOSED: "closed",
    }
)
_TRIGGERS: Mapping[CloseReason, str] = MappingProxyType(
    {CloseReason.GRACEFUL: "application", CloseReason.TIMEOUT: "idle_timeout"}
)


def of_event(event: Event) -> list[tuple[Name, Data]]:
    """An event of the core. Of a kind that is not known here only the name is written: it may hold anything."""
    match event:
        case SessionStateChanged(old, new):
            return [(CONNECTION_STATE_UPDATED, {"old": _STATES[old], "new": _STATES[new]})]
        case SessionClosed(reason, code, detail, by_peer):
            side = "remote" if by_peer else "local"
            data = {
                "initiator": side,
                "owner": side,
                "application_error": "unknown",
                "error_code": code,
                "application_code": code,
                "reason": detail,
                "trigger": _TRIGGERS.get(reason, "error"),
                "close_reason": str(reason),
            }
            return [(CONNECTION_CLOSED, data)]
        case KeysRotated(version):
            return keys(version)
        case HandshakeProgressed(step):
            return [(ours("handshake_progressed"), {"step": str(step)})]
        case SessionEstablished(session_id, peer):
            return [(ours("session_established"), {"session_id": session_id.hex(), "peer_node_id": peer.hex()})]
        case KeepAliveMissed(silent_for):
            return [(ours("keep_alive_missed"), {"silent_for": milliseconds(silent_for)})]
        case PathValidated(way) | SessionReattached(way):
            return [(ours(_snake(event)), ways(way))]
        case SessionMoved(_, way, by_peer):
            return [(ours("session_moved"), {**ways(way), "initiator": "remote" if by_peer else "local"})]
        case PathLost(way, reason):
            return [(ours("path_lost"), {**ways(way), "reason": reason})]
        case ResumptionRefused(refusal):
            return [(ours("resumption_refused"), {"reason": str(refusal)})]
    return [(ours(_snake(event)), {})]


def _snake(event: Event) -> str:
    name = type(event).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
