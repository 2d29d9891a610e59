"""The transcript of a world: complete, readable, and comparable; G-1."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stt_proto import NetworkPath
from stt_proto.errors import ArgumentError
from stt_proto.testing import Conditions, Entry, Inbox, Transcript, World, send
from tests.proto.worlds import filler

CONDITIONS = Conditions(loss=0.05, duplicate=0.05, reorder=0.05, corrupt=0.05, truncate=0.02, jitter=0.01, mtu=1200)


def recorded(seed: int, conditions: Conditions = CONDITIONS, size: int = 200_000) -> World:
    """A world in which something is sent through every fault."""
    world = World(seed, conditions, record=True)
    client, server = world.node("client"), world.node("server")
    Inbox(server)
    upload = send(client, client.connect(server), filler(size))
    world.run_until(lambda: upload.done)
    return world


def transcript(seed: int, **more: object) -> Transcript:
    found = recorded(seed, **more).transcript  # type: ignore[arg-type]
    assert found is not None
    return found


def entry(at: float, data: bytes = b"?", **more: object) -> Entry:
    return Entry(at, ("client", 1), ("server", 1), data, **more)  # type: ignore[arg-type]


def test_everything_is_there() -> None:
    """What the links did is what the transcript says, fault by fault."""
    world = recorded(3)
    found, traffic = world.transcript, world.traffic
    assert found is not None
    assert len(found) == traffic.sent > 100
    assert sum(len(entry.data) for entry in found) == traffic.bytes
    assert sum(len(entry.arrivals) for entry in found) == traffic.delivered
    for fate in ("lost", "duplicated", "reordered", "corrupted", "truncated"):
        assert len(found.having(fate)) == getattr(traffic, fate) > 0
    client, server = ("client", 1), ("server", 1)
    assert len(found.between(client, server)) + len(found.between(server, client)) == len(found)
    assert len(found.between(client, server)) == world.links[client, server].traffic.sent
    for item in found:
        assert all(at >= item.at for at in item.arrivals)
        assert len(item.arrivals) == (0 if item.fate == "lost" else 2 if "duplicated" in item.fate else 1)


def test_nothing_is_kept_unasked() -> None:
    assert World(1).transcript is None


def test_recording_changes_nothing() -> None:
    seen: list[tuple[float, bytes]] = []
    world = World(4, CONDITIONS)
    world.taps.append(lambda datagram, _: seen.append((world.now, datagram)) or datagram)
    client, server = world.node("client"), world.node("server")
    Inbox(server)
    upload = send(client, client.connect(server), filler(200_000))
    world.run_until(lambda: upload.done)
    assert [(item.at, item.data) for item in transcript(4)] == seen


# -- to be read ----------------------------------------------------------------------------------------------------


def test_a_line_for_each_datagram() -> None:
    """Time, who to whom, bytes, what it is, a hash of it, what became of it; columns stay columns."""
    lines = str(transcript(1, conditions=Conditions(), size=10)).splitlines()
    kinds = [line.split()[5] for line in lines[:4]]
    assert kinds == ["HELLO", "CHALLENGE", "CHALLENGE", "AUTH_PROOF"]
    assert lines[0].startswith("    0.000000  client > server           1200  HELLO            ")
    assert lines[0].endswith("  arrives 0.010000")
    assert len({line.index("  arrives") for line in lines}) == 1


@pytest.mark.parametrize(
    ("datagram", "kind"),
    [
        (b"", "?"),
        (b"\x00" * 20, "?"),
        (b"\x80" * 20, "?"),
        (b"\xc1" + bytes(30), "HELLO"),
        (b"\xe2" + bytes(30), "CHALLENGE piece"),
        (b"\xcf" + bytes(30), "?"),
        (b"\xef" + bytes(30), "?"),
        (b"\x5f" + bytes(30), "packet"),
        (b"\x60" + bytes(12) + b"\x03\x09" + bytes(20), "segment 3/9"),
        (b"\x60" + bytes(12), "packet"),
    ],
)
def test_what_can_be_told_without_a_key(datagram: bytes, kind: str) -> None:
    """W-1, section 7: the form, the message, and of a train the segment."""
    assert entry(0.0, datagram).kind == kind


@pytest.mark.parametrize(
    ("address", "shown"),
    [(("a", 1), "a"), (("a", 2), "a:2"), (("::1", 1, 0, 0), "('::1', 1, 0, 0)"), (7, "7"), (("a",), "('a',)")],
)
def test_addresses_are_short(address: object, shown: str) -> None:
    line = str(Entry(0.0, address, ("b", 1), b"x"))
    assert f" {shown} > b " in line


def test_fates_and_marks_are_shown() -> None:
    line = str(entry(1.5, b"x", ecn=3, fate="corrupted, duplicated", arrivals=(1.6, 1.7)))
    assert " CE " in line
    assert line.endswith("corrupted, duplicated, arrives 1.600000, arrives 1.700000")
    assert str(entry(1.5, fate="lost")).endswith("  lost")
    assert " ECT(0) " in str(entry(0.0, ecn=2))


def test_remarks_stand_between() -> None:
    world = World(1, record=True)
    world.remark("it begins")
    node = world.node("node")
    node.pause(1.0)
    world.run(2.0)
    assert str(world.transcript).splitlines() == [
        "    0.000000  -- it begins",
        "    0.000000  -- node falls asleep",
        "    1.000000  -- node wakes",
    ]
    World(1).remark("to nobody")


def test_what_a_tap_takes_and_what_nobody_gets() -> None:
    world = World(1, record=True)
    path = NetworkPath("udp", ("a", 1), ("nobody", 1))
    world.taps.append(lambda datagram, _: None if datagram == b"take me" else b"instead")
    world.send(b"take me", path, 2)
    world.send(b"change me", path)
    world.run(1.0)
    assert world.transcript is not None
    told = [(item.at, item.data, item.ecn, item.fate) for item in world.transcript]
    assert told == [
        (0.0, b"take me", 2, "taken"),
        (0.0, b"instead", 0, ""),
        (pytest.approx(0.01), b"instead", 0, "nobody there"),
    ]
    untold = World(1)
    untold.taps.append(lambda *_: None)
    untold.send(b"take me", path)
    untold.taps.clear()
    untold.send(b"to nobody", path)
    untold.run(1.0)
    assert untold.datagrams == 1


def test_tail() -> None:
    found = transcript(1)
    assert found.tail(3).splitlines() == str(found).splitlines()[-3:]
    assert found.tail(0) == ""
    assert found.tail(10_000) == str(found)
    for lines in (-1, 1.5, None):
        with pytest.raises(ArgumentError, match="^lines is "):
            found.tail(lines)  # type: ignore[arg-type]


def test_a_transcript_prints_briefly() -> None:
    assert repr(transcript(1)) == f"<Transcript of {len(transcript(1))} lines>"


def test_between_takes_nodes() -> None:
    """A node stands for its first address, as one end or as both."""
    world = recorded(1)
    assert world.transcript is not None
    client, server = world.nodes["client", 1], world.nodes["server", 1]
    there = world.transcript.between(("client", 1), ("server", 1))
    assert there
    assert world.transcript.between(client, server) == world.transcript.between(client, ("server", 1)) == there
    assert world.transcript.between(server, client) != there


def test_what_reaches_a_sleeper() -> None:
    """It has an entry of its own, when it arrives, and says whether the system keeps it."""
    world = World(1, record=True)
    client, server = world.node("client"), world.node("server")
    server.pause(buffer=1300)
    for size in (1200, 101, 100):
        world.send(bytes(size), client.path_to(server))
    world.run(1.0)
    server.pause()
    world.send(bytes(7), client.path_to(server))
    world.run(1.0)
    assert world.transcript is not None
    arrived = [(len(item.data), item.at, item.fate) for item in world.transcript if item.fate]
    soon, later = pytest.approx(0.01), pytest.approx(1.01)
    assert arrived == [
        (1200, soon, "asleep, kept"),
        (101, soon, "asleep"),
        (100, soon, "asleep, kept"),
        (7, later, "asleep"),
    ]
    assert len(world.transcript.having("asleep")) == 4
    assert len(world.transcript.having("kept")) == 2


def test_outages_and_rebindings_are_remarked() -> None:
    world = World(1, record=True)
    client, server = world.node("client"), world.node("server")
    nat = world.nat(client)
    world.run(0.5)
    world.outage(client, server, 1.0, 2.0)
    world.outage(client, server, 9.0)
    nat.rebind_port()
    nat.rebind_address()
    assert str(world.transcript).splitlines() == [
        "    0.500000  -- client and server are cut off from 1 to 3 s",
        "    0.500000  -- client and server are cut off from 9 to inf s",
        "    0.500000  -- nat maps to other ports",
        "    0.500000  -- nat becomes nat'",
    ]


# -- to be compared ------------------------------------------------------------------------------------------------


def test_equal_worlds_have_equal_transcripts() -> None:
    """G-1."""
    assert transcript(5) == transcript(5)
    assert transcript(5).diff(transcript(5)) == ""
    assert transcript(5) != transcript(6)
    assert Transcript() != []


def test_a_diff_shows_where_they_part() -> None:
    one, other = Transcript(), Transcript()
    for at in range(10):
        one.entries.append(entry(at))
        other.entries.append(entry(at if at < 6 else at + 0.5))
    del one.entries[8:]
    assert one.diff(other, context=2).splitlines() == [
        "the same for 6 lines",
        f"  {entry(4)}",
        f"  {entry(5)}",
        f"- {entry(6)}",
        f"- {entry(7)}",
        f"+ {entry(6.5)}",
        f"+ {entry(7.5)}",
        "+ ... and 2 more",
    ]


def test_a_diff_of_one_that_goes_on() -> None:
    one, other = Transcript(), Transcript()
    one.entries.append(entry(1.0))
    assert one.diff(other) == f"the same for 0 lines\n- {entry(1.0)}"
    assert other.diff(one) == f"the same for 0 lines\n+ {entry(1.0)}"
    other.entries.append(entry(1.0))
    one.entries.append(entry(2.0))
    assert one.diff(other) == f"the same for 1 lines\n  {entry(1.0)}\n- {entry(2.0)}"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"at": 1.0 + 1e-9}, "at: 1.0 and 1.000000001"),
        ({"arrivals": (2.0 + 1e-9,)}, r"arrivals: \(2.0,\) and \(2.0000"),
    ],
)
def test_a_diff_names_what_two_equal_lines_hide(change: dict[str, Any], told: str) -> None:
    """Times are printed to the microsecond, and compared exactly."""
    one, other = Transcript(), Transcript()
    one.entries.append(entry(1.0, arrivals=(2.0,)))
    other.entries.append(one.entries[0]._replace(**change))
    lines = one.diff(other).splitlines()
    assert lines[1][1:] == lines[2][1:]
    assert re.match(f"they differ in {told}", lines[3])


def test_a_diff_sees_a_single_bit() -> None:
    """Two worlds that differ in nothing but one bit of one datagram."""
    one, other = recorded(7), recorded(7)
    assert one.transcript is not None
    assert other.transcript is not None
    last = other.transcript.entries[-1]
    other.transcript.entries[-1] = last._replace(data=bytes((last.data[0] ^ 1,)) + last.data[1:])
    shown = one.transcript.diff(other.transcript).splitlines()
    assert shown[0] == f"the same for {len(one.transcript) - 1} lines"
    assert [line[0] for line in shown[1:]] == [" ", " ", " ", "-", "+"]
    assert shown[-1][2:14] == shown[-2][2:14]
    assert shown[-1] != shown[-2]
