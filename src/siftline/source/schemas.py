"""Schemas of Parquet files: columns whose type differs from file to file are read in one type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from siftline.errors import SourceError
from siftline.source.column_types import common_type, type_text, value_limits
from siftline.source.files import ParquetFile

_ONE_TYPE = "use files of one schema"


@dataclass(frozen=True)
class Agreement:
    """How files are read in one schema: columns to cast, by file, and notes to say before the work."""

    casts: Mapping[Path, Mapping[str, str]]
    notes: tuple[str, ...]


def common_schema(files: Sequence[ParquetFile]) -> pa.Schema:
    """Return the columns of the first file with rows, in types that have the values of all files.

    A column whose types have nothing in common keeps the first; `agree` refuses it where it is used.
    """
    schemas = list(dict.fromkeys(file.schema for file in _with_rows(files)))
    fields = []
    for field in schemas[0]:
        kind = field.type
        for other in schemas[1:]:
            index = other.get_field_index(field.name)
            kind = (common_type(kind, other.field(index).type) if index >= 0 else None) or kind
        fields.append(field.with_type(kind))
    return pa.schema(fields)


def agree(files: Sequence[ParquetFile], schema: pa.Schema, columns: Sequence[str]) -> Agreement:
    """Return how to read columns of all files in the types of the common schema.

    Raises
    ------
    SourceError
        When a file lacks a column or has it twice, or its type or a value of it does not fit the others.
    """
    first, *others = _with_rows(files)
    for file in others:
        if file.schema != first.schema:
            _check_columns(file, first, schema, columns)
    casts: dict[Path, dict[str, str]] = {}
    notes: dict[str, str] = {}
    for file in (first, *others):
        for name in columns if file.schema != schema else ():
            kind, common = file.schema.field(name).type, schema.field(name).type
            if kind == common:
                continue
            if not _fits(file, name, kind, common):
                what = (
                    f"{file.path}: column {name} is {kind}, and a value may not fit {common} of other files"
                )
                raise SourceError(what, "write the column in one type")
            casts.setdefault(file.path, {})[name] = type_text(common)
            notes.setdefault(name, f"column {name} is {kind} in {file.path}, and is read as {common}")
    return Agreement(casts, tuple(notes.values()))


def _with_rows(files: Sequence[ParquetFile]) -> list[ParquetFile]:
    """Return the files with rows, because the columns of others don't matter; all if there are none."""
    return [file for file in files if file.rows] or [*files]


def _check_columns(file: ParquetFile, first: ParquetFile, schema: pa.Schema, columns: Sequence[str]) -> None:
    for name in columns:
        count = len(file.schema.get_all_field_indices(name))
        kind = file.schema.field(name).type if count == 1 else None
        common = schema.field(name).type
        if kind is not None and common_type(kind, common) == common:
            continue
        has = {0: "none", 1: str(kind)}.get(count, "there twice")
        was = first.schema.field(name).type
        raise SourceError(f"{file.path}: column {name} is {has}, in {first.path} it is {was}", _ONE_TYPE)


def _fits(file: ParquetFile, name: str, kind: pa.DataType, common: pa.DataType) -> bool:
    """Return whether all values of a column fit a type, as far as statistics tell.

    Times without statistics are taken to fit: the cast checks them too, and INT96 has none.
    """
    limits = value_limits(kind, common)
    if limits is None:
        return True
    for _, group, statistics in column_statistics(file, [name]):
        rows = file.row_groups[group]
        if statistics is not None and statistics.has_null_count and statistics.null_count == rows:
            continue
        if statistics is None or not statistics.has_min_max:
            if pa.types.is_timestamp(kind):
                continue
            return False
        low, high = statistics.min_raw, statistics.max_raw
        if kind == pa.uint64():  # which pyarrow gives as signed
            low, high = low % (1 << 64), high % (1 << 64)
        if low < limits[0] or high > limits[1]:
            return False
    return True


def column_statistics(file: ParquetFile, columns: Iterable[str]) -> Iterator[tuple[str, int, Any]]:
    """Yield (column, row group, statistics or None) of every row group with rows."""
    if not file.rows:
        return
    metadata = file.read_metadata()
    where = _places(file.schema)
    for group in (group for group, rows in enumerate(file.row_groups) if rows):
        row_group = metadata.row_group(group)
        for name in columns:
            yield name, group, row_group.column(where[name]).statistics if name in where else None


def _places(schema: pa.Schema) -> dict[str, int]:
    """Return the positions of flat columns among all leaves: ``a.b`` may also be ``b`` within ``a``."""
    places: dict[str, int] = {}
    position = 0
    for field in schema:
        leaves = _leaves(field.type)
        if not _children(field.type):
            places[field.name] = position
        position += leaves
    return places


def _leaves(kind: pa.DataType) -> int:
    return sum(_leaves(field.type) for field in _children(kind)) or 1


def _children(kind: pa.DataType) -> list[pa.Field]:
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return [kind.field(index) for index in range(kind.num_fields)]
