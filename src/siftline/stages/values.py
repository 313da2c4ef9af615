"""Values of features that cannot be scored, found by the statistics of a file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from siftline.batch_plan import Piece, SourceFile
from siftline.errors import FeatureError
from siftline.source.files import ParquetFile
from siftline.source.reading import read_pieces
from siftline.types import Float64s

_LARGE = 1e38
_REMEDY = "replace them in the source, or leave the feature out of source.features"


def as_source(file: ParquetFile) -> SourceFile:
    """Return a file as it is read."""
    path, origin = str(file.path), file.stamp.path
    return SourceFile(path=path, size=file.size, mtime_ns=file.mtime_ns, rows=file.rows, origin=origin)


def refuse_beyond(file: ParquetFile, column: str, group: int, ends: tuple[float, float], plain: bool) -> None:
    """Raise `FeatureError` if the least or the largest value of a row group is infinite.

    So are values too large for 32 bits, if they are scored `plain`.
    """
    low, high = ends
    if low > -_LARGE and high < _LARGE:  # without arrays: there may be a million row groups
        return
    if not _beyond(np.array(ends, dtype=np.float64), plain).any():
        return
    pieces = [Piece(0, group, 0, file.row_groups[group])]
    batches = [batch[column].cast(pa.float64()) for batch in read_pieces([as_source(file)], pieces, [column])]
    values = np.concatenate([batch.to_numpy(zero_copy_only=False) for batch in batches])
    row = int(np.argmax(_beyond(values, plain)))
    what = "infinite values" if np.isinf(values[row]) else "values too large for 32-bit floating point"
    place = sum(file.row_groups[:group]) + row
    raise FeatureError(
        f"feature {column}: {what} in {file.stamp.path}, {values[row]:g} in row {place}", _REMEDY
    )


def _beyond(values: Float64s, plain: bool) -> np.ndarray:
    with np.errstate(over="ignore"):
        seen = values.astype(np.float32) if plain else values
    return np.isinf(seen)
