"""qlog: what it holds and writes is bounded, and what goes wrong with it is in nobody's way."""

from __future__ import annotations

import errno
import io
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from stt_anyio.memory import memory_nodes
from stt_anyio.qlog import QlogTrace, files
from stt_proto import Trace, TracedFrame
from stt_proto.recovery import Recovery, SentPacket
from stt_proto.wire import Parameters
from tests.anyio.qlogs import PATH, check, named, read_sequence, session, stems


class Recorder(io.BytesIO):
    """A file that remembers how large its writes were, and fails after so many bytes."""

    def __init__(self, room: float = float("inf"), fails_to_close: bool = False) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.room = room
        self.fails_to_close = fails_to_close

    def write(self, data: Any) -> int:
        if sum(self.sizes) + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.sizes.append(len(data))
        return super().write(data)

    def close(self) -> None:
        super().close()
        if self.fails_to_close:
            self.fails_to_close = False
            raise OSError(errno.EIO, "gone")


class Disk:
    """An opener that keeps what it opened."""

    def __init__(self, make: Callable[[], BinaryIO] = Recorder) -> None:
        self.make = make
        self.files: dict[str, Any] = {}

    def __call__(self, path: Path) -> BinaryIO:
        file = self.files[path.name] = self.make()
        return file

    @property
    def form(self) -> list[Any]:
        return list(self.files.values())


FRAME = TracedFrame("stream", {"stream_id": 0, "offset": 0, "length": 1000, "fin": False})


def test_what_is_gathered_is_bounded(tmp_path: Path) -> None:
    """64 KiB are written as soon as they are there, and one event more is all that memory holds."""
    disk = Disk()
    log, about = QlogTrace(tmp_path, opener=disk), session()
    log.session_began(about, 100.0)
    for number in range(5000):
        log.packet_sent(about, number, 1200, 1, [FRAME] * 10, False, 100.0)
    log.session_over(about, 100.0)
    for file in disk.form:
        assert sum(file.sizes) > 1_000_000
        assert max(file.sizes) < files.BUFFER + 4000
        assert len(file.sizes) < 200
        assert file.closed


def test_little_is_written_after_a_second(tmp_path: Path) -> None:
    log, about = QlogTrace(tmp_path), session()
    log.session_began(about, 100.0)
    log.mtu_updated(about, 0, 1200, 100.5)
    assert not list(tmp_path.iterdir())
    log.mtu_updated(about, 1200, 1452, 101.0)
    _, events = read_sequence(next(tmp_path.glob("*.sqlog")))
    assert [event["time"] for event in events] == [0.0, 500.0, 1000.0]
    log.mtu_updated(about, 1452, 9000, 101.5)
    assert len(read_sequence(next(tmp_path.glob("*.sqlog")))[1]) == 3
    log.close()
    assert len(check(stems(tmp_path)[0])) == 4


@pytest.mark.parametrize("max_bytes", [10_000, 200_000])
def test_a_file_is_bounded(tmp_path: Path, max_bytes: int) -> None:
    log, about = QlogTrace(tmp_path, max_bytes=max_bytes), session()
    log.session_began(about, 100.0)
    for number in range(2000):
        log.packet_sent(about, number, 1200, 1, [FRAME], False, 100.0)
    events = check(stems(tmp_path)[0])
    assert events[-1]["name"] == "stt:truncated"
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert max_bytes <= max(sizes) < max_bytes + 2000
    log.session_over(about, 101.0)
    assert [path.stat().st_size for path in tmp_path.iterdir()] == sizes


def test_sessions_are_bounded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = QlogTrace(tmp_path, max_sessions=2)
    sessions = [session(number, session_id=bytes([number] * 8)) for number in range(1, 5)]
    for about in sessions:
        log.session_began(about, 100.0)
    assert log.skipped == 2
    assert len(caplog.records) == 1
    for about in sessions:
        log.metrics_updated(about, Recovery(1200).stats(), 100.0)
        log.session_over(about, 100.0)
    assert len(stems(tmp_path)) == 2
    log.session_began(sessions[3], 100.0)
    log.close()
    assert len(stems(tmp_path)) == 3
    assert log.skipped == 2


def test_metrics_that_nobody_writes_are_no_event(tmp_path: Path) -> None:
    """Recovery counts more than there are words for."""
    log, about, recovery = QlogTrace(tmp_path), session(), Recovery(1200)
    log.session_began(about, 100.0)
    log.metrics_updated(about, recovery.stats(), 100.0)
    recovery.on_sent(SentPacket(0, 100.0, 0, 1, True, True))
    log.metrics_updated(about, recovery.stats(), 100.0)
    log.close()
    assert len(named(check(stems(tmp_path)[0]), "recovery_metrics_updated")) == 1


def test_a_name_that_is_taken(tmp_path: Path) -> None:
    for _ in range(3):
        log = QlogTrace(tmp_path)
        log.session_began(session(), 100.0)
        log.close()
    name = "20231114T221320.000Z_initiator_3132333435363738"
    assert {stem.name for stem in stems(tmp_path)} == {name, f"{name}-2", f"{name}-3"}
    for stem in stems(tmp_path):
        check(stem)


def test_names_run_out(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "TRIES", 3)
    for _ in range(3):
        log = QlogTrace(tmp_path)
        log.session_began(session(), 100.0)
        log.close()
    assert len(stems(tmp_path)) == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("room", [0, 100, 70_000, 200_000])
def test_a_full_disk_ends_it_all_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, room: float
) -> None:
    """Whenever it is full, and for sessions that had nothing to do with it; the files are given back."""
    disk = Disk(lambda: Recorder(room))
    log, one, two = QlogTrace(tmp_path, opener=disk), session(), session(2, session_id=b"another!")
    log.session_began(one, 100.0)
    log.session_began(two, 100.0)
    log.mtu_updated(two, 1, 2, 101.0)
    for number in range(5000):
        log.packet_sent(one, number, 1200, 1, [FRAME], False, 100.0)
    log.session_over(one, 100.0)
    log.session_over(two, 100.0)
    log.session_began(session(3), 100.0)
    log.close()
    assert [record.getMessage() for record in caplog.records] == [
        "qlog stops, and is incomplete: [Errno 28] No space left on device"
    ]
    assert all(file.closed for file in disk.form)


def test_a_file_that_cannot_be_closed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(lambda: Recorder(fails_to_close=True))
    log = QlogTrace(tmp_path, opener=disk)
    log.session_began(session(), 100.0)
    log.close()
    assert len(caplog.records) == 1
    assert all(file.closed for file in disk.form)


@pytest.mark.usefixtures("anyio_backend")
async def test_a_session_outlives_a_full_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(lambda: Recorder(20_000))
    monkeypatch.setattr("stt_anyio.observing.QlogTrace", partial(QlogTrace, opener=disk))
    async with memory_nodes(qlog_dir=str(tmp_path)) as (one, two):
        ours = await one.connect("two")
        theirs = await two.accept()
        stream = ours.open_stream()
        await stream.send(b"begin")
        peer = await theirs.accept_stream()
        for _ in range(100):
            await stream.send(bytes(20_000))
            await peer.receive()
        assert ours.is_active()
        assert one.endpoint.counters.trace_faults == 0
    warnings = {record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING}
    assert warnings == {"qlog stops, and is incomplete: [Errno 28] No space left on device"}


def test_every_trace_point_is_written(tmp_path: Path) -> None:
    """A point that the core gains needs its line here."""
    own = {name for name in vars(QlogTrace) if not name.startswith("_")}
    assert {name for name in vars(Trace) if not name.startswith("_")} <= own
    log, about = QlogTrace(tmp_path), session()
    log.session_began(about, 100.0)
    log.path_updated(about, PATH, PATH, 100.0)
    log.ecn_state_updated(about, "testing", "capable", 100.0)
    log.packet_lost(about, 5, 1452, 1, True, 100.0)
    log.parameters_set(about, Parameters(), Parameters(max_data=7), 100.0)
    log.close()
    events = check(stems(tmp_path)[0])
    assert named(events, "tuple_assigned")
    assert named(events, "ecn_state_updated") == [{"old": "testing", "new": "capable"}]
    assert named(events, "packet_lost")[0]["is_mtu_probe_packet"]
    assert [data["initial_max_data"] for data in named(events, "parameters_set")] == [0, 7]
