"""The peers' environments, `build/peers/<peer>`: nothing of theirs comes near the project's, or near each other.

A peer that has no wheel for the Python that runs the benchmark gets another one, if this machine has one that fits.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "peers"
SCRIPTS = Path(__file__).with_name("peers")
INSTALL_SECONDS = 300
NEWEST, OLDEST = 15, 11
"""Minor versions of Python 3 that are looked for."""


@frozen
class Peer:
    """Something that a user could pick instead.

    Attributes:
        title: what people call it.
        script: what runs it, in `peers/`.
        packages: what it is installed from.
    """

    title: str
    script: str
    packages: tuple[str, ...]


PEERS: Mapping[str, Peer] = {
    "qh3": Peer("qh3 (Rust)", "quic.py", ("qh3", "cryptography")),
    "aioquic": Peer("aioquic", "quic.py", ("aioquic", "cryptography")),
    "aiopquic": Peer("aiopquic (C)", "quic.py", ("aiopquic", "cryptography")),
    "tls": Peer("asyncio TLS/TCP", "tls.py", ("cryptography",)),
    "wss": Peer("websockets, TLS", "wss.py", ("websockets", "cryptography")),
    "zmq": Peer("pyzmq CURVE", "curve.py", ("pyzmq",)),
}


def command(peer: str) -> tuple[str, ...]:
    """What measures a peer; it takes options of `stt perf`."""
    return str(_python(FOLDER / peer)), str(SCRIPTS / PEERS[peer].script), peer


def install(peer: str, pythons: tuple[str, ...] | None = None) -> str | None:
    """Make a peer's environment if it is not there; why not, if it cannot be made.

    Args:
        peer: a key of `PEERS`.
        pythons: the interpreters to try, in turn; those of this machine when not given.
    """
    folder, packages = FOLDER / peer, PEERS[peer].packages
    stamp = folder / "installed"
    if stamp.is_file() and stamp.read_text() == " ".join(packages):
        return None
    problems = []
    for python in _pythons() if pythons is None else pythons:
        problem = _install(python, folder, packages)
        if problem is None:
            stamp.write_text(" ".join(packages))
            return None
        problems.append(problem)
    shutil.rmtree(folder, ignore_errors=True)
    return f"not installed: {problems[0]}" if problems else "not installed: no Python to try"


def _install(python: str, folder: Path, packages: tuple[str, ...]) -> str | None:
    """Wheels only: what would have to be compiled takes too long and needs too much."""
    pip = (sys.executable, "-m", "pip", "--python", str(_python(folder)), "install", "-qq", "--only-binary=:all:")
    for step in (
        (python, "-m", "venv", "--clear", "--without-pip", str(folder)),
        (*pip, "--no-input", "--disable-pip-version-check", *packages),
    ):
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"{step[2]} failed"])[-1].removeprefix("ERROR: ")
    return None


def _python(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _pythons() -> Iterator[str]:
    """The Python that runs this, then others that this machine has, the newest first."""
    base: str = sys._base_executable  # type: ignore[attr-defined]
    yield base
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for minor in range(NEWEST, OLDEST - 1, -1):
        if minor == sys.version_info.minor:
            continue
        on_path = shutil.which(f"python3.{minor}")  # which with pyenv may be a shim that does not run
        if on_path is not None:
            yield on_path
        yield from map(str, sorted(pyenv.glob(f"3.{minor}.*/bin/python"), reverse=True)[:1])
