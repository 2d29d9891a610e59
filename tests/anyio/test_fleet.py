"""Coming back to another server of the fleet, over the other kind of carrier and from another address (C7)."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import anyio
import pytest

from stt_anyio import BlockingNode, STTNode, TicketRefusal
from tests.anyio.test_tickets import FLEET, client_options, server_options, ticket_of

HERE = "127.0.0.1"
ELSEWHERE = "127.0.0.2" if sys.platform == "linux" else HERE  # all of 127.0.0.0/8 is this machine on Linux only
CARRIERS = pytest.mark.parametrize("carrier", ["udp", "websocket", "tcp"])


@CARRIERS
@pytest.mark.parametrize("secret", [FLEET, b"g" * 32], ids=["the-same-secret", "another-secret"])
async def test_another_server(carrier: str, secret: bytes) -> None:
    """H-34: whoever has the fleet's secret takes the ticket, wherever and however it is shown; nobody else does."""
    servers = [server_options(fleet_secret=FLEET), server_options(fleet_secret=secret)]
    async with STTNode(**servers[0]) as first, STTNode(**servers[1]) as second:
        assert first.node_id == second.node_id
        async with STTNode(**client_options()) as client:
            ticket = await ticket_of(client, first)
        ways: dict[str, Any] = {"udp": (HERE, second.port), "tcp": await second.listen_tcp()}
        ways["websocket"] = f"ws://{HERE}:{(await second.listen_websocket())[1]}/"
        async with STTNode(**client_options(host=ELSEWHERE)) as roaming:
            with anyio.fail_after(20):
                session = await roaming.connect(ways[carrier], ticket=ticket, transport=carrier)
                assert session.resumed == (secret == FLEET)
                peer = await second.accept()
                assert peer.resumed == session.resumed
                assert peer.peer_node_id == roaming.node_id
                if session.resumption_error is not None:
                    assert session.resumption_error.reason == TicketRefusal.UNKNOWN  # type: ignore[attr-defined]
                stream = session.open_stream()
                await stream.send(b"it is me")
                assert await (await peer.accept_stream()).receive() == b"it is me"


@CARRIERS
def test_another_server_without_an_event_loop(carrier: str) -> None:
    """H-34: the same."""
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(BlockingNode(**server_options(fleet_secret=FLEET), background=True)) for _ in range(2)
        )
        with BlockingNode(**client_options()) as client:
            before = client.connect((HERE, first.port))
            while before.ticket is None:
                client.poll(1.0)
            ticket = before.ticket
        ways: dict[str, Any] = {"udp": (HERE, second.port), "tcp": second.listen_tcp()}
        ways["websocket"] = f"ws://{HERE}:{second.listen_websocket()[1]}/"
        roaming = stack.enter_context(BlockingNode(**client_options(host=ELSEWHERE)))
        session = roaming.connect(ways[carrier], ticket=ticket, transport=carrier)
        assert session.resumed
        assert second.accept(timeout=10).resumed
