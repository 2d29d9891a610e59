"""What a test measured: in the report of pytest (`--junit-xml`), and on the screen with `-s` or `-rP`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

RecordProperty = Callable[[str, object], None]


def tell(record_property: RecordProperty, /, **figures: Any) -> None:
    """Keep figures of a run: numbers are rounded, anything else is told as text."""
    rounded = {
        name: float(f"{value:.4g}") if isinstance(value, float) else str(value) for name, value in figures.items()
    }
    for name, value in rounded.items():
        record_property(name, value)
    sys.stdout.write("\n" + ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in rounded.items()) + "\n")


def kept_waiting() -> float:
    """Seconds for which this thread could have gone on, and the system had no processor for it (Linux)."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0
