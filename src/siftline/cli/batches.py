"""Commands for batches: ``run``, ``resume``, ``publish``, ``validate``, ``schema``, ``init``."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import click

from siftline.cli.options import checkpoint_option, json_option
from siftline.cli.prefect_setup import end_server_with_us, prepare_prefect
from siftline.cli.terminal import duration
from siftline.config.batch import BatchConfig
from siftline.config.clusters import Cluster
from siftline.config.fields import Section
from siftline.config.loading import load_config, resolve_config
from siftline.errors import ApiError, Cancelled, OutputConflict, SiftlineError
from siftline.progress import NOT_NOTIFIED, Incident, Report, listening
from siftline.storage.layout import OutputFiles
from siftline.types import BatchResult

_path = click.Path(path_type=Path)
_config_argument = click.argument("config", type=_path)
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
    from siftline.jobs.starting import starting

    batch = load_config(config, overrides)
    with (
        _errors_as_json(as_json),
        starting(batch.checkpoint.path, batch.name),
        _in_this_process(batch.cluster, verbose),
    ):
        from siftline.flows.batch_detection import batch_detection

        result = batch_detection(batch, fresh)
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
        _in_this_process(_planned(checkpoint, job_id).cluster, verbose),
    ):
        from siftline.flows.recovery import recovery

        result = recovery(job_id=job_id, checkpoint=checkpoint, max_recoveries=None, safer=safer)
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
        _in_this_process(_planned(checkpoint, job_id).cluster, verbose),
    ):
        from siftline.flows.recovery import partial_publication

        result = partial_publication(job_id, checkpoint)
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
    batch = load_config(config, overrides)
    prepare_prefect()
    from siftline.flows.control.use_cases import create_batch_job

    job = create_batch_job(batch, work_pool)
    if as_json:
        click.echo(job.model_dump_json())
        return
    click.echo(f"{job.state}  job {job.job_id}  run {job.flow_run_id}")
    if job.place is not None:
        wait = "unknown" if job.wait_seconds is None else f"about {duration(job.wait_seconds)}"
        click.echo(f"  place {job.place} in the queue, wait {wait}")
    click.echo(f"  watch it with: siftline watch {job.flow_run_id}")


@click.command()
@_config_argument
@_set_option
def validate(config: Path, overrides: tuple[str, ...]) -> None:
    """Check a configuration, its input and its output without running the job."""
    from siftline.machine import this_machine
    from siftline.resources.allocation import JobSize, requirements
    from siftline.stages.inspection import inspect_batch

    batch = resolve_config(load_config(config, overrides), datetime.now(UTC))
    found = inspect_batch(batch)
    files = f"{len(found.files)} {found.format} file{'s' if len(found.files) > 1 else ''}"
    rows = "rows are counted by the run" if found.rows is None else f"{found.rows:,} rows"
    click.echo(f"{config}: ready to run")
    click.echo(f"  source    {files}, {rows}")
    click.echo(f"  features  {', '.join(feature.name for feature in found.features)}")
    if found.rows and found.chunk_rows:
        rows_each = min(found.chunk_rows, found.rows)
        click.echo(f"  chunks    of at most {rows_each:,} rows")
        size = JobSize(found.rows, -(-found.rows // rows_each), rows_each, len(found.features))
        click.echo(f"  resources {requirements(batch, size, this_machine())}")
    click.echo(f"  output    {batch.output.path}")
    if batch.notify:
        click.echo(f"  notify    {_check_blocks(batch)}")


def _check_blocks(batch: BatchConfig) -> str:
    """Check that the server has the blocks of the notifications, if one is configured and answers."""
    blocks = ", ".join(dict.fromkeys(rule.block for rule in batch.notify))
    prepare_prefect()
    from siftline.flows.server import api_address, server

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
    from siftline.resources.pool import Pools

    models: dict[str, type[Section]] = {"batch": BatchConfig, "pipeline": Pipeline, "pool": Pools}
    click.echo(json.dumps(models[of].model_json_schema(), indent=2))


@click.command()
@click.argument("data", type=_path)
@click.option("--output", "-o", type=_path, help="File to write. Default: the name of the data, with .yaml.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def init(data: Path, output: Path | None, force: bool) -> None:
    """Write a starter configuration for a data file, with features proposed from its columns."""
    from siftline.cli.starter import starter_config
    from siftline.storage.files import replacing

    text = starter_config(data)
    target = output or Path(f"{data.name.split('.')[0]}.yaml")
    if target.exists() and not force:
        raise OutputConflict(f"{target}: already exists", "choose another name with -o, or use --force")
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"wrote {target}; next: siftline run {target}")


def _planned(checkpoint: str, job_id: str) -> BatchConfig:
    from siftline.jobs.plans import planned_config
    from siftline.jobs.record import find_job

    return planned_config(find_job(checkpoint, job_id))


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
def _in_this_process(cluster: Cluster, verbose: bool) -> Iterator[None]:
    """Prepare Prefect and the cluster for a flow, and show its progress on stderr.

    The command ends with the notifications that were not delivered.
    """
    from siftline.cli.live import show_progress
    from siftline.engine import prepare_executor
    from siftline.signals import signals_held

    context = click.get_current_context()

    def listen(report: Report) -> None:
        if isinstance(report, Incident) and report.kind == NOT_NOTIFIED:
            context.call_on_close(lambda: click.echo(f"siftline: {report.text}", err=True))

    prepare_prefect(verbose)
    with show_progress(sys.stderr) as say, listening(listen):
        say("starting: importing Prefect")
        prepare_executor(cluster)  # its imports and ours take seconds, in parallel
        from siftline.flows.server import api_address, flow_errors, reach_api

        which = "the Prefect server" if api_address() else "an embedded Prefect server to start"
        say(f"starting: waiting for {which}")
        with signals_held({signal.SIGINT}):  # we stop an embedded server, not the terminal
            reach_api()
            end_server_with_us()
        say("starting: creating the run")
        with flow_errors():
            yield


def _show(result: BatchResult, as_json: bool) -> None:
    if as_json:
        click.echo(result.model_dump_json())
        return
    if result.state == "AlreadyPublished":
        click.echo(f"job {result.job_id} is published already: nothing to do (--fresh does it again)")
    _print_summary(result)


def _print_summary(result: BatchResult) -> None:
    from siftline.cli.result_text import print_groups, print_top_rows
    from siftline.jobs.results import open_results

    results = open_results(result.output)
    click.echo(result.summary)
    if result.rows_failed:
        click.echo(
            f"{result.rows_failed:,} of {result.rows:,} rows could not be scored"
            f"{' yet: this is a partial result' if result.state == 'Partial' else ''}; "
            f"{result.chunks_failed:,} chunks have no result"
        )
    if result.state != "AlreadyPublished":
        click.echo(
            f"{result.chunks} chunks, {result.chunks_computed} computed, {result.chunks_reused} reused, "
            f"{result.wall_seconds:.1f} s, job {result.job_id}"
        )
    print_groups(results, most=5)
    print_top_rows(results)
    click.echo(f"\nResults: {result.output} (in Python: siftline.open_results({result.output!r}))")
    report = OutputFiles(Path(result.output)).report
    if report.exists():
        click.echo(f"Report: {report}")
