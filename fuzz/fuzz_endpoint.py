"""An endpoint with sessions, a handshake and a dial, and datagrams from anywhere (docs/protocol.md, G-2, G-3, P-14).

Datagrams of all sorts (genuine, repeated, damaged, made up) come one by one or in runs, from any path, in any kind of
buffer. Nothing raises; what is not authentic changes no session; no token that would reset a live session is ever
given away; and afterwards the sessions still work.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fuzz.harness import Choices, instrumented, main

with instrumented(__name__):
    from attrs import evolve

    from fuzz.peers import (
        BEGIN,
        CONFIG,
        Peer,
        Recording,
        challenge_from,
        check_bounds,
        held_for_sessions,
        let_time_pass,
        live_reset_tokens,
        make_endpoint,
        make_initiator,
        make_responder,
        path_of,
        record,
        remember_curves,
        send_all,
        with_check,
    )
    from stt_proto.errors import ArgumentError
    from stt_proto.packet import ResetTokens
    from stt_proto.types import NetworkPath, SessionState
    from stt_proto.wire import NewConnectionId, PathChallenge, Ping, Stream

STRANGERS = path_of("198.51.100.9"), path_of("2001:db8::9"), path_of("198.51.100.9", "memory")
SIZES = (None, 1, 13, 14, 29, 43, 60, 200, 1200)
THEIR_RESET_KEY = b"the key of the peers' own resets"
MAX_HEAP = 96
SECONDS = (0.0, 0.001, 0.05, 0.3, 1.1)
MAX_KEPT = 96


@cache
def genuine_hello(carrier: str) -> bytes:
    """A HELLO of somebody who knows the seed."""
    (hello,) = make_initiator(1, carrier, "a third").take(BEGIN)
    return hello


@cache
def recordings(suite: int) -> tuple[Recording, Recording]:
    """The handshakes of the two sessions, one after the other."""
    endpoint = make_endpoint()
    accepted = record(endpoint, False, suite, "udp", "192.0.2.7")
    return accepted, record(endpoint, True, suite, "udp", "192.0.2.8")


@cache
def challenge_to(suite: int, hello: bytes) -> tuple[bytes, ...]:
    """The answer to a dial."""
    return challenge_from(make_responder(suite), hello, path_of("192.0.2.10")).half_open.datagrams


class Run:
    """The endpoint, those at the other ends, and a heap of datagrams to choose from.

    Attributes:
        peers: of the session that the endpoint accepted and of the one that it dialled.
        paths: of the sessions, of a handshake that is half open, of a dial, and of strangers.
        heap: datagrams that were on the wire.
        tokens: of the peers' connection IDs.
    """

    def __init__(self, choices: Choices) -> None:
        how = choices.byte()
        suite = 1 + (how & 1)
        self.now = BEGIN
        self.endpoint = endpoint = make_endpoint(evolve(CONFIG, max_concurrent_sessions=3 + (how >> 1 & 1)))
        accepted, dialled = recordings(suite)
        self.peers = Peer(accepted, endpoint), Peer(dialled, endpoint)
        self.paths = (accepted.path, dialled.path, path_of("192.0.2.9"), path_of("192.0.2.10"), *STRANGERS)
        self.heap = [genuine_hello("udp"), genuine_hello("memory")]
        self.tokens = []
        for number, peer in enumerate(self.peers):
            cid = bytes((number,)) * 8
            self.tokens.append(ResetTokens(THEIR_RESET_KEY).token(cid))
            self.send(peer, NewConnectionId(1, 0, cid, self.tokens[-1]).encode())
        self.heap += send_all(endpoint, self.now)
        if how & 4:
            endpoint.receive(genuine_hello("udp"), self.paths[2], self.now)
            self.heap += send_all(endpoint, self.now)
        self.dial = endpoint.connect(self.paths[3], now=self.now) if how & 8 else None
        if self.dial is not None:
            self.heap += challenge_to(suite, *send_all(endpoint, self.now))
        assert len(endpoint.sessions) == 2

    def send(self, peer: Peer, plain: bytes, size: int = 1200) -> None:
        """A genuine packet, all of it."""
        datagrams = peer.seal(plain, None, size)
        self.heap += datagrams[: MAX_HEAP - len(self.heap)]
        for datagram in datagrams:
            self.endpoint.receive(datagram, peer.path, self.now)

    def state(self) -> list[object]:
        """What only authentic packets may change."""
        states: list[object] = []
        for peer in self.peers:
            stats = peer.session.stats()
            states.append((peer.session.state, peer.session.close_error, stats.packets_received, stats.bytes_received))
        return [*states, len(self.endpoint.sessions)]

    def listen(self) -> None:
        """Take what the endpoint sends: it must give no token away."""
        tokens = set(live_reset_tokens(self.endpoint))
        for datagram in send_all(self.endpoint, self.now):
            assert datagram[-16:] not in tokens, "the token of a live session is given away"
        for _ in self.endpoint.events():
            pass
        check_bounds(self.endpoint)


def fuzz_one(data: bytes) -> None:
    """Let datagrams come."""
    choices = Choices(data)
    run = Run(choices)
    while choices:
        STEPS[choices.below(len(STEPS))](run, choices)
        run.listen()
    for peer in run.peers:
        session = peer.session
        if session.state is SessionState.ESTABLISHED:
            before = session.stats().packets_received
            run.send(peer, Ping().encode())
            assert session.stats().packets_received == before + 1, "a session that is deaf"
        session.abort(run.now)
    if run.dial is not None:
        run.dial.abort(run.now)
    let_time_pass(run.endpoint, run.now, run.now + 100.0)
    held = held_for_sessions(run.endpoint)
    assert not held, held


def datagram(run: Run, choices: Choices) -> bytes:
    """From the heap, damaged or not, or made up for somebody or nobody."""
    how = choices.byte()
    if how & 3:
        found = choices.pick(run.heap)
        if how & 4:
            return found
        return with_check(choices.damage(found)) if how & 8 else choices.damage(found)
    cid = choices.pick([*run.endpoint._context.connection_ids._owners, bytes(8)]) if how & 4 else choices.take(8)
    if how & 8:  # a packet, a segment, or neither
        return bytes((choices.byte(),)) + cid + choices.chunk()
    made = bytes((0xC0 | choices.byte(),)) + bytes(8) + cid + choices.chunk()
    return with_check(made) if how & 16 else made[:1] + cid + made[9:]


def receive_one(run: Run, choices: Choices) -> None:
    """One datagram, in any kind of buffer."""
    data, path, how = datagram(run, choices), choices.pick(run.paths), choices.byte()
    buffer = (data, bytearray(data), memoryview(data), memoryview(b"x" + data)[1:])[how & 3]
    before = run.state()
    run.endpoint.receive(buffer, path, run.now, ecn=how >> 6)
    assert run.state() == before, "what is not authentic has changed a session"


def receive_run(run: Run, choices: Choices) -> None:
    """Some datagrams at once, cut at any size: a system that coalesces looks at addresses and sizes alone."""
    size = choices.pick(SIZES)
    datagrams = [datagram(run, choices) for _ in range(1 + choices.below(6))]
    if size is None:
        size = max(1, len(datagrams[0]))
    if choices.flag():
        datagrams = [data[:size].ljust(size, b"\0") for data in datagrams]
    before = run.state()
    run.endpoint.receive(b"".join(datagrams), choices.pick(run.paths), run.now, size)
    assert run.state() == before, "what is not authentic has changed a session"


def receive_reset(run: Run, choices: Choices) -> None:
    """A stateless reset of a peer that has forgotten its session; damaged, it is none."""
    which, how = choices.below(2), choices.byte()
    reset = bytes((0x40 | choices.below(32),)) + choices.take(8).ljust(8, b"n") + choices.chunk() + run.tokens[which]
    if how & 7:
        damaged = choices.damage(reset)
        reset = damaged if run.tokens[which] not in damaged else damaged[:-1]
    session = run.peers[which].session
    fits = len(reset) >= 29 and reset[-16:] == run.tokens[which] and not session.is_closed
    before = run.state()
    run.endpoint.receive(reset, choices.pick(run.paths), run.now)
    assert session.is_closed if fits else run.state() == before


def send_genuine(run: Run, choices: Choices) -> None:
    """A packet of a peer's."""
    peer = choices.pick(run.peers)
    frames = (
        Ping().encode(),
        Stream(0 if peer is run.peers[0] else 1, 0, b"data" * choices.below(200), choices.flag()).encode(),
        PathChallenge(b"question").encode(),
    )
    run.send(peer, choices.pick(frames), choices.pick((60, 1200)))


def receive_arguments(run: Run, choices: Choices) -> None:
    """What the host gets wrong is refused, and nothing is taken in."""
    data, path = datagram(run, choices), run.paths[0]
    wrong: tuple[dict[str, Any], ...] = (
        {"ecn": 4},
        {"ecn": -1},
        {"segment_size": 0},
        {"segment_size": -5},
        {"data": memoryview(data + b"xxxx")[::2]},
        {"data": "text"},
        {"path": NetworkPath("pigeon", 1, 2)},
    )
    arguments: dict[str, Any] = {"data": data, "path": path, "now": run.now, **choices.pick(wrong)}
    before = run.state()
    try:
        run.endpoint.receive(**arguments)
    except ArgumentError:
        assert run.state() == before
    else:
        raise AssertionError(f"taken in: {arguments}")


def wait(run: Run, choices: Choices) -> None:
    """Time passes."""
    run.now = let_time_pass(run.endpoint, run.now, run.now + choices.pick(SECONDS))


def close(run: Run, choices: Choices) -> None:
    """A session or the dial ends; what comes for it later comes for nobody."""
    if choices.below(4):
        return
    session = choices.pick((run.peers[0].session, run.peers[1].session, run.dial))
    if session is None:
        return
    if choices.flag():
        session.abort(run.now)
    else:
        run.endpoint.path_closed(session.path, run.now)


STEPS = (
    receive_one,
    receive_one,
    receive_one,
    receive_run,
    receive_run,
    receive_run,
    receive_reset,
    send_genuine,
    receive_arguments,
    wait,
    close,
)


if __name__ == "__main__":
    remember_curves()
    main(fuzz_one)
