"""Running a job from the command line: the flow, with its progress on the terminal."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict

import click

from siftline.cli.live import show_progress
from siftline.config.batch import BatchConfig
from siftline.engine import prepare_executor
from siftline.jobs.results import open_results
from siftline.jobs.status import find_job
from siftline.notices.top_rows import top_rows
from siftline.signals import signals_held
from siftline.stages.plan import planned_config
from siftline.types import BatchResult

_TOP = 10


def run_batch(config: BatchConfig, fresh: bool, verbose: bool) -> BatchResult:
    """Run a batch in this process and show how far it is, on stderr."""

    def run() -> BatchResult:
        from flows.batch_detection import batch_detection

        return batch_detection(config, fresh)

    return _run_flow(run, config, verbose)


def resume_job(checkpoint: str, job_id: str, safer: bool, verbose: bool) -> BatchResult:
    """Go on with a job in this process, and show how far it is."""

    def run() -> BatchResult:
        from flows.recovery import recovery

        return recovery(job_id=job_id, checkpoint=checkpoint, max_recoveries=None, safer=safer)

    return _run_flow(run, planned_config(find_job(checkpoint, job_id)), verbose)


def publish_partially(checkpoint: str, job_id: str, verbose: bool) -> BatchResult:
    """Publish in this process what is done of a job."""

    def run() -> BatchResult:
        from flows.recovery import partial_publication

        return partial_publication(job_id, checkpoint)

    return _run_flow(run, planned_config(find_job(checkpoint, job_id)), verbose)


def _run_flow(run: Callable[[], BatchResult], config: BatchConfig, verbose: bool) -> BatchResult:
    set_up(verbose)
    with show_progress(sys.stderr) as say:
        say("starting")
        prepare_executor(config.cluster)  # its imports and ours take seconds, on a core each
        from flows.server import called, end_server_with_us, reach_api

        with signals_held({signal.SIGINT}):  # a server of our own is stopped by us, not by the terminal
            reach_api()
            end_server_with_us()
        return called(run)


def set_up(verbose: bool) -> None:
    """Prepare Prefect for a command, before it is imported."""
    # Read by Prefect when it is imported; what a user has set stays as it is.
    settings = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    if not verbose:
        # The server still has the whole log; here an error is told in one line.
        settings["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def print_jobs(checkpoint: str, as_json: bool) -> None:
    """Print the jobs of a checkpoint: their state, and what is left."""
    set_up(verbose=False)
    from flows.recovery import job_statuses
    from flows.server import called

    statuses = called(lambda: job_statuses(checkpoint))
    if as_json:
        click.echo(json.dumps([asdict(status) for status in statuses]))
        return
    if not statuses:
        click.echo(f"no jobs in {checkpoint}")
    for status in statuses:
        left = status.chunks - status.chunks_done
        chunks = (
            f"{left:,} of {status.chunks:,} chunks left" if left else f"all {status.chunks:,} chunks done"
        )
        click.echo(f"{status.job_id}  {status.name}  {status.state}  {chunks}  run {status.run or 'unknown'}")
        if status.error is not None:
            click.echo(f"  {status.error}")


def print_summary(result: BatchResult) -> None:
    """Print what a run came to, and its most anomalous rows with the reasons."""
    if result.state == "AlreadyPublished":
        click.echo(f"job {result.job_id} is published already: nothing to do (--fresh does it again)")
        click.echo(f"Results: {result.output}")
        return
    scored = result.rows - result.rows_failed
    click.echo(
        f"{result.anomalies:,} anomalies among {scored:,} rows ({result.anomalies / scored:.2%}), "
        f"score {result.threshold:.4f} or more"
    )
    if result.rows_failed:
        click.echo(
            f"{result.rows_failed:,} of {result.rows:,} rows could not be scored"
            f"{' yet: this is a partial result' if result.state == 'Partial' else ''}; "
            f"{result.chunks_failed:,} chunks have no result"
        )
    click.echo(
        f"{result.chunks} chunks, {result.chunks_computed} computed, {result.chunks_reused} reused, "
        f"{result.wall_seconds:.1f} s, job {result.job_id}"
    )
    click.echo("")
    _print_top(result)
    click.echo("")
    click.echo(f"Results: {result.output} (in Python: siftline.open_results({result.output!r}))")


def _print_top(result: BatchResult) -> None:
    click.echo("The most anomalous rows:")
    for row in top_rows(open_results(result.output), _TOP):
        click.echo(f"\n{row.rank:3}. {row}")
        for reason in row.reasons:
            click.echo(f"     {reason}")
