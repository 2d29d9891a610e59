"""pyzmq with CURVE, on the work of `stt perf`: its messages go one way, and round trips are requests and replies."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from typing import Any

import zmq
from common import HOST, Options, main, payload, two_processes, yardstick

PIECE = 1 << 16
ANSWER_SECONDS = 120


def far_end(options: Options, pipe: Connection) -> None:
    with zmq.Context() as context:
        public, secret = zmq.curve_keypair()
        pull, reply = context.socket(zmq.PULL), context.socket(zmq.REP)
        for socket in (pull, reply):
            socket.curve_server, socket.curve_publickey, socket.curve_secretkey = True, public, secret
            socket.bind(f"tcp://{HOST}:*")
        cpu = time.process_time()
        pipe.send((public, pull.getsockopt_string(zmq.LAST_ENDPOINT), reply.getsockopt_string(zmq.LAST_ENDPOINT)))
        if options.mode == "echo":
            for _ in range(options.count):
                reply.send(reply.recv())
        else:
            count = 0
            while count < options.up:
                count += len(pull.recv(copy=False))
            reply.recv()
            reply.send(count.to_bytes(yardstick.COUNT_BYTES, "big"))
        pipe.recv()
        pipe.send(time.process_time() - cpu)
        context.destroy(linger=0)


def near_end(options: Options, where: tuple[bytes, str, str]) -> dict[str, float]:
    public, *endpoints = where
    with zmq.Context() as context:
        push, ask = context.socket(zmq.PUSH), context.socket(zmq.REQ)
        for socket, endpoint in zip((push, ask), endpoints, strict=True):
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.curve_serverkey = public
            socket.rcvtimeo = socket.sndtimeo = ANSWER_SECONDS * 1000
            socket.connect(endpoint)
        figures = (_echo if options.mode == "echo" else _move)(options, push, ask)
        context.destroy(linger=0)
    return figures


def _move(options: Options, push: Any, ask: Any) -> dict[str, float]:
    data = yardstick.MESSAGE if options.mode == "messages" else payload(PIECE)
    answer, watch = yardstick.Answer(0), yardstick.Watch()
    for _ in range(options.up // len(data)):
        push.send(data)
    ask.send(b"?")
    answer.take(ask.recv())
    answer.check(options.up)
    return options.figures(watch)


def _echo(options: Options, push: Any, ask: Any) -> dict[str, float]:
    times, watch = [], yardstick.Watch()
    for _ in range(options.count):
        started = time.perf_counter()
        ask.send(yardstick.MESSAGE)
        ask.recv()
        times.append(time.perf_counter() - started)
    return yardstick.echo_figures(times, watch)


def over_sockets(options: Options) -> dict[str, float]:
    if options.streams != 1 or options.direction != "up":
        raise SystemExit("PUSH goes one way, on one connection")
    return two_processes(options, far_end, near_end)


if __name__ == "__main__":
    main(("zmq",), dict.fromkeys(("bulk", "echo", "messages"), over_sockets))
