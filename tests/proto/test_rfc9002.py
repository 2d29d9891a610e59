"""Recovery against a second implementation of RFC 9002, on whatever hypothesis can think of: R-3 to R-8."""

from __future__ import annotations

from math import inf

from hypothesis import given, settings
from hypothesis import strategies as st

from stt_proto.recovery import Recovery
from tests.proto.lossy import DATAGRAM, MAX_ACK_DELAY, packet, to_ranges
from tests.proto.rfc9002_model import Model

SIZES = (40, 300, 1200, 14_400, 65_000)
WAITS = (0.0, 0.000_5, 0.003, 0.02, 0.11, 0.7, 4.0, 30.0)

# Eliciting, in flight, probe of the MTU: data, a probe, padding, an ACK.
KINDS = ((True, True, False), (True, True, True), (False, True, False), (False, False, False))

steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 4), st.integers(0, 15)),
        st.tuples(st.just("send"), st.integers(0, 4), st.just(0)),
        st.tuples(st.just("ack"), st.integers(0, 2**12), st.integers(0, 31)),
        st.tuples(st.just("ack"), st.sampled_from([1, 2, 4, 8]), st.integers(0, 31)),
        st.tuples(st.just("again"), st.integers(0, 5), st.integers(0, 31)),
        st.tuples(st.just("wait"), st.integers(0, len(WAITS) - 1), st.just(0)),
        st.tuples(st.just("timer"), st.integers(0, len(WAITS) - 1), st.just(0)),
        st.tuples(st.just("refuse"), st.just(0), st.just(0)),
    ),
    min_size=10,
    max_size=120,
)


class Duel:
    """Two implementations on one path of a session whose other packet numbers belong to somebody else."""

    def __init__(self, initial_rtt: float) -> None:
        self.ours = Recovery(DATAGRAM, initial_rtt=initial_rtt, max_ack_delay=MAX_ACK_DELAY)
        self.model = Model(DATAGRAM, initial_rtt, MAX_ACK_DELAY)
        self.now = 10.0
        self.number = 0
        self.sent: list[int] = []
        self.received: set[int] = set()
        self.acks: list[set[int]] = []
        self.ce = 0

    def send(self, size: int, kind: int) -> None:
        for _ in range(kind // 4):  # numbers that were skipped or went elsewhere, where half of them arrive
            if self.number % 2:
                self.received.add(self.number)
            self.number += 1
        eliciting, in_flight, probe = KINDS[kind % 4]
        bytes_ = SIZES[size]
        sent = packet(self.number, self.now, bytes_, eliciting=eliciting, in_flight=in_flight, mtu_probe=probe)
        self.ours.on_sent(sent)
        self.model.on_packet_sent(self.number, self.now, bytes_, eliciting, in_flight, probe)
        self.sent.append(self.number)
        self.number += 1

    def ack(self, mask: int, how: int) -> None:
        """Of the last twelve packets not received yet, those in the mask arrive; the peer says so."""
        missing = [number for number in self.sent if number not in self.received][-12:]
        self.received.update(number for bit, number in enumerate(missing) if mask >> bit & 1)
        ranges = to_ranges(self.received, 32 if how & 1 else 2)
        self.take_ack({n for low, high in ranges for n in range(low, high + 1)}, how)

    def take_ack(self, numbers: set[int], how: int) -> None:
        if not numbers:
            return
        self.acks.append(numbers)
        same_path = how & 2 == 0
        delay = (0.0, 0.004, 0.03)[how % 3]
        self.ce += how & 28 == 28
        acked, lost = self.ours.on_ack(to_ranges(numbers), delay, self.now, same_path, (0, 0, self.ce))
        expected = self.model.on_ack_received(numbers, delay, self.now, same_path, self.ce)
        assert ([p.number for p in acked], [p.number for p in lost]) == expected

    def again(self, back: int, how: int) -> None:
        """An old ACK arrives late or twice."""
        if back < len(self.acks):
            self.take_ack(self.acks[-1 - back], how)

    def timer(self, late: float) -> None:
        """The host wakes up when asked to, or later, and perhaps twice."""
        if self.ours.deadline == inf:
            return
        self.now = max(self.now, self.ours.deadline + late)
        probes = self.ours.probes
        lost = [p.number for p in self.ours.on_timeout(self.now)]
        expected, asked = self.model.on_loss_detection_timeout(self.now)
        assert lost == expected
        assert self.ours.probes == (2 if asked else probes)
        assert self.ours.on_timeout(self.now) == []
        assert self.ours.deadline > self.now

    def refuse(self) -> None:
        assert not self.ours.can_send(1 << 40)
        self.model.on_window_refused()

    def compare(self) -> None:
        ours, model = self.ours, self.model
        assert ours.bytes_in_flight == model.bytes_in_flight
        assert ours.deadline == (inf if model.timer is None else model.timer)
        assert ours.pto_count == model.pto_count
        assert (ours.rtt.smoothed, ours.rtt.rttvar) == (model.smoothed_rtt, model.rttvar)
        if ours.rtt.samples:
            assert (ours.rtt.latest, ours.rtt.minimum) == (model.latest_rtt, model.min_rtt)
        assert (ours.controller.window, ours.controller.ssthresh) == (model.congestion_window, model.ssthresh)

    def run(self, script: list[tuple[str, int, int]]) -> None:
        for step, a, b in script:
            match step:
                case "send":
                    self.send(a, b)
                case "ack":
                    self.ack(a, b)
                case "again":
                    self.again(a, b)
                case "wait":
                    self.now += WAITS[a]
                case "timer":
                    self.timer(WAITS[a])
                case _:
                    self.refuse()
            self.compare()
        left = [p.number for p in self.ours.discard_all()]
        assert left == list(self.model.sent_packets)


@settings(max_examples=max(300, settings().max_examples))
@given(st.sampled_from((0.0001, 0.03, 0.1, 0.5)), steps)
def test_against_a_second_implementation(initial_rtt: float, script: list[tuple[str, int, int]]) -> None:
    """R-3 to R-8: the same packets acknowledged and lost, the same RTT, window and timer, to the last bit."""
    Duel(initial_rtt).run(script)
