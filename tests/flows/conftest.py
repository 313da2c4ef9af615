"""Flows that run in the tests' own process, on the session's Prefect server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import Shell
from tests.faults import nothing_left_behind
from tests.flows.commands import Siftline, call_siftline


@pytest.fixture(autouse=True)
def no_process_left_behind(prefect_server: str) -> Iterator[None]:
    with nothing_left_behind():
        yield


@pytest.fixture
def shell(tmp_path: Path, prefect_server: str) -> Shell:
    return Shell(tmp_path, prefect_server)


@pytest.fixture
def siftline(shell: Shell) -> Siftline:
    """The command, in a directory of its own."""
    return lambda *arguments: call_siftline(shell, *arguments)
