"""The manager of a node's sessions under asyncio and trio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from stt_anyio.errors import SttError
from stt_anyio.managed import DRAIN_TIMEOUT, ManagedSessions
from stt_anyio.session import Session
from stt_anyio.timeouts import check_timeout
from stt_anyio.waiting import within
from stt_proto.manager import DrainStatus, Namespace

if TYPE_CHECKING:
    from stt_anyio.node import STTNode


class SessionManager(ManagedSessions[Session]):
    """The sessions of a node, by what one wants to know of them; `node.session_manager`."""

    node: STTNode

    async def create_session(
        self,
        address: Any,
        peer_node_id: bytes | None = None,
        timeout: float | None = 10.0,
        transport: str | None = None,
        *,
        namespace: Namespace | None = None,
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Session:
        """Dial, as `node.connect` does, and say how the session is to be treated.

        Args:
            address, peer_node_id, timeout, transport, options: as for `node.connect`.
            namespace: what it shares with other sessions.
            config: as for `Session.configure`.
            metadata: what is to be remembered in its record.

        Raises:
            ConfigError: a parameter is unknown or out of its range; nobody was dialled.
            TooManySessionsError: also of the namespace (`scope`); the session was ended.
            SttError: all that `node.connect` raises.
        """
        self._check_new(namespace, config, metadata)
        session = await self.node.connect(address, peer_node_id, timeout, transport, **options)
        return self._describe(session, namespace, config, metadata)

    async def close_session(self, session_id: bytes, reason: str = "graceful", detail: str = "") -> bool:
        """Close a session as `Session.close` does, and wait until it is over; False when that was not to be done."""
        await checkpoint()
        session, news = self._begin_close(session_id, reason, detail)
        if session is not None:
            await session.wait_closed()
        return news

    async def close_all_sessions(self, reason: str = "graceful", detail: str = "") -> int:
        """Close all sessions at once, and wait until they are over; give how many that are."""
        await checkpoint()
        begun = self._begin_close_all(reason, detail)
        for session, _ in begun:
            if session is not None:
                await session.wait_closed()
        return sum([news for _, news in begun])

    async def rotate_all_keys(self, timeout: float | None = None) -> list[bytes]:
        """Replace the keys of all sessions that can be used, of the most urgent first, and wait until that is done.

        Args:
            timeout: seconds to wait; it goes on after that.

        Returns:
            the ids of those whose keys were replaced: sessions that end meanwhile are left out, and those whose peers
            cannot.

        Raises:
            TimeoutError: it is not done yet.
        """
        check_timeout(timeout)
        await checkpoint()
        done: list[bytes] = []
        with within(timeout, "the keys were not replaced"):
            for session, version in self._begin_rotations().items():
                try:
                    await session.wait_rotated(version)
                except SttError:
                    continue
                done.append(session.session_id)
        return done

    async def drain(self, timeout: float = DRAIN_TIMEOUT) -> DrainStatus:
        """See `STTNode.drain`."""
        await checkpoint()
        self._begin_drain(timeout)
        with anyio.move_on_after(timeout):
            while self.node.sessions:
                await next(iter(self.node.sessions.values())).wait_closed()
        self._end_drain()
        return self.drain_status()
