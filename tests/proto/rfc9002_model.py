"""RFC 9002 a second time: the pseudo-code of its appendices A and B, as plainly as it can be said, for one path.

It shares no line with the room it judges, remembers everything, sorts everything, and walks over everything. What
docs/protocol.md adds to the RFC is marked with the number of the requirement.
"""

from __future__ import annotations

from dataclasses import dataclass

K_PACKET_THRESHOLD = 3
K_TIME_THRESHOLD = 9 / 8
K_GRANULARITY = 0.001
K_LOSS_REDUCTION_FACTOR = 0.5
K_PERSISTENT_CONGESTION_THRESHOLD = 3


@dataclass
class Packet:
    packet_number: int
    time_sent: float
    sent_bytes: int
    ack_eliciting: bool
    mtu_probe: bool
    beside_a_full_window: bool = False


class Model:
    """The variables are those of A.3 and B.2; `None` stands for what the RFC leaves unset."""

    def __init__(self, max_datagram_size: int, initial_rtt: float, max_ack_delay: float) -> None:
        self.max_datagram_size = max_datagram_size
        self.max_ack_delay = max_ack_delay
        self.latest_rtt = 0.0
        self.smoothed_rtt = initial_rtt
        self.rttvar = initial_rtt / 2
        self.min_rtt = 0.0
        self.first_rtt_sample: float | None = None
        self.pto_count = 0
        self.time_of_last_ack_eliciting_packet: float | None = None
        self.largest_acked_packet: int | None = None
        self.loss_time: float | None = None
        self.sent_packets: dict[int, Packet] = {}
        self.ever_sent: list[int] = []
        self.ever_acked: set[int] = set()
        self.last_timeout: float | None = None
        #
        self.congestion_window: float = max(10 * max_datagram_size, 14_720)
        self.minimum_window = 2 * max_datagram_size
        self.ssthresh = float("inf")
        self.congestion_recovery_start_time: float | None = None
        self.ecn_ce_counter = 0

    @property
    def bytes_in_flight(self) -> int:
        return sum(packet.sent_bytes for packet in self.sent_packets.values())

    # -- A.5, B.4 ------------------------------------------------------------------------------------------------

    def on_packet_sent(
        self, packet_number: int, now: float, sent_bytes: int, ack_eliciting: bool, in_flight: bool, mtu_probe: bool
    ) -> None:
        if not ack_eliciting and not in_flight:
            return
        self.sent_packets[packet_number] = Packet(packet_number, now, sent_bytes, ack_eliciting, mtu_probe)
        self.ever_sent.append(packet_number)
        if ack_eliciting:
            self.time_of_last_ack_eliciting_packet = now

    def on_window_refused(self) -> None:
        for packet in self.sent_packets.values():
            packet.beside_a_full_window = True

    # -- A.7 -----------------------------------------------------------------------------------------------------

    def on_ack_received(
        self, acked_numbers: set[int], ack_delay: float, now: float, same_path: bool, ce_counter: int
    ) -> tuple[list[int], list[int]]:
        newly_acked = [self.sent_packets[number] for number in sorted(self.sent_packets) if number in acked_numbers]
        more_marks = ce_counter > self.ecn_ce_counter
        self.ecn_ce_counter = max(ce_counter, self.ecn_ce_counter)
        if not newly_acked:
            return [], []
        for packet in newly_acked:
            del self.sent_packets[packet.packet_number]
            self.ever_acked.add(packet.packet_number)
        newest = newly_acked[-1]
        if self.largest_acked_packet is None or newest.packet_number > self.largest_acked_packet:
            self.largest_acked_packet = newest.packet_number
        # the largest number of the ACK, newly acknowledged, eliciting, over the same path.
        sample_ok = same_path and newest.ack_eliciting and newest.packet_number == max(acked_numbers)
        if sample_ok and now - newest.time_sent <= 10.0:
            self.update_rtt(now - newest.time_sent, ack_delay, now)
        if more_marks:
            self.on_congestion_event(newest.time_sent, now)
        lost = self.detect_and_remove_lost_packets(now)
        if lost:
            self.on_packets_lost(lost, now)
        if newest.beside_a_full_window:
            for packet in newly_acked:
                self.on_packet_acked(packet)
        if same_path or now - newest.time_sent <= self.pto:  # nobody has measured the other way
            self.pto_count = 0
        return [packet.packet_number for packet in newly_acked], [packet.packet_number for packet in lost]

    def update_rtt(self, latest_rtt: float, ack_delay: float, now: float) -> None:
        self.latest_rtt = latest_rtt
        if self.first_rtt_sample is None:
            self.min_rtt = latest_rtt
            self.smoothed_rtt = latest_rtt
            self.rttvar = latest_rtt / 2
            self.first_rtt_sample = now
            return
        self.min_rtt = min(self.min_rtt, latest_rtt)
        ack_delay = min(ack_delay, self.max_ack_delay)
        adjusted_rtt = latest_rtt
        if latest_rtt >= self.min_rtt + ack_delay:
            adjusted_rtt = latest_rtt - ack_delay
        self.rttvar = 3 / 4 * self.rttvar + 1 / 4 * abs(self.smoothed_rtt - adjusted_rtt)
        self.smoothed_rtt = 7 / 8 * self.smoothed_rtt + 1 / 8 * adjusted_rtt

    # -- A.8, A.9 ------------------------------------------------------------------------------------------------

    @property
    def pto(self) -> float:
        return self.smoothed_rtt + max(4 * self.rttvar, K_GRANULARITY) + self.max_ack_delay

    @property
    def timer(self) -> float | None:
        if self.loss_time is not None:
            return self.loss_time
        if not any(packet.ack_eliciting for packet in self.sent_packets.values()):
            return None
        assert self.time_of_last_ack_eliciting_packet is not None
        # at most 6 doublings, or more up to 1 s; at most 10 s.
        duration = self.pto * 2 ** min(self.pto_count, 20)
        duration = min(duration, max(self.pto * 2**6, 1.0), 10.0)
        timeout = self.time_of_last_ack_eliciting_packet + duration
        if self.last_timeout is not None and timeout <= self.last_timeout:
            # One moment has one timeout: what was overdue then is counted from then.
            timeout = self.last_timeout + duration
        return timeout

    def on_loss_detection_timeout(self, now: float) -> tuple[list[int], bool]:
        """The numbers declared lost, and whether probes are to be sent."""
        timer = self.timer
        if timer is None or now < timer:
            return [], False
        self.last_timeout = now
        if self.loss_time is not None:
            lost = self.detect_and_remove_lost_packets(now)
            if lost:
                self.on_packets_lost(lost, now)
            return [packet.packet_number for packet in lost], False
        self.pto_count += 1
        return [], True

    # -- A.10 ----------------------------------------------------------------------------------------------------

    def detect_and_remove_lost_packets(self, now: float) -> list[Packet]:
        assert self.largest_acked_packet is not None
        self.loss_time = None
        lost = []
        loss_delay = max(K_TIME_THRESHOLD * max(self.latest_rtt, self.smoothed_rtt), K_GRANULARITY)
        for number in sorted(self.sent_packets):
            if number > self.largest_acked_packet:
                continue
            packet = self.sent_packets[number]
            # only packets of one path are compared.
            behind = sum(number < other <= self.largest_acked_packet for other in self.ever_sent)
            if packet.time_sent + loss_delay <= now or behind >= K_PACKET_THRESHOLD:
                del self.sent_packets[number]
                lost.append(packet)
            elif self.loss_time is None:
                self.loss_time = packet.time_sent + loss_delay
            else:
                self.loss_time = min(self.loss_time, packet.time_sent + loss_delay)
        return lost

    # -- B.5 to B.9 ----------------------------------------------------------------------------------------------

    def in_congestion_recovery(self, sent_time: float) -> bool:
        start = self.congestion_recovery_start_time
        return start is not None and sent_time <= start

    def on_packet_acked(self, packet: Packet) -> None:
        if self.in_congestion_recovery(packet.time_sent):
            return
        if self.congestion_window < self.ssthresh:
            self.congestion_window += packet.sent_bytes
        else:
            self.congestion_window += self.max_datagram_size * packet.sent_bytes / self.congestion_window

    def on_congestion_event(self, sent_time: float, now: float) -> None:
        if self.in_congestion_recovery(sent_time):
            return
        self.congestion_recovery_start_time = now
        self.ssthresh = self.congestion_window * K_LOSS_REDUCTION_FACTOR
        self.congestion_window = max(self.ssthresh, self.minimum_window)

    def on_packets_lost(self, lost_packets: list[Packet], now: float) -> None:
        # RFC 9000, 14.4: the loss of a probe of the MTU is no congestion.
        lost_packets = [packet for packet in lost_packets if not packet.mtu_probe]
        if not lost_packets:
            return
        self.on_congestion_event(max(packet.time_sent for packet in lost_packets), now)
        if self.in_persistent_congestion(lost_packets):
            self.congestion_window = self.minimum_window
            self.congestion_recovery_start_time = None
            self.min_rtt = self.latest_rtt

    def in_persistent_congestion(self, lost_packets: list[Packet]) -> bool:
        if self.first_rtt_sample is None:
            return False
        ends = [p for p in lost_packets if p.ack_eliciting and p.time_sent > self.first_rtt_sample]
        return any(
            later.time_sent - earlier.time_sent > K_PERSISTENT_CONGESTION_THRESHOLD * self.pto
            and not any(earlier.packet_number < number < later.packet_number for number in self.ever_acked)
            for earlier in ends
            for later in ends
        )
