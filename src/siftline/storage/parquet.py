"""The Parquet files that Siftline writes: row keys and scores, one layout for parts and results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siftline.errors import PartDamaged
from siftline.storage.files import file_digest
from siftline.storage.records import PublishedFile, StoredFile

# The position of a row in the source.
ROW = "row"
_REMEDY = "run the same command again: it is recomputed"


def key_columns(table: pa.Table, key: Sequence[str], first_row: int) -> pa.Table:
    """Return the columns of a part file that identify a row: `key`, or else its position."""
    if key:
        # Not a selection: files may declare a column in other ways (nullable, with metadata).
        return pa.table({name: table[name] for name in key})
    return pa.table({ROW: _positions(first_row, table.num_rows)})


def with_rows(part: pa.Table, first_row: int) -> pa.Table:
    """Return the rows of a part file with the position of each after the key, unless that has the name."""
    if ROW in part.column_names:
        return part
    return part.add_column(part.num_columns - 1, ROW, pa.array(_positions(first_row, part.num_rows)))


def _positions(first_row: int, rows: int) -> np.ndarray:
    return np.arange(first_row, first_row + rows, dtype=np.int64)


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a writer that adds checksums to pages and does not compress scores."""
    # A dictionary of identifiers or ranks is slow and large; bits of scores do not compress.
    delta = {field.name for field in schema if pa.types.is_integer(field.type) and field.name != "label"}
    leaves = [leaf for field in schema if field.name not in delta for leaf in _leaves(field.name, field.type)]
    return pq.ParquetWriter(
        path,
        schema,
        use_dictionary=[leaf for leaf in leaves if leaf != "score"],
        column_encoding=dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
        compression=dict.fromkeys([*leaves, *delta], "zstd") | {"score": "none"},
        write_page_checksum=True,
    )


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    """Return the Parquet paths of a column's values."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    return [path]


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table as one Parquet file."""
    with parquet_writer(path, table.schema) as writer:
        writer.write_table(table)


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
    with _damage(path):
        table = pq.read_table(path, columns=columns, use_threads=False, page_checksum_verification=True)
        return table.combine_chunks()  # one array per column


def read_scores(directory: Path, file: StoredFile) -> np.ndarray:
    """Return the score column of a part file, as float64 of shape (n,).

    Only the checksums of the pages are checked: `PartDamaged` if one does not match.
    """
    path = directory / file.name
    with _damage(path), pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        return np.asarray(parquet.read(columns=["score"], use_threads=False)["score"].to_numpy())


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Map errors on reading a part file to `PartDamaged`."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise PartDamaged(f"{path}: {' '.join(str(error).split())}", _REMEDY) from error
