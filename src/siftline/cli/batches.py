"""Commands for batches: ``run``, ``resume``, ``publish``, ``validate``, ``schema``, ``init``."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from siftline.cli.options import checkpoint_option, json_option, path_type
from siftline.cli.terminal import duration, say, say_json
from siftline.config.batch import BatchConfig
from siftline.config.fields import Section
from siftline.config.loading import load_config, resolve_config
from siftline.errors import ApiError, Cancelled, OutputConflict, SiftlineError
from siftline.progress import NOT_CLOSED, NOT_NOTIFIED, Incident, Report, counted, listening
from siftline.shown import listed

if TYPE_CHECKING:
    from siftline.types import BatchResult

_config_argument = click.argument("config", type=path_type)
_set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Override a configuration field."
)
_verbose_option = click.option("--verbose", "-v", is_flag=True, help="Show Prefect's log.")
_job_argument = click.argument("job_id")


@click.command()
@_config_argument
@_set_option
@click.option("--fresh", is_flag=True, help="Start over, ignoring the work of earlier runs.")
@json_option
@_verbose_option
def run(config: Path, overrides: tuple[str, ...], fresh: bool, as_json: bool, verbose: bool) -> None:
    """Run a job in this process.

    After an interruption, run the same command again: finished work is never repeated.
    """
    with _errors_as_json(as_json):
        batch = load_config(config, overrides)
        _prepare_executor(batch, early=True)
        from siftline.cli.checks import check_batch, published_result
        from siftline.jobs.starting import starting

        checked = check_batch(batch)
        result = published_result(*checked) if checked is not None and not fresh else None
        if result is None:
            known = checked[0] if checked is not None else batch
            with starting(batch.checkpoint.path, batch.name), _in_this_process(known, verbose):
                from siftline.flows.batch_detection import batch_detection
                from siftline.flows.run.calls import call_flow

                result = call_flow(batch_detection, batch, fresh)
    _show(result, as_json)


@click.command()
@_job_argument
@checkpoint_option
@click.option("--safer", is_flag=True, help="Use less memory: one chunk per worker, in small batches.")
@json_option
@_verbose_option
def resume(job_id: str, checkpoint: str, safer: bool, as_json: bool, verbose: bool) -> None:
    """Resume a failed or interrupted job with its last configuration.

    A unique prefix of the job's id is enough.
    """
    with (
        _errors_as_json(as_json),
        _in_this_process(_planned(checkpoint, job_id), verbose),
    ):
        from siftline.flows.recovery import recovery
        from siftline.flows.run.calls import call_flow

        result = call_flow(recovery, job_id=job_id, checkpoint=checkpoint, max_recoveries=None, safer=safer)
    _show(result, as_json)


@click.command()
@_job_argument
@checkpoint_option
@click.option("--partial", is_flag=True, required=True, help="Publish although chunks are missing.")
@json_option
@_verbose_option
def publish(job_id: str, checkpoint: str, partial: bool, as_json: bool, verbose: bool) -> None:
    """Publish the finished part of a failed job; its manifest lists what is missing.

    The job can still be resumed, and published whole.
    """
    with (
        _errors_as_json(as_json),
        _in_this_process(_planned(checkpoint, job_id), verbose),
    ):
        from siftline.flows.recovery import partial_publication
        from siftline.flows.run.calls import call_flow

        result = call_flow(partial_publication, job_id, checkpoint)
    _show(result, as_json)


@click.command()
@_config_argument
@_set_option
@click.option("--work-pool", default="siftline", show_default=True, help="Work pool whose worker runs it.")
@json_option
def submit(config: Path, overrides: tuple[str, ...], work_pool: str, as_json: bool) -> None:
    """Submit a job to a work pool, and return at once.

    Its worker runs it in the current directory, at its turn if the work pool has a pool of slots.
    """
    from siftline.cli.prefect_setup import prepare_prefect, reach_given_api
    from siftline.stages.inspection import inspect_batch

    with _errors_as_json(as_json):
        batch = load_config(config, overrides)
        inspect_batch(resolve_config(batch, datetime.now(UTC)))
        prepare_prefect()
        reach_given_api()
        from siftline.flows.control.use_cases import create_batch_job

        job = create_batch_job(batch, work_pool)
    if as_json:
        say_json(job)
        return
    say(f"{job.state}  job {job.job_id}  run {job.flow_run_id}")
    if job.place is not None:
        wait = "unknown" if job.wait_seconds is None else f"about {duration(job.wait_seconds)}"
        say(f"  place {job.place} in the queue, wait {wait}")
    say(f"  watch it with: siftline watch {job.flow_run_id}")


@click.command()
@_config_argument
@_set_option
def validate(config: Path, overrides: tuple[str, ...]) -> None:
    """Check a configuration, its input and its output without running the job."""
    from siftline.resources.allocation import JobSize, requirements
    from siftline.stages.inspection import inspect_batch
    from siftline.system.machine import this_machine

    batch = resolve_config(load_config(config, overrides), datetime.now(UTC))
    found = inspect_batch(batch)
    files = counted(len(found.files), f"{found.format} file")
    rows = "rows are counted by the run" if found.rows is None else f"{found.rows:,} rows"
    say(f"{config}: ready to run")
    say(f"  source    {files}, {rows}")
    say(f"  features  {listed([feature.name for feature in found.features])}")
    if found.rows and found.chunk_rows:
        rows_each = min(found.chunk_rows, found.rows)
        say(f"  chunks    of at most {rows_each:,} rows")
        chunks = -(-found.rows // rows_each)
        size = JobSize(found.rows, chunks, rows_each, len(found.features), found.fit_bytes)
        say(f"  resources {requirements(batch, size, this_machine())}")
    say(f"  output    {batch.output.path}")
    if batch.notify:
        say(f"  notify    {_check_blocks(batch)}")
    for note in found.notes:
        say(f"  note      {note}")


def _check_blocks(batch: BatchConfig) -> str:
    """Check that the server has the blocks of the notifications, if one is configured and answers."""
    from siftline.cli.prefect_setup import prepare_prefect

    blocks = ", ".join(dict.fromkeys(rule.block for rule in batch.notify))
    prepare_prefect()
    from siftline.flows.address import api_address
    from siftline.flows.server import server

    if not api_address():
        return f"{blocks} (not checked: no Prefect server is configured)"
    from siftline.flows.control.deployments import check_blocks

    try:
        with server(seconds=5) as client:
            check_blocks(client, batch)
    except ApiError:
        return f"{blocks} (not checked: the Prefect server does not answer)"
    return blocks


@click.command()
@click.argument("of", type=click.Choice(["batch", "pipeline", "pool"]), default="batch")
def schema(of: str) -> None:
    """Print the JSON schema of a batch's configuration, a pipeline's file or a pool's file."""
    from siftline.pipelines.spec import Pipeline
    from siftline.resources.pool_file import Pools

    models: dict[str, type[Section]] = {"batch": BatchConfig, "pipeline": Pipeline, "pool": Pools}
    click.echo(json.dumps(models[of].model_json_schema(), indent=2))


@click.command()
@click.argument("data", type=path_type)
@click.option(
    "--output", "-o", type=path_type, help="File to write. Default: the name of the data, with .yaml."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--key", multiple=True, metavar="COLUMN", help="Column that identifies a row; repeatable.")
@click.option("--label", metavar="COLUMN", help="Column with known labels.")
@click.option("--exclude", multiple=True, metavar="COLUMN", help="Column or glob to leave out; repeatable.")
def init(
    data: Path,
    output: Path | None,
    force: bool,
    key: tuple[str, ...],
    label: str | None,
    exclude: tuple[str, ...],
) -> None:
    """Write a starter configuration for a data file, with features proposed from its columns."""
    from siftline.cli.starter import Asked, plain_name, starter_config
    from siftline.storage.files import replacing

    target = output or Path(f"{plain_name(data)}.yaml")
    if target.exists() and not force:
        raise OutputConflict(f"{target}: already exists", "choose another name with -o, or use --force")
    text = starter_config(data, Asked(key, exclude, label))
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"wrote {target}; next: siftline run {target}")


def _prepare_executor(batch: BatchConfig, early: bool = False) -> None:
    """Start the workers' imports, which take seconds, beside ours and Prefect's.

    A Prefect server takes longer to start: it has the other core first.
    """
    from siftline.engine import prepare_executor
    from siftline.stack.kept_server import is_to_start

    if not (early and is_to_start()):
        prepare_executor(batch.cluster, batch.source.path)


def _planned(checkpoint: str, job_id: str) -> BatchConfig:
    """Return the configuration of a planned job that can still be done."""
    from siftline.cli.checks import check_batch
    from siftline.jobs.plans import planned_config
    from siftline.jobs.record import find_job

    batch = planned_config(find_job(checkpoint, job_id))
    _prepare_executor(batch, early=True)
    check_batch(batch)
    return batch


@contextmanager
def _errors_as_json(as_json: bool) -> Iterator[None]:
    """Print an error as JSON too, if asked for."""
    try:
        yield
    except SiftlineError as error:
        if as_json:
            state = "Cancelled" if isinstance(error, Cancelled) else "Failed"
            click.echo(json.dumps({"state": state, "error": type(error).__name__, "message": str(error)}))
        raise


@contextmanager
def _in_this_process(batch: BatchConfig, verbose: bool) -> Iterator[None]:
    """Prepare Prefect and the cluster for a flow, and show its progress on stderr.

    The command ends with the news that could not be delivered.
    """
    from siftline.stack.kept_server import kept_server

    context = click.get_current_context()

    def listen(report: Report) -> None:
        if isinstance(report, Incident) and report.kind in (NOT_NOTIFIED, NOT_CLOSED):
            context.call_on_close(lambda: say(f"siftline: {report.text}", err=True))

    with kept_server() as kept:
        # A server that starts takes the longest: everything else is imported beside it.
        from siftline.cli.live import show_progress
        from siftline.cli.prefect_setup import leave_prefect, prepare_prefect, reach_given_api

        with show_progress(sys.stderr) as show_text, listening(listen):
            if kept is not None:
                os.environ["PREFECT_API_URL"] = kept.address
            prepare_prefect(verbose)
            if kept is None:
                reach_given_api()
            show_text("starting: importing Prefect")
            import siftline.flows.batch_detection  # noqa: F401
            from siftline.flows.address import api_address
            from siftline.flows.server import reach_api
            from siftline.system.signals import signals_held

            _prepare_executor(batch)
            which = "the Prefect server" if api_address() else "an embedded Prefect server to start"
            show_text(f"starting: waiting for {which}")
            if kept is not None:
                kept.wait()
            if api_address() is None:
                with signals_held({signal.SIGINT}):  # we stop an embedded server, not the terminal
                    reach_api()
            context.call_on_close(leave_prefect)
            show_text("starting: creating the run")
            yield


def _show(result: BatchResult, as_json: bool) -> None:
    if as_json:
        say_json(result)
        return
    if result.state == "AlreadyPublished":
        say(f"job {result.job_id} is published already: nothing to do (--fresh does it again)")
    from siftline.cli.result_text import print_summary

    print_summary(result)
    if result.flow_run_id is None:
        return
    from siftline.flows.server import page_of_run

    if (page := page_of_run(result.flow_run_id)) is not None:
        say(f"Run: {page}")
