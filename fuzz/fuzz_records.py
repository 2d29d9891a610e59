"""Records of sessions out of a store: what a manager takes back after a restart, or from another server.

The input is a record as it was written, damaged, or made by somebody who knows how to write the check. What is taken is
what was written, or can be written again; all else is one error, which quotes nothing. A manager that is given what was
taken goes on with it or says why not, holds no more than it may, and its counts add up.
"""

from __future__ import annotations

from hashlib import sha256

from fuzz.harness import Choices, instrumented, main

with instrumented(__name__):
    from stt_proto.errors import ArgumentError, SessionNotFound, TooManySessionsError
    from stt_proto.manager import EndReason, ManagerLimits, SessionConfig, SessionManager, SessionRecord
    from stt_proto.manager.records import MAX_RECORD
    from stt_proto.manager.store import MAX_VALUE
    from stt_proto.types import SessionState

MAGIC = b"SR\x01"
UNIX = 1_700_000_000.0
LIMITS = ManagerLimits(sessions=3, sessions_per_peer=2, metadata_entries=8, metadata_bytes=200)
AGES = (0.0, 0.5, 100.0, 3600.0, -100.0)
LATER = (0.0, 1.0, 3599.0, 1e6, 1e12)
MAX_STEPS = 12


def fuzz_one(data: bytes) -> None:
    """Take records back, one after the other, into one manager."""
    choices = Choices(data)
    manager, now = SessionManager(0.0, UNIX, limits=LIMITS), 0.0
    taken = 0
    for _ in range(MAX_STEPS):
        if not choices:
            break
        record = read(choices)
        if record is not None:
            taken += restore(manager, record, now)
        check(manager, now, taken)
        now += choices.pick(LATER)
        if choices.flag():
            manager.sweep(now)


def read(choices: Choices) -> SessionRecord | None:
    """A record, as far as this is one."""
    match choices.below(4):
        case 0:
            return take(choices.chunk())
        case 1:
            return take(sealed(MAGIC + choices.chunk()))
        case 2:
            kept = genuine(choices).to_bytes()
            shown = choices.damage(kept)
            record = take(shown)
            assert (record is not None) == (shown == kept)
            return record
        case _:
            return take(sealed(choices.damage(genuine(choices).to_bytes()[:-8])))


def sealed(body: bytes) -> bytes:
    """With a check that fits."""
    return body + sha256(b"stt1 session record" + body).digest()[:8]


def take(data: bytes) -> SessionRecord | None:
    """What can be written again, or one error."""
    try:
        record = SessionRecord.from_bytes(data)
    except ArgumentError as error:
        assert error.argument == "data"
        assert error.message == "data is no record of a session, or a damaged one"
        return None
    again = record.to_bytes()
    assert SessionRecord.from_bytes(again) == record
    assert len(again) == len(data) <= MAX_RECORD <= MAX_VALUE
    return record


def genuine(choices: Choices) -> SessionRecord:
    """One that a manager may have written."""
    state = choices.pick((SessionState.ESTABLISHED, SessionState.ESTABLISHED, SessionState.CLOSING))
    since = UNIX - choices.pick(AGES)
    return SessionRecord(
        session_id=choices.take(2).ljust(8, b"s"),
        peer_node_id=choices.take(1).ljust(32, b"p"),
        namespace=choices.pick(("", "tenant", b"\xff")),
        state=state,
        created_at=since,
        last_active=since,
        extended_until=since + 50.0 if choices.flag() else None,
        config=SessionConfig(ttl=choices.pick((0.001, 60.0, 3600.0)), sliding=choices.flag()),
        metadata={"text": "value", "bytes": choices.take(2), "number": choices.byte() - 9, "half": 0.5, "no": None},
        close_reason=None if state is SessionState.ESTABLISHED else EndReason.MOVED,
    )


def restore(manager: SessionManager, record: SessionRecord, now: float) -> bool:
    """Whether the manager goes on with it."""
    known = manager.inspect(record.session_id, now)
    try:
        restored = manager.restore_session(record, now)
    except SessionNotFound:
        assert not record.is_active or record.expires_at <= UNIX + now + 0.01
        return False
    except TooManySessionsError:
        return False
    except ArgumentError as error:
        assert error.argument in ("session_id", "metadata")
        assert error.argument == "metadata" or known is not None
        return False
    assert known is None or known.closed_at is not None  # it was to be forgotten by now
    assert record.is_active
    assert (restored.session_id, restored.config, restored.config_version) == (
        record.session_id,
        record.config,
        record.config_version,
    )
    assert restored.metadata == record.metadata
    assert manager.remaining_ttl(record.session_id, now) > 0
    return True


def check(manager: SessionManager, now: float, taken: int) -> None:
    """Its counts add up, and limits hold."""
    metrics, stats = manager.metrics(now), manager.get_stats(now)
    assert metrics.restored == taken
    assert taken == stats.active + stats.closing + sum(metrics.ended.values())
    assert stats.active + stats.closing <= 3
    for record in manager.list_sessions(now):
        assert SessionRecord.from_bytes(record.to_bytes()).session_id == record.session_id


if __name__ == "__main__":
    main(fuzz_one)
