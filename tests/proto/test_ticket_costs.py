"""What a ticket that nobody gave costs the server who is shown it: no more than one hash (H-34)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from stt_proto.crypto import x25519
from stt_proto.handshake import tickets
from stt_proto.wire import MessageType
from tests.proto.test_resumption import FLEET, Stage, stage
from tests.proto.worlds import back, is_handshake

HOUR = 3600.0


class Meter:
    """Counts multiplications on the curve, and keys that are derived for tickets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.multiplications = self.hashes = 0
        scalar_mult, load_scalar = x25519.scalar_mult, x25519.load_scalar
        hkdf_expand = tickets.hkdf_expand

        def multiply(*arguments: Any) -> bytes:
            self.multiplications += 1
            return scalar_mult(*arguments)

        def derive(*arguments: Any) -> bytes:
            self.hashes += 1
            return hkdf_expand(*arguments)

        def load(private_bytes: bytes) -> Any:  # which computes the public key
            self.multiplications += 1
            return load_scalar(private_bytes)

        monkeypatch.setattr(x25519, "scalar_mult", multiply)
        monkeypatch.setattr(x25519, "load_scalar", load)
        monkeypatch.setattr(tickets, "hkdf_expand", derive)


def shown(there: Stage) -> tuple[bytes, Any]:
    """The RESUME with which the client's ticket is offered, and its way; it has not arrived."""
    there.wire.clear()
    there.client.connect(there.server, ticket=there.ticket)
    return next((datagram, path) for datagram, path in there.wire if is_handshake(datagram, MessageType.RESUME))


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], int]] = {
    "forged": (lambda sealed: sealed[:-1] + bytes((sealed[-1] ^ 1,)), 1),
    "under another salt": (lambda sealed: sealed[:10] + bytes((sealed[10] ^ 1,)) + sealed[11:], 1),
    "under an unknown key": (lambda sealed: bytes((sealed[0] ^ 1,)) + sealed[1:], 0),
    "truncated": (lambda sealed: sealed[:-1], 1),
    "one byte": (lambda sealed: sealed[:1], 0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_ticket_that_nobody_gave(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """H-34: refused as if there were none; one key is derived for it at most, and nothing is multiplied."""
    damage, hashes = DAMAGE[name]
    there = stage()
    there.ticket = evolve(there.ticket, sealed=damage(there.ticket.sealed))
    datagram, path = shown(there)
    meter = Meter(monkeypatch)
    there.server.endpoint.receive(datagram, back(path), there.world.now)
    assert meter.multiplications == 0
    assert meter.hashes <= hashes
    assert not there.server.sessions


def test_a_ticket_from_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """H-34: given by a server of the fleet whose clock is an hour ahead; opened, read, and refused."""
    there = stage(server={"fleet_secret": FLEET})
    there.server.endpoint.set_unix_time(there.ticket.issued_at - HOUR, there.world.now)
    datagram, path = shown(there)
    meter = Meter(monkeypatch)
    there.server.endpoint.receive(datagram, back(path), there.world.now)
    assert (meter.multiplications, meter.hashes) == (0, 1)


def test_a_ticket_that_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tests above mean something."""
    there = stage()
    datagram, path = shown(there)
    meter = Meter(monkeypatch)
    there.server.endpoint.receive(datagram, back(path), there.world.now)
    assert meter.multiplications >= 2
    assert meter.hashes >= 1
