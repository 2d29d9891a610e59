"""One message to many sessions of a node, whatever its host; `stt_proto.broadcast` has what waits and who goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from stt_anyio.errors import ArgumentError, SessionNotFound, SttError
from stt_anyio.node_base import NodeBase
from stt_anyio.session_base import SessionBase
from stt_anyio.stream_base import single_bytes
from stt_proto import Stream as CoreStream
from stt_proto.broadcast import Broadcast, BroadcastResult, Delivery, Fate, Receipt, StreamOutbox
from stt_proto.types import Buffer


class Cast:
    """A broadcast of a node, from when it is made.

    Args:
        node: whose sessions they are.
        session_ids: who is to have it.
        data: the message.
        stream_id: on which stream; on one of its own for each when `None`.
        on_settled: called when the fate of all may be known, if that is not so from the start.

    Raises:
        ArgumentError: `session_ids`, `data` or `stream_id` is none; then it was sent to nobody.
    """

    __slots__ = ("_broadcaster", "_fates", "_message", "_stream_id")

    def __init__(
        self,
        node: NodeBase[Any],
        session_ids: Iterable[bytes],
        data: Buffer,
        stream_id: int | None,
        on_settled: Callable[[], None] | None = None,
    ) -> None:
        wanted = _checked(session_ids)
        if stream_id is not None and type(stream_id) is not int:
            raise ArgumentError(f"stream_id is {stream_id!r}; it must be a whole number", argument="stream_id")
        driver, self._broadcaster = node.driver, node.broadcaster
        message = bytes(single_bytes(data))
        self._broadcaster.check(message)
        self._message = Broadcast(message, on_settled)
        self._stream_id = stream_id
        self._fates: dict[bytes, tuple[SessionBase[Any], Delivery] | SttError] = {}
        for each in dict.fromkeys(wanted):
            session = node.sessions.get(each)
            if session is None:
                self._fates[each] = SessionNotFound(f"no session has the id {each.hex()}")
            else:
                self._fates[each] = self._send(session)
        driver.pump()

    def _send(self, session: SessionBase[Any]) -> tuple[SessionBase[Any], Delivery] | SttError:
        core: CoreStream | None = None
        stream_id = self._stream_id
        if stream_id is not None:
            try:
                stream = session.streams.get(stream_id) or session.open_stream(stream_id)
                core = stream.feed()
            except SttError as error:
                return error
        delivery = self._broadcaster.send(self._message, session.core, core, session.driver.clock())
        if core is not None:
            outbox = self._broadcaster.outbox(session.core, stream_id)
            stream.fed = outbox if isinstance(outbox, StreamOutbox) else None
        return session, delivery

    @property
    def settled(self) -> bool:
        """Whether it is known for all what became of it."""
        return self._message.settled

    def withdraw(self) -> None:
        """Do not send it to those for whom it has not begun to leave."""
        for fate in self._fates.values():
            if not isinstance(fate, SttError):
                session, delivery = fate
                self._broadcaster.withdraw(delivery, session.core, self._stream_id)

    def result(self) -> BroadcastResult:
        """What has become of it for each."""
        return BroadcastResult({each: _receipt(fate) for each, fate in self._fates.items()})


def _checked(session_ids: Any) -> list[bytes]:
    wanted = list(session_ids) if isinstance(session_ids, Iterable) else [session_ids]
    if isinstance(session_ids, bytes | bytearray | str) or not all(isinstance(each, bytes) for each in wanted):
        raise ArgumentError("session_ids must be some ids, each of them bytes", argument="session_ids")
    return wanted


def _receipt(fate: tuple[SessionBase[Any], Delivery] | SttError) -> Receipt:
    if isinstance(fate, SttError):
        return Receipt(Fate.FAILED, fate)
    session, delivery = fate
    return Receipt(delivery.fate, None if delivery.error is None else session.raised(delivery.error))
