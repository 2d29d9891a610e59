"""What is known of a session: a snapshot that nothing changes, and its form as bytes for stores and other machines."""

from __future__ import annotations

from enum import StrEnum
from hashlib import sha256
from struct import Struct
from typing import Any

from attrs import field, frozen

from stt_proto.errors import ArgumentError
from stt_proto.manager.checks import check_node_id, check_session_id, is_number
from stt_proto.manager.config import SessionConfig
from stt_proto.manager.encoding import Reader, damaged, put_bytes, put_metadata
from stt_proto.manager.metadata import NO_METADATA, Metadata, frozen_metadata
from stt_proto.manager.namespaces import Namespace, namespace_bytes, namespace_from_bytes
from stt_proto.types import SessionState


class EndReason(StrEnum):
    """Why the manager let go of a session, in one word; the first four are those of `CloseReason`.

    One who is closed for `graceful`, `expired`, `shutdown` or `moved` finishes its work first; the others are facts.
    """

    GRACEFUL = "graceful"
    TIMEOUT = "timeout"
    ERROR = "error"
    AUTH_FAILURE = "auth_failure"
    EXPIRED = "expired"
    SHUTDOWN = "shutdown"
    MOVED = "moved"

    @property
    def waits(self) -> bool:
        """Whether work in progress is waited for."""
        return self not in _FACTS


_FACTS = frozenset((EndReason.TIMEOUT, EndReason.ERROR, EndReason.AUTH_FAILURE))

MAX_RECORD = 65_536
"""Bytes of the largest record."""

MAX_VERSION = 1 << 63
"""The largest `config_version` with which a session goes on from a record."""

_MAGIC = b"SR\x01"
_CHECK_SIZE = 8
_HEAD = Struct(">8s32sBBdddd")  # ids, state, reason, created, active, extended until, closed
_CONFIG = Struct(">d?IdIBQ")
_STATES = (SessionState.ESTABLISHED, SessionState.CLOSING, SessionState.CLOSED)
_REASONS = (None, *EndReason)
_NEVER = float("-inf")


@frozen(kw_only=True)
class SessionRecord:
    """A session, as the manager sees it; a snapshot. Times are wall clock, seconds since 1970.

    Attributes:
        session_id: 8 bytes.
        peer_node_id: who is at the other end, 32 bytes.
        namespace: what it shares with others.
        state: `ESTABLISHED`; `CLOSING`, when it is no longer to be used and its work may still go on; `CLOSED`.
        created_at: when it began.
        last_active: when it was used last.
        extended_until: until when it lives at least, by `extend`; `None` when it was not extended.
        config: how it is treated.
        config_version: 1, and one more with each change of `config`.
        metadata: what the application remembers with it.
        close_reason: why it is `CLOSING` or `CLOSED`.
        closed_at: when it became `CLOSED`.
        requests: requests in flight.
        streams: streams that are open.
        generation: the number of this session in its manager, from 1 on: no other has it, not even one that comes
            later with the same id. 0 for a record that came from bytes.
    """

    session_id: bytes = field(repr=bytes.hex)
    peer_node_id: bytes = field(repr=bytes.hex)
    namespace: Namespace = ""
    state: SessionState = SessionState.ESTABLISHED
    created_at: float
    last_active: float
    extended_until: float | None = None
    config: SessionConfig
    config_version: int = 1
    metadata: Metadata = field(default=NO_METADATA, repr=False)
    close_reason: EndReason | None = None
    closed_at: float | None = None
    requests: int = 0
    streams: int = 0
    generation: int = 0

    @property
    def expires_at(self) -> float:
        """From when on it has expired, if nothing happens to it."""
        end = (self.last_active if self.config.sliding else self.created_at) + self.config.ttl
        return end if self.extended_until is None else max(end, self.extended_until)

    @property
    def is_active(self) -> bool:
        """Whether it could be used at that moment."""
        return self.state is SessionState.ESTABLISHED

    @property
    def is_closed(self) -> bool:
        """Whether it was over."""
        return self.state is SessionState.CLOSED

    def to_bytes(self) -> bytes:
        """All of it but work in progress and generation, which mean nothing elsewhere; at most 65,536 bytes.

        There is a check against damage in it, and none against forgers: keep it where only friends can write.

        Raises:
            ArgumentError: it was made up, and is no record that `from_bytes` would take.
        """
        check_record(self)
        config = self.config
        body = b"".join(
            (
                _MAGIC,
                _HEAD.pack(
                    self.session_id,
                    self.peer_node_id,
                    _STATES.index(self.state),
                    _REASONS.index(self.close_reason),
                    self.created_at,
                    self.last_active,
                    _NEVER if self.extended_until is None else self.extended_until,
                    _NEVER if self.closed_at is None else self.closed_at,
                ),
                _CONFIG.pack(
                    config.ttl,
                    config.sliding,
                    config.max_requests,
                    config.request_rate,
                    config.request_burst,
                    config.priority,
                    self.config_version,
                ),
                put_bytes(namespace_bytes(self.namespace)),
                put_metadata(frozen_metadata(self.metadata)),
            )
        )
        return body + _check(body)

    @classmethod
    def from_bytes(cls, data: bytes) -> SessionRecord:
        """Take back what `to_bytes` gave.

        Raises:
            ArgumentError: this is no record, a damaged one, or one of another version; nothing of it is quoted.
        """
        if not isinstance(data, bytes) or len(data) > MAX_RECORD or not data.startswith(_MAGIC):
            raise damaged()
        body = data[:-_CHECK_SIZE]
        if _check(body) != data[-_CHECK_SIZE:]:
            raise damaged()
        reader = Reader(body)
        reader.take(len(_MAGIC))
        try:
            record = _record(cls, reader)
            check_record(record)
        except (ArgumentError, IndexError):
            raise damaged() from None
        reader.end()
        return record


def _record(cls: type[SessionRecord], reader: Reader) -> SessionRecord:
    head: Any = reader.unpack(_HEAD)
    rules: Any = reader.unpack(_CONFIG)
    session_id, peer_node_id, state, reason, created_at, last_active, extended_until, closed_at = head
    ttl, sliding, max_requests, rate, burst, priority, version = rules
    return cls(
        session_id=session_id,
        peer_node_id=peer_node_id,
        namespace=namespace_from_bytes(reader.take_bytes()),
        state=_STATES[state],
        created_at=created_at,
        last_active=last_active,
        extended_until=None if extended_until == _NEVER else extended_until,
        config=SessionConfig(
            ttl=ttl,
            sliding=sliding,
            max_requests=max_requests,
            request_rate=rate,
            request_burst=burst,
            priority=priority,
        ),
        config_version=version,
        metadata=reader.take_metadata(),
        close_reason=_REASONS[reason],
        closed_at=None if closed_at == _NEVER else closed_at,
    )


def _check(body: bytes) -> bytes:
    return sha256(b"stt1 session record" + body).digest()[:_CHECK_SIZE]


def check_record(record: Any) -> None:
    """Raise `ArgumentError` unless it is a record with ids, times and a configuration."""
    if not isinstance(record, SessionRecord) or not isinstance(record.config, SessionConfig):
        raise ArgumentError("record is none, or has no configuration", argument="record")
    times = (record.created_at, record.last_active, record.extended_until or 0.0, record.closed_at or 0.0)
    if not all(map(is_number, times)):
        raise ArgumentError("record has a time that is no number", argument="record")
    if type(record.config_version) is not int or not 1 <= record.config_version <= MAX_VERSION:
        raise ArgumentError("record has a version that none can have", argument="record")
    if record.state not in _STATES or record.close_reason not in _REASONS:
        raise ArgumentError("record is in a state, or has a reason, that no record tells of", argument="record")
    check_session_id(record.session_id)
    check_node_id(record.peer_node_id)
