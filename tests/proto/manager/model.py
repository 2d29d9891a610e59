"""What a manager has to do, as plainly as it can be said: dictionaries, no heap, no index, everything by looking."""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field

NEVER = float("-inf")
FACTS = ("timeout", "error", "auth_failure")
"""Reasons that wait for no work."""

LIMITS: dict[str, Any] = {
    "sessions": 4,
    "sessions_per_peer": 2,
    "sessions_per_namespace": 3,
    "requests": 3,
    "closed_sessions": 3,
    "closed_retention": 10.0,
}
DEFAULTS: dict[str, Any] = {
    "ttl": 6.0,
    "sliding": True,
    "max_requests": 2,
    "request_rate": float("inf"),
    "request_burst": 1,
    "priority": 3,
}


class Refused(Exception):
    """By this name of an error."""

    def __init__(self, error: str, **details: Any) -> None:
        super().__init__(error)
        self.error = error
        self.details = details


@define(eq=False)
class Said:
    """What a session says of itself."""

    last_used: float
    open_streams: int = 0


@define(eq=False)
class Known:
    """A session that is known."""

    session_id: bytes
    peer: bytes
    namespace: str | bytes
    config: dict[str, Any]
    metadata: dict[str, Any]
    created: float
    used: float
    generation: int = 0
    version: int = 1
    floor: float = NEVER
    promised: float = NEVER  # by `extend`, until an explicit change
    state: str = "established"
    reason: str | None = None
    requests: set[Any] = field(factory=set)
    streams: int = 0
    tokens: float = 0.0
    tokens_at: float = 0.0
    free_at: float | None = None
    said: Said | None = None
    entered: int = 0

    @property
    def last_used(self) -> float:
        return self.used if self.said is None else max(self.used, self.said.last_used)

    @property
    def open_streams(self) -> int:
        return self.streams + (0 if self.said is None else self.said.open_streams)

    @property
    def expires_at(self) -> float:
        begin = self.last_used if self.config["sliding"] else self.created
        return max(begin + self.config["ttl"], self.floor)

    def copy(self) -> Known:
        """The same session as it is in a record, without its work."""
        return evolve(
            self, requests=set(), streams=0, said=None, used=self.last_used, promised=NEVER, state="established",
            reason=None, free_at=None,
        )  # fmt: skip

    def change_config(self, config: dict[str, Any], now: float) -> None:
        """Other rules; the tokens that are missing are missing still, as many as there can be."""
        if config == self.config:
            return
        missing = 0.0
        if self.config["request_rate"] < float("inf"):
            missing = self.config["request_burst"] - self.tokens_now(now)
        self.tokens, self.tokens_at = max(config["request_burst"] - missing, 0.0), now
        if (config["ttl"], config["sliding"]) != (self.config["ttl"], self.config["sliding"]):
            self.floor = self.promised = NEVER
        self.config = config
        self.version += 1

    def tokens_now(self, now: float) -> float:
        """For rates that have an end."""
        gained = (now - self.tokens_at) * self.config["request_rate"]
        return float(min(self.config["request_burst"], self.tokens + gained))

    @property
    def is_idle(self) -> bool:
        return not self.requests and not self.open_streams

    @property
    def has_place(self) -> bool:
        return self.state != "closed" or bool(self.requests)


class Model:
    """The sessions that are known, and everything that was ever counted."""

    def __init__(self) -> None:
        self.now = 0.0
        self.known: dict[bytes, Known] = {}
        self.created = self.restored = self.begun = self.ended_requests = self.failed = self.forgotten = 0
        self.ended: dict[str, int] = {}
        self.drain_at: float | None = None
        self.leaving: dict[bytes, Known] = {}  # of those that say how they are: the host is to be told of them
        self.serial = 0

    # -- time ------------------------------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """What is due by then happens, whoever looks or does not."""
        self.now = max(self.now, now)
        for session in self.known.values():
            if session.state == "established" and session.expires_at <= self.now:
                self.close(session, "expired")

    def forget_due(self) -> None:
        """Sessions that are over are remembered for a while. It is not promised when just they are forgotten."""
        for session in list(self.known.values()):
            if session.free_at is not None and session.free_at + LIMITS["closed_retention"] <= self.now:
                self.forget(session)

    def forget(self, session: Known) -> None:
        del self.known[session.session_id]
        self.forgotten += 1

    # -- asking ----------------------------------------------------------------------------------------------------

    def usable(self, session_id: bytes) -> Known | None:
        session = self.known.get(session_id)
        return session if session is not None and session.state == "established" else None

    def in_state(self, state: str) -> list[Known]:
        return [session for session in self.known.values() if session.state == state]

    @property
    def in_flight(self) -> int:
        return sum(len(session.requests) for session in self.known.values())

    def need(self, session_id: bytes) -> Known:
        session = self.known.get(session_id)
        if session is None:
            raise Refused("SessionNotFound", reason="")
        if session.state != "established":
            name = "SessionExpiredError" if session.reason == "expired" else "SessionNotFound"
            raise Refused(name, reason=session.reason)
        return session

    # -- doing -----------------------------------------------------------------------------------------------------

    def admit(self, session: Known) -> None:
        self.forget_due()
        if self.drain_at is None and session.session_id in self.known:
            raise Refused("ArgumentError", argument="session_id")
        self.check_room(session.peer, session.namespace)
        self.serial += 1
        session.entered = self.serial
        session.tokens, session.tokens_at = session.config["request_burst"], self.now
        self.known[session.session_id] = session
        self.created += 1

    def check_room(self, peer: bytes, space: str | bytes) -> None:
        self.forget_due()
        if self.drain_at is not None:
            raise Refused("ShuttingDownError")
        placed = [other for other in self.known.values() if other.has_place]
        if len(placed) >= LIMITS["sessions"]:
            raise Refused("TooManySessionsError", scope="all")
        if sum(other.peer == peer for other in placed) >= LIMITS["sessions_per_peer"]:
            raise Refused("TooManySessionsError", scope="peer")
        self.check_space(space)

    def check_space(self, space: str | bytes) -> None:
        placed = [other.namespace for other in self.known.values() if other.has_place]
        if sum(type(other) is type(space) and other == space for other in placed) >= LIMITS["sessions_per_namespace"]:
            raise Refused("TooManySessionsError", scope="namespace")

    def place(self, session_id: bytes, space: str | bytes) -> Known:
        session = self.need(session_id)
        if type(session.namespace) is not type(space) or session.namespace != space:
            self.check_space(space)
            self.serial += 1
            session.namespace, session.entered = space, self.serial
        return session

    def begin(self, session_id: bytes) -> Known:
        if self.drain_at is not None:
            raise Refused("ShuttingDownError")
        session = self.need(session_id)
        config = session.config
        if len(session.requests) >= config["max_requests"]:
            raise Refused("TooManyRequestsError", scope="session")
        if self.in_flight >= LIMITS["requests"] * (8 - max(config["priority"] - 3, 0)) // 8:
            raise Refused("TooManyRequestsError", scope="all")
        if config["request_rate"] < float("inf"):
            session.tokens, session.tokens_at = session.tokens_now(self.now), self.now
            if session.tokens < 1:
                raise Refused("RateLimitedError", retry_after=(1 - session.tokens) / config["request_rate"])
            session.tokens -= 1
        session.used = self.now
        self.begun += 1
        return session

    def work_ended(self, session: Known) -> None:
        if session.state == "established":
            session.used = self.now
        elif session.state == "closed":
            self.leave(session)

    def close(self, session: Known, reason: str, *, over: bool = False) -> bool:
        waits = reason not in FACTS and not over
        if session.state == "closed" or (waits and session.state != "established"):
            return False
        if session.state == "established":
            session.state, session.reason = "closing", reason
        speaks = session.said is not None
        if not waits:
            self.finish(session)
        if speaks and not over:
            self.leaving[session.session_id] = session
        return True

    def finish(self, session: Known) -> None:
        self.leaving.pop(session.session_id, None)
        session.state = "closed"
        session.used, session.said = session.last_used, None
        session.streams = 0
        assert session.reason is not None
        self.ended[session.reason] = self.ended.get(session.reason, 0) + 1
        self.leave(session)

    def leave(self, session: Known) -> None:
        if session.requests:
            return
        session.free_at = self.now
        # The oldest is the first that became free; a dictionary keeps no such order, so it is kept here.
        self.known[session.session_id] = self.known.pop(session.session_id)
        free = [other for other in self.known.values() if other.free_at is not None]
        if len(free) > LIMITS["closed_sessions"]:
            self.forget(free[0])

    def due(self) -> list[Known]:
        """What the next sweep ends."""
        at_once = self.drain_at is not None and self.drain_at <= self.now
        return [session for session in self.in_state("closing") if session.is_idle or at_once]
