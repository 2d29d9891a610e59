"""qlog: what is in the files of worlds, nodes and commands, and what is not."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from stt_anyio import BlockingNode, STTNode
from stt_anyio.cli import demo
from stt_anyio.cli.app import stt
from stt_anyio.cli.verb import ExitCode
from stt_anyio.qlog import QlogTrace
from stt_proto import Endpoint
from stt_proto.testing import Conditions, Inbox, World, send, serve_echo
from tests.anyio.qlogs import check, named, read_sequence, stems

# -- of a whole world ----------------------------------------------------------------------------------------------


def world_of(directory: Path, seed: int = 4) -> tuple[World, list[bytes]]:
    """A world with a bad network whose nodes both write qlog; gives the secrets of its session too."""
    secrets: list[bytes] = []
    world = World(seed, Conditions(delay=0.01, loss=0.02, duplicate=0.01, corrupt=0.05))
    client = world.node("client", trace=QlogTrace(directory / "client"), address=("2001:db8::1", 5))
    server = world.node(
        "server",
        trace=QlogTrace(directory / "server"),
        keylog=lambda *line: secrets.append(line[2]),
        address=("192.0.2.1", 4433),
    )
    serve_echo(server)
    inbox = Inbox(client)
    session = client.connect(server)
    world.run_until(session.is_active)
    send(client, session, b"confidential " * 10_000)
    session.send_datagram(b"also confidential", world.now)
    client.pump()
    world.run_until(lambda: inbox.complete)
    session.close(world.now, detail="that is all")
    client.pump()
    world.assert_idle()
    return world, secrets


def test_both_forms_of_both_sides(tmp_path: Path) -> None:
    """One file of a form for each side: named by time, role and id, and full of what viewers need."""
    world_of(tmp_path)
    (client,), (server,) = stems(tmp_path / "client"), stems(tmp_path / "server")
    ours, theirs = check(client), check(server)
    assert client.name.startswith("20231114T221320.000Z_initiator_")
    assert server.name.startswith("20231114T221320.0")
    assert "_responder_" in server.name
    session_id = client.name.rpartition("_")[2]
    assert len(bytes.fromhex(session_id)) == 8
    assert server.name.endswith(session_id)
    header, _ = read_sequence(client.with_suffix(client.suffix + ".sqlog"))
    assert header["trace"]["common_fields"]["group_id"] == session_id
    for events in (ours, theirs):
        names = [event["name"] for event in events]
        assert names[0] == "quic:connection_started"
        assert names[-1] == "stt:session_over"
        states = [data["new"] for data in named(events, "connection_state_updated")]
        assert states[:2] == ["handshake_started", "handshake_confirmed"]
        assert states[-1] == "closed"
        assert {data["initiator"] for data in named(events, "parameters_set")} == {"local", "remote"}
        assert named(events, "packet_lost")
        assert named(events, "congestion_state_updated")
        assert named(events, "mtu_updated") == [{"old": 0, "new": 1200}]
        assert len(named(events, "key_updated")) == 2
        assert {data["trigger"] for data in named(events, "packet_dropped")} >= {"duplicate", "decryption_failure"}
    assert named(ours, "message_sent")[0] == {"message": "hello", "raw": {"length": 1200}}
    assert named(ours, "connection_started")[0]["local"] == {"ip_v6": "2001:db8::1", "port_v6": 5}
    assert named(ours, "connection_started")[0]["dst_port"] == 4433
    (closed,) = named(ours, "connection_closed")
    assert (closed["initiator"], closed["trigger"], closed["reason"]) == ("local", "application", "that is all")
    assert named(theirs, "connection_closed")[0]["initiator"] == "remote"


def test_packets_can_be_followed_from_one_file_to_the_other(tmp_path: Path) -> None:
    """What arrived has the number, size and frames with which it was sent; what was lost had been sent."""
    world_of(tmp_path)
    ours, theirs = (check(stems(tmp_path / side)[0]) for side in ("client", "server"))
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        sent = {data["header"]["packet_number"]: data for data in named(sender, "packet_sent")}
        received = named(receiver, "packet_received")
        assert received
        for data in received:
            assert data == sent[data["header"]["packet_number"]]
        for data in named(sender, "packet_lost"):
            assert data["raw"] == sent[data["header"]["packet_number"]]["raw"]
    assert max(data["segments"] for data in named(ours, "packet_sent")) > 1


def test_metrics_are_written_when_they_change(tmp_path: Path) -> None:
    world_of(tmp_path)
    seen: dict[str, Any] = {}
    for data in named(check(stems(tmp_path / "client")[0]), "recovery_metrics_updated"):
        assert data
        assert all(seen.get(name) != value for name, value in data.items())
        seen |= data
    assert set(seen) == {
        "congestion_window", "bytes_in_flight", "pto_count", "min_rtt", "smoothed_rtt", "latest_rtt", "rtt_variance",
        "ssthresh", "pacing_rate",
    }  # fmt: skip
    assert 20 <= seen["min_rtt"] <= seen["smoothed_rtt"] < 200
    assert seen["bytes_in_flight"] == 0


def test_the_same_world_gives_the_same_files(tmp_path: Path) -> None:
    for run in ("one", "two"):
        world_of(tmp_path / run)
    one = {path.relative_to(tmp_path / "one"): path.read_bytes() for path in (tmp_path / "one").rglob("*.*log")}
    two = {path.relative_to(tmp_path / "two"): path.read_bytes() for path in (tmp_path / "two").rglob("*.*log")}
    assert len(one) == 4
    assert one == two


def test_no_secret_and_no_data_is_in_the_files(tmp_path: Path) -> None:
    _, secrets = world_of(tmp_path)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.*log"))
    assert len(secrets) == 4
    assert len(written) > 100_000
    for secret in (*secrets, b"confidential"):
        assert secret not in written
        assert secret.hex().encode() not in written
        assert json.dumps(secret.decode("latin-1")).encode()[1:-1] not in written


def test_the_files_are_private(tmp_path: Path) -> None:
    world_of(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new" / "client").stat().st_mode) == 0o700
    for path in tmp_path.rglob("*.*log"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_dial_without_an_answer(tmp_path: Path) -> None:
    """It never gets an id, and its messages are what one wants to see."""
    world = World(1, Conditions(loss=1.0))
    client = world.node("client", trace=QlogTrace(tmp_path))
    session = client.connect(world.node("server"))
    world.run_until(lambda: session.is_closed)
    world.assert_idle()
    (stem,) = stems(tmp_path)
    assert stem.name == "20231114T221320.000Z_initiator_dial-1"
    events = check(stem)
    assert len(named(events, "message_sent")) > 5
    assert named(events, "connection_closed")[0]["trigger"] == "idle_timeout"


# -- nodes ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("anyio_backend")
async def test_nodes_write_qlog(tmp_path: Path, udp_nodes: Any) -> None:
    """Also of sessions that end with their node."""
    async with udp_nodes(qlog_dir=tmp_path) as (server, client):
        first = await client.connect_udp("127.0.0.1", server.port)
        await client.connect_udp("127.0.0.1", server.port)
        stream = first.open_stream()
        await stream.send(b"hello")
        await stream.aclose()
        await first.close()
    found = stems(tmp_path)
    assert len(found) == 4
    for stem in found:
        assert named(check(stem), "connection_closed")[0]["trigger"] == "application"
    assert sum("_initiator_" in stem.name for stem in found) == 2


@pytest.mark.usefixtures("anyio_backend")
async def test_the_environment_asks_for_qlog(tmp_path: Path, udp_nodes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every node, but one that was told otherwise; and a node that is started again writes again."""
    monkeypatch.setenv("STTQLOGDIR", str(tmp_path / "all"))
    async with udp_nodes() as (server, client):
        await client.connect_udp("127.0.0.1", server.port)
        await client.stop()
        await client.start()
        await client.connect_udp("127.0.0.1", server.port)
        async with STTNode(shared_seed="a seed for tests", qlog_dir=tmp_path / "mine") as node:
            await node.connect_udp("127.0.0.1", server.port)
    assert len(stems(tmp_path / "all")) == 5
    assert len(stems(tmp_path / "mine")) == 1


def test_a_blocking_node_writes_qlog(tmp_path: Path) -> None:
    with (
        BlockingNode(shared_seed="x", host="127.0.0.1", server_mode=True, background=True) as server,
        BlockingNode(shared_seed="x", host="127.0.0.1", qlog_dir=tmp_path) as client,
    ):
        client.connect(("127.0.0.1", server.port)).close()
    assert named(check(stems(tmp_path)[0]), "connection_closed")


@pytest.mark.usefixtures("anyio_backend")
async def test_a_directory_that_cannot_be_is_no_reason_not_to_run(
    tmp_path: Path, udp_nodes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    async with udp_nodes(qlog_dir=str(tmp_path / "file")) as (server, client):
        assert (await client.connect_udp("127.0.0.1", server.port)).is_active()
    assert len([record for record in caplog.records if "there is no qlog" in record.getMessage()]) == 2


class Faulty(QlogTrace):
    """An observer with a bug."""

    def packet_sent(self, *told: Any) -> None:
        raise ZeroDivisionError("a bug")


@pytest.mark.usefixtures("anyio_backend")
async def test_an_observer_with_a_bug_is_one_line_in_the_log(
    tmp_path: Path, udp_nodes: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stt_anyio.observing.QlogTrace", Faulty)
    async with udp_nodes() as (server, _), STTNode(shared_seed="a seed for tests", qlog_dir=tmp_path) as client:
        one = await client.connect_udp("127.0.0.1", server.port)
        two = await client.connect_udp("127.0.0.1", server.port)
        assert one.is_active()
        assert two.is_active()
        assert client.endpoint.counters.trace_faults == 1
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == ["the observer failed in packet_sent and is told nothing more: ZeroDivisionError: a bug"]


def test_a_node_that_cannot_be_made_gives_its_observers_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(QlogTrace, "close", lambda self: closed.append(True))
    monkeypatch.setattr(Endpoint, "__init__", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError), BlockingNode(shared_seed="x", host="127.0.0.1", qlog_dir=tmp_path):
        pass
    assert closed == [True]


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_demo_writes_qlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FILE_SIZE", 1 << 20), ("VIDEO", 1 << 16), ("MESSAGES", 3)):
        monkeypatch.setattr(demo, name, value)
    result = CliRunner().invoke(stt, ["demo", "--qlog", str(tmp_path)])
    assert result.exit_code == 0, result.output
    found = stems(tmp_path)
    assert len(found) == 2
    for stem in found:
        assert named(check(stem), "packet_sent")


def test_a_measurement_writes_qlog(tmp_path: Path) -> None:
    """Of both ends, which are two processes."""
    result = CliRunner().invoke(stt, ["perf", "--mode", "echo", "--count", "5", "--qlog", str(tmp_path)])
    assert result.exit_code == 0, result.output
    one, two = map(check, stems(tmp_path))
    assert named(one, "packet_sent")
    assert named(two, "packet_sent")


def test_what_has_no_nodes_writes_no_qlog(tmp_path: Path) -> None:
    result = CliRunner().invoke(stt, ["perf", "--mode", "handshake", "--qlog", str(tmp_path)])
    assert (result.exit_code, result.stderr) == (
        ExitCode.USAGE,
        "stt: --qlog does not concern --mode handshake, which has no nodes\n",
    )
