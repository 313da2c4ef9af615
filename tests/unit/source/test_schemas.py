"""Files whose columns differ in type are read in one type, without loss, or refused."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftline.config.batch import BatchConfig
from siftline.errors import FeatureError, SourceError
from siftline.source.column_types import parse_type, select, stored_type, type_text
from siftline.source.reading import joined, read_chunk
from siftline.stages.inspection import inspect_batch
from siftline.stages.plan import plan_batch
from tests.support import make_config, make_table, run_job

ROWS = 20
NUMBERS = range(ROWS)
TEXT = pa.array([f"t{number % 3}" for number in NUMBERS])
FAR = [datetime(9999, 12, 31), datetime(1, 1, 1)]  # noqa: DTZ001  as INT96, without a zone
BIG = [(1 << 53) + number for number in NUMBERS]


def type_name(value: object) -> str:
    return str(value.type if isinstance(value, pa.Array) else value)


def configured(home: Path, *columns: pa.Array | None, **options: Any) -> BatchConfig:
    """A job on a file for each column `c`, which is carried."""
    (home / "data").mkdir()
    for number, column in enumerate(columns):
        table = make_table(ROWS, seed=number)
        if column is not None:
            table = table.append_column("c", column)
        pq.write_table(table, home / "data" / f"{number}.parquet", row_group_size=8, **options)
    return make_config(home, home / "data", output={"columns": ["c"]})


def read_back(config: BatchConfig) -> pa.ChunkedArray:
    plan = plan_batch(config)
    tables = [table for chunk in plan.chunks for table in read_chunk(plan.snapshot.files, chunk, ["c"])]
    column = joined(tables)["c"]
    assert str(column.type) == plan.snapshot.columns["c"]
    return column


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (TEXT.dictionary_encode(), TEXT, pa.string()),
        (TEXT.dictionary_encode(), TEXT.cast(pa.dictionary(pa.int8(), pa.string())), pa.string()),
        (TEXT, TEXT.cast(pa.large_string()), pa.large_string()),
        (TEXT, TEXT.cast(pa.string_view()), pa.large_string()),
        (pa.nulls(ROWS), TEXT.dictionary_encode(), TEXT.dictionary_encode().type),
        (pa.nulls(ROWS), pa.array([[1]] * ROWS), pa.list_(pa.field("element", pa.int64()))),
        (pa.array(NUMBERS), pa.array(np.arange(ROWS) / 2), pa.float64()),
        (pa.array([1 << 53, -(1 << 53)] * 10), pa.array(np.arange(ROWS) / 2), pa.float64()),
        (pa.array(NUMBERS, pa.int32()), pa.array(np.arange(ROWS), pa.float32()), pa.float64()),
        (pa.array(NUMBERS, pa.int32()), pa.array([1 << 40] * ROWS), pa.int64()),
        (pa.array(NUMBERS, pa.uint8()), pa.array([-1] * ROWS, pa.int8()), pa.int16()),
        (pa.array(NUMBERS, pa.uint64()), pa.array([-1] * ROWS), pa.int64()),
        (pa.array(np.arange(ROWS), pa.float32()), pa.array(np.arange(ROWS) / 3), pa.float64()),
        (pa.array([Decimal("1.5")] * ROWS), pa.array([Decimal("0.125")] * ROWS), pa.decimal128(4, 3)),
        (pa.array(NUMBERS, pa.timestamp("ms")), pa.array(NUMBERS, pa.timestamp("us")), pa.timestamp("us")),
        (pa.array(NUMBERS, pa.timestamp("us")), pa.array(NUMBERS, pa.timestamp("ns")), pa.timestamp("ns")),
        (
            pa.array(NUMBERS, pa.timestamp("us", "UTC")),
            pa.array(NUMBERS, pa.timestamp("us", "+00:00")),
            pa.timestamp("us", "UTC"),
        ),
        (pa.array([time(1)] * ROWS, pa.time32("ms")), pa.array([time(2)] * ROWS), pa.time64("us")),
    ],
    ids=type_name,
)
@pytest.mark.parametrize("swapped", [False, True])
def test_types_with_a_common_one_are_read_in_it_and_it_is_said(
    tmp_path: Path, one: pa.Array, other: pa.Array, common: pa.DataType, swapped: bool
) -> None:
    columns = [other, one] if swapped else [one, other]
    config = configured(tmp_path, *columns)
    values = read_back(config)
    assert values.type == common
    assert values.to_pylist() == [value for column in columns for value in column.to_pylist()]
    (note,) = (note for note in inspect_batch(config).notes if note.startswith("column c is "))
    assert note.endswith(f".parquet, and is read as {common}")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TEXT, pa.array(NUMBERS)),
        (pa.array([True] * ROWS), pa.array(NUMBERS)),
        (pa.array([Decimal("1.5")] * ROWS), pa.array(np.arange(ROWS) / 2)),
        (pa.array(NUMBERS, pa.timestamp("us")), pa.array(NUMBERS, pa.timestamp("us", "UTC"))),
        (pa.array([date(2024, 1, 1)] * ROWS), pa.array(NUMBERS, pa.timestamp("us"))),
        (pa.array([b"a"] * ROWS), TEXT),
        (pa.array([[1]] * ROWS), pa.array([[0.5]] * ROWS)),
    ],
    ids=type_name,
)
def test_types_without_a_common_one_are_refused_with_file_column_and_types(
    tmp_path: Path, one: pa.Array, other: pa.Array
) -> None:
    with pytest.raises(SourceError) as caught:
        inspect_batch(configured(tmp_path, one, other))
    first, second = (pq.read_schema(tmp_path / "data" / f"{n}.parquet").field("c").type for n in (0, 1))
    assert str(caught.value) == (
        f"{tmp_path}/data/1.parquet: column c is {second}, in {tmp_path}/data/0.parquet it is {first}; "
        "use files of one schema"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.array(BIG), pa.array(np.arange(ROWS) / 2)),
        (pa.array([-number for number in BIG]), pa.array(np.arange(ROWS) / 2)),
        (pa.array([(1 << 64) - 1] * ROWS, pa.uint64()), pa.array(np.arange(ROWS) / 2)),
        (pa.array([1 << 63] * ROWS, pa.uint64()), pa.array(NUMBERS)),
        (pa.array(FAR * 10), pa.array(NUMBERS, pa.timestamp("ns"))),
    ],
    ids=type_name,
)
def test_a_value_that_the_common_type_lacks_is_refused(
    tmp_path: Path, one: pa.Array, other: pa.Array
) -> None:
    with pytest.raises(SourceError) as caught:
        inspect_batch(configured(tmp_path, one, other))
    assert str(caught.value).startswith(
        f"{tmp_path}/data/0.parquet: column c is {one.type}, and a value may not fit {other.type} "
    )


def test_whole_numbers_without_statistics_are_refused_among_fractions(tmp_path: Path) -> None:
    halves = pa.array(np.arange(ROWS) / 2)
    with pytest.raises(SourceError, match="a value may not fit double"):
        inspect_batch(configured(tmp_path, pa.array(NUMBERS), halves, write_statistics=False))


def test_a_time_without_statistics_that_does_not_fit_stops_the_reading(tmp_path: Path) -> None:
    config = configured(
        tmp_path, pa.array(FAR * 10), pa.array(NUMBERS, pa.timestamp("ns")), write_statistics=False
    )
    with pytest.raises(SourceError, match=r"0\.parquet: cannot be read: .*out of bounds"):
        read_back(config)


@pytest.mark.parametrize("number", [0, 2], ids=["none", "twice"])
def test_a_column_that_a_file_lacks_or_has_twice_is_said_so(tmp_path: Path, number: int) -> None:
    config = configured(tmp_path, TEXT)
    table = make_table(ROWS)
    columns = [*table.columns, *[TEXT] * number]
    pq.write_table(
        pa.Table.from_arrays(columns, names=[*table.column_names, *["c"] * number]),
        tmp_path / "data/1.parquet",
    )
    with pytest.raises(SourceError) as caught:
        inspect_batch(config)
    has = "there twice" if number else "none"
    assert f"1.parquet: column c is {has}, in " in str(caught.value)


# -- empty files


@pytest.mark.parametrize("place", ["0-first", "y-last"])
@pytest.mark.parametrize(
    "empty",
    [
        pa.table({}),
        pa.table({name: pa.array([], pa.string()) for name in ("x", "y", "id", "at")}),
        pa.table({"x": pa.nulls(0), "y": pa.nulls(0)}),
        pa.table({"other": pa.array([], pa.int64())}),
    ],
    ids=["no columns", "text", "null", "other columns"],
)
@pytest.mark.parametrize("verify", ["stat", "content"])
def test_a_file_without_rows_among_others_is_never_in_the_way(
    tmp_path: Path, place: str, empty: pa.Table, verify: str
) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(empty, tmp_path / "data" / f"{place}.parquet")
    pq.write_table(make_table(ROWS), tmp_path / "data" / "data.parquet")
    config = make_config(tmp_path, tmp_path / "data", source={"verify": verify})
    assert plan_batch(config).rows == ROWS
    assert inspect_batch(config).casts == {}


# -- types that Arrow cannot select rows of


VIEWS = {
    "string_view": pa.array(["a", None, "long enough to be stored apart"], pa.string_view()),
    "binary_view": pa.array([b"a", None, b"bc"], pa.binary_view()),
    "list of views": pa.array([["a", None], None, []], pa.list_(pa.string_view())),
    "struct of views": pa.array([{"k": "a"}, None, {"k": None}], pa.struct([("k", pa.string_view())])),
    "list_view": pa.array([[1, 2], None, []], pa.list_view(pa.int64())),
    "large_list_view": pa.array([[1, 2], None, []], pa.large_list_view(pa.int64())),
    "list_view of views": pa.array([[["a"], None], None, []], pa.list_view(pa.list_view(pa.string_view()))),
    "fixed_size_list": pa.array([["a", "b"]] * 3, pa.list_(pa.string_view(), 2)),
    "map": pa.array([[("a", "b")], None, []], pa.map_(pa.string_view(), pa.string_view())),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_are_held_as_plain_columns_of_the_same_values(name: str) -> None:
    for array in (
        pa.concat_arrays([VIEWS[name]] * 50) if "view" not in name else VIEWS[name],
        VIEWS[name].slice(1),
    ):
        column = select(pa.record_batch({"c": array}), ["c"]).column("c")
        column.validate(full=True)
        assert column.type == stored_type(array.type)
        assert "_view" not in str(column.type)
        assert column.to_pylist() == array.to_pylist()
        assert column.take(pa.array([1, 0])).to_pylist() == [array[1].as_py(), array[0].as_py()]


def test_a_list_view_of_many_lists_keeps_its_last_list(tmp_path: Path) -> None:
    lists = [[number] * (number % 4) if number % 7 else None for number in range(200)]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"c": pa.array(lists, pa.list_view(pa.int64()))}), path)
    batch = next(pq.ParquetFile(path).iter_batches())
    column = select(batch, ["c"]).column("c")
    column.validate(full=True)
    assert column.to_pylist() == lists


@pytest.mark.parametrize(
    "sections", [{"source": {"key": ["c"]}}, {"output": {"columns": ["c"]}}], ids=["key", "carried"]
)
@pytest.mark.parametrize("name", ["string_view", "binary_view"])
def test_a_view_may_be_a_key_or_carried(tmp_path: Path, name: str, sections: dict[str, Any]) -> None:
    values = pa.array([f"r{number}" for number in range(100)]).cast(VIEWS[name].type)
    pq.write_table(make_table(100).append_column("c", values), tmp_path / "x.parquet")
    job = run_job(make_config(tmp_path, tmp_path / "x.parquet", **sections))
    flagged = job.anomalies["c"].to_pylist()
    assert flagged
    assert set(flagged) <= set(values.to_pylist())


def test_a_view_may_be_a_categorical_feature(tmp_path: Path) -> None:
    table = make_table(100)
    plain, view = tmp_path / "plain" / "x.parquet", tmp_path / "view" / "x.parquet"
    outcomes = []
    for path, kind in ((plain, pa.string()), (view, pa.string_view())):
        path.parent.mkdir()
        pq.write_table(table.set_column(4, "color", table["color"].cast(kind)), path)
        categorical = {"source": {"features": ["x", "color"]}, "preprocess": {"categorical": "onehot"}}
        outcomes.append(run_job(make_config(path.parent, path, **categorical)).scores.tolist())
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    "kind",
    [
        pa.decimal128(5, 2),
        pa.timestamp("us", "UTC"),
        pa.list_(pa.int8()),
        pa.dictionary(pa.int8(), pa.string()),
    ],
)
def test_a_type_comes_back_from_its_text(kind: pa.DataType) -> None:
    assert parse_type(type_text(kind)) == kind


# -- columns by position, INT96


@pytest.mark.parametrize(("inner", "flat"), [(np.inf, 1.0), (1.0, np.inf)])
def test_a_column_with_a_dot_is_not_the_field_of_a_struct(tmp_path: Path, inner: float, flat: float) -> None:
    table = make_table(ROWS).append_column("a", pa.array([{"b": inner}] * ROWS))
    table = table.append_column("a.b", pa.array([flat] * ROWS))
    pq.write_table(table, tmp_path / "x.parquet")
    config = make_config(tmp_path, tmp_path / "x.parquet", source={"features": ["x", "a.b"]})
    if np.isinf(flat):
        with pytest.raises(FeatureError, match=r"feature a\.b: infinite values"):
            inspect_batch(config)
        return
    plan = plan_batch(config)
    (read,) = read_chunk(plan.snapshot.files, plan.chunks[0], ["a.b"])
    assert read.to_pydict() == {"a.b": [flat] * ROWS}


def test_int96_of_any_year_is_read_as_it_is(tmp_path: Path) -> None:
    table = make_table(ROWS).append_column("c", pa.array(FAR * 10, pa.timestamp("us")))
    table = table.append_column("l", pa.array([FAR] * ROWS, pa.list_(pa.timestamp("us"))))
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, use_deprecated_int96_timestamps=True, store_schema=False)
    config = make_config(
        tmp_path,
        path,
        source={"key": ["c"], "timestamp": "c"},
        preprocess={"time_parts": ["month"]},
        output={"columns": ["l"]},
    )
    job = run_job(config)
    assert job.plan.snapshot.columns["c"] == "timestamp[us]"
    assert job.table["c"].to_pylist() == FAR * 10
    assert job.anomalies["l"].to_pylist()[0] == FAR
