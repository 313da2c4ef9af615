"""Reading chunks of Parquet files; `siftline.source.csv` converts CSV first.

Every read checks that the file is the planned one, on the handle it reads from, so that the file cannot
be replaced in between.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siftline.batch_plan import Chunk, Piece, SourceFile, batch_rows
from siftline.errors import IntegrityError, SiftlineError, SourceChanged
from siftline.source.column_types import parse_type, select
from siftline.source.damage import unreadable
from siftline.source.files import READ_OPTIONS, Footer, content_digest, parse_footer, read_footer
from siftline.storage.owned import remove_staged
from siftline.types import Ints

_COLUMNS_AT_ONCE = 128
_SMALL_ROWS = 4_096  # part of a batch keeps the memory of all of it
_RUN_AGAIN = "run again: the changed input is a new job"


def read_pieces(
    files: Sequence[SourceFile], pieces: Sequence[Piece], columns: Sequence[str], rows: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Read pieces of the source, in order, in batches of at most `rows` rows, by default `batch_rows`.

    Raises
    ------
    SourceChanged
        When a file is not the planned one, or changes before its last batch is taken.
    SourceError
        When a file cannot be read.
    """
    for number, run in groupby(pieces, key=lambda piece: piece.file):
        file = files[number]
        try:
            yield from _read(file, run, list(columns), rows or batch_rows(len(columns)))
        except MemoryError:  # pyarrow's own is also an ArrowException
            raise
        except (pa.ArrowException, OSError) as error:
            check_unchanged(file)  # a changed file may be unreadable
            raise _damaged(file, error) from error


def _damaged(file: SourceFile, error: Exception) -> SiftlineError:
    """Map an error on a file. A damaged staged copy is removed, so that the next run makes a new one."""
    problem = unreadable(file.origin, error)
    if not file.staged or problem.fault != "chunk":
        return problem
    remove_staged(Path(file.path))
    what = f"{file.path}: this copy of {file.origin} was damaged"
    return IntegrityError(what, "run again: a new copy is made")


def _read(
    file: SourceFile, pieces: Iterable[Piece], columns: list[str], rows: int
) -> Iterator[pa.RecordBatch]:
    casts = {name: parse_type(text) for name, text in file.casts.items()}
    with pa.OSFile(file.path) as handle:
        metadata = _planned(file, handle)
        with pq.ParquetFile(
            handle, metadata=metadata, page_checksum_verification=True, **READ_OPTIONS
        ) as parquet:
            for piece in pieces:
                for batch in _batches(parquet, piece, columns, casts, rows):
                    _check_stat(file, handle)  # after reading, because it may have changed meanwhile
                    yield batch
                # After reading, to detect edits before and during it.
                _check_content(file, handle, metadata, piece.row_group)


def _batches(
    parquet: pq.ParquetFile, piece: Piece, columns: list[str], casts: Mapping[str, pa.DataType], rows: int
) -> Iterator[pa.RecordBatch]:
    """Read a piece in batches; wide ones by runs of columns, because each takes a megabyte to decode."""

    def read(run: list[str], most: int) -> Iterator[pa.RecordBatch]:
        found = parquet.iter_batches(most, row_groups=[piece.row_group], columns=run, use_threads=False)
        return (select(batch, run, casts) for batch in _slice(found, piece))

    if len(columns) <= _COLUMNS_AT_ONCE:
        yield from read(columns, rows)
        return
    starts = range(0, len(columns), _COLUMNS_AT_ONCE)
    runs = (columns[start : start + _COLUMNS_AT_ONCE] for start in starts)
    tables = [pa.Table.from_batches(list(read(run, _SMALL_ROWS))) for run in runs]
    whole = pa.table([column for table in tables for column in table.columns], columns)
    for start in range(0, whole.num_rows, rows):
        yield from whole.slice(start, rows).combine_chunks().to_batches()


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
    files: Sequence[SourceFile], chunk: Chunk, columns: Sequence[str], rows: int | None = None
) -> Iterator[pa.Table]:
    """Read a chunk's columns as tables of at most `rows` rows; raise `SourceChanged` if rows are missing."""
    rows = rows or batch_rows(len(columns))
    found = held = 0
    batches: list[pa.RecordBatch] = []
    for batch in read_pieces(files, chunk.pieces, columns, rows):
        if held + batch.num_rows > rows:
            yield joined(batches).select(list(columns))
            batches, held = [], 0
        batches.append(batch)
        held += batch.num_rows
        found += batch.num_rows
        if held == rows:  # without waiting for the next one
            yield joined(batches).select(list(columns))
            batches, held = [], 0
    if batches:
        yield joined(batches).select(list(columns))
    if found != chunk.rows:
        name = files[chunk.pieces[0].file].origin
        raise SourceChanged(f"{name}: {found} rows where {chunk.rows} were planned", _RUN_AGAIN)


def take_rows(batches: Iterable[pa.RecordBatch], positions: Ints) -> pa.Table:
    """Take rows by ascending position from a stream, holding at most one batch of others."""
    taken: list[pa.RecordBatch] = []
    start = 0
    for batch in batches:
        low, high = np.searchsorted(positions, [start, start + batch.num_rows])
        if high > low or not taken:
            taken.append(batch.take(pa.array(positions[low:high] - start)))
        start += batch.num_rows
    return joined(taken)


def joined(batches: Iterable[pa.RecordBatch | pa.Table]) -> pa.Table:
    """Join batches or tables, whose fields may differ in nullability and metadata."""
    tables = [
        pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch for batch in batches
    ]
    alike = all(table.schema.equals(tables[0].schema, check_metadata=True) for table in tables[1:])
    return pa.concat_tables(tables, promote_options="none" if alike else "default")


def only_files(
    files: Sequence[SourceFile], chunks: Sequence[Chunk]
) -> tuple[tuple[SourceFile, ...], tuple[Chunk, ...]]:
    """Return the files that chunks read, and the chunks with pieces renumbered accordingly."""
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
    """Raise `SourceChanged` if a file is gone, or differs in size, time, footer or (if verified) content."""
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
    """Check that an open file is the planned one, and return its footer."""
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
    if file.contents and content_digest(handle, metadata.row_group(row_group)) != file.contents[row_group]:
        raise _changed(file)


def _changed(file: SourceFile) -> SourceChanged:
    return SourceChanged(f"{file.origin}: changed since it was planned", _RUN_AGAIN)


@dataclass(frozen=True)
class _Opened:
    """Identity of an open file; its ctime cannot be set back."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    handle: pa.NativeFile = field(compare=False)


@lru_cache(maxsize=8)
def _known_footer(file: _Opened) -> Footer:
    """Read a footer once per process while the file is unchanged."""
    return read_footer(file.handle)


@lru_cache(maxsize=8)
def _parsed(footer: Footer) -> pq.FileMetaData:
    """Parse a footer once per process: one with thousands of row groups takes longer than a chunk."""
    return parse_footer(footer)
