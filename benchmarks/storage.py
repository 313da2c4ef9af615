"""Two choices that have to do with disks, each beside its opposite: to read ahead, not to flush parts."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest.mock import patch

from benchmarks.bench import Bench
from benchmarks.prepared import prepare
from benchmarks.records import Storage
from siftline.stages import scoring
from siftline.storage.files import replacing

_ROUNDS = 5
_ROWS = 5_000_000


def storage(bench: Bench) -> Storage:
    print("\n## Storage: reading ahead, flushing\n")
    data = bench.data(_ROWS)
    found = Storage.model_validate_json(bench.script("storage", data, {"chunking": {"rows": 500_000}}))
    print(f"  {found}", flush=True)
    return found


def main(config: Path) -> None:
    plan, _, tasks = prepare(config)
    files = [Path(file.path) for file in plan.snapshot.files]

    def score() -> None:
        for task in tasks:
            scoring.score_chunk(task)

    in_turn = _with(patch.object(scoring, "read_ahead", iter), score)
    flushing = _with(patch.object(scoring, "replacing", lambda path, durable: replacing(path)), score)
    score()
    found = Storage(
        ahead_cached=_ratio(score, in_turn, lambda: None),
        ahead_cold=_ratio(score, in_turn, lambda: _forget(files)),
        flushed=_ratio(flushing, score, lambda: None),
    )
    print(found.model_dump_json())


def _with(patched: AbstractContextManager[object], work: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with patched:
            work()

    return run


def _ratio(one: Callable[[], None], other: Callable[[], None], before: Callable[[], None]) -> float:
    ratios = []
    for number in range(_ROUNDS):
        seconds = {}
        for work in (one, other) if number % 2 else (other, one):
            before()
            started = time.perf_counter()
            work()
            seconds[work] = time.perf_counter() - started
        ratios.append(seconds[one] / seconds[other])
    return statistics.median(ratios)


def _forget(files: list[Path]) -> None:
    """Have the kernel forget what it has read of some files."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # what is not written yet cannot be forgotten
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
