"""Text that people give to the command: addresses, node ids, key files, seed files. And what a peer gives it: a name.

Each is read or refused with its documented error, whatever bytes are in it; and what was read is written as text that
is read as the same. A name of a file that a peer offers is one of a file in that directory, and deceives nobody.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from unittest.mock import patch

from fuzz.harness import Choices, instrumented, main

with instrumented(
    __name__,
    "stt_proto.identity",
    "stt_anyio.cli.address",
    "stt_anyio.cli.outcome",
    "stt_anyio.cli.seeds",
    "stt_anyio.cli.storage",
):
    import click

    from stt_anyio.cli.address import Address, parse_address, to_dial, to_listen, to_node_id
    from stt_anyio.cli.outcome import Outcome, TransferError, printable
    from stt_anyio.cli.seeds import node_seed, shared_seed
    from stt_anyio.cli.storage import check_name
    from stt_anyio.cli.verb import Failure
    from stt_anyio.links import target_of
    from stt_proto.errors import ArgumentError
    from stt_proto.identity import (
        Identity,
        check_seeds,
        decode_node_key_untrusted,
        encode_node_key,
        seed_from_file_bytes,
        shared_seed_bytes,
    )

CONTEXT = click.Context(click.Command("fuzz"))
OPTION = click.Option(["--option"])
FILE = Path(tempfile.gettempdir(), f"stt-fuzz-{os.getpid()}")
DIGITS = "0123456789\u00b9\u00b2\u00b3"
"""Windows takes those that are raised for digits, too."""
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$", *(f"{port}{n}" for port in ("com", "lpt") for n in DIGITS)}
DIRECTIONS = {"\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
"""What makes a terminal show other characters in another order."""


def fuzz_one(data: bytes) -> None:
    """Read the rest as what the first byte says."""
    if not data:
        return
    kind, rest = data[0] % 7, data[1:]
    text = rest.decode("utf-8", "surrogateescape")
    match kind:
        case 0:
            read_address(text)
        case 1:
            read_node_id(text)
        case 2:
            read_node_key(text)
        case 3:
            read_shared_seed(text, rest)
        case 4:
            read_files(rest)
        case 6:
            take_name(text)
        case _:
            compare_seeds(Choices(rest))


def read_address(text: str) -> None:
    """An address to listen at or to dial."""
    address = None
    try:
        address = parse_address(text)
    except ValueError:
        pass
    else:
        assert address.host
        assert 0 <= address.port <= 65_535
        assert parse_address(str(address)) == address
        if address.transport == "websocket" and address.port:
            assert target_of(address.target).next_hop[1] == address.port
    for read in (to_listen, to_dial):
        try:
            assert read(CONTEXT, OPTION, text) == address
        except click.BadParameter as error:
            assert address is None or not (address.port if read is to_dial else is_plain(address))
            error.format_message()


def is_plain(address: Address) -> bool:
    """Whether the command can listen there itself: TLS and paths are for a web server."""
    return address.scheme != "wss" and address.path in ("", "/")


def read_node_id(text: str) -> None:
    """A node id."""
    try:
        node_id = to_node_id(CONTEXT, OPTION, text)
    except click.BadParameter:
        return
    assert node_id is not None
    assert len(node_id) == 32
    assert node_id.hex() == text.lower()


def read_node_key(text: str) -> None:
    """What stands in a key file."""
    try:
        seed = decode_node_key_untrusted(text)
    except ArgumentError as error:
        assert error.argument == "node_key"
        assert error.message == refusal(decode_node_key_untrusted, "")
        return
    assert len(seed) >= 32
    assert encode_node_key(seed).rstrip("\n") == text.rstrip("\r\n")
    assert decode_node_key_untrusted(encode_node_key(seed)) == seed
    assert len(Identity.from_seed(seed).node_id) == 32


def refusal(read: Callable[[str], bytes], text: str) -> str:
    """What is said about a text that is refused; a secret that is refused is not quoted, so it is always the same."""
    try:
        read(text)
    except ArgumentError as error:
        return error.message
    raise AssertionError(f"{text!r} was not refused")


def read_shared_seed(text: str, raw: bytes) -> None:
    """A shared seed that was typed, or stood in a file."""
    for given in (text, raw):
        try:
            seed = shared_seed_bytes(given)
        except ArgumentError as error:
            assert error.argument == "shared_seed"
            assert error.__cause__ is None
            assert error.message in (refusal(shared_seed_bytes, ""), refusal(shared_seed_bytes, "\udc80"))
        else:
            assert seed
            assert shared_seed_bytes(seed) == seed
    seed = seed_from_file_bytes(raw)
    assert raw in (seed, seed + b"\n", seed + b"\r\n")
    assert len(raw) - len(seed) in ((1, 2) if raw.endswith(b"\n") else (0,))


def read_files(raw: bytes) -> None:
    """A key file and a seed file, through the command's own way of reading them."""
    FILE.write_bytes(raw)
    try:
        for read in (node_seed, shared_seed):
            try:
                assert read(FILE)
            except Failure as failure:
                assert "\n" not in failure.message
    finally:
        FILE.unlink()


def compare_seeds(choices: Choices) -> None:
    """A node seed and a shared seed: never the same, never too short."""
    ours, shared = choices.chunk(), choices.chunk()
    try:
        check_seeds(ours, shared)
    except ArgumentError as error:
        assert error.argument in ("node_seed", "shared_seed")
        assert len(ours) < 32 or not shared or ours == shared
    else:
        assert ours != shared
        assert not Identity.from_seed(ours).made_from(shared)


def take_name(name: str) -> None:
    """A file that a peer offers, here and on Windows."""
    for windows, path in ((False, PurePosixPath("here", name)), (True, PureWindowsPath("here", name))):
        with patch("stt_anyio.cli.storage._WINDOWS", windows):
            try:
                check_name(name)
            except TransferError as error:
                assert error.outcome is Outcome.BAD_NAME
                assert str(error).isascii()
                assert str(error).isprintable()
                continue
        assert path.parts == ("here", name)
        assert name not in ("", ".", "..")
        assert not {"/", "\\", "\0"} & {*name}
        assert printable(name) == name
        assert not any(character < " " or "\x7f" <= character < "\xa0" for character in name)
        assert not any(character in "\u2028\u2029" or "\ud800" <= character <= "\udfff" for character in name)
        assert not DIRECTIONS & {*name}
        if windows:
            assert name.split(".")[0].rstrip().lower() not in DEVICES
            assert not {*'<>:"|?*'} & {*name}
            assert name[-1] not in " ."


if __name__ == "__main__":
    main(fuzz_one)
