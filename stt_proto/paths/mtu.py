"""The largest datagram that a path carries (DPLPMTUD: RFC 8899, RFC 9000 section 14.3; docs/protocol.md, P-17 to P-20).

Nobody on the way tells the truth about sizes, so they are tried: a probe is a packet of one datagram that holds nothing
but PING and PADDING. If it is acknowledged, datagrams have its size from then on. If three of a size get lost, that
size is too large; the loss of a probe says nothing about congestion.

| state | input | next |
|---|---|---|
| SEARCHING | probe acknowledged | SEARCHING between that size and the smallest that failed, or COMPLETE |
| SEARCHING | probe lost, for the third time, or refused by the own host | SEARCHING below that size, or COMPLETE |
| COMPLETE | 600 s over | SEARCHING, up to the largest size again |
| SEARCHING, COMPLETE | a black hole | BASE, with datagrams of the base size |
| SEARCHING, COMPLETE | the own host refuses datagrams of the size in use | as much as it takes, or BASE |
| BASE, ERROR | a datagram of the base size acknowledged | SEARCHING, below the size that got lost |
| BASE | datagrams of the base size get lost as well | ERROR: the path is not fit for this protocol |

A *black hole* swallows large datagrams and lets small ones pass: three times in a row a datagram larger than the base
gets lost that was sent after the loss before was noticed, and nothing as large as any of them is acknowledged in
between. A queue that overflows loses many at once, but lets others pass. An outage looks the same until it is over;
then of two probes the small one and the large one arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from math import inf

from stt_proto.clock import NEVER
from stt_proto.recovery import SentPacket

BASE_SIZE = 1200
"""Bytes that every path has to carry (BASE_PLPMTU); the handshake has shown that it does (W-4)."""

COMMON_SIZES = (1452, 1472, 4048, 8952, 8972, 16_336, 65_507)
"""Bytes of UDP payload that are worth a probe: what Ethernet leaves (1,500 bytes less 48 with IPv6, 28 with IPv4), a
page, jumbo frames (9,000), the loopback of some systems, and the most that there is."""

STEP = 16
"""The search ends when fewer bytes, or less than a hundredth of the size, could be gained."""

MAX_PROBES = 3
"""Probes of one size that get lost before it counts as too large (RFC 8899, 5.1.2)."""

MAX_LOSSES = 3
"""Losses in a row, each of something sent after the one before was noticed, that make a black hole."""

RAISE_AFTER = 600.0
"""Seconds after a search until the path may have become better (PMTU_RAISE_TIMER)."""


class MtuState(Enum):
    """Where the search stands; the values are words for statistics."""

    BASE = "base"
    SEARCHING = "searching"
    COMPLETE = "complete"
    ERROR = "error"


class MtuSearch:
    """Finds the largest datagram of one path, and notices when it is too large.

    Args:
        size: bytes of datagrams that the carrier vouches for, to begin with.
        ceiling: bytes of the largest that carrier and peer might take; no more than `size` if nothing is to be tried.
        base: bytes to which a black hole throws back; at most `size`. The same as `size` where nothing gets lost.

    Attributes:
        size: bytes of datagrams to send now.
        base: as given.
        state: where the search stands.
        candidate: bytes of the next probe, or of the one under way; 0 when nothing is left to try.
        probe_at: when that may be sent; `inf` while one is under way, or there is none.
        watching: whether `on_acked` wants to see what was acknowledged. Nearly always it does not.
        black_holes: how many there were.
    """

    __slots__ = (
        "_ceiling",
        "_doubted_at",
        "_failed",
        "_least_lost",
        "_losses",
        "_since",
        "_top",
        "_tries",
        "_under_way",
        "base",
        "black_holes",
        "candidate",
        "probe_at",
        "size",
        "state",
        "watching",
    )

    def __init__(self, size: int, ceiling: int, base: int = BASE_SIZE) -> None:
        self.size = size
        self.base = base
        self.state = MtuState.SEARCHING
        self.candidate = 0
        self.probe_at = inf
        self.watching = False
        self.black_holes = 0
        self._ceiling = max(ceiling, size)
        self._top = self._ceiling  # the largest that is worth a probe, as far as the own host knows
        self._failed = self._ceiling + 1  # the smallest that is known to be too large
        self._tries = 0
        self._under_way = False
        self._since = NEVER  # packets sent earlier had datagrams of another size
        self._doubted_at = NEVER  # when the last of the losses was noticed
        self._losses = 0
        self._least_lost = inf
        self._aim(NEVER)

    # -- probes ----------------------------------------------------------------------------------------------------

    def on_probe(self) -> None:
        """A probe of `candidate` bytes was sent."""
        self.state = MtuState.SEARCHING
        self.probe_at = inf
        self._tries += 1
        self._under_way = True
        self.watching = True

    def on_refused(self, size: int, limit: int | None, now: float) -> None:
        """The own host does not even send datagrams of this size.

        Args:
            size: bytes of the one that it refused.
            limit: bytes of the largest that it takes, if it says so.
            now: seconds.
        """
        failed = min(max(size if limit is None else limit + 1, self.base + 1), self._failed)
        if failed <= self.size:
            self._shrink(self.base if limit is None else failed - 1, now)
        if limit is not None:
            self._top = min(self._top, failed - 1)
        self._failed = failed
        if self.state is MtuState.BASE:
            self._watch()
        elif self.candidate >= failed:
            self._aim(now)

    def doubts(self, pto_count: int) -> bool:
        """Whether the next probe of a timeout had better be small: large datagrams get lost, or everything does."""
        return self.size > self.base and (self._losses > 0 or pto_count > 1)

    # -- what became of packets ------------------------------------------------------------------------------------

    def on_acked(self, packets: Sequence[SentPacket], now: float) -> None:
        """These packets arrived. To be told while `watching`, and before the losses of the same ACK."""
        largest = 0
        for packet in packets:
            if packet.mtu_probe:
                if self._is_awaited(packet):
                    largest = packet.size
                    self._change_to(packet.size, now)
                    self._aim(now)
            elif packet.time >= self._since:
                largest = max(largest, self._datagram_of(packet))
        if largest >= self._least_lost:
            self._forget_losses()
        if largest >= self.base and self.state in (MtuState.BASE, MtuState.ERROR):
            self._aim(now)
        self._watch()

    def on_lost(self, packets: Sequence[SentPacket], now: float) -> None:
        """These packets did not arrive."""
        least = inf
        floor = self._smallest_suspect()
        since = max(self._since, self._doubted_at)
        for packet in packets:
            if packet.mtu_probe:
                if self._is_awaited(packet):
                    self._on_probe_lost(now)
            elif packet.time >= since:
                size = self._datagram_of(packet)
                if floor <= size < least:
                    least = size
        if least < inf:
            self._losses += 1
            self._doubted_at = now
            self._least_lost = min(self._least_lost, least)
            if self._losses >= MAX_LOSSES:
                self._on_black_hole(int(self._least_lost), now)
        self._watch()

    def _is_awaited(self, packet: SentPacket) -> bool:
        return self._under_way and packet.size == self.candidate

    def _datagram_of(self, packet: SentPacket) -> int:
        """Bytes of the largest datagram of a packet that was sent since the size changed."""
        return packet.size if packet.segments == 1 else self.size

    def _smallest_suspect(self) -> float:
        """Bytes from which on the loss of a datagram speaks against its size."""
        if self.size > self.base:
            return self.base + 1
        return self.base if self.state is MtuState.BASE else inf

    def _on_probe_lost(self, now: float) -> None:
        self._under_way = False
        if self._tries < MAX_PROBES:
            self.probe_at = now
        else:
            self._failed = self.candidate
            self._aim(now)

    def _on_black_hole(self, lost: int, now: float) -> None:
        """Datagrams of `lost` bytes and more do not pass."""
        if self.state is MtuState.BASE:
            self.state = MtuState.ERROR
            self._forget_losses()
            return
        self.black_holes += 1
        self._failed = lost
        self._shrink(self.base, now)

    # -- the search ------------------------------------------------------------------------------------------------

    def _aim(self, now: float) -> None:
        """Choose the next size to try; when nothing is left, one for later."""
        self._tries = 0
        self._under_way = False
        self.candidate = self._between(self.size, self._failed)
        if self.candidate:
            self.state = MtuState.SEARCHING
            self.probe_at = now
            return
        self.state = MtuState.COMPLETE
        self._top = self._ceiling
        self._failed = self._ceiling + 1
        self.candidate = self._between(self.size, self._failed)
        self.probe_at = now + RAISE_AFTER if self.candidate else inf

    def _between(self, passed: int, failed: int) -> int:
        """A size between one that passed and one that did not, 0 if they are close enough."""
        for size in COMMON_SIZES:
            if passed < size < failed:
                return size
        if passed < self._top < failed:
            return self._top
        return (passed + failed) // 2 if failed - passed > max(STEP, passed // 100) else 0

    def _shrink(self, size: int, now: float) -> None:
        """Send no larger datagrams than these; when that is the base, see first that they arrive."""
        self._change_to(size, now)
        if size == self.base:
            self.state = MtuState.BASE
            self.candidate = 0
            self.probe_at = inf
            self._under_way = False

    def _change_to(self, size: int, now: float) -> None:
        self.size = size
        self._since = now
        self._forget_losses()

    def _forget_losses(self) -> None:
        self._losses = 0
        self._least_lost = inf

    def _watch(self) -> None:
        """Look at acknowledgements only while they can tell something."""
        unsure = self.state is MtuState.BASE or self.state is MtuState.ERROR
        self.watching = unsure or self._under_way or self._losses > 0
