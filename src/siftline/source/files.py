"""Input files: finding them, reading their footers, and digests of their bytes."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from siftline.config.batch import SourceConfig
from siftline.errors import SourceError, SourceUnavailable, may_pass
from siftline.storage.files import digest

_SUFFIXES = {"parquet": (".parquet", ".pq"), "csv": (".csv", ".csv.gz", ".csv.zst", ".csv.bz2")}


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
            return pq.read_metadata(self.path)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.path, error) from error


def find_files(source: SourceConfig) -> tuple[list[Path], str]:
    """Return the files of a source, sorted by path, and their format; raise `SourceError` if unclear or none.

    In a directory, names that start with a dot or an underscore are skipped.
    """
    root = Path(source.path)
    formats = [source.format] if source.format != "auto" else list(_SUFFIXES)
    suffixes = tuple(suffix for name in formats for suffix in _SUFFIXES[name])
    if root.is_dir():
        files = [file for file in root.rglob("*") if _is_data(file.relative_to(root)) and file.is_file()]
        files = [file for file in files if file.name.lower().endswith(suffixes)]
    elif root.exists():
        files = [root]
    else:
        files = [Path(name) for name in glob.glob(source.path, recursive=True) if Path(name).is_file()]
    if not files:
        raise SourceError(
            f"source.path {source.path}: no {' or '.join(formats)} files there",
            "give an existing file, directory or glob",
        )
    files.sort()
    return files, source.format if source.format != "auto" else _format_by_name(files)


def _is_data(path: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.parts)


def _format_by_name(files: Sequence[Path]) -> str:
    for name, suffixes in _SUFFIXES.items():
        if all(file.name.lower().endswith(suffixes) for file in files):
            return name
    raise SourceError(
        f"{files[0].parent}: the files' names do not indicate one format",
        "set source.format to parquet or csv, and source.path to a glob of such files",
    )


def open_parquet(path: Path) -> ParquetFile:
    """Read a Parquet file's footer; raise `SourceError` if it is missing, unreadable or corrupt."""
    try:
        with pa.OSFile(str(path)) as handle, pq.ParquetFile(handle) as file:
            stat = os.fstat(handle.fileno())
            footer = read_footer(handle).digest
            groups = (file.metadata.row_group(group) for group in range(file.num_row_groups))
            return ParquetFile(
                path=path,
                size=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                footer=footer,
                row_groups=tuple(group.num_rows for group in groups),
                schema=file.schema_arrow,
                stamp=Stamp(str(path.absolute()), stat.st_size, stat.st_mtime_ns, footer),
            )
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error


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


def unreadable(path: object, error: Exception) -> SourceError:
    """Map an error of pyarrow or the operating system to a `SourceError`; transient ones can be retried."""
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{path}: no such file", "put it back, or correct source.path")
    if isinstance(error, PermissionError):
        return SourceError(f"{path}: permission denied", "make it readable for this user")
    if may_pass(error):
        what = f"{path}: cannot be read just now: {os.strerror(error.errno or 0)}"
        return SourceUnavailable(what, "check the storage; it is tried again")
    what = " ".join(str(error).split())
    return SourceError(f"{path}: cannot be read: {what}", "replace the file with an intact one")


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


def content_digest(handle: pa.NativeFile, row_group: pq.RowGroupMetaData) -> str:
    """Return the SHA-256 of a row group's bytes, as hex; read in bounded memory."""
    columns = [row_group.column(index) for index in range(row_group.num_columns)]
    starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
    stop = max(start + column.total_compressed_size for start, column in zip(starts, columns, strict=True))
    stop = min(stop, handle.size())
    content = hashlib.sha256()
    for offset in range(min(starts), stop, 1 << 20):
        content.update(handle.read_at(min(1 << 20, stop - offset), offset))
    return content.hexdigest()
