"""What the application says about a peer before there is a session: whatever comes out of that refuses the peer.

The core hands on what `admit` and `namespace_of` raise, as it has no log. Here that would end the carrier in whose
batch the peer's proof came, and with it the node of everybody.
"""

from __future__ import annotations

from collections.abc import Callable

from stt_anyio.errors import ArgumentError
from stt_anyio.errors import ConnectionRefusedError as RefusedError
from stt_anyio.waiting import FAILURES
from stt_proto import NetworkPath
from stt_proto.endpoint import Admit
from stt_proto.lifecycle import NamespaceOf
from stt_proto.manager.namespaces import Namespace, namespace_bytes
from stt_proto.wire import MAX_VARINT

Failed = Callable[[BaseException, None], None]


def contained_admit(admit: Admit, failed: Failed) -> Admit:
    """The same, but where it raises, or gives no error code, the peer is refused and `failed` is told."""

    def judge(peer_node_id: bytes, path: NetworkPath, now: float) -> int | None:
        try:
            code = admit(peer_node_id, path, now)
            if not (code is None or (type(code) is int and 0 <= code <= MAX_VARINT)):
                raise ArgumentError(f"admit gave {code!r}; it must give an error code or None", argument="admit")
        except FAILURES as error:
            failed(error, None)
            return RefusedError.code
        return code

    return judge


def contained_namespace_of(namespace_of: NamespaceOf, failed: Failed) -> NamespaceOf:
    """The same, but where it raises, or gives no namespace, the peer is refused and `failed` is told."""

    def judge(peer_node_id: bytes) -> Namespace:
        try:
            namespace = namespace_of(peer_node_id)
            namespace_bytes(namespace)
        except FAILURES as error:
            failed(error, None)
            raise RefusedError("nobody can say to which namespace the peer belongs") from None
        return namespace

    return judge
