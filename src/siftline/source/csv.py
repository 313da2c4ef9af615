"""Conversion of CSV to Parquet, because quoted newlines make it impossible to split a CSV file safely.

The staged copy is named by a digest of its origin, so that later jobs on the same file find it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from siftline.errors import SourceChanged, SourceError
from siftline.source.files import ParquetFile, Stamp, open_parquet, unreadable
from siftline.source.row_groups import ROW_GROUP_ROWS, row_groups
from siftline.storage.files import digest, file_digest, replacing


def csv_schema(path: Path, exact: Collection[str] = (), read_bytes: int = 8 << 20) -> pa.Schema:
    """Return the columns of a CSV file, with types inferred from its first `read_bytes`.

    Integers become floating point, because a later row may have a fraction, except in the columns `exact`
    (keys and carried). So do columns without a value. An empty or unreadable file raises `SourceError`.
    """

    def settle(field: pa.Field) -> pa.Field:
        integer = pa.types.is_integer(field.type) and field.name not in exact
        return field.with_type(pa.float64()) if integer or pa.types.is_null(field.type) else field

    with _reader(path, pc.ConvertOptions(), read_bytes) as reader:
        return pa.schema([settle(field) for field in reader.schema])


def open_csv(
    path: Path, columns: Sequence[str], exact: Collection[str], directory: Path, content: bool
) -> ParquetFile:
    """Stage a CSV file and open the copy; its stamp is that of the CSV file, with its bytes if `content`."""
    stamp = csv_stamp(path, content)
    staged = stage_csv(path, columns, exact, directory, stamp)
    return replace(open_parquet(staged), stamp=stamp)


def csv_stamp(path: Path, content: bool = False) -> Stamp:
    """Return the identity of a CSV file: path, size, time, and optionally the SHA-256 of its bytes."""
    try:
        stat = path.stat()
        digested = file_digest(path) if content else ""
        return Stamp(str(path.absolute()), stat.st_size, stat.st_mtime_ns, digested)
    except OSError as error:
        raise unreadable(path, error) from error


def stage_csv(
    path: Path,
    columns: Sequence[str],
    exact: Collection[str],
    directory: Path,
    stamp: Stamp | None = None,
    read_bytes: int = 8 << 20,
) -> Path:
    """Stream columns of a CSV file into a Parquet file in `directory`, in bounded memory; return its path.

    The file may be compressed with gzip, bzip2 or zstd. It must have the `stamp` (default: its present one)
    during the conversion. `exact` and `read_bytes` are as for `csv_schema`.

    Raises
    ------
    SourceError
        When a line has too many or too few fields, or a value does not fit its column; it names the row.
    SourceChanged
        When the file changes during the conversion.
    """
    stamp = stamp or csv_stamp(path)
    schema = csv_schema(path, exact, read_bytes)
    fields = [schema.field(name) for name in columns]
    staged = directory / f"{digest([stamp, *map(str, fields)])[:32]}.parquet"
    if staged.exists():
        return staged
    # Another run may have staged the same file meanwhile, and planned with its copy.
    with replacing(staged, keep=True) as temporary:
        try:
            _convert(path, pa.schema(fields), temporary, read_bytes)
        except SourceError:
            _check_stamp(path, stamp)  # an unfinished file ends in a torn line
            raise
        _check_stamp(path, stamp)
    return staged


def _convert(path: Path, schema: pa.Schema, target: Path, read_bytes: int) -> None:
    options = pc.ConvertOptions(include_columns=schema.names, column_types=schema)
    with (
        pq.ParquetWriter(target, schema, write_page_checksum=True) as writer,
        _reader(path, options, read_bytes) as reader,
    ):
        for table in _grouped(reader, path):
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)


def _check_stamp(path: Path, stamp: Stamp) -> None:
    if csv_stamp(path, bool(stamp.content)) != stamp:
        raise SourceChanged(f"{path}: changed while being read", "run again when it is complete")


def _reader(path: Path, options: pc.ConvertOptions, read_bytes: int) -> pc.CSVStreamingReader:
    try:
        return pc.open_csv(
            pa.input_stream(str(path), compression="detect"),
            # Only the serial reader reports the number of an invalid row.
            read_options=pc.ReadOptions(use_threads=False, block_size=read_bytes),
            parse_options=pc.ParseOptions(newlines_in_values=True),
            convert_options=options,
        )
    except (pa.ArrowException, OSError) as error:
        raise _malformed(path, error) from error


def _grouped(reader: pc.CSVStreamingReader, path: Path) -> Iterator[pa.Table]:
    try:
        yield from row_groups(reader)
    except (pa.ArrowException, OSError) as error:
        raise _malformed(path, error) from error


def _malformed(path: Path, error: Exception) -> SourceError:
    if isinstance(error, OSError):
        return unreadable(path, error)
    what = " ".join(str(error).split())
    if len(what) > 200:
        what = what[:197] + "..."
    return SourceError(f"{path}: {what}", "correct that row, or leave the column out of source.features")
