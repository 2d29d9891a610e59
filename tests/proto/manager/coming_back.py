"""S15 as a machine, as far as it needs no network: a client that loses its sessions, and a host that does what it says.

What becomes of operations is in tests/anyio/test_reconnecting.py.
"""

from __future__ import annotations

from math import inf
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from stt_proto.errors import AuthenticationError, ConnectionTimeoutError
from stt_proto.reconnect import Connected, GivenUp, Reconnector, ReconnectPolicy
from tests.proto.manager.checked import Checked


class ComingBack(Checked):
    """A client, and how many sessions were made for it."""

    make: ClassVar[Any] = Reconnector

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.serial = 0
        self.client: Reconnector = type(self).make(ReconnectPolicy(), now=0.0, entropy=self.entropy)
        self.losses = self.sessions = self.failures = 0
        self.dials = self.dials_failed = 0
        self.up = False
        self.up_since = 0.0

    def entropy(self, size: int) -> bytes:
        self.serial += 1
        return (self.serial * 0x9E3779B97F4A7C15 % (1 << 8 * size)).to_bytes(size)

    @property
    def dialling(self) -> int:
        return self.dials - self.dials_failed - self.sessions

    @rule(seconds=st.sampled_from((70.0, 0.0, 0.5, 1.0, 5.0, 20.0)))
    def dial(self, seconds: float) -> None:
        """A host that dials whenever that is due."""
        self.now += seconds
        with self.unbroken("S15"):
            while self.client.next_dial <= self.now and self.dialling < 3:
                self.client.dial()
                self.dials += 1
            self.expect("S15", self.dialling <= 1, "more dials than one at a time")
            self.expect("S15", self.dials <= 1 + self.losses + self.dials_failed, "more dials than reasons")

    @precondition(lambda self: self.dialling == 1)
    @rule(works=st.sampled_from((True, True, False)))
    def answer(self, works: bool) -> None:
        with self.unbroken("S15"):
            if works:
                self.sessions += 1
                self.up, self.up_since = True, self.now
                self.client.connected(self.now)
                self.expect("S15", isinstance(self.client.state, Connected), "not connected")
                self.expect("S15", self.client.next_dial == inf, "it dials though it has a session")
                self.expect("S15", self.sessions <= 1 + self.losses, "more sessions than losses")
                return
            self.dials_failed += 1
            self.client.failed(ConnectionTimeoutError("nobody answers"), self.now)
            self.check_wait(first=False)

    def check_wait(self, *, first: bool) -> None:
        """1 s doubling to 60 s, a quarter of it left to chance; or at once, after a session."""
        longest = min(2.0**self.failures, 60.0)
        wait = self.client.next_dial - self.now
        if first and wait == 0:
            return
        self.failures += 1
        self.expect("S15", 0.75 * longest - 1e-6 <= wait <= longest + 1e-6, f"{wait} s instead of {longest}")

    @precondition(lambda self: self.up)
    @rule(times=st.integers(1, 3))
    def lose(self, times: int) -> None:
        """The session is lost, and that is told once or more often."""
        self.up = False
        self.losses += 1
        if self.now - self.up_since >= 10:
            self.failures = 0
        with self.unbroken("S15"):
            self.client.lost("timeout", None, self.now)
            self.check_wait(first=True)
            before = self.client.next_dial
            for _ in range(times - 1):
                self.client.lost("timeout", None, self.now)
            self.expect("S15", self.client.next_dial == before, "one loss counted twice")

    @precondition(lambda self: self.dialling == 1)
    @rule(dice=st.integers(0, 9))
    def refuse(self, dice: int) -> None:
        """What cannot change is told, and nobody dials again; where there was a session, it passes for a failure."""
        if dice != 7:  # seldom
            return
        self.dials_failed += 1
        with self.unbroken("S15"):
            self.client.failed(AuthenticationError("another seed"), self.now)
            if self.sessions:
                self.check_wait(first=False)
                return
            self.expect("S15", isinstance(self.client.state, GivenUp), "it was not given up")
            self.client.lost("timeout", None, self.now)
            self.expect("S15", self.client.next_dial == inf, "it dials again")
