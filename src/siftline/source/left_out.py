"""Columns that are no features by default, and why: row counters, identifiers, constants, text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from siftline.detectors.preprocess import is_categorical, is_numeric
from siftline.source.column_types import select
from siftline.source.csv.columns import COUNTER_ROWS, CsvFile
from siftline.source.csv.numbers import FINITE, all_match
from siftline.source.damage import unreadable
from siftline.source.files import READ_OPTIONS, ParquetFile
from siftline.source.schemas import column_statistics

INDEX = "index of a data frame"
COUNTER = "counts the rows"
IDENTIFIER = "an identifier by its name"
CONSTANT = "constant"
EMPTY = "no value"
CODE = "codes"
NUMBERS_AS_TEXT = "numbers as text"
TEXT = "text"

_INDEX = re.compile(r"|__index_level_\d+__|Unnamed: \d+(?:_level_\d+)?")
_IDENTIFIER = re.compile(
    r"(?i:id|uuid|guid)|(?i:.*[_. -](?:id|uuid|guid|key))|.*[a-z](?:Id|ID|Uuid|UUID|Guid|GUID)"
)
_FIRST_ROWS = 1_000
_TEXTS = 50
_SHOWN = 5


def not_features(schema: pa.Schema, files: Sequence[ParquetFile]) -> dict[str, str]:
    """Return the columns of Parquet files that are no features by default, with the reason."""
    reasons = _by_name_and_type(schema)
    numbers = [field.name for field in schema if field.name not in reasons]
    reasons |= _by_statistics(schema, files, numbers)
    once = (name for name in reasons if len(schema.get_all_field_indices(name)) == 1)
    texts = [name for name in once if reasons[name] == TEXT][:_TEXTS]
    if texts and (rows := _first_rows(files, texts)) is not None:
        for name in texts:
            values = rows[name].cast(pa.string()).drop_null()
            if len(values) and all_match(values, FINITE):
                reasons[name] = NUMBERS_AS_TEXT
    return reasons


def not_features_of_csv(file: CsvFile) -> dict[str, str]:
    """Return the columns of a CSV file that are no features by default, with the reason."""
    reasons = _by_name_and_type(file.schema)
    integers = [name for name, kind in file.kinds.items() if kind == "integer"]
    reasons |= {name: IDENTIFIER for name in integers if _IDENTIFIER.fullmatch(name)}
    reasons |= {name: CODE for name, kind in file.kinds.items() if kind == "code"}
    reasons |= {name: EMPTY for name, kind in file.kinds.items() if kind == "empty"}
    counted = dict.fromkeys(file.counters, COUNTER) | dict.fromkeys(file.constants, CONSTANT)
    return counted | reasons


def left_out_note(reasons: Mapping[str, str], known: Sequence[str]) -> str | None:
    """Return the sentence about columns that are neither features nor `known` in another role."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if name not in known:
            plain = name != "" and name.isprintable()
            by_reason.setdefault(reason, []).append(name if plain else repr(name))
    if not by_reason:
        return None
    parts = [f"{_listed(names)} ({reason})" for reason, names in by_reason.items()]
    return f"no features by default: {'; '.join(parts)}. source.features chooses others"


def _by_name_and_type(schema: pa.Schema) -> dict[str, str]:
    return {field.name: reason for field in schema if (reason := _reason(field)) is not None}


def _reason(field: pa.Field) -> str | None:
    kind = field.type
    if _INDEX.fullmatch(field.name):
        return INDEX
    if pa.types.is_null(kind):
        return EMPTY
    if is_categorical(kind):
        return TEXT
    if not is_numeric(kind):
        return re.sub(r"[\[<(].*", "", str(kind))
    return IDENTIFIER if pa.types.is_integer(kind) and _IDENTIFIER.fullmatch(field.name) else None


def _by_statistics(schema: pa.Schema, files: Sequence[ParquetFile], names: Sequence[str]) -> dict[str, str]:
    """Find counters, constants and empty columns by the statistics of all row groups, if these are known."""
    columns = {name: _Column(schema.field(name).type) for name in names}
    for file in files:
        unclear = [name for name, column in columns.items() if column.is_unclear]
        if not unclear:
            break
        for name, group, statistics in column_statistics(file, unclear):
            columns[name].add(file.row_groups[group], statistics)
    found = {name: column.reason for name, column in columns.items()}
    return {name: reason for name, reason in found.items() if reason is not None}


class _Column:
    """A column that may be empty, constant or a counter, by the row groups so far.

    Their statistics are not kept: each holds the footer of its file, and many fill the memory.
    """

    def __init__(self, kind: pa.DataType) -> None:
        # Statistics of floating point are silent about NaN.
        self._exact = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
        self._empty, self._constant, self._counter = True, True, not pa.types.is_boolean(kind)
        self._rows = 0
        self._value: Any = None
        self._expected = 0

    @property
    def is_unclear(self) -> bool:
        """True while it may be one of these."""
        return self._empty or self._constant or self._counter

    @property
    def reason(self) -> str | None:
        """Return what it is after all row groups, if it is one of these."""
        if self._empty and self._rows:
            return EMPTY
        if self._constant and self._rows > 1:
            return CONSTANT
        return COUNTER if self._counter and self._rows >= COUNTER_ROWS else None

    def add(self, rows: int, statistics: Any) -> None:
        """Take the statistics of the next row group."""
        known = statistics is not None and statistics.has_null_count
        self._empty &= known and statistics.null_count == rows
        if not known or statistics.null_count or not self._exact or not statistics.has_min_max:
            self._constant = self._counter = False
        elif self._constant or self._counter:
            low, high = statistics.min, statistics.max
            self._constant &= low == high and (self._rows == 0 or low == self._value)
            # Each file may count by itself.
            self._counter &= low in (0, 1, self._expected) and high - low + 1 == rows
            self._value, self._expected = low, high + 1
        self._rows += rows


def _first_rows(files: Sequence[ParquetFile], columns: Sequence[str]) -> pa.RecordBatch | None:
    file = next((file for file in files if file.rows), None)
    if file is None:
        return None
    try:
        with pa.OSFile(str(file.path)) as handle, pq.ParquetFile(handle, **READ_OPTIONS) as parquet:
            batch = next(parquet.iter_batches(_FIRST_ROWS, columns=list(columns)), None)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file.path, error) from error
    return select(batch, columns) if batch is not None else None


def _listed(names: Sequence[str]) -> str:
    others = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {others:,} others" if others > 0 else "")
