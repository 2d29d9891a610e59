"""`stt keygen`: make a node's key."""

from __future__ import annotations

import os
from pathlib import Path

import click

from stt_anyio.cli.verb import ExitCode, Failure, Verb, emit, json_option
from stt_proto.identity import Identity, encode_node_key, generate_node_seed


@click.command(cls=Verb, short_help="Make a node's key, and print its node id.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="Where to; must not exist yet."
)
@json_option
def keygen(out: Path, as_json: bool) -> None:
    """Make a node's key, readable by its owner only, and print the node id.

    The node id is public: others give it as --peer to talk to this node and to nobody else.
    """
    seed = generate_node_seed(os.urandom)
    write_new(out, encode_node_key(seed).encode())
    node_id = Identity.from_seed(seed).node_id.hex()
    if as_json:
        emit({"event": "key", "node_id": node_id, "file": str(out)})
    else:
        click.echo(node_id)


def write_new(path: Path, text: bytes) -> None:
    """Write a file that only its owner may read, and that was not there before.

    Raises:
        Failure: it is there already, or cannot be written; then nothing is left behind.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    except FileExistsError:
        raise Failure(f"{path} exists already; a key is never overwritten", ExitCode.FILE) from None
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}", ExitCode.FILE) from None
    try:
        with open(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
    except BaseException as error:  # Ctrl-C too: half a key would be in the way of a whole one
        path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise Failure(f"cannot write {path}: {error.strerror}", ExitCode.FILE) from None
