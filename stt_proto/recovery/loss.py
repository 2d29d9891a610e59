"""Loss detection of one path (RFC 9002, section 6 and appendix A; docs/protocol.md, R-1 to R-8 and R-17).

All paths of a session draw packet numbers from one counter and are acknowledged together, while each has a `Recovery`
of its own. So an ACK speaks of packets that other paths sent, and each `Recovery` picks out its own.

What is outstanding stands in a list in the order of sending, behind an index that moves on, and that is the whole
trick. Packets are acknowledged and lost from that end: once an ACK was taken in, no more than the reordering threshold
lies outstanding below the largest acknowledged, for the rest was just declared lost. Ranges and packets are both in
order, so one pass, as in a merge, finds what is new. It steps over what an ACK newly settles, leaps over what belongs
to a range of another path, and never looks again at what was acknowledged before. (A dict in the order of insertion
is slower at this: to find its first key it walks over everything deleted since it last grew, 3 us with 10,000 packets
in flight. A deque is as fast, but keeps 0.8 KB when empty and 8 KB after a burst.)
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf
from operator import attrgetter

from stt_proto.clock import NEVER
from stt_proto.errors import ArgumentError
from stt_proto.recovery.acks import Ranges
from stt_proto.recovery.congestion import ControllerFactory, GuardedController, Uncongested, make_controller
from stt_proto.recovery.pacer import SHORTEST_RTT, Pacer
from stt_proto.recovery.rtt import INITIAL_RTT, RttEstimator
from stt_proto.recovery.sent import SentPacket
from stt_proto.recovery.stats import RecoveryStats

PACKET_THRESHOLD = 3
"""Packets sent later that must have arrived before one is lost for being out of order (kPacketThreshold)."""

PROBES = 2
"""Packets that may be sent beyond the window when an answer is overdue."""

UNANSWERED_PROBES = 32
"""Probes on their way that are remembered while nothing is acknowledged: 16 timeouts, 7 s at least (R-5)."""

MAX_DOUBLINGS = 6
PATIENT_TIMEOUT = 1.0
MAX_TIMEOUT = 10.0
"""Bounds of the back-off: so many doublings, or up to the first time; never beyond the second, in seconds (R-5)."""
ENOUGH_DOUBLINGS = 10
"""Doublings with which the shortest timeout there is, of 1 ms, reaches `PATIENT_TIMEOUT`."""
PATIENCE = 4
LEAST_PATIENCE = 1.0
"""So many times the timeout, and so many seconds, pass before a reliable carrier is asked (R-17)."""

PERSISTENT_THRESHOLD = 3
"""Timeouts without anything delivered that make congestion persistent (kPersistentCongestionThreshold)."""

LOSS_HORIZON = 1024
"""Datagrams over which `Recovery.datagram_loss` is smoothed: enough to tell the 0.1 % that make a long train unwise."""

LOSS_FLOOR = 1e-6
"""A smoothed loss below this is none."""

_NUMBER = attrgetter("number")


class Recovery:
    """Knows what is on its way on one path, and decides what is lost and when to send.

    Args:
        max_datagram_size: bytes of the largest datagram that the path carries.
        congestion: the congestion controller: a name in `CONTROLLERS`, or a factory.
        initial_rtt: seconds; what the handshake measured, if it did.
        max_ack_delay: seconds that the peer promises to wait at most before it acknowledges.
        ce_count: CE marks that the peer has reported on the session before it had this path.
        reliable: whether the carrier loses nothing and keeps the order. Then nothing is repeated that it still holds,
            and `congestion` decides nothing (R-17).

    Attributes:
        rtt: the round-trip times.
        controller: the congestion controller.
        max_datagram_size: bytes.
        max_ack_delay: seconds.
        ce_count: CE marks reported so far, over all paths.
        bytes_in_flight: bytes sent whose fate is not known.
        delivered, delivered_time: bytes acknowledged so far, and when the last of them were.
        lost: bytes declared lost so far, probes of the MTU left out.
        packets_sent, packets_acked, packets_lost: as in `RecoveryStats`.
        datagram_loss: smoothed share of datagrams that are lost, 0 to 1. Of a lost packet of n datagrams one counts
            as lost and n - 1 as delivered.
        probes: eliciting packets that are to be sent now, beyond window and pacing, one datagram each. A timeout sets
            it, sending counts it down, an acknowledgement clears it.
        pto_count: timeouts since the last answer.
        app_limited, window_used: see `PathState`.

    Raises:
        ArgumentError: names the argument that is out of range.
    """

    __slots__ = (
        "_app_limited_until",
        "_extra",
        "_fired_at",
        "_first_sent_time",
        "_full_until",
        "_head",
        "_largest_acked",
        "_last_eliciting",
        "_loss_time",
        "_pacer",
        "_sent",
        "_silent",
        "_unanswered",
        "app_limited",
        "bytes_in_flight",
        "ce_count",
        "controller",
        "datagram_loss",
        "delivered",
        "delivered_time",
        "lost",
        "max_ack_delay",
        "max_datagram_size",
        "packets_acked",
        "packets_lost",
        "packets_sent",
        "probes",
        "pto_count",
        "reliable",
        "rtt",
        "window_used",
    )

    def __init__(
        self,
        max_datagram_size: int,
        *,
        congestion: str | ControllerFactory = "newreno",
        initial_rtt: float = INITIAL_RTT,
        max_ack_delay: float = 0.025,
        ce_count: int = 0,
        reliable: bool = False,
    ) -> None:
        self.rtt = RttEstimator(initial_rtt)
        self.reliable = reliable
        self.controller = Uncongested() if reliable else make_controller(congestion, max_datagram_size, self.rtt)
        self.max_datagram_size = max_datagram_size
        self.set_max_ack_delay(max_ack_delay)
        self.ce_count = ce_count
        self.bytes_in_flight = 0
        self.delivered = 0
        self.delivered_time = 0.0
        self.lost = 0
        self.packets_sent = 0
        self.packets_acked = 0
        self.packets_lost = 0
        self.datagram_loss = 0.0
        self.probes = 0
        self.pto_count = 0
        self.app_limited = False
        self.window_used = False
        self._pacer = Pacer()
        self._sent: list[SentPacket] = []  # outstanding from _head on; empty if nothing is
        self._head = 0
        self._silent = 0  # of the outstanding, those that do not elicit
        self._largest_acked = -1  # an index, like _full_until
        self._full_until = 0  # packets before this one were in flight together with a full window
        self._last_eliciting = 0.0
        self._unanswered = 0  # probes sent since anything was acknowledged
        self._extra = False  # the next packet is a probe of which no timeout knows
        self._loss_time = inf
        self._fired_at = NEVER
        self._first_sent_time = 0.0
        self._app_limited_until = 0

    # -- sending -------------------------------------------------------------------------------------------------

    def on_sent(self, packet: SentPacket) -> None:
        """A packet was sent at `packet.time`, with a higher number than any before.

        One that neither elicits nor fills the window is not recorded: nothing tells of its fate.
        """
        size = packet.size
        if packet.eliciting:
            if not self._extra or len(self._sent) - self._head == self._silent:
                self._last_eliciting = packet.time
            self._extra = False
            if self.probes:
                self.probes -= 1
                self._unanswered += 1
        elif packet.in_flight:
            self._silent += 1
        else:
            return
        if not self.bytes_in_flight:
            self.delivered_time = self._first_sent_time = packet.time
        packet.index = self.packets_sent
        packet.delivered = self.delivered
        packet.delivered_time = self.delivered_time
        packet.first_sent_time = self._first_sent_time
        packet.app_limited = self.app_limited
        self.packets_sent += 1
        self.bytes_in_flight += size
        self._sent.append(packet)
        self._pacer.on_sent(size)
        self.controller.on_sent(packet, self)

    def can_send(self, size: int) -> bool:
        """Whether the window has room for `size` bytes more.

        Ask only for what is ready to be sent: a refusal proves that the window is in use, and lets it grow (R-8).
        """
        if self.bytes_in_flight + size <= self.controller.window:
            return True
        self._full_until = self.packets_sent
        return False

    def pacing_deadline(self, now: float, size: int) -> float:
        """When a packet of `size` bytes may leave: 0.0 for now, else at least a millisecond ahead.

        Ask only for what is ready to be sent. Held back with half of the window in flight, it would have been full
        without this delay: that counts as in use (RFC 9002, 7.8).
        """
        if self.rtt.smoothed < SHORTEST_RTT:
            return 0.0
        rate = self.controller.pacing_rate
        if rate is None:
            return 0.0
        at = self._pacer.deadline(now, size, rate, self.max_datagram_size)
        if at and 2 * self.bytes_in_flight >= self.controller.window:
            self._full_until = self.packets_sent
        return at

    def on_app_limited(self) -> None:
        """There is nothing more to send. If the window has room, rates measured now are the application's."""
        in_flight = self.bytes_in_flight
        if in_flight + self.max_datagram_size <= self.controller.window:
            self.app_limited = True
            self._app_limited_until = self.delivered + in_flight

    # -- acknowledgements ----------------------------------------------------------------------------------------

    def on_ack(
        self,
        ranges: Ranges,
        delay: float,
        now: float,
        sample_ok: bool = True,
        ecn: tuple[int, int, int] | None = None,
    ) -> tuple[list[SentPacket], list[SentPacket]]:
        """Take in an ACK frame. Every path of the session gets every ACK, and takes from it what is its own.

        Args:
            ranges: of packet numbers over the whole session, newest first; at least one.
            delay: seconds that the peer says it waited.
            now: seconds.
            sample_ok: whether the ACK came over this path; only then it says how long this path is (R-3).
            ecn: counts of ECT(0), ECT(1) and CE, when this side marks its datagrams and the peer reports. A rise of
                the last counts against the paths of which this ACK acknowledges something.

        Returns:
            The packets newly acknowledged and those declared lost, each in the order of sending.
        """
        marked = False
        if ecn is not None and ecn[2] > self.ce_count:
            self.ce_count = ecn[2]
            marked = True
        sent = self._sent
        if not sent or ranges[0][1] < sent[self._head].number:
            return [], []
        acked = self._take_acked(ranges)
        if not acked:
            return acked, []

        newest = acked[-1]
        if newest.index > self._largest_acked:
            self._largest_acked = newest.index
            self._first_sent_time = newest.time
        sample: float | None = None
        if sample_ok and newest.eliciting and newest.number == ranges[0][1]:
            sample = now - newest.time
            self.rtt.update(sample, delay if delay < self.max_ack_delay else self.max_ack_delay, now)
        if sample_ok or now - newest.time <= self.pto:  # else the answer's own way is longer than anybody measured
            self.pto_count = 0
        self.probes = self._unanswered = 0
        self._extra = False
        self.packets_acked += len(acked)
        self.delivered_time = now
        if self.app_limited and self.delivered > self._app_limited_until:
            self.app_limited = False
        self.window_used = newest.index < self._full_until

        if marked:
            self.controller.on_congestion_mark(newest.time, now, self)
        lost = self._detect_lost(now)
        if self.datagram_loss:
            self._smooth_loss(sum([packet.segments for packet in acked]), 0)
        self.controller.on_acked(acked, now, sample, self)
        return acked, lost

    def _take_acked(self, ranges: Ranges) -> list[SentPacket]:
        """Remove the packets that `ranges` name, oldest first."""
        sent = self._sent
        at = self._head
        end = len(sent)
        if len(ranges) > 1:
            ranges = _oldest_first(ranges, sent[at].number)
        acked: list[SentPacket] = []
        passed: list[SentPacket] = []
        size = 0
        for low, high in ranges:
            first = last = at
            if at < end and sent[at].number < low:
                first = last = bisect_left(sent, low, at, end, key=_NUMBER)
            while last < end:
                packet = sent[last]
                if packet.number > high:
                    break
                last += 1
                acked.append(packet)
                size += packet.size
                if not packet.eliciting:
                    self._silent -= 1
            if last > first:
                if first > at:
                    passed += sent[at:first]
                at = last
        if passed:
            end = at
            at -= len(passed)
            sent[at:end] = passed
        self._move_head(at)
        self.bytes_in_flight -= size
        self.delivered += size
        return acked

    def _move_head(self, head: int) -> None:
        """Settle all before `head`; the list itself is cut when half of it is settled."""
        sent = self._sent
        if 2 * head >= len(sent):
            del sent[:head]
            head = 0
        self._head = head

    # -- losses --------------------------------------------------------------------------------------------------

    def _detect_lost(self, now: float) -> list[SentPacket]:
        """Remove what is lost, and set the time at which the next packet will be.

        Age and distance both fall from the oldest packet to the newest, so the first that is not lost ends the walk.
        """
        self._loss_time = inf
        sent = self._sent
        at = head = self._head
        end = len(sent)
        largest = self._largest_acked
        if at == end or sent[at].index > largest:
            return []
        delay = inf if self.reliable else self.rtt.loss_delay
        while at < end:
            packet = sent[at]
            if packet.index > largest:
                break
            # The same sum decides and sets the timer, so a timer on time always finds what it was set for.
            lost_at = packet.time + delay
            if lost_at > now and packet.index > largest - PACKET_THRESHOLD:
                self._loss_time = lost_at
                break
            at += 1
        if at == head:
            return []
        lost = sent[head:at]
        self._move_head(at)
        self._on_lost(lost, now)
        return lost

    def _on_lost(self, lost: list[SentPacket], now: float) -> None:
        """Count what was just removed, and tell the controller what of it speaks of congestion."""
        self._silent -= sum(not packet.eliciting for packet in lost)
        self.bytes_in_flight -= sum(packet.size for packet in lost)
        congested = [packet for packet in lost if not packet.mtu_probe]
        if not congested:
            return
        self.packets_lost += len(congested)
        self.lost += sum(packet.size for packet in congested)
        self._smooth_loss(sum(packet.segments - 1 for packet in congested), len(congested))
        persistent = self._is_persistent(lost)
        self.controller.on_lost(congested, now, persistent, self)
        if persistent:
            self.rtt.restart_minimum()

    def _give_up(self, count: int, now: float) -> list[SentPacket]:
        """Declare the oldest packets lost that nobody acknowledged for very long: as many as there are probes too many.

        The peer may speak all the time and acknowledge nothing. The window is full then, but each timeout adds probes.
        """
        if count <= 0:
            return []
        head = self._head
        lost = self._sent[head : head + count]
        self._move_head(head + len(lost))
        self._unanswered -= count
        self._on_lost(lost, now)
        return lost

    def _is_persistent(self, lost: list[SentPacket]) -> bool:
        """Whether nothing arrived of what was sent over a long time (RFC 9002, 7.6.2).

        Only eliciting packets mark that time, and only those sent after the first RTT sample. A hole in the indices
        is a packet that was acknowledged.
        """
        duration = PERSISTENT_THRESHOLD * self.pto
        start = inf
        expected = lost[0].index
        for packet in lost:
            if packet.index != expected:
                start = inf
            expected = packet.index + 1
            if packet.eliciting and not packet.mtu_probe and packet.time > self.rtt.first_sample_at:
                start = min(start, packet.time)
                if packet.time - start > duration:
                    return True
        return False

    def _smooth_loss(self, delivered: int, lost: int) -> None:
        """Move the smoothed loss by a number of datagrams whose fate became known."""
        datagrams = delivered + lost
        loss = self.datagram_loss + (lost - self.datagram_loss * datagrams) / (datagrams + LOSS_HORIZON)
        self.datagram_loss = loss if loss > LOSS_FLOOR else 0.0

    # -- timers --------------------------------------------------------------------------------------------------

    @property
    def pto(self) -> float:
        """The probe timeout in seconds, without back-off."""
        return self.rtt.timeout(self.max_ack_delay)

    @property
    def deadline(self) -> float:
        """When `on_timeout` wants to be called; `inf` while nothing elicits an answer."""
        if self._loss_time != inf:
            return self._loss_time
        if len(self._sent) - self._head == self._silent:
            return inf
        timeout = self.rtt.timeout(self.max_ack_delay)
        if self.reliable:
            timeout = max(PATIENCE * timeout, LEAST_PATIENCE)
        if self.pto_count:
            longest = max(timeout * (1 << MAX_DOUBLINGS), PATIENT_TIMEOUT)
            timeout = min(timeout * (1 << min(self.pto_count, ENOUGH_DOUBLINGS)), longest)
        if timeout > MAX_TIMEOUT:
            timeout = MAX_TIMEOUT
        at = self._last_eliciting + timeout
        # A timer that was late, or whose probes were never sent, does not fire twice for one moment.
        return at if at > self._fired_at else self._fired_at + timeout

    def on_timeout(self, now: float) -> list[SentPacket]:
        """Act on the deadline, if it has come: give the packets that are lost, or ask for `probes`."""
        if now < self.deadline:
            return []
        self._fired_at = now
        if self._loss_time != inf:
            return self._detect_lost(now)
        self.pto_count += 1
        self.probes = PROBES
        return self._give_up(self._unanswered - UNANSWERED_PROBES, now)

    def probe(self) -> None:
        """Let the next packet go beyond window and pacing, for there is a reason to ask now.

        It comes on top of those of a timeout, which it does not postpone (R-5).
        """
        self._extra = True
        self.probes = max(self.probes, 1)

    # -- the rest ------------------------------------------------------------------------------------------------

    def oldest_eliciting(self) -> SentPacket | None:
        """The packet whose content a probe repeats when there is nothing new to send; none that is only slow (R-17)."""
        if self.reliable:
            return None
        for at in range(self._head, len(self._sent)):
            packet = self._sent[at]
            if packet.eliciting:
                return packet
        return None

    @property
    def settled_by(self) -> float:
        """When all that is on its way should have been acknowledged, if nothing more is sent: on carriers, too, of
        which no timer is needed as long as they are used. `inf` while nothing elicits an answer.
        """
        if len(self._sent) - self._head == self._silent:
            return inf
        return self._last_eliciting + self.pto

    def is_overdue(self, now: float) -> bool:
        """Whether the oldest of it should have been acknowledged by now (M-6)."""
        if len(self._sent) - self._head == self._silent:
            return False
        return self._sent[self._head].time + self.rtt.loss_delay + self.max_ack_delay <= now

    def discard_all(self) -> list[SentPacket]:
        """Forget what is outstanding, as when the path is given up. That is no sign of congestion."""
        discarded = self._sent[self._head :]
        self._sent.clear()
        self._head = 0
        self._silent = 0
        self.bytes_in_flight = 0
        self._loss_time = inf
        self.probes = self._unanswered = 0
        self._extra = False
        self.pto_count = 0
        return discarded

    def set_max_ack_delay(self, seconds: float) -> None:
        """Take over what the peer's parameters promise.

        Raises:
            ArgumentError: `seconds` is no time.
        """
        if not 0 <= seconds < inf:
            raise ArgumentError(
                f"max_ack_delay must be a time of at least 0 s, not {seconds!r}", argument="max_ack_delay"
            )
        self.max_ack_delay = seconds

    def set_max_datagram_size(self, size: int) -> None:
        """The path was found to carry datagrams of `size` bytes."""
        self.max_datagram_size = size
        self.controller.set_max_datagram_size(size)

    def stats(self) -> RecoveryStats:
        """A snapshot."""
        rtt, controller = self.rtt, self.controller
        sampled = rtt.samples > 0
        return RecoveryStats(
            rtt_latest=rtt.latest if sampled else None,
            rtt_smoothed=rtt.smoothed if sampled else None,
            rtt_minimum=rtt.minimum if sampled else None,
            rttvar=rtt.rttvar,
            window=int(controller.window),
            ssthresh=controller.ssthresh,
            pacing_rate=controller.pacing_rate,
            bytes_in_flight=self.bytes_in_flight,
            bytes_delivered=self.delivered,
            bytes_lost=self.lost,
            packets_sent=self.packets_sent,
            packets_acked=self.packets_acked,
            packets_lost=self.packets_lost,
            datagram_loss=self.datagram_loss,
            pto_count=self.pto_count,
            congestion_fault=controller.fault if isinstance(controller, GuardedController) else None,
        )


def _oldest_first(ranges: Ranges, oldest: int) -> Ranges:
    """The ranges that reach up to the number `oldest`, of which there is one, in the order of packets."""
    last = 0
    while last + 1 < len(ranges) and ranges[last + 1][1] >= oldest:
        last += 1
    return ranges[last::-1]
