"""Conversion of CSV to Parquet, because quoted newlines make it impossible to split a CSV file safely.

The staged copy is named by a digest of its origin and of how it is read, so that later jobs find it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from siftline.errors import SourceChanged, SourceError
from siftline.source.csv.columns import CsvFile, line_break_note
from siftline.source.csv.reader import CsvReader
from siftline.source.damage import unreadable
from siftline.source.files import ParquetFile, Stamp, open_parquet
from siftline.source.row_groups import ROW_GROUP_ROWS, row_groups
from siftline.storage.files import digest, file_digest, replacing

_LINE_BREAKS = b"siftline:line_breaks"


def open_csv(file: CsvFile, schema: pa.Schema, directory: Path, content: bool) -> ParquetFile:
    """Stage columns of a CSV file and open the copy.

    The stamp is that of the CSV file, with a digest of the way it is read, and of its bytes if `content`.
    """
    stamp = csv_stamp(file.path, content)
    staged = stage_csv(file, schema, directory, stamp)
    return replace(open_parquet(staged), stamp=stamp._replace(content=digest([stamp.content, _form(file)])))


def csv_notes(files: Sequence[CsvFile], staged: Sequence[ParquetFile]) -> Iterator[str]:
    """Yield what the conversion of files has shown, for the user to know."""
    for file, copy in zip(files, staged, strict=False):
        metadata = copy.read_metadata().metadata or {}
        if breaks := int(metadata.get(_LINE_BREAKS, b"0")):
            yield line_break_note(file.path, breaks, file.dialect)


def csv_stamp(path: Path, content: bool = False) -> Stamp:
    """Return the identity of a CSV file: path, size, time, and optionally the SHA-256 of its bytes."""
    try:
        stat = path.stat()
        digested = file_digest(path) if content else ""
        return Stamp(str(path.absolute()), stat.st_size, stat.st_mtime_ns, digested)
    except OSError as error:
        raise unreadable(path, error) from error


def staged_path(file: CsvFile, schema: pa.Schema, directory: Path, stamp: Stamp) -> Path:
    """Return the path of the staged copy, which need not exist."""
    return directory / f"{digest([stamp, _form(file), *map(str, schema)])[:32]}.parquet"


def stage_csv(
    file: CsvFile,
    schema: pa.Schema,
    directory: Path,
    stamp: Stamp | None = None,
    read_bytes: int = 8 << 20,
) -> Path:
    """Stream the columns of `schema` into a Parquet file in `directory`, in bounded memory; return its path.

    The file must have the `stamp` (default: its present one) during the conversion.

    Raises
    ------
    SourceError
        When a line has too many or too few fields, or a value does not fit its column; it names the row.
    SourceChanged
        When the file changes during the conversion.
    """
    stamp = stamp or csv_stamp(file.path)
    staged = staged_path(file, schema, directory, stamp)
    if staged.exists():
        return staged
    # Another run may have staged the same file meanwhile, and planned with its copy.
    with replacing(staged, keep=True) as temporary:
        try:
            _convert(file, schema, temporary, read_bytes)
        except SourceError:
            _check_stamp(file.path, stamp)  # an unfinished file ends in a torn line
            raise
        _check_stamp(file.path, stamp)
    return staged


def _convert(file: CsvFile, schema: pa.Schema, target: Path, read_bytes: int) -> None:
    with (
        CsvReader(file.path, file.dialect, schema, read_bytes) as reader,
        pq.ParquetWriter(target, schema, write_page_checksum=True) as writer,
    ):
        for table in row_groups(reader.batches()):
            writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata({_LINE_BREAKS: str(reader.line_breaks)})


def _form(file: CsvFile) -> list[str]:
    return [str(value) for value in astuple(file.dialect)]


def _check_stamp(path: Path, stamp: Stamp) -> None:
    if csv_stamp(path, bool(stamp.content)) != stamp:
        raise SourceChanged(f"{path}: changed while being read", "run again when it is complete")
