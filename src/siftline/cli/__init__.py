"""The ``siftline`` command: thin over the flows and the library.

Exit status: 0 completed, 1 failed, 2 bad configuration or input, 130 interrupted or ended by a signal.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from siftline.errors import Cancelled, SiftlineError

if TYPE_CHECKING:
    from datetime import datetime

    from siftline.types import BatchResult

_INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    # To be asked to end is to be interrupted: what was started is closed in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Importing makes many objects and no garbage, and the end of a process needs no search for any.
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    try:
        sys.exit(_cli(standalone_mode=False) or 0)
    except SiftlineError as error:
        _fail(str(error), error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; run the same command again to go on: finished chunks are kept", _INTERRUPTED)


def _fail(message: str, status: int) -> NoReturn:
    click.echo(f"siftline: {message}", err=True)
    sys.exit(status)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="siftline")
def _cli() -> None:
    """Find the anomalies in large tables: chunk by chunk, on a Dask cluster, orchestrated by Prefect."""


_config_argument = click.argument("config", type=click.Path(path_type=Path))
_set_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Change a field of the configuration."
)
_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout."
)
_verbose_option = click.option("--verbose", "-v", is_flag=True, help="Show Prefect's log.")


@_cli.command()
@_config_argument
@_set_option
@click.option("--fresh", is_flag=True, help="Start over, whatever an earlier run has done.")
@_json_option
@_verbose_option
def run(config: Path, overrides: tuple[str, ...], fresh: bool, as_json: bool, verbose: bool) -> None:
    """Run a job here and now.

    Run the same command again after any interruption: what is done is not done again.
    """
    from siftline.config.loading import load_config

    batch = load_config(config, overrides)
    from siftline.cli.runner import run_batch

    _show(lambda: run_batch(batch, fresh, verbose), as_json)


def _show(run: Callable[[], BatchResult], as_json: bool) -> None:
    """Run something and print what it came to."""
    from siftline.cli.runner import print_summary

    try:
        result = run()
    except SiftlineError as error:
        if as_json:
            state = "Cancelled" if isinstance(error, Cancelled) else "Failed"
            click.echo(json.dumps({"state": state, "error": type(error).__name__, "message": str(error)}))
        raise
    if as_json:
        click.echo(result.model_dump_json())
    else:
        print_summary(result)


_job_argument = click.argument("job_id")
_checkpoint_option = click.option(
    "--checkpoint", default=".siftline", show_default=True, help="Where the jobs are: checkpoint.path."
)


@_cli.command()
@_job_argument
@_checkpoint_option
@click.option("--safer", is_flag=True, help="Take less memory: one chunk a worker, in small batches.")
@_json_option
@_verbose_option
def resume(job_id: str, checkpoint: str, safer: bool, as_json: bool, verbose: bool) -> None:
    """Go on with a job that failed or was interrupted, with the configuration that it had.

    The beginning of the job's id is enough.
    """
    from siftline.cli.runner import resume_job

    _show(lambda: resume_job(checkpoint, job_id, safer, verbose), as_json)


@_cli.command()
@_job_argument
@_checkpoint_option
@click.option("--partial", is_flag=True, required=True, help="Publish although some of it is missing.")
@_json_option
@_verbose_option
def publish(job_id: str, checkpoint: str, partial: bool, as_json: bool, verbose: bool) -> None:
    """Publish what is done of a job that failed; the manifest says what is missing.

    The job can still be resumed, and published whole.
    """
    from siftline.cli.runner import publish_partially

    _show(lambda: publish_partially(checkpoint, job_id, verbose), as_json)


@_cli.command()
@_checkpoint_option
@_json_option
def jobs(checkpoint: str, as_json: bool) -> None:
    """List the jobs: their state, and what is left of them."""
    from siftline.cli.runner import print_jobs

    print_jobs(checkpoint, as_json)


@_cli.command()
@_config_argument
@_set_option
def validate(config: Path, overrides: tuple[str, ...]) -> None:
    """Check everything that can be checked without doing the work."""
    from datetime import UTC, datetime

    from siftline.config.loading import load_config, resolve_config
    from siftline.stages.inspection import inspect_batch

    batch = resolve_config(load_config(config, overrides), datetime.now(UTC))
    inspection = inspect_batch(batch)
    files = f"{len(inspection.files)} {inspection.format} file{'s' if len(inspection.files) > 1 else ''}"
    rows = "rows are counted when it runs" if inspection.rows is None else f"{inspection.rows:,} rows"
    click.echo(f"{config}: ready to run")
    click.echo(f"  source    {files}, {rows}")
    click.echo(f"  features  {', '.join(feature.name for feature in inspection.features)}")
    if inspection.rows and inspection.chunk_rows:
        click.echo(f"  chunks    of at most {min(inspection.chunk_rows, inspection.rows):,} rows")
    click.echo(f"  output    {batch.output.path}")


@_cli.command()
@click.argument("file", type=click.Path(path_type=Path), default="deployments/automations.yaml")
def apply(file: Path) -> None:
    """Bring the automations of the Prefect server in line with a file, by name.

    Default: deployments/automations.yaml.
    """
    os.environ.setdefault("DO_NOT_TRACK", "1")  # read by Prefect when it is imported
    from flows.control.automations import apply_automations

    for name, change in apply_automations(file):
        click.echo(f"{change} {name}")


@_cli.group()
def pipelines() -> None:
    """Pipelines on a Prefect server: YAML files that become deployments with schedules."""
    os.environ.setdefault("DO_NOT_TRACK", "1")  # read by Prefect when it is imported


_files_argument = click.argument("files", nargs=-1, type=click.Path(path_type=Path))
_named_argument = click.argument("named", nargs=-1, required=True, metavar="NAME_OR_FILE...")


@pipelines.command("validate")
@_files_argument
def validate_pipelines(files: tuple[Path, ...]) -> None:
    """Check pipelines without a server, and show when they run. Default: those in deployments/."""
    from siftline.cli.pipelines import validate_files

    validate_files(files)


@pipelines.command("apply")
@_files_argument
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
def apply_pipelines(files: tuple[Path, ...], dry_run: bool) -> None:
    """Check pipelines, and bring the server in line with them. Default: those in deployments/.

    Whether a pipeline or a schedule is paused stays as it is; what belongs to others is left alone.
    """
    from siftline.cli.pipelines import apply_files

    apply_files(files, dry_run)


@pipelines.command("list")
@_json_option
def list_pipelines(as_json: bool) -> None:
    """List the pipelines of the server: schedules, workers, and the last run of each."""
    from siftline.cli.pipelines import print_pipelines

    print_pipelines(as_json)


@pipelines.command("pause")
@_named_argument
def pause_pipelines(named: tuple[str, ...]) -> None:
    """Keep schedules from starting runs."""
    from siftline.cli.pipelines import pause_all

    pause_all(named)


@pipelines.command("resume")
@_named_argument
def resume_pipelines(named: tuple[str, ...]) -> None:
    """Let schedules start runs again."""
    from siftline.cli.pipelines import resume_all

    resume_all(named)


@pipelines.command("remove")
@_named_argument
def remove_pipelines(named: tuple[str, ...]) -> None:
    """Remove pipelines from the server; results and checkpoints stay."""
    from siftline.cli.pipelines import remove_all

    remove_all(named)


@pipelines.command("run")
@click.argument("name")
@click.option("--fresh", is_flag=True, help="Do it even if it is published already.")
@_json_option
def run_pipeline(name: str, fresh: bool, as_json: bool) -> None:
    """Start a run of a pipeline, for the last interval that is over."""
    from siftline.cli.pipelines import trigger

    trigger(name, fresh, as_json)


@_cli.command()
@click.argument("run")
@_json_option
def status(run: str, as_json: bool) -> None:
    """Show how far a run on the server is, by its id or the name of its pipeline."""
    from siftline.cli.pipelines import print_status

    print_status(run, as_json)


@_cli.command()
@click.argument("pipeline")
@click.option("--from", "first", required=True, type=click.DateTime(["%Y-%m-%d"]), help="First date.")
@click.option("--to", "last", required=True, type=click.DateTime(["%Y-%m-%d"]), help="Last date.")
@click.option("--parallel", type=click.IntRange(1), default=1, show_default=True, help="Runs at once.")
@click.option("--only-missing", is_flag=True, help="Leave out what is published already.")
def backfill(pipeline: str, first: datetime, last: datetime, parallel: int, only_missing: bool) -> None:
    """Run a pipeline for the intervals that start on certain dates; again, to go on after an interruption."""
    from siftline.cli.pipelines import run_backfill

    run_backfill(pipeline, first.date(), last.date(), parallel, only_missing)


@_cli.command()
@click.argument("of", type=click.Choice(["batch", "pipeline"]), default="batch")
def schema(of: str) -> None:
    """Print the JSON schema of a batch's configuration, or of a pipeline's file."""
    from siftline.config.batch import BatchConfig
    from siftline.pipelines.spec import Pipeline

    model = BatchConfig if of == "batch" else Pipeline
    click.echo(json.dumps(model.model_json_schema(), indent=2))


@_cli.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="File to write. Default: the data's name, with .yaml.",
)
@click.option("--force", is_flag=True, help="Replace the file if it is there.")
def init(data: Path, output: Path | None, force: bool) -> None:
    """Write a starter configuration for a data file, with features proposed from its columns."""
    from siftline.cli.starter import starter_config
    from siftline.errors import OutputConflict
    from siftline.storage.files import replacing

    text = starter_config(data)
    target = output or Path(f"{data.name.split('.')[0]}.yaml")
    if target.exists() and not force:
        raise OutputConflict(
            f"{target}: is already there", "give another name with -o, or --force to replace it"
        )
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"wrote {target}; next: siftline run {target}")


_home_option = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False, resolve_path=True),
    default=".siftline/stack",
    show_default=True,
    help="Where its logs, its database and the record of what runs are.",
)
_PORT = click.IntRange(1, 65535)


@_cli.command()
@_home_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of this machine to listen on.")
@click.option("--server-port", type=_PORT, default=4200, show_default=True, help="Prefect's API and UI.")
@click.option("--scheduler-port", type=_PORT, default=8786, show_default=True, help="Dask's scheduler.")
@click.option("--dashboard-port", type=_PORT, default=8787, show_default=True, help="Its web pages.")
@click.option(
    "--database",
    type=click.Choice(["postgresql", "sqlite"]),
    default="postgresql",
    show_default=True,
    help="What the server keeps its data in.",
)
@click.option("--database-port", type=_PORT, default=5433, show_default=True, help="PostgreSQL.")
@click.option("--workers", type=click.IntRange(1), help="Dask worker processes. Default: one for every core.")
@click.option("--worker-threads", type=click.IntRange(1), default=1, show_default=True, help="Of each.")
@click.option("--worker-memory", default="2GiB", show_default=True, help="Memory of each.")
@click.option("--detach", is_flag=True, help="Leave it running in the background.")
def up(workers: int | None, detach: bool, **options: Any) -> int:
    """Start a Prefect server on PostgreSQL, a Prefect worker, and a Dask scheduler with workers.

    Ctrl-C stops them, and so does `siftline down`.
    """
    from siftline.cli.stack import start_stack
    from siftline.stack import Stack

    return start_stack(Stack(workers=workers or os.cpu_count() or 1, **options), detach)


@_cli.command()
@_home_option
def down(home: Path) -> None:
    """Stop what `siftline up` started, wherever that runs, or what is left of it."""
    from siftline.cli.stack import stop_stack

    stop_stack(home)
