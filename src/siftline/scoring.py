"""Scoring one chunk, on a worker: read, score, write its part file, give a receipt."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from siftline import forest
from siftline.chunks import cut_blocks
from siftline.errors import RowError
from siftline.files import replacing
from siftline.models import FittedModel, cached_model
from siftline.parts import key_columns, parquet_writer, stored
from siftline.rejects import rejected_rows, save_rejects, score_around, too_many
from siftline.source import read_chunk
from siftline.threshold import summarise
from siftline.types import Chunk, ChunkReceipt, DetectorRef, Float64s, Rejects, SourceFile

# A chunk that is too much for a worker is halved down to runs of about so many rows.
_FLOOR_ROWS = 1_000


@dataclass(frozen=True)
class ChunkTask:
    """All that a worker must know to score a chunk. Small: it crosses the network.

    The chunk is scored in `blocks` runs of rows, one after the other. When more than `tolerated_rows` cannot
    be scored, the job has failed.
    """

    chunk: Chunk
    files: tuple[SourceFile, ...]
    key: tuple[str, ...]
    detector: DetectorRef
    parts: str
    failed: str
    tolerated_rows: int
    blocks: int

    def __str__(self) -> str:
        return str(self.chunk)


def halved(task: ChunkTask) -> ChunkTask | None:
    """Return the task that does the same in half the memory, or None where the floor is reached."""
    blocks = 2 * task.blocks
    return replace(task, blocks=blocks) if task.chunk.rows >= blocks * _FLOOR_ROWS else None


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
    name = f"chunk-{task.chunk.index:07d}-{secrets.token_hex(4)}.parquet"
    part = Path(task.parts) / name
    with replacing(part, durable=False) as temporary:
        scores, rejected = _write_part(task, temporary)
    return ChunkReceipt(
        chunk=task.chunk.index,
        first_row=task.chunk.first_row,
        rows=task.chunk.rows,
        part=stored(part),
        detector=task.detector.model_digest,
        summary=summarise(scores),
        rejects=_set_aside(task, rejected, name),
    )


def _write_part(task: ChunkTask, path: Path) -> tuple[Float64s, pa.Table]:
    """Write a chunk's rows with their scores, and return all scores, and the rows that have none."""
    model = cached_model(task.detector)
    columns = [*dict.fromkeys([*task.key, *(feature.column for feature in model.features)])]
    every_score: list[Float64s] = []
    every_reject: list[pa.Table] = []
    writer = None
    for block in cut_blocks(task.chunk, task.blocks):
        table = read_chunk(task.files, block, columns)
        scores, rejects = score_around(
            lambda rows: _score(model, rows), table, block.first_row, task.tolerated_rows
        )
        rows = key_columns(table, task.key, block.first_row).append_column("score", pa.array(scores))
        writer = writer or parquet_writer(path, rows.schema)
        writer.write_table(rows)
        every_score.append(scores)
        every_reject.append(rejected_rows(table, task.key, block.first_row, rejects))
    if writer is not None:
        writer.close()
    return np.concatenate(every_score), pa.concat_tables(every_reject)


def _score(model: FittedModel, table: pa.Table) -> Float64s:
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


@cache
def _native_libraries() -> Any:
    """BLAS and OpenMP of this process: a worker's slot is one core, and they would take them all."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def warm_up(rows: int) -> None:
    """Import what scoring so many rows needs, so that the first chunk doesn't wait for it."""
    import sklearn.ensemble  # noqa: F401

    _native_libraries()
    forest.prepare(rows)
