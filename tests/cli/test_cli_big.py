"""A file much larger than the memory that either end of `stt send` and `stt recv` uses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.figures import RecordProperty, tell

ROOT = Path(__file__).parents[2]
SIZE = 1 << 30
BLOCK = 1 << 20
MOST_MEMORY = 150_000_000
"""Bytes, of either process."""
LIMIT = 900.0
"""Seconds that nothing of this takes, on the slowest machine."""


class Process:
    """`stt` in a process that lives `LIMIT` seconds at most; notes how much memory it had in use at its peak."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.peak_memory = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stt_anyio.cli", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._watcher = threading.Thread(target=self._watch, name="peak memory", daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        """The system's own mark of the peak, read until the process ends.

        Not `ru_maxrss`: Linux lets a process inherit that from the one that starts it.
        """
        status, give_up = Path(f"/proc/{self._process.pid}/status"), time.monotonic() + LIMIT
        try:
            while self._process.poll() is None and time.monotonic() < give_up:
                for line in status.read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        self.peak_memory = int(line.split()[1]) * 1024
                time.sleep(0.02)
        except OSError:
            pass  # it has just ended

    def event(self) -> dict[str, Any]:
        """The next object that it prints."""
        assert self._process.stdout is not None
        event = json.loads(self._process.stdout.readline())
        assert isinstance(event, dict)
        return event

    def end(self) -> int:
        """Its exit code."""
        code = self._process.wait(LIMIT)
        self._watcher.join(LIMIT)
        return code

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate()
        self._watcher.join(LIMIT)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A place with room for the file twice, which is empty again afterwards."""
    if shutil.disk_usage(tmp_path).free < 3 * SIZE:
        pytest.skip(f"no room for {3 * SIZE >> 30} GiB")
    place = tmp_path / "place"
    place.mkdir()
    yield place
    shutil.rmtree(place)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell peaks of memory")
def test_a_gibibyte_in_little_memory(folder: Path, record_property: RecordProperty) -> None:
    sha256 = write_noise(folder / "big.bin")
    (folder / "seed").write_text("a passphrase\n")
    listen = ("recv", "--listen", "udp://127.0.0.1:0", "--seed-file", "seed", "--dir", "inbox", "--once", "--json")
    recv = Process(folder, *listen)
    send = None
    try:
        send = Process(folder, "send", "big.bin", recv.event()["address"], "--seed-file", "seed", "--json")
        received, sent = recv.event(), send.event()
        assert (recv.end(), send.end()) == (0, 0)
    finally:
        for process in (recv, send):
            if process is not None:
                process.kill()
    tell(
        record_property,
        seconds=sent["seconds"],
        mb_per_s=SIZE / sent["seconds"] / 1e6,
        peak_memory_mb=f"sender {send.peak_memory / 1e6:.1f}, receiver {recv.peak_memory / 1e6:.1f}",
    )
    with (folder / "inbox" / "big.bin").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == sha256
    assert sent["sha256"] == received["sha256"] == sha256
    for process in (send, recv):
        assert 10_000_000 < process.peak_memory < MOST_MEMORY


def write_noise(path: Path) -> str:
    """A file of `SIZE` bytes in which no two blocks are alike, and its hash."""
    noise, digest = bytearray(Random(1).randbytes(BLOCK)), hashlib.sha256()
    with path.open("wb") as file:
        for number in range(SIZE // BLOCK):
            noise[:8] = number.to_bytes(8)
            digest.update(noise)
            file.write(noise)
    return digest.hexdigest()
