"""The largest datagram of a path, found and lost by sessions (P-17 to P-20)."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from attrs import evolve

from stt_proto import NetworkPath, reception
from stt_proto.config import CARRIERS, Config
from stt_proto.errors import ArgumentError
from stt_proto.paths import Path
from stt_proto.paths.mtu import MAX_PROBES, RAISE_AFTER, STEP
from stt_proto.recovery import Recovery, SentPacket
from stt_proto.session.fates import PacketContents
from stt_proto.testing import Conditions, World
from tests.proto.worlds import IDENTITY, Mover, Pair, filler, session_pair

LARGEST = 65_507
SEARCHING: dict[str, Any] = {"carriers": {"udp": evolve(CARRIERS["udp"], max_probe=LARGEST)}}
PINNED: dict[str, Any] = {"carriers": {"udp": evolve(CARRIERS["udp"], max_packet=1452)}}
NOTHING = PacketContents([], [], -1)
WAN = Conditions(delay=0.01, rate=50e6, queue=1 << 18)
LAN = Conditions(delay=0.0002, rate=1e9)


def pair_on(conditions: Conditions, mtu: int, **client: Any) -> Pair:
    return session_pair(3, evolve(conditions, mtu=mtu), client={**SEARCHING, **client}, server=SEARCHING)


def path_of(pair: Pair) -> Path:
    assert pair.session._engines is not None
    return pair.session._engines.path


def set_mtu(pair: Pair, mtu: int) -> None:
    """From now on, in both directions."""
    for link in pair.world.links.values():
        link.conditions = evolve(link.conditions, mtu=mtu)


def upload(pair: Pair, size: int, timeout: float = 60.0, shrink_to: int = 0, after: float = 0.0) -> float:
    """Send so many bytes, see that they arrive whole, and give the seconds it took; the MTU may change on the way."""
    began = pair.now
    receiver, data = Mover(pair.server), filler(size, pair.now)
    Mover(pair.client).send(pair.session.open_stream(), pair.session, data)
    if shrink_to:
        pair.world.run(after)
        assert not receiver.ended
        set_mtu(pair, shrink_to)
    pair.world.run_until(lambda: receiver.ended, timeout)
    assert list(receiver.ended.values()) == [hashlib.sha256(data).digest()]
    return pair.now - began


@pytest.mark.parametrize(
    ("conditions", "mtu"),
    [(LAN, 65_535), *[(conditions, mtu) for conditions in (LAN, WAN) for mtu in (8972, 1472, 1452, 1392, 1200)]],
)
def test_a_transfer_finds_the_size(conditions: Conditions, mtu: int) -> None:
    """P-17, P-18: and no probe that is lost slows it down or counts as lost."""
    pair = pair_on(evolve(conditions, queue=1 << 24), mtu)
    upload(pair, 8 << 20)
    stats = pair.session.stats()
    best = min(mtu, LARGEST)
    assert best - max(STEP, best // 100) <= stats.mtu <= best
    assert (stats.mtu_black_holes, stats.packets_lost) == (0, 0)
    path = path_of(pair)
    assert (path.recovery.max_datagram_size, path.trains.most) == (stats.mtu, LARGEST // stats.mtu)
    too_large = pair.world.traffic.too_large
    assert too_large <= 20 * MAX_PROBES
    assert (too_large == 0) == (mtu == 65_535)


def test_no_probe_before_the_first_round_trip() -> None:
    """P-18: a dial that has much to say begins with what is sure."""
    world = World(1, LAN)
    client, server = world.node("client", **SEARCHING), world.node("server", **SEARCHING)
    session = client.connect(server)
    sizes: list[int] = []
    world.taps.append(lambda datagram, path: sizes.append(len(datagram)) or datagram)  # type: ignore[func-returns-value]
    world.run_until(lambda: session.max_datagram_size)
    del sizes[:]
    session.open_stream().write(filler(200_000), world.now)
    client.pump()
    assert len(sizes) > 10
    assert max(sizes) == 1200
    world.run(1.0)
    assert max(sizes) > 1200


def test_a_window_for_two() -> None:
    """P-18, R-8: no window is inflated by the size that it is counted in."""
    pair = pair_on(WAN, 1472)
    path = path_of(pair)
    path.recovery.on_sent(SentPacket(0, pair.now, 1200, 1, True, True, NOTHING))
    path.recovery.controller.window = 2 * 1452
    assert path.wants_mtu_probe(pair.now)
    path.recovery.controller.window = 2 * 1452 - 1
    assert not path.wants_mtu_probe(pair.now)
    assert pair.now < path.mtu.probe_at < pair.now + 1.0


def test_a_full_window_makes_room_for_a_probe() -> None:
    """P-18: data waits for it. Where packets are small, a window in use never has room for a larger one at once."""
    pair = pair_on(LAN, 1472)
    assert pair.session._engines is not None
    path, numbers = path_of(pair), pair.session._engines.numbers
    first, second = (SentPacket(numbers.next(), pair.now, size, 1, True, True, NOTHING) for size in (17_000, 1600))
    path.recovery.on_sent(first)
    path.recovery.on_sent(second)
    path.recovery.controller.window = 20_000
    sizes: list[int] = []
    pair.world.taps.append(lambda datagram, path: sizes.append(len(datagram)) or datagram)  # type: ignore[func-returns-value]
    pair.session.open_stream().write(filler(100_000), pair.now)
    pair.client.pump()
    assert sizes == []  # though a datagram of the present size would fit
    path.recovery.on_ack(((second.number, second.number),), 0.0, pair.now)
    pair.session.touch(pair.now)
    pair.client.pump()
    assert sizes[0] == 1452
    assert set(sizes[1:]) == {1200}


def test_slow_links_keep_small_datagrams() -> None:
    """P-18, P-16: 65,507 bytes would occupy this link for 52 ms, and not fit into its queue."""
    pair = pair_on(Conditions(delay=0.01, rate=10e6, queue=37_500), 65_535)
    upload(pair, 2 << 20)
    assert 1472 <= pair.session.stats().mtu <= 4048


def test_the_largest_datagrams_travel_alone() -> None:
    """P-1, P-16: a train has at most 65,507 bytes, so it is as many datagrams as fit into that, at last one."""
    pair = pair_on(LAN, 65_535)
    upload(pair, 8 << 20)
    before = pair.session.stats()
    upload(pair, 8 << 20)
    stats = pair.session.stats()
    packets = stats.packets_sent - before.packets_sent
    assert packets == stats.datagrams_sent - before.datagrams_sent
    assert (8 << 20) / packets > 50_000


def test_no_search_without_bulk() -> None:
    """P-18: a session that is idle, or sends little at a time, probes nothing."""
    pair = pair_on(LAN, 65_535)
    stream = pair.session.open_stream()
    for _ in range(100):
        stream.write(filler(100), pair.now)
        pair.settle(0.1)
    pair.settle(700.0)
    stats = pair.session.stats()
    assert (stats.mtu, stats.mtu_search) == (1200, "searching")
    assert stats.bytes_sent / stats.datagrams_sent < 200


def test_nothing_is_probed_on_carriers_that_are_reliable() -> None:
    """P-17."""
    pair = session_pair(3, LAN, carrier="stream")
    upload(pair, 1 << 20)
    assert (pair.session.stats().mtu, pair.session.stats().mtu_search) == (65_535, "complete")


def test_the_peer_sets_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 5, max_packet: no probe is larger."""
    own = reception.local_parameters
    monkeypatch.setattr(reception, "local_parameters", lambda *given: evolve(own(*given), max_packet=5000))
    pair = pair_on(LAN, 65_535)
    upload(pair, 4 << 20)
    assert pair.session.stats().mtu == 5000


@pytest.mark.parametrize("conditions", [WAN, LAN], ids=["wan", "lan"])
@pytest.mark.parametrize(("mtu", "left"), [(1472, 1300), (65_535, 1472), (8972, 1250)])
def test_a_black_hole_in_mid_transfer(conditions: Conditions, mtu: int, left: int) -> None:
    """P-19: the transfer goes on with smaller datagrams, and the statistics say why it was slow."""
    pair = pair_on(conditions, mtu)
    upload(pair, 4 << 20)
    assert pair.session.stats().mtu > left
    taken = upload(pair, 8 << 20, shrink_to=left, after=0.2 if conditions is WAN else 0.005)
    assert taken < 8.0
    upload(pair, 4 << 20)
    stats = pair.session.stats()
    assert left - 16 <= stats.mtu <= left
    assert stats.mtu_black_holes == 1
    assert stats.ecn == "capable"
    assert pair.session.max_datagram_size == stats.mtu - 34


def test_a_firewall_that_drops_large_datagrams() -> None:
    """P-17, P-19: 1,452 bytes were believed to pass and nothing above 1,250 does: found out with the first data."""
    pair = session_pair(3, evolve(WAN, mtu=1250), client=PINNED, server=PINNED)
    assert pair.session.max_datagram_size == 1452 - 34
    receiver = Mover(pair.server)
    Mover(pair.client).send(pair.session.open_stream(), pair.session, filler(10_000))
    pair.world.run_until(lambda: pair.session.stats().mtu_black_holes, 6.0)
    assert (pair.session.stats().mtu, pair.session.max_datagram_size) == (1200, 1200 - 34)
    pair.world.run_until(lambda: receiver.ended, 2.0)
    upload(pair, 1 << 20, 2.0)
    stats = pair.session.stats()
    assert 1234 <= stats.mtu <= 1250
    assert stats.mtu_black_holes == 1


def test_a_path_that_becomes_better() -> None:
    """P-17: noticed ten minutes later, when there is something to send."""
    pair = pair_on(WAN, 1300)
    upload(pair, 4 << 20)
    assert pair.session.stats().mtu <= 1300
    set_mtu(pair, 1472)
    upload(pair, 1 << 20)
    assert pair.session.stats().mtu <= 1300
    pair.settle(RAISE_AFTER)
    upload(pair, 4 << 20)
    assert pair.session.stats().mtu == 1472


def test_an_outage_is_no_black_hole() -> None:
    """P-19: nothing passes, small or large; afterwards both do."""
    pair = pair_on(WAN, 1472)
    upload(pair, 4 << 20)
    pair.world.outage(pair.client, pair.server, pair.now + 0.2, 4.0)
    upload(pair, 8 << 20)
    stats = pair.session.stats()
    assert (stats.mtu, stats.mtu_black_holes) == (1472, 0)


def test_congestion_is_no_black_hole() -> None:
    """P-19: a short queue and a lossy link, at 40 times what fits."""
    pair = pair_on(Conditions(delay=0.02, rate=2e6, queue=12_000, loss=0.05), 1472)
    upload(pair, 1 << 20, 300.0)
    assert pair.session.stats().mtu_black_holes == 0


def test_a_path_below_the_base() -> None:
    """P-19, K-4: the session lives as long as small datagrams pass, and goes on when the large ones do again."""
    pair = pair_on(LAN, 1472)
    upload(pair, 1 << 20)
    receiver = Mover(pair.server)
    Mover(pair.client).send(pair.session.open_stream(), pair.session, filler(8 << 20))
    set_mtu(pair, 1000)
    pair.world.run(120.0)
    assert not receiver.ended
    set_mtu(pair, 1472)
    pair.world.run_until(lambda: receiver.ended)
    upload(pair, 8 << 20)
    assert pair.session.stats().mtu > 1450


def test_the_second_timeout_asks_small() -> None:
    """P-19: of the two packets of a PTO after the first, one has at most 1,200 bytes; both are filled."""
    pair, recovery, sizes = in_the_dark()
    pair.settle(1.0)
    assert recovery.pto_count > 2
    assert sizes[:6] == [1472, 1472, 1200, 1472, 1200, 1472]


def in_the_dark() -> tuple[Pair, Recovery, list[int]]:
    """A transfer whose network has just gone, what its sender knows, and the sizes of what it sends from now on when
    an answer is overdue."""
    pair = pair_on(WAN, 1472)
    upload(pair, 4 << 20)
    path = path_of(pair)
    sizes: list[int] = []

    def look(datagram: bytes, on: NetworkPath) -> bytes:
        if on == path.network_path and path.recovery.pto_count and len(datagram) > 100:
            sizes.append(len(datagram))
        return datagram

    pair.world.taps.append(look)
    pair.world.link_between(pair.client.address, pair.server.address).up = False
    Mover(pair.client).send(pair.session.open_stream(), pair.session, filler(8 << 20))
    return pair, path.recovery, sizes


def test_unreliable_datagrams_follow() -> None:
    """P-17, S-11: what fits grows and shrinks; what was queued and fits no more is dropped and counted."""
    pair = pair_on(LAN, 4048)
    small = pair.session.max_datagram_size
    upload(pair, 1 << 20)
    large = pair.session.max_datagram_size
    assert (small, large) == (1200 - 34, 4048 - 34)
    pair.session.send_datagram(filler(large), pair.now)
    pair.settle()
    assert pair.peer.receive_datagram() == filler(large)
    pair.session.send_datagram(filler(large), pair.now)
    pair.session.send_datagram(filler(small), pair.now)
    pair.client.endpoint.datagram_refused(pair.session.path, 4048, pair.now, 1472)
    assert pair.session.max_datagram_size == 1472 - 34
    pair.settle()
    assert pair.peer.receive_datagram() == filler(small)
    assert pair.session.stats().send_errors == 1
    with pytest.raises(ArgumentError) as caught:
        pair.session.send_datagram(filler(large), pair.now)
    assert caught.value.argument == "data"


def test_a_small_probe_drops_no_datagram() -> None:
    """P-19, S-11: what does not fit into it waits for the next packet."""
    pair, recovery, sizes = in_the_dark()
    pair.world.run_until(lambda: recovery.pto_count and not recovery.probes)
    pair.session.send_datagram(filler(1400), pair.now)
    pair.world.link_between(pair.client.address, pair.server.address).up = True
    pair.settle(5.0)
    assert sizes[2] == 1200 < sizes[3]
    assert pair.peer.receive_datagram() == filler(1400)
    assert pair.session.stats().send_errors == 0


def test_the_host_refuses_in_mid_transfer() -> None:
    """P-20: nothing hangs, and only the session on that path hears of it."""
    pair = pair_on(WAN, 8972)
    other = pair.client.connect(pair.server)
    pair.world.run_until(other.is_active)
    upload(pair, 4 << 20)
    assert pair.session.stats().mtu == 8972
    receiver, data = Mover(pair.server), filler(8 << 20)
    Mover(pair.client).send(pair.session.open_stream(), pair.session, data)
    pair.world.run(0.1)
    set_mtu(pair, 1372)
    pair.client.endpoint.datagram_refused(pair.session.path, 8972, pair.now, 1372)
    assert pair.session.stats().mtu == 1372
    pair.client.pump()
    pair.world.run_until(lambda: receiver.ended)
    assert list(receiver.ended.values()) == [hashlib.sha256(data).digest()]
    assert pair.session.stats().mtu_black_holes == 0
    assert other.stats().mtu == 1200
    pair.client.endpoint.datagram_refused(evolve(pair.session.path), 1372, pair.now)  # no path of ours
    assert pair.session.stats().mtu == 1372


def test_a_dial_has_nothing_to_shrink() -> None:
    """P-20: a refusal while it has no keys is no more than a lost datagram."""
    world = session_pair(3).world
    one, two = world.node("one"), world.node("two")
    session = one.connect(two)
    one.endpoint.datagram_refused(session.path, 1200, world.now)
    world.run_until(session.is_active)
    assert one.connect(two).stats().mtu == 0


@pytest.mark.parametrize(("size", "limit", "name"), [(0, None, "size"), (1472.0, None, "size"), (1472, 0, "limit")])
def test_sizes_that_are_none(size: Any, limit: Any, name: str) -> None:
    """P-20: the host's mistake."""
    pair = pair_on(LAN, 1472)
    with pytest.raises(ArgumentError) as caught:
        pair.client.endpoint.datagram_refused(pair.session.path, size, pair.now, limit)
    assert caught.value.argument == name


@pytest.mark.parametrize("wrong", [1199, 65_536, "1500", True])
def test_limits_of_the_search_are_checked(wrong: Any) -> None:
    carriers = {"udp": evolve(CARRIERS["udp"], max_probe=wrong)}
    with pytest.raises(ArgumentError) as caught:
        Config(identity=IDENTITY, shared_seed="x" * 20, carriers=carriers)
    assert caught.value.argument == "carriers['udp'].max_probe"
