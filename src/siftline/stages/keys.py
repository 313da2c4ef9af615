"""Keys of a result: whether one names one row, exactly as long as their hashes fit into bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from siftline.batch_plan import BatchPlan
from siftline.jobs.texts import value_of
from siftline.shown import shown
from siftline.stages.key_hashes import Hashes, hash_keys
from siftline.storage.files import replacing
from siftline.storage.parquet import read_part
from siftline.types import ChunkReceipt, KeyFacts

# Keys whose hashes the coordinator compares: 32 MiB.
MOST_KEYS = 1 << 22
_EXAMPLE_ROWS = 3
_LONGEST_BOUND = 256


@dataclass(frozen=True)
class RunKeys:
    """Keys of consecutive chunks: their number, and those with a missing part.

    Of many, `repeated` is the hash of one that occurs twice, and `bounds` are the lowest and highest value of
    the first column, if that has an order. `saved` is the file with the hashes, if these are not too many.
    """

    rows: int
    missing: int
    repeated: int | None
    bounds: tuple[Any, Any] | None
    saved: str | None


class KeyCensus:
    """Counts the keys of consecutive chunks, table by table; `many` are not all compared with one another."""

    def __init__(self, key: Sequence[str], many: bool) -> None:
        self._key = key
        self._many = many
        self._hashes: list[Hashes] = []
        self._missing = 0
        self._bounds: list[tuple[Any, Any] | None] = []
        self._known = bool(key)

    def add(self, table: pa.Table) -> None:
        """Count the keys of a table."""
        if not self._known or not table.num_rows:
            return
        found = hash_keys(table, self._key)
        if found is None:
            self._known = False
            return
        self._hashes.append(found[0])
        self._missing += found[1]
        self._bounds.append(_bounds(table[self._key[0]]) if self._many else None)

    def keys(self, path: Path, most: int) -> RunKeys | None:
        """Return the facts, and save at most so many hashes; None without a key or a hash of it."""
        if not self._known or not self._hashes:
            return None
        hashes = np.concatenate(self._hashes)
        rows, repeated = len(hashes), None
        if self._many:  # else the coordinator compares them all
            hashes, repeated = _different(hashes)
        saved = len(hashes) <= most
        if saved:
            with replacing(path, durable=False) as temporary, temporary.open("wb") as file:
                np.save(file, hashes, allow_pickle=False)
        return RunKeys(rows, self._missing, repeated, _joint(self._bounds), str(path) if saved else None)


def _different(hashes: Hashes) -> tuple[Hashes, int | None]:
    """Return the different hashes, ascending, and one that occurs twice."""
    if (hashes[1:] > hashes[:-1]).all():
        return hashes, None
    ordered = np.sort(hashes)
    again = ordered[1:] == ordered[:-1]
    if not again.any():
        return ordered, None
    return ordered[np.append(True, ~again)], int(ordered[1:][again][0])


def _bounds(column: pa.ChunkedArray) -> tuple[Any, Any] | None:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = column.cast(pa.large_binary())  # compared by bytes, and never decoded
    elif pa.types.is_temporal(kind):
        column = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif not pa.types.is_integer(kind):
        return None
    found = pc.min_max(column)
    low, high = found["min"].as_py(), found["max"].as_py()
    if low is None or (isinstance(low, bytes) and max(len(low), len(high)) > _LONGEST_BOUND):
        return None
    return low, high


def _joint(bounds: Sequence[tuple[Any, Any] | None]) -> tuple[Any, Any] | None:
    known = [one for one in bounds if one is not None]
    if len(known) < len(bounds):
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def key_facts(
    plan: BatchPlan, receipts: Sequence[ChunkReceipt], runs: Sequence[RunKeys | None]
) -> KeyFacts | None:
    """Tell whether every key names one row, by the keys of all runs of chunks; None without a key."""
    key = plan.config.source.key
    if not key:
        return None
    rows = sum(receipt.rows for receipt in receipts)
    known = [run for run in runs if run is not None]
    if len(known) < len(runs):
        return KeyFacts(columns=key, unique="unknown", rows=rows)
    distinct, repeated = _compared(known)
    example = _example(plan, receipts, key, repeated) if repeated is not None else None
    unique = repeated is None and (distinct is not None or _apart(known))
    return KeyFacts(
        columns=key,
        unique=False if example is not None else unique or "unknown",
        rows=rows,
        distinct=distinct,
        missing=sum(run.missing for run in known),
        example=example[0] if example is not None else None,
        example_rows=example[1] if example is not None else (),
    )


def _compared(runs: Sequence[RunKeys]) -> tuple[int | None, int | None]:
    """Return the number of different keys, None if they are too many, and the hash of one that repeats."""
    within = min((run.repeated for run in runs if run.repeated is not None), default=None)
    saved = [run.saved for run in runs if run.saved is not None]
    if len(saved) < len(runs):
        return None, within
    hashes = np.concatenate([np.load(path, allow_pickle=False) for path in saved])
    different, across = _different(hashes)
    return len(different), within if within is not None else across


def _apart(runs: Sequence[RunKeys]) -> bool:
    """Return True if no value of the key's first column can be in two runs."""
    known = sorted(run.bounds for run in runs if run.bounds is not None)
    apart = all(high < low for (_, high), (low, _) in pairwise(known))
    return apart and len(known) == len(runs) and not any(run.missing for run in runs)


def _example(
    plan: BatchPlan, receipts: Iterable[ChunkReceipt], key: Sequence[str], repeated: int
) -> tuple[dict[str, str], tuple[int, ...]] | None:
    """Return the values of a repeated key, and its first rows; None if only hashes were equal."""
    found = _occurrences(plan, receipts, key, np.uint64(repeated))
    row, first = next(found)
    rows = islice((row for row, values in found if values == first), _EXAMPLE_ROWS - 1)
    places = (row, *rows)
    texts = {shown(name): shown(value) for name, value in zip(key, first, strict=True)}
    return (texts, places) if len(places) > 1 else None


def _occurrences(
    plan: BatchPlan, receipts: Iterable[ChunkReceipt], key: Sequence[str], hashed: np.uint64
) -> Iterator[tuple[int, list[Any]]]:
    """Yield the rows, and the values, of all keys with a hash."""
    for receipt in receipts:
        table = read_part(plan.parts, receipt.part, list(key))
        hashes = hash_keys(table, key)
        for place in np.flatnonzero(hashes[0] == hashed).tolist() if hashes is not None else ():
            yield receipt.first_row + place, [_value(table[name][place]) for name in key]


def _value(scalar: pa.Scalar) -> Any:
    value = value_of(scalar)
    return None if value != value else value  # NaN, which is missing too
