"""The ``siftline`` command: thin over the flows and the library.

Exit status: 0 completed, 1 failed, 2 bad configuration or input, 130 interrupted or ended by a signal.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import warnings
from importlib import import_module
from typing import NoReturn, TextIO

import click

from siftline.cli import prefect_setup
from siftline.cli.streams import lost_output, make_output_safe
from siftline.errors import RenamedWarning, SiftlineError
from siftline.imports import SAFE_PATH
from siftline.shown import terminal_text

_INTERRUPTED = 130
# Imported when one of their commands is called.
_MODULES = {
    **dict.fromkeys(["init", "publish", "resume", "run", "schema", "submit", "validate"], "batches"),
    **dict.fromkeys(["automations", "backfill", "pipelines"], "pipelines"),
    **dict.fromkeys(["history", "show", "threshold", "verify"], "results"),
    **dict.fromkeys(["jobs", "status", "watch"], "watching"),
    **dict.fromkeys(["down", "up"], "stack"),
    "serve": "serve",
}
_FORMER = {"apply": "pipelines"}
# Their output is all that they do.
_SHOWING = ("history", "jobs", "schema", "show", "status", "threshold", "validate")


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = (_MODULES | _FORMER).get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(import_module(f"siftline.cli.{module}"), cmd_name)
        return command


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
    except (KeyboardInterrupt, click.Abort):
        problem = "interrupted; run the same command again to go on: finished chunks are kept"
        return _complain(problem, _INTERRUPTED)


def _leave(status: int) -> NoReturn:
    """Exit, at once if Prefect's threads do not come to an end."""
    sys.stdout.flush()
    if (lost := lost_output()) is not None:
        _complain(f"a part of the output is lost: {lost.strerror}", status)
        status = status or int(any(name in _SHOWING for name in sys.argv[1:2]))
    if not prefect_setup.left_in_time:
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
