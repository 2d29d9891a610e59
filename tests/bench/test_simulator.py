"""How fast the simulator is: that it is measured, on links that are as bad as they should be."""

from __future__ import annotations

import pytest
from attrs import asdict

from stt_proto.testing import Traffic
from tests.bench import simulator


def test_it_prints_a_line_of_each(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "GOAL", 0)
    assert simulator.main(["--rounds", "1", "--datagrams", "1000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:20].rstrip() for line in lines] == list(simulator.KINDS)
    assert all("datagrams a second" in line for line in lines)


def test_it_says_when_it_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "GOAL", 1e12)
    assert simulator.main(["--rounds", "1", "--datagrams", "100"]) == 1


def test_all_faults_happen_at_once_and_none_to_sound_links() -> None:
    assert not simulator.transfers(simulator.SOUND, 2000).faults
    measured = simulator.transfers(simulator.FAULTS, 6000)
    assert measured.datagrams >= 6000
    assert {*measured.faults} == {*asdict(Traffic())} - {"sent", "bytes", "delivered", "cut"}


def test_bad_counts(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--rounds", "0"], ["--datagrams", "99"]):
        with pytest.raises(SystemExit):
            simulator.main(words)
    assert "at least" in capsys.readouterr().err
