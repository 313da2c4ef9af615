"""Columns of a CSV file: what their first values are, and the types in which they are read.

Numbers are numbers only as features. Keys, labels and carried columns are text, byte for byte, because
`00326`, `0.10`, `12E3` or a number of twenty digits would become another value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from siftline.batch_plan import Feature
from siftline.config.batch import BatchConfig, ColumnType, SourceConfig
from siftline.errors import SourceError
from siftline.shown import listed as listed_names
from siftline.source.csv.dialect import Dialect, by_name, detect_dialect
from siftline.source.csv.notes import detected_note, header_note, line_break_note, mark_note
from siftline.source.csv.numbers import NUMBER, all_match, unmarked_numbers
from siftline.source.csv.reader import CsvReader, misfit

Kind = Literal["empty", "integer", "number", "code", "boolean", "timestamp", "date", "text"]
_TYPES: dict[ColumnType, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
}
# Fewer values may count up by chance.
COUNTER_ROWS = 20
# Enough of a file whose columns another one has shown.
_OTHERS_BYTES = 256 << 10
_INTEGER = r"^\s*[+-]?\d+\s*$"
# Identifiers that a number would not keep: leading zeros, exponents that are none, too many digits.
CODE = r"^\s*[+-]?0\d|^\s*\d+[eE]\d+\s*$|^\s*[+-]?\d{19,}\s*$|^\s*\+\d{7,}\s*$"
_BOOLEAN = r"^(true|false|True|False|TRUE|FALSE)$"
_DATE = r"^\d{4}-\d{2}-\d{2}"


@dataclass(frozen=True)
class CsvFile:
    """A CSV file before it is read: its dialect, the kinds of its columns, and an example of each.

    `schema` has the types that the first values suggest: numbers are float64, codes are text. `notes` are to
    be said before the work. `counters` count up from 0 or 1; `constants` have one value in the whole file.
    `misfits` have the row and the text of a value among numbers that is none, for configured features.
    """

    path: Path
    dialect: Dialect
    kinds: Mapping[str, Kind]
    examples: Mapping[str, str]
    schema: pa.Schema
    notes: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    misfits: Mapping[str, tuple[int, str]] = field(default_factory=dict)


def inspect_csv(path: Path, source: SourceConfig, read_bytes: int = 2 << 20) -> CsvFile:
    """Return what the first `read_bytes` of a CSV file say of its columns.

    Raises
    ------
    SourceError
        When the file is empty or unreadable, or a row has too many or too few fields.
    """
    head = detect_dialect(path, source.csv)
    dialect = head.dialect
    with CsvReader(path, dialect, read_bytes=read_bytes) as reader:
        table = reader.first()
    columns = by_name(dialect.names, table.columns)
    found = [_kind(values, dialect) for values in table.columns]
    kinds = by_name(dialect.names, found)
    fields = [
        pa.field(name, _arrow_type(source.types.get(name), kind, values))
        for name, kind, values in zip(dialect.names, found, table.columns, strict=True)
    ]
    notes = [*detected_note(path, dialect, source), *header_note(path, head.rows, dialect)]
    marks = (mark_note(name, values, dialect) for name, values in columns.items())
    notes += [f"{path}: {mark}" for mark in marks if mark is not None]
    if reader.ended and (breaks := reader.line_breaks):
        notes.append(line_break_note(path, breaks, dialect))
    integers = [name for name, kind in kinds.items() if kind == "integer"]
    known = [name for name, kind in kinds.items() if kind != "empty"]
    misfits = {
        name: (reader.first_row + place, columns[name][place].as_py())
        for name in source.features or ()
        if kinds.get(name) == "text" and (place := _misfit(columns[name], dialect)) is not None
    }
    return CsvFile(
        path=path,
        dialect=dialect,
        kinds=kinds,
        examples={name: _example(values, kinds[name]) for name, values in columns.items()},
        schema=pa.schema(fields),
        notes=tuple(notes),
        counters=tuple(name for name in integers if _counts_rows(columns[name])),
        constants=tuple(name for name in known if reader.ended and _constant(columns[name])),
        misfits=misfits,
    )


def _misfit(values: pa.Array, dialect: Dialect) -> int | None:
    """Return the place of the first value that is no number; None if hardly any is one."""
    plain = unmarked_numbers(values, dialect.decimal, dialect.thousands)
    fits = pc.match_substring_regex(plain, NUMBER)
    missing = dialect.is_missing(values)
    numbers = pc.sum(fits).as_py() or 0
    if 2 * numbers < len(values) - (pc.sum(missing).as_py() or 0):
        return None
    return int(pc.index(pc.or_(fits, missing), False).as_py())


def _counts_rows(values: pa.Array) -> bool:
    """Return True if whole numbers, as text, count up from 0 or 1 by one."""
    if len(values) < COUNTER_ROWS or pc.any(pc.equal(values, "")).as_py():
        return False
    try:
        numbers = np.asarray(pc.utf8_trim_whitespace(values).cast(pa.int64()))
    except pa.ArrowInvalid:  # some are missing
        return False
    return bool(numbers[0] in (0, 1) and (np.diff(numbers) == 1).all())


def _constant(values: pa.Array) -> bool:
    return len(values) > 1 and len(pc.unique(values)) == 1


def _kind(values: pa.Array, dialect: Dialect) -> Kind:
    """Return the kind of a column from its first values, an array of text."""
    distinct = pc.unique(values)
    known = distinct.filter(pc.invert(dialect.is_missing(distinct)))
    if not len(known):
        return "empty"
    if all_match(known, _BOOLEAN):
        return "boolean"
    plain = unmarked_numbers(known, dialect.decimal, dialect.thousands)
    if all_match(plain, NUMBER):
        if pc.any(pc.match_substring_regex(plain, CODE)).as_py():
            return "code"
        return "integer" if all_match(plain, _INTEGER) else "number"
    if all_match(known, _DATE):
        found = _inferred_time(known)
        if found is not None:
            return "date" if pa.types.is_date(found) else "timestamp"
    return "text"


def _example(values: pa.Array, kind: Kind) -> str:
    """Return a value that shows the kind."""
    matching = values
    if kind == "code":
        matching = values.filter(pc.match_substring_regex(values, CODE))
    elif len(values):
        matching = values.filter(pc.not_equal(values, ""))
    return matching[0].as_py() if len(matching) else ""


def _inferred_time(values: pa.Array) -> pa.DataType | None:
    """Return the type of dates and times in text; None if they are text."""
    for kind in (pa.date32(), pa.timestamp("us"), pa.timestamp("us", "UTC")):
        try:
            values.cast(kind)
        except pa.ArrowInvalid:
            continue
        return kind
    return None


def _arrow_type(given: ColumnType | None, kind: Kind, values: pa.Array) -> pa.DataType:
    if given is not None and given != "timestamp":
        return _TYPES[given]
    if kind in ("timestamp", "date") or given == "timestamp":
        known = pc.unique(values)
        found = _inferred_time(known.filter(pc.not_equal(known, "")))
        zoned = found is not None and pa.types.is_timestamp(found)
        return found if found is not None and (given is None or zoned) else _TYPES["timestamp"]
    if kind in ("integer", "number", "empty"):
        return pa.float64()
    return pa.bool_() if kind == "boolean" else pa.string()


def inspect_csv_files(files: Sequence[Path], source: SourceConfig) -> list[CsvFile]:
    """Inspect CSV files: the first one thoroughly, of the others only their beginning."""
    first = inspect_csv(files[0], source)
    return [first, *(inspect_csv(file, source, _OTHERS_BYTES) for file in files[1:])]


def csv_feature_schema(config: BatchConfig, files: Sequence[CsvFile]) -> pa.Schema:
    """Return the types for the choice of features, from the first file with rows.

    A code that is named as a feature is a number, unless text can be one.

    Raises
    ------
    SourceError
        When a feature has numbers and other text, or a column of ``source.types`` is not there.
    """
    source, first = config.source, first_with_rows(files)
    unknown = [name for name in source.types if name not in first.kinds]
    if unknown:
        what = f"source.types: {first.path} has no column {unknown[0]}"
        raise SourceError(what, f"it has: {listed_names(first.dialect.names)}")
    listed = set(source.features or ()) if config.preprocess.categorical == "refuse" else set()
    for name, (row, value) in first.misfits.items():
        if name in listed and name not in source.types:
            raise misfit(first.path, row, name, "double", value)
    fields = [
        field.with_type(pa.float64())
        if field.name in listed and first.kinds[field.name] == "code" and field.name not in source.types
        else field
        for field in first.schema
    ]
    return pa.schema(fields)


def csv_schema(
    files: Sequence[CsvFile], source: SourceConfig, features: Iterable[Feature], columns: Sequence[str]
) -> pa.Schema:
    """Return the types in which columns are read: numbers as features, else text, if not configured.

    Raises
    ------
    SourceError
        When a file lacks a column, has it twice, or has text where another has numbers.
    """
    kinds = {feature.column: feature.kind for feature in features}
    first = first_with_rows(files)
    numbers = {name for name, kind in kinds.items() if kind == "numeric"}
    for file in files:
        _check_columns(file, first, columns, numbers)
    return pa.schema([_read_field(first, source, name, kinds.get(name)) for name in columns])


def _read_field(file: CsvFile, source: SourceConfig, name: str, kind: str | None) -> pa.Field:
    found = file.schema.field(name).type
    if name in source.types or name == source.timestamp:
        return pa.field(name, found)
    if kind == "numeric":
        return pa.field(name, pa.bool_() if pa.types.is_boolean(found) else pa.float64())
    return pa.field(name, pa.string())


def first_with_rows(files: Sequence[CsvFile]) -> CsvFile:
    """Return the first file with a value; one that has only a header says nothing of types."""
    return next((file for file in files if set(file.kinds.values()) - {"empty"}), files[0])


def _check_columns(file: CsvFile, first: CsvFile, columns: Sequence[str], numbers: set[str]) -> None:
    counts = Counter(file.dialect.names)
    for name in columns:
        count = counts[name]
        if count == 0:
            raise SourceError(
                f"{file.path}: no column {name!r}, {first.path} has it", "use files of one form"
            )
        if count > 1:
            raise SourceError(f"{file.path}: column {name!r} is there {count} times", "rename all but one")
        kinds = (file.kinds[name], first.kinds[name])
        if name in numbers and kinds[0] in ("text", "timestamp", "date") and kinds[1] != kinds[0]:
            raise SourceError(
                f"{file.path}: column {name!r} is {kinds[0]} ({file.examples[name]!r}), "
                f"in {first.path} it is {kinds[1]}",
                "correct the values, or leave the column out of source.features",
            )
