"""Rows that cannot be scored: finding them, with the others scored all the same, and setting them aside."""

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
    """A row that cannot be scored: its position, why, and how many times it was tried."""

    row: int
    error: str
    message: str
    attempts: int


def score_around(
    score: Callable[[pa.Table], Float64s], table: pa.Table, first_row: int, limit: int
) -> tuple[Float64s, list[Reject]]:
    """Score the rows of a table, all but those that cannot be scored.

    Where `score` does not say which rows it refuses, they are found by bisection: one among n takes at most
    ``2 * ceil(log2(n)) + 1`` calls.

    Parameters
    ----------
    score : callable
        Gives the scores of a table, float64 of shape (n,), or raises `RowError`. A score that is not finite
        means the same for its row.
    table : Table
        n rows.
    first_row : int
        Position in the source of the first one.
    limit : int
        How many rows may be refused.

    Returns
    -------
    scores : ndarray of shape (n,), float64
        NaN where a row cannot be scored.
    rejects : list of Reject
        In order of rows. As soon as there are more than `limit`, what remains is not tried any more.
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
            scores[rows] = found
            bad = ~np.isfinite(found)
            scores[rows[bad]] = np.nan
            rejects += _rejects(rows[bad] + first_row, "RowError", "the detector gives it no score", attempts)
    return scores, sorted(rejects, key=lambda reject: reject.row)


def _rejects(rows: Ints, error: str, message: str, attempts: int) -> list[Reject]:
    return [Reject(row, error, message, attempts) for row in rows.tolist()]


def _rest(rows: Ints, bad: Ints) -> list[Ints]:
    """What is to be tried next: the other rows where the bad ones are known, else both halves."""
    if not len(bad):
        middle = len(rows) // 2
        return [rows[middle:], rows[:middle]]
    rest = np.delete(rows, bad)
    return [rest] if len(rest) else []


def rejected_rows(table: pa.Table, key: Sequence[str], first_row: int, rejects: Sequence[Reject]) -> pa.Table:
    """Return the table of some rejects: their key columns, position, error, message and attempts.

    A key column that is called like one of the others is called ``key_…`` here.
    """
    positions = pa.array([reject.row - first_row for reject in rejects], pa.int64())
    others = {
        field.name: pa.array([getattr(reject, field.name) for reject in rejects], field.type)
        for field in SCHEMA
    }
    own = {f"key_{name}" if name in others else name: table[name].take(positions) for name in key}
    return pa.table(own | others)


def save_rejects(rows: pa.Table, path: Path) -> Rejects:
    """Write a table of rejects, of one row at least."""
    with replacing(path, durable=False) as temporary:
        write_parquet(rows, temporary)
    first = f"row {rows['row'][0]}: {rows['message'][0]}"
    return Rejects(file=stored(path), rows=rows.num_rows, first=first)


def too_many(rejects: int, limit: int, first: str, where: Path) -> RowError:
    """Say that more rows cannot be scored than are tolerated, and where they are."""
    rows = "1 row" if rejects == 1 else f"{rejects:,} rows"
    tolerated = "none is" if limit == 0 else f"{limit:,} {'is' if limit == 1 else 'are'}"
    return RowError(
        f"{first} ({rows} so far cannot be scored, {tolerated} tolerated; see {where})",
        "correct the values, leave the feature out of source.features, or raise tolerate.rows",
    )
