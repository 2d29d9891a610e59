"""The same inputs give the same bytes, and when a session is over nothing is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stt_proto import SessionState
from stt_proto.testing import World, tables
from tests.proto.worlds import (
    assert_empty,
    filler,
    serve_echo,
    session_pair,
)

# -- the same again ------------------------------------------------------------------------------------------------

TRANSCRIPT = """
from hashlib import sha256
from stt_proto.testing import Conditions, World
from tests.proto.worlds import Mover, filler

world = World(11, Conditions(loss=0.05, duplicate=0.02, reorder=0.05, corrupt=0.01, truncate=0.01, jitter=0.01))
seen = sha256()
def tap(datagram, path):
    seen.update(repr((world.now, path.local, path.remote)).encode() + datagram)
    return datagram
world.taps.append(tap)
server = world.node("server")
Mover(server).answer = lambda session, stream_id: filler(20_000, stream_id)
movers = []
for number in range(4):
    client = world.node(f"client {number}")
    mover = Mover(client)
    movers.append(mover)
    session = client.connect(server)
    client.pump()
    world.run_until(session.is_active)
    for _ in range(3):
        mover.send(session.open_stream(purpose="work"), session, filler(30_000, number))
        session.send_datagram(b"beside it", world.now)
world.run(30)
for node in (server, *(mover.node for mover in movers)):
    seen.update(repr([(at, session and session.session_id, event) for at, session, event in node.log]).encode())
print(world.datagrams, seen.hexdigest())
"""


def transcript(hash_seed: str) -> str:
    """Everything on the wire and every event of a whole world, in a fresh interpreter."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", TRANSCRIPT],
        capture_output=True,
        text=True,
        env=environment,
        cwd=root,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_same_again() -> None:
    """G-1: same inputs, same outputs, byte for byte, whatever PYTHONHASHSEED."""
    first = transcript("0")
    assert int(first.split()[0]) > 500
    assert transcript("0") == first
    assert transcript("12345") == first


# -- nothing is left -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "abort", "both", "silence", "path"])
@pytest.mark.parametrize("carrier", ["udp", "memory"])
def test_nothing_is_left(end: str, carrier: str) -> None:
    """13: however a session ends, every table of both endpoints is as empty as before it."""
    pair = session_pair(carrier=carrier, client={"detach_timeout": 20.0}, server={"detach_timeout": 20.0})
    serve_echo(pair.server)
    streams = [pair.session.open_stream() for _ in range(5)]
    for stream in streams:
        stream.write(filler(20_000), pair.now)
    pair.client.pump()
    pair.world.run(0.05)
    match end:
        case "close":
            pair.session.close(pair.now)
        case "abort":
            pair.session.abort(pair.now)
        case "both":
            pair.session.close(pair.now)
            pair.peer.abort(pair.now)
        case "silence":
            for link in pair.world.links.values():
                link.up = False
        case "path":
            pair.client.endpoint.path_closed(pair.session.path, pair.now)
            pair.server.endpoint.path_closed(pair.peer.path, pair.now)
            for link in pair.world.links.values():
                link.up = False
    pair.settle(60.0)
    assert pair.session.state is pair.peer.state is SessionState.CLOSED
    assert_empty(pair.client, pair.server)
    assert len(pair.client.endpoint._deadlines) <= 1, "at most the responder's"
    for stream in streams:
        stream.read(1 << 20, pair.now)
    assert_empty(pair.client, pair.server)


def test_sessions_that_are_over_are_few() -> None:
    """13: a peer that dials and closes all the time does not fill the memory with what lingers (K-3)."""
    world = World(1)
    client, server = (
        world.node("client", max_concurrent_sessions=1000),
        world.node("server", max_concurrent_sessions=10),
    )
    for _ in range(6):
        dials = [client.connect(server) for _ in range(5)]
        world.run(0.1)
        for session in dials:
            session.abort(world.now)
        client.pump()
        world.run(0.02)
    held = tables(server.endpoint)
    assert held["sessions that linger"] == 10
    assert held["connection IDs"] <= 10 * 4
    assert held["sessions begun"] == 0
    world.run(10.0)
    assert_empty(client, server)
