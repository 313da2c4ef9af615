"""Timeline of one small job: which process runs when, and on how much of a core.

    python -m benchmarks.timeline [--rows 1000] [--docs | --command 'siftline run CONFIG']

A small job runs twice in a new home of Prefect: the first command starts a server, the next one finds it.
The unit is B: the seconds that importing Prefect and scikit-learn one after the other takes here.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import tree
from benchmarks.report import write_docs
from siftline.stack.kept_server import end_kept_server

_STEP = 0.02
_WIDTH = 72
_SHADES = " .:-=+*#%@"
_NAMES = (
    ("prefect.server", "Prefect server"),
    ("siftline.flows.keeper", "Prefect server"),
    ("forkserver", "fork server, workers"),
    ("resource_tracker", "resource tracker"),
    ("sys.stdin.read", "guard"),
    ("siftline", "command"),
)


@dataclass
class Lane:
    """CPU seconds of a process, by step of time."""

    name: str
    seconds: dict[int, float] = field(default_factory=dict)
    cores: set[int] = field(default_factory=set)
    last: float = 0.0


@dataclass
class Timeline:
    """Processes and messages of a command, and its seconds."""

    lanes: dict[int, Lane]
    marks: list[tuple[float, str]]
    wall: float


def watch(command: list[str], directory: Path) -> Timeline:
    """Run a command, and sample its processes until it ends."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=directory, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    marks: list[tuple[float, str]] = []
    reader = threading.Thread(target=_read, args=(process, started, marks))
    reader.start()
    lanes: dict[int, Lane] = {}
    root = psutil.Process(process.pid)
    while process.poll() is None:
        _sample(root, lanes, int((time.monotonic() - started) / _STEP))
        time.sleep(_STEP)
    wall = time.monotonic() - started
    reader.join()
    return Timeline(lanes, marks, wall)


def _read(process: subprocess.Popen[str], started: float, marks: list[tuple[float, str]]) -> None:
    marks.extend((time.monotonic() - started, line.rstrip()) for line in process.stderr or ())


def _sample(root: psutil.Process, lanes: dict[int, Lane], step: int) -> None:
    for process in tree(root):
        try:
            times = process.cpu_times()
            used = times.user + times.system
            lane = lanes.get(process.pid)
            if lane is None:
                lane = lanes[process.pid] = Lane(_name(process.cmdline()))
            lane.seconds[step] = lane.seconds.get(step, 0.0) + used - lane.last
            lane.last = used
            lane.cores.add(process.cpu_num())
        except psutil.Error:  # it has just ended
            continue


def _name(command: list[str]) -> str:
    text = " ".join(command)
    return next((name for part, name in _NAMES if part in text), text[:20] or "?")


def base_seconds(repeats: int = 3) -> float:
    """Return B: the median of imports of Prefect and scikit-learn, one after the other."""
    found = []
    for _ in range(repeats):
        started = time.monotonic()
        for module in ("prefect", "sklearn.ensemble"):
            subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        found.append(time.monotonic() - started)
    return median(found)


def draw(timeline: Timeline, base: float) -> Iterator[str]:
    """Yield the picture's lines: a lane for each process, shaded by its share of a core."""
    yield f"wall {timeline.wall:.2f} s = {timeline.wall / base:.2f} B (B = {base:.2f} s)"
    per_column = timeline.wall / _WIDTH
    for lane in timeline.lanes.values():
        columns = np.zeros(_WIDTH)
        for step, seconds in lane.seconds.items():
            columns[min(_WIDTH - 1, int(step * _STEP / per_column))] += seconds
        shares = np.minimum(columns / per_column, 1)
        bar = "".join(_SHADES[round(share * (len(_SHADES) - 1))] for share in shares)
        cores = ",".join(map(str, sorted(lane.cores)))
        yield f"{lane.name[:20]:20} |{bar}| {sum(lane.seconds.values()):5.2f} CPU s, cores {cores}"
    for moment, text in timeline.marks:
        place = " " * (22 + min(_WIDTH - 1, int(moment / per_column)))
        yield f"{place}^ {moment:.2f} s {text}"


def small_job(directory: Path, rows: int) -> Path:
    """Write a source of ten features and a configuration; return the path of the latter."""
    values = np.random.default_rng(0).normal(size=(rows, 10))
    table = pa.table({"id": np.arange(rows)} | {f"x{i}": values[:, i] for i in range(10)})
    pq.write_table(table, directory / "rows.parquet")
    config = directory / "job.yaml"
    features = ", ".join(f"x{i}" for i in range(10))
    config.write_text(
        "name: small\n"
        f"source: {{path: rows.parquet, key: [id], features: [{features}]}}\n"
        "output: {path: results}\n"
    )
    return config


def forget(directory: Path) -> None:
    """Remove what a small job left: its result and its checkpoint."""
    for name in ("results", ".siftline"):
        shutil.rmtree(directory / name, ignore_errors=True)


def small_job_pictures(directory: Path, rows: int, base: float) -> Iterator[str]:
    """Run a small job with no server, then with the one that is kept, and draw both."""
    command = [str(Path(sys.executable).with_name("siftline")), "run", small_job(directory, rows).name]
    home = directory / "prefect"
    os.environ["PREFECT_HOME"] = str(home)
    os.environ.pop("PREFECT_API_URL", None)
    try:
        for what in ("The first command starts a Prefect server", "The next one finds it"):
            forget(directory)
            yield from ("", f"{what}:", *draw(watch(command, directory), base))
    finally:
        end_kept_server(home / "siftline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000)
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--command", help="another command than the run of a small job")
    other.add_argument("--docs", action="store_true", help="write the picture into docs/benchmarks.md too")
    arguments = parser.parse_args()
    os.environ.setdefault("DO_NOT_TRACK", "1")
    base = base_seconds()
    if arguments.command:
        picture = "\n".join(draw(watch(shlex.split(arguments.command), Path.cwd()), base))
    else:
        with tempfile.TemporaryDirectory() as directory:
            picture = "\n".join(small_job_pictures(Path(directory), arguments.rows, base)).strip()
    print(picture)
    if arguments.docs:
        write_docs("timeline", f"```text\n{picture}\n```\n")


if __name__ == "__main__":
    main()
