"""Stores of sessions, for one process or for many: tickets that are used once, metadata, who owns a session.

`SessionStore` is what a store does; `stt_proto.manager.store` has the rules (versions, time, what is taken once,
bounds) and the reference, which `MemorySessionStore` is with a clock. Stores that do I/O raise `StoreUnavailableError`
when it fails or takes too long, and then nobody knows whether the write happened: read before writing again.
"""

from __future__ import annotations

from stt_anyio.stores.memory import MemorySessionStore
from stt_anyio.stores.protocol import SessionStore
from stt_proto.manager.store import StoredEntry

__all__ = ["MemorySessionStore", "SessionStore", "StoredEntry"]
