"""What an observer is told (architecture: sight)."""

from __future__ import annotations

import os

from attrs import define, field

from stt_proto import Config, Endpoint, Identity, NetworkPath

Told = tuple[bytes, int, int, int, float]
HERE, THERE = ("192.0.2.1", 1), ("192.0.2.2", 1)


@define
class Observer:
    """Writes down what it is told."""

    sent: list[Told] = field(factory=list)
    received: list[Told] = field(factory=list)
    lost: list[Told] = field(factory=list)

    def packet_sent(self, *told: object) -> None:
        self.sent.append(told)  # type: ignore[arg-type]

    def packet_received(self, *told: object) -> None:
        self.received.append(told)  # type: ignore[arg-type]

    def packet_lost(self, *told: object) -> None:
        self.lost.append(told)  # type: ignore[arg-type]


def test_every_packet_is_told() -> None:
    """Each packet is told once by whoever sealed it, once by whoever opened it, and the lost ones are told as lost."""
    observers = Observer(), Observer()
    one, two = (
        Endpoint(
            Config(identity=Identity.from_seed(os.urandom(32)), shared_seed=b"shared"),
            now=0.0,
            unix_time=1.7e9,
            entropy=os.urandom,
            trace=observer,
        )
        for observer in observers
    )
    there, back = NetworkPath("udp", HERE, THERE), NetworkPath("udp", THERE, HERE)
    session = one.connect(there, now=0.0)
    now, dropped = 0.0, []
    for turn in range(200):
        now += 0.01
        if turn == 50:
            stream = session.open_stream()
            stream.write(bytes(20_000), now)
        for number, transmit in enumerate(one.transmits(now)):
            if turn == 50 and number == 1:
                dropped.append(observers[0].sent[-1])
            else:
                for datagram in transmit.datagrams():
                    two.receive(datagram, back, now)
        for transmit in two.transmits(now):
            for datagram in transmit.datagrams():
                one.receive(datagram, there, now)
        one.tick(now)
        two.tick(now)
    assert len(dropped) == 1
    assert [told[:4] for told in observers[0].lost] == [told[:4] for told in dropped]
    arrived = [told[:4] for told in observers[0].sent if told not in dropped]
    assert arrived == [told[:4] for told in observers[1].received]
    assert [told[:4] for told in observers[1].sent] == [told[:4] for told in observers[0].received]
    assert {told[0] for told in observers[0].sent} == {session.session_id}
