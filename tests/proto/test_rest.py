"""What a session lets go of while nothing happens (docs/performance.md, memory per idle session)."""

from __future__ import annotations

from typing import Any, ClassVar
from weakref import WeakSet

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto import NetworkPath
from stt_proto.crypto import SUITES
from stt_proto.packet import PacketKeys, PacketReceiver, Sealer, TrainBudget
from stt_proto.packet.protection import FRUGAL
from stt_proto.testing import Conditions
from stt_proto.wire import KeepAlive
from tests.proto.worlds import Mover, filler, session_pair

PATH = NetworkPath("udp", ("here", 1), ("there", 1))
TRAFFIC, HEADER, DCID = b"\x11" * 32, b"\x22" * 32, bytes(8)


@given(
    suite=st.sampled_from(list(SUITES.values())),
    steps=st.lists(st.sampled_from(["seal", "train", "sealer rests", "receiver rests"]), max_size=20),
)
def test_who_rested_seals_and_opens_as_before(suite: Any, steps: list[str]) -> None:
    """P-1 to P-5: rest changes no byte of any packet, and opens every one, of whatever shape."""
    sealer, tireless = (Sealer(PacketKeys(suite, TRAFFIC, HEADER)) for _ in range(2))
    receiver = PacketReceiver(PacketKeys(suite, TRAFFIC, HEADER), TrainBudget())
    for number, step in enumerate(steps):
        if step == "sealer rests":
            sealer.rest()
        elif step == "receiver rests":
            receiver.rest()
        else:
            plain, size = bytes([number]) * (40 if step == "seal" else 300), 100
            sealed = sealer.seal(number, DCID, [plain], size)
            assert sealed == tireless.seal(number, DCID, [plain], size)
            run = b"".join(sealed[0])
            opened = receiver.receive(run, 0, len(run), size, PATH, 0.0, True)
            assert [packet.plain for packet in opened] == [plain]


class Watched:
    """One of the library's objects, of which it is known whether somebody holds it."""

    held: ClassVar[WeakSet[Watched]] = WeakSet()
    made = 0

    def __init__(self, what: Any) -> None:
        self._what = what
        self.held.add(self)
        Watched.made += 1

    def encrypt(self, *args: Any) -> bytes:
        return self._what.encrypt(*args)

    def decrypt(self, *args: Any) -> bytes:
        return self._what.decrypt(*args)

    def __call__(self, *args: Any) -> bytes:
        return self._what(*args)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    """Every object that packets are sealed, opened and masked with from now on is a `Watched`."""
    aead, mask = PacketKeys.aead.fget, PacketKeys.header_mask.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(PacketKeys, "aead", property(lambda keys: Watched(aead(keys))))
    monkeypatch.setattr(PacketKeys, "header_mask", property(lambda keys: Watched(mask(keys))))
    monkeypatch.setattr(Watched, "made", 0)
    monkeypatch.setattr(Watched, "held", WeakSet())
    return Watched


def test_an_idle_session_holds_no_cipher(watched: type[Watched]) -> None:
    """None from the start: a handshake brings none, nor does a sign of life, however many there are. Data does, and
    the next silence ends that."""
    pair = session_pair()
    assert not watched.held
    pair.world.run(15.0)
    assert not watched.held
    pair.world.run(200.0)
    assert not watched.held
    mover = Mover(pair.server)
    made = watched.made
    mover.send(pair.session.open_stream(), pair.session, filler(100_000))
    pair.settle()
    assert len(watched.held) == 8
    assert watched.made <= made + 8 * (FRUGAL + 1)  # not one for each packet
    pair.world.run(15.0)
    assert not watched.held


def test_a_busy_session_keeps_its_ciphers(watched: type[Watched]) -> None:
    """Nothing is made anew while there are packets, but for a peer that asks for signs of life all the time."""
    pair = session_pair(conditions=Conditions(delay=0.01))
    mover = Mover(pair.server)
    mover.send(pair.session.open_stream(), pair.session, filler(100_000))
    pair.settle()
    held = set(map(id, watched.held))
    made = watched.made
    assert len(held) == 8
    assert made == 8 * (FRUGAL + 1)
    for _ in range(30):
        mover.send(pair.session.open_stream(), pair.session, filler(100_000))
        pair.settle()
    assert watched.made == made
    assert set(map(id, watched.held)) == held
    pair.inject(KeepAlive(bytes(8)))
    pair.settle()
    mover.send(pair.session.open_stream(), pair.session, filler(100_000))
    pair.settle()
    assert len(watched.held) == 8


@pytest.mark.parametrize("busy", [True, False])
def test_new_keys_are_held_if_the_old_ones_were(watched: type[Watched], busy: bool) -> None:
    """V-1: a session that is used holds those of the next version, one that is not used does without."""
    pair = session_pair(conditions=Conditions(delay=0.01))
    mover = Mover(pair.server)

    def use() -> None:
        mover.send(pair.session.open_stream(), pair.session, filler(100_000))
        pair.settle()

    if busy:
        use()
    pair.session.rotate_key(pair.now)
    pair.settle()
    assert pair.session.key_version == 1
    assert bool(watched.held) is busy
    if busy:
        use()
        made = watched.made
        use()
        assert watched.made == made
        assert len(watched.held) == 8
