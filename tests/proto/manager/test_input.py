"""Bad input of the manager: a typed error names each mistake and says what would be right; nothing is changed."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from attrs import evolve

from stt_proto.errors import ArgumentError, RateLimitedError, SttError
from stt_proto.manager import ManagerLimits, SessionManager
from stt_proto.manager.checks import MAX_SECONDS
from tests.proto.manager.test_manager import ID, OTHER, PEER, STRANGER, THIRD, managed

BAD = (0, -1, nan, inf, "1", True, 10**400, 2 * MAX_SECONDS)
NO_TIME = ("soon", None, nan, inf, 1e308, 10**400)
BY_ID = (
    "get_session", "has_session", "inspect", "remaining_ttl", "touch", "begin_request", "stream_opened",
    "stream_closed", "work_changed", "close_session", "end_session",
)  # fmt: skip
WRONG: list[tuple[str, Any]] = [
    *(("session_id", lambda m, bad=bad: m.create_session(bad, PEER, 0.0)) for bad in (b"", bytes(7), "x" * 8, None)),
    *(("peer_node_id", lambda m, bad=bad: m.create_session(OTHER, bad, 0.0)) for bad in (b"", bytes(33), None)),
    ("session_id", lambda m: m.create_session(ID, PEER, 0.0)),
    ("session_id", lambda m: m.get_session(bytes(9), 0.0)),
    ("session_id", lambda m: m.inspect(b"", 0.0)),
    ("session_id", lambda m: m.begin_request("x", 0.0)),
    ("session_id", lambda m: m.close_session(b"", 0.0)),
    ("session_id", lambda m: m.stream_closed(b"", 0.0)),
    ("peer_node_id", lambda m: m.find_session_by_peer(b"", 0.0)),
    *(("ttl", lambda m, b=b: m.create_session(OTHER, PEER, 0.0, config={"ttl": b})) for b in BAD),
    ("no_such", lambda m: m.create_session(OTHER, PEER, 0.0, config={"no_such": 1})),
    ("no_such", lambda m: m.create_session(OTHER, PEER, 0.0, config={"no_such": None})),
    ("request_rate", lambda m: m.create_session(OTHER, PEER, 0.0, config={"request_rate": 0})),
    ("config", lambda m: m.create_session(OTHER, PEER, 0.0, config=[("ttl", 1)])),
    ("namespace", lambda m: m.create_session(OTHER, PEER, 0.0, namespace=None)),
    ("namespace", lambda m: m.get_active_sessions(0.0, namespace=7)),
    ("namespace", lambda m: m.list_sessions(0.0, namespace="x" * 1025)),
    ("metadata", lambda m: m.create_session(OTHER, PEER, 0.0, metadata={"x": []})),
    ("metadata", lambda m: m.set_metadata(ID, {"x": "y" * 5000}, 0.0)),
    *(("seconds", lambda m, bad=bad: m.extend(ID, bad, 0.0)) for bad in BAD),
    ("if_version", lambda m: m.update_config(ID, {}, 0.0, if_version=0)),
    ("reason", lambda m: m.close_session(ID, 0.0, "boredom")),
    ("reason", lambda m: m.close_all_sessions(0.0, "boredom")),
    *(("timeout", lambda m, bad=bad: m.drain(0.0, bad)) for bad in (-1, nan, inf, None, True, 10**400)),
    *(("now", lambda m, bad=bad: m.touch(ID, bad)) for bad in NO_TIME),
    *(("now", lambda m, bad=bad: m.create_session(OTHER, PEER, bad)) for bad in NO_TIME),
    *(("now", lambda m, bad=bad: m.sweep(bad)) for bad in NO_TIME),
    *(("now", lambda m, bad=bad: SessionManager(bad)) for bad in NO_TIME),
    *(("unix_time", lambda m, bad=bad: SessionManager(0.0, bad)) for bad in NO_TIME),
    *(("unix_time", lambda m, bad=bad: m.set_unix_time(bad, 0.0)) for bad in NO_TIME),
    ("defaults", lambda m: SessionManager(defaults={"ttl": 5})),
    ("limits", lambda m: SessionManager(limits={"sessions": 5})),
    ("record", lambda m: m.restore_session(b"", 0.0)),
    *(("session_id", lambda m, name=name: getattr(m, name)(bytes(7), 0.0)) for name in BY_ID),
    ("session_id", lambda m: m.extend(bytes(7), 1.0, 0.0)),
    ("session_id", lambda m: m.update_config(bytes(7), {}, 0.0)),
    ("session_id", lambda m: m.set_namespace(bytes(7), "", 0.0)),
    ("session_id", lambda m: m.set_metadata(bytes(7), {}, 0.0)),
]  # fmt: skip


@pytest.mark.parametrize(("argument", "call"), WRONG)
def test_a_bad_argument_is_named_and_changes_nothing(argument: str, call: Any) -> None:
    manager = managed()
    before = manager.inspect(ID, 0.0), manager.metrics(0.0)
    with pytest.raises(ArgumentError) as caught:
        call(manager)
    assert caught.value.argument == argument
    assert argument in caught.value.message
    assert (manager.inspect(ID, 0.0), manager.metrics(0.0)) == before
    assert not manager.drain_status(0.0).is_draining


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sessions", 0), ("sessions_per_peer", True), ("requests", 1.5), ("closed_retention", -1),
        ("sessions", (1 << 24) + 1), ("requests", (1 << 32) + 1), ("metadata_bytes", 32_769), ("closed_sessions", -1),
        ("metadata_entries", 1025),
        ("closed_retention", 2 * MAX_SECONDS), ("closed_retention", 10**400), ("sessions_per_namespace", (1 << 24) + 1),
    ],
)  # fmt: skip
def test_limits_are_checked(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        ManagerLimits(**{name: value})
    assert caught.value.argument == name


def full() -> SessionManager:
    """A manager whose limits are reached."""
    manager = SessionManager(limits=ManagerLimits(sessions_per_peer=1, sessions_per_namespace=1, requests=3))
    manager.create_session(ID, PEER, 0.0, config={"max_requests": 1, "request_rate": 0.5, "request_burst": 1})
    manager.create_session(OTHER, STRANGER, 0.0, namespace="a")
    for session_id in (ID, OTHER, OTHER):
        manager.begin_request(session_id, 0.0)
    return manager


def late(manager: SessionManager, reason: str) -> SessionManager:
    manager.close_session(ID, 0.0, reason)
    return manager


SAID: list[tuple[str, Any]] = [
    ("session_id must be 8 bytes", lambda m: m.get_session(b"", 0.0)),
    ("session_id 0101010101010101 is that of another session", lambda m: m.create_session(ID, PEER, 0.0)),
    ("1 sessions are held (peer)", lambda m: m.create_session(THIRD, PEER, 0.0)),
    ("requests of this session in flight: 1, the most there may be", lambda m: m.begin_request(ID, 0.0)),
    ("requests in flight: 3, the most there may be", lambda m: m.begin_request(OTHER, 0.0)),
    ("there is no session 0303030303030303", lambda m: m.extend(THIRD, 1.0, 0.0)),
    ("session 0101010101010101 is closed: error", lambda m: late(m, "error").extend(ID, 1.0, 0.0)),
    ("session 0101010101010101 has expired", lambda m: m.extend(ID, 1.0, 3600.0)),
    ("the configuration has version 1, not 2", lambda m: m.update_config(ID, {}, 0.0, if_version=2)),
    ("seconds is 0; it must be from 0.001 to 316,224,000.0 seconds", lambda m: m.extend(ID, 0, 0.0)),
    (
        (
            "request_rate is 0; it must be from 0.001 to 1,000,000.0 a second, or inf; "
            "sliding is 1; it must be True or False"
        ),
        lambda m: m.update_config(ID, {"request_rate": 0, "sliding": 1}, 0.0),
    ),
    (
        "max_requests is True; it must be a whole number from 1 to 1,048,576",
        lambda m: m.update_config(ID, {"max_requests": True}, 0.0),
    ),
    ("config is of type list; it must be a mapping", lambda m: m.update_config(ID, [], 0.0)),
    ("namespace is of type int; it must be text or bytes", lambda m: m.set_namespace(ID, 7, 0.0)),
    ("namespace has 1,025 bytes; at most 1,024", lambda m: m.set_namespace(ID, "x" * 1025, 0.0)),
    ("metadata has 5,001 bytes; at most 4,096", lambda m: m.set_metadata(ID, {"x": "y" * 5000}, 0.0)),
    ("metadata is of type int; it must be a mapping", lambda m: m.set_metadata(ID, 7, 0.0)),
    ("token is of type bytes; it must be a RequestToken", lambda m: m.end_request(ID, 0.0)),
    (
        "reason is 'boredom'; it must be one of graceful, timeout, error, auth_failure, expired, shutdown, moved",
        lambda m: m.close_session(ID, 0.0, "boredom"),
    ),
    ("1 sessions are held (namespace)", lambda m: m.set_namespace(ID, "a", 0.0)),
    (
        "record has a version that none can have",
        lambda m: m.restore_session(evolve(m.inspect(ID, 0.0), config_version=0), 0.0),
    ),
    ("record is none, or has no configuration", lambda m: m.restore_session(None, 0.0)),
    (
        "record has a time that is no number",
        lambda m: m.restore_session(evolve(m.inspect(ID, 0.0), created_at=10**400), 0.0),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("message", "call"), SAID)
def test_an_error_says_what_is_wrong_and_what_would_be_right(message: str, call: Any) -> None:
    """G6, H3: the argument, the value, and what is allowed; or how many there are."""
    with pytest.raises(SttError) as caught:
        call(full())
    assert caught.value.message == message


def test_the_next_may_come() -> None:
    """H8: and says when."""
    manager = managed(request_rate=0.5, request_burst=1)
    manager.begin_request(ID, 0.0)
    with pytest.raises(RateLimitedError, match=r"the next request may come in 2\.000 seconds"):
        manager.begin_request(ID, 0.0)
