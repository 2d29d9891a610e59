"""Sessions of the hosts move: to another address of the server, in mid-transfer (C8)."""

from __future__ import annotations

import hashlib
import sys

import anyio
import pytest

from stt_anyio import NodeConfig, STTNode, UdpCarrier
from stt_anyio.errors import ArgumentError
from stt_proto import NetworkPath
from tests.proto.worlds import filler

HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is this machine on Linux only")


async def test_a_transfer_moves_to_another_address() -> None:
    """C8, M-7: a server bound to all addresses is asked at another one; no byte is lost, and both send there."""
    carrier = UdpCarrier(NodeConfig(bind_address=HERE))
    data = filler(8 << 20)
    async with (
        STTNode(shared_seed="x", bind_address="0.0.0.0", server_mode=True) as server,
        STTNode(shared_seed="x", carriers=[carrier]) as client,
    ):
        session = await client.connect((HERE, server.port))
        (peer,) = server.get_active_sessions()
        received = hashlib.sha256()

        async def read() -> None:
            stream = await peer.accept_stream()
            async for chunk in stream:
                received.update(chunk)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                stream = session.open_stream()
                await stream.send(data[: 4 << 20])
                await session.migrate(await carrier.path_to((ELSEWHERE, server.port)))
                await stream.send(data[4 << 20 :])
                await stream.send_eof()
        assert received.digest() == hashlib.sha256(data).digest()
        assert session.peer_addr == (ELSEWHERE, server.port)
        assert peer.local_addr == (ELSEWHERE, server.port)
        assert len(session.paths) == 2
        assert not session.is_detached


async def test_what_is_no_path() -> None:
    """A11: the caller's mistake, at once."""
    async with (
        STTNode(shared_seed="x", bind_address=HERE, server_mode=True) as server,
        STTNode(shared_seed="x", bind_address=HERE) as client,
    ):
        session = await client.connect((HERE, server.port))
        with pytest.raises(ArgumentError):
            await session.add_path(NetworkPath("pigeon", 1, 2))
