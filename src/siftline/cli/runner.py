"""Running a job from the command line: the flow, with its progress on the terminal."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from siftline.cli.live import show_progress
from siftline.config import BatchConfig
from siftline.executor import prepare_executor
from siftline.interrupts import signals_held
from siftline.results import open_results
from siftline.types import BatchResult

_TOP = 10


def run_batch(config: BatchConfig, fresh: bool, verbose: bool) -> BatchResult:
    """Run the flow in this process and show how far it is, on stderr."""
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
    with show_progress(sys.stderr) as say:
        say("starting")
        prepare_executor(config.cluster)  # its imports and ours take seconds, on a core each
        from flows.api import reach_api
        from flows.batch_detection import batch_detection

        with signals_held({signal.SIGINT}):  # a server of our own is stopped by us, not by the terminal
            reach_api()
        return batch_detection(config, fresh)


def print_summary(result: BatchResult) -> None:
    """Print what a run came to, and its most anomalous rows with the reasons."""
    share = result.anomalies / result.rows
    click.echo(
        f"{result.anomalies:,} anomalies among {result.rows:,} rows ({share:.2%}), "
        f"score {result.threshold:.4f} or more"
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
    results = open_results(result.output)
    top = results.top(_TOP)
    shown = {*results.manifest.features, "score", "rank", "reasons"}
    own = [name for name in top.column_names if name not in shown]
    click.echo("The most anomalous rows:")
    for row in top.to_pylist():
        identity = "  ".join(f"{name}={row[name]}" for name in own)
        click.echo(f"\n{row['rank']:3}. score {row['score']:.4f}  {identity}")
        for reason in row["reasons"]:
            click.echo(f"     {_reason(reason)}")


def _reason(reason: dict[str, Any]) -> str:
    how = f"typical {reason['typical']}"
    if reason["distance"] is not None:
        how += f", {reason['distance']:.1f} σ {'above' if reason['direction'] == 'high' else 'below'}"
    return f"{reason['feature']} {reason['value']} ({how})"
