"""What streams and sessions tell about themselves in anyio's way: `stream.extra(SttAttribute.peer_node_id)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Any

from anyio import TypedAttributeSet, typed_attribute
from anyio.abc import SocketAttribute

from stt_anyio.session_base import SessionBase
from stt_anyio.stream_base import StreamBase


class SttAttribute(TypedAttributeSet):
    """Typed attributes of sessions and streams."""

    #: the session itself
    session: Any = typed_attribute()
    #: 8 bytes, the same on both sides
    session_id: bytes = typed_attribute()
    #: this node's public key
    node_id: bytes = typed_attribute()
    #: the peer's public key, proven
    peer_node_id: bytes = typed_attribute()
    #: the carrier in use
    transport_type: str = typed_attribute()
    #: of a stream
    stream_id: int = typed_attribute()
    #: of a stream: the word given when it was opened
    purpose: str = typed_attribute()


def attributes_of(session: SessionBase[Any], stream: StreamBase | None = None) -> Mapping[Any, Callable[[], Any]]:
    """The attributes of a session, or of one of its streams.

    A `raw_socket` is not among them: the socket carries other sessions too.
    """
    attributes: dict[Any, Callable[[], Any]] = {
        SttAttribute.session: lambda: session,
        SttAttribute.session_id: lambda: session.session_id,
        SttAttribute.node_id: lambda: session.node.node_id,
        SttAttribute.peer_node_id: lambda: session.peer_node_id,
        SttAttribute.transport_type: lambda: session.transport_type,
        SocketAttribute.local_address: lambda: session.local_addr,
        SocketAttribute.remote_address: lambda: session.peer_addr,
    }
    if stream is not None:
        attributes[SttAttribute.stream_id] = lambda: stream.stream_id
        attributes[SttAttribute.purpose] = lambda: stream.purpose
    remote, local = session.peer_addr, session.local_addr
    if isinstance(remote, tuple) and isinstance(local, tuple):
        attributes[SocketAttribute.family] = lambda: AF_INET if ip_address(remote[0]).version == 4 else AF_INET6
        attributes[SocketAttribute.remote_port] = lambda: remote[1]
        attributes[SocketAttribute.local_port] = lambda: local[1]
    return attributes
