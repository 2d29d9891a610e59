"""`stt send` and `stt recv` as they are typed: two processes, real sockets, exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stt_anyio import BlockingNode
from stt_anyio.cli.transfer import PURPOSE
from stt_anyio.cli.verb import ExitCode

ROOT = Path(__file__).parents[2]
TIMEOUT = 60
SHORT_SILENCE = ("--silence", "0.6")


class Command:
    """`stt` in a process of its own."""

    def __init__(self, folder: Path, *words: str, **options: Any) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("STT_SHARED_SEED", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stt_anyio.cli", *words],
            cwd=folder,
            env={**environment, **options.pop("variables", {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def event(self) -> dict[str, Any]:
        """The next object that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        event = json.loads(line)
        assert isinstance(event, dict)
        return event

    def end(self) -> tuple[int, str, str]:
        """Its exit code, and what it printed."""
        out, err = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, out, err


class Place:
    """A directory with a seed and a file, and the commands that run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox = folder / "inbox"
        self.data = os.urandom(300_000)
        (folder / "seed").write_text("a passphrase\n")
        (folder / "big.bin").write_bytes(self.data)
        self.commands: list[Command] = []

    def stt(self, *words: str, **options: Any) -> Command:
        self.commands.append(Command(self.folder, *words, **options))
        return self.commands[-1]

    def recv(self, *words: str, **options: Any) -> tuple[Command, str, str]:
        """A receiver, where it listens, and who it is."""
        listen = ("recv", "--listen", "udp://127.0.0.1:0", "--seed-file", "seed", "--dir", "inbox", "--json")
        command = self.stt(*listen, *words, **options)
        event = command.event()
        assert event["event"] == "listening"
        return command, event["address"], event["node_id"]

    def send(self, address: str, *words: str, file: str = "big.bin", seed: str = "seed") -> Command:
        return self.stt("send", file, address, "--seed-file", seed, *words)

    def received(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.inbox.iterdir()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    for command in place.commands:
        command.process.kill()
        command.process.communicate()


def test_as_it_is_typed(place: Place) -> None:
    port = free_port()
    recv = place.stt(
        *f"recv --listen udp://127.0.0.1:{port} --seed-file seed --dir inbox --once".split(),
    )
    assert recv.process.stderr is not None
    assert f"listening at udp://127.0.0.1:{port}" in recv.process.stderr.readline()
    code, out, err = place.stt(*f"send big.bin udp://127.0.0.1:{port} --seed-file seed".split()).end()
    sha256 = hashlib.sha256(place.data).hexdigest()
    assert (code, err) == (0, ""), "no progress bar where nobody watches"
    assert out.startswith("sent big.bin: 300.0 kB")
    assert sha256 in out
    code, out, err = recv.end()
    assert (code, err) == (0, "")
    assert out.startswith("received big.bin: 300.0 kB")
    assert sha256 in out
    assert place.received() == {"big.bin": place.data}


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_over_a_connection(place: Place, scheme: str) -> None:
    """E2, E3."""
    recv = place.stt(
        "recv", "--listen", f"{scheme}://127.0.0.1:0", "--seed-file", "seed", "--dir", "inbox", "--once", "--json"
    )
    event = recv.event()
    assert event["address"].startswith(f"{scheme}://127.0.0.1:")
    code, out, _ = place.send(event["address"], "--peer", event["node_id"], "--json").end()
    assert (code, json.loads(out)["event"]) == (0, "sent")
    assert recv.end()[0] == 0
    assert place.received() == {"big.bin": place.data}


def test_several_files_and_everything_that_is_refused(place: Place) -> None:
    """One receiver, which none of this ends."""
    recv, address, node_id = place.recv()
    (place.folder / "other-seed").write_text("another")

    assert place.send(address, "--peer", node_id).end()[0] == ExitCode.DONE
    received = recv.event()
    assert {key: received[key] for key in ("event", "name", "size", "sha256")} == {
        "event": "received",
        "name": "big.bin",
        "size": len(place.data),
        "sha256": hashlib.sha256(place.data).hexdigest(),
    }

    code, out, err = place.send(address, "--json").end()
    told = json.loads(out)
    assert (code, told["event"], told["exit_code"]) == (ExitCode.FILE, "failed", ExitCode.FILE)
    assert "refused by the receiver: big.bin exists already" in err
    assert recv.event()["exit_code"] == ExitCode.FILE

    code, out, err = place.send(address, "--peer", "00" * 32).end()
    assert (code, out) == (ExitCode.AUTHENTICATION, "")
    assert "not the peer that was asked for" in err
    assert place.send(address, seed="other-seed").end()[0] == ExitCode.AUTHENTICATION

    assert place.send(address, "--name", "second").end()[0] == ExitCode.DONE
    assert recv.event()["name"] == "second"
    assert place.received() == {"big.bin": place.data, "second": place.data}

    recv.process.send_signal(signal.SIGINT)
    code, out, err = recv.end()
    assert code == ExitCode.INTERRUPTED
    assert "refused: a caller with another shared seed" in err
    assert json.loads(out)["exit_code"] == ExitCode.INTERRUPTED


def test_once_ends_with_the_fate_of_the_first_file(place: Place) -> None:
    place.inbox.mkdir()
    (place.inbox / "big.bin").write_bytes(b"old")
    recv, address, _ = place.recv("--once")
    assert place.send(address).end()[0] == ExitCode.FILE
    code, out, err = recv.end()
    assert code == ExitCode.FILE
    assert json.loads(out)["exit_code"] == ExitCode.FILE
    assert "big.bin exists already" in err
    assert place.received() == {"big.bin": b"old"}

    recv, address, _ = place.recv("--once", "--overwrite")
    assert place.send(address).end()[0] == ExitCode.DONE
    assert recv.end()[0] == ExitCode.DONE
    assert place.received() == {"big.bin": place.data}


def test_a_disk_that_is_full(place: Place) -> None:
    """The system refuses to let the file grow, as a full disk does."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    recv, address, _ = place.recv("--once", preexec_fn=limit)
    code, out, err = place.send(address).end()
    assert (code, out) == (ExitCode.FILE, "")
    assert "cannot store big.bin: File too large" in err
    assert recv.end()[0] == ExitCode.FILE
    assert place.received() == {}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_sender_that_vanishes(place: Place, number: signal.Signals) -> None:
    make_large(place.folder / "big.bin")
    recv, address, _ = place.recv("--once", *SHORT_SILENCE)
    send = place.send(address)
    wait_for_part(place.inbox)
    send.process.send_signal(number)
    assert send.end()[0] == (-number if number is signal.SIGKILL else ExitCode.INTERRUPTED)
    code, out, err = recv.end()
    assert code == ExitCode.VANISHED
    assert "stt: " in err
    assert json.loads(out)["exit_code"] == ExitCode.VANISHED
    assert place.received() == {}


def test_interrupted_in_the_background(place: Place) -> None:
    """Shells start background commands with SIGINT ignored."""
    for number in (signal.SIGINT, signal.SIGTERM):
        recv, _, _ = place.recv(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
        recv.process.send_signal(number)
        assert recv.end()[0] == ExitCode.INTERRUPTED


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_receiver_that_vanishes(place: Place, number: signal.Signals) -> None:
    make_large(place.folder / "big.bin")
    recv, address, _ = place.recv("--once")
    send = place.send(address, "--json", *SHORT_SILENCE)
    wait_for_part(place.inbox)
    recv.process.send_signal(number)
    assert recv.end()[0] == (-number if number is signal.SIGKILL else ExitCode.INTERRUPTED)
    code, out, err = send.end()
    assert code == ExitCode.VANISHED
    assert "stt: " in err
    assert json.loads(out)["event"] == "failed"
    assert "big.bin" not in place.received()


def test_nobody_listens(place: Place) -> None:
    code, out, err = place.send(f"udp://127.0.0.1:{free_port()}", "--timeout", "2").end()
    assert (code, out) == (ExitCode.CONNECTION, "")
    assert err.startswith("stt: ")


def test_a_file_that_is_not_there(place: Place) -> None:
    code, _, err = place.send("udp://127.0.0.1:9", file="nothing").end()
    assert code == ExitCode.FILE
    assert err == "stt: cannot read nothing: No such file or directory\n"


def test_a_port_that_is_taken(place: Place) -> None:
    _, address, _ = place.recv()
    code, _, err = place.stt("recv", "--listen", address, "--seed-file", "seed").end()
    assert code == ExitCode.CONNECTION
    assert f"cannot listen at {address}" in err


def test_a_directory_that_cannot_be_made(place: Place) -> None:
    words = ("recv", "--listen", "udp://127.0.0.1:0", "--seed-file", "seed", "--dir", "seed/inbox")
    code, _, err = place.stt(*words).end()
    assert code == ExitCode.FILE
    assert "cannot make seed/inbox" in err


def test_seed_from_the_environment(place: Place) -> None:
    recv, address, _ = place.recv("--once")
    send = place.stt("send", "big.bin", address, variables={"STT_SHARED_SEED": "a passphrase"})
    assert (send.end()[0], recv.end()[0]) == (ExitCode.DONE, ExitCode.DONE)


def test_both_with_identities(place: Place) -> None:
    node_ids = [place.stt("keygen", "--out", name).end()[1].strip() for name in ("one.key", "two.key")]
    recv, address, node_id = place.recv("--once", "--identity", "one.key")
    assert node_id == node_ids[0]
    assert place.send(address, "--identity", "two.key", "--peer", node_id).end()[0] == ExitCode.DONE
    assert recv.event()["peer_node_id"] == node_ids[1]


def test_nothing_that_one_peer_does_ends_it(place: Place) -> None:
    """Streams on which nothing can be answered, or about nothing; then somebody else sends a file."""
    recv, address, _ = place.recv()
    host, port = address.removeprefix("udp://").split(":")
    with BlockingNode(shared_seed="a passphrase", host=host) as node:
        session = node.connect((host, int(port)))
        for purpose in (PURPOSE, "whatever"):
            stream = session.open_stream(bidirectional=False, purpose=purpose)
            stream.send(b"hello", timeout=TIMEOUT)
            assert recv.event()["event"] == "failed"
    assert place.send(address).end()[0] == ExitCode.DONE
    assert recv.event()["event"] == "received"
    assert place.received() == {"big.bin": place.data}


def test_names_that_the_terminal_cannot_show(place: Place) -> None:
    """They are printed as escapes; the file has its own name."""
    recv = place.stt(
        *f"recv --listen udp://127.0.0.1:{(port := free_port())} --seed-file seed --dir inbox --once".split(),
        variables={"PYTHONIOENCODING": "cp1252"},
    )
    assert recv.process.stderr is not None
    recv.process.stderr.readline()
    assert place.send(f"udp://127.0.0.1:{port}", "--name", "\N{GRINNING FACE}.txt").end()[0] == ExitCode.DONE
    code, out, err = recv.end()
    assert (code, err) == (0, "")
    assert out.startswith("received \\U0001f600.txt: 300.0 kB")
    assert place.received() == {"\N{GRINNING FACE}.txt": place.data}


def test_a_terminal_that_is_closed(place: Place) -> None:
    """SIGHUP leaves no part of a file behind."""
    make_large(place.folder / "big.bin")
    recv, address, _ = place.recv("--once")
    send = place.send(address)
    wait_for_part(place.inbox)
    recv.process.send_signal(signal.SIGHUP)
    assert recv.end()[0] == ExitCode.INTERRUPTED
    assert send.end()[0] == ExitCode.VANISHED
    assert place.received() == {}


def test_under_nohup(place: Place) -> None:
    recv, address, _ = place.recv("--once", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    recv.process.send_signal(signal.SIGHUP)
    assert place.send(address).end()[0] == ExitCode.DONE
    assert recv.end()[0] == ExitCode.DONE


# -- helpers -------------------------------------------------------------------------------------------------------


def free_port() -> int:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def make_large(path: Path) -> None:
    """A file that takes a while, and no room."""
    with path.open("wb") as file:
        file.truncate(2 << 30)


def wait_for_part(inbox: Path) -> None:
    """Wait until some of the file has arrived."""
    import time

    deadline = time.monotonic() + TIMEOUT
    while not any(path.stat().st_size > 1 << 20 for path in inbox.glob(".stt-*.part")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
