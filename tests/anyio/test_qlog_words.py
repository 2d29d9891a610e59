"""qlog: the words for what the core tells."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attrs import evolve

from stt_anyio.qlog import vocabulary
from stt_proto import CloseReason, NetworkPath, SessionState, TracedFrame
from stt_proto.events import (
    Event,
    HandshakeProgressed,
    KeepAliveMissed,
    KeepAliveSent,
    KeysRotated,
    PathLost,
    PathValidated,
    ResumptionRefused,
    SessionClosed,
    SessionDetached,
    SessionEstablished,
    SessionMoved,
    SessionReattached,
    SessionStateChanged,
    TicketReceived,
)
from stt_proto.recovery import Recovery
from stt_proto.session.sight import traced_frames
from stt_proto.tickets import TicketRefusal
from stt_proto.types import HandshakeStep
from stt_proto.wire import Ack, Confirm, Datagram, MaxData, MaxStreams, ResetStream, SessionClose, Stream
from tests.anyio.qlogs import PATH

ENDS = {
    "carrier": "udp",
    "local": {"ip_v4": "192.0.2.1", "port_v4": 1},
    "remote": {"ip_v4": "192.0.2.2", "port_v4": 2},
}

EVENTS: list[tuple[Event, str, dict[str, Any]]] = [
    (
        SessionStateChanged(SessionState.ESTABLISHED, SessionState.CLOSING),
        "quic:connection_state_updated",
        {"old": "handshake_confirmed", "new": "closing"},
    ),
    (HandshakeProgressed(HandshakeStep.CHALLENGE), "stt:handshake_progressed", {"step": "challenge"}),
    (
        SessionEstablished(bytes(8), bytes(32)),
        "stt:session_established",
        {"session_id": "00" * 8, "peer_node_id": "00" * 32},
    ),
    (KeepAliveSent(), "stt:keep_alive_sent", {}),
    (KeepAliveMissed(1.5), "stt:keep_alive_missed", {"silent_for": 1500.0}),
    (PathValidated(PATH), "stt:path_validated", ENDS),
    (SessionReattached(PATH), "stt:session_reattached", ENDS),
    (PathLost(PATH, "unplugged"), "stt:path_lost", {**ENDS, "reason": "unplugged"}),
    (SessionMoved(PATH, PATH, False), "stt:session_moved", {**ENDS, "initiator": "local"}),
    (SessionDetached(7.0), "stt:session_detached", {}),
    (TicketReceived(None, 7.0), "stt:ticket_received", {}),
    (ResumptionRefused(TicketRefusal.USED), "stt:resumption_refused", {"reason": "used"}),
]


@pytest.mark.parametrize(("event", "name", "data"), EVENTS, ids=lambda value: type(value).__name__)
def test_events_of_the_core(event: Event, name: str, data: dict[str, Any]) -> None:
    ((found, found_data),) = vocabulary.of_event(event)
    assert (found.draft, found_data) == (name, data)


@pytest.mark.parametrize(
    ("reason", "trigger"),
    [("graceful", "application"), ("timeout", "idle_timeout"), ("error", "error"), ("auth_failure", "error")],
)
def test_how_a_session_ended(reason: str, trigger: str) -> None:
    ((_, data),) = vocabulary.of_event(SessionClosed(CloseReason(reason), 0x0201, "why", by_peer=True))
    assert (data["trigger"], data["close_reason"], data["error_code"]) == (trigger, reason, 0x0201)
    assert data["owner"] == data["initiator"] == "remote"


def test_new_keys_are_told_without_the_keys() -> None:
    told = vocabulary.of_event(KeysRotated(3))
    assert [data["key_type"] for _, data in told] == ["client_1rtt_secret", "server_1rtt_secret"]
    assert all(data["key_phase"] == 3 for _, data in told)
    assert not any({"new", "old", "key"} & set(data) for _, data in told)


FRAMES: list[tuple[Any, dict[str, Any]]] = [
    (Stream(4, 10, b"abc", True), {"frame_type": "stream", "stream_id": 4, "offset": 10, "length": 3, "fin": True}),
    (Datagram(b"abc"), {"frame_type": "datagram", "length": 3, "raw": {"length": 3}}),
    (MaxData(9), {"frame_type": "max_data", "maximum": 9}),
    (MaxStreams(False, 9), {"frame_type": "max_streams", "stream_type": "unidirectional", "maximum": 9}),
    (MaxStreams(True, 9), {"frame_type": "max_streams", "stream_type": "bidirectional", "maximum": 9}),
    (
        ResetStream(4, 7, 99),
        {"frame_type": "reset_stream", "stream_id": 4, "error": "unknown", "error_code": 7, "final_size": 99},
    ),
    (
        SessionClose(7, CloseReason.ERROR, "private"),
        {"frame_type": "connection_close", "error_code": 7, "error": "unknown", "reason": "error"},
    ),
    (Confirm(), {"frame_type": "handshake_done"}),
    (
        Ack(9, 1000, 2, ((8, 9), (1, 5)), (1, 2, 3)),
        {
            "frame_type": "ack", "ack_delay": 8.0, "acked_ranges": [[8, 9], [1, 5]], "failed_trains": 2,
            "ect0": 1, "ect1": 2, "ce": 3,
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("frame", "data"), FRAMES, ids=lambda value: type(value).__name__)
def test_frames(frame: Any, data: dict[str, Any]) -> None:
    (told,) = traced_frames(frame.encode())
    found = json.loads(json.dumps(vocabulary.frame_of(told)))
    assert data.items() <= found.items()
    assert set(found) - set(data) <= {"raw"}


def test_what_the_core_may_tell_and_no_world_here_does() -> None:
    """A path of another kind, one that changes, a rate that is not known, a loss of trains."""
    assert vocabulary.started(NetworkPath("memory", "here", 7)) == {
        "carrier": "memory",
        "local": {"stt_address": "here"},
        "remote": {"stt_address": "7"},
    }
    moved = vocabulary.another_path(PATH)
    assert moved == {"tuple_id": "", "tuple_local": ENDS["local"], "tuple_remote": ENDS["remote"], **ENDS}
    assert vocabulary.dropped("trains_expired", 2)["trigger"] == "general"
    unpaced = vocabulary.metrics(evolve(Recovery(1200).stats(), pacing_rate=None, ssthresh=5000.5))
    assert "pacing_rate" not in unpaced
    assert unpaced["ssthresh"] == 5000
    assert vocabulary.frame_of(TracedFrame("more", {"count": 5})) == {"frame_type": "more", "count": 5}
