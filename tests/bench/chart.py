"""A picture of the rows in which STT stands beside its peers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from tests.bench.measure import Result, Spread
from tests.bench.report import number, title
from tests.bench.rows import OURS

_OURS, _THEIRS = "#1f6feb", "#8b949e"


@frozen
class Panel:
    """One picture: the figure of some rows. Peers come from the first; ours is in it once for each.

    Attributes:
        heading: what stands above it.
        key: the figure.
        rows: names of rows, with what ours is called there.
    """

    heading: str
    key: str
    rows: tuple[tuple[str, str], ...]


PANELS = (
    Panel(
        "bulk over UDP, 1452-byte datagrams: MB/s, more is better",
        "mb_per_s",
        (
            ("bulk-asyncio", "stt, asyncio"),
            ("bulk-trio", "stt, trio"),
            ("bulk-blocking", "stt, blocking"),
            ("bulk-no-offload", "stt, segmentation off"),
        ),
    ),
    Panel(
        "bulk over TCP and WebSockets: MB/s, more is better",
        "mb_per_s",
        (("bulk-tcp", "stt, TCP"), ("bulk-ws", "stt, WebSocket"), ("bulk-wss", "stt, WebSocket in TLS")),
    ),
    Panel("bulk in memory: MB/s, more is better", "mb_per_s", (("memory", "stt"),)),
    Panel(
        "round trip of 100 bytes, median: us, less is better",
        "echo_p50_us",
        (("echo-asyncio", "stt, asyncio"), ("echo-trio", "stt, trio"), ("echo-blocking", "stt, blocking")),
    ),
    Panel("full handshake, both ends: ms, less is better", "handshake_ms", (("handshake", "stt"),)),
    Panel("one end of an idle session: KiB, less is better", "kib_per_session", (("memory", "stt"),)),
)

Bar = tuple[str, Spread, bool]


def bars(panel: Panel, results: Sequence[Result]) -> list[Bar]:
    """What a panel shows: name, measured, and whether it is ours; nothing for what was not measured."""
    by_name = {result.row.name: result for result in results}
    found: list[Bar] = []
    for name, called in panel.rows:
        measured = by_name[name].figures[panel.key].get(OURS) if name in by_name else None
        if measured is not None:
            found.append((called, measured, True))
    first = by_name.get(panel.rows[0][0])
    if first is not None:
        theirs = first.figures[panel.key].items()
        found += [(title(name), measured, False) for name, measured in theirs if name != OURS]
    return found


def draw(results: Sequence[Result], file: Path) -> None:
    """Write a PNG.

    Raises:
        ImportError: there is no matplotlib.
        ValueError: nothing was measured that could be drawn.
    """
    from matplotlib.figure import Figure

    panels = [(panel, shown) for panel in PANELS if (shown := bars(panel, results))]
    if not panels:
        raise ValueError("no row that the chart shows was measured")
    heights = [len(shown) + 1 for _, shown in panels]
    picture = Figure(figsize=(8, 0.34 * sum(heights) + 0.3 * len(heights)), layout="constrained")
    grid = picture.add_gridspec(len(panels), height_ratios=heights)
    for place, (panel, shown) in zip(grid, panels, strict=True):
        axes = picture.add_subplot(place)
        axes.set_title(panel.heading, fontsize=10, loc="left")
        medians = [measured.median for _, measured, _ in shown]
        whiskers = (
            [measured.median - measured.low for _, measured, _ in shown],
            [measured.high - measured.median for _, measured, _ in shown],
        )
        drawn = axes.barh(
            [name for name, _, _ in shown],
            medians,
            color=[_OURS if ours else _THEIRS for _, _, ours in shown],
            xerr=whiskers,
            error_kw={"ecolor": "#30363d", "elinewidth": 1, "capsize": 2},
        )
        axes.bar_label(drawn, [number(median) for median in medians], padding=4, fontsize=8)
        axes.margins(x=0.12)
        axes.invert_yaxis()
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    picture.savefig(file, dpi=144)
