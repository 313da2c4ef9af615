"""Commands for a Prefect server: ``pipelines``, ``automations`` and ``backfill``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import click

from siftline.cli.options import json_option, path_type
from siftline.cli.prefect_setup import leave_prefect, prepare_prefect
from siftline.cli.terminal import amount, say, say_json, table
from siftline.config.schedules import next_boundaries
from siftline.errors import BackfillFailed, ConfigError, SiftlineError, renamed
from siftline.pipelines.spec import Pipeline, check_pipeline, is_pipeline, load_pipeline
from siftline.progress import IntervalProgress, Report, listening
from siftline.resources.pool_file import Pools, is_pool, load_pools, sizes

if TYPE_CHECKING:
    from siftline.flows.control.change import Change

_DEPLOYMENTS = Path("deployments")
_AUTOMATIONS = _DEPLOYMENTS / "automations.yaml"
_POOL = _DEPLOYMENTS / "pool.yaml"

_files_argument = click.argument("files", nargs=-1, type=path_type)
_named_argument = click.argument("named", nargs=-1, required=True, metavar="NAME_OR_FILE...")
_date = click.DateTime(["%Y-%m-%d"])


@click.group()
def pipelines() -> None:
    """Manage pipelines on a Prefect server: YAML files that become deployments with schedules."""
    prepare_prefect()


@pipelines.command("validate")
@_files_argument
def validate_pipelines(files: tuple[Path, ...]) -> None:
    """Check pipelines without a server, and show when they run.

    Default: those in deployments/.
    """
    pools, loaded = _pools(files)
    if pools is not None:
        say(f"pools: ready to apply ({', '.join(sizes(pools))})")
    for pipeline in loaded:
        remarks = check_pipeline(pipeline, datetime.now(UTC))
        say(f"{pipeline.name}: ready to apply")
        for remark in remarks:
            say(f"  {remark}")
        _print_times(pipeline)


@pipelines.command("apply")
@_files_argument
@click.option("--dry-run", is_flag=True, help="Show the changes without making them.")
def apply_pipelines(files: tuple[Path, ...], dry_run: bool) -> None:
    """Create or update pipelines and pools on the server from files.

    Default: those in deployments/. Paused pipelines and schedules stay paused. Deployments that Siftline
    did not create are not touched.
    """
    pools, loaded = _pools(files)
    for pipeline in loaded:
        check_pipeline(pipeline, datetime.now(UTC))
    from siftline.flows.control.deployments import changes_for, check_on_server
    from siftline.flows.control.pools import pool_changes
    from siftline.flows.server import server, workers_online

    with server() as client:
        if pools is not None:
            _make("pools", pool_changes(client, sizes(pools)), dry_run)
        for pipeline in loaded:
            check_on_server(client, pipeline)
        for pipeline in loaded:
            _make(pipeline.name, changes_for(client, pipeline), dry_run)
            _print_times(pipeline)
        for pool in sorted({pipeline.work_pool for pipeline in loaded}):
            if not workers_online(client, pool):
                start = f"`prefect worker start --pool {pool}`"
                say(f"work pool {pool} has no worker: nothing runs until {start}")
    if dry_run:
        say("nothing was changed (--dry-run)")


def _make(what: str, changes: Sequence[Change], dry_run: bool) -> None:
    """Show changes, and make them unless in a dry run."""
    say(f"{what}:{'' if changes else ' up to date'}")
    for change in changes:
        if not dry_run:
            change.make()
        say(f"  {change}")


@pipelines.command("list")
@json_option
def list_pipelines(as_json: bool) -> None:
    """List the server's pipelines: their schedules, workers, and last runs."""
    from siftline.flows.control import use_cases

    found = use_cases.list_pipelines()
    if as_json:
        say_json(found)
        return
    if not found:
        say("No pipelines on this server. Create them with `siftline pipelines apply`.")
    for one in found:
        schedules = ", ".join(slug if on else f"{slug} (off)" for slug, on in one.schedules.items())
        due = f"next {one.next_due:%Y-%m-%d %H:%M %Z}" if one.next_due else "nothing planned"
        state = "paused" if one.paused else due
        say(f"{one.name}  {schedules or 'no schedule'}  {state}  last run {one.last_state or 'none'}")
        if not one.workers_online:
            say(f"  work pool {one.work_pool} has no worker")


@pipelines.command("pause")
@_named_argument
def pause_pipelines(named: tuple[str, ...]) -> None:
    """Pause the schedules of pipelines."""
    from siftline.flows.control.use_cases import pause_pipeline

    for name in _names(named):
        pause_pipeline(name)
        say(f"paused {name}")


@pipelines.command("unpause")
@_named_argument
def unpause_pipelines(named: tuple[str, ...]) -> None:
    """Let the schedules of paused pipelines start runs again."""
    from siftline.flows.control.use_cases import unpause_pipeline

    for name in _names(named):
        unpause_pipeline(name)
        say(f"unpaused {name}")


@pipelines.command("resume", hidden=True)
@_named_argument
@click.pass_context
def resume_pipelines(context: click.Context, named: tuple[str, ...]) -> None:
    """Do `unpause`, under its former name."""
    renamed("`siftline pipelines resume`", "`siftline pipelines unpause`")
    context.invoke(unpause_pipelines, named=named)


@pipelines.command("remove")
@_named_argument
def remove_pipelines(named: tuple[str, ...]) -> None:
    """Remove pipelines from the server; results and checkpoints stay."""
    from siftline.flows.control.use_cases import remove_pipeline

    for name in _names(named):
        for change in remove_pipeline(name):
            say(change)


@pipelines.command("run")
@click.argument("name")
@click.option("--fresh", is_flag=True, help="Run even if the interval is already published.")
@json_option
def run_pipeline(name: str, fresh: bool, as_json: bool) -> None:
    """Start a run of a pipeline, for the last interval that has ended."""
    from siftline.flows.control.use_cases import trigger_pipeline_run

    run = trigger_pipeline_run(name, fresh=fresh)
    if as_json:
        say_json(run)
    else:
        say(f"started run {run.flow_run_id}; see {run.url}")


@click.command()
@click.argument("pipeline")
@click.option("--from", "first", required=True, type=_date, help="First date.")
@click.option("--to", "last", required=True, type=_date, help="Last date.")
@click.option(
    "--parallel", type=click.IntRange(1), default=1, show_default=True, help="Runs at the same time."
)
@click.option("--only-missing", is_flag=True, help="Skip intervals that are already published.")
def backfill(pipeline: str, first: datetime, last: datetime, parallel: int, only_missing: bool) -> None:
    """Run a pipeline for all intervals that start between two dates.

    After an interruption, run the same command again to continue.
    """
    prepare_prefect()
    from siftline.flows import backfill as flow
    from siftline.flows.server import flow_errors, server

    with server():
        pass  # refuses an embedded server, which would not have the pipeline
    click.get_current_context().call_on_close(leave_prefect)
    try:
        with flow_errors(), listening(_show_interval):
            report = flow.backfill(pipeline, first.date(), last.date(), parallel, only_missing)
    except BackfillFailed as error:
        _print_intervals(error.intervals)
        raise
    _print_intervals(report.table())


def _show_interval(report: Report) -> None:
    if isinstance(report, IntervalProgress):
        say(f"{report.ended}/{report.total}  {report.interval}  {report.state}", err=True)


def _print_intervals(intervals: Sequence[Mapping[str, Any]]) -> None:
    head = ("INTERVAL", "STATE", "ROWS", "ANOMALIES", "RUN")
    rows = [
        (
            one["interval"],
            one["state"],
            amount(one["rows"]),
            amount(one["anomalies"]),
            one["flow_run_id"] or "",
        )
        for one in intervals
    ]
    for line in table([head, *rows]):
        say(line)


@click.group()
def automations() -> None:
    """Manage the automations of a Prefect server, which start the recovery of failed runs."""
    prepare_prefect()


@automations.command("apply")
@click.argument("file", required=False, type=path_type)
def apply_automations(file: Path | None) -> None:
    """Create or update automations on the server from a file.

    Default: deployments/automations.yaml if it is there, else those that come with Siftline. Automations
    are found by name; those missing from the file are not touched.
    """
    from siftline.flows.control.automations import OWN, apply_automations

    if file is None:
        file = _AUTOMATIONS if _AUTOMATIONS.is_file() else OWN
    for name, outcome in apply_automations(file):
        say(f"{outcome} {name}")


@click.command(hidden=True)
@click.argument("file", required=False, type=path_type)
@click.pass_context
def apply(context: click.Context, file: Path | None) -> None:
    """Do `automations apply`, under its former name."""
    renamed("`siftline apply`", "`siftline automations apply`")
    prepare_prefect()
    context.invoke(apply_automations, file=file)


def _pools(files: tuple[Path, ...]) -> tuple[Pools | None, list[Pipeline]]:
    """Read the pools, if there is a file of them, and the pipelines."""
    given = [path for path in files or (_POOL,) if path.is_file() and is_pool(path)]
    pools = load_pools(given[-1]) if given else None
    others = tuple(path for path in files if path not in given)
    if pools is not None and not others and (files or not _pipeline_files()):
        return pools, []
    return pools, _load(others)


def _pipeline_files() -> list[Path]:
    return [path for path in sorted(_DEPLOYMENTS.glob("*.yaml")) if is_pipeline(path)]


def _load(files: tuple[Path, ...]) -> list[Pipeline]:
    """Read pipelines; report the mistakes of all files."""
    given = list(files) or _pipeline_files()
    if not given:
        raise ConfigError(f"{_DEPLOYMENTS}: no pipelines there", "name the files, or go to the project")
    loaded: list[Pipeline] = []
    mistakes: list[SiftlineError] = []
    for path in given:
        try:
            loaded.append(load_pipeline(path))
        except SiftlineError as error:
            mistakes.append(error)
    for mistake in mistakes[:-1]:
        say(f"siftline: {mistake}", err=True)
    if mistakes:
        raise mistakes[-1]
    return loaded


def _print_times(pipeline: Pipeline, count: int = 5) -> None:
    for schedule in pipeline.schedules:
        zone = ZoneInfo(schedule.timezone)
        times = [moment.astimezone(zone) for moment in next_boundaries(schedule, datetime.now(UTC), count)]
        listed = ", ".join(f"{moment:%Y-%m-%d %H:%M:%S %Z}" for moment in times)
        say(f"  schedule {schedule.slug} fires next: {listed}")


def _names(named: Iterable[str]) -> list[str]:
    return [load_pipeline(one).name if Path(one).is_file() else one for one in named]
