"""Siftline, its peers and the floor, in turn, each a fresh process."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measure import CommandFailed, Usage
from benchmarks.records import FLOOR, LABELS, SIFTLINE, Detail, Proof, Speed
from benchmarks.server import flow_start, step_seconds, step_times


def tiny_run(bench: Bench) -> Usage:
    """The same command where there is next to nothing to do."""
    data = bench.data(1000)
    bench.siftline(data)  # Python caches what is not yet
    return bench.siftline(data)


def one_round(bench: Bench, proof: Proof, speed: Speed, number: int) -> None:
    """Run everybody once, in an order drawn for each round, with nothing left to be written to the disk."""
    names = list(speed.runs)
    random.Random(f"{speed.rows} {number}").shuffle(names)
    data = bench.data(speed.rows)
    for name in names:
        os.sync()
        try:
            usage = _run(bench, speed, name, data)
        except CommandFailed as error:
            if name in (SIFTLINE, FLOOR):
                raise
            proof.drop(name, str(error).strip().splitlines()[-1])
            continue
        speed.runs[name].append(usage)
        print(
            f"  {speed.rows:,} rows, round {number + 1}: {LABELS[name]:<28} {usage.wall:8.1f} s", flush=True
        )


def _run(bench: Bench, speed: Speed, name: str, data: Path) -> Usage:
    if name == FLOOR:
        return bench.floor(data)
    if name != SIFTLINE:
        return bench.peer(name, data)
    usage = bench.siftline(data, keep=True)
    speed.details.append(detail(bench, usage))
    home = bench.home(SIFTLINE)
    speed.chunks = json.loads(usage.output)["chunks"]
    speed.written = sum(_size(home / part) for part in ("results", ".siftline"))
    shutil.rmtree(home)
    return usage


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def detail(bench: Bench, usage: Usage) -> Detail:
    """Where the time of a run went that has just ended."""
    result = json.loads(usage.output)
    run = result["flow_run_id"]
    seconds = step_seconds(bench.api, run)
    times = step_times(bench.api, run)
    flow = result["wall_seconds"]
    parts = bench.home(SIFTLINE).glob(".siftline/jobs/*/parts-*/*")
    marks = {
        "the flow run begins": flow_start(bench.api, run),
        "planning begins": times["plan_batch"][0],
        "fitting begins": times["fit_detector"][0],
        "the first chunk is sent to a worker": times["detect_chunks"][0],
        "the first chunk is scored and written": min(path.stat().st_mtime for path in parts),
        "the last chunk is scored, and combining begins": times["combine_results"][0],
        "the result is published": times["publish_results"][1],
        "the command ends": usage.begun + usage.wall,
    }
    return Detail(
        steps={
            "before and after the flow": usage.wall - flow,
            **seconds,
            "between the steps": flow - sum(seconds.values()),
        },
        marks={name: time - usage.begun for name, time in marks.items()},
    )
