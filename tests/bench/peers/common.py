"""What every peer's script needs: options, a certificate, a far end in a process of its own, and STT's own yardstick.

The scripts run in environments without STT (`environments.py`). Each prints one JSON object, with the keys that
`stt perf --json` has for the same figures.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import multiprocessing
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
NAME = "localhost"
PATIENCE = 30.0
"""Seconds that the far end has to come up, or to tell its figures."""
GRACE = 5.0
"""Seconds that it has to end by itself."""

_spec = importlib.util.spec_from_file_location(
    "yardstick", Path(__file__).parents[3] / "stt_anyio" / "cli" / "perf" / "yardstick.py"
)
assert _spec is not None
assert _spec.loader is not None
yardstick = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(yardstick)


class Options(argparse.Namespace):
    """The options of `stt perf` that peers understand too, and what follows from them."""

    library: str
    mode: str
    mb: int
    streams: int
    direction: str
    count: int
    sessions: int
    datagram_size: int
    folder: str

    @property
    def up(self) -> int:
        """Bytes that one stream carries from who dials."""
        if self.mode == "messages":
            return self.count * len(yardstick.MESSAGE)
        return 0 if self.direction == "down" else (self.mb << 20) // self.streams

    @property
    def down(self) -> int:
        """Bytes that one stream carries the other way."""
        return 0 if self.mode == "messages" or self.direction == "up" else (self.mb << 20) // self.streams

    def figures(self, watch: Any) -> dict[str, float]:
        """What has been moved, when whoever got it has confirmed it."""
        if self.mode == "messages":
            return yardstick.message_figures(self.count, watch)
        return yardstick.bulk_figures((self.up + self.down) * self.streams, watch)


def payload(size: int) -> bytes:
    """Bytes that do not compress, made before the clock runs."""
    return (os.urandom(yardstick.CHUNK) * (size // yardstick.CHUNK + 1))[:size]


def main(libraries: Iterable[str], modes: Mapping[str, Callable[[Options], dict[str, float]]]) -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("library", choices=list(libraries))
    parser.add_argument("--mode", choices=list(modes), required=True)
    parser.add_argument("--direction", choices=("up", "down", "both"), default="up")
    for name, default in (("mb", 64), ("streams", 1), ("count", 100), ("sessions", 100), ("datagram-size", 1452)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(namespace=Options())
    with tempfile.TemporaryDirectory() as options.folder:
        print(json.dumps(modes[options.mode](options)))


# -- two processes -------------------------------------------------------------------------------------------------


def two_processes(
    options: Options, far: Callable[[Options, Connection], None], near: Callable[[Options, Any], dict[str, float]]
) -> dict[str, float]:
    """Start the far end, which tells where it listens; be the near end; let the far end go.

    The far end waits for a word (`pipe.recv`) when it has nothing more to do, and then tells its seconds of CPU.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_far, args=(far, options, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        with ours:
            figures = near(options, _told(ours))
            ours.send("enough")
            return {**figures, "cpu_s_far": _told(ours)}
    finally:
        process.join(GRACE)
        process.terminate()
        process.join()


def _told(pipe: Connection) -> Any:
    try:
        if pipe.poll(PATIENCE):
            return pipe.recv()
    except EOFError:
        pass
    raise SystemExit("the far end broke down")


def _far(far: Callable[[Options, Connection], None], options: Options, pipe: Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_it() -> None:
        parent.join()
        threading.Event().wait(GRACE)
        os._exit(1)

    threading.Thread(target=end_with_it, daemon=True).start()
    far(options, pipe)


# -- a certificate -------------------------------------------------------------------------------------------------


def certificate(folder: str) -> tuple[str, str]:
    """A certificate that signs itself, and its key: the names of two files, made when they are not there."""
    files = os.path.join(folder, "certificate.pem"), os.path.join(folder, "key.pem")
    if not os.path.exists(files[1]):
        _write_certificate(*map(Path, files))
    return files


def _write_certificate(certificate: Path, key_file: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    today, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(today - day).not_valid_after(today + day)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    pem, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    key_file.write_bytes(key.private_bytes(pem, plain, serialization.NoEncryption()))
