"""Progress bars, on a terminal only and always on stderr; where nobody watches, nothing is drawn."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

OnProgress = Callable[[int, int], None]
"""Told bytes done and bytes in all."""


class Bars:
    """As many bars as there are transfers."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    @contextmanager
    def track(self, name: str) -> Iterator[OnProgress]:
        """A bar for one transfer, as long as the block lasts."""
        progress = self._progress
        if progress is None:
            yield lambda done, total: None
            return
        task = progress.add_task(name, total=None)
        try:
            yield lambda done, total: progress.update(task, completed=done, total=total, refresh=False)
        finally:
            progress.remove_task(task)


@contextmanager
def bars(*, wanted: bool = True) -> Iterator[Bars]:
    """Bars while the block lasts, if they are wanted and somebody can see them."""
    if not (wanted and sys.stderr.isatty()):
        yield Bars(None)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield Bars(progress)
