"""Commands that show jobs at work: ``status``, ``watch``, ``jobs``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import click

from siftline.cli.options import checkpoint_option, json_option
from siftline.cli.prefect_setup import prepare_prefect
from siftline.cli.streams import reader_left
from siftline.cli.terminal import amount, duration, local_time, say, say_json, size, table
from siftline.shown import shown

if TYPE_CHECKING:
    from siftline.jobs.status import BatchStatus

_target = click.argument("target", metavar="JOB|RUN|PIPELINE")
_LAST_ALERTS = 3
_LINE = 1_000


@click.command()
@_target
@checkpoint_option
@json_option
def status(target: str, checkpoint: str, as_json: bool) -> None:
    """Show the status of a job, a run or a pipeline.

    A unique prefix of the job's id is enough.
    """
    prepare_prefect()
    from siftline.monitoring import batch_status

    found = batch_status(target, checkpoint)
    if as_json:
        say_json(found)
    else:
        say("\n".join(describe(found)))


@click.command()
@_target
@checkpoint_option
@json_option
def watch(target: str, checkpoint: str, as_json: bool) -> int:
    """Follow a job, a run or a pipeline live, until it ends.

    With --json, prints one status per line. Exit status: 0 completed, 1 failed or interrupted, 130 cancelled.
    """
    prepare_prefect()
    if as_json:
        final = asyncio.run(_watch(target, checkpoint, say_json))
    elif sys.stdout.isatty():
        final = _watch_live(target, checkpoint)
        say("\n".join(describe(final)))
    else:
        final = asyncio.run(_watch(target, checkpoint, _Lines()))
        say("\n".join(describe(final)))
    return {"cancelled": 130, "failed": 1, "interrupted": 1}.get(final.state, 0)


@click.command()
@checkpoint_option
@json_option
def jobs(checkpoint: str, as_json: bool) -> None:
    """List the jobs of a checkpoint: states, progress, results, and size on disk."""
    from siftline.jobs.status import batch_statuses

    found = batch_statuses(checkpoint, with_size=True)
    if as_json:
        say_json(found)
        return
    if not found:
        say(f"no jobs in {checkpoint}")
        return
    head = ("JOB", "NAME", "STATE", "SINCE", "CHUNKS", "ROWS", "ANOMALIES", "SIZE", "OUTPUT")
    for line in table([head, *map(_row, found)]):
        say(line)
    for one in found:
        if one.error is not None:
            say(f"{one.job_id}: {shown(one.error, _LINE)}")


def _row(one: BatchStatus) -> tuple[str, ...]:
    published = one.state in ("completed", "rejected", "partial")
    return (
        one.job_id or "",
        shown(one.name),
        one.state,
        local_time(one.since),
        f"{one.chunks.done:,}/{one.chunks.total:,}",
        f"{one.rows.total:,}",
        amount(one.anomalies) if published else "",
        size(one.size_bytes),
        shown(one.output or "", _LINE),
    )


def describe(one: BatchStatus) -> list[str]:
    """Return a status in lines for a terminal."""
    head = f"{shown(one.name, _LINE)}  {one.state}{f' since {local_time(one.since)}' if one.since else ''}"
    facts = {
        "job": one.job_id,
        "run": f"{one.flow_run_id}{f' ({one.prefect_state})' if one.prefect_state else ''}",
        "interval": one.interval,
        "message": one.message,
        "error": one.error,
        "stage": one.stage,
        "chunks": _chunks(one),
        "rows": _rows(one),
        "anomalies": _anomalies(one),
        "workers": _workers(one),
        "resources": one.allocation,
        "place": _place(one),
        "stages": ", ".join(
            f"{stage.stage} {duration(stage.seconds)}" for stage in one.stages if stage.seconds is not None
        ),
        "recoveries": str(one.recoveries) if one.recoveries else None,
        "output": one.output,
        "report": one.links.report,
        "page": one.links.run,
    }
    if one.flow_run_id is None:
        del facts["run"]
    lines = [head, *(f"  {name:<10} {shown(text, _LINE)}" for name, text in facts.items() if text)]
    alerts = one.alerts[-_LAST_ALERTS:] if not one.final else ()
    return lines + [
        f"  {alert.at.astimezone():%H:%M:%S}   {alert.kind}: {shown(alert.text, _LINE)}" for alert in alerts
    ]


def _chunks(one: BatchStatus) -> str | None:
    chunks = one.chunks
    if not chunks.total:
        return None
    others = {name: getattr(chunks, name) for name in ("reused", "retried", "split", "failed")}
    more = "".join(f", {count:,} {name}" for name, count in others.items() if count)
    return f"{chunks.done:,} of {chunks.total:,}{more}"


def _rows(one: BatchStatus) -> str | None:
    if not one.rows.total:
        return None
    text = f"{one.rows.done:,} of {one.rows.total:,}"
    text += f" ({one.percent:.0f} %)" if one.percent is not None else ""
    text += f", {one.rows.rejected:,} rejected" if one.rows.rejected else ""
    speed = one.rows_per_second or one.average_rows_per_second
    text += f", {speed:,.0f} rows/s" if speed else ""
    return text + (f", {duration(one.eta_seconds)} left" if one.eta_seconds is not None else "")


def _anomalies(one: BatchStatus) -> str | None:
    if one.anomalies is None:
        return None
    score = f", score {one.threshold:.6g} or more" if one.threshold is not None else " so far"
    return f"{one.anomalies:,}{score}"


def _place(one: BatchStatus) -> str | None:
    if one.queue_place is None:
        return None
    wait = f", about {duration(one.wait_seconds)}" if one.wait_seconds is not None else ""
    return f"{one.queue_place} in the queue{wait}"


def _workers(one: BatchStatus) -> str | None:
    if not one.workers:
        return None
    cpu = sum(worker.cpu or 0 for worker in one.workers)
    memory = sum(worker.memory or 0 for worker in one.workers)
    return f"{len(one.workers)}, CPU {cpu:.0f} %, memory {size(memory)}"


async def _watch(target: str, checkpoint: str, show: Callable[[BatchStatus], None]) -> BatchStatus:
    from siftline.monitoring import watch

    found: BatchStatus | None = None
    async for found in watch(target, checkpoint):
        show(found)
        if reader_left():
            break
    assert found is not None  # noqa: S101  at least one is yielded, or an error raised
    return found


def _watch_live(target: str, checkpoint: str) -> BatchStatus:
    from rich.live import Live
    from rich.text import Text

    with Live(transient=True, refresh_per_second=4) as live:
        return asyncio.run(
            _watch(target, checkpoint, lambda one: live.update(Text("\n".join(describe(one)))))
        )


class _Lines:
    """Prints a line when the state or the stage changes, and now and then in between."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._last: tuple[object, ...] = ()
        self._at: datetime | None = None

    def __call__(self, one: BatchStatus) -> None:
        now = datetime.now().astimezone()
        key = (one.state, one.stage, one.prefect_state)
        late = self._at is None or (now - self._at).total_seconds() >= self._seconds
        if key == self._last and not late:
            return
        self._last, self._at = key, now
        counts = {"chunks": _chunks(one), "rows": _rows(one), "anomalies": _anomalies(one)}
        parts = [
            one.state,
            one.stage or one.message,
            *(f"{name} {text}" for name, text in counts.items() if text),
        ]
        say(f"{now:%H:%M:%S}  {', '.join(shown(part, _LINE) for part in parts if part)}")
