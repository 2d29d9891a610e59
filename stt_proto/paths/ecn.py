"""Whether a path carries marks of congestion (RFC 9000, 13.4.2 and A.4; docs/protocol.md, R-11).

Routers that know ECN mark datagrams instead of dropping them, if these say that their sender understands (ECT(0)). Some
paths clear the bits, some set them as they like, and a few drop what has them. So the first packets are a test, and the
peer's counts of what it saw must fit to what was sent, now and later. Nothing is marked before the peer has
acknowledged something: the handshake and what overtakes it have enough to worry about. What asks for no acknowledgement
never is: if marks were dropped from some day on, nobody would miss it.

| state | packets are marked | input | next |
|---|---|---|---|
| UNTESTED | no | an acknowledgement | TESTING |
| TESTING | yes | 10 sent, or a timeout | UNKNOWN; UNTESTED if none was sent |
| TESTING, UNKNOWN | yes, no | a marked one acknowledged, the counts fit | CAPABLE |
| UNKNOWN | no | all marked ones lost | UNTESTED; FAILED when it is the second time in a row |
| CAPABLE | yes | two timeouts in a row | UNTESTED: this may be another path now |
| any | | the counts do not fit, or are missing | FAILED, for good |
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import inf

from stt_proto.recovery import SentPacket

ECT0 = 2
"""The code point of a datagram whose sender understands marks (RFC 3168)."""

TEST_PACKETS = 10
"""Packets that are marked before the answer is awaited (RFC 9000, A.4)."""

MAX_TESTS = 2
"""Tests of which nothing arrives, in a row, until the marks count as the reason: the network may have been away."""

Counts = tuple[int, int, int]
"""Packets that the peer saw with ECT(0), ECT(1) and CE."""


class EcnState(Enum):
    """What is known; the values are words for statistics."""

    UNTESTED = "untested"
    TESTING = "testing"
    UNKNOWN = "unknown"
    CAPABLE = "capable"
    FAILED = "failed"


class EcnValidation:
    """Decides which packets of one path are marked.

    Args:
        able: whether datagrams of this carrier can be marked at all.

    Attributes:
        state: what is known.
        codepoint: the two bits for the next packet that is to be acknowledged, unless `testing`.
        testing: whether `test` decides about the next packet.
        active: whether marks that the peer reports are to be believed, and `on_acked` wants to hear of them.
    """

    __slots__ = (
        "_first",
        "_largest",
        "_lost",
        "_marked_before",
        "_reported",
        "_test_first",
        "_test_last",
        "_tests",
        "_vain",
        "active",
        "codepoint",
        "state",
        "testing",
    )

    def __init__(self, able: bool) -> None:
        self.state = EcnState.UNTESTED if able else EcnState.FAILED
        self.active = able
        self.testing = False
        self.codepoint = 0
        self._largest = -1
        self._reported = 0  # of the peer's counts: ECT(0) and CE together
        self._marked_before = 0  # packets marked in tests that are over, and while that was known to work
        self._tests = 0
        self._test_first = self._test_last = -1
        self._lost = 0
        self._vain = 0  # tests of which nothing arrived
        self._first: float = inf  # the packet number from which on every packet that elicits is marked

    def on_moved(self, able: bool, next_number: int) -> EcnValidation:
        """The session moves: what to go by on the path where it goes on.

        The peer counts for the whole session (R-1), so what was marked here is in its counts for ever; all else begins
        anew.
        """
        other = EcnValidation(able)
        other._largest = self._largest
        other._reported = self._reported
        other._marked_before = self._marked_up_to(next_number - 1)
        return other

    # -- sending ---------------------------------------------------------------------------------------------------

    def test(self, number: int) -> int:
        """The bits for a packet that is sent in a test; asked only while `testing`."""
        if not self._tests:
            self._test_first = number
        self._test_last = number
        self._tests += 1
        if self._tests >= TEST_PACKETS:
            self._wait()
        return ECT0

    def on_timeout(self, pto_count: int, next_number: int) -> None:
        """An answer is overdue, for the `pto_count`th time in a row, and the marks may be the reason."""
        if self.state is EcnState.TESTING and pto_count:
            self._wait()
        elif self.state is EcnState.CAPABLE and pto_count > 1:
            self._marked_before += max(0, next_number - int(self._first))
            self._first = inf
            self.codepoint = 0
            self.state = EcnState.UNTESTED

    def _wait(self) -> None:
        """Mark nothing until the fate of the test is known; one that has not begun is put off."""
        self.state = EcnState.UNKNOWN if self._tests else EcnState.UNTESTED
        self.testing = False
        self.codepoint = 0

    # -- what became of packets ------------------------------------------------------------------------------------

    def on_acked(self, packets: Sequence[SentPacket], largest: int, counts: Counts | None, next_number: int) -> None:
        """An ACK arrived.

        Args:
            packets: what it newly acknowledges, at least one, in the order of sending.
            largest: the largest number in it.
            counts: the counts in it.
            next_number: every packet from this number on is yet to be sent.
        """
        if largest <= self._largest:
            return  # it was overtaken: its counts are old (RFC 9000, 13.4.2.1)
        self._largest = largest
        if self.state is EcnState.UNTESTED:
            self._begin_test()
        marked = self._marked_among(packets)
        if counts is None:
            if marked:
                self._fail()
            return
        ect0, ect1, ce = counts
        reported = ect0 + ce
        if ect1 or reported < self._reported + marked or reported > self._marked_up_to(largest):
            self._fail()
            return
        self._reported = reported
        if marked and self.state is not EcnState.CAPABLE:
            self.state = EcnState.CAPABLE
            self.testing = False
            self.codepoint = ECT0
            self._vain = 0
            self._marked_before += self._tests
            self._tests = 0
            self._first = next_number

    def on_lost(self, packets: Sequence[SentPacket]) -> None:
        """These packets did not arrive."""
        for packet in packets:
            if self._test_first <= packet.number <= self._test_last:
                self._lost += 1
        if self.state is EcnState.UNKNOWN and self._lost >= self._tests:
            self._vain += 1
            if self._vain >= MAX_TESTS:
                self._fail()
            else:
                self.state = EcnState.UNTESTED

    def _begin_test(self) -> None:
        self.state = EcnState.TESTING
        self.testing = True
        self._marked_before += self._tests
        self._tests = self._lost = 0

    def _marked_among(self, packets: Sequence[SentPacket]) -> int:
        if packets[0].number >= self._first:
            return len(packets)
        first, last = self._test_first, self._test_last
        return sum(packet.number >= self._first or first <= packet.number <= last for packet in packets)

    def _marked_up_to(self, largest: int) -> int:
        """How many marked packets the peer can have seen when it has seen this one."""
        return self._marked_before + self._tests + max(0, largest + 1 - int(min(self._first, largest + 1)))

    def _fail(self) -> None:
        self.state = EcnState.FAILED
        self.active = self.testing = False
        self.codepoint = 0
