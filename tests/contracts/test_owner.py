"""Processes end with their owner, whatever ended it and at whatever moment."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from siftline.stack.processes import is_alive
from tests.faults import wait_until

pytestmark = pytest.mark.e2e

OWNER = """
import sys, time
from siftline.config.clusters import LocalCluster
from siftline.engine import open_executor, prepare_workers

if __name__ == "__main__":
    prepare_workers()
    print("forking", flush=True)
    if "cluster" in sys.argv:
        with open_executor(LocalCluster(workers=2, memory_limit="1GiB")) as executor:
            executor.client
            print("up", flush=True)
            time.sleep(600)
    time.sleep(600)
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "owner.py"
    path.write_text(OWNER)
    return path


def start(program: Path, line: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, program, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as lines:
        assert next(text for text in lines if text.strip() == line)
    return process


def end(owner: subprocess.Popen[str], number: signal.Signals) -> None:
    """End an owner, and check that its children are gone soon."""
    children = psutil.Process(owner.pid).children(recursive=True)
    assert children
    owner.send_signal(number)
    owner.wait(30)
    # Far less than the imports take, or a frozen worker would.
    wait_until(lambda: not any(map(is_alive, children)), "the children are gone", seconds=5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_fork_server_ends_with_its_owner_even_during_its_imports(
    program: Path, number: signal.Signals
) -> None:
    end(start(program, "forking"), number)


@pytest.mark.parametrize("frozen", [False, True])
def test_workers_end_with_a_killed_owner_even_frozen_ones(program: Path, frozen: bool) -> None:
    owner = start(program, "up", "cluster")
    if frozen:
        for child in forks(psutil.Process(owner.pid)):
            child.suspend()
    end(owner, signal.SIGKILL)


def forks(owner: psutil.Process) -> list[Any]:
    return [fork for child in owner.children() for fork in child.children()]
