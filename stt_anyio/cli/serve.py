"""`stt serve`: an application of one's own behind a UDP port, in as many processes as one likes."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import click
from attrs import evolve

from stt_anyio.cli.address import Address, to_listen
from stt_anyio.cli.seeds import node_seed, seed_options, shared_seed
from stt_anyio.cli.verb import ExitCode, Failure, Verb, emit, json_option, notice, run
from stt_anyio.stores.sqlite import SqliteSessionStore
from stt_anyio.workers import WorkerFleet


@click.command(cls=Verb, short_help="Run an application behind a port, in several processes.")
@click.argument("app", metavar="MODULE:FUNCTION")
@click.option(
    "--listen",
    metavar="udp://HOST:PORT",
    callback=to_listen,
    required=True,
    help="Where to serve; port 0 takes any.",
)
@click.option(
    "--workers", type=click.IntRange(1, 64), default=1, metavar="N", show_default=True, help="How many processes."
)
@click.option(
    "--ticket-store",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Where the processes remember which tickets were used, so that each is good once for all of them.",
)
@click.option("--trio", is_flag=True, help="Run the workers on trio instead of asyncio.")
@seed_options
@json_option
def serve(
    app: str,
    listen: Address,
    workers: int,
    ticket_store: Path | None,
    trio: bool,
    seed_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> None:
    """Run an application behind a UDP port, until interrupted.

    FUNCTION is found in MODULE, which is looked for in the current directory first. It is called in each process with a
    node that accepts sessions, may be async, and goes on until it is cancelled. All processes are one node with one
    identity; the kernel gives each session to one of them. One that dies is started again.
    """
    if listen.transport != "udp":
        raise Failure(f"cannot serve at {listen}: several processes share UDP ports only", ExitCode.USAGE)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    fleet = WorkerFleet(
        app,
        workers,
        node_seed(identity_file),
        shared_seed(seed_file),
        listen.host,
        listen.port,
        backend="trio" if trio else "asyncio",
        ticket_store=None if ticket_store is None else SqliteSessionStore(ticket_store),
    )

    async def main() -> None:
        try:
            async with fleet:
                _announce(fleet, evolve(listen, port=fleet.port), as_json=as_json)
                await anyio.sleep_forever()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Failure(f"cannot listen at {listen}: {error.strerror or error}", ExitCode.CONNECTION) from None

    run(main)


def _announce(fleet: WorkerFleet, address: Address, *, as_json: bool) -> None:
    node_id = fleet.node_id.hex()
    if as_json:
        emit(
            {
                "event": "listening",
                "address": str(address),
                "node_id": node_id,
                "workers": fleet.workers,
                "routing": str(fleet.routing),
            }
        )
    notice(f"listening at {address}, node id {node_id}, {fleet.workers} processes, routing: {fleet.routing}")
