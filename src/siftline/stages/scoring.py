"""Scoring one chunk, on a worker: read, score, write its part file, give a receipt."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from siftline.batch_plan import Chunk, SourceFile
from siftline.detectors import kinds
from siftline.detectors.fitted import FittedModel, cached_model
from siftline.errors import RowError
from siftline.source.read_ahead import ahead
from siftline.source.reading import BATCH_ROWS, joined, read_chunk
from siftline.stages.candidates import Candidates
from siftline.stages.rejects import rejected_rows, save_rejects, score_around, too_many
from siftline.stages.threshold import summarise
from siftline.storage.files import replacing
from siftline.storage.parquet import key_columns, stored, write_parquet
from siftline.types import ChunkReceipt, DetectorRef, Float64s, KeptCandidates, Rejects, ScoreSummary

# A chunk that is too much for a worker is scored in ever smaller batches, down to about so many rows.
_FLOOR_ROWS = 1_000
# The rows of a smaller chunk are read again faster than they are set aside.
_MIN_CANDIDATE_ROWS = 10_000


@dataclass(frozen=True)
class ChunkTask:
    """All that a worker must know to score a chunk. Small: it crosses the network.

    The chunk is scored batch by batch; more `blocks` make smaller batches. When more than `tolerated_rows`
    cannot be scored, the job has failed. `share` is how much of all rows will be flagged, about.
    """

    chunk: Chunk
    files: tuple[SourceFile, ...]
    key: tuple[str, ...]
    detector: DetectorRef
    parts: str
    failed: str
    tolerated_rows: int
    blocks: int
    share: float

    def __str__(self) -> str:
        return str(self.chunk)


def halved(task: ChunkTask) -> ChunkTask | None:
    """Return the task that does the same in half the memory, or None where the floor is reached."""
    blocks = 2 * task.blocks
    rows = min(task.chunk.rows, BATCH_ROWS)
    return replace(task, blocks=blocks) if rows >= blocks * _FLOOR_ROWS else None


def score_chunk(task: ChunkTask) -> ChunkReceipt:
    """Score one chunk and write its part file: the key columns and the score. Runs on a worker.

    Doing it twice is harmless: every time there is a file of another name, and the receipt that is committed
    says which one counts.

    Raises
    ------
    RowError
        When more rows than are tolerated cannot be scored.
    SourceError, StorageError, IntegrityError
        As reading, scoring and writing do.
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
    """What became of the rows of a chunk: all scores, the rows without one, and those that stand out."""

    scores: Float64s
    rejected: pa.Table
    candidates: Candidates


def _rows_at_once(task: ChunkTask) -> int:
    return -(-min(task.chunk.rows, BATCH_ROWS) // task.blocks)


def _batches(task: ChunkTask, columns: list[str]) -> Iterator[pa.Table]:
    """Read a chunk, each batch while the one before is scored."""
    rows = _rows_at_once(task)
    batches = read_chunk(task.files, task.chunk, columns, rows)
    return ahead(batches) if task.chunk.rows > rows else batches


def _write_part(task: ChunkTask, path: Path) -> _Scored:
    """Write a chunk's rows with their scores, batch by batch: of all rows, only keys and scores are held."""
    model = cached_model(task.detector)
    columns = [*dict.fromkeys([*task.key, *(feature.column for feature in model.features)])]
    scores = np.full(task.chunk.rows, np.nan)
    keys, rejects = [], []
    candidates = Candidates(task.chunk.rows, task.share, task.detector.threshold)
    rejected = start = 0
    for table in _batches(task, columns):
        first_row, stop = task.chunk.first_row + start, start + table.num_rows
        found, refused = score_around(
            lambda rows: score_table(model, rows), table, first_row, task.tolerated_rows - rejected
        )
        scores[start:stop] = found
        keys.append(key_columns(table, task.key, first_row))
        rejects.append(rejected_rows(table, task.key, first_row, refused))
        if _keeps_candidates(task):
            candidates.add(table, found)
        start, rejected = stop, rejected + len(refused)
        if rejected > task.tolerated_rows:
            break
    rows = joined(keys).append_column("score", pa.array(scores[:start]))
    write_parquet(rows, path)
    return _Scored(scores, pa.concat_tables(rejects), candidates)


def score_table(model: FittedModel, table: pa.Table) -> Float64s:
    """Score a table; what its values make a library say is about its rows."""
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
    """Save the rows that may turn out to be anomalies, so that they need not be looked up in the source."""
    rows = scored.candidates.rows() if _keeps_candidates(task) and summary.minimum is not None else None
    if rows is None:
        return None
    path = Path(task.parts) / name
    with replacing(path, durable=False) as temporary:
        write_parquet(rows, temporary)
    return KeptCandidates(file=stored(path), floor=max(scored.candidates.floor, -sys.float_info.max))


def _keeps_candidates(task: ChunkTask) -> bool:
    """Whether it pays: not where memory is short."""
    return task.chunk.rows >= _MIN_CANDIDATE_ROWS and task.blocks == 1


@cache
def _native_libraries() -> Any:
    """BLAS and OpenMP of this process: a worker's slot is one core, and they would take them all."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def warm_up(kind: str, rows: int) -> None:
    """Import what scoring that many rows needs, so that no chunk waits for it."""
    kinds.prepare(kind, rows)
    _native_libraries()
