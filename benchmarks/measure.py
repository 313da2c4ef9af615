"""A command measured from outside: wall time, CPU time and peak memory of every process of its tree."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

_SECONDS_BETWEEN_SAMPLES = 0.1


@dataclass(frozen=True)
class Usage:
    """What a command took.

    `coordinator` is the peak memory of the command's own process, `worker` that of the largest process
    it started (0 where it started none), both in bytes as the kernel's high-water mark of resident memory.
    """

    wall: float
    cpu: float
    coordinator: int
    worker: int
    output: str


class CommandFailed(Exception):
    """The measured command ended with an error."""


def measure(command: Sequence[str], directory: Path, settings: Mapping[str, str]) -> Usage:
    """Run a command in a directory, with settings added to the environment, and measure it."""
    environment = {**os.environ, **settings}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users' Pythons keep what they compile
    with (directory / "stdout").open("w+") as stdout, (directory / "stderr").open("w+") as stderr:
        started = time.monotonic()
        process = subprocess.Popen(command, cwd=directory, env=environment, stdout=stdout, stderr=stderr)
        with _Sampler(process.pid) as sampler:
            status = process.wait()
            wall = time.monotonic() - started
        for file in (stdout, stderr):
            file.seek(0)
        if status:
            raise CommandFailed(f"{' '.join(command)} ended with {status}:\n{stderr.read()[-4000:]}")
        peaks = dict(sampler.peaks)
        coordinator = peaks.pop(process.pid, 0)
        return Usage(
            wall, sum(sampler.cpu.values()), coordinator, max(peaks.values(), default=0), stdout.read()
        )


class _Sampler:
    """Watches a process and all that descend from it.

    Peak memory is the kernel's own mark (VmHWM), so that a sample need not fall on the peak, only after it.
    """

    def __init__(self, root: int) -> None:
        self.peaks: dict[int, int] = {}
        self.cpu: dict[int, float] = {}
        self._root = psutil.Process(root)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_SAMPLES):
            for process in self._tree():
                try:
                    peak = _high_water_mark(process.pid)
                    times = process.cpu_times()
                except (OSError, psutil.Error):
                    continue  # it has ended
                self.peaks[process.pid] = max(peak, self.peaks.get(process.pid, 0))
                self.cpu[process.pid] = times.user + times.system

    def _tree(self) -> Iterator[psutil.Process]:
        yield self._root
        try:
            yield from self._root.children(recursive=True)
        except psutil.Error:
            return


def _high_water_mark(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # it is a zombie
