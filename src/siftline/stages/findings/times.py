"""Anomalies over time, in equal intervals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siftline.types import Ints

_MOST = 200
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Seconds of intervals that people count in.
_WIDTHS = (
    *(1, 5, 15, 30),
    *(_MINUTE * number for number in (1, 5, 15, 30)),
    *(_HOUR * number for number in (1, 3, 6, 12)),
    *(_DAY * number for number in (1, 7, 30, 365)),
)


def count_times(path: Path, column: str) -> tuple[tuple[str, int], ...]:
    """Count anomalies by equal intervals of a timestamp column; nothing if it is of another type."""
    with pq.ParquetFile(path) as file:
        kind = file.schema_arrow.field(column).type
        if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            return ()
        ends = [(seconds.min(), seconds.max()) for seconds in _seconds(file, column)]
        if not ends:
            return ()
        first, last = int(min(low for low, _ in ends)), int(max(high for _, high in ends))
        width = _width(first, last)
        counts = np.zeros(last // width - first // width + 1, dtype=np.int64)
        for seconds in _seconds(file, column):
            counts += np.bincount(seconds // width - first // width, minlength=len(counts))
    starts = (first // width + np.arange(len(counts))) * width
    zone = "+00:00" if getattr(kind, "tz", None) else ""
    names = np.datetime_as_string(starts.astype("datetime64[s]"))
    return tuple(
        (f"{name}{zone}", count) for name, count in zip(names.tolist(), counts.tolist(), strict=True)
    )


def _seconds(file: pq.ParquetFile, column: str) -> Iterator[Ints]:
    """Read the times of each row group, in seconds; those that are missing are left out."""
    for number in range(file.num_row_groups):
        values = file.read_row_group(number, columns=[column], use_threads=False)[column].drop_null()
        if pa.types.is_date(values.type):
            values = values.cast(pa.timestamp("s"))
        if len(values):
            yield np.asarray(values.cast(pa.int64())) // _PER_SECOND[values.type.unit]


def _width(first: int, last: int) -> int:
    """Return the smallest width that needs few intervals."""
    fitting = (width for width in _WIDTHS if last // width - first // width < _MOST)
    return next(fitting, -(-(last - first + 1) // (_MOST - 1)))
