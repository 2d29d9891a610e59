"""What the manager keeps of each session, and by what it finds them."""

from __future__ import annotations

from collections.abc import Collection

from stt_proto.clock import NEVER, Clock
from stt_proto.manager.config import SessionConfig
from stt_proto.manager.lifetimes import Lifetime
from stt_proto.manager.metadata import Metadata
from stt_proto.manager.namespaces import Namespace
from stt_proto.manager.rate import TokenBucket
from stt_proto.manager.records import MAX_VERSION, EndReason, SessionRecord
from stt_proto.manager.requests import Work
from stt_proto.manager.use import Use
from stt_proto.types import SessionState


class Entry:
    """One session. What can be changed from outside is copied on its way in and out, never shared."""

    __slots__ = (
        "bucket", "close_reason", "closed_at", "config", "config_version", "generation", "life", "metadata", "name",
        "namespace", "peer_node_id", "session_id", "state", "work",
    )  # fmt: skip

    def __init__(
        self,
        session_id: bytes,
        peer_node_id: bytes,
        namespace: Namespace,
        name: bytes,
        config: SessionConfig,
        metadata: Metadata,
        now: float,
        use: Use | None = None,
    ) -> None:
        self.session_id = session_id
        self.peer_node_id = peer_node_id
        self.namespace = namespace
        self.name = name
        self.config = config
        self.config_version = 1
        self.metadata = metadata
        self.generation = 0
        self.state = SessionState.ESTABLISHED
        self.close_reason = EndReason.GRACEFUL  # says nothing before it is closing
        self.closed_at = NEVER
        self.life = Lifetime(now, config.ttl, config.sliding, use)
        self.bucket = TokenBucket(config.request_rate, config.request_burst)
        self.work = Work(use)

    @property
    def is_active(self) -> bool:
        """Whether it can be used, if it has not expired."""
        return self.state is SessionState.ESTABLISHED

    @property
    def is_closed(self) -> bool:
        """Whether it is over."""
        return self.state is SessionState.CLOSED

    @property
    def speaks(self) -> bool:
        """Whether the session says of itself how it is."""
        return self.life.use is not None

    def hush(self) -> None:
        """The session is over, and says nothing any more."""
        self.life.last_used = self.life.last_used
        self.life.use = self.work.use = None
        self.work.counted = 0

    def change_config(self, config: SessionConfig, now: float) -> None:
        """Go on by another configuration."""
        self.config = config
        self.config_version = self.config_version % MAX_VERSION + 1  # none gets there that was not made up
        self.life.change(config.ttl, config.sliding)
        self.bucket.change(config.request_rate, config.request_burst, now)

    def record(self, clock: Clock) -> SessionRecord:
        """A snapshot."""
        life, work = self.life, self.work
        return SessionRecord(
            session_id=self.session_id,
            peer_node_id=self.peer_node_id,
            namespace=self.namespace,
            state=self.state,
            created_at=clock.unix(life.created_at),
            last_active=clock.unix(life.last_used),
            extended_until=None if life.extended_until == NEVER else clock.unix(life.extended_until),
            config=self.config,
            config_version=self.config_version,
            metadata=self.metadata,
            close_reason=None if self.is_active else self.close_reason,
            closed_at=None if self.closed_at == NEVER else clock.unix(self.closed_at),
            requests=work.requests,
            streams=work.streams,
            generation=self.generation,
        )


class Index:
    """Sessions by something that many have in common: all of them, in the order in which they came."""

    __slots__ = ("_groups",)

    def __init__(self) -> None:
        self._groups: dict[bytes, dict[bytes, Entry]] = {}

    def of(self, key: bytes) -> Collection[Entry]:
        """Those of one group."""
        return self._groups.get(key, {}).values()

    def count(self, key: bytes) -> int:
        """How many those are."""
        return len(self._groups.get(key, ()))

    def add(self, key: bytes, entry: Entry) -> None:
        """Take one in."""
        self._groups.setdefault(key, {})[entry.session_id] = entry

    def remove(self, key: bytes, entry: Entry) -> None:
        """Take just this one out."""
        group = self._groups[key]
        del group[entry.session_id]
        if not group:
            del self._groups[key]
