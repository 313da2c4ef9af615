"""The first rows of an input, from which a configuration is proposed."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siftline.batch_plan import Feature
from siftline.cli.starter.csv_form import csv_form
from siftline.config.batch import CsvConfig, SourceConfig
from siftline.detectors.preprocess import is_categorical, is_numeric
from siftline.errors import SourceError
from siftline.source.column_types import select
from siftline.source.csv.columns import CsvFile, csv_schema, first_with_rows, inspect_csv, inspect_csv_files
from siftline.source.csv.reader import CsvReader
from siftline.source.damage import unreadable
from siftline.source.files import READ_OPTIONS, ParquetFile, find_files, open_parquet
from siftline.source.schemas import agree, column_statistics, common_schema

MOST_ROWS = 65_536
_MOST_CELLS = 1 << 23
_MOST_BYTES = 8 << 20
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class FirstRows:
    """First rows of an input: `names` of all columns, and values of addressable ones.

    `texts` has the fields of a CSV file as they are. `unusable` has reasons against columns, by name.
    `total` is the number of all rows, if known.
    """

    path: str
    csv: CsvConfig | None
    names: tuple[str, ...]
    types: Mapping[str, pa.DataType]
    columns: Mapping[str, pa.Array]
    count: int
    total: int | None
    texts: Mapping[str, pa.Array] = field(default_factory=dict)
    unusable: Mapping[str, str] = field(default_factory=dict)


def read_first_rows(path: str) -> FirstRows:
    """Read the first rows of a file, directory or glob; raise `SourceError` on failure."""
    source = SourceConfig(path=path)
    files, kind = find_files(source)
    found = _of_csv(path, files) if kind == "csv" else _of_parquet(path, files)
    if not (found.count or found.total):
        raise SourceError(f"source.path {path}: no rows", "use an input with rows")
    return found


def addressable(name: str) -> bool:
    """Return whether a configuration can name a column: it has a name, on one line."""
    return name.strip() != "" and _CONTROL.search(name) is None


def _unique(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count == 1 and addressable(name)]


def _of_parquet(path: str, paths: Sequence[Path]) -> FirstRows:
    files = [open_parquet(file) for file in paths]
    schema = common_schema(files)
    types = {name: schema.field(name).type for name in _unique(schema.names)}
    unusable = _differing_parquet(files, schema, list(types))
    wanted = [name for name, kind in types.items() if _is_flat(kind) and name not in unusable]
    floats = [name for name in wanted if pa.types.is_floating(types[name])]
    table = _read_parquet(files, wanted, types)
    return FirstRows(
        path=path,
        csv=None,
        names=tuple(schema.names),
        types=types,
        columns={name: table[name].combine_chunks() for name in wanted},
        count=table.num_rows,
        total=sum(file.rows for file in files),
        unusable=unusable | _infinite(files, floats),
    )


def _is_flat(kind: pa.DataType) -> bool:
    time = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    return time or is_numeric(kind) or is_categorical(kind) or pa.types.is_null(kind)


def _differing_parquet(
    files: Sequence[ParquetFile], schema: pa.Schema, names: Iterable[str]
) -> dict[str, str]:
    if len({file.schema for file in files}) == 1:
        return {}
    found = {}
    for name in names:
        try:
            agree(files, schema, [name])
        except SourceError as error:
            found[name] = error.problem
    return found


def _read_parquet(
    files: Sequence[ParquetFile], names: Sequence[str], types: Mapping[str, pa.DataType]
) -> pa.Table:
    """Read first rows page by page: row groups may be larger than the memory."""
    most = min(MOST_ROWS, max(1_000, _MOST_CELLS // max(1, len(names))))
    batches: list[pa.RecordBatch] = []
    missing = most
    for file in files:
        try:
            with (
                pa.OSFile(str(file.path)) as handle,
                pq.ParquetFile(handle, buffer_size=1 << 20, pre_buffer=False, **READ_OPTIONS) as parquet,
            ):
                for batch in parquet.iter_batches(most, columns=list(names)):
                    batches.append(select(batch.slice(0, missing), names, types))
                    missing -= batches[-1].num_rows
                    if missing <= 0:
                        break
        except (pa.ArrowException, OSError) as error:
            raise unreadable(file.path, error) from error
        if missing <= 0:
            break
    fields = pa.schema([pa.field(name, types[name]) for name in names])
    return pa.Table.from_batches(batches) if batches else fields.empty_table()


def _infinite(files: Sequence[ParquetFile], names: Sequence[str]) -> dict[str, str]:
    """Find columns with values beyond 32-bit floating point, by the statistics."""
    found: dict[str, str] = {}
    for file in files:
        for name, _, known in column_statistics(file, names):
            if known is None or not known.has_min_max or not isinstance(known.min, float):
                continue
            if max(abs(known.min), abs(known.max)) > _LARGEST:
                infinite = math.isinf(known.min) or math.isinf(known.max)
                found[name] = "infinite values" if infinite else "values beyond 32-bit floating point"
    return found


def _of_csv(path: str, paths: Sequence[Path]) -> FirstRows:
    form = csv_form(paths[0])
    source = SourceConfig(path=path, csv=form)
    files = inspect_csv_files(paths, source)
    file = inspect_csv(first_with_rows(files).path, source, _MOST_BYTES)
    dialect = file.dialect
    types = {name: file.schema.field(name).type for name in _unique(dialect.names)}
    unusable = _differing_csv(files, source, types) if len(files) > 1 else {}
    with CsvReader(file.path, dialect, read_bytes=_MOST_BYTES) as reader:
        fields = reader.first()
        ended = reader.ended
    fields = fields.slice(0, min(MOST_ROWS, max(1_000, _MOST_CELLS // max(1, len(types)))))
    named = zip(dialect.names, fields.columns, strict=True)
    texts = {name: column for name, column in named if name in types}
    typed = [pa.field(name, kind) for name, kind in types.items() if not pa.types.is_string(kind)]
    values, wrong = _typed(file, typed)
    values = {name: value.slice(0, fields.num_rows) for name, value in values.items()}
    return FirstRows(
        path=path,
        csv=form.model_copy(update=dict(dialect.detected(form))),
        names=dialect.names,
        types=types,
        columns=texts | values,
        count=fields.num_rows,
        total=fields.num_rows if ended and len(files) == 1 and fields.num_rows < MOST_ROWS else None,
        texts=texts,
        unusable=unusable | wrong,
    )


def _typed(file: CsvFile, fields: Sequence[pa.Field]) -> tuple[dict[str, pa.Array], dict[str, str]]:
    """Read columns in the types of the job; return the values, and reasons against others."""
    if not fields:
        return {}, {}
    try:
        with CsvReader(file.path, file.dialect, pa.schema(fields), _MOST_BYTES) as reader:
            batch = reader.first()
    except SourceError as error:
        if len(fields) == 1:
            return {}, {fields[0].name: error.problem.removeprefix(f"{file.path}, ")}
        halves = (fields[: len(fields) // 2], fields[len(fields) // 2 :])
        (left, wrong), (right, others) = (_typed(file, half) for half in halves)
        return left | right, wrong | others
    return {one.name: batch.column(place) for place, one in enumerate(fields)}, {}


def _differing_csv(
    files: Sequence[CsvFile], source: SourceConfig, types: Mapping[str, pa.DataType]
) -> dict[str, str]:
    found = {}
    for name, kind in types.items():
        features = [Feature(name=name, column=name)] if is_numeric(kind) else []
        try:
            csv_schema(files, source, features, [name])
        except SourceError as error:
            found[name] = error.problem
    return found
