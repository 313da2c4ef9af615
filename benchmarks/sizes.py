"""Ratios at three sizes, which show a regression on any machine; see README.md."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench, compile_kernels
from benchmarks.breakdown import KERNELS, PART_FILE, READING, seconds_per_million
from benchmarks.expectations import SIZES
from benchmarks.measure import CommandFailed, Usage, environment
from benchmarks.peers.common import WORKERS
from benchmarks.records import FLOOR, LABELS, SIFTLINE, Speed
from benchmarks.report import table, verdict
from benchmarks.server import prefect_server
from benchmarks.timeline import base_seconds, forget, small_job
from siftline.stack.kept_server import end_kept_server

# The best of the peers that need no environment of their own.
PEER = "threads"


@dataclass(frozen=True)
class Line:
    """Ratios, and the goal that the last of them should not exceed."""

    what: str
    found: tuple[float, ...]
    goal: float | None = None

    def cells(self) -> list[str]:
        """The cells of the line in a table."""
        numbers = [f"{ratio:.2f}" for ratio in self.found]
        if self.goal is None:
            return [self.what, *numbers, "", ""]
        return [self.what, *numbers, f"{self.goal:.2f}", verdict(self.found[-1] <= self.goal)]


def sizes(rows: Sequence[int], repeats: int) -> str:
    """Measure at a small, a medium and a large size, and return the ratios as Markdown."""
    small, medium, large = rows
    compile_kernels()
    with tempfile.TemporaryDirectory(prefix="siftline-benchmarks-") as temporary:
        directory = Path(temporary)
        with prefect_server(directory / "server") as api:
            bench = Bench(directory, api)
            ratios = _small_ratios(bench, small, repeats)
            speeds = [Speed(rows=size, read=0, runs=_runs(bench, size, repeats)) for size in (medium, large)]
            _say("the parts of the work")
            parts = seconds_per_million(bench, medium)
    cores = len(os.sched_getaffinity(0))
    sections = [
        f"Measured on {datetime.now(UTC):%Y-%m-%d}, cores: {cores}, rounds: {repeats}.",
        _table(f"{small:,} rows", ("of B",), small_lines(ratios)),
        _table("wall time", [f"{one.rows:,} rows" for one in speeds], wall_lines(speeds, parts)),
        _table("peak memory", [f"{large:,} rows / {medium:,} rows"], memory_lines(*speeds)),
    ]
    return "\n\n".join(sections) + "\n"


def _table(what: str, columns: Sequence[str], lines: Iterator[Line]) -> str:
    return table((what, *columns, "at most", ""), (line.cells() for line in lines), numbers=True)


def small_lines(ratios: Mapping[str, Sequence[float]]) -> Iterator[Line]:
    """Take the medians of what small commands take of B."""
    for what, found in ratios.items():
        yield Line(what, (median(found),), SIZES.get(what))


def wall_lines(speeds: Sequence[Speed], parts: Mapping[str, float]) -> Iterator[Line]:
    """Compare wall times with those of the floor, of the peer, and of the parts of the work."""
    arithmetic = sum(parts[name] for name in (READING, KERNELS, PART_FILE)) / 1e6 / WORKERS
    walls = [(speed, speed.median(SIFTLINE, "wall")) for speed in speeds]
    others = {
        f"Siftline / {LABELS[name]}": tuple(wall / speed.median(name, "wall") for speed, wall in walls)
        for name in (FLOOR, PEER)
    }
    others["Siftline / reading, kernels and part files"] = tuple(
        wall / (arithmetic * speed.rows) for speed, wall in walls
    )
    for what, found in others.items():
        yield Line(what, found, SIZES.get(what))


def memory_lines(medium: Speed, large: Speed) -> Iterator[Line]:
    """Compare peak memory at two sizes."""
    for what, field in (("own process", "coordinator"), ("largest worker", "worker")):
        yield Line(what, (large.largest(field) / medium.largest(field),), SIZES[what])


def _runs(bench: Bench, rows: int, repeats: int) -> dict[str, list[Usage]]:
    """Run Siftline and the floor in turn, and then the peer once, which takes long."""
    _say(f"{rows:,} rows")
    data = bench.data(rows)
    runs: dict[str, list[Usage]] = {SIFTLINE: [], FLOOR: []}
    for _ in range(repeats):
        for name, run in ((SIFTLINE, bench.siftline), (FLOOR, bench.floor)):
            os.sync()
            runs[name].append(run(data))
    return {**runs, PEER: [bench.peer(PEER, data)]}


def _small_ratios(bench: Bench, rows: int, repeats: int) -> dict[str, list[float]]:
    """Return the commands' shares of B, round by round; a first round fills caches only."""
    _say(f"{rows:,} rows")
    directory = bench.home("small")
    directory.mkdir(parents=True)
    config = small_job(directory, rows).name
    found = defaultdict(list)
    for _ in range(repeats + 1):
        for what, ratio in _small_round(bench, directory, config):
            found[what].append(ratio)
    return {what: ratios[1:] for what, ratios in found.items()}


def _small_round(bench: Bench, directory: Path, config: str) -> Iterator[tuple[str, float]]:
    run = ["run", config]
    forget(directory)
    yield "with a server up", _of_base(run, directory, bench.settings)
    home = directory / "prefect"
    alone = {**bench.settings, "PREFECT_API_URL": None, "PREFECT_HOME": str(home)}
    try:
        for what in ("without a server, the first time", "without a server, later"):
            forget(directory)
            yield what, _of_base(run, directory, alone)
    finally:
        end_kept_server(home / "siftline")
        shutil.rmtree(home, ignore_errors=True)
    missing = [*run, "--set", "source.path=missing.parquet"]
    yield "a missing source is refused", _of_base(missing, directory, bench.settings, status=2)
    yield "published already", _of_base(run, directory, bench.settings)
    yield "`siftline --help`", _of_base(["--help"], directory, bench.settings)


def _of_base(
    arguments: Sequence[str], directory: Path, settings: Mapping[str, str | None], status: int = 0
) -> float:
    """Seconds of a command by B, measured just before; a server that the command keeps lives on."""
    base = base_seconds(1)
    command = [str(Path(sys.executable).with_name("siftline")), *arguments]
    with (directory / "stderr").open("w+") as stderr:
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=directory, env=environment(settings), stdout=subprocess.DEVNULL, stderr=stderr
        )
        found = process.wait()
        seconds = time.monotonic() - started
        if found != status:
            stderr.seek(0)
            raise CommandFailed(f"{' '.join(command)} ended with {found}:\n{stderr.read()[-4000:]}")
    return seconds / base


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
