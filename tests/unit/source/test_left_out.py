"""Columns that are no features by default: each is named, with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftline.config.loading import parse_config
from siftline.errors import FeatureError, SourceError
from siftline.source.files import ParquetFile, open_parquet
from siftline.source.left_out import not_features
from siftline.stages.inspection import Inspection, inspect_batch

ROWS = 40
VALUES = [float(number * 37 % 11) for number in range(ROWS)]


def inspected(path: Path, **source: Any) -> Inspection:
    values = {"source": {"path": str(path), **source}, "output": {"path": str(path.parent / "out")}}
    return inspect_batch(parse_config(values | {"checkpoint": {"path": str(path.parent / "work")}}))


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"x": VALUES, **columns}), path, row_group_size=15)
    return path


def features(found: Inspection) -> list[str]:
    return [feature.name for feature in found.features]


REASONS: dict[str, tuple[str, Any, str]] = {
    "counter from 0": ("n", list(range(ROWS)), "counts the rows"),
    "counter from 1": ("n", list(range(1, ROWS + 1)), "counts the rows"),
    "identifier": ("customer_id", [7 * number % 100 for number in range(ROWS)], "an identifier by its name"),
    "camel case": ("orderId", [7 * number % 100 for number in range(ROWS)], "an identifier by its name"),
    "constant": ("c", [3] * ROWS, "constant"),
    "empty": ("e", pa.nulls(ROWS, pa.float64()), "no value"),
    "null type": ("e", pa.nulls(ROWS), "no value"),
    "number-like text": ("amount", ["1.5", "2"] * (ROWS // 2), "numbers as text"),
    "text": ("city", ["Ulm", "2"] * (ROWS // 2), "text"),
    "time": ("t", pa.array(range(ROWS), pa.timestamp("s")), "timestamp"),
}


@pytest.mark.parametrize("case", REASONS)
def test_a_column_that_is_no_feature_by_default_is_named_with_its_reason(tmp_path: Path, case: str) -> None:
    name, values, reason = REASONS[case]
    found = inspected(parquet(tmp_path / "x.parquet", **{name: values}))
    assert features(found) == ["x"]
    assert found.notes == (f"no features by default: {name} ({reason}). source.features chooses others",)


def test_text_columns_of_one_name_are_left_out(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([["Ulm"] * ROWS, ["2"] * ROWS, VALUES], names=["city", "city", "x"])
    pq.write_table(table, tmp_path / "x.parquet")
    found = inspected(tmp_path / "x.parquet")
    assert features(found) == ["x"]
    assert found.notes == ("no features by default: city (text). source.features chooses others",)


def test_features_are_chosen_by_the_first_file_with_rows(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "0.csv").write_text("x,c\n")
    (data / "1.csv").write_text("x,c\n" + "".join(f"{value},3\n" for value in VALUES))
    found = inspected(data)
    assert features(found) == ["x"]
    assert found.notes == ("no features by default: c (constant). source.features chooses others",)


def test_a_file_with_a_name_like_an_address_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parquet(tmp_path / "s3:x.parquet", amount=["1.5", "2"] * (ROWS // 2))
    assert "amount (numbers as text)" in inspected(Path("s3:x.parquet")).notes[0]


def test_damaged_text_is_refused_in_one_line(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", city=["Ulm", "2"] * (ROWS // 2))
    column = pq.read_metadata(path).row_group(0).column(1)
    content = bytearray(path.read_bytes())
    start = column.dictionary_page_offset
    content[start : start + 20] = bytes(byte ^ 0x5A for byte in content[start : start + 20])
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"x\.parquet: .*; replace the file with an intact one"):
        inspected(path)


def test_numbers_that_only_look_like_counters_are_features(tmp_path: Path) -> None:
    columns: dict[str, Any] = {
        "short": pa.array([number % 20 for number in range(ROWS)]),
        "year": pa.array([2000 + number for number in range(ROWS)]),
        "humid": pa.array([1.0] * ROWS),
        "paid": pa.array([number % 3 for number in range(ROWS)]),
        "gap": pa.array([0, 2, *range(3, ROWS + 1)]),
    }
    assert features(inspected(parquet(tmp_path / "x.parquet", **columns))) == ["x", *columns]


@pytest.mark.parametrize(
    ("of_files", "reason"),
    [
        ([[3, 3], [3, 3]], "constant"),
        ([[3, 3], [3, 4]], None),
        ([[3, 3], [3, None]], None),
        ([[None, None], [None, None]], "no value"),
        ([[None, None], [None, 1]], None),
        ([[*range(20)], [*range(20, 40)]], "counts the rows"),
        ([[*range(1, 21)], [*range(1, 21)]], "counts the rows"),
        ([[*range(20)], [*range(21, 41)]], None),
        ([[True, True], [True, True]], "constant"),
        ([[False, True], [False, True]], None),
    ],
)
def test_the_statistics_of_all_files_decide(
    tmp_path: Path, of_files: list[list[Any]], reason: str | None
) -> None:
    for number, values in enumerate(of_files):
        kind = pa.bool_() if any(value is True for value in values) else pa.int64()
        table = pa.table({"n": pa.array(values, kind), "x": pa.array(values).is_valid().cast(pa.float64())})
        pq.write_table(table, tmp_path / f"{number}.parquet", row_group_size=7)
    left_out = {} if reason is None else {"n": reason}
    files = [open_parquet(path) for path in sorted(tmp_path.glob("*.parquet"))]
    assert not_features(files[0].schema, files) == left_out


def test_no_more_footers_are_read_than_tell_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        parquet(tmp_path / f"{number}.parquet", paid=[number % 3 for number in range(ROWS)])
    files = [open_parquet(path) for path in sorted(tmp_path.glob("*.parquet"))]
    read: list[Path] = []
    original = ParquetFile.read_metadata
    monkeypatch.setattr(
        ParquetFile, "read_metadata", lambda file: (read.append(file.path), original(file))[1]
    )
    assert not_features(files[0].schema, files) == {}
    assert read == [files[0].path]


def test_what_is_named_as_a_feature_is_one(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", customer_id=list(range(ROWS)))
    found = inspected(path, features=["customer_id", "x"])
    assert (features(found), found.notes) == (["customer_id", "x"], ())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_index_of_a_data_frame_is_no_feature(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"x": VALUES}, index=[number * 3 % 41 for number in range(ROWS)])
    path = tmp_path / f"x.{kind}"
    if kind == "csv":
        frame.to_csv(path)
    else:
        frame.to_parquet(path)
    found = inspected(path)
    assert features(found) == ["x"]
    assert "(index of a data frame)" in found.notes[0]


def test_codes_counters_and_constants_of_csv_are_no_features(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = [f"{number},{number % 7:03d},9,{number * 37 % 11}" for number in range(1, ROWS + 1)]
    path.write_text("\n".join(["n,code,c,x", *rows]) + "\n")
    found = inspected(path)
    assert features(found) == ["x"]
    assert found.notes == (
        "no features by default: n (counts the rows); c (constant); code (codes). "
        "source.features chooses others",
    )


def test_columns_in_another_role_are_not_mentioned(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", city=["Ulm"] * ROWS, user_id=list(range(ROWS)))
    assert inspected(path, key=["user_id", "city"]).notes == ()


def test_a_table_of_identifiers_only_is_refused_with_the_reasons(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"user_id": [7, 5], "name": ["a", "b"]}), path)
    with pytest.raises(FeatureError, match=r"no column to score by default .*user_id \(an identifier"):
        inspected(path)
