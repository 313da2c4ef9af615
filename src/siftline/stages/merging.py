"""Merging of the anomalies that workers have sorted by rank, in memory that does not grow with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from siftline.storage.arrays import to_arrow, to_numpy
from siftline.storage.layout import OutputFiles
from siftline.storage.parquet import published_file, write_result
from siftline.storage.records import PublishedFile

# Cells that are held of all sorted files together, and of the merged table.
_HELD_CELLS = 1 << 20
_MERGED_CELLS = 1 << 18
# Cells of a row's reasons.
_REASONS = 20
# Reading fewer rows takes as long.
_FEWEST = 128


def group_rows(columns: int, files: int) -> int:
    """Return the rows of a row group of each of so many sorted files."""
    return max(_FEWEST, _HELD_CELLS // (files * (columns + _REASONS)))


@dataclass(frozen=True)
class MergeTask:
    """Task of merging sorted files of anomalies, of so many rows in all, in a staged result."""

    found: tuple[str, ...]
    staged: str
    rows: int

    def __str__(self) -> str:
        return "the merge of the anomalies"


def merge_anomalies(task: MergeTask) -> PublishedFile:
    """Write the anomalies of a staged result, on a worker."""
    staged = Path(task.staged)
    write_result(merge_sorted([Path(path) for path in task.found]), staged / OutputFiles.ANOMALIES)
    return published_file(staged, OutputFiles.ANOMALIES, task.rows)


def merge_sorted(paths: Sequence[Path]) -> Iterator[pa.Table]:
    """Yield the rows of at least one file, each sorted by ``rank``, in the order of all, a part at a time.

    Equal ranks stay in the order of the files. Of all rows only the ranks are held.
    """
    rows = max(_FEWEST, _MERGED_CELLS // (len(pq.read_schema(paths[0])) + _REASONS))
    files = [_Sorted(path) for path in paths]
    owners = _owners(paths)
    for start in range(0, len(owners), rows):
        own = owners[start : start + rows]
        taken = [files[number].take(count) for number, count in enumerate(np.bincount(own)) if count]
        places = np.argsort(np.argsort(own, kind="stable"))
        yield pa.concat_tables(taken).take(to_arrow(places))
    if not len(owners):
        yield files[0].take(0)


def _owners(paths: Sequence[Path]) -> npt.NDArray[np.int32]:
    """Return the number of the file that each row of the merged table comes from."""
    ranks = []
    for path in paths:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            ranks.append(to_numpy(file.read(["rank"], use_threads=False)["rank"]))
    owners = np.repeat(np.arange(len(paths), dtype=np.int32), [len(one) for one in ranks])
    return owners[np.argsort(np.concatenate(ranks), kind="stable")]


class _Sorted:
    """A sorted file, of which one row group is held; closed between reads, because there may be thousands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._group = 0
        self._held: pa.Table | None = None

    def take(self, rows: int) -> pa.Table:
        """Return the next rows."""
        held = self._held if self._held is not None else self._read()
        while held.num_rows < rows:
            held = pa.concat_tables([held, self._read()])
        self._held = held.slice(rows) if held.num_rows > rows else None
        return held.slice(0, rows)

    def _read(self) -> pa.Table:
        with pq.ParquetFile(self._path, page_checksum_verification=True) as file:
            self._group += 1
            return file.read_row_group(self._group - 1, use_threads=False)
