"""`stt recv`: wait for files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import click
from attrs import frozen

from stt_anyio.cli.address import Address, AddressType
from stt_anyio.cli.exchange import keep_alive, report, session_options
from stt_anyio.cli.outcome import TransferError, printable
from stt_anyio.cli.progress import Bars, bars
from stt_anyio.cli.seeds import node_seed, seed_options, shared_seed
from stt_anyio.cli.transfer import receive_offer
from stt_anyio.cli.verb import ExitCode, Failure, Verb, emit, failure_for, json_option, notice, run
from stt_anyio.errors import RemoteError
from stt_anyio.node import STTNode
from stt_anyio.session import Session
from stt_anyio.stream import Stream


@click.command(cls=Verb)
@click.option("--listen", type=AddressType(listening=True), required=True, help="Where to wait; port 0 takes any.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path),
    default=Path(),
    metavar="DIRECTORY",
    help="Where files are put, made if it is not there; the current directory if not given.",
)
@seed_options
@click.option("--once", is_flag=True, help="End with the first file; its fate is the exit code.")
@click.option("--overwrite", is_flag=True, help="Replace a file that has the name of the one that comes.")
@session_options
@json_option
def recv(
    listen: Address,
    directory: Path,
    seed_file: Path | None,
    identity_file: Path | None,
    once: bool,
    overwrite: bool,
    silence: float,
    hide_progress: bool,
    as_json: bool,
) -> None:
    """Wait for files from `stt send`, until interrupted or --once.

    A file appears under its name when it is whole and its hash is right, and not before.
    """
    parameters: dict[str, Any] = {
        "node_seed": node_seed(identity_file),
        "shared_seed": shared_seed(seed_file),
        **keep_alive(silence),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"cannot make {directory}: {error.strerror}", ExitCode.FILE) from None

    async def main() -> None:
        node = STTNode(host=listen.host, port=listen.port, **parameters)
        try:
            await node.start(server_mode=True)
        except OSError as error:
            raise Failure(f"cannot listen at {listen}: {error.strerror or error}", ExitCode.CONNECTION) from None
        async with _stopped_after(node):
            _announce(node, Address(listen.host, node.port), as_json=as_json)
            with bars(wanted=not hide_progress) as shown:
                await Inbox(directory, overwrite, once, as_json, shown).serve(node)

    run(main)


def _announce(node: STTNode, address: Address, *, as_json: bool) -> None:
    if as_json:
        emit({"event": "listening", "address": str(address), "node_id": node.node_id.hex()})
    else:
        notice(f"listening at {address}, node id {node.node_id.hex()}")

    @node.on_session_closed
    def _(session_id: bytes, reason: str) -> None:
        if reason == "auth_failure":
            notice("somebody with another shared seed tried to connect")


class Inbox:
    """Takes in what sessions offer, one file at a time in each session."""
