"""The `siftline` command in the tests' own process, which has the imports behind it."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import PREFECT_API_URL, temporary_settings

from siftline.cli import main
from tests.e2e.processes import Finished, Shell

Siftline = Callable[..., Finished]


@contextmanager
def inside(shell: Shell) -> Iterator[None]:
    """Work in a shell's directory, with its server."""
    url = {PREFECT_API_URL: shell.api_url} if shell.api_url else {}
    elsewhere = shell.api_url != PREFECT_API_URL.value()
    try:
        with chdir(shell.directory), temporary_settings(url, restore_defaults={PREFECT_API_URL}):
            yield
    finally:
        if elsewhere:  # a process sends its events to the server that got the first
            EventsWorker.drain_all(timeout=10)


def call_siftline(shell: Shell, *arguments: str | Path) -> Finished:
    """Call what the command calls, as if it had been started in a shell."""
    out, err = StringIO(), StringIO()
    with (
        inside(shell),
        _own_process(arguments),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    status = ended.value.code or 0
    assert isinstance(status, int)
    return Finished(status, out.getvalue(), err.getvalue())


@contextmanager
def _own_process(arguments: tuple[str | Path, ...]) -> Iterator[None]:
    """Undo what a command does to its process, and hide the log as it does there."""
    handler, threshold = signal.getsignal(signal.SIGTERM), gc.get_threshold()
    try:
        with (
            patch.object(sys, "argv", ["siftline", *map(str, arguments)]),
            patch.dict(os.environ),
            patch.object(PrefectConsoleHandler, "emit"),
        ):
            yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        gc.set_threshold(*threshold)
