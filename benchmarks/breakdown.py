"""Where a worker's time goes: chunks are scored and labelled in one process, under Python's profiler."""

from __future__ import annotations

import cProfile
import json
import pstats
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.bench import Bench
from benchmarks.prepared import prepare
from siftline.engine import SerialExecutor
from siftline.stages import scoring
from siftline.stages.combine import combine_results
from siftline.types import Receipts

_ROWS = 5_000_000
# What is done, and the functions that do nothing else: their module's file and their name.
_PARTS = {
    "reading: decode the columns": [("source.py", "_slice")],
    "matrix: to float32, checked": [("models.py", "matrix")],
    "kernels: ranks, nodes, leaves": [("kernels.py", "add_depths")],
    "candidates: the rows of the highest scores": [("candidates.py", "add"), ("candidates.py", "rows")],
    "part file: encode and write": [("parts.py", "write_parquet")],
    "digest of what was written": [("parts.py", "stored")],
}


def breakdown(bench: Bench) -> dict[str, float]:
    """Seconds per million rows."""
    print("\n## Where a worker's time goes\n")
    sections = {"chunking": {"rows": 500_000}}
    found: dict[str, float] = json.loads(bench.script("breakdown", bench.data(_ROWS), sections))
    for what, seconds in found.items():
        print(f"  {seconds:.3f} s  {what}", flush=True)
    return found


def main(config: Path) -> None:
    plan, detector, tasks = prepare(config)
    scoring.score_chunk(tasks[0])
    # In turn, because the profiler sees its own thread only.
    with patch.object(scoring, "ahead", iter), cProfile.Profile() as profile:
        receipts = [scoring.score_chunk(task) for task in tasks]
    whole, parts = _seconds(profile, "scoring.py", "score_chunk"), _parts(profile)
    parts["the rest of scoring: powers, histogram, receipts"] = whole - sum(parts.values())
    with cProfile.Profile() as profile:
        combine_results(plan, detector, Receipts(receipts, len(receipts), []), SerialExecutor())
    reasons = _seconds(profile, "reasons.py", "explain")
    parts["labels: read parts, write results, digests"] = (
        _seconds(profile, "combine.py", "label_chunks") - reasons
    )
    parts["reasons of the anomalies"] = reasons
    print(json.dumps({what: seconds / plan.rows * 1e6 for what, seconds in parts.items()}))


def _parts(profile: cProfile.Profile) -> dict[str, float]:
    return {
        what: sum(_seconds(profile, file, name) for file, name in functions)
        for what, functions in _PARTS.items()
    }


def _seconds(profile: cProfile.Profile, file: str, name: str) -> float:
    """Time within all functions of a name in a file, what they call included."""
    stats: dict[tuple[str, int, str], tuple[Any, ...]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    return sum(
        float(one[3]) for (path, _, called), one in stats.items() if (Path(path).name, called) == (file, name)
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
