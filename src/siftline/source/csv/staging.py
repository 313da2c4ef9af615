"""Conversion of CSV to Parquet, because quoted newlines make it impossible to split a CSV file safely.

The staged copy is named by a digest of its origin and of how it is read, so that later jobs find it, and
by one of its own footer, so that they believe no other. Its pages have checksums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from siftline.errors import SourceChanged, SourceError, storage_error
from siftline.source.csv.columns import CsvFile
from siftline.source.csv.notes import line_break_note
from siftline.source.csv.reader import CsvReader
from siftline.source.damage import unreadable
from siftline.source.files import ParquetFile, Stamp, open_parquet, read_footer
from siftline.source.row_groups import write_row_groups
from siftline.storage.files import digest, file_digest, replacing
from siftline.storage.owned import refuse_links, remove_staged

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


def staged_copy(file: CsvFile, schema: pa.Schema, directory: Path, stamp: Stamp) -> Path | None:
    """Return the staged copy with its own footer, if there is one."""
    copies = directory.glob(f"{_name(file, schema, stamp)}-*.parquet")
    return next((path for path in sorted(copies) if _is_whole(path)), None)


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
    refuse_links([directory])
    if (staged := staged_copy(file, schema, directory, stamp)) is not None:
        return staged
    name = _name(file, schema, stamp)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for damaged in directory.glob(f"{name}-*.parquet"):
            remove_staged(damaged)
        with TemporaryDirectory(dir=directory, prefix=".csv-") as home:
            written = Path(home) / "copy.parquet"
            _convert_unchanged(file, schema, written, stamp, read_bytes)
            staged = directory / f"{name}-{_footer(written)}.parquet"
            # Another run may have staged the same file meanwhile, and planned with its copy.
            with replacing(staged, keep=True) as temporary:
                written.rename(temporary)
            return staged
    except OSError as error:
        raise storage_error(error, directory) from error


def _convert_unchanged(file: CsvFile, schema: pa.Schema, target: Path, stamp: Stamp, read_bytes: int) -> None:
    try:
        _convert(file, schema, target, read_bytes)
    except SourceError:
        _check_stamp(file.path, stamp)  # an unfinished file ends in a torn line
        raise
    _check_stamp(file.path, stamp)


def _convert(file: CsvFile, schema: pa.Schema, target: Path, read_bytes: int) -> None:
    with (
        CsvReader(file.path, file.dialect, schema, read_bytes) as reader,
        pq.ParquetWriter(target, schema, write_page_checksum=True) as writer,
    ):
        write_row_groups(writer, reader.batches())
        writer.add_key_value_metadata({_LINE_BREAKS: str(reader.line_breaks)})


def _name(file: CsvFile, schema: pa.Schema, stamp: Stamp) -> str:
    return digest([stamp, _form(file), *map(str, schema)])[:32]


def _footer(path: Path) -> str:
    with pa.OSFile(str(path)) as handle:
        return read_footer(handle).digest[:16]


def _is_whole(path: Path) -> bool:
    """Return True if a staged copy begins as Parquet does, and has the footer that it is named by."""
    try:
        if not path.is_file() or path.is_symlink():
            return False
        with path.open("rb") as file:
            begins = file.read(4) == b"PAR1"
        return begins and path.stem.endswith(f"-{_footer(path)}")
    except OSError:
        return False


def _form(file: CsvFile) -> list[str]:
    return [str(value) for value in astuple(file.dialect)]


def _check_stamp(path: Path, stamp: Stamp) -> None:
    if csv_stamp(path, bool(stamp.content)) != stamp:
        raise SourceChanged(f"{path}: changed while being read", "run again when it is complete")
