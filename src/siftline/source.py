"""The input: which files there are, what is in them, and reading a chunk of them.

Only Parquet is read here; CSV becomes Parquet first (`siftline.staging`).
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from siftline.config import SourceConfig
from siftline.errors import SourceChanged, SourceError
from siftline.types import Chunk, Piece, SourceFile

_BATCH_ROWS = 65_536
_SUFFIXES = {"parquet": (".parquet", ".pq"), "csv": (".csv", ".csv.gz", ".csv.zst", ".csv.bz2")}


@dataclass(frozen=True)
class ParquetFile:
    """A Parquet file as planning sees it: its stat, and its footer."""

    path: Path
    size: int
    mtime_ns: int
    metadata: pq.FileMetaData
    schema: pa.Schema


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
        stat = path.stat()
        with pq.ParquetFile(path) as file:
            return ParquetFile(path, stat.st_size, stat.st_mtime_ns, file.metadata, file.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(path, error) from error


def unreadable(path: object, error: Exception) -> SourceError:
    """Map pyarrow's or the operating system's error on an input file to a `SourceError`."""
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{path}: no such file", "put it back, or correct source.path")
    if isinstance(error, PermissionError):
        return SourceError(f"{path}: permission denied", "make it readable for this user")
    what = " ".join(str(error).split())
    return SourceError(f"{path}: cannot be read: {what}", "replace the file by an intact one")


def read_pieces(
    files: Sequence[SourceFile], pieces: Sequence[Piece], columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Read pieces of the source, in order, in batches of at most 65,536 rows.

    Parameters
    ----------
    files : sequence of SourceFile
        The files that the pieces' numbers mean.
    pieces : sequence of Piece
        What to read.
    columns : sequence of str
        The columns to read, in this order.

    Raises
    ------
    SourceChanged
        When a file's size or time is not what was planned.
    SourceError
        When a file cannot be read.
    """
    for number, run in groupby(pieces, key=lambda piece: piece.file):
        file = files[number]
        check_unchanged(file)
        try:
            footer = _footer(file.path, file.size, file.mtime_ns)
            with pq.ParquetFile(file.path, metadata=footer) as parquet:
                for piece in run:
                    batches = parquet.iter_batches(
                        _BATCH_ROWS, row_groups=[piece.row_group], columns=list(columns), use_threads=False
                    )
                    yield from _slice(batches, piece)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(file.path, error) from error


@lru_cache(maxsize=8)
def _footer(path: str, size: int, mtime_ns: int) -> pq.FileMetaData:
    """Parse a footer once per process: one with thousands of row groups takes longer than a chunk."""
    return pq.read_metadata(path)


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


def read_chunk(files: Sequence[SourceFile], chunk: Chunk, columns: Sequence[str]) -> pa.Table:
    """Read a chunk's columns as a table.

    Raises
    ------
    SourceChanged, SourceError
        As `read_pieces`, and when fewer rows are there than planned.
    """
    table = joined(read_pieces(files, chunk.pieces, columns)).select(list(columns))
    if table.num_rows != chunk.rows:
        name = files[chunk.pieces[0].file].origin
        raise SourceChanged(
            f"{name}: {table.num_rows} rows where {chunk.rows} were planned",
            "run again: the changed input is a new job",
        )
    return table


def take_rows(batches: Iterable[pa.RecordBatch], positions: npt.NDArray[np.int64]) -> pa.Table:
    """Take rows by their ascending position in a stream, holding no more than a batch of the others."""
    taken: list[pa.RecordBatch] = []
    start = 0
    for batch in batches:
        low, high = np.searchsorted(positions, [start, start + batch.num_rows])
        if high > low or not taken:
            taken.append(batch.take(pa.array(positions[low:high] - start)))
        start += batch.num_rows
    return joined(taken)


def joined(batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """Join batches of the same columns, which files may declare in other ways (nullable, with metadata)."""
    return pa.concat_tables([pa.table(batch) for batch in batches], promote_options="default")


def only_files(
    files: Sequence[SourceFile], chunks: Sequence[Chunk]
) -> tuple[tuple[SourceFile, ...], tuple[Chunk, ...]]:
    """Return the files that some chunks read, and the chunks with their pieces' numbers meaning those."""
    numbers = sorted({piece.file for chunk in chunks for piece in chunk.pieces})
    place = {number: index for index, number in enumerate(numbers)}
    renumbered = tuple(
        replace(chunk, pieces=tuple(piece._replace(file=place[piece.file]) for piece in chunk.pieces))
        for chunk in chunks
    )
    return tuple(files[number] for number in numbers), renumbered


def check_unchanged(file: SourceFile) -> None:
    """Refuse a file that is not the one that was planned.

    Raises
    ------
    SourceChanged
        When its size or modification time differ, or it is gone.
    """
    remedy = "run again: the changed input is a new job"
    try:
        stat = Path(file.path).stat()
    except OSError as error:
        raise SourceChanged(f"{file.origin}: gone since it was planned ({error.strerror})", remedy) from error
    if (stat.st_size, stat.st_mtime_ns) != (file.size, file.mtime_ns):
        raise SourceChanged(f"{file.origin}: changed since it was planned", remedy)
