"""The manager as a machine: whatever applications, peers and time do to it, beside the plain model.

Nothing is looked at between two steps unless a step looks: a manager that is only right after it was asked is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from stt_proto.errors import ConfigError, SttError
from stt_proto.manager import EndReason, ManagerLimits, RequestToken, SessionConfig, SessionManager, SessionRecord
from stt_proto.types import SessionState
from tests.proto.manager.checked import Broken, Checked, counted_calls
from tests.proto.manager.model import DEFAULTS, LIMITS, Known, Model, Refused, Said

IDS = tuple(bytes((number,)) * 8 for number in range(5))
PEERS = tuple(bytes((number,)) * 32 for number in range(3))
SPACES: tuple[str | bytes, ...] = ("", "tenant-a", "tenant_a", b"tenant-a")
CONFIGS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"ttl": 2.0},
    {"ttl": 9.0, "sliding": False},
    {"ttl": 20.0, "max_requests": 1, "priority": 7},
    {"request_rate": 0.5, "ttl": 9.0},
    {"ttl": None, "sliding": None},
)
CHANGES: tuple[dict[str, Any], ...] = (
    {"ttl": 2.0},
    {"ttl": None},
    {"sliding": False},
    {"sliding": True, "ttl": 8.0},
    {"max_requests": 1},
    {"priority": 0, "max_requests": None},
    {"request_rate": 0.5, "request_burst": 4},
    {"request_rate": 2.0, "request_burst": None},
    {"request_rate": None},
    {},
)
WRONG: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
    ({"ttl": 0}, ("ttl",)),
    ({"max_requests": 1, "ttl": -1.0, "no_such": 1}, ("ttl", "no_such")),
    ({"ttl": float("nan"), "sliding": "yes", "priority": 8}, ("ttl", "sliding", "priority")),
)
MOST_CALLS = 200
"""Functions that are called to look at one session, at most."""
COUNTED = ("ShuttingDownError", "TooManySessionsError", "TooManyRequestsError", "RateLimitedError")
"""Refusals that are counted."""
STATES = {"established": SessionState.ESTABLISHED, "closing": SessionState.CLOSING, "closed": SessionState.CLOSED}

ids = st.sampled_from(IDS)
# Often none at all, so that things fall together; a clock that steps back counts as standing still.
pauses = st.sampled_from((0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 2.0, 4.0, 12.0, -3.0))


def alike(one: Any, other: Any) -> bool:
    """Equal, but for the rounding of seconds."""
    return abs(one - other) < 1e-5 if isinstance(one, float) else bool(one == other)


def step(**strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule that begins with a pause, and is left out once the subject went astray."""

    def decorate(function: Callable[..., None]) -> Any:
        @wraps(function)
        def guarded(self: Life, pause: float, **arguments: Any) -> None:
            if not self.astray:
                if pause < 0:
                    self.subject.has_session(b"no such!", self.model.now)  # so that it heard of the time that was
                self.sight = self.model.now + pause
                self.model.advance(self.sight)
                function(self, **arguments)

        del guarded.__wrapped__  # type: ignore[attr-defined]
        return rule(pause=pauses, **strategies)(guarded)

    return decorate


class Life(Checked):
    """A manager and what it should be."""

    make: ClassVar[Callable[..., SessionManager]] = SessionManager

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.subject = type(self).make(0.0, 0.0, defaults=SessionConfig(**DEFAULTS), limits=ManagerLimits(**LIMITS))
        self.sight = 0.0  # the time that is told
        self.generation = 0
        self.refused = 0
        self.tokens: list[tuple[RequestToken, Known]] = []
        self.stored: list[tuple[bytes, Known]] = []
        self.shared: dict[str, Any] = {"tag": "shared"}

    # -- helpers ---------------------------------------------------------------------------------------------------

    def agree(self, name: str, call: Callable[[], Any], expected: Callable[[], Any]) -> tuple[Any, Any]:
        """Both do the same, or both refuse in the same way. Gives both results, twice `None` when refused."""
        try:
            wanted: Any = expected()
            refusal = None
        except Refused as error:
            wanted, refusal = None, error
            self.refused += error.error in COUNTED
        try:
            got = call()
        except SttError as error:
            if refusal is None:
                self.break_(name, f"refused: {error!r}")
            else:
                details = all(alike(getattr(error, key, None), value) for key, value in refusal.details.items())
                self.expect(name, type(error).__name__ == refusal.error and details, f"{error!r}, not {refusal.error}")
            return None, None
        except Broken:
            raise
        except RecursionError:
            self.break_("S17", "it calls itself without end")
            return None, None
        except Exception as error:
            self.break_(name, repr(error))
            return None, None
        if refusal is not None:
            self.break_(name, f"{refusal.error} was due")
            return None, None
        return got, wanted

    def others(self, session_id: bytes) -> dict[bytes, SessionRecord | None]:
        """What is seen of all the others."""
        return {each: self.subject.inspect(each, self.sight) for each in self.model.known if each != session_id}

    def check_record(self, record: SessionRecord | None, known: Known) -> None:
        """A record is what the model says."""
        if record is None:
            self.break_("S2", f"{known} is not there")
            return
        self.expect("S10", record.state is STATES[known.state], f"{record.state} instead of {known.state}")
        self.expect("S10", record.close_reason == (None if known.state == "established" else known.reason), "reason")
        self.expect("S3", record.expires_at == known.expires_at, f"{record.expires_at}, not {known.expires_at}")
        used = known.last_used
        self.expect("S3", record.last_active == used, f"used at {record.last_active}, not {used}")
        self.expect("S6", record.requests == len(known.requests), f"{record.requests} in flight")
        self.expect("S6", record.streams == known.open_streams, f"{record.streams} streams")
        self.expect("S8", dict(record.metadata) == known.metadata, f"{record.metadata}, not {known.metadata}")
        effective = {name: getattr(record.config, name) for name in DEFAULTS}
        self.expect("S12", effective == known.config, f"{effective}, not {known.config}")
        self.expect("S12", record.config_version == known.version, "version")
        self.expect("S1", record.generation == known.generation, "generation")
        self.expect("S13", record.namespace == known.namespace, "namespace")

    # -- beginning -------------------------------------------------------------------------------------------------

    @initialize(configs=st.lists(st.sampled_from(CONFIGS), min_size=2, max_size=3))
    def begin_with_some(self, configs: list[dict[str, Any]]) -> None:
        for session_id, config in zip(IDS, configs, strict=False):
            self.create(
                pause=0.0, session_id=session_id, peer=PEERS[0], space="", config=config, shared=True, speaks=False
            )

    @step(
        session_id=ids,
        peer=st.sampled_from(PEERS),
        space=st.sampled_from(SPACES),
        config=st.sampled_from(CONFIGS),
        shared=st.booleans(),
        speaks=st.booleans(),
    )
    def create(
        self, session_id: bytes, peer: bytes, space: str | bytes, config: dict[str, Any], shared: bool, speaks: bool
    ) -> None:
        metadata = self.shared if shared else {"tag": session_id}
        effective = {**DEFAULTS, **{key: value for key, value in config.items() if value is not None}}
        known = Known(session_id, peer, space, effective, dict(metadata), self.model.now, self.model.now)
        known.said = Said(self.model.now) if speaks else None
        given = dict(config)
        name = "S1" if session_id in self.model.known else "S16" if self.model.drain_at is not None else "S7"
        record, _ = self.agree(
            name,
            lambda: self.subject.create_session(
                session_id, peer, self.sight, namespace=space, config=given, metadata=metadata, use=known.said
            ),
            lambda: self.model.admit(known),
        )
        given["ttl"] = 1e9  # S8: what was given is the caller's again
        if record is None:
            return
        self.expect("S1", record.generation > self.generation, "a generation came twice")
        known.generation = self.generation = record.generation
        self.check_record(record, known)

    @step(peer=st.sampled_from(PEERS), space=st.sampled_from(SPACES))
    def ask_for_room(self, peer: bytes, space: str | bytes) -> None:
        """S7: what is said beforehand is what `create_session` would say."""
        self.agree(
            "S16" if self.model.drain_at is not None else "S7",
            lambda: self.subject.check_room(peer, self.sight, namespace=space),
            lambda: self.model.check_room(peer, space),
        )

    @step(session_id=ids, wrong=st.sampled_from(WRONG))
    def create_wrongly(self, session_id: bytes, wrong: tuple[dict[str, Any], tuple[str, ...]]) -> None:
        """S12: all or nothing, and every bad key is named."""
        config, names = wrong
        try:
            self.subject.create_session(session_id, PEERS[0], self.sight, config=config)
        except ConfigError as error:
            self.expect("S12", error.arguments == names, f"{error.arguments} instead of {names}")
        except SttError as error:
            self.break_("S12", repr(error))
        else:
            self.break_("S12", f"{config} was taken")

    @step(session_id=ids)
    def keep(self, session_id: bytes) -> None:
        """Put a record away, as for a store."""
        known = self.model.usable(session_id)
        record = self.subject.get_session(session_id, self.sight)
        self.expect("S2", (record is None) == (known is None), "found or not")
        if record is not None and known is not None:
            self.stored.append((record.to_bytes(), known.copy()))

    @precondition(lambda self: self.stored)
    @step(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        """S11: a late resumption makes nothing live that is over, or known."""
        self.go_on(*data.draw(st.sampled_from(self.stored)))

    def go_on(self, kept: bytes, copy: Known) -> None:
        known = copy.copy()

        def expected() -> None:
            self.model.forget_due()
            if known.expires_at <= self.model.now:
                raise Refused("SessionExpiredError")
            self.model.admit(known)

        record, _ = self.agree(
            "S11", lambda: self.subject.restore_session(SessionRecord.from_bytes(kept), self.sight), expected
        )
        if record is None:
            return
        self.model.restored += 1
        known.generation = self.generation = record.generation
        self.check_record(record, known)

    @step(session_id=ids, lost=st.booleans())
    def move(self, session_id: bytes, lost: bool) -> None:
        """A session goes to another server, and comes back: unless it is still here, since it has work to do."""
        self.keep(pause=0.0, session_id=session_id)
        self.close(pause=0.0, session_id=session_id, reason=EndReason.ERROR if lost else EndReason.MOVED)
        self.sweep(pause=0.0)
        self.cleanup(pause=0.0)
        if self.stored:
            self.go_on(*self.stored[-1])

    # -- looking ---------------------------------------------------------------------------------------------------

    @step(session_id=ids)
    def look(self, session_id: bytes) -> None:
        """S2: whatever the sweep did or did not do; S3: looking changes nothing."""
        known = self.model.usable(session_id)
        with self.unbroken("S2"):
            with counted_calls() as calls:
                record = self.subject.get_session(session_id, self.sight)
            self.expect("S17", calls[0] < MOST_CALLS, f"{calls[0]} calls to look at one of {len(IDS)} sessions")
            self.expect("S2", (record is not None) == (known is not None), f"{record} for {known}")
            if record is not None and known is not None:
                self.check_record(record, known)
            self.expect("S2", self.subject.has_session(session_id, self.sight) == (known is not None), "has")
        if session_id in self.model.known:
            with self.unbroken("S3"):
                left = self.subject.remaining_ttl(session_id, self.sight)
                wanted = 0.0 if known is None else known.expires_at - self.model.now
                self.expect("S3", left == wanted, f"{left} s left, not {wanted}")
        if known is not None:
            self.check_promise(known)

    def check_promise(self, known: Known) -> None:
        """S4: what `extend` gave is there, whatever was done since, until somebody says otherwise."""
        if known.promised > self.model.now:
            with self.unbroken("S4"):
                left = self.subject.remaining_ttl(known.session_id, self.sight)
                self.expect("S4", left >= known.promised - self.model.now, f"{left} s left of what was promised")

    @step()
    def look_around(self) -> None:
        """Everything at once."""
        model, subject = self.model, self.subject
        with self.unbroken("S10"):
            model.forget_due()
            count = subject.get_session_count(self.sight)
            stats = subject.get_stats(self.sight)
            states = [len(model.in_state(state)) for state in STATES]
            self.expect("S10", [stats.active, stats.closing, stats.closed] == states, f"{stats}, not {states}")
            self.expect("S10", stats.total == len(model.known), f"{stats.total} in all")
            self.expect("S10", count == states[0], f"{count} sessions, not {states[0]}")
            self.check_metrics()
        for peer in PEERS:
            found = [each.session_id for each in subject.find_session_by_peer(peer, self.sight)]
            self.check_found("S9", found, lambda known, peer=peer: known.peer == peer)
        for space in SPACES:
            found = [each.session_id for each in subject.get_active_sessions(self.sight, namespace=space)]
            inside = [known for known in model.in_state("established") if known.namespace == space]
            inside.sort(key=lambda known: known.entered)
            self.expect("S13", found == [known.session_id for known in inside], f"{found}, not {inside}")
            listed = {each.session_id for each in subject.list_sessions(self.sight, namespace=space)}
            wanted = {known.session_id for known in model.known.values() if known.namespace == space}
            self.expect("S13", listed == wanted, "listed")
        found = [each.session_id for each in subject.get_active_sessions(self.sight)]
        self.check_found("S9", found, lambda known: True)
        records = subject.list_sessions(self.sight)
        self.expect("S10", {each.session_id for each in records} == model.known.keys(), "listed")
        for record in records:
            if record.session_id in model.known:
                self.check_record(record, model.known[record.session_id])
            self.expect("S8", not hasattr(record.metadata, "clear"), "what is given out can be changed")
        rotated = subject.rotate_all_keys(self.sight)
        urgent = sorted(model.in_state("established"), key=lambda known: (known.config["priority"], known.generation))
        self.expect("S9", list(rotated) == [known.session_id for known in urgent], "whose keys are replaced")

    def check_found(self, name: str, found: list[bytes], belongs: Callable[[Known], bool]) -> None:
        wanted = [known for known in self.model.in_state("established") if belongs(known)]
        wanted.sort(key=lambda known: known.generation)
        self.expect(name, found == [known.session_id for known in wanted], f"{found}, not {wanted}")

    def check_metrics(self) -> None:
        """S10: they add up, and agree with the model."""
        model, metrics = self.model, self.subject.metrics(self.sight)
        over = sum(metrics.ended.values())
        self.expect("S10", metrics.created == metrics.active + metrics.closing + over, f"{metrics} does not add up")
        self.expect("S10", metrics.requests_begun == metrics.requests_ended + metrics.requests_in_flight, "requests")
        ended = {str(reason): count for reason, count in metrics.ended.items() if count}
        self.expect("S10", ended == model.ended, f"{ended}, not {model.ended}")
        self.expect("S10", (metrics.created, metrics.restored) == (model.created, model.restored), "created")
        self.expect("S10", metrics.forgotten == model.forgotten, "forgotten")
        self.expect("S10", metrics.active == len(model.in_state("established")), "active")
        requests = (metrics.requests_begun, metrics.requests_failed, metrics.requests_in_flight)
        self.expect("S10", requests == (model.begun, model.failed, model.in_flight), f"requests {requests}")
        self.expect("S10", metrics.streams == sum(known.open_streams for known in model.known.values()), "streams")
        self.expect("S10", sum(metrics.refused.values()) == self.refused, "refused")

    # -- using and changing ----------------------------------------------------------------------------------------

    @step(session_id=ids)
    def touch(self, session_id: bytes) -> None:
        """S2: a use that comes too late revives nothing."""
        known = self.model.usable(session_id)
        with self.unbroken("S2"):
            self.expect("S2", self.subject.touch(session_id, self.sight) == (known is not None), "used")
        if known is not None:
            known.used = self.model.now
            self.check_promise(known)

    @step(session_id=ids, seconds=st.sampled_from((15.0, 0.5, 3.0)), used=st.booleans())
    def extend(self, session_id: bytes, seconds: float, used: bool) -> None:
        left, known = self.agree(
            "S4" if self.model.usable(session_id) else "S11",
            lambda: self.subject.extend(session_id, seconds, self.sight),
            lambda: self.model.need(session_id),
        )
        if known is not None:
            known.floor = max(known.floor, self.model.now + seconds)
            known.promised = max(known.promised, self.model.now + seconds)
            self.expect("S4", left >= seconds, f"{left} s left")
            self.expect("S3", left == known.expires_at - self.model.now, f"{left} s left")
            if used:
                self.touch(pause=0.5, session_id=session_id)

    @step(
        session_id=ids,
        changes=st.sampled_from((*CHANGES, *(config for config, _ in WRONG))),
        version=st.sampled_from((None, "right", "wrong")),
    )
    def update_config(self, session_id: bytes, changes: dict[str, Any], version: str | None) -> None:
        """S12: all or nothing, by version; S11: nothing by that on what is over."""
        known = self.model.usable(session_id)
        at = 1 if known is None else known.version
        if_version = {"right": at, "wrong": at + 1}.get(str(version))
        names = {str(config): names for config, names in WRONG}.get(str(changes))

        def expected() -> Known:
            known = self.model.need(session_id)
            if names is not None:
                raise Refused("ConfigError", arguments=names)
            if version == "wrong":
                raise Refused("VersionConflictError", version=at)
            return known

        record, known = self.agree(
            "S12" if known is not None else "S11",
            lambda: self.subject.update_config(session_id, changes, self.sight, if_version=if_version),
            expected,
        )
        if known is None:
            return
        config = {**known.config, **{key: DEFAULTS[key] if value is None else value for key, value in changes.items()}}
        known.change_config(config, self.model.now)
        self.model.advance(self.sight)
        self.check_record(record, known)

    @step(session_id=ids, space=st.sampled_from(SPACES))
    def set_namespace(self, session_id: bytes, space: str | bytes) -> None:
        """S13, S7: into another one, if there is room."""
        record, known = self.agree(
            "S7" if self.model.usable(session_id) else "S11",
            lambda: self.subject.set_namespace(session_id, space, self.sight),
            lambda: self.model.place(session_id, space),
        )
        if known is not None:
            self.check_record(record, known)

    @step(session_id=ids, value=st.sampled_from((1, "x", b"y", None, True, 0.5)))
    def set_metadata(self, session_id: bytes, value: Any) -> None:
        """S8: what is changed here is seen nowhere else, whoever holds the dictionary."""
        mine = {"tag": session_id, "value": value}
        record, known = self.agree(
            "S11",
            lambda: self.subject.set_metadata(session_id, mine, self.sight),
            lambda: self.model.need(session_id),
        )
        mine["tag"] = self.shared["tag"] = "changed by the caller"
        if known is not None:
            known.metadata = {"tag": session_id, "value": value}
            self.check_record(record, known)

    # -- work ------------------------------------------------------------------------------------------------------

    @step(session_id=ids, count=st.integers(1, 4))
    def begin(self, session_id: bytes, count: int) -> None:
        for _ in range(count):
            self.begin_one(session_id)

    def begin_one(self, session_id: bytes) -> None:
        name = "S7" if self.model.usable(session_id) else "S16" if self.model.drain_at is not None else "S11"
        token, known = self.agree(
            name,
            lambda: self.subject.begin_request(session_id, self.sight),
            lambda: self.model.begin(session_id),
        )
        if known is not None:
            known.requests.add(token)
            self.tokens.append((token, known))

    @step(session_id=ids, fails=st.booleans())
    def track(self, session_id: bytes, fails: bool) -> None:
        """S6: it ends with the block, however that ends."""
        if not self.model.usable(session_id) or self.model.drain_at is not None:
            return

        def tracked() -> bool:
            try:
                with self.subject.track_request(session_id, self.sight):
                    record = self.subject.inspect(session_id, self.sight)
                    self.expect("S6", record is not None and record.requests == during, "while it is tracked")
                    if fails:
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                self.expect("S6", fails, "it swallowed or made up an exception")
            return True

        during = len(self.model.known[session_id].requests) + 1
        known: Known | None
        _, known = self.agree("S7", tracked, lambda: self.model.begin(session_id))
        if known is not None:
            self.model.failed += fails
            self.model.work_ended(known)

    @precondition(lambda self: self.tokens)
    @step(data=st.data(), failed=st.booleans())
    def end(self, data: st.DataObject, failed: bool) -> None:
        """S6: a request that is ended twice counts once, whatever became of its session."""
        token, known = data.draw(st.sampled_from(self.tokens))
        with self.unbroken("S6"):
            ended = self.subject.end_request(token, self.sight, failed=failed)
            self.expect("S6", ended == (token in known.requests), f"ended: {ended}")
        if token in known.requests:
            known.requests.remove(token)
            self.model.failed += failed
            self.model.work_ended(known)

    @step(session_id=ids)
    def open_stream(self, session_id: bytes) -> None:
        known = self.model.usable(session_id)
        with self.unbroken("S11"):
            opened = self.subject.stream_opened(session_id, self.sight)
            self.expect("S11", opened == (known is not None), "a stream on what is over")
        if known is not None:
            known.streams += 1
            known.used = self.model.now

    @step(session_id=ids)
    def close_stream(self, session_id: bytes) -> None:
        known = self.model.known.get(session_id)
        there = known is not None and known.streams > 0
        with self.unbroken("S6"):
            self.expect("S6", self.subject.stream_closed(session_id, self.sight) == there, "a stream was closed")
        if there and known is not None:
            known.streams -= 1
            self.model.work_ended(known)

    @step(session_id=ids, streams=st.integers(0, 2))
    def speak(self, session_id: bytes, streams: int) -> None:
        """A session that says of itself how it is does so: it is used, if it may be, and its streams come and go."""
        known = self.model.known.get(session_id)
        if known is None or known.said is None:
            return
        if self.subject.has_session(session_id, self.sight):
            known.said.last_used = self.model.now
        known.said.open_streams = min(streams, known.said.open_streams) if known.state == "closing" else streams
        with self.unbroken("S6"):
            self.subject.work_changed(session_id, self.sight)

    # -- ending ----------------------------------------------------------------------------------------------------

    @step(session_id=ids, reason=st.sampled_from(tuple(EndReason)))
    def close(self, session_id: bytes, reason: EndReason) -> None:
        """S9: only this one, and once."""
        known = self.model.known.get(session_id)
        with self.unbroken("S9"):
            before = self.others(session_id)
            changed = known is not None and self.model.close(known, str(reason))
            self.expect("S9", self.subject.close_session(session_id, self.sight, reason) == changed, "closed")
            after = self.others(session_id)
            self.expect("S9", all(before[each] == record for each, record in after.items()), "others changed")
            self.expect("S9", not self.subject.close_session(session_id, self.sight), "closed twice")
            if known is not None and known.session_id in self.model.known:
                self.check_record(self.subject.inspect(session_id, self.sight), known)
            for peer in PEERS:
                found = [each.session_id for each in self.subject.find_session_by_peer(peer, self.sight)]
                self.model.forget_due()
                self.check_found("S9", found, lambda known, peer=peer: known.peer == peer)

    @step(session_id=ids, reason=st.sampled_from(tuple(EndReason)))
    def end_session(self, session_id: bytes, reason: EndReason) -> None:
        """S9, S6: it is over, whatever it was at."""
        known = self.model.known.get(session_id)
        with self.unbroken("S9"):
            before = self.others(session_id)
            changed = known is not None and self.model.close(known, str(reason), over=True)
            self.expect("S9", self.subject.end_session(session_id, self.sight, reason) == changed, "ended")
            after = self.others(session_id)
            self.expect("S9", all(before[each] == record for each, record in after.items()), "others changed")
            self.expect("S9", not self.subject.end_session(session_id, self.sight), "ended twice")

    @step()
    def let_go(self) -> None:
        """S9: the host is told once of each that begins to end without it."""
        with self.unbroken("S9"):
            self.model.forget_due()
            self.subject.get_session_count(self.sight)
            leaving, self.model.leaving = self.model.leaving, {}
            told = self.subject.take_leaving()
            self.expect("S9", {each.session_id for each in told} == leaving.keys(), f"{told}, not {leaving}")
            for each in told:
                self.expect("S9", each.state is STATES[leaving[each.session_id].state], "how it is")

    @step(reason=st.sampled_from(tuple(EndReason)), dice=st.integers(0, 9))
    def close_all(self, reason: EndReason, dice: int) -> None:
        if dice != 7:  # seldom
            return
        self.model.forget_due()
        known = sorted(self.model.known.values(), key=lambda known: known.generation)
        changed = sum([self.model.close(each, str(reason)) for each in known])
        with self.unbroken("S9"):
            self.expect("S9", self.subject.close_all_sessions(self.sight, reason) == changed, "closed")

    @step()
    def sweep(self) -> None:
        """S5: just those that are due and have no work left; S17: no more than those."""
        self.model.forget_due()
        due = {known.session_id: known for known in self.model.due()}
        with self.unbroken("S5"):
            swept = self.subject.sweep(self.sight)
            found = [record.session_id for record in swept]
            self.expect("S16" if self.model.drain_at is not None else "S5",
                        sorted(found) == sorted(due), f"{found}, not {due}")  # fmt: skip
            for record in swept:
                if record.session_id in due:
                    known = due[record.session_id]
                    self.model.finish(known)
                    self.expect("S10", record.is_closed and record.close_reason == known.reason, "why")

    @step()
    def cleanup(self) -> None:
        """H2: what has a request in flight is not forgotten, though it is over."""
        self.model.forget_due()
        free = [known for known in self.model.known.values() if known.free_at is not None]
        for known in free:
            self.model.forget(known)
        with self.unbroken("S6"):
            self.expect("S6", self.subject.cleanup_closed_sessions(self.sight) == len(free), "forgotten")

    @step(timeout=st.sampled_from((0.0, 2.0, 8.0)), dice=st.integers(0, 20))
    def drain(self, timeout: float, dice: int) -> None:
        """S16: nothing new from now on, and all over at the deadline."""
        if dice != 7:  # seldom
            return
        self.model.forget_due()
        deadline = self.model.now + timeout
        for known in sorted(self.model.known.values(), key=lambda known: known.generation):
            self.model.close(known, "shutdown")
        self.model.drain_at = deadline if self.model.drain_at is None else min(self.model.drain_at, deadline)
        with self.unbroken("S16"):
            status = self.subject.drain(self.sight, timeout)
            left = len(self.model.in_state("closing"))
            self.expect("S16", (status.deadline, status.sessions) == (self.model.drain_at, left), f"{status}")
            self.expect("S16", status.is_draining and status.is_over == (left == 0), f"{status}")
            self.expect("S16", status.requests == self.model.in_flight, f"{status}")

    @step()
    def wait_for_the_deadline(self) -> None:
        """S5, S16: a host that sweeps when it is told to is never late, and comes to rest."""
        with self.unbroken("S5"):
            deadline = self.subject.next_deadline()
            due = self.model.due()
            live = self.model.in_state("established")
            if due:
                self.expect("S5", deadline is not None and deadline.at <= self.model.now, f"{deadline}, {due}")
            elif live:
                first = min(known.expires_at for known in live)
                self.expect("S5", deadline is not None and deadline.at <= first, f"{deadline}, not {first}")
            elif self.model.drain_at is not None and self.model.in_state("closing"):
                self.expect("S16", deadline is not None and deadline.at <= self.model.drain_at, f"{deadline}")

    def teardown(self) -> None:
        """In the end, everything is looked at."""
        self.look_around(pause=0.0)


class Stopping(Life):
    """S16: one that begins to stop with work in progress, which is where most of its life happens."""

    @initialize(configs=st.lists(st.sampled_from(CONFIGS), min_size=2, max_size=3), timeout=st.sampled_from((2.0, 8.0)))
    def begin_with_some(self, configs: list[dict[str, Any]], timeout: float) -> None:
        for session_id, config in zip(IDS, configs, strict=False):
            self.create(
                pause=0.0, session_id=session_id, peer=PEERS[0], space="", config=config, shared=True, speaks=False
            )
        self.begin(pause=0.0, session_id=IDS[0], count=1)
        self.open_stream(pause=0.0, session_id=IDS[1])
        self.drain(pause=0.0, timeout=timeout, dice=7)
