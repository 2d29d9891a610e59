"""`stt send`: a file to a node that waits for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import click

from stt_anyio.cli.address import Address, to_dial, to_node_id
from stt_anyio.cli.exchange import keep_alive, report, session_options
from stt_anyio.cli.outcome import printable
from stt_anyio.cli.progress import bars
from stt_anyio.cli.seeds import node_seed, seed_options, shared_seed
from stt_anyio.cli.transfer import check_readable, send_file
from stt_anyio.cli.verb import Seconds, Verb, connect_failure, json_option, run
from stt_anyio.node import STTNode


@click.command(cls=Verb, short_help="Send a file to a node that waits for it.")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("address", callback=to_dial)
@seed_options
@click.option(
    "--peer", metavar="NODE_ID", callback=to_node_id, help="Send to the node with this id, and to nobody else."
)
@click.option("--name", help="What to call the file there; its own name if not given.")
@click.option(
    "--timeout",
    type=Seconds(0.1, 600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a connection.",
)
@session_options
@json_option
def send(
    file: Path,
    address: Address,
    seed_file: Path | None,
    identity_file: Path | None,
    peer: bytes | None,
    name: str | None,
    timeout: float,
    silence: float,
    hide_progress: bool,
    as_json: bool,
) -> None:
    """Send FILE to the `stt recv` that listens at ADDRESS: udp://192.0.2.1:4433, tcp://..., ws://... or wss://...

    Done means that the receiver has the file in its place, whole, and has confirmed its hash.
    """
    check_readable(file)
    parameters: dict[str, Any] = {
        "node_seed": node_seed(identity_file),
        "shared_seed": shared_seed(seed_file),
        "handshake_timeout": timeout,
        **keep_alive(silence, address.transport),
    }

    async def main() -> None:
        async with STTNode(host="0.0.0.0", port=0, **parameters) as node:
            try:
                session = await node.connect(address.target, peer, timeout, address.transport)
            except anyio.ConnectionFailed as error:
                raise connect_failure(error, str(address)) from error
            started = time.perf_counter()
            with bars(wanted=not hide_progress) as shown, shown.track(printable(file.name)) as on_progress:
                sent = await send_file(session, file, name=name, on_progress=on_progress)
            report("sent", sent, session.peer_node_id, time.perf_counter() - started, as_json=as_json)
            await session.close()

    run(main)
