"""Where the command gets its secrets from: a file, the environment, the terminal, and never the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from stt_anyio.cli.verb import ExitCode, Failure
from stt_proto.errors import ArgumentError
from stt_proto.identity import (
    decode_node_key_untrusted,
    generate_node_seed,
    seed_from_file_bytes,
    shared_seed_bytes,
)

MAX_FILE = 65_536
"""Bytes that a file with a seed may have; a longer one was given by mistake."""
VARIABLE = "STT_SHARED_SEED"

F = TypeVar("F", bound=Callable[..., Any])


def seed_options(command: F) -> F:
    """Add `--seed-file` and `--identity` to a verb."""
    path = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
    command = click.option(
        "--identity",
        "identity_file",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="The node's key, made by `stt keygen`. Without it the node gets an identity for this run.",
    )(command)
    return click.option(
        "--seed-file",
        type=path,
        metavar="FILE",
        help=f"Where the shared seed is; - is stdin. Without it: ${VARIABLE}, else the terminal is asked.",
    )(command)


def shared_seed(seed_file: Path | None) -> bytes:
    """The shared seed: from the file if there is one, else from the environment, else from the terminal.

    Raises:
        Failure: the file cannot be read, the seed is empty, or there is nobody to ask.
    """
    if seed_file is not None:
        seed: bytes | str = seed_from_file_bytes(_read(seed_file, "seed file"))
        where = f"the seed file {seed_file}"
    elif os.environ.get(VARIABLE):
        seed, where = os.environ[VARIABLE], VARIABLE
    elif sys.stdin.isatty():
        seed, where = click.prompt("Shared seed", hide_input=True, err=True), "the shared seed"
    else:
        raise Failure(f"no shared seed: give --seed-file FILE or set {VARIABLE}", ExitCode.USAGE)
    if not seed:
        raise Failure(f"{where} is empty", ExitCode.USAGE)
    return shared_seed_bytes(seed)


def node_seed(identity_file: Path | None) -> bytes:
    """The node seed in a key file, or a new one.

    Raises:
        Failure: the file cannot be read, or is no key file.
    """
    if identity_file is None:
        return generate_node_seed(os.urandom)
    try:
        return decode_node_key_untrusted(_read(identity_file, "key file").decode("ascii", "replace"))
    except ArgumentError as error:
        raise Failure(f"{identity_file}: {error}", ExitCode.FILE) from None


def _read(path: Path, what: str) -> bytes:
    try:
        with click.open_file(str(path), "rb") as file:
            raw: bytes = file.read(MAX_FILE + 1)
    except OSError as error:
        raise Failure(f"cannot read the {what} {path}: {error.strerror}", ExitCode.FILE) from None
    if len(raw) > MAX_FILE:
        raise Failure(f"the {what} {path} is longer than {MAX_FILE} bytes", ExitCode.FILE)
    return raw
