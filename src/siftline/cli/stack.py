"""``siftline up`` and ``siftline down``: a stack in the foreground or in the background."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import click

from siftline.errors import storage_error
from siftline.stack import Record, Stack, clear, read_stack, supervise
from siftline.stack.processes import end
from siftline.stack.services import services

_POLL_SECONDS = 0.1
_DOWN_SECONDS = 180.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def start_stack(stack: Stack, detach: bool) -> int:
    """Start a stack, unless it is up, and return the exit status."""
    record = read_stack(stack.home)
    if record is not None and record.supervisor.find() is not None:
        _tell_of_running(record)
        return 0
    if detach:
        return _detach(stack)
    supervise(stack, click.echo, lambda: _tell_what_next(stack))
    click.echo("stopped")
    return 0


def _tell_of_running(record: Record) -> None:
    if not record.ready:
        click.echo(f"the stack in {record.stack.home} is being started (process {record.supervisor.pid})")
        return
    click.echo(f"the stack in {record.stack.home} is already up (process {record.supervisor.pid})")
    for service in services(record.stack, record.since):
        health = "healthy" if service.healthy() else "NOT HEALTHY"
        click.echo(f"{service.name:<15} {service.address:<24} {health}")
    _tell_what_next(record.stack)


def _tell_what_next(stack: Stack) -> None:
    click.echo(f"\nPrefect UI {stack.ui}, Dask dashboard {stack.dashboard}/status. For the shell:")
    click.echo(f"  export PREFECT_API_URL={stack.api}")
    click.echo("For a job's configuration:")
    memory = f"memory_limit: {stack.worker_memory}"
    click.echo(f'  cluster: {{kind: address, address: "{stack.scheduler}", {memory}}}')
    if stack.host not in _LOOPBACK:
        click.echo(f"Whoever reaches {stack.host} can run code here: keep others out with a firewall.")
    click.echo(f"Stop it with: siftline down --home {stack.home}")


def _detach(stack: Stack) -> int:
    """Run ``siftline up`` in the background, and pass on what it says until it is up or has failed."""
    log = stack.log("stack")
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, log.parent) from error
    with log.open("ab") as out, log.open("rb") as heard:
        heard.seek(0, 2)
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
        click.echo(heard.read(), nl=False, err=bool(status))
    return status


def _follow(child: subprocess.Popen[bytes], stack: Stack) -> int:
    """Wait until a stack is up, or its supervisor has ended; its exit status."""
    while (status := child.poll()) is None:
        record = read_stack(stack.home)
        if record is not None and record.ready and record.supervisor.pid == child.pid:
            return 0
        time.sleep(_POLL_SECONDS)
    return status


def _options(stack: Stack) -> list[str]:
    """A stack as the options that choose it."""
    values = stack.model_dump(mode="json").items()
    return [part for name, value in values for part in (f"--{name.replace('_', '-')}", str(value))]


def stop_stack(home: Path) -> None:
    """Stop the stack in `home`, or what is left of it."""
    record = read_stack(home)
    if record is None:
        click.echo(f"nothing is running in {home}")
        return
    supervisor = record.supervisor.find()
    if supervisor is not None:
        end(supervisor, signal.SIGTERM, _DOWN_SECONDS)
        stopped = list(reversed(record.services))
    else:
        stopped = []
    stopped += clear(record)
    click.echo(f"stopped {', '.join(stopped)}" if stopped else f"nothing is running in {home}")
