"""The verbs, gathered under `stt`."""

from __future__ import annotations

import click

from stt_anyio.cli.demo import demo
from stt_anyio.cli.keygen import keygen
from stt_anyio.cli.perf import perf
from stt_anyio.cli.recv import recv
from stt_anyio.cli.send import send
from stt_anyio.cli.serve import serve
from stt_anyio.cli.verb import EXIT_CODES


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="stt-transport", prog_name="stt", message="%(prog)s %(version)s")
def stt() -> None:
    """Secure sessions that outlive their connections.

    Both sides of a session hold the same shared seed, which may be a passphrase. It comes from a file, from the
    variable STT_SHARED_SEED or from the terminal, and never from the command line, which every user of a machine can
    read.
    """


for verb in (demo, keygen, recv, send, serve, perf):
    stt.add_command(verb)
