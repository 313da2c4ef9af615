"""Detecting: every chunk read, scored and written by a worker; every receipt committed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from siftline.checkpoint import Checkpoint, CheckpointStore, missing
from siftline.executor import Executor
from siftline.files import file_digest, replacing
from siftline.models import cached_model
from siftline.parts import key_columns, write_parquet
from siftline.progress import Progress, report
from siftline.source import only_files, read_chunk
from siftline.threshold import count_from, flagged_count, summarise
from siftline.types import BatchPlan, Chunk, ChunkReceipt, DetectorRef, Receipts, SourceFile


@dataclass(frozen=True)
class ChunkTask:
    """All that a worker must know to score a chunk. Small: it crosses the network."""

    chunk: Chunk
    files: tuple[SourceFile, ...]
    key: tuple[str, ...]
    detector: DetectorRef
    parts: str


def detect_chunks(
    plan: BatchPlan, detector: DetectorRef, executor: Executor, store: CheckpointStore
) -> Receipts:
    """Score the chunks that have no receipt yet, and commit each receipt as it comes.

    Whatever ends this early, an error or an interruption, what has arrived is committed first.

    Raises
    ------
    SiftlineError
        The first error of a chunk.
    """
    checkpoint = Checkpoint(plan, store)
    done = checkpoint.load(detector.model_digest)
    todo = missing(plan, done)
    tally = _Tally(plan, detector)
    for receipt in done.values():
        tally.add(receipt, reused=True)
    tally.report()
    try:
        for outcome in executor.run(score_chunk, chunk_tasks(plan, detector, todo), plan.bundle):
            receipt = outcome.result()
            checkpoint.add(receipt)
            done[receipt.chunk] = receipt
            tally.add(receipt)
            tally.report()
    finally:
        checkpoint.flush()
    return Receipts(list(done.values()), computed=len(todo))


def chunk_tasks(plan: BatchPlan, detector: DetectorRef, chunks: Iterable[int]) -> Iterator[ChunkTask]:
    """Give the tasks of some chunks, each with the files that it reads only."""
    for index in chunks:
        files, (chunk,) = only_files(plan.snapshot.files, [plan.chunks[index]])
        yield ChunkTask(chunk, files, plan.config.source.key, detector, str(plan.parts))


def score_chunk(task: ChunkTask) -> ChunkReceipt:
    """Score one chunk and write its part file: the key columns and the score. Runs on a worker.

    Doing it twice is harmless: the part file is replaced by an equal one.

    Raises
    ------
    SourceError, FeatureError, StorageError, IntegrityError
        As reading, scoring and writing do.
    """
    model = cached_model(task.detector)
    features = dict.fromkeys(feature.column for feature in model.features)
    table = read_chunk(task.files, task.chunk, [*dict.fromkeys([*task.key, *features])])
    matrix = model.matrix(table, task.chunk.first_row)
    keys = key_columns(table, task.key, task.chunk.first_row)
    del table
    with _native_libraries().limit(limits=1):
        scores = model.score(matrix, task.chunk.first_row)
    part = Path(task.parts) / f"chunk-{task.chunk.index:07d}.parquet"
    with replacing(part, durable=False) as temporary:
        write_parquet(keys.append_column("score", pa.array(scores)), temporary)
    return ChunkReceipt(
        chunk=task.chunk.index,
        first_row=task.chunk.first_row,
        rows=task.chunk.rows,
        part=part.name,
        size=part.stat().st_size,
        part_digest=file_digest(part),
        detector=task.detector.model_digest,
        summary=summarise(scores),
    )


@cache
def _native_libraries() -> Any:
    """BLAS and OpenMP of this process: a worker's slot is one core, and they would take them all."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def warm_up() -> None:
    """Import what scoring needs, so that the first chunk doesn't wait for it."""
    import sklearn.ensemble  # noqa: F401

    _native_libraries()


class _Tally:
    """How far detection is."""

    def __init__(self, plan: BatchPlan, detector: DetectorRef) -> None:
        self._plan = plan
        self._threshold = detector.threshold
        self._chunks = self._rows = self._reused = self._reaching = 0

    def add(self, receipt: ChunkReceipt, reused: bool = False) -> None:
        self._chunks += 1
        self._rows += receipt.rows
        self._reused += reused
        if self._threshold is not None:
            self._reaching += count_from(receipt.summary, self._threshold)

    def report(self) -> None:
        expected = flagged_count(self._plan.config.threshold.share, self._rows)
        report(
            Progress(
                "detect",
                chunks_done=self._chunks,
                chunks_total=len(self._plan.chunks),
                rows_done=self._rows,
                rows_total=self._plan.rows,
                reused=self._reused,
                anomalies=expected if self._threshold is None else self._reaching,
            )
        )
