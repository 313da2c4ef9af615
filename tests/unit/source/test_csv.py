"""CSV becomes Parquet: whatever is in it, as it is, or an error that names the row."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from siftline.errors import SourceError
from siftline.source.csv import csv_schema, stage_csv
from tests.support import make_config, run_job, visible_files


def staged(path: Path, *columns: str, exact: tuple[str, ...] = (), read_bytes: int = 8 << 20) -> pa.Table:
    return pq.read_table(stage_csv(path, columns, exact, path.parent / "staged", read_bytes=read_bytes))


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_columns_asked_for_are_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b,c\n1.5,x,2\n2.5,y,3\n")
    assert staged(path, "c", "a").to_pydict() == {"c": [2, 3], "a": [1.5, 2.5]}


def test_a_quoted_newline_is_part_of_the_value(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", 'a,t\n1,"two\nlines"\n2,"a ""quote"", too"\n')
    assert staged(path, "a", "t").to_pydict() == {"a": [1, 2], "t": ["two\nlines", 'a "quote", too']}


def test_quoted_newlines_survive_the_edges_of_blocks(tmp_path: Path) -> None:
    lines = [f'{i},"{"ä" * (i % 7)}\n\n{i}"' for i in range(200)]
    path = written(tmp_path / "x.csv", "a,t\n" + "\n".join(lines) + "\n")
    table = staged(path, "a", "t", read_bytes=64)
    assert table["a"].to_pylist() == list(range(200))
    assert table["t"].to_pylist() == [f"{'ä' * (i % 7)}\n\n{i}" for i in range(200)]


def test_gzip_and_zstd_are_read_through(tmp_path: Path) -> None:
    text = b"a\n1.5\n2.5\n"
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "x.csv.zst").write_bytes(pa.compress(text, codec="zstd", asbytes=True))
    for name in ("x.csv.gz", "x.csv.zst"):
        assert staged(tmp_path / name, "a")["a"].to_pylist() == [1.5, 2.5]


def test_a_torn_gzip_is_a_source_error(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    path.write_bytes(gzip.compress(os.urandom(100_000).hex().encode())[:5000])
    with pytest.raises(SourceError, match=r"x\.csv\.gz: "):
        staged(path, "a")


def test_whole_numbers_may_become_fractions_in_later_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a\n" + "1\n" * 500 + "2.5\n")
    assert staged(path, "a", read_bytes=64)["a"].to_pylist()[-2:] == [1.0, 2.5]


def test_keys_stay_whole_numbers(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "id,a\n9007199254740993,1\n")
    table = staged(path, "id", "a", exact=("id",))
    assert table["id"].to_pylist() == [9007199254740993]
    assert table.schema.field("a").type == pa.float64()


@pytest.mark.parametrize(("line", "got"), [("1,2,3", 3), ("1", 1)], ids=["too many fields", "too few fields"])
@pytest.mark.parametrize("row", [3, 400])
def test_a_ragged_line_is_named(tmp_path: Path, row: int, line: str, got: int) -> None:
    lines = ["a,b", *["1,2"] * 600]
    lines[row - 1] = line
    path = written(tmp_path / "x.csv", "\n".join(lines) + "\n")
    with pytest.raises(SourceError) as caught:
        staged(path, "a", "b", read_bytes=64)
    text = str(caught.value)
    assert text.startswith(f"{path}: CSV parse error: Row #{row}: Expected 2 columns, got {got}: {line};")
    assert "\n" not in text
    assert visible_files(tmp_path) == ["x.csv"]


def test_text_among_numbers_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b\n" + "1,2\n" * 500 + "1,none\n")
    with pytest.raises(SourceError, match=r"x\.csv: .*Row #502.*'none'"):
        staged(path, "a", "b", read_bytes=64)


def test_an_error_does_not_drag_a_long_line_along(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b\n1,2\n" + "x" * 100_000 + "\n")
    with pytest.raises(SourceError) as caught:
        staged(path, "a", "b")
    assert len(str(caught.value)) < 400


def test_a_column_without_a_value_at_first_is_a_number(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a,b\n" + "1,\n" * 100 + "1,2.5\n")
    values = staged(path, "a", "b", read_bytes=64)["b"].to_pylist()
    assert values[:2] == [None, None]
    assert values[-1] == 2.5


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="Empty CSV file"):
        csv_schema(written(tmp_path / "x.csv", ""))


def test_a_staged_file_is_used_again_while_the_source_is_the_same(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "a\n1\n")
    first = stage_csv(path, ["a"], [], tmp_path / "staged")
    made = first.stat().st_mtime_ns
    assert stage_csv(path, ["a"], [], tmp_path / "staged") == first
    assert first.stat().st_mtime_ns == made
    path.write_text("a\n22\n")
    second = stage_csv(path, ["a"], [], tmp_path / "staged")
    assert second != first
    assert pq.read_table(second)["a"].to_pylist() == [22]


def test_a_csv_job_is_the_parquet_job(tmp_path: Path) -> None:
    rows = [(i, (i * 37 % 101) / 8, (i * 53 % 97) / 4) for i in range(300)]
    (tmp_path / "csv").mkdir()
    (tmp_path / "parquet").mkdir()
    columns: dict[str, Any] = dict(zip(("id", "x", "y"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "parquet" / "x.parquet")
    for number, part in enumerate((rows[:100], rows[100:])):
        lines = [f"{i},{x!r},{y!r}" for i, x, y in part]
        written(tmp_path / "csv" / f"{number}.csv", "\n".join(["id,x,y", *lines]) + "\n")
    jobs = [
        run_job(
            make_config(
                tmp_path / f"{kind} job", tmp_path / kind, source={"key": ["id"]}, chunking={"rows": 70}
            )
        )
        for kind in ("csv", "parquet")
    ]
    assert jobs[0].outcome() == jobs[1].outcome()
    assert jobs[0].table["id"].to_pylist() == list(range(300))


def test_files_may_have_whole_numbers_where_others_have_fractions(tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    written(tmp_path / "csv" / "0.csv", "x,y\n1,2\n3,4\n")
    written(tmp_path / "csv" / "1.csv", "x,y\n1.5,2\n3,4.5\n")
    assert run_job(make_config(tmp_path, tmp_path / "csv")).manifest.rows == 4


def test_a_copy_that_another_run_has_made_meanwhile_stays_the_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("id,x\n1,2.5\n2,3.5\n")
    others: list[tuple[Path, int]] = []

    def open_last(*given: Any, convert_options: pc.ConvertOptions, **options: Any) -> Any:
        if convert_options.include_columns and not others:
            others.append((source, 0))
            path = stage_csv(source, ["x"], (), tmp_path / "staged")
            others[0] = (path, path.stat().st_mtime_ns)
        return open_csv(*given, convert_options=convert_options, **options)

    open_csv = pc.open_csv
    monkeypatch.setattr(pc, "open_csv", open_last)
    path = stage_csv(source, ["x"], (), tmp_path / "staged")
    assert others == [(path, path.stat().st_mtime_ns)]
    assert visible_files(tmp_path / "staged") == [path.name]
