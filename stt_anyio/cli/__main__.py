"""`python -m stt_anyio.cli` is `stt`."""

from __future__ import annotations

from stt_anyio.cli import main

if __name__ == "__main__":
    main()
