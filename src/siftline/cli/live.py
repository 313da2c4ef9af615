"""Progress on a terminal as a live bar, elsewhere as plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from siftline.progress import Incident, Listener, Progress, listening

_SECONDS_BETWEEN_LINES = 5.0
_STAGES = {
    "plan": "looking at the input",
    "fit": "fitting the detector",
    "detect": "scoring",
    "combine": "labelling",
    "validate": "validating",
    "publish": "publishing",
}


@contextmanager
def show_progress(stream: TextIO) -> Iterator[Callable[[str], None]]:
    """Show every report made within, and give a function that says something else."""
    display = _bar if stream.isatty() else _lines
    with display(stream) as (listener, say), listening(listener):
        yield say


@contextmanager
def _bar(stream: TextIO) -> Iterator[tuple[Listener, Callable[[str], None]]]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.SpinnerColumn(),
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.fields[detail]}"),
    )
    with rich_progress.Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("starting", total=None, detail="")
        rate = _Rate()

        def listen(progress: Progress | Incident) -> None:
            if isinstance(progress, Incident):
                bar.console.print(_told(progress), markup=False, highlight=False)
                return
            if rate.enters(progress):
                bar.reset(
                    task, total=progress.rows_total or None, detail="", description=_STAGES[progress.stage]
                )
            bar.update(task, completed=progress.rows_done, detail=_detail(progress, rate))

        yield listen, lambda text: bar.update(task, description=text)


@contextmanager
def _lines(stream: TextIO) -> Iterator[tuple[Listener, Callable[[str], None]]]:
    rate = _Rate()
    last = 0.0

    def listen(progress: Progress | Incident) -> None:
        nonlocal last
        if isinstance(progress, Incident):
            stream.write(f"{_told(progress)}\n")
            stream.flush()
            return
        now = time.monotonic()
        done = bool(progress.chunks_total) and progress.chunks_done == progress.chunks_total
        if rate.enters(progress) or done or now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            detail = _detail(progress, rate)
            stream.write(f"{_STAGES[progress.stage]}{': ' if detail else ''}{detail}\n")
            stream.flush()

    yield listen, lambda text: None


def _told(incident: Incident) -> str:
    return f"{incident.kind}: {incident.text}"


class _Rate:
    """Rows per second since a stage began, not counting what an earlier run had done."""

    def __init__(self) -> None:
        self._stage = ""
        self._since = 0.0
        self._rows_before = 0

    def enters(self, progress: Progress) -> bool:
        """Whether this report is the first of its stage."""
        if progress.stage == self._stage:
            return False
        self._stage, self._since, self._rows_before = progress.stage, time.monotonic(), progress.rows_done
        return True

    def rows_per_second(self, progress: Progress) -> float:
        """The rate at this report."""
        return (progress.rows_done - self._rows_before) / max(time.monotonic() - self._since, 1e-9)


def _detail(progress: Progress, rate: _Rate) -> str:
    if not progress.chunks_total:
        return ""
    detail = f"{progress.chunks_done}/{progress.chunks_total}"
    if progress.stage == "detect":
        detail += " chunks"
    if progress.reused:
        detail += f" ({progress.reused} reused)"
    speed = rate.rows_per_second(progress)
    if speed > 0:
        detail += f", {speed:,.0f} rows/s"
        left = (progress.rows_total - progress.rows_done) / speed
        detail += f", {left:.0f} s left" if left >= 1 else ""
    if progress.anomalies is not None:
        detail += f", {progress.anomalies:,} anomalies so far"
    return detail
