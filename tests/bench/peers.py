"""The peers' own environment, `build/peers`: nothing of theirs comes near the project's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / "build" / "peers"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "installed"
PACKAGES = ("aioquic", "qh3")


def install() -> str | None:
    """Make the environment if it is not there; what went wrong, if something did."""
    wanted = " ".join((sys.version.split()[0], *PACKAGES))
    if STAMP.is_file() and STAMP.read_text() == wanted:
        return None
    pip = (sys.executable, "-m", "pip", "--python", str(PYTHON), "install", "-qq", "--disable-pip-version-check")
    for command in ((sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)), (*pip, *PACKAGES)):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return (done.stderr.strip().splitlines() or [f"{command[2]} failed"])[-1]
    STAMP.write_text(wanted)
    return None


def peer_command(library: str) -> tuple[str, ...]:
    """The command that measures a QUIC library; takes the options of `stt perf`."""
    return (str(PYTHON), str(Path(__file__).with_name("quic.py")), library)
