"""The key log: who can read it, what is in it, and that a capture can be read with it."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from stt_anyio import BlockingNode, STTNode
from stt_anyio.keylog import KeyLogFile, read_keylog
from stt_proto.crypto import SUITES
from stt_proto.packet import PacketKeys, PacketReceiver, TrainBudget
from stt_proto.testing import World
from stt_proto.wire import Stream, decode_frames_untrusted

LABELS = {"STT_INITIATOR_TRAFFIC_0", "STT_RESPONDER_TRAFFIC_0", "STT_INITIATOR_HEADER", "STT_RESPONDER_HEADER"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.log"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def written(path: Path) -> list[str]:
    return path.read_text().splitlines()


def content(path: Path) -> dict[bytes, dict[str, bytes]]:
    return read_keylog(written(path))


# -- the file ------------------------------------------------------------------------------------------------------


def test_a_line_for_each_secret(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The shape of SSLKEYLOGFILE (RFC 9850): label, identifier, secret; what is there stays, and it warns once."""
    for secret in (b"\x01" * 32, b"\x02" * 32):
        log = KeyLogFile(path)
        log("STT_INITIATOR_TRAFFIC_0", b"sessions", secret)
        log.close()
        log.close()
        log("STT_INITIATOR_TRAFFIC_0", b"sessions", b"too late")
    assert path.read_text() == (
        f"STT_INITIATOR_TRAFFIC_0 73657373696f6e73 {'01' * 32}\nSTT_INITIATOR_TRAFFIC_0 73657373696f6e73 {'02' * 32}\n"
    )
    assert len(caplog.records) == 2
    assert all("SECRETS" in text and str(path) in text for text in warnings(caplog))
    assert "0101" not in caplog.text


def test_only_its_owner_can_read_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first moment on; one that was there before, as soon as it is open."""
    before = os.umask(0)
    try:
        with monkeypatch.context() as patch:
            patch.delattr(os, "fchmod")
            KeyLogFile(path).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        KeyLogFile(path).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_it_follows_no_link(path: Path, tmp_path: Path) -> None:
    """Somebody may have laid it there."""
    target = tmp_path / "of somebody else"
    target.write_text("")
    path.symlink_to(target)
    with pytest.raises(OSError) as caught:
        KeyLogFile(path)
    assert caught.value.errno in (errno.ELOOP, errno.EMLINK)
    assert target.read_text() == ""


def test_it_must_be_an_ordinary_file(path: Path) -> None:
    """A pipe has a reader of whom nothing is known; opening one without a reader does not wait for it."""
    os.mkfifo(path)
    with pytest.raises(OSError):
        KeyLogFile(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(PermissionError, match="no ordinary file"):
            KeyLogFile(path)
    finally:
        os.close(reader)


def test_it_must_be_ones_own(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    path.write_text("")
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(PermissionError, match="somebody else"):
        KeyLogFile(path)
    monkeypatch.delattr(os, "geteuid")  # a system where files have no such owner
    KeyLogFile(path).close()


@pytest.mark.parametrize("fault", ["error", "half"])
def test_a_full_disk_ends_it_with_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def write(descriptor: int, data: bytes) -> int:
        if fault == "half":
            return len(data) // 2
        raise OSError(errno.ENOSPC, "No space left on device")

    log = KeyLogFile(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        for number in range(4):
            log(f"LABEL_{number}", b"sessions", b"secret")
    assert len(warnings(caplog)) == 2
    assert "is incomplete" in warnings(caplog)[1]
    assert b"secret".hex() not in caplog.text
    log("STT", b"", b"")
    assert path.read_text() == ""


def test_reading_passes_over_what_is_no_secret() -> None:
    lines = [
        "# a comment\n",
        "\n",
        "CLIENT_RANDOM 00 11\n",
        "STT_INITIATOR_HEADER 00 xx\n",
        "STT_INITIATOR_HEADER 00\n",
        "STT_INITIATOR_HEADER 0011 2233\n",
        "STT_RESPONDER_HEADER 0011 4455\n",
    ]
    assert read_keylog(lines) == {
        b"\x00\x11": {"STT_INITIATOR_HEADER": b"\x22\x33", "STT_RESPONDER_HEADER": b"\x44\x55"}
    }


# -- what it is for ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_a_capture_is_read_with_nothing_else(path: Path, suite: int) -> None:
    """H-6, H-7: the lines and the wire are enough; the suite is the one under which packets open."""
    log = KeyLogFile(path)
    world = World(3, record=True)
    client, server = world.node("client", keylog=log), world.node("server", suites=(suite,))
    session = client.connect(server)
    world.run_until(session.is_active)
    session.open_stream().write(b"what was said" * 1000, world.now)
    client.pump()
    world.settle()
    log.close()
    assert world.transcript is not None
    captured = [entry.data for entry in world.transcript.between(client.address, server.address)]
    ((_, secrets),) = content(path).items()
    heard = dict.fromkeys(SUITES, b"")
    for number, candidate in SUITES.items():
        keys = PacketKeys(candidate, secrets["STT_INITIATOR_TRAFFIC_0"], secrets["STT_INITIATOR_HEADER"])
        receiver = PacketReceiver(keys, TrainBudget(1 << 20))
        for datagram in captured:
            if datagram[0] >= 0x80:  # the handshake
                continue
            for packet in receiver.receive(datagram, 0, len(datagram), None, session.path, 0.0, True):
                for frame in decode_frames_untrusted(packet.plain):
                    if isinstance(frame, Stream):
                        heard[number] += frame.data
    assert heard.pop(suite) == b"what was said" * 1000
    assert not any(heard.values())


# -- nodes ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("anyio_backend")
async def test_nodes_write_a_key_log(path: Path, udp_nodes: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Both ends write the same, and say loudly that they do."""
    async with udp_nodes(keylog_file=path) as (server, client):
        session = await client.connect_udp("127.0.0.1", server.port)
        await server.accept()
        session_id = session.session_id
    assert {each: set(secrets) for each, secrets in content(path).items()} == {session_id: LABELS}
    lines = written(path)
    assert len(lines) == 8
    assert len(set(lines)) == 4
    assert len(warnings(caplog)) == 2


@pytest.mark.usefixtures("anyio_backend")
async def test_the_environment_asks_for_a_key_log(
    path: Path, tmp_path: Path, udp_nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STTKEYLOGFILE", str(path))
    async with udp_nodes(keylog_file=str(tmp_path / "its own")) as (server, _):
        async with STTNode(shared_seed="a seed for tests") as client:
            await client.connect_udp("127.0.0.1", server.port)
    assert content(path) == content(tmp_path / "its own") != {}


def test_nobody_asks_for_a_key_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STTKEYLOGFILE", "")
    with BlockingNode(shared_seed="x", host="127.0.0.1", server_mode=True) as node:
        assert node._observers.keylog is None


@pytest.mark.usefixtures("anyio_backend")
async def test_a_file_that_is_not_fit_is_no_reason_not_to_run(
    tmp_path: Path, udp_nodes: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with udp_nodes(keylog_file=str(tmp_path)) as (server, client):
        assert (await client.connect_udp("127.0.0.1", server.port)).is_active()
    assert len(warnings(caplog)) == 2
    assert all(text.startswith("there is no key log: ") for text in warnings(caplog))
