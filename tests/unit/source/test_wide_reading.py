"""Wide rows are read in bounded memory, and come out as narrow ones do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftline.batch_plan import Chunk, Piece, SourceFile, batch_rows
from siftline.source import reading, sample
from siftline.source.files import open_parquet
from siftline.source.reading import joined, read_chunk, read_pieces
from siftline.source.sample import draw_sample

ROWS, WIDTH = 90, 21


@pytest.fixture
def wide(tmp_path: Path) -> tuple[SourceFile, pa.Table]:
    generator = np.random.default_rng(0)
    columns: dict[str, Any] = {f"f{number}": generator.normal(size=ROWS) for number in range(WIDTH - 2)}
    columns["text"] = pa.array([None if row % 7 == 0 else f"t{row % 5}" for row in range(ROWS)])
    columns["code"] = pa.array([f"c{row // 20}" for row in range(ROWS)]).dictionary_encode()
    table = pa.table(columns)
    path = tmp_path / "wide.parquet"
    pq.write_table(table, path, row_group_size=40)
    file = open_parquet(path)
    source = SourceFile(
        path=str(path),
        size=file.size,
        mtime_ns=file.mtime_ns,
        footer=file.footer,
        rows=file.rows,
        origin="wide",
    )
    return source, table


def test_fewer_rows_are_read_at_once_the_wider_they_are() -> None:
    assert batch_rows(1) == batch_rows(64) == 65_536
    for width in (65, 5_000, 30_000, 10**7):
        assert 1 <= batch_rows(width) <= max(1, (1 << 22) // width)


@pytest.mark.parametrize("rows", [1, 7, 40, 1_000])
@pytest.mark.parametrize("columns", [WIDTH, 5])
def test_a_piece_read_by_runs_of_columns_has_the_same_rows(
    wide: tuple[SourceFile, pa.Table], monkeypatch: pytest.MonkeyPatch, rows: int, columns: int
) -> None:
    file, table = wide
    monkeypatch.setattr(reading, "_COLUMNS_AT_ONCE", 4)
    monkeypatch.setattr(reading, "_SMALL_ROWS", 9)
    names = table.column_names[::-1][:columns]
    pieces = [Piece(0, 0, 13, 27), Piece(0, 1, 0, 40), Piece(0, 2, 2, 5)]
    batches = list(read_pieces([file], pieces, names, rows))
    assert max(batch.num_rows for batch in batches) <= rows
    expected = pa.concat_tables([table.slice(13, 67), table.slice(82, 5)]).select(names)
    assert joined(batches).to_pylist() == expected.to_pylist()
    chunk = joined(read_chunk([file], Chunk(0, 13, tuple(pieces)), names))
    assert chunk.to_pylist() == expected.to_pylist()


def test_no_more_columns_are_decoded_at_once_than_fit(
    wide: tuple[SourceFile, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, table = wide
    asked: list[int] = []
    original = pq.ParquetFile.iter_batches

    def counted(self: pq.ParquetFile, *arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        asked.append(len(options["columns"]))
        return original(self, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    monkeypatch.setattr(reading, "_COLUMNS_AT_ONCE", 4)
    list(read_pieces([file], [Piece(0, 0, 0, 40)], table.column_names))
    assert asked == [4, 4, 4, 4, 4, 1]


@pytest.mark.parametrize("rows", [10, 60, ROWS, 10 * ROWS])
def test_a_sample_read_by_runs_of_columns_is_the_same_sample(
    wide: tuple[SourceFile, pa.Table], monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    file, table = wide
    groups = [(0, 0, 40), (0, 1, 40), (0, 2, 10)]
    whole = draw_sample([file], groups, table.column_names, rows, seed=3)
    monkeypatch.setattr(sample, "_COLUMNS_AT_ONCE", 2)
    monkeypatch.setattr(sample, "_CELLS_AT_ONCE", 1)
    assert draw_sample([file], groups, table.column_names, rows, seed=3).to_pylist() == whole.to_pylist()
    assert whole.num_rows == min(rows, ROWS)
