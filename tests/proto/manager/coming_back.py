"""S15 as a machine: a client that loses its sessions, a server that may have heard it, and words that get lost."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from stt_proto.errors import StateError
from stt_proto.manager import Fate, Operation, Reconnector
from tests.proto.manager.checked import Checked


class ComingBack(Checked):
    """A client, and what the server has done for it."""

    make: ClassVar[Any] = Reconnector

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.serial = 0
        self.client: Reconnector = type(self).make(0.0, self.entropy)
        self.sessions = 0  # that were made
        self.losses = 0  # that were told, one for each session
        self.failures = 0  # in a row
        self.dials = self.dial_failures = 0
        self.current: bytes | None = None
        self.old: list[bytes] = []
        self.dialling = False
        self.operations: list[Operation] = []
        self.heard: dict[bytes, int] = {}  # how often the server was told of each
        self.given_up: set[bytes] = set()

    def entropy(self, size: int) -> bytes:
        self.serial += 1
        return (self.serial * 0x9E3779B97F4A7C15 % (1 << 8 * size)).to_bytes(size)

    @property
    def pending(self) -> list[Operation]:
        return [operation for operation in self.operations if not operation.is_over]

    @initialize()
    def begin_connected(self) -> None:
        self.dial(seconds=0.0)
        self.answer(works=True)

    @rule(seconds=st.sampled_from((70.0, 0.0, 0.4, 1.0, 10.0, -5.0)))
    def dial(self, seconds: float) -> None:
        deadline = self.client.next_deadline()
        told = self.now + seconds
        self.now = max(self.now, told)
        due = deadline is not None and deadline.at <= self.now
        with self.unbroken("S15"):
            dialled = self.client.dial(told)
            self.expect("S15", dialled == due, f"dialled: {dialled}, due: {due}")
            self.dials += dialled
            self.dialling |= dialled
            self.expect("S15", self.dials <= 1 + self.losses + self.dial_failures, "more dials than reasons")

    @precondition(lambda self: not self.dialling)
    @rule()
    def answer_nobody(self) -> None:
        """A session that nobody has dialled for is refused."""
        try:
            self.client.connected(b"one more", self.now)
        except StateError:
            return
        self.break_("S15", "a session too many")

    @precondition(lambda self: self.dialling)
    @rule(works=st.sampled_from((True, True, False)))
    def answer(self, works: bool) -> None:
        """The dial comes to an end."""
        session_id = (self.sessions + 1).to_bytes(8)
        self.dialling = False
        with self.unbroken("S15"):
            if works:
                self.sessions += 1
                self.current = session_id
                self.failures = 0
                again = self.client.connected(session_id, self.now)
                self.expect("S15", list(again) == self.pending, "what is to be sent again")
                self.expect("S15", self.sessions <= 1 + self.losses, "more sessions than losses")
            else:
                self.client.failed(self.now)
                self.dial_failures += 1
                self.check_delay()

    def check_delay(self) -> None:
        """1 s doubling to 60 s, and the lower half of it left to chance."""
        deadline = self.client.next_deadline()
        longest = min(2.0**self.failures, 60.0)
        self.failures += 1
        wait = -1.0 if deadline is None else deadline.at - self.now
        self.expect("S15", longest / 2 - 1e-6 <= wait <= longest + 1e-6, f"{wait} s instead of {longest}")

    @precondition(lambda self: self.current is not None)
    @rule(repeats=st.booleans())
    def lose(self, repeats: bool) -> None:
        """The session is lost, and that is told once or twice."""
        assert self.current is not None
        sent = {operation.operation_id for operation in self.pending if operation.session_id is not None}
        mortal = [operation for operation in self.pending if not operation.repeatable]
        with self.unbroken("S15"):
            given_up = list(self.client.lost(self.current, self.now))
            self.losses += 1
            self.expect("S15", given_up == mortal, "what is given up")
            for operation in given_up:
                fate = Fate.UNKNOWN if operation.operation_id in sent else Fate.NOT_SENT
                self.expect("S15", operation.fate is fate, f"{operation.fate}, not {fate}")
            self.check_delay()
            self.old.append(self.current)
            if repeats:
                before = self.client.next_deadline()
                self.client.lost(self.current, self.now)
                self.expect("S15", self.client.next_deadline() == before, "one loss counted twice")
            self.current = None

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def lose_an_old_one(self, data: st.DataObject) -> None:
        """Late news of a session that is long gone ends nothing."""
        before = self.client.session_id, self.client.next_deadline()
        with self.unbroken("S15"):
            given_up = self.client.lost(data.draw(st.sampled_from(self.old)), self.now)
            after = self.client.session_id, self.client.next_deadline()
            self.expect("S15", not given_up and after == before, "an old loss counted again")

    @rule(repeatable=st.booleans())
    def ask(self, repeatable: bool) -> None:
        with self.unbroken("S15"):
            operation = self.client.begin(repeatable=repeatable)
            known = {each.operation_id for each in self.operations}
            self.expect("S15", operation.operation_id not in known, "an id came twice")
            self.operations.append(operation)

    @precondition(lambda self: self.current is not None and self.pending)
    @rule(data=st.data(), arrives=st.booleans(), answered=st.booleans())
    def send(self, data: st.DataObject, arrives: bool, answered: bool) -> None:
        """Send what is pending, again too; the server may hear it, and the client may hear that."""
        operation = data.draw(st.sampled_from(self.pending))
        if not operation.repeatable and operation.session_id is not None:
            return
        with self.unbroken("S15"):
            self.client.sent(operation)
            self.expect("S15", operation.session_id == self.current, "sent on another session")
            if arrives:
                self.heard[operation.operation_id] = self.heard.get(operation.operation_id, 0) + 1
                if answered:
                    self.expect("S15", self.client.acknowledged(operation), "confirmed")

    @precondition(lambda self: self.operations)
    @rule(data=st.data())
    def confirm_late(self, data: st.DataObject) -> None:
        """A confirmation comes at any time: it counts if the operation is pending, and was sent."""
        operation = data.draw(st.sampled_from(self.operations))
        if operation.operation_id in self.heard:
            pending = not operation.is_over
            self.expect("S15", self.client.acknowledged(operation) == pending, "a confirmation that came late")

    def teardown(self) -> None:
        """None is done that the server never heard of; what cannot be repeated was sent once at most."""
        with self.unbroken("S15"):
            self.client.stop()
            for operation in self.operations:
                heard = self.heard.get(operation.operation_id, 0)
                self.expect("S15", operation.is_over, "neither done nor given up")
                self.expect("S15", operation.fate is not Fate.DONE or heard > 0, "done, and never heard of")
                self.expect("S15", operation.fate is not Fate.NOT_SENT or heard == 0, "heard of, and never sent")
                self.expect("S15", operation.repeatable or heard <= 1, "sent twice")
