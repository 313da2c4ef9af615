"""``siftline pipelines``, ``siftline status`` and ``siftline backfill``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click

from siftline.cli.runner import set_up
from siftline.config.schedules import next_boundaries
from siftline.errors import ConfigError, SiftlineError
from siftline.pipelines.spec import Pipeline, check_pipeline, is_pipeline, load_pipeline

_DEPLOYMENTS = Path("deployments")
_FIRES = 5


def validate_files(files: tuple[Path, ...]) -> None:
    """Check pipelines, and print when they run."""
    for pipeline in _load(files):
        remarks = check_pipeline(pipeline, datetime.now(UTC))
        click.echo(f"{pipeline.name}: ready to apply")
        for remark in remarks:
            click.echo(f"  {remark}")
        _print_times(pipeline)


def apply_files(files: tuple[Path, ...], dry_run: bool) -> None:
    """Bring the server in line with pipelines, and print what changes."""
    pipelines = _load(files)
    for pipeline in pipelines:
        check_pipeline(pipeline, datetime.now(UTC))
    set_up(verbose=False)
    from flows.control.deployments import changes_for, check_on_server
    from flows.server import server, workers_online

    with server() as client:
        for pipeline in pipelines:
            check_on_server(client, pipeline)
        for pipeline in pipelines:
            changes = changes_for(client, pipeline)
            click.echo(f"{pipeline.name}: {'up to date' if not changes else ''}".rstrip())
            for change in changes:
                if not dry_run:
                    change.make()
                click.echo(f"  {change}")
            _print_times(pipeline)
        for pool in sorted({pipeline.work_pool for pipeline in pipelines}):
            if not workers_online(client, pool):
                click.echo(
                    f"work pool {pool} has no worker: nothing runs until `prefect worker start --pool {pool}`"
                )
    if dry_run:
        click.echo("nothing was changed (--dry-run)")


def print_pipelines(as_json: bool) -> None:
    """Print the pipelines of the server."""
    set_up(verbose=False)
    from flows.control.use_cases import list_pipelines

    found = list_pipelines()
    if as_json:
        click.echo(json.dumps([one.model_dump(mode="json") for one in found]))
        return
    if not found:
        click.echo("no pipelines; `siftline pipelines apply` makes them of files")
    for one in found:
        schedules = ", ".join(slug if on else f"{slug} (off)" for slug, on in one.schedules.items())
        due = f"next {one.next_due:%Y-%m-%d %H:%M %Z}" if one.next_due else "nothing planned"
        state = "paused" if one.paused else due
        click.echo(f"{one.name}  {schedules or 'no schedule'}  {state}  last run {one.last_state or 'none'}")
        if not one.workers_online:
            click.echo(f"  work pool {one.work_pool} has no worker")


def pause_all(named: Iterable[str]) -> None:
    """Pause pipelines."""
    set_up(verbose=False)
    from flows.control.use_cases import pause_pipeline

    for name in _names(named):
        pause_pipeline(name)
        click.echo(f"paused {name}")


def resume_all(named: Iterable[str]) -> None:
    """Resume pipelines."""
    set_up(verbose=False)
    from flows.control.use_cases import resume_pipeline

    for name in _names(named):
        resume_pipeline(name)
        click.echo(f"resumed {name}")


def remove_all(named: Iterable[str]) -> None:
    """Remove pipelines."""
    set_up(verbose=False)
    from flows.control.use_cases import remove_pipeline

    for name in _names(named):
        for change in remove_pipeline(name):
            click.echo(change)


def trigger(name: str, fresh: bool, as_json: bool) -> None:
    """Start a run of a pipeline."""
    set_up(verbose=False)
    from flows.control.use_cases import trigger_pipeline_run

    run = trigger_pipeline_run(name, fresh=fresh)
    click.echo(run.model_dump_json() if as_json else f"started run {run.flow_run_id}; see {run.url}")


def print_status(run: str, as_json: bool) -> None:
    """Print how far a run is: one by its id, or the last one of a pipeline."""
    set_up(verbose=False)
    from flows.control.use_cases import pipeline_status, run_status

    if not _is_id(run):
        last = pipeline_status(run)
        if not last.workers_online:
            click.echo(f"work pool {last.work_pool} has no worker: nothing runs", err=True)
        if last.last_run is None:
            raise ConfigError(
                f"pipeline {run}: has not run yet", f"start it with `siftline pipelines run {run}`"
            )
        run = last.last_run
    found = run_status(run)
    if as_json:
        click.echo(found.model_dump_json())
        return
    click.echo(f"{found.name}  {found.state}  run {found.flow_run_id}")
    if found.message:
        click.echo(f"  {found.message}")
    if found.chunks_percent is not None:
        click.echo(f"  chunks scored: {found.chunks_percent:.0f} %")
    for step in found.steps:
        click.echo(f"  {step.name:<18} {step.state}")


def run_backfill(name: str, first: date, last: date, parallel: int, only_missing: bool) -> None:
    """Run a pipeline for intervals of the past, from this process."""
    set_up(verbose=False)
    from flows.backfill import backfill
    from flows.server import called, server

    with server():
        pass  # a server of our own would not have the pipeline
    report = called(lambda: backfill(name, first, last, parallel, only_missing))
    for one in report.intervals:
        found = "" if one.anomalies is None else f"  {one.anomalies:,} anomalies among {one.rows:,} rows"
        click.echo(f"{one.interval.label}  {one.state}{found}")


def _load(files: tuple[Path, ...]) -> list[Pipeline]:
    """Read pipelines; of several files with mistakes, all are told of."""
    given = list(files) or [path for path in sorted(_DEPLOYMENTS.glob("*.yaml")) if is_pipeline(path)]
    if not given:
        raise ConfigError(f"{_DEPLOYMENTS}: no pipelines there", "name the files, or go to the project")
    pipelines: list[Pipeline] = []
    mistakes: list[SiftlineError] = []
    for path in given:
        try:
            pipelines.append(load_pipeline(path))
        except SiftlineError as error:
            mistakes.append(error)
    for mistake in mistakes[:-1]:
        click.echo(f"siftline: {mistake}", err=True)
    if mistakes:
        raise mistakes[-1]
    return pipelines


def _print_times(pipeline: Pipeline) -> None:
    for schedule in pipeline.schedules:
        zone = ZoneInfo(schedule.timezone)
        times = [moment.astimezone(zone) for moment in next_boundaries(schedule, datetime.now(UTC), _FIRES)]
        told = ", ".join(f"{moment:%Y-%m-%d %H:%M:%S %Z}" for moment in times)
        click.echo(f"  schedule {schedule.slug} fires next: {told}")


def _names(named: Iterable[str]) -> list[str]:
    return [load_pipeline(one).name if Path(one).is_file() else one for one in named]


def _is_id(text: str) -> bool:
    return len(text) == 36 and text.count("-") == 4
