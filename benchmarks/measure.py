"""A command measured from outside: wall time, CPU time and peak memory of every process of its tree."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_SECONDS_BETWEEN_SAMPLES = 0.1
_SECONDS_BETWEEN_SUMS = 0.3
# To add up what a tree of processes holds, the kernel walks through all their pages: this share of a core.
_SHARE_FOR_SUMS = 0.04
_GIVE_UP_AFTER_SECONDS = 3600.0


@dataclass(frozen=True)
class Usage:
    """What a command took: seconds and bytes.

    `coordinator` is the peak memory of the command's own process, `worker` that of the largest process
    it started (0 where it started none), both as the kernel's high-water mark of resident memory. `tree` is
    the highest sum over all its processes at one time, pages that some share counted once. `begun` is when
    it was started, since the epoch.
    """

    wall: float
    cpu: float
    coordinator_cpu: float
    coordinator: int
    worker: int
    tree: int
    begun: float
    output: str = ""


class CommandFailed(Exception):
    """The measured command ended with an error, or did not end."""


def measure(
    command: Sequence[str],
    directory: Path,
    settings: Mapping[str, str | None],
    give_up_after: float = _GIVE_UP_AFTER_SECONDS,
) -> Usage:
    """Run a command in a directory, with settings in its environment (None: not there), and measure it."""
    with (directory / "stdout").open("w+") as stdout, (directory / "stderr").open("w+") as stderr:
        begun, started = time.time(), time.monotonic()
        process = subprocess.Popen(
            command, cwd=directory, env=environment(settings), stdout=stdout, stderr=stderr
        )
        with _Sampler(process.pid) as sampler:
            try:
                status: int | str = process.wait(give_up_after)
            except subprocess.TimeoutExpired:
                status = f"nothing after {give_up_after:.0f} s"
            wall = time.monotonic() - started
            _end(process, sampler)
        for file in (stdout, stderr):
            file.seek(0)
        if status:
            raise CommandFailed(f"{' '.join(command)} ended with {status}:\n{stderr.read()[-4000:]}")
        peaks = dict(sampler.peaks)
        return Usage(
            wall=wall,
            cpu=sum(sampler.cpu.values()),
            coordinator_cpu=sampler.cpu.get(process.pid, 0.0),
            coordinator=peaks.pop(process.pid, 0),
            worker=max(peaks.values(), default=0),
            tree=sampler.tree,
            begun=begun,
            output=stdout.read(),
        )


def environment(settings: Mapping[str, str | None]) -> dict[str, str]:
    """The environment of a command: ours with settings (None: not there)."""
    # Users' Pythons keep what they compile.
    changed = {**os.environ, **settings, "PYTHONDONTWRITEBYTECODE": None}
    return {name: value for name, value in changed.items() if value is not None}


def _end(process: subprocess.Popen[bytes], sampler: _Sampler) -> None:
    """End what is left of a command, so that the next one has the machine for itself."""
    for descendant in sampler.known:
        with suppress(psutil.Error):
            descendant.kill()
    process.kill()
    process.wait()


class _Sampler:
    """Watches a process and all that descend from it.

    Peak memory is the kernel's own mark (VmHWM), so that a sample need not fall on the peak, only after it.
    """

    def __init__(self, root: int) -> None:
        self.peaks: dict[int, int] = {}
        self.cpu: dict[int, float] = {}
        self.known: set[psutil.Process] = set()
        self.tree = 0
        self._root = psutil.Process(root)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._run, self._sum)]

    def __enter__(self) -> _Sampler:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_SECONDS_BETWEEN_SAMPLES):
            for process in self._tree():
                try:
                    peak = kernel_bytes(process.pid, "status", "VmHWM:")
                    times = process.cpu_times()
                except (OSError, psutil.Error):
                    continue  # it has ended
                self.peaks[process.pid] = max(peak, self.peaks.get(process.pid, 0))
                self.cpu[process.pid] = times.user + times.system

    def _sum(self) -> None:
        pause = _SECONDS_BETWEEN_SUMS
        while not self._stop.wait(pause):
            started = time.thread_time()
            total = 0
            for process in self._tree():
                with suppress(OSError, psutil.Error):
                    total += kernel_bytes(process.pid, "smaps_rollup", "Pss:")
            self.tree = max(self.tree, total)
            pause = max(_SECONDS_BETWEEN_SUMS, (time.thread_time() - started) / _SHARE_FOR_SUMS)

    def _tree(self) -> list[psutil.Process]:
        processes = tree(self._root)
        self.known.update(processes[1:])
        return processes


def tree(root: psutil.Process) -> list[psutil.Process]:
    """A process and all that descend from it; alone once it has ended."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return [root]


def kernel_bytes(pid: int, file: str, name: str) -> int:
    """A number of bytes that the kernel tells of a process in kB."""
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0  # it is a zombie
