"""Progress on a terminal as a live bar, elsewhere as plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from siftline.cli.terminal import duration, say
from siftline.progress import Incident, Listener, Note, Progress, Queued, Report, counted, listening
from siftline.shown import log_line

_SECONDS_BETWEEN_LINES = 5.0
_STAGES = {
    "plan": "reading the input's metadata",
    "fit": "fitting the detector",
    "detect": "scoring",
    "combine": "labelling",
    "validate": "validating",
    "publish": "publishing",
    "notify": "notifying",
}

Clock = Callable[[], float]
Say = Callable[[str], None]


@contextmanager
def show_progress(stream: TextIO, clock: Clock = time.monotonic) -> Iterator[Say]:
    """Show progress emitted in this context; yield a function that sets the text beside the bar."""
    display = _bar if stream.isatty() else _lines
    with display(stream, _Rate(clock)) as (listener, say), listening(listener):
        yield say


@contextmanager
def _bar(stream: TextIO, rate: _Rate) -> Iterator[tuple[Listener, Say]]:
    from rich import progress as rich_progress
    from rich.console import Console

    columns = (
        rich_progress.SpinnerColumn(),
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.fields[detail]}", markup=False),
    )
    with rich_progress.Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("starting", total=None, detail="")

        def listen(what: Report) -> None:
            if isinstance(what, (Incident, Note)):
                bar.console.print(_text(what), markup=False, highlight=False)
            if isinstance(what, Queued):
                bar.update(task, description=_place(what))
            if not isinstance(what, Progress):
                return
            if rate.enters(what):
                bar.reset(task, total=what.rows_total or None, detail="", description=_STAGES[what.stage])
            bar.update(task, completed=what.rows_done, detail=_detail(what, rate))

        yield listen, lambda text: bar.update(task, description=text)


@contextmanager
def _lines(stream: TextIO, rate: _Rate) -> Iterator[tuple[Listener, Say]]:
    last, place = 0.0, 0

    def listen(what: Report) -> None:
        nonlocal last, place
        if isinstance(what, (Incident, Note)):
            say(_text(what), file=stream)
        if isinstance(what, Queued) and what.place != place:
            place = what.place
            say(_place(what), file=stream)
        if not isinstance(what, Progress):
            return
        done = bool(what.chunks_total) and what.chunks_done == what.chunks_total
        if rate.enters(what) or done or rate.clock() - last >= _SECONDS_BETWEEN_LINES:
            last = rate.clock()
            detail = _detail(what, rate)
            say(f"{_STAGES[what.stage]}{': ' if detail else ''}{detail}", file=stream)

    yield listen, lambda text: None


class _Rate:
    """Rows per second since a stage began, without the rows of earlier runs."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._stage = ""
        self._since = 0.0
        self._rows_before = 0

    def enters(self, progress: Progress) -> bool:
        """Return True for the first report of a stage."""
        if progress.stage == self._stage:
            return False
        self._stage, self._since, self._rows_before = progress.stage, self.clock(), progress.rows_done
        return True

    def rows_per_second(self, progress: Progress) -> float:
        """Return the rate at this report."""
        return (progress.rows_done - self._rows_before) / max(self.clock() - self._since, 1e-9)


def _text(what: Incident | Note) -> str:
    return f"{what.kind if isinstance(what, Incident) else 'note'}: {log_line(what.text)}"


def _place(queued: Queued) -> str:
    slots = f"{counted(queued.slots, 'slot')} of pool {queued.pool}"
    wait = "" if queued.seconds is None else f", about {duration(queued.seconds)}"
    return f"waiting for {slots}: place {queued.place}{wait}"


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
