"""Attacks on early data and on what begins with it (docs/protocol.md, sections 4.4 and 4.5)."""

from __future__ import annotations

import pytest

from stt_proto.types import NetworkPath
from tests.proto.comeback import assert_works
from tests.proto.test_early_data import EARLY, early_stage
from tests.proto.worlds import back, is_handshake


@pytest.mark.parametrize("lost", range(1, 6))
def test_a_copy_of_the_first_packet_from_elsewhere(lost: int) -> None:
    """H-40: where the session began the next packet shows the peer, though the question that went there was lost."""
    there = early_stage()
    session = there.client.connect(there.server, ticket=there.ticket, early_data=EARLY)
    there.world.run_until(lambda: bool(there.server.sessions))
    (peer,) = there.server.sessions
    elsewhere = NetworkPath("udp", there.server.address, ("watcher", 1))
    packets: dict[bool, int] = {True: 0, False: 0}

    def disturb(datagram: bytes, path: NetworkPath) -> bytes | None:
        if is_handshake(datagram) or path.remote == elsewhere.remote:
            return datagram
        by_client = path.local == there.client.address
        packets[by_client] += 1
        if by_client and packets[True] == 1:
            there.server.receive(datagram, elsewhere)
        return None if not by_client and packets[False] == lost else datagram

    there.world.taps.append(disturb)
    stream = peer.stream(0)
    assert stream is not None
    stream.write(bytes(20_000), there.world.now)
    there.server.pump()
    there.world.run(3.0)
    own = session.early_stream
    assert own is not None
    assert len(own.read(50_000, there.world.now)) == 20_000
    assert peer.path == back(session.path)
    assert_works(there.world, session, peer)
