"""`stt perf`: how fast it is, here and now.

`modes.py` is the table of what can be measured. Over UDP, `ends.py` starts the two processes, and `with_loop.py` and
`without_loop.py` are what they do; without sockets it is `pair.py`, with `inside.py` and `scaling.py` on top of it.
"""

from __future__ import annotations

from stt_anyio.cli.perf.command import perf

__all__ = ["perf"]
