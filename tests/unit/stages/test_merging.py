"""Merging of sorted anomalies: the whole table by rank, whatever the files and however little is held."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.stages import merging
from siftline.stages.merging import group_rows, merge_sorted
from siftline.storage.parquet import write_parquet

RANKS = st.lists(st.integers(1, 6), max_size=12)


def table_of(ranks: list[int], file: int) -> pa.Table:
    texts = [f"{file}-{place}" for place in range(len(ranks))]
    nested = pa.array([[{"text": text}] for text in texts], pa.list_(pa.struct({"text": pa.string()})))
    columns = {"rank": pa.array(ranks, pa.int64()), "text": pa.array(texts, pa.string()), "nested": nested}
    return pa.table(columns)


@given(files=st.lists(RANKS, min_size=1, max_size=8), group=st.integers(1, 5), rows=st.integers(1, 7))
def test_the_merged_table_equals_the_sorted_one(files: list[list[int]], group: int, rows: int) -> None:
    tables = [table_of(ranks, number).sort_by("rank") for number, ranks in enumerate(files)]
    with TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_FEWEST", rows)
        patch.setattr(merging, "_MERGED_CELLS", 0)
        paths = [Path(directory) / str(number) for number in range(len(tables))]
        for table, path in zip(tables, paths, strict=True):
            write_parquet(table, path, group)
        merged = list(merge_sorted(paths))
    assert max(part.num_rows for part in merged) <= rows
    assert pa.concat_tables(merged) == pa.concat_tables(tables).sort_by("rank")


def test_the_cells_held_do_not_grow_with_the_files() -> None:
    assert 100 * group_rows(12, 100) <= group_rows(12, 1)
