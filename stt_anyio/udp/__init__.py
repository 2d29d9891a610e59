"""UDP: batches in, segments out, on a non-blocking socket of our own.

`UdpSocket` never waits and belongs to no event loop; `UdpCarrier` is the waiting, for asyncio and trio. What systems do
differently stands in `options`.
"""

from __future__ import annotations

from stt_anyio.udp.addresses import Address, any_of, check_address, look_up, resolve_numeric
from stt_anyio.udp.carrier import UdpCarrier
from stt_anyio.udp.pool import SocketPool
from stt_anyio.udp.udpsocket import UdpSocket

__all__ = ["Address", "SocketPool", "UdpCarrier", "UdpSocket", "any_of", "check_address", "look_up", "resolve_numeric"]
