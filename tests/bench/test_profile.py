"""The table of microseconds: what is counted where, and that it can be made."""

from __future__ import annotations

import cProfile
import json

import pytest

from stt_proto.wire import encode_ack
from tests.bench import profile


def test_a_function_belongs_to_its_room_and_c_to_its_caller() -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    for number in range(200):
        encode_ack(number, 1, 0, ((0, number),))
        json.dumps({"number": number})
    profiler.disable()
    lines = profile.add_up(profiler.getstats())
    assert set(lines) == set(profile.LINES)
    assert lines["headers and frames"] > 0
    assert lines[profile.COPY] > 0  # the join in `encode_ack`
    assert lines[profile.LOOP] > 0  # the rest
    assert lines["recovery"] == lines["streams"] == lines[profile.AEAD] == lines[profile.SYSTEM] == 0


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("<method 'encrypt' of 'cryptography.hazmat.bindings._rust.openssl.aead.AESGCM' objects>", profile.AEAD),
        ("<method 'recvmsg_into' of '_socket.socket' objects>", profile.SYSTEM),
        ("<method 'poll' of 'select.epoll' objects>", profile.SYSTEM),
        ("<built-in method builtins.len>", None),
        (profile.main.__code__, profile.LOOP),
        (encode_ack.__code__, "headers and frames"),
    ],
)
def test_every_call_has_its_line(code: object, line: str | None) -> None:
    assert profile.room_of(code) == line  # type: ignore[arg-type]


def test_the_floor_is_as_measured_and_the_rest_is_shared() -> None:
    profiled = dict.fromkeys(profile.LINES, 0.0) | {profile.AEAD: 1.0, "host": 6.0, "recovery": 2.0}
    lines = profile.split(5.0, profiled)
    assert lines[profile.AEAD] == 1.0
    assert (lines["host"], lines["recovery"]) == (3.0, 1.0)
    assert sum(lines.values()) == 5.0
    assert profile.split(0.5, profiled)["host"] == 0.0


def test_it_makes_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert profile.main(["--quick"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 + len(profile.LINES) + 2
    for unit in profile.UNITS:
        assert unit.title in rows[0]
    for row, line in zip(rows[2:], profile.LINES, strict=False):
        assert row.startswith(f"| {line} |")


def test_it_wants_a_round() -> None:
    with pytest.raises(SystemExit):
        profile.main(["--rounds", "0"])
