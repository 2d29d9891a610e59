"""`stt perf`: every figure comes from a run, and what a mode does not measure is null."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import socket
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from stt_anyio import NodeConfig
from stt_anyio.cli.app import stt
from stt_anyio.cli.perf import ends, inside, reach, scaling, with_loop, yardstick
from stt_anyio.cli.perf.modes import FIGURES, MODES
from stt_anyio.cli.perf.pair import Pair
from stt_anyio.cli.perf.work import Work
from stt_anyio.cli.verb import ExitCode
from stt_anyio.udp import UdpSocket

CPU = {"cpu_s_near", "cpu_s_far"}
MEASURED = {
    "bulk": {"mb_per_s", *CPU},
    "echo": {"echo_p50_us", "echo_p99_us", *CPU},
    "messages": {"messages_per_s", *CPU},
    "datagrams": {"datagrams_per_s", "datagrams_lost_percent", *CPU},
    "idle": {"idle_cpu_percent", *CPU},
    "handshake": {"handshake_ms"},
    "memory": {"kib_per_session", "mb_per_s"},
    "scaling": {"us_per_packet_alone", "us_per_packet", "us_per_packet_turns", "times_alone", "times_alone_turns"},
}
TINY = {
    "bulk": ("--mb", "2", "--datagram-size", "1452"),
    "echo": ("--count", "20"),
    "messages": ("--count", "50"),
    "datagrams": ("--count", "300"),
    "idle": ("--sessions", "3", "--seconds", "0.1"),
    "handshake": ("--count", "3"),
    "scaling": ("--count", "400", "--sessions", "2", "--streams", "3"),
}
OVER_UDP = ("bulk", "echo", "messages", "datagrams", "idle")


def perf(*words: str) -> Result:
    return CliRunner().invoke(stt, ["perf", *words])


def check(result: Result, mode: str) -> dict[str, float]:
    """Every figure of the mode was measured, and no other."""
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    measured = {key: told[key] for key in FIGURES if told[key] is not None}
    assert set(measured) == MEASURED[mode]
    assert all(value >= 0 for value in measured.values())
    assert told["mode"] == mode
    return measured


@pytest.mark.parametrize("backend", ["asyncio", "trio", "blocking"])
@pytest.mark.parametrize("mode", OVER_UDP)
def test_over_udp(mode: str, backend: str) -> None:
    figures = check(perf("--json", "--mode", mode, "--backend", backend, *TINY[mode]), mode)
    assert all(value > 0 for key, value in figures.items() if key.endswith(("_per_s", "_us")))


@pytest.mark.parametrize("carrier", ["tcp", "ws", "wss"])
@pytest.mark.parametrize("backend", ["asyncio", "trio", "blocking"])
def test_over_connections(backend: str, carrier: str) -> None:
    """E2, E3: `--carrier`."""
    result = perf("--json", "--carrier", carrier, "--backend", backend, "--mb", "4")
    assert check(result, "bulk")["mb_per_s"] > 0
    assert json.loads(result.stdout)["carrier"] == carrier


@pytest.mark.parametrize("mode", OVER_UDP)
def test_in_memory(mode: str) -> None:
    """E4: both ends in one process, whose CPU is the near end's."""
    words = [word for word in TINY[mode] if word not in ("--datagram-size", "1452")]
    assert check(perf("--json", "--mode", mode, "--carrier", "memory", *words), mode)["cpu_s_far"] == 0


def test_idle_sessions_over_tcp() -> None:
    check(perf("--json", "--mode", "idle", "--carrier", "tcp", *TINY["idle"]), "idle")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--carrier", "memory", "--backend", "blocking"), "needs an event loop"),
        (("--carrier", "tcp", "--datagram-size", "1200"), "--datagram-size concerns --carrier udp only"),
        (("--carrier", "ws", "--no-offload"), "--no-offload concerns --carrier udp only"),
    ],
)
def test_carriers_that_do_not_fit(words: tuple[str, ...], said: str) -> None:
    result = perf(*words)
    assert (result.exit_code, said in result.stderr) == (ExitCode.USAGE, True)


@pytest.mark.parametrize("backend", ["asyncio", "blocking"])
@pytest.mark.parametrize("direction", ["down", "both"])
def test_bulk_in_each_direction_on_several_streams(direction: str, backend: str) -> None:
    """Each end checks how many bytes it got, and the far end's count."""
    words = ("--mb", "2", "--direction", direction, "--streams", "3", "--backend", backend, "--no-offload")
    result = perf("--json", *words)
    assert check(result, "bulk")["mb_per_s"] > 0
    told = json.loads(result.stdout)
    assert (told["direction"], told["streams"], told["offload"], told["count"]) == (direction, 3, False, None)


def test_the_mtu_can_be_searched() -> None:
    """Then no size is told to the nodes, which find out what loopback carries."""
    assert Work(mode="bulk", datagram_size=1452).node["datagram_size"] == 1452
    assert Work(mode="bulk", datagram_size=1452, search_mtu=True).node["datagram_size"] is None
    result = perf("--json", "--mb", "2", "--search-mtu")
    assert check(result, "bulk")["mb_per_s"] > 0
    assert json.loads(result.stdout)["search_mtu"] is True


@pytest.mark.parametrize("mode", ["handshake", "scaling"])
def test_in_one_process(mode: str) -> None:
    assert all(check(perf("--json", "--mode", mode, *TINY[mode]), mode).values())


def test_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What 30 sessions take is divided among their 60 ends."""
    resident = iter([1 << 20, (1 << 20) + 60 * 7 * 1024])
    monkeypatch.setattr(inside, "resident", lambda: next(resident))
    words = ("--mode", "memory", "--mb", "1", "--sessions", "30")
    assert check(perf("--json", *words), "memory")["kib_per_session"] == 7


def test_an_idle_session_is_small() -> None:
    """`docs/performance.md`: one end of a session that does nothing is less than 11 KiB, all that Python knows of."""
    pair = Pair(1452, max_concurrent_sessions=200)
    kept = inside.idle_sessions(pair, inside.BATCH)
    gc.collect()
    tracemalloc.start()
    try:
        kept += inside.idle_sessions(pair, 100)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert all(session.is_active() for both in kept for session in both)
    assert held / 200 < 11 * 1024


def test_resident_memory_is_this_process_s(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 10 << 20 < yardstick.resident() < 10 << 30
    monkeypatch.setattr(yardstick.Path, "exists", lambda _: False)
    monkeypatch.setattr(yardstick.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=b" 1234\n"))
    assert yardstick.resident() == 1234 << 10
    monkeypatch.setattr(yardstick.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=b""))
    result = perf("--mode", "memory")
    assert (result.exit_code, "does not tell" in result.stderr) == (ExitCode.FAILED, True)


def test_for_people() -> None:
    result = perf("--mode", "handshake", "--count", "3")
    assert result.exit_code == 0
    assert "ms for a handshake" in result.stdout
    assert "datagram size 1,452, count 3" in result.stdout
    assert "MB/s" not in result.stdout, "which was not measured"


def test_the_help_has_every_mode_with_its_defaults() -> None:
    told = perf("--help").stdout
    for name, mode in MODES.items():
        assert f"{name}: {mode.help}" in told
    assert "--sessions 1000 --seconds 20" in told
    assert set(MODES) == set(MEASURED)


@pytest.mark.parametrize("name", MODES)
def test_the_page_has_every_mode_with_its_figures_and_defaults(name: str) -> None:
    """`docs/command.md`; what all have that use UDP stands under its table."""
    page = (Path(__file__).parents[2] / "docs" / "command.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    assert all(f"`{figure}`" in line for figure in MEASURED[name] - (CPU if name != "bulk" else set()))
    mode = MODES[name]
    if mode.measure is ends.measure:
        assert "and those for UDP" in line
    for option, default in mode.options.items():
        if option in ("backend", "carrier", "offload", "search_mtu") or (
            option == "datagram_size" and mode.measure is ends.measure
        ):
            continue
        value = f"{default:g}" if isinstance(default, float) else default
        assert f"`--{option.replace('_', '-')} {value}`" in line


# -- what is refused, and what breaks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--mode", "echo", "--mb", "1"), "--mb"),
        (("--mode", "handshake", "--backend", "trio"), "--backend"),
        (("--mode", "memory", "--no-offload"), "--no-offload"),
        (("--mode", "bulk", "--count", "7"), "--count"),
    ],
)
def test_an_option_that_does_not_concern_the_mode(words: tuple[str, ...], named: str) -> None:
    result = perf(*words)
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith(f"stt: {named} does not concern --mode {words[1]}, which has --")


def test_a_thread_for_each_stream_is_too_much() -> None:
    result = perf("--backend", "blocking", "--streams", "501")
    assert (result.exit_code, "500 at most" in result.stderr) == (ExitCode.USAGE, True)


def test_bad_options() -> None:
    for words in (
        ("--mode", "x"),
        ("--backend", "x"),
        ("--mb", "0"),
        ("--datagram-size", "1199"),
        ("--direction", "x"),
        ("--streams", "0"),
        ("--seconds", "0"),
    ):
        assert perf(*words).exit_code == ExitCode.USAGE


def test_without_trio_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stt_anyio.cli.perf.command.find_spec", lambda name: None)
    result = perf("--backend", "trio")
    assert result.exit_code == ExitCode.USAGE
    assert "stt-transport[trio]" in result.stderr


def test_a_far_end_that_breaks_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "_far_end", sys.exit)
    result = perf("--json")
    assert result.exit_code == ExitCode.FAILED
    assert result.stderr == "stt: the far end broke down\n"
    assert json.loads(result.stdout)["event"] == "failed"


def test_a_far_end_that_never_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "_PATIENCE", 0.01)
    monkeypatch.setattr(ends, "_GRACE", 0.01)
    assert perf().exit_code == ExitCode.FAILED


def test_the_far_end_ends_when_the_near_end_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(ends, "_GRACE", 0.0)
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    with theirs:
        ends._end_with(theirs)
    assert ended == [1]


def test_sessions_that_end_while_they_are_idle() -> None:
    with pytest.raises(RuntimeError, match="of 3 idle sessions 1 ended"):
        yardstick.idle_figures(2, 3, yardstick.Watch())


def test_a_pair_that_loses_something(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd = scaling.Crowd(Work(mode="scaling"), 1, 1)
    monkeypatch.setattr(scaling.Reader, "read", lambda *_: None)
    with pytest.raises(RuntimeError, match="lost something"):
        crowd.cost(crowd.one())


def test_in_turn_each_stream_gets_two_packets() -> None:
    crowd = scaling.Crowd(Work(mode="scaling"), 2, 2)
    turns = crowd.turns()
    first = [next(turns) for _ in range(8)]
    assert first[::2] == first[1::2]
    assert len(set(first)) == 4
    assert [next(turns) for _ in range(8)] == first


# -- what both ends agree on ---------------------------------------------------------------------------------------


def test_an_answer_is_all_of_the_payload_and_the_count() -> None:
    answer = yardstick.Answer(5)
    for piece in (b"12345", b"\0\0\0", b"\0\0\0\0\7"):
        answer.take(piece)
    answer.check(7)
    with pytest.raises(RuntimeError, match="counted 7 bytes of 8"):
        answer.check(8)
    answer.take(b"\7")
    with pytest.raises(RuntimeError, match="14 bytes came back of 13"):
        answer.check(7)


def test_the_99th_percentile_is_one_that_was_seen() -> None:
    figures = yardstick.echo_figures([number / 1e6 for number in range(200, 0, -1)], yardstick.Watch())
    assert figures["echo_p50_us"] == pytest.approx(100.5)
    assert figures["echo_p99_us"] == pytest.approx(198)
    assert yardstick.echo_figures([7e-6], yardstick.Watch())["echo_p99_us"] == pytest.approx(7)


def test_datagrams_that_are_lost_do_not_count_and_do_not_stop_the_others() -> None:
    """Every third is lost; where reports are lost too, the flight goes on when patience is over."""
    flight, tally = yardstick.Flight(1000), yardstick.Tally()
    sent = silences = 0
    while flight.arrived is None:
        report = None
        while (data := flight.next()) is not None:
            sent += data != tally.QUESTION
            if data == tally.QUESTION or sent % 3:
                report = tally.take(data) or report
        silences += report is None
        assert silences < 1000
        flight.take(report)
    assert (sent, flight.arrived) == (1000, 667)
    assert flight.figures(yardstick.Watch())["datagrams_lost_percent"] == pytest.approx(33.3)


def test_the_window_of_a_flight() -> None:
    flight, tally = yardstick.Flight(1000), yardstick.Tally()
    burst = [flight.next() for _ in range(flight.WINDOW)]
    assert None not in burst
    assert all(data is not None and len(data) == 1000 for data in burst)
    assert flight.next() is None
    reports = [report for data in burst if data and (report := tally.take(data)) is not None]
    flight.take(reports[0])
    assert [flight.next() is None for _ in range(tally.EVERY + 1)] == [False] * tally.EVERY + [True]


def test_a_question_that_is_lost_is_asked_again() -> None:
    flight = yardstick.Flight(1)
    assert flight.next() is not None
    assert flight.next() == yardstick.Tally.QUESTION
    assert flight.next() is None
    flight.take(None)
    assert flight.next() == yardstick.Tally.QUESTION


def test_both_hosts_can_do_the_same() -> None:
    over_udp = {name for name, mode in MODES.items() if mode.measure is ends.measure}
    assert over_udp == set(OVER_UDP)
    assert set(with_loop._NEAR) == set(with_loop._FAR) == over_udp
    assert set(ends.without_loop._NEAR) == set(ends.without_loop._FAR) == over_udp


def test_without_offload_the_system_is_not_asked() -> None:
    """`NodeConfig.offload`: one call a datagram, each way."""
    sock = UdpSocket(socket.AF_INET, ("127.0.0.1", 0), NodeConfig(offload=False))
    try:
        assert (sock.segmentation, sock.coalescing) == (False, False)
    finally:
        sock.close()


def test_no_private_key_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the disk is full, or it is interrupted, between the key and the certificate."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert reach._certified()
    assert not list(tmp_path.iterdir())
    real = reach.NamedTemporaryFile

    def full(**options: bool) -> object:
        file = real(**options)
        file.write = lambda data: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
        return file

    monkeypatch.setattr(reach, "NamedTemporaryFile", full)
    with pytest.raises(KeyboardInterrupt):
        reach._certified()
    assert not list(tmp_path.iterdir())
