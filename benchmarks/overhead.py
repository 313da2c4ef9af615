"""What readiness for faults costs when nothing fails: the same chunks with and without it, in one process."""

from __future__ import annotations

import json
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.prepared import prepare
from siftline.detectors.fitted import cached_model
from siftline.engine import SerialExecutor, run_with_retries
from siftline.source.reading import joined, read_chunk
from siftline.stages.candidates import Candidates
from siftline.stages.scoring import ChunkTask, halved, score_chunk
from siftline.stages.threshold import summarise
from siftline.storage.files import replacing
from siftline.storage.parquet import key_columns, stored, write_parquet

_ROUNDS = 15


def bare(task: ChunkTask) -> None:
    """What is left of scoring a chunk if nothing can fail: read, score, write, summarise, keep candidates."""
    model = cached_model(task.detector)
    columns = [*task.key, *(feature.column for feature in model.features)]
    candidates = Candidates(task.chunk.rows, task.share, task.detector.threshold)
    keys, found = [], []
    for table in read_chunk(task.files, task.chunk, columns):
        found.append(model.score(model.matrix(table)))
        keys.append(key_columns(table, task.key, task.chunk.first_row))
        candidates.add(table, found[-1])
    scores = np.concatenate(found)
    _write(task, "bare", joined(keys).append_column("score", pa.array(scores)))
    kept = candidates.rows()
    if kept is not None:
        _write(task, "bare-candidates", kept)
    summarise(scores)


def _write(task: ChunkTask, name: str, rows: pa.Table) -> None:
    # A name of its own, as the real one has: to replace a file costs more.
    part = Path(task.parts) / f"{name}-{task.chunk.index}-{secrets.token_hex(4)}.parquet"
    with replacing(part, durable=False) as temporary:
        write_parquet(rows, temporary)
    stored(part)


def main(config: Path) -> None:
    plan, _, tasks = prepare(config)

    def plainly() -> None:
        for task in tasks:
            bare(task)

    def guarded() -> None:
        runs = run_with_retries(SerialExecutor(), score_chunk, tasks, plan.config.retries, split=halved)
        for settled in runs:
            settled.result()

    ratios = []
    for number in range(_ROUNDS + 1):
        # Whoever is second finds the caches warm: they take turns.
        order = (plainly, guarded) if number % 2 else (guarded, plainly)
        seconds = {one.__name__: _timed(one) for one in order}
        ratios.append(seconds["guarded"] / seconds["plainly"])
    print(json.dumps({"median": statistics.median(ratios[1:]), "all": ratios[1:]}))


def _timed(work: Callable[[], None]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main(Path(sys.argv[1]))
