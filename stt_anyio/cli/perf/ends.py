"""The two ends of a measurement over a carrier, each in a process of its own: here, and there.

What is said between the processes, in order: the port that the far end listens at, and at last the seconds of CPU that
it spent. When one process ends, however it does, the other ends too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection
from typing import Any

from stt_anyio.cli.perf import with_loop, without_loop
from stt_anyio.cli.perf.work import Work

_PATIENCE = 30.0
"""Seconds that the far end has to come up, or to tell its figures."""
_GRACE = 5.0
"""Seconds that it has to end by itself."""


def measure(work: Work) -> dict[str, float]:
    """Start the far end, be the near end, and give the figures of both.

    Raises:
        RuntimeError: the far end did not come up, or broke down.
    """
    if work.carrier == "memory":
        return with_loop.both(work)
    near = without_loop.near if work.backend == "blocking" else with_loop.near
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    far = spawn.Process(target=_far_end, args=(work, theirs), daemon=True)
    far.start()
    theirs.close()
    try:
        with ours:
            figures = near(work, _told(ours))
            return {**figures, "cpu_s_far": _told(ours)}
    finally:
        far.join(_GRACE)
        far.terminate()
        far.join()


def _told(pipe: Connection) -> Any:
    try:
        if pipe.poll(_PATIENCE):
            return pipe.recv()
    except EOFError:
        pass
    raise RuntimeError("the far end broke down")


def _far_end(work: Work, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the near end is interrupted, and closes the session
    threading.Thread(target=_end_with, args=(pipe,), daemon=True).start()
    far = without_loop.far if work.backend == "blocking" else with_loop.far
    far(work, pipe.send)


def _end_with(pipe: Connection) -> None:
    """End this process some time after the near end has."""
    try:
        pipe.recv()
    except (EOFError, OSError):
        threading.Event().wait(_GRACE)
        os._exit(1)
