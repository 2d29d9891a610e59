"""`stt serve` as it is typed: an application of somebody's own, in several processes."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from stt_anyio import BlockingNode
from stt_anyio.cli.app import stt
from stt_anyio.cli.verb import ExitCode
from tests.cli.test_cli_transfer import Command

APP = """
import os

async def greet(node):
    await node.serve(attend)  # of a session that ends too early only its own handler hears

async def attend(session):
    stream = session.open_stream(bidirectional=False)
    await stream.send(b"%d" % os.getpid())
    await stream.aclose()

def broken(node):
    raise RuntimeError("on purpose")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "seed").write_text("a passphrase\n")
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="ports are shared so on Linux only")
@pytest.mark.parametrize("loop", [(), ("--trio",)], ids=["asyncio", "trio"])
def test_serve(folder: Path, loop: tuple[str, ...]) -> None:
    """Two processes answer as one node; SIGTERM ends both, and the session is closed before."""
    command = Command(
        folder, "serve", "shop:greet", "--listen", "udp://127.0.0.1:0", "--workers", "2",
        "--seed-file", "seed", "--json", *loop,
    )  # fmt: skip
    try:
        told = command.event()
        assert (told["event"], told["workers"], told["routing"]) == ("listening", 2, "filter")
        port = int(told["address"].rpartition(":")[2])
        with BlockingNode(shared_seed="a passphrase", host="127.0.0.1") as node:
            answered = set()
            for _ in range(40):
                session = node.connect(("127.0.0.1", port), peer_node_id=bytes.fromhex(told["node_id"]))
                answered.add(int(session.accept_stream(timeout=10).receive(100)))
                if len(answered) == 2:
                    break
            assert len(answered) == 2
            command.process.send_signal(signal.SIGTERM)
            assert session.wait_closed(timeout=10) == "graceful"
        code, _, err = command.end()
        assert code == ExitCode.INTERRUPTED
        assert "2 processes, routing: filter" in err
    finally:
        command.process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="ports are shared so on Linux only")
def test_tickets_are_good_once(folder: Path) -> None:
    """H7, H-36: whichever of the processes is asked. Of twelve who show one ticket, two workers would let in two."""
    command = Command(
        folder, "serve", "shop:greet", "--listen", "udp://127.0.0.1:0", "--workers", "2", "--ticket-store", "used.db",
        "--seed-file", "seed", "--json",
    )  # fmt: skip
    me = {"node_seed": bytes(32), "shared_seed": "a passphrase", "host": "127.0.0.1"}
    try:
        port = int(command.event()["address"].rpartition(":")[2])
        with BlockingNode(**me) as node:
            session = node.connect(("127.0.0.1", port))
            while session.ticket is None:
                node.poll(1.0)
            ticket = session.ticket
        resumed, answered = [], set()
        while len(answered) < 2 or len(resumed) < 12:
            with BlockingNode(**me) as node:
                session = node.connect(("127.0.0.1", port), ticket=ticket)
                answered.add(int(session.accept_stream(timeout=10).receive(100)))
                resumed.append(session.resumed)
        assert resumed == [True] + [False] * (len(resumed) - 1)
        assert (folder / "used.db").exists()
        command.process.send_signal(signal.SIGTERM)
        code, _, _ = command.end()
        assert code == ExitCode.INTERRUPTED
        assert not (folder / "used.db-wal").exists(), "the workers have closed it"
    finally:
        command.process.kill()


def test_an_application_that_is_not_there(folder: Path) -> None:
    command = Command(folder, "serve", "shop:nothing", "--listen", "udp://127.0.0.1:0", "--seed-file", "seed", "--json")
    assert command.event()["exit_code"] == ExitCode.FAILED
    code, _, err = command.end()
    assert code == ExitCode.FAILED
    assert "cannot be imported" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["shop:greet", "--listen", "tcp://127.0.0.1:0"], ExitCode.USAGE, "UDP ports only"),
        (["shop", "--listen", "udp://127.0.0.1:0"], ExitCode.USAGE, "module:function"),
        (["shop:greet", "--listen", "udp://127.0.0.1:0", "--workers", "65"], ExitCode.USAGE, "--workers"),
        (["shop:greet", "--listen", "udp://192.0.2.1:9"], ExitCode.CONNECTION, "cannot listen at udp://192.0.2.1:9"),
    ],
)
def test_what_is_wrong_with_the_command_line(words: list[str], code: ExitCode, said: str) -> None:
    result = CliRunner().invoke(stt, ["serve", *words], env={"STT_SHARED_SEED": "a passphrase"})
    assert result.exit_code == code
    assert said in result.output
