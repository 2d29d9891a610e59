"""Reading the two forms of qlog, and what must be in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stt_proto import NetworkPath, TracedSession

Events = list[dict[str, Any]]


def read_sequence(path: Path) -> tuple[dict[str, Any], Events]:
    """The first record and the others of a `.sqlog` (RFC 7464, 2.2: a separator before, a line feed behind)."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("\x1e")
    assert text.endswith("\n")
    header, *events = [json.loads(record) for record in text.split("\x1e")[1:]]
    return header, events


def read_document(path: Path) -> tuple[dict[str, Any], Events]:
    """The document and the events of a `.qlog`."""
    document = json.loads(path.read_text(encoding="utf-8"))
    (one,) = document["traces"]
    return document, one["events"]


# -- a small validator ---------------------------------------------------------------------------------------------

NUMBER, TEXT, LIST, MAP = (int, float), str, list, dict

REQUIRED: dict[str, dict[str, Any]] = {
    "connection_started": {"local": MAP, "remote": MAP},
    "connection_state_updated": {"new": TEXT},
    "connection_closed": {"trigger": TEXT, "reason": TEXT},
    "mtu_updated": {"new": NUMBER},
    "tuple_assigned": {"tuple_id": TEXT},
    "path_updated": {"local": MAP},
    "parameters_set": {"initiator": TEXT, "owner": TEXT, "initial_max_data": NUMBER},
    "packet_sent": {"header": MAP, "raw": MAP, "frames": LIST, "segments": NUMBER},
    "packet_received": {"header": MAP, "raw": MAP, "frames": LIST, "segments": NUMBER},
    "packet_lost": {"header": MAP, "raw": MAP},
    "packet_dropped": {"trigger": TEXT, "details": MAP},
    "metrics_updated": {},
    "recovery_metrics_updated": {},
    "congestion_state_updated": {"new": TEXT},
    "key_updated": {"key_type": TEXT},
    "message_sent": {"message": TEXT, "raw": MAP},
    "message_received": {"message": TEXT, "raw": MAP},
}
"""What must be in the data of an event, by the name behind its colon."""
OLD_CATEGORIES = {"connectivity", "transport", "recovery", "security", "stt"}
DRAFT_CATEGORIES = {"quic", "stt"}


def check_events(events: Events, categories: set[str]) -> None:
    last = 0.0
    for event in events:
        assert set(event) == {"time", "name", "data"}
        assert event["time"] >= last
        last = event["time"]
        category, _, name = event["name"].partition(":")
        assert category in categories
        for key, kind in REQUIRED.get(name, {}).items():
            assert isinstance(event["data"][key], kind), event
        for frame in event["data"].get("frames", []):
            assert isinstance(frame["frame_type"], str)
        header = event["data"].get("header", {"packet_type": "1RTT", "packet_number": 0})
        assert header["packet_type"] in ("1RTT", "unknown")
        assert ("packet_number" in header) == (header["packet_type"] == "1RTT")


def check(stem: Path) -> Events:
    """That both forms are what they say, and say the same; gives the events with the names of the draft."""
    header, events = read_sequence(stem.with_suffix(stem.suffix + ".sqlog"))
    assert header["file_schema"] == "urn:ietf:params:qlog:file:sequential"
    assert header["serialization_format"] == "application/qlog+json-seq"
    assert all(":" in schema for schema in header["trace"]["event_schemas"])
    assert header["trace"]["common_fields"]["reference_time"]["clock_type"] == "monotonic"
    assert header["trace"]["common_fields"]["reference_time"]["epoch"] == "unknown"
    assert header["trace"]["vantage_point"]["type"] in ("client", "server")
    check_events(events, DRAFT_CATEGORIES)
    document, old_events = read_document(stem.with_suffix(stem.suffix + ".qlog"))
    assert (document["qlog_version"], document["qlog_format"]) == ("0.3", "JSON")
    assert document["traces"][0]["vantage_point"] == header["trace"]["vantage_point"]
    assert document["traces"][0]["common_fields"]["time_format"] == "relative"
    assert document["traces"][0]["common_fields"]["reference_time"] > 1e12
    check_events(old_events, OLD_CATEGORIES)
    assert [(event["time"], event["data"]) for event in events] == [
        (event["time"], event["data"]) for event in old_events
    ]
    return events


def stems(directory: Path) -> list[Path]:
    """The sessions of which there are files, two of each."""
    found = sorted(directory.glob("*.sqlog"))
    assert [path.with_suffix(".qlog") for path in found] == sorted(directory.glob("*.qlog"))
    assert len(list(directory.iterdir())) == 2 * len(found)
    return [path.with_suffix("") for path in found]


def named(events: Events, name: str) -> list[dict[str, Any]]:
    return [event["data"] for event in events if event["name"].partition(":")[2] == name]


# -- a session that there is not -----------------------------------------------------------------------------------

PATH = NetworkPath("udp", ("192.0.2.1", 1), ("192.0.2.2", 2))


def session(number: int = 1, *, session_id: bytes = b"12345678") -> TracedSession:
    """A session as an observer knows it."""
    made = TracedSession(number, True, PATH, 100.0, 1.7e9)
    made.session_id = session_id
    return made
