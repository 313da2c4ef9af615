"""The plan of a batch: the input's snapshot, the features, and the chunks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from siftline.config.batch import BatchConfig
from siftline.storage.layout import JobFiles, OutputFiles
from siftline.storage.records import Record
from siftline.types import Ints

# Most rows, and cells, that are read and scored at once.
BATCH_ROWS = 65_536
_BATCH_CELLS = 1 << 22


def batch_rows(columns: int, most: int = BATCH_ROWS) -> int:
    """Return the rows of so many columns that are read, and scored, at once."""
    return max(1, min(most, _BATCH_CELLS // max(1, columns)))


class SourceFile(Record):
    """One file of the input at planning: `path` is read, `origin` given by the user (for CSV they differ)."""

    path: str
    size: int
    mtime_ns: int
    footer: str = Field(default="", description="SHA-256 of the Parquet footer; empty: not to be checked.")
    contents: dict[int, str] = Field(
        default={}, description="SHA-256 of the bytes of row groups, by number; none: not to be checked."
    )
    rows: int
    origin: str
    staged: bool = False
    casts: dict[str, str] = Field(
        default={}, description="Columns whose type in the other files differs, with the type for all."
    )

    def only(self, row_groups: Collection[int]) -> SourceFile:
        """Return the record without the digests of other row groups, because it crosses the network."""
        if not self.contents:
            return self
        contents = {group: self.contents[group] for group in sorted(row_groups)}
        return self.model_copy(update={"contents": contents})


class Snapshot(Record):
    """The input of a job: its files with sizes, times and digests, and its columns."""

    files: tuple[SourceFile, ...]
    columns: dict[str, str] = Field(description="Arrow type of every column that the job reads.")
    identity: str = Field(description="Digest of the stamps of the user's files.")

    @property
    def rows(self) -> int:
        """Rows of all files together."""
        return sum(file.rows for file in self.files)


class Feature(Record):
    """One column of the raw matrix, and the source column from which it is derived."""

    name: str
    column: str
    kind: Literal["numeric", "categorical", "time_part"] = "numeric"
    time_part: str | None = None
    period: float | None = Field(default=None, description="Period of a cyclic feature, in its own unit.")


class Piece(NamedTuple):
    """A run of rows within one row group of one source file."""

    file: int
    row_group: int
    offset: int
    rows: int


@dataclass(frozen=True)
class Chunk:
    """A run of consecutive rows of the source: the unit of work, retry and checkpoint."""

    index: int
    first_row: int
    pieces: tuple[Piece, ...]

    def __str__(self) -> str:
        return f"chunk {self.index} (rows {self.first_row}-{self.first_row + self.rows - 1})"

    @property
    def rows(self) -> int:
        """Rows in the chunk."""
        return sum(piece.rows for piece in self.pieces)


class ChunkTable(Sequence[Chunk]):
    """All chunks of a job, kept as flat integers: 100,000 of them are a few megabytes.

    `pieces`, of shape (n_pieces, 4): file, row group, offset and rows of every piece, in source order.
    Chunk ``i`` owns the pieces ``bounds[i]:bounds[i + 1]``.
    """

    def __init__(self, pieces: Ints, bounds: Ints) -> None:
        self.pieces = pieces
        self.bounds = bounds
        rows_before = np.concatenate([[0], np.cumsum(pieces[:, 3])])
        self.first_rows: Ints = rows_before[bounds]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        rows = self.pieces[self.bounds[position] : self.bounds[position + 1]].tolist()
        return Chunk(position, int(self.first_rows[position]), tuple(Piece(*row) for row in rows))

    def __iter__(self) -> Iterator[Chunk]:
        return (self[index] for index in range(len(self)))

    def row_groups(self) -> list[tuple[int, int, int]]:
        """Return (file, row group, rows) of every row group, in source order, for any cut."""
        groups, counts = self.pieces[:, :2], self.pieces[:, 3]
        first = np.flatnonzero(np.append(True, (groups[1:] != groups[:-1]).any(axis=1)))
        rows = np.add.reduceat(counts, first)
        return [tuple(row) for row in np.column_stack([groups[first], rows]).tolist()]

    def to_lists(self) -> dict[str, list[Any]]:
        """Return the table as JSON-able lists."""
        return {"pieces": self.pieces.tolist(), "bounds": self.bounds.tolist()}

    @classmethod
    def from_lists(cls, lists: dict[str, list[Any]]) -> ChunkTable:
        """Rebuild a table from the lists of `to_lists`; raise ValueError if these are of no table."""
        pieces = np.asarray(lists["pieces"], dtype=np.int64).reshape(-1, 4)
        bounds = np.asarray(lists["bounds"], dtype=np.int64)
        if not _is_cut(pieces, bounds):
            raise ValueError("not a cut of all rows")
        return cls(pieces, bounds)


def _is_cut(pieces: Ints, bounds: Ints) -> bool:
    """Return True if chunks own all pieces once, and pieces cover row groups from their first rows on."""
    if bounds.ndim != 1 or not len(bounds) or (bounds[0], bounds[-1]) != (0, len(pieces)):
        return False
    follows = (pieces[1:, :2] == pieces[:-1, :2]).all(axis=1)
    expected = np.append(0, np.where(follows, pieces[:-1, 2] + pieces[:-1, 3], 0))
    whole = (pieces >= 0).all() and (pieces[:, 3] > 0).all() and (pieces[:, 2] == expected).all()
    return bool(whole and (np.diff(bounds) > 0).all())


@dataclass(frozen=True, repr=False)
class BatchPlan:
    """Plan of a job: the input's snapshot, the features, the chunks, and the directory of its work.

    `token` names this start of the job, so that receipts and part files of one given up (``--fresh``) do not
    count for another; `fresh` is true if one was given up. `bundle` chunks travel to a worker together, and
    `commit_every` are committed together. A chunk is scored in batches `batch_divisor` times smaller
    than usual. `notes` are what the user should know before the work.
    """

    job_id: str
    token: str
    config: BatchConfig
    snapshot: Snapshot
    features: tuple[Feature, ...]
    chunks: ChunkTable
    bundle: int
    commit_every: int
    directory: Path
    batch_divisor: int = 1
    fresh: bool = False
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:  # Dask logs the arguments of failed calls
        return f"BatchPlan({self.job_id})"

    @property
    def rows(self) -> int:
        """Rows of the whole input."""
        return self.snapshot.rows

    @property
    def files(self) -> JobFiles:
        """The job's files on disk."""
        return JobFiles(self.directory)

    @property
    def output(self) -> OutputFiles:
        """The files of the result on disk."""
        return OutputFiles(Path(self.config.output.path).absolute())

    @property
    def parts(self) -> Path:
        """Directory of the part files that workers write."""
        return self.files.parts(self.token)

    @property
    def failed(self) -> Path:
        """Directory of the rows and chunks that cannot be scored."""
        return self.files.failed(self.token)

    @property
    def tolerated_rows(self) -> int:
        """Most rows that may be set aside."""
        return _tolerated(self.config.tolerate.rows, self.rows)

    @property
    def tolerated_chunks(self) -> int:
        """Most chunks that may fail."""
        return _tolerated(self.config.tolerate.chunks, len(self.chunks))


def _tolerated(tolerance: int | str, of: int) -> int:
    """Return a tolerance as a number; in decimals, because in floats 29 % of 100 is less than 29."""
    return tolerance if isinstance(tolerance, int) else math.floor(Decimal(tolerance[:-1]) * of / 100)
