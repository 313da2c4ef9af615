"""What a chunk costs beside its scoring: the step's wall time less its share of the serial scoring."""

from __future__ import annotations

import json
import shutil

from benchmarks.bench import Bench
from benchmarks.measure import Usage
from benchmarks.peers.common import WORKERS
from benchmarks.records import SIFTLINE, Chunks
from benchmarks.server import step_seconds

TINY_CHUNKS: dict[str, object] = {
    "chunking": {"rows": 100},
    "detector": {"params": {"n_estimators": 1}},
    "validation": {"ties": "warn"},  # many rows end in the same leaf of one tree
}


def chunks(bench: Bench, count: int) -> Chunks:
    """Run very many chunks of 100 rows."""
    print(f"\n## Orchestration: {count:,} chunks of 100 rows, {WORKERS} workers\n")
    data = bench.data(100 * count, 100)
    idle = bench.siftline(bench.data(1000), TINY_CHUNKS)
    usage = bench.siftline(data, TINY_CHUNKS)
    serial = float(bench.script("serial", data, TINY_CHUNKS))
    detect = _detect_seconds(bench, usage, count)
    found = Chunks(
        count=count,
        wall=(detect - serial / WORKERS) / count * 1000,
        all=detect / count * 1000,
        coordinator=(usage.coordinator_cpu - idle.coordinator_cpu) / count * 1000,
    )
    print(f"  ({detect:.2f} s - {serial:.2f} s / {WORKERS}) / {count:,} = {found.wall:.2f} ms a chunk;")
    print(f"  {found.coordinator:.2f} ms of the coordinator's CPU", flush=True)
    shutil.rmtree(bench.home(SIFTLINE), ignore_errors=True)
    return found


def _detect_seconds(bench: Bench, usage: Usage, count: int) -> float:
    result = json.loads(usage.output)
    if result["chunks_computed"] != count:
        raise RuntimeError("not the chunks that were asked for")
    return step_seconds(bench.api, result["flow_run_id"])["detect_chunks"]
