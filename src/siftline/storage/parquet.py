"""The Parquet files that Siftline writes: row keys and scores, one layout for parts and results."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siftline.errors import PartDamaged
from siftline.storage.arrays import to_arrow, to_numpy
from siftline.storage.files import file_digest, replacing
from siftline.storage.records import PublishedFile, StoredFile

# The position of a row in the source.
ROW = "row"
# Rows that are encoded at once.
_BATCH_ROWS = 1 << 16
_REMEDY = "run the same command again: it is recomputed"


def key_columns(table: pa.Table, key: Sequence[str], first_row: int) -> pa.Table:
    """Return the columns of a part file that identify a row: `key`, or else its position."""
    if key:
        # Not a selection: files may declare a column in other ways (nullable, with metadata).
        return pa.table({name: table[name] for name in key})
    return pa.table({ROW: _positions(first_row, table.num_rows)})


def with_labels(part: pa.Table, first_row: int, labels: pa.Array) -> pa.Table:
    """Return the rows of a part file as a result has them: key, position unless a key has its name, label."""
    rows = part.drop_columns(["score"])
    if ROW not in rows.column_names:
        rows = rows.append_column(_required(ROW, pa.int64()), pa.array(_positions(first_row, rows.num_rows)))
    rows = rows.append_column(_required("score", pa.float64()), part["score"])
    return rows.append_column(_required("label", pa.int8()), labels)


def _required(name: str, kind: pa.DataType) -> pa.Field:
    """Return the field of a column in which no value is missing: it is written, and read, faster."""
    return pa.field(name, kind, nullable=False)


def _positions(first_row: int, rows: int) -> np.ndarray:
    return np.arange(first_row, first_row + rows, dtype=np.int64)


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a writer that adds checksums to pages and does not compress scores."""
    delta = _deltas(schema)
    leaves = [leaf for field in schema if field.name not in delta for leaf in _leaves(field.name, field.type)]
    return pq.ParquetWriter(
        path,
        schema,
        use_dictionary=[leaf for leaf in leaves if leaf not in ("score", "label")],
        column_encoding=dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
        # Bits of scores do not compress.
        compression=dict.fromkeys([*leaves, *delta], "zstd") | {"score": "none"},
        write_page_checksum=True,
        write_batch_size=_BATCH_ROWS,
    )


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    """Return the Parquet paths of a column's values."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    return [path]


def write_parquet(table: pa.Table, path: Path, group_rows: int | None = None) -> None:
    """Write a table that only this job reads back: without statistics and dictionaries, which take time."""
    floating = {field.name for field in table.schema if pa.types.is_floating(field.type)}
    others = [leaf for field in table.schema for leaf in _leaves(field.name, field.type)]
    with pq.ParquetWriter(
        path,
        table.schema,
        use_dictionary=False,
        column_encoding=dict.fromkeys(_deltas(table.schema), "DELTA_BINARY_PACKED"),
        compression=dict.fromkeys(others, "zstd") | dict.fromkeys(floating, "none"),
        write_statistics=False,
        write_page_checksum=True,
        write_batch_size=_BATCH_ROWS,
    ) as writer:
        writer.write_table(table, group_rows)


def write_result(tables: Iterator[pa.Table], path: Path) -> None:
    """Write at least one table as one file of a result, at once or not at all."""
    with replacing(path) as temporary:
        first = next(tables)
        with parquet_writer(temporary, first.schema) as writer:
            for table in chain([first], tables):
                writer.write_table(table)


def _deltas(schema: pa.Schema) -> list[str]:
    """Return the columns of integers except labels: dictionaries of these are slow and large."""
    return [field.name for field in schema if pa.types.is_integer(field.type) and field.name != "label"]


def stored(path: Path) -> StoredFile:
    """Return the name, size and digest of a file."""
    return StoredFile(name=path.name, size=path.stat().st_size, digest=file_digest(path))


def published_file(root: Path, name: str, rows: int) -> PublishedFile:
    """Return the name below a directory, rows, size and digest of a file."""
    return PublishedFile(**vars(stored(root / name)) | {"name": name}, rows=rows)


def is_intact(directory: Path, file: StoredFile) -> bool:
    """Return True if a file has the recorded size and digest."""
    path = directory / file.name
    try:
        return path.stat().st_size == file.size and file_digest(path) == file.digest
    except OSError:
        return False


def read_part(directory: Path, file: StoredFile, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a part file after checking its digest; raise `PartDamaged` if it does not match."""
    path = directory / file.name
    if not is_intact(directory, file):
        raise PartDamaged(f"{path}: does not match its receipt", _REMEDY)
    with _damage(path), pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        return parquet.read(columns, use_threads=False).combine_chunks()  # one array per column


def read_scores(directory: Path, file: StoredFile) -> np.ndarray:
    """Return the score column of a part file, as float64 of shape (n,).

    Only the checksums of the pages are checked: `PartDamaged` if one does not match.
    """
    path = directory / file.name
    with _damage(path), pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        return to_numpy(parquet.read(columns=["score"], use_threads=False)["score"])


def read_ranks(path: Path, most: int) -> pa.Table:
    """Return the rows of a file of anomalies whose rank is at most `most`."""
    with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        column = [leaf.path for leaf in parquet.schema].index("rank")
        groups = range(parquet.num_row_groups)
        wanted = [group for group in groups if _least(parquet, group, column) <= most]
        table = parquet.read_row_groups(wanted, use_threads=False)
    return table.take(to_arrow(np.flatnonzero(to_numpy(table["rank"]) <= most)))


def _least(parquet: pq.ParquetFile, group: int, column: int) -> float:
    """Return the least value in a row group, minus infinity if it is not known."""
    statistics = parquet.metadata.row_group(group).column(column).statistics
    return statistics.min if statistics is not None and statistics.has_min_max else -math.inf


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Map errors on reading a part file to `PartDamaged`."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise PartDamaged(f"{path}: {' '.join(str(error).split())}", _REMEDY) from error
