"""Input files: finding them, reading their footers, and digests of their bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from siftline.config.batch import SourceConfig
from siftline.errors import SourceError
from siftline.source.column_types import stored_type
from siftline.source.damage import damaged, unreadable
from siftline.source.owners import homes, refuse_own, refuse_tables
from siftline.source.tree import files_below, is_directory, matching, once
from siftline.storage.files import digest

READ_OPTIONS = {"coerce_int96_timestamp_unit": "us"}  # nanoseconds have the years 1678 to 2261 only
_SUFFIXES = {"parquet": (".parquet", ".pq", ".parq"), "csv": (".csv", ".csv.gz", ".csv.zst", ".csv.bz2")}


# First bytes of other formats.
_OTHERS = {
    b"PK\x03\x04": "a ZIP archive or a workbook",
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"ORC": "ORC",
    b"Obj\x01": "Avro",
    b"ARROW1": "Arrow (Feather)",
    b"SQLite format 3": "an SQLite database",
    b"\x89HDF": "HDF5",
    b"\xd0\xcf\x11\xe0": "a workbook",
    b"version https://": "a Git LFS pointer",
}
_DECRYPT = "write its rows to a file without encryption"
# The length of the footer and the magic number; the nonce and the tag that sign a plain footer.
_TAIL, _SIGNATURE = 8, 28


class Stamp(NamedTuple):
    """Identity of an input file; `content` is a digest of its bytes, if they are verified."""

    path: str
    size: int
    mtime_ns: int
    content: str = ""


@dataclass(frozen=True)
class ParquetFile:
    """Metadata of a Parquet file; `row_groups` has the rows of each row group.

    `stamp` identifies the user's file, which may be CSV. `contents` has digests of row groups, if verified.
    """

    path: Path
    size: int
    mtime_ns: int
    footer: str
    row_groups: tuple[int, ...]
    schema: pa.Schema
    stamp: Stamp
    contents: dict[int, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(self.row_groups)

    def read_metadata(self) -> pq.FileMetaData:
        """Read the footer; it is not kept, because many would fill the memory."""
        try:
            with pa.OSFile(str(self.path)) as handle:  # to pyarrow, some names are addresses
                return pq.read_metadata(handle)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.path, error) from error


def find_files(source: SourceConfig) -> tuple[list[Path], str]:
    """Return the files of a source, sorted by path, and their format; raise `SourceError` if unclear or none.

    In a directory, names that start with a dot or an underscore are skipped. Links are followed.
    """
    root = Path(source.path)
    formats = [source.format] if source.format != "auto" else list(_SUFFIXES)
    suffixes = tuple(suffix for name in formats for suffix in _SUFFIXES[name])
    files = once(_found(root, suffixes))
    if not files:
        refuse_tables([root])
        what = f"source.path {source.path}: no {' or '.join(formats)} files there"
        raise SourceError(what, "give an existing file, directory or glob")
    for file in files:
        _check_name(file)
    kind = source.format if source.format != "auto" else _format_by_name(files)
    directories = homes(files)
    if kind == "parquet":
        refuse_tables(directories)
    refuse_own(directories, staged=files == [root])
    return files, kind


def _found(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    exists = is_directory(root) is not None
    for path in [root] if exists else matching(root):
        if not is_directory(path):
            yield path
        elif exists or path.name.lower().endswith(suffixes):  # a file of Spark is a directory of files
            yield from (file for file in files_below(path) if file.name.lower().endswith(suffixes))


def _check_name(file: Path) -> None:
    try:
        str(file.absolute()).encode()
    except UnicodeEncodeError:
        raise SourceError(f"{file}: its name is not UTF-8", "rename it") from None


def _format_by_name(files: Sequence[Path]) -> str:
    for name, suffixes in _SUFFIXES.items():
        if all(file.name.lower().endswith(suffixes) for file in files):
            return name
    if len(files) == 1:
        remedy = "name it .parquet or .csv, or set source.format"
        raise SourceError(f"{files[0]}: its name does not tell whether it is Parquet or CSV", remedy)
    raise SourceError(
        f"{files[0].parent}: the files' names do not indicate one format",
        "set source.format to parquet or csv, and source.path to a glob of such files",
    )


def open_parquet(path: Path) -> ParquetFile:
    """Read a Parquet file's footer; raise `SourceError` if it is missing, encrypted or corrupt."""
    try:
        with pa.OSFile(str(path)) as handle:
            stat = os.fstat(handle.fileno())
            footer = read_footer(handle)
            _check_magic(path, handle)
            with pq.ParquetFile(pa.BufferReader(footer.tail), **READ_OPTIONS) as file:
                metadata = file.metadata
                _check_encryption(path, footer, metadata)
                schema = file.schema_arrow
            groups = (metadata.row_group(group) for group in range(metadata.num_row_groups))
            return ParquetFile(
                path=path,
                size=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                footer=footer.digest,
                row_groups=tuple(group.num_rows for group in groups),
                schema=pa.schema([field.with_type(stored_type(field.type)) for field in schema]),
                stamp=Stamp(str(path.absolute()), stat.st_size, stat.st_mtime_ns, footer.digest),
            )
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unreadable(path, error) from error


def _check_magic(path: Path, handle: pa.NativeFile) -> None:
    begin = handle.read_at(16, 0)
    if begin.startswith(b"PAR1"):
        return
    if begin.startswith(b"PARE"):
        raise SourceError(f"{path}: is encrypted", _DECRYPT)
    kind = next((name for magic, name in _OTHERS.items() if begin.startswith(magic)), "other content")
    raise damaged(path, f"{kind if handle.size() else 'an empty file'}, not Parquet")


def _check_encryption(path: Path, footer: Footer, metadata: pq.FileMetaData) -> None:
    """Raise `SourceError` for a signed footer: asking it for an encrypted column would abort the process."""
    if len(footer.tail) - _TAIL - metadata.serialized_size == _SIGNATURE:
        raise SourceError(f"{path}: has encrypted columns", _DECRYPT)


def with_contents(file: ParquetFile) -> ParquetFile:
    """Add digests of the row groups' bytes, by reading the whole file."""
    metadata = file.read_metadata()
    groups = range(metadata.num_row_groups)
    try:
        with pa.OSFile(str(file.path)) as handle:
            contents = {group: content_digest(handle, metadata.row_group(group)) for group in groups}
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file.path, error) from error
    stamp = file.stamp._replace(content=digest([file.footer, *contents.values()]))
    return replace(file, contents=contents, stamp=stamp)


@dataclass(frozen=True)
class Footer:
    """A Parquet footer: its SHA-256, and its bytes including length and magic number."""

    digest: str
    tail: bytes = field(compare=False)


def read_footer(handle: pa.NativeFile) -> Footer:
    """Read the end of a file: the footer, its length in four bytes, and the magic number."""
    size = handle.size()
    end = handle.read_at(8, max(size - 8, 0))
    length = int.from_bytes(end[:4], "little") if end[4:] == b"PAR1" else 0
    start = max(size - 8 - length, 0)
    tail = handle.read_at(size - start, start)
    return Footer(hashlib.sha256(tail).hexdigest(), tail)


def parse_footer(footer: Footer) -> pq.FileMetaData:
    """Parse a footer."""
    return pq.read_metadata(pa.BufferReader(footer.tail))


def content_digest(handle: pa.NativeFile, row_group: pq.RowGroupMetaData) -> str:
    """Return the SHA-256 of a row group's bytes, as hex; read in bounded memory."""
    columns = [row_group.column(index) for index in range(row_group.num_columns)]
    if not columns:
        return hashlib.sha256().hexdigest()
    starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
    stop = max(start + column.total_compressed_size for start, column in zip(starts, columns, strict=True))
    stop = min(stop, handle.size())
    content = hashlib.sha256()
    for offset in range(min(starts), stop, 1 << 20):
        content.update(handle.read_at(min(1 << 20, stop - offset), offset))
    return content.hexdigest()
