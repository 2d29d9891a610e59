"""Silence: a bad network is not taken for a dead peer, and a dead peer is not kept for ever (K-4, K-5, R-5, R-10)."""

from __future__ import annotations

import pytest

from stt_proto import CloseReason, NetworkPath
from stt_proto.events import KeepAliveMissed, KeepAliveSent, SessionClosed, SessionDetached
from stt_proto.recovery.loss import UNANSWERED_PROBES
from stt_proto.testing import Conditions, World
from stt_proto.wire import Datagram, KeepAlive, KeepAliveAck, MaxData, MaxStreamData
from tests.proto.insider import Insider
from tests.proto.worlds import Mover, Pair, assert_empty, filler, session_pair
from tests.worlds import bounds

# -- a bad network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delay", "seed"), [(0.15, 88), (0.15, 31), (0.3, 86), (0.3, 78), (0.3, 70)])
def test_an_idle_session_through_heavy_damage(delay: float, seed: int) -> None:
    """K-4, K-5: with 30 % damaged each way an idle session lives on.

    Nothing but the probes of recovery asked again, and as these double their distance there were only six to eight
    pairs of them within the timeout. One silence in two thousand ended the session; in each of these worlds one did.
    """
    world = World(seed, Conditions(delay=delay))
    client, server = world.node("client"), world.node("server")
    session = client.connect(server)
    world.run_until(session.is_active)
    world.run(1.0)
    (peer,) = server.endpoint.sessions.values()
    for link in world.links.values():
        link.conditions = Conditions(delay=delay, corrupt=0.3)
    world.run(4000.0)
    assert session.is_active()
    assert peer.is_active()
    assert not client.events(SessionDetached)
    assert not server.events(SessionDetached)
    assert len(client.events(KeepAliveSent)) >= 300


def silence(pair: Pair) -> float:
    """From now on nothing arrives any more, either way; gives the time of the last packet that the client got."""
    for link in pair.world.links.values():
        link.up = False
    return pair.session.last_active - pair.world.unix_time


def test_a_silent_peer_is_asked_every_second() -> None:
    """K-4: twenty times at least, in twenty different seconds, and the host is told of it twice."""
    pair = session_pair(conditions=Conditions(delay=0.1), client={"detach_timeout": 0.0})
    heard = silence(pair)
    sent: list[float] = []
    pair.world.taps.append(
        lambda datagram, path: (path.local == pair.client.address and sent.append(pair.now - heard)) or datagram
    )
    pair.world.run(29.9 - (pair.now - heard))
    assert {int(at + 1e-6) for at in sent} == set(range(10, 30))
    assert len(sent) <= 20 + 2 * 8
    assert len(pair.client.events(KeepAliveSent)) == 2
    assert len(pair.client.events(KeepAliveMissed)) == 1
    pair.world.run(0.2)
    assert pair.session.close_reason is CloseReason.TIMEOUT


def test_a_full_window_is_no_reason_to_be_silent() -> None:
    """K-4, R-5: the question goes beyond the congestion window, one packet at a time, and does not postpone probes."""
    pair = session_pair(conditions=Conditions(delay=0.1))
    mover = Mover(pair.server)
    stream = pair.session.open_stream()
    stream.write(filler(500_000), pair.now)
    pair.client.pump()
    heard = silence(pair)
    pair.world.run(10.5 - (pair.now - heard))
    engines = bounds.engines_of(pair.session)
    assert engines is not None
    recovery = engines.path.recovery
    assert not recovery.can_send(1200)
    before, timeouts = recovery.packets_sent, recovery.pto_count
    pair.world.run(10.0)
    assert recovery.packets_sent >= before + 10
    assert recovery.pto_count > timeouts
    pair.world.run(8.4)
    for link in pair.world.links.values():
        link.up = True
    stream.finish(pair.now)
    pair.client.pump()
    pair.world.run_until(lambda: mover.ended, timeout=10.0)  # the last question was answered in time


# -- a dead peer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [1.5, 5.0, 25.0, 60.0])
def test_a_host_that_ticks_now_and_then(every: float) -> None:
    """R-10: a host that looks every few seconds only gives a dead peer up too. Each late tick gave it 2 s more."""
    pair = session_pair(client={"detach_timeout": 0.0})
    endpoint = pair.client.endpoint
    heard = pair.session.last_active - pair.world.unix_time
    now = heard + 3.3
    while not pair.session.is_closed:
        now += every
        assert now < heard + 1000.0
        endpoint.tick(now)
        list(endpoint.transmits(now))
    assert pair.session.close_reason is CloseReason.TIMEOUT
    assert 30.0 <= now - heard <= 32.0 + 2 * every


@pytest.mark.parametrize("every", [1.5, 5.0, 25.0])
def test_such_a_host_keeps_a_peer_that_lives(every: float) -> None:
    """R-10: as long as the peer answers, every silence is another one."""
    pair = session_pair()
    endpoint, now = pair.client.endpoint, pair.now
    for _ in range(100):
        now += every
        endpoint.tick(now)
        for transmit in endpoint.transmits(now):
            for datagram in transmit.datagrams():
                pair.server.endpoint.receive(datagram, pair.peer.path, now)
        for transmit in pair.server.endpoint.transmits(now):
            for datagram in transmit.datagrams():
                endpoint.receive(datagram, pair.session.path, now)
    assert pair.session.is_active()


# -- a peer that never acknowledges --------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [3.0, 25.0])
def test_a_peer_that_never_acknowledges(pause: float) -> None:
    """R-5: it says something now and then, so the session lives; what is remembered of its probes is bounded.

    Each timeout added two packets, for as long as the peer liked: 17,000 in a day.
    """
    peer = Insider()
    peer.engines.rotation.able = False  # as before a peer that has not announced ROTATE: V-10 would end this sooner
    stream = peer.victim.open_stream()
    peer.send(MaxData(1 << 40), MaxStreamData(1, 1 << 40))
    stream.write(filler(100_000), peer.pair.now)
    peer.pair.server.pump()
    recovery = peer.engines.path.recovery
    outstanding = len(recovery._sent) - recovery._head
    most = 0
    while peer.pair.now < 3000.0:
        peer.pair.world.run(pause)
        peer.send(Datagram(b"still here"))
        most = max(most, len(recovery._sent) - recovery._head)
        bounds.check_recovery(recovery, peer.pair.now)
    assert peer.code is None
    assert recovery.packets_sent > 600
    assert most <= outstanding + UNANSWERED_PROBES + 30
    assert recovery.bytes_in_flight <= 100_000 + 1200 * (UNANSWERED_PROBES + 30)
    assert recovery.packets_lost > 400
    assert len(recovery._sent) < 4 * most
    # It thinks better of it: everything is still delivered.
    peer.acknowledge()
    for _ in range(2000):
        peer.pair.world.run(0.05)
        peer.acknowledge()
        if stream.acked_offset == 100_000:
            break
    assert stream.acked_offset == 100_000


# -- questions and answers -----------------------------------------------------------------------------------------


def test_signs_of_life_are_answered_once_each() -> None:
    """K-4, F-5: as many answers as questions; more of them are counted, and no earlier ones are held against a peer."""
    pair = session_pair()
    engines = bounds.engines_of(pair.session)
    assert engines is not None
    heard = silence(pair)
    pair.world.run(15.5 - (pair.now - heard))
    assert engines.suspicion._level == 1000
    for number in range(6):  # at 10, 11, ... 15 s
        pair.inject(KeepAliveAck(number.to_bytes(8)), to=pair.session)
    assert engines.suspicion._level == 1000
    pair.inject(KeepAliveAck(bytes(8)), to=pair.session)
    assert engines.suspicion._level == 999


def test_a_question_counts() -> None:
    """F-5: an honest peer asks 30 times in a second at most; whoever asks with each packet goes."""
    pair = session_pair(server={"keep_alive_interval": 0.05, "keep_alive_timeout": 0.11})
    pair.world.run(20.0)
    assert pair.session.is_active()
    attack = session_pair()
    packets = 0
    while packets < 1010 and not attack.peer.is_closed:
        packets += 1
        attack.inject(KeepAlive(packets.to_bytes(8)))
    assert 1000 < packets < 1010
    attack.settle(5.0)
    assert [event.code for event in attack.server.events(SessionClosed)] == [0x0603]
    assert_empty(attack.client, attack.server)


def test_paths_of_silence_are_quiet() -> None:
    """K-4: where answers come in the very moment of the question, an idle session is as quiet as any other."""
    pair = session_pair(conditions=Conditions(delay=0.0))
    seen: list[NetworkPath] = []
    pair.world.taps.append(lambda datagram, path: seen.append(path) or datagram)
    pair.world.run(100.0)
    assert len(seen) <= 10 * 3
