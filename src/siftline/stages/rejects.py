"""Rejects: finding rows that cannot be scored, and setting them aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from siftline.errors import RowError
from siftline.storage.files import replacing
from siftline.storage.parquet import stored, write_parquet
from siftline.types import Float64s, Ints, Rejects

SCHEMA = (
    pa.field("row", pa.int64()),
    pa.field("error", pa.string()),
    pa.field("message", pa.string()),
    pa.field("attempts", pa.int32()),
)


@dataclass(frozen=True)
class Reject:
    """A row that cannot be scored: position, error and number of attempts."""

    row: int
    error: str
    message: str
    attempts: int


def score_around(
    score: Callable[[pa.Table], Float64s], table: pa.Table, first_row: int, limit: int
) -> tuple[Float64s, list[Reject]]:
    """Score the rows of a table, except those that cannot be scored.

    `score` returns float64 of shape (n,) or raises `RowError`; without finite score a row is rejected too. If
    `score` does not name the rows it refuses, bisection finds them: one of n takes at most
    ``2 * ceil(log2(n)) + 1`` calls. After more than `limit` rejects the remaining rows are not tried.

    Returns the scores, NaN where there is none, and the rejects in row order.
    """
    scores = np.full(table.num_rows, np.nan)
    rejects: list[Reject] = []
    todo = [(np.arange(table.num_rows), 1)]
    while todo and len(rejects) <= limit:
        rows, attempts = todo.pop()
        try:
            found = score(table if len(rows) == table.num_rows else table.take(pa.array(rows)))
        except RowError as error:
            bad = np.asarray(error.rows, dtype=np.int64) if len(rows) > 1 else np.array([0])
            rejects += _rejects(rows[bad] + first_row, type(error).__name__, error.problem, attempts)
            todo += [(rest, attempts + 1) for rest in _rest(rows, bad)]
        else:
            bad = ~np.isfinite(found)
            if len(rows) == table.num_rows and not bad.any():
                return found, []
            scores[rows] = found
            scores[rows[bad]] = np.nan
            what = "the detector returned no finite score"
            rejects += _rejects(rows[bad] + first_row, "RowError", what, attempts)
    return scores, sorted(rejects, key=lambda reject: reject.row)


def _rejects(rows: Ints, error: str, message: str, attempts: int) -> list[Reject]:
    return [Reject(row, error, message, attempts) for row in rows.tolist()]


def _rest(rows: Ints, bad: Ints) -> list[Ints]:
    """Return the rows to try next: the others if the bad ones are known, else both halves."""
    if not len(bad):
        middle = len(rows) // 2
        return [rows[middle:], rows[:middle]]
    rest = np.delete(rows, bad)
    return [rest] if len(rest) else []


def rejected_rows(table: pa.Table, key: Sequence[str], first_row: int, rejects: Sequence[Reject]) -> pa.Table:
    """Return a table of rejects: the columns of `SCHEMA` and the keys, named ``key_…`` where both clash."""
    positions = pa.array([reject.row - first_row for reject in rejects], pa.int64())
    others = {one.name: pa.array([getattr(row, one.name) for row in rejects], one.type) for one in SCHEMA}
    keys = {f"key_{name}" if name in others else name: table[name].take(positions) for name in key}
    return pa.table(keys | others)


def save_rejects(rows: pa.Table, path: Path) -> Rejects:
    """Write a table of at least one reject."""
    with replacing(path, durable=False) as temporary:
        write_parquet(rows, temporary)
    first = f"row {rows['row'][0]}: {rows['message'][0]}"
    return Rejects(file=stored(path), rows=rows.num_rows, first=first)


def too_many(rejects: int, limit: int, first: str, where: Path) -> RowError:
    """Return the error for more rejects than tolerated."""
    rows = "1 row" if rejects == 1 else f"{rejects:,} rows"
    tolerated = "none is" if limit == 0 else f"{limit:,} {'is' if limit == 1 else 'are'}"
    return RowError(
        f"{first} ({rows} so far cannot be scored, {tolerated} tolerated; see {where})",
        "correct the values, leave the feature out of source.features, or raise tolerate.rows",
    )
