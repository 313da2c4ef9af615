"""Row groups of the Parquet files that input of other formats is converted to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

_ROWS = 131_072


def write_row_groups(writer: pq.ParquetWriter, batches: Iterable[pa.RecordBatch]) -> None:
    """Write batches as row groups of a suitable size."""
    for table in _joined(batches):
        writer.write_table(table, row_group_size=_ROWS)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Join batches to tables of at least a row group each, but for the last."""
    held: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        if rows >= _ROWS:
            yield pa.Table.from_batches(held)
            held, rows = [], 0
    if held:
        yield pa.Table.from_batches(held)
