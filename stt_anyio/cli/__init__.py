"""The command `stt`: one module a verb, and what verbs share in `verb`, `seeds`, `address`, `progress` and `transfer`.

It needs click and rich, which `pip install 'stt-transport[cli]'` brings.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command with the arguments of the process, and exit."""
    try:
        from stt_anyio.cli.app import stt
    except ModuleNotFoundError as missing:
        if missing.name not in ("click", "rich"):
            raise
        sys.exit(f"stt: {missing.name} is missing; install the command with: pip install 'stt-transport[cli]'")
    stt(prog_name="stt")
