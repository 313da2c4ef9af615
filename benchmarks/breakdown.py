"""Where a worker's time goes: chunks are scored and labelled in one process, under Python's profiler."""

from __future__ import annotations

import cProfile
import json
import pstats
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.bench import Bench, compile_kernels
from benchmarks.prepared import prepare
from siftline.detectors.fitted import FittedModel
from siftline.detectors.forest.scorer import CompiledForest
from siftline.detectors.reasons import explain
from siftline.engine import SerialExecutor
from siftline.source import reading
from siftline.stages import scoring
from siftline.stages.candidates import Candidates
from siftline.stages.combine import combine_results
from siftline.stages.labelling import label_chunks
from siftline.storage.parquet import stored, write_parquet
from siftline.types import Receipts

READING, KERNELS, PART_FILE = (
    "reading: decode the columns",
    "kernels: ranks, nodes, leaves, powers",
    "part file: encode and write",
)
# Parts of the work, and the functions that do nothing else.
_PARTS: dict[str, list[Callable[..., Any]]] = {
    READING: [reading._slice],
    "matrix: to float32, checked": [FittedModel.matrix],
    KERNELS: [CompiledForest.score_samples],
    "candidates: the rows of the highest scores": [Candidates.add, Candidates.rows],
    PART_FILE: [write_parquet],
    "digest of what was written": [stored],
}


def seconds_per_million(bench: Bench, rows: int) -> dict[str, float]:
    """Seconds of each part per million rows."""
    sections = {"chunking": {"rows": 500_000}}
    found: dict[str, float] = json.loads(bench.script("breakdown", bench.data(rows), sections))
    return found


def breakdown(bench: Bench) -> dict[str, float]:
    """Seconds of each part per million rows, as printed."""
    print("\n## Where a worker's time goes\n")
    found = seconds_per_million(bench, 5_000_000)
    for what, seconds in found.items():
        print(f"  {seconds:.3f} s  {what}", flush=True)
    return found


def main(config: Path) -> None:
    compile_kernels()
    plan, detector, tasks = prepare(config)
    scoring.score_chunk(tasks[0])
    # In turn, because the profiler sees its own thread only.
    with patch.object(scoring, "read_ahead", iter), cProfile.Profile() as profile:
        receipts = [scoring.score_chunk(task) for task in tasks]
    whole, parts = _seconds(profile, scoring.score_chunk), _parts(profile)
    parts["the rest of scoring: histogram, receipts"] = whole - sum(parts.values())
    with cProfile.Profile() as profile:
        combine_results(plan, detector, Receipts(receipts, len(receipts), []), SerialExecutor())
    reasons = _seconds(profile, explain)
    parts["labels: read parts, write results, digests"] = _seconds(profile, label_chunks) - reasons
    parts["reasons of the anomalies"] = reasons
    print(json.dumps({what: seconds / plan.rows * 1e6 for what, seconds in parts.items()}))


def _parts(profile: cProfile.Profile) -> dict[str, float]:
    return {
        what: sum(_seconds(profile, function) for function in functions) for what, functions in _PARTS.items()
    }


def _seconds(profile: cProfile.Profile, function: Callable[..., Any]) -> float:
    """Time within a function, what it calls included; a function that never ran is a mistake here."""
    stats: dict[tuple[str, int, str], tuple[Any, ...]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    code = getattr(function, "py_func", function).__code__
    place = (code.co_filename, code.co_firstlineno, code.co_name)
    (found,) = [one for called, one in stats.items() if called == place]
    return float(found[3])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
