"""The manager of a node's sessions without an event loop."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stt_anyio.blocking.session import BlockingSession
from stt_anyio.errors import SttError
from stt_anyio.managed import DRAIN_TIMEOUT, ManagedSessions
from stt_anyio.timeouts import check_timeout
from stt_proto.manager import DrainStatus, Namespace

if TYPE_CHECKING:
    from stt_anyio.blocking.node import BlockingNode


class BlockingSessionManager(ManagedSessions[BlockingSession]):
    """The sessions of a node, by what one wants to know of them; `node.session_manager`. See `SessionManager`."""

    node: BlockingNode

    def create_session(
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
    ) -> BlockingSession:
        """Dial, as `node.connect` does, and say how the session is to be treated; see `SessionManager`."""
        self._check_new(namespace, config, metadata)
        session = self.node.connect(address, peer_node_id, timeout, transport, **options)
        with self.guard:
            return self._describe(session, namespace, config, metadata)

    def close_session(
        self, session_id: bytes, reason: str = "graceful", detail: str = "", timeout: float | None = None
    ) -> bool:
        """Close a session as its own `close` does, and wait until it is over; False when that was not to be done."""
        check_timeout(timeout)
        with self.guard:
            session, news = self._begin_close(session_id, reason, detail)
        if session is not None:
            session.wait_closed(timeout)
        return news

    def close_all_sessions(self, reason: str = "graceful", detail: str = "", timeout: float | None = None) -> int:
        """Close all sessions at once, and wait until they are over; give how many that are."""
        check_timeout(timeout)
        with self.guard:
            begun = self._begin_close_all(reason, detail)
        sessions = [session for session, _ in begun if session is not None]
        self.node.until(lambda: all(session.is_closed for session in sessions) or None, timeout)
        return sum([news for _, news in begun])

    def rotate_all_keys(self, timeout: float | None = None) -> list[bytes]:
        """Replace the keys of all sessions that can be used, and wait until that is done; see `SessionManager`."""
        check_timeout(timeout)
        with self.guard:
            waiting = self._begin_rotations()
        done: list[bytes] = []

        def look() -> bool | None:
            for session, version in tuple(waiting.items()):
                try:
                    if not session._rotated(version):
                        continue
                    done.append(session.session_id)
                except SttError:
                    pass
                del waiting[session]
            return None if waiting else True

        self.node.until(look, timeout)
        return done

    def drain(self, timeout: float = DRAIN_TIMEOUT) -> DrainStatus:
        """See `STTNode.drain`."""
        check_timeout(timeout)
        with self.guard:
            self._begin_drain(timeout)
            until = time.monotonic() + timeout
        try:
            self.node.until(lambda: True if not self.node.sessions else None, until - time.monotonic())
        except TimeoutError:
            with self.guard:
                self._end_drain()
        return self.drain_status()
