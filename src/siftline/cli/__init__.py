"""The ``siftline`` command: thin over the flows and the library.

Exit status: 0 completed, 1 failed, 2 bad configuration or input, 130 interrupted or ended by a signal.
"""

from __future__ import annotations

import atexit
import errno
import gc
import os
import signal
import sys
import warnings
from importlib import import_module
from typing import NoReturn, TextIO

import click
from click.shell_completion import CompletionItem

from siftline.cli.streams import lost_output, make_output_safe
from siftline.errors import RenamedWarning, SiftlineError
from siftline.shown import shown, terminal_text
from siftline.system.imports import SAFE_PATH

_INTERRUPTED = 130
_BAD_PATH = {errno.ENAMETOOLONG, errno.ELOOP}
# The module of each command, imported when it is called, and its line in the help of all.
_COMMANDS = {
    "automations": ("pipelines", "Manage the automations of a Prefect server, which start recoveries."),
    "backfill": ("pipelines", "Run a pipeline for all intervals that start between two dates."),
    "completion": ("completion", "Print the script that completes commands in a shell."),
    "down": ("stack", "Stop the stack started by `siftline up`, or clean up what it left."),
    "history": ("results", "List the last publications of a pipeline, the newest last."),
    "init": ("batches", "Write a starter configuration for a data file."),
    "jobs": ("watching", "List the jobs of a checkpoint: states, progress, results, and size on disk."),
    "pipelines": ("pipelines", "Manage pipelines on a Prefect server: YAML files that become deployments."),
    "publish": ("batches", "Publish the finished part of a failed job."),
    "resume": ("batches", "Resume a failed or interrupted job with its last configuration."),
    "run": ("batches", "Run a job in this process."),
    "schema": ("batches", "Print the JSON schema of a configuration, a pipeline or a pool."),
    "serve": ("serve", "Show running and finished jobs on a page, with an API and metrics."),
    "show": ("results", "Show a result: its counts, groups of anomalies, and the top rows."),
    "status": ("watching", "Show the status of a job, a run or a pipeline."),
    "submit": ("batches", "Submit a job to a work pool, and return at once."),
    "threshold": ("results", "Show how many rows other thresholds would flag; nothing is scored."),
    "up": ("stack", "Start a Prefect server, a worker and a Dask cluster on this machine."),
    "validate": ("batches", "Check a configuration, its input and its output without running the job."),
    "verify": ("results", "Verify that a result is as it was published."),
    "watch": ("watching", "Follow a job, a run or a pipeline live, until it ends."),
}
_FORMER = {"apply": "pipelines"}
# Their output is all that they do.
_SHOWING = ("completion", "history", "jobs", "schema", "show", "status", "threshold", "validate", "verify")


class _Commands(click.Group):
    """Commands whose modules are not imported for the help, which must come at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _FORMER.get(cmd_name) or _COMMANDS.get(cmd_name, (None, ""))[0]
        if module is None:
            return None
        command: click.Command = getattr(import_module(f"siftline.cli.{module}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(_COMMANDS.items())])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=text)
            for name, (_, text) in sorted(_COMMANDS.items())
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="siftline")
def commands() -> None:
    """Find the anomalies in large tables: chunk by chunk, on a Dask cluster, orchestrated by Prefect."""


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    make_output_safe()
    os.environ[SAFE_PATH] = "1"  # for all Python processes that it starts
    # SIGTERM is handled like Ctrl-C: everything started is closed in order.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Imports make many objects and no garbage; a process that ends needs no search for any.
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)
    warnings.showwarning = _show_warning
    _leave(_call())


def _call() -> int:
    """Call the command, and return its exit status."""
    try:
        return int(commands(standalone_mode=False) or 0)
    except SiftlineError as error:
        return _complain(str(error), error.exit_status)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OSError as error:
        if error.errno not in _BAD_PATH:
            raise
        return _complain(f"{shown(error.filename)}: {error.strerror}; choose another path", 2)
    except (KeyboardInterrupt, click.Abort):
        problem = "interrupted; run the same command again to go on: finished chunks are kept"
        return _complain(problem, _INTERRUPTED)


def _leave(status: int) -> NoReturn:
    """Exit, at once if Prefect's threads do not come to an end."""
    sys.stdout.flush()
    if (lost := lost_output()) is not None:
        _complain(f"a part of the output is lost: {lost.strerror}", status)
        status = status or int(any(name in _SHOWING for name in sys.argv[1:2]))
    prefect_setup = sys.modules.get("siftline.cli.prefect_setup")
    if prefect_setup is not None and not prefect_setup.left_in_time:
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning: of a former spelling in one line, of anything else with its place."""
    if issubclass(category, RenamedWarning):
        click.echo(terminal_text(f"siftline: {message}"), err=True)
    else:
        click.echo(
            warnings.formatwarning(message, category, filename, lineno, line), file, nl=False, err=True
        )


def _complain(message: str, status: int) -> int:
    click.echo(f"siftline: {message}", err=True)
    return status
