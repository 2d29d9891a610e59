"""A Redis of the tests' own: on a Unix socket in a folder of its own, without persistence, gone when they are.

`make test` installs it where it may (`.ci/redis.py`). Debian has the server's program in its package `redis-tools`
under another name, told from its argument zero; so no service need be there.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any


def find_server() -> tuple[str, str] | None:
    """The program, and what it is to be called."""
    for name in ("redis-server", "valkey-server"):
        if (program := shutil.which(name)) is not None:
            return program, name
    for name, other in (("redis-check-rdb", "redis-server"), ("valkey-check-rdb", "valkey-server")):
        if (program := shutil.which(name)) is not None:
            return program, other
    return None


class RedisServer:
    """A server, which can be stopped, halted, and started again on the same socket.

    Args:
        options: of its configuration, beside and instead of those here.
    """

    def __init__(self, **options: str) -> None:
        self._given = options
        self._folder = Path(tempfile.mkdtemp(prefix="stt-redis-"))  # short: a socket's name has 100 bytes
        self.socket = self._folder / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        found = find_server()
        assert found is not None
        program, name = found
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "save": "",
            "appendonly": "no",
            "dir": str(self._folder),
            **self._given,
        }
        words = [word for option, value in options.items() for word in (f"--{option}", value)]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [name, *words], executable=program, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        for _ in range(1000):
            with suppress(OSError):
                if self.ask("PING") == b"+PONG\r\n":  # and not that it is loading
                    return
            time.sleep(0.01)
            if self._process.poll() is not None:
                break
        raise RuntimeError((self._folder / "log").read_text())

    def kill(self) -> None:
        """End it at once; what it held is gone, but what it was told to write down."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.socket.unlink(missing_ok=True)
            self._process = None

    def halt(self) -> None:
        """It is there and does nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._folder)

    def ask(self, *words: str) -> bytes:
        """One command past all clients, and the beginning of the answer."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10.0)
            line.connect(os.fspath(self.socket))
            line.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w.encode()) for w in words))
            return line.recv(65_536)


class Halted:
    """`with Halted(server):` it does nothing."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def __enter__(self) -> None:
        self._server.halt()

    def __exit__(self, *_: Any) -> None:
        self._server.go_on()
