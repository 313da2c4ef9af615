"""Parquet files of a job: plain while they are only its own, complete and strict when published."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftline.storage.parquet import read_ranks, with_labels, write_parquet, write_result

TABLE = pa.table(
    {
        "integer": pa.array([3, None, -1]),
        "small": pa.array([1, 2, 3], pa.uint8()),
        "float": pa.array([0.5, None, float("inf")]),
        "half": pa.array([0.5, None, 2.0], pa.float32()),
        "text": ["a", None, "a"],
        "dictionary": pa.array(["x", "y", None]).dictionary_encode(),
        "time": pa.array([0, None, 10**15]).cast(pa.timestamp("us", "UTC")),
        "flag": [True, None, False],
        "nested": pa.array([[{"a": 1, "b": 0.5}], None, []]),
        "a.b": [1.5, 2.5, 3.5],
        "label": [0.0, 1.0, 0.0],
    }
)


@pytest.mark.parametrize("group_rows", [None, 1, 2])
def test_values_of_any_type_are_read_back(tmp_path: Path, group_rows: int | None) -> None:
    write_parquet(TABLE, tmp_path / "part", group_rows)
    with pq.ParquetFile(tmp_path / "part", page_checksum_verification=True) as file:
        assert file.num_row_groups == -(-3 // (group_rows or 3))
        assert file.read().to_pylist() == TABLE.to_pylist()
        assert file.schema_arrow.equals(TABLE.schema)


@pytest.mark.parametrize("nullable", [True, False])
@pytest.mark.parametrize("key", [["k"], ["row"], []])
def test_rows_of_a_result_lack_no_score_position_or_label(key: list[str], nullable: bool) -> None:
    score = pa.field("score", pa.float64(), nullable)
    keys = [(pa.field(name, pa.int64()), pa.array([7, None])) for name in key]
    columns = [*keys, (score, pa.array([0.25, 0.75]))]
    part = pa.table([values for _, values in columns], schema=pa.schema([field for field, _ in columns]))
    found = with_labels(part, 10, pa.array([0, 1], pa.int8()))
    names = [*key, *(["row"] if key != ["row"] else []), "score", "label"]
    assert found.column_names == names
    assert [field.nullable for field in found.schema] == [name in key for name in names]
    assert found["score"].to_pylist() == [0.25, 0.75]
    assert found["row"].to_pylist() == ([7, None] if key == ["row"] else [10, 11])


@pytest.mark.parametrize("most", [0, 1, 2, 5, 9, 100])
@pytest.mark.parametrize("write", ["result", "part"])
def test_the_rows_up_to_a_rank_are_read_from_the_first_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str, most: int
) -> None:
    ranks = [1, 2, 2, 2, 5, 6, 6, 8, 9]
    nested = pa.array([[{"a": rank}] for rank in ranks])
    table = pa.table({"nested": nested, "rank": ranks, "place": range(9)})
    path = tmp_path / "anomalies.parquet"
    if write == "result":
        write_result(iter([table.slice(0, 4), table.slice(4, 2), table.slice(6)]), path)
    else:  # without statistics
        write_parquet(table, path, 2)
    read: list[list[int]] = []
    original = pq.ParquetFile.read_row_groups

    def noted(file: pq.ParquetFile, groups: list[int], **options: bool) -> pa.Table:
        read.append(groups)
        return original(file, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", noted)
    found = read_ranks(path, most)
    assert found.to_pylist() == [row for row in table.to_pylist() if row["rank"] <= most]
    if write == "result":
        assert read == [[group for group, least in enumerate([1, 5, 6]) if least <= most]]
