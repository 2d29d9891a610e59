"""A module that cannot be imported: it misses something of its own."""

from __future__ import annotations

SETTINGS: dict[str, str] = {}

DATABASE = SETTINGS["DATABASE_URL"]
