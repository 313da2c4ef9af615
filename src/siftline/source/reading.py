"""The input: which files there are, what is in them, and reading a chunk of them.

Only Parquet is read here; CSV becomes Parquet first (`siftline.source.csv`). Every later read checks that the
file is still the planned one: on the handle that it reads from, so that no other can slip in.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siftline.config.batch import SourceConfig
from siftline.errors import (
    IntegrityError,
    SiftlineError,
    SourceChanged,
    SourceError,
    SourceUnavailable,
    may_pass,
)
from siftline.storage.files import digest
from siftline.types import Chunk, Ints, Piece, SourceFile

# What is read, and scored, at once.
BATCH_ROWS = 65_536
_BLOCK_BYTES = 1 << 20
_RUN_AGAIN = "run again: the changed input is a new job"
_SUFFIXES = {"parquet": (".parquet", ".pq"), "csv": (".csv", ".csv.gz", ".csv.zst", ".csv.bz2")}


class Stamp(NamedTuple):
    """What a file that the user gave is known by; `content` digests what was looked at of its bytes."""

    path: str
    size: int
    mtime_ns: int
    content: str = ""


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file as planning sees it.

    `row_groups` are the rows of every row group. `stamp` is that of the user's file, which for CSV is another
    one. `contents` are the digests of the row groups' bytes, where they were asked for.
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
        """Rows of the file."""
        return sum(self.row_groups)

    def read_metadata(self) -> pq.FileMetaData:
        """Read the footer again: those of many files would fill the memory.

        Raises
        ------
        SourceError
            When it cannot be read.
        """
        try:
            return pq.read_metadata(self.path)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.path, error) from error


def find_files(source: SourceConfig) -> tuple[list[Path], str]:
    """Return the files of a source, sorted by path, and their format.

    Hidden files and those that start with an underscore are passed over in a directory.

    Raises
    ------
    SourceError
        When nothing is there, or the format cannot be told.
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
    return files, source.format if source.format != "auto" else _told_by_name(files)


def _is_data(path: Path) -> bool:
    return not any(part.startswith((".", "_")) for part in path.parts)


def _told_by_name(files: Sequence[Path]) -> str:
    found = {
        next((name for name, suffixes in _SUFFIXES.items() if file.name.lower().endswith(suffixes)), None)
        for file in files
    }
    if found == {"parquet"}:
        return "parquet"
    if found == {"csv"}:
        return "csv"
    raise SourceError(
        f"{files[0].parent}: cannot tell one format for all files by their names",
        "set source.format to parquet or csv, and give source.path as a glob of such files",
    )


def open_parquet(path: Path) -> ParquetFile:
    """Read a Parquet file's footer.

    Raises
    ------
    SourceError
        When it is missing, unreadable or corrupt.
    """
    try:
        with pa.OSFile(str(path)) as handle, pq.ParquetFile(handle) as file:
            stat = os.fstat(handle.fileno())
            footer = _footer(handle).digest
            return ParquetFile(
                path=path,
                size=stat.st_size,
                mtime_ns=stat.st_mtime_ns,
                footer=footer,
                row_groups=tuple(
                    file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)
                ),
                schema=file.schema_arrow,
                stamp=Stamp(str(path.absolute()), stat.st_size, stat.st_mtime_ns, footer),
            )
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error


def with_contents(file: ParquetFile) -> ParquetFile:
    """Add the digests of the row groups' bytes, which means to read the whole file.

    Raises
    ------
    SourceError
        When it cannot be read.
    """
    metadata = file.read_metadata()
    groups = range(metadata.num_row_groups)
    try:
        with pa.OSFile(str(file.path)) as handle:
            contents = {group: _content(handle, metadata.row_group(group)) for group in groups}
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file.path, error) from error
    stamp = file.stamp._replace(content=digest([file.footer, *contents.values()]))
    return replace(file, contents=contents, stamp=stamp)


def unreadable(path: object, error: Exception) -> SourceError:
    """Map pyarrow's or the operating system's error on an input file to a `SourceError`.

    What may pass is a `SourceUnavailable`.
    """
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{path}: no such file", "put it back, or correct source.path")
    if isinstance(error, PermissionError):
        return SourceError(f"{path}: permission denied", "make it readable for this user")
    if may_pass(error):
        what = os.strerror(error.errno or 0)
        remedy = "see to the storage; it is tried again"
        return SourceUnavailable(f"{path}: cannot be read just now: {what}", remedy)
    what = " ".join(str(error).split())
    return SourceError(f"{path}: cannot be read: {what}", "replace the file by an intact one")


def read_pieces(
    files: Sequence[SourceFile], pieces: Sequence[Piece], columns: Sequence[str], rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Read pieces of the source, in order, in batches.

    Parameters
    ----------
    files : sequence of SourceFile
        The files that the pieces' numbers mean.
    pieces : sequence of Piece
        What to read.
    columns : sequence of str
        The columns to read, in this order.
    rows : int
        Most rows of a batch.

    Raises
    ------
    SourceChanged
        When a file is not the one that was planned, or does not stay so until its last batch is taken.
    SourceError
        When a file cannot be read.
    """
    for number, run in groupby(pieces, key=lambda piece: piece.file):
        file = files[number]
        try:
            yield from _read(file, run, list(columns), rows)
        except MemoryError:  # pyarrow's own is an ArrowException too
            raise
        except (pa.ArrowException, OSError) as error:
            check_unchanged(file)  # what has changed need not be readable
            raise _damaged(file, error) from error


def _damaged(file: SourceFile, error: Exception) -> SiftlineError:
    """Say what cannot be read. A copy of our own is removed, so that the next run makes it anew."""
    problem = unreadable(file.origin, error)
    if not file.staged or problem.fault != "chunk":
        return problem
    Path(file.path).unlink(missing_ok=True)
    return IntegrityError(
        f"{file.path}: this copy of {file.origin} was damaged", "run again: it is made anew"
    )


def _read(
    file: SourceFile, pieces: Iterable[Piece], columns: list[str], rows: int
) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(file.path) as handle:
        metadata = _planned(file, handle)
        with pq.ParquetFile(handle, metadata=metadata, page_checksum_verification=True) as parquet:
            for piece in pieces:
                batches = parquet.iter_batches(
                    rows, row_groups=[piece.row_group], columns=columns, use_threads=False
                )
                for batch in _slice(batches, piece):
                    _check_stat(file, handle)  # now that it is read: it may have changed meanwhile
                    yield batch
                # After reading, because an edit before or during it is still there then.
                _check_content(file, handle, metadata, piece.row_group)


def _slice(batches: Iterator[pa.RecordBatch], piece: Piece) -> Iterator[pa.RecordBatch]:
    skip, left = piece.offset, piece.rows
    for batch in batches:
        if skip >= batch.num_rows:
            skip -= batch.num_rows
            continue
        batch = batch.slice(skip, left)
        skip, left = 0, left - batch.num_rows
        yield batch
        if not left:
            return


def read_chunk(
    files: Sequence[SourceFile], chunk: Chunk, columns: Sequence[str], rows: int = BATCH_ROWS
) -> Iterator[pa.Table]:
    """Read a chunk's columns as tables of at most so many rows, one after the other.

    Raises
    ------
    SourceChanged, SourceError
        As `read_pieces`, and when fewer rows are there than planned.
    """
    found = held = 0
    batches: list[pa.RecordBatch] = []
    for batch in read_pieces(files, chunk.pieces, columns, rows):
        if held + batch.num_rows > rows:
            yield joined(batches).select(list(columns))
            batches, held = [], 0
        batches.append(batch)
        held += batch.num_rows
        found += batch.num_rows
        if held == rows:  # not only when the next one is there
            yield joined(batches).select(list(columns))
            batches, held = [], 0
    if batches:
        yield joined(batches).select(list(columns))
    if found != chunk.rows:
        name = files[chunk.pieces[0].file].origin
        raise SourceChanged(f"{name}: {found} rows where {chunk.rows} were planned", _RUN_AGAIN)


def take_rows(batches: Iterable[pa.RecordBatch], positions: Ints) -> pa.Table:
    """Take rows by their ascending position in a stream, holding no more than a batch of the others."""
    taken: list[pa.RecordBatch] = []
    start = 0
    for batch in batches:
        low, high = np.searchsorted(positions, [start, start + batch.num_rows])
        if high > low or not taken:
            taken.append(batch.take(pa.array(positions[low:high] - start)))
        start += batch.num_rows
    return joined(taken)


def joined(batches: Iterable[pa.RecordBatch | pa.Table]) -> pa.Table:
    """Join batches, or tables, whose columns files may declare in other ways (nullable, with metadata)."""
    return pa.concat_tables([pa.table(batch) for batch in batches], promote_options="default")


def only_files(
    files: Sequence[SourceFile], chunks: Sequence[Chunk]
) -> tuple[tuple[SourceFile, ...], tuple[Chunk, ...]]:
    """Return the files that some chunks read, and the chunks with their pieces' numbers meaning those."""
    row_groups: dict[int, set[int]] = {}
    for chunk in chunks:
        for piece in chunk.pieces:
            row_groups.setdefault(piece.file, set()).add(piece.row_group)
    numbers = sorted(row_groups)
    place = {number: index for index, number in enumerate(numbers)}
    renumbered = tuple(
        replace(chunk, pieces=tuple(piece._replace(file=place[piece.file]) for piece in chunk.pieces))
        for chunk in chunks
    )
    return tuple(files[number].only(row_groups[number]) for number in numbers), renumbered


def check_unchanged(file: SourceFile) -> None:
    """Refuse a file that is not the one that was planned.

    Raises
    ------
    SourceChanged
        When it is gone, or its size, time, footer, or contents (where they have a digest) differ.
    SourceError
        When it cannot be read.
    """
    try:
        with pa.OSFile(file.path) as handle:
            metadata = _planned(file, handle)
            for row_group in file.contents:
                _check_content(file, handle, metadata, row_group)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceChanged(f"{file.origin}: gone since it was planned", _RUN_AGAIN) from error
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file.origin, error) from error


def _planned(file: SourceFile, handle: pa.NativeFile) -> pq.FileMetaData:
    """Check that an open file is the one that was planned, and return its footer."""
    status = _check_stat(file, handle)
    footer = _known_footer(
        _Opened(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, handle)
    )
    if file.footer and footer.digest != file.footer:
        raise _changed(file)
    return _parsed(footer)


def _check_stat(file: SourceFile, handle: pa.NativeFile) -> os.stat_result:
    status = os.fstat(handle.fileno())
    if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
        raise _changed(file)
    return status


def _check_content(
    file: SourceFile, handle: pa.NativeFile, metadata: pq.FileMetaData, row_group: int
) -> None:
    if file.contents and _content(handle, metadata.row_group(row_group)) != file.contents[row_group]:
        raise _changed(file)


def _changed(file: SourceFile) -> SourceChanged:
    return SourceChanged(f"{file.origin}: changed since it was planned", _RUN_AGAIN)


@dataclass(frozen=True)
class _Footer:
    digest: str
    tail: bytes = field(compare=False)


def _footer(handle: pa.NativeFile) -> _Footer:
    """Read the end of a file: the footer, its length in four bytes, and the format's name."""
    size = handle.size()
    end = handle.read_at(8, max(size - 8, 0))
    length = int.from_bytes(end[:4], "little") if end[4:] == b"PAR1" else 0
    start = max(size - 8 - length, 0)
    tail = handle.read_at(size - start, start)
    return _Footer(hashlib.sha256(tail).hexdigest(), tail)


@dataclass(frozen=True)
class _Opened:
    """An open file, known by what the system says of it; nobody can set the ctime of a file back."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    handle: pa.NativeFile = field(compare=False)


@lru_cache(maxsize=8)
def _known_footer(file: _Opened) -> _Footer:
    """Read a footer once per process, as long as the file stays as it is."""
    return _footer(file.handle)


@lru_cache(maxsize=8)
def _parsed(footer: _Footer) -> pq.FileMetaData:
    """Parse a footer once per process: one with thousands of row groups takes longer than a chunk."""
    return pq.read_metadata(pa.BufferReader(footer.tail))


def _content(handle: pa.NativeFile, row_group: pq.RowGroupMetaData) -> str:
    """SHA-256 of a row group's bytes, as hex, read in bounded memory."""
    columns = [row_group.column(index) for index in range(row_group.num_columns)]
    starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
    stop = max(start + column.total_compressed_size for start, column in zip(starts, columns, strict=True))
    stop = min(stop, handle.size())
    content = hashlib.sha256()
    for offset in range(min(starts), stop, _BLOCK_BYTES):
        content.update(handle.read_at(min(_BLOCK_BYTES, stop - offset), offset))
    return content.hexdigest()
