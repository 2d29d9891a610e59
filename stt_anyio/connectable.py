"""A peer as something that anyio can connect to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStreamConnectable

from stt_anyio.errors import SessionClosedError, closed_here
from stt_anyio.session import Session
from stt_anyio.stream import Stream

if TYPE_CHECKING:
    from stt_anyio.ways import Ways


class StreamConnectable(ByteStreamConnectable):
    """A peer that streams are opened to: dialled when first asked for, and again when the session was lost."""

    def __init__(
        self, node: Ways, address: Any, peer_node_id: bytes | None, transport: str | None, purpose: str
    ) -> None:
        self._node = node
        self._address = address
        self._peer_node_id = peer_node_id
        self._transport = transport
        self._purpose = purpose
        self._session: Session | None = None
        self._dialling = anyio.Lock()
        self._waiting: set[anyio.CancelScope] = set()  # for the dial

    async def connect(self) -> Stream:
        """Open a stream, and a session first if there is none.

        Raises:
            ConnectionFailed: as `STTNode.connect`.
            SessionClosedError: `aclose` was called meanwhile; also an `anyio.ClosedResourceError`.
        """
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                async with self._dialling:
                    session = await self._active(scope)
                    if not scope.cancel_called:
                        return session.open_stream(purpose=self._purpose)
            finally:
                self._waiting.discard(scope)
        raise closed_here(SessionClosedError("closed while it was dialled"))

    async def _active(self, scope: anyio.CancelScope) -> Session:
        """The session, dialled if there is none; one that is there as the scope is cancelled ends at once."""
        session = self._session
        if session is None or not session.is_active():
            session = await self._node.connect(self._address, self._peer_node_id, transport=self._transport)
            if scope.cancel_called:
                session.abort()
            else:
                self._session = session
        return session

    async def aclose(self) -> None:
        """Close the session, and with it its streams; who waits in `connect` gets no stream."""
        for scope in self._waiting:
            scope.cancel()
        if self._session is not None:
            await self._session.aclose()
