"""`stt recv`: wait for files."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import click
from attrs import evolve

from stt_anyio.cli.address import Address, to_listen
from stt_anyio.cli.exchange import keep_alive, report, session_options
from stt_anyio.cli.outcome import TransferError, printable
from stt_anyio.cli.progress import Bars, bars
from stt_anyio.cli.seeds import node_seed, seed_options, shared_seed
from stt_anyio.cli.transfer import PATIENCE, Offer, Transferred, receive_offer
from stt_anyio.cli.verb import ExitCode, Failure, Verb, emit, json_option, notice, run, transfer_failure
from stt_anyio.errors import SttError
from stt_anyio.node import STTNode
from stt_anyio.session import Session
from stt_anyio.stream import Stream

MAX_AT_ONCE = 64
"""Files that are received at the same time; others wait to be answered."""


@click.command(cls=Verb, short_help="Wait for files.")
@click.option(
    "--listen",
    metavar="udp://HOST:PORT",
    callback=to_listen,
    required=True,
    help="Where to wait for files, also tcp:// or ws://; port 0 takes any.",
)
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
        **keep_alive(silence, listen.transport),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failure(f"cannot make {directory}: {error.strerror}", ExitCode.FILE) from None

    async def main() -> None:
        node = STTNode(host=listen.host, port=listen.port, transport=listen.transport, server_mode=True, **parameters)
        try:
            await node.start()
        except OSError as error:
            raise Failure(f"cannot listen at {listen}: {error.strerror or error}", ExitCode.CONNECTION) from None
        try:
            _announce(node, evolve(listen, port=node.port), as_json=as_json)
            with bars(wanted=not hide_progress) as shown:
                inbox = Inbox(
                    directory,
                    overwrite=overwrite,
                    once=once,
                    patience=max(PATIENCE, silence),
                    as_json=as_json,
                    shown=shown,
                )
                await inbox.serve(node)
        finally:
            await node.stop()

    run(main)


def _announce(node: STTNode, address: Address, *, as_json: bool) -> None:
    if as_json:
        emit({"event": "listening", "address": str(address), "node_id": node.node_id.hex()})
    notice(f"listening at {address}, node id {node.node_id.hex()}")

    @node.on_session_closed
    def _(session_id: bytes, reason: str) -> None:
        if reason == "auth_failure":
            notice("refused: a caller with another shared seed, or who wanted another node")


class Inbox:
    """Takes in what sessions offer: many sessions at once, and one file after the other in each."""

    def __init__(
        self, directory: Path, *, overwrite: bool, once: bool, patience: float, as_json: bool, shown: Bars
    ) -> None:
        self._directory = directory
        self._overwrite = overwrite
        self._once = once
        self._patience = patience
        self._as_json = as_json
        self._shown = shown
        self._over = False  # with `once`: the first file has its fate
        self._failed: TransferError | None = None
        self._turn = anyio.Semaphore(1 if once else MAX_AT_ONCE)

    async def serve(self, node: STTNode) -> None:
        """Take in files until cancelled; with `once` the first that is offered, whose failure is raised."""
        async with anyio.create_task_group() as tasks:
            while True:
                tasks.start_soon(self._attend, await node.accept(), tasks.cancel_scope)
        if self._failed is not None:
            raise self._failed

    async def _attend(self, session: Session, scope: anyio.CancelScope) -> None:
        while True:
            try:
                stream = await session.accept_stream()
            except SttError:  # it is over, whatever ended it
                return
            await self._take(session, stream)
            if self._once:
                self._over = True
                scope.cancel()

    async def _take(self, session: Session, stream: Stream) -> None:
        try:
            offer = await receive_offer(stream)  # which takes no place: who says nothing delays nobody
            async with self._turn:
                started = time.perf_counter()
                file = await self._store(offer)
        except TransferError as error:
            if not self._once:
                transfer_failure(error).tell(as_json=self._as_json)
            elif not self._over:  # else another one's fate was decided in the same moment
                self._failed = error
        else:
            report("received", file, session.peer_node_id, time.perf_counter() - started, as_json=self._as_json)

    async def _store(self, offer: Offer) -> Transferred:
        with self._shown.track(printable(offer.name)) as on_progress:
            return await offer.store(
                self._directory,
                overwrite=self._overwrite,
                on_progress=on_progress,
                patience=self._patience,
                is_crowded=lambda: not self._once and self._turn.statistics().tasks_waiting > 0,
            )
