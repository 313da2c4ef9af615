"""Scoring a chunk on a worker: reading, scoring, and writing its part file."""

from __future__ import annotations

import math
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from siftline.batch_plan import BATCH_ROWS, Chunk, SourceFile, batch_rows
from siftline.detectors import kinds
from siftline.detectors.fitted import FittedModel, cached_model
from siftline.errors import RowError
from siftline.source.read_ahead import read_ahead
from siftline.source.reading import joined, read_chunk
from siftline.stages.candidates import Candidates
from siftline.stages.rejects import rejected_rows, save_rejects, score_around, too_many
from siftline.stages.threshold import summarise
from siftline.storage.files import replacing
from siftline.storage.parquet import key_columns, stored, write_parquet
from siftline.types import ChunkReceipt, DetectorRef, Float64s, KeptCandidates, Rejects, ScoreSummary

# A chunk too large for a worker is scored in ever smaller batches, down to about this many rows.
_FLOOR_ROWS = 1_000
# Reading a smaller chunk again is faster than keeping candidates.
_MIN_CANDIDATE_ROWS = 10_000


@dataclass(frozen=True)
class ChunkTask:
    """Task of scoring one chunk; small, because it crosses the network.

    Batches are `batch_divisor` times smaller than usual. With more than `tolerated_rows` rejects, the job
    fails. `share` is the expected share of flagged rows.
    """

    chunk: Chunk
    files: tuple[SourceFile, ...]
    key: tuple[str, ...]
    detector: DetectorRef
    parts: str
    failed: str
    tolerated_rows: int
    batch_divisor: int
    share: float

    def __str__(self) -> str:
        return str(self.chunk)

    @property
    def number(self) -> int:
        """Number of the chunk."""
        return self.chunk.index

    @property
    def rows(self) -> int:
        """Rows of the chunk."""
        return self.chunk.rows


def halved(task: ChunkTask) -> ChunkTask | None:
    """Return the same task for half the memory, or None at the smallest batches."""
    batch_divisor = 2 * task.batch_divisor
    rows = min(task.chunk.rows, BATCH_ROWS)
    return replace(task, batch_divisor=batch_divisor) if rows >= batch_divisor * _FLOOR_ROWS else None


def score_chunk(task: ChunkTask) -> ChunkReceipt:
    """Score one chunk on a worker, and write its part file: key columns and scores.

    Repeating it is harmless: each file has a new name, and the committed receipt names the one that counts.
    More rejects than tolerated raise `RowError`.
    """
    name = f"chunk-{task.chunk.index:07d}-{secrets.token_hex(4)}"
    part = Path(task.parts) / f"{name}.parquet"
    with replacing(part, durable=False) as temporary:
        scored = _write_part(task, temporary)
    summary = summarise(scored.scores)
    return ChunkReceipt(
        chunk=task.chunk.index,
        first_row=task.chunk.first_row,
        rows=task.chunk.rows,
        part=stored(part),
        detector=task.detector.model_digest,
        summary=summary,
        rejects=_set_aside(task, scored.rejected, f"{name}.parquet"),
        candidates=_keep_candidates(task, scored, summary, f"{name}-candidates.parquet"),
    )


@dataclass(frozen=True)
class _Scored:
    """Scores of a chunk, its rejected rows, and its candidates."""

    scores: Float64s
    rejected: pa.Table
    candidates: Candidates


def _batches(task: ChunkTask, columns: list[str]) -> Iterator[pa.Table]:
    """Read a chunk, each batch while the previous one is scored."""
    rows = -(-min(task.chunk.rows, batch_rows(len(columns))) // task.batch_divisor)
    batches = read_chunk(task.files, task.chunk, columns, rows)
    return read_ahead(batches) if task.chunk.rows > rows else batches


def _write_part(task: ChunkTask, path: Path) -> _Scored:
    """Write a chunk's keys and scores; only these are held for all rows."""
    model = cached_model(task.detector)
    columns = [*dict.fromkeys([*task.key, *(feature.column for feature in model.features)])]
    scores = np.full(task.chunk.rows, np.nan)
    keys: list[pa.Table] = []
    rejects: list[pa.Table] = []
    # None of a small chunk, or while memory is short.
    keep = task.chunk.rows >= _MIN_CANDIDATE_ROWS and task.batch_divisor == 1
    candidates = Candidates(task.chunk.rows, task.share, task.detector.threshold if keep else math.inf)
    rejected = start = 0
    for table in _batches(task, columns):
        first_row, stop = task.chunk.first_row + start, start + table.num_rows
        found, refused = score_around(
            lambda rows: score_table(model, rows), table, first_row, task.tolerated_rows - rejected
        )
        scores[start:stop] = found
        keys.append(key_columns(table, task.key, first_row))
        if refused or not rejects:
            rejects.append(rejected_rows(table, task.key, first_row, refused))
        candidates.add(table, found)
        start, rejected = stop, rejected + len(refused)
        if rejected > task.tolerated_rows:
            break
    write_parquet(joined(keys).append_column("score", pa.array(scores[:start])), path)
    return _Scored(scores, pa.concat_tables(rejects), candidates)


def score_table(model: FittedModel, table: pa.Table) -> Float64s:
    """Score a table; map a library's ValueError to the rows that caused it."""
    try:
        matrix = model.matrix(table)
        with _native_libraries().limit(limits=1):
            return model.score(matrix)
    except (ValueError, ArithmeticError) as error:
        what = " ".join(str(error).split())
        raise RowError(f"{type(error).__name__}: {what}", "correct the values in the source") from error


def _set_aside(task: ChunkTask, rejected: pa.Table, name: str) -> Rejects | None:
    if not rejected.num_rows:
        return None
    path = Path(task.failed) / name
    rejects = save_rejects(rejected, path)
    if rejects.rows > task.tolerated_rows:
        raise too_many(rejects.rows, task.tolerated_rows, rejects.first, path)
    return rejects


def _keep_candidates(
    task: ChunkTask, scored: _Scored, summary: ScoreSummary, name: str
) -> KeptCandidates | None:
    """Save likely anomalies, so that the source need not be read again."""
    rows = scored.candidates.rows() if summary.minimum is not None else None
    if rows is None:
        return None
    path = Path(task.parts) / name
    with replacing(path, durable=False) as temporary:
        write_parquet(rows, temporary)
    return KeptCandidates(file=stored(path), floor=max(scored.candidates.floor, -sys.float_info.max))


@cache
def _native_libraries() -> Any:
    """Return BLAS and OpenMP of this process, which would use all cores; a worker's slot is one."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def warm_up(kind: str, rows: int) -> None:
    """Import the libraries for scoring that many rows, so that no chunk waits for them."""
    kinds.prepare(kind, rows)
    _native_libraries()
