"""``siftline up`` and ``siftline down``: a stack in the foreground or in the background."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from siftline.cli.options import LocalPath
from siftline.cli.terminal import say
from siftline.stack import Stack, StackRecord, clear, read_stack, supervise
from siftline.stack.kept_server import end_kept_server
from siftline.stack.processes import end
from siftline.stack.services import services
from siftline.stack.token import TOKEN_VARIABLE, token_file
from siftline.system.addresses import is_loopback

_DOWN_SECONDS = 180.0

Command = Callable[..., Any]


def _port_option(name: str, default: int, of: str) -> Callable[[Command], Command]:
    port = click.IntRange(1, 65535)
    return click.option(
        f"--{name}-port", type=port, default=default, show_default=True, help=f"Port of {of}."
    )


_home_option = click.option(
    "--home",
    type=LocalPath(path_type=Path, file_okay=False, resolve_path=True),
    default=".siftline/stack",
    show_default=True,
    help="Directory for the stack's logs, database and process list.",
)


@click.command()
@_home_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@_port_option("server", 4200, "Prefect's API and UI")
@_port_option("scheduler", 8786, "the Dask scheduler")
@_port_option("dashboard", 8787, "the Dask dashboard")
@_port_option("monitor", 4280, "the page of all jobs")
@click.option(
    "--database",
    type=click.Choice(["postgresql", "sqlite"]),
    default="postgresql",
    show_default=True,
    help="Database of the Prefect server.",
)
@_port_option("database", 5433, "PostgreSQL")
@click.option("--workers", type=click.IntRange(1), help="Dask worker processes. Default: one per core.")
@click.option(
    "--worker-threads",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Chunks each Dask worker scores at once.",
)
@click.option("--worker-memory", default="2GiB", show_default=True, help="Memory limit of each Dask worker.")
@click.option("--detach", is_flag=True, help="Leave the stack running in the background.")
def up(workers: int | None, detach: bool, **options: Any) -> int:
    """Start a Prefect server on PostgreSQL, a Prefect worker, a Dask cluster, and the page of jobs.

    Stop them with Ctrl-C or `siftline down`.
    """
    stack = Stack(workers=workers or os.cpu_count() or 1, **options)
    record = read_stack(stack.home)
    if record is not None and record.supervisor.find() is not None:
        _print_running(record)
        return 0
    if detach:
        return _detach(stack)
    supervise(stack, say, lambda: _print_addresses(stack))
    say("stopped")
    return 0


@click.command()
@_home_option
def down(home: Path) -> None:
    """Stop the stack started by `siftline up`, from any terminal, or clean up what it left behind.

    The Prefect server that `siftline run` keeps for the next command ends, too.
    """
    record = read_stack(home)
    stopped = [] if record is None else _stop(record)
    if end_kept_server():
        stopped.append("the Prefect server of commands")
    say(f"stopped {', '.join(stopped)}" if stopped else f"nothing is running in {home}")


def _stop(record: StackRecord) -> list[str]:
    """Stop a stack and return the names of the services that were running."""
    supervisor = record.supervisor.find()
    if supervisor is None:
        return clear(record)
    end(supervisor, signal.SIGTERM, _DOWN_SECONDS)
    return [*reversed(record.services), *clear(record)]


def _print_running(record: StackRecord) -> None:
    home, process = record.stack.home, f"(process {record.supervisor.pid})"
    if not record.ready:
        say(f"the stack in {home} is starting {process}")
        return
    say(f"the stack in {home} is already up {process}")
    for service in services(record.stack, record.since):
        health = "healthy" if service.healthy() else "NOT HEALTHY"
        say(f"{service.name:<15} {service.address:<24} {health}")
    _print_addresses(record.stack)


def _print_addresses(stack: Stack) -> None:
    say(f"\nJobs {stack.monitor}, Prefect UI {stack.ui}, Dask dashboard {stack.dashboard}/status.")
    say("For the shell:")
    say(f"  export PREFECT_API_URL={stack.api}")
    say("For a job's configuration:")
    memory = f"memory_limit: {stack.worker_memory}"
    say(f'  cluster: {{kind: address, address: "{stack.scheduler}", {memory}}}')
    if not is_loopback(stack.host):
        say(f"The page of the jobs asks for a token: {TOKEN_VARIABLE}, or else {token_file(stack)}.")
        say(f"Any machine that reaches {stack.host} can run code here: restrict it with a firewall.")
    say(f"Stop it with: siftline down --home {stack.home}")


def _detach(stack: Stack) -> int:
    """Run ``siftline up`` in the background, and print its output until it is up or has failed."""
    stack.make_home()
    log = stack.log("stack")
    with log.open("ab") as out, log.open("rb") as output:
        output.seek(0, 2)
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "siftline", "up", *_options(stack)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = _follow(child, stack)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        click.echo(output.read(), nl=False, err=bool(status))
    return status


def _follow(child: subprocess.Popen[bytes], stack: Stack, poll_seconds: float = 0.1) -> int:
    """Wait until a stack is up or its supervisor has ended, and return the exit status."""
    while (status := child.poll()) is None:
        record = read_stack(stack.home)
        if record is not None and record.ready and record.supervisor.pid == child.pid:
            return 0
        time.sleep(poll_seconds)
    return status


def _options(stack: Stack) -> list[str]:
    """Return the options of `siftline up` for a stack."""
    values = stack.model_dump(mode="json").items()
    return [part for name, value in values for part in (f"--{name.replace('_', '-')}", str(value))]
