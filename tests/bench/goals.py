"""What must be shown: for each line the floor, under which it is not good enough, and the aim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from attrs import frozen

from tests.bench import casting, live, simulated, workers
from tests.bench.measure import Result
from tests.bench.rows import OURS


@frozen
class Goal:
    """A line of the table.

    Attributes:
        line: what it says.
        row: the row that shows it.
        key: the figure in that row.
        peer: whose figure ours is divided by; `None` where ours alone counts.
        floor: what must be reached, `None` where anything will do.
        aim: what should be, `None` where the floor is all that is wanted.
        who: the subject that shows it.
    """

    line: str
    row: str
    key: str
    peer: str | None = None
    floor: float | None = None
    aim: float | None = None
    who: str = OURS


def _link(line: str, loss: float, controller: str, floor: float, aim: float) -> Goal:
    return Goal(line, simulated.name(100e6, 0.02, loss), simulated.GOODPUT.key, None, floor, aim, controller)


def _bulk(row: str) -> tuple[Goal, ...]:
    line = f"bulk, UDP, 1452 B, {row.removeprefix('bulk-')}"
    return (
        Goal(line, row, "mb_per_s", "qh3", 5.0, 10.0),
        Goal(line, row, "mb_per_s", "aiopquic", 1.5, 2.5),
        Goal(line, row, "mb_per_s", "aioquic", 15.0),
        Goal(line, row, "mb_per_s", "tls", None, 1.0),
    )


GOALS: tuple[Goal, ...] = (
    *_bulk("bulk-asyncio"),
    *_bulk("bulk-trio"),
    Goal("bulk, UDP, 1452 B, segmentation off", "bulk-no-offload", "mb_per_s", "qh3", 1.5, 2.5),
    Goal("bulk, TCP", "bulk-tcp", "mb_per_s", "wss", 1.0, 1.5),
    Goal("bulk, WebSocket", "bulk-ws", "mb_per_s", "wss", 0.6, 1.0),
    Goal("bulk in memory, both ends in one process", "memory", "mb_per_s", "qh3", 1.5, 3.0),
    Goal("full handshake, both ends", "handshake", "handshake_ms", "qh3", 1.0, 0.8),
    Goal("echo p50, 100 B, UDP, asyncio", "echo-asyncio", "echo_p50_us", "qh3", 1.5, 1.0),
    Goal("KiB per idle session, one end", "memory", "kib_per_session", None, 16.0, 10.0),
    Goal("a packet, 10,000 open streams against 1: one busy", "streams-10000", "times_alone", None, 1.3, 1.1),
    Goal("a packet, 10,000 open streams against 1: in turn", "streams-10000", "times_alone_turns", None, 1.3, 1.1),
    Goal("a packet, 10,000 sessions against 1: one busy", "sessions-10000", "times_alone", None, 1.3, 1.1),
    Goal("a packet, 10,000 sessions against 1: in turn", "sessions-10000", "times_alone_turns", None, 1.3, 1.1),
    Goal("bulk, two workers against one: MB/s", workers.NAME, "mb_per_s", workers.ONE, 0.95),
    Goal("bulk, two workers against one: CPU seconds a byte", workers.NAME, "cpu_s_per_gb", workers.ONE, 1.1),
    Goal("10,000 live sessions: s until all are established", live.NAME, "established_s", None, 60.0),
    Goal("10,000 live sessions: s, keep-alives late, p99", live.NAME, "keep_alive_late_p99_s", None, 1.0),
    Goal("10,000 live sessions: % of a core, one end", live.NAME, "cpu_percent", None, 50.0),
    Goal("1,000 receivers, a tenth of them dead, against 900", casting.NAME, "all_have_it_s", casting.ALIVE, 1.2),
    Goal("8 sessions, two workers: %, the worker with fewest", workers.NAME, "least_share_percent", None, 25.0),
    _link("goodput, %, simulated 100 Mbit/s, 20 ms, no loss, CUBIC", 0.0, "cubic", 90.0, 95.0),
    _link("goodput, %, simulated 100 Mbit/s, 20 ms, 1 % random loss, BBR", 0.01, "bbr", 60.0, 85.0),
)


class State(Enum):
    """How a line ended."""

    AIM = "aim met"
    FLOOR = "floor met"
    MISSED = "floor missed"
    UNKNOWN = "not measured"


@frozen
class Verdict:
    """What became of a line.

    Attributes:
        goal: the line.
        state: how it ended.
        value: what was measured: a ratio of medians where there is a peer, else our median.
        text: the end of the line, for people.
    """

    goal: Goal
    state: State
    value: float | None
    text: str


def judge(goals: Iterable[Goal], results: Sequence[Result]) -> list[Verdict]:
    """What became of each line. Where ours itself failed the floor is missed; where a peer is missing, nobody knows."""
    by_name = {result.row.name: result for result in results}
    unplayed = by_name.get(simulated.NAME)  # which is there only when the simulated links failed
    return [
        _judge(goal, unplayed if unplayed and goal.key == simulated.GOODPUT.key else by_name.get(goal.row))
        for goal in goals
    ]


def _judge(goal: Goal, result: Result | None) -> Verdict:
    if result is None:
        return Verdict(goal, State.UNKNOWN, None, "not measured in this run")
    failure = result.failures.get(simulated.NAME if result.row.name == simulated.NAME else goal.who)
    if failure is not None:
        return Verdict(goal, State.MISSED, None, f"failed: {failure}")
    figure = next((figure for figure in result.row.figures if figure.key == goal.key), None)
    if figure is None:
        return Verdict(goal, State.UNKNOWN, None, "not measured in this run")
    if goal.peer is None:
        shown = result.figures[figure.key].get(goal.who)
        value = None if shown is None else shown.median
    else:
        value = result.times(figure, goal.peer)
    if value is None:
        why = result.failures.get(goal.peer or goal.who, "no figure")
        return Verdict(goal, State.UNKNOWN, None, f"not measured: {why}")
    return _compare(goal, value, higher=figure.better == "higher")


def _compare(goal: Goal, value: float, *, higher: bool) -> Verdict:
    def short(wanted: float) -> float:
        """By which part of what is wanted it is missed; 0 or less where it is not."""
        return (wanted - value if higher else value - wanted) / wanted

    if goal.floor is not None and short(goal.floor) > 0:
        return Verdict(goal, State.MISSED, value, f"floor missed by {_percent(short(goal.floor))}")
    if goal.aim is not None and short(goal.aim) <= 0:
        return Verdict(goal, State.AIM, value, State.AIM.value)
    text = State.FLOOR.value if goal.floor is not None else "no floor"
    if goal.aim is not None:
        text += f", aim missed by {_percent(short(goal.aim))}"
    return Verdict(goal, State.FLOOR, value, text)


def _percent(share: float) -> str:
    return f"{share * 100:.3g} %"
