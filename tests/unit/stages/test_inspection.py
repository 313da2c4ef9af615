"""What makes a job impossible is told before any of its work is done."""

from __future__ import annotations

import gc
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from siftline.batch_plan import Feature
from siftline.config.batch import BatchConfig
from siftline.detectors.fitted import save_model
from siftline.errors import (
    ConfigError,
    FeatureError,
    IntegrityError,
    ModelError,
    OutputConflict,
    SourceError,
    StorageError,
)
from siftline.stages.inspection import inspect_batch
from siftline.stages.plan import plan_batch
from siftline.stages.training import fit_model
from tests.support import make_config, make_table, run_job, visible_files, write_files

ROWS = 30
NAMES = "id, x, y, n, color, at"


def refusal(kind: type[Exception], config: BatchConfig) -> str:
    """What inspecting says when it refuses; planning says the same, and leaves nothing behind."""
    home = Path(config.checkpoint.path).parent
    before = visible_files(home) if home.exists() else []
    texts = []
    for step in (inspect_batch, plan_batch):
        with pytest.raises(kind) as caught:
            step(config)
        assert type(caught.value) is kind
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert "\n" not in texts[0]
    assert (visible_files(home) if home.exists() else []) == before
    return texts[0]


def given(home: Path, table: pa.Table | None = None, **sections: Any) -> BatchConfig:
    data = write_files(home / "data", make_table(ROWS) if table is None else table)
    return make_config(home, data, **sections)


def test_a_good_job_is_described_and_nothing_is_written(tmp_path: Path) -> None:
    config = given(
        tmp_path,
        source={"features": None, "key": ["id"], "timestamp": "at"},
        output={"columns": ["color"]},
        chunking={"rows": 10},
    )
    before = visible_files(tmp_path)
    inspection = inspect_batch(config)
    assert [feature.name for feature in inspection.features] == ["x", "y", "n"]
    assert inspection.columns == ("id", "x", "y", "n", "color")
    assert (inspection.format, inspection.rows, inspection.chunk_rows) == ("parquet", ROWS, 10)
    assert visible_files(tmp_path) == before


def test_no_footer_is_left_behind_for_every_file(tmp_path: Path) -> None:
    source = write_files(tmp_path / "data", make_table(600), files=30, row_group=10)

    def footers() -> int:
        return sum(isinstance(one, pq.FileMetaData) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = footers()
        inspect_batch(make_config(tmp_path, source))
        left = footers() - before
    finally:
        gc.enable()

    assert left < 10


def test_time_parts_become_cyclic_features(tmp_path: Path) -> None:
    config = given(tmp_path, source={"timestamp": "at"}, preprocess={"time_parts": ["hour", "month"]})
    assert inspect_batch(config).features[2:] == (
        Feature(name="at.hour", column="at", kind="time_part", time_part="hour", period=24),
        Feature(name="at.month", column="at", kind="time_part", time_part="month", period=12),
    )


@pytest.mark.parametrize(
    ("kind", "sections", "text"),
    [
        (
            FeatureError,
            {"source": {"features": ["x", "z"]}},
            f"source.features: the source has no column z; it has: {NAMES}",
        ),
        (
            FeatureError,
            {"source": {"features": ["color"]}},
            "source.features: column color is text, not a number; "
            "set preprocess.categorical to onehot or ordinal, or leave it out",
        ),
        (
            FeatureError,
            {"source": {"features": ["at"]}},
            "source.features: column at is a timestamp[us], not a number; "
            "leave it out, or convert it to a number in the source",
        ),
        (
            FeatureError,
            {"source": {"key": ["key"]}},
            f"source.key: the source has no column key; it has: {NAMES}",
        ),
        (
            FeatureError,
            {"output": {"columns": ["place"]}},
            f"output.columns: the source has no column place; it has: {NAMES}",
        ),
        (
            FeatureError,
            {"source": {"timestamp": "when"}, "preprocess": {"time_parts": ["hour"]}},
            f"source.timestamp: the source has no column when; it has: {NAMES}",
        ),
        (
            FeatureError,
            {"source": {"timestamp": "n"}, "preprocess": {"time_parts": ["hour"]}},
            "source.timestamp n: a int32, not a timestamp; "
            "give a timestamp column, or leave preprocess.time_parts out",
        ),
        (
            FeatureError,
            {"preprocess": {"cyclic": {"n": 24}}},
            "preprocess.cyclic.n: not a feature; add it to source.features",
        ),
        (
            ModelError,
            {"detector": {"params": {"contamination": 0.1}}},
            "detector.params.contamination: cannot be set here; set threshold.contamination",
        ),
        (
            ConfigError,
            {
                "cluster": {"kind": "local", "workers": 1, "memory_limit": "1KiB"},
                "chunking": {"rows": 1000},
            },
            "chunking: a chunk of 30 rows needs about 0 MiB, a worker's slot has 0 MiB; "
            "lower chunking.rows, or raise cluster.memory_limit",
        ),
    ],
)
def test_an_impossible_job_is_refused(
    tmp_path: Path, kind: type[Exception], sections: dict[str, Any], text: str
) -> None:
    assert refusal(kind, given(tmp_path, **sections)) == text


def test_an_unknown_parameter_is_refused(tmp_path: Path) -> None:
    text = refusal(ModelError, given(tmp_path, detector={"params": {"trees": 3}}))
    assert text.startswith(
        "detector.params.trees: IsolationForest has no such parameter; allowed: bootstrap, "
    )


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    text = refusal(SourceError, make_config(tmp_path, tmp_path / "none.parquet"))
    assert text.startswith(f"source.path {tmp_path}/none.parquet: no parquet or csv files there; ")


def test_a_source_without_rows_is_refused(tmp_path: Path) -> None:
    text = refusal(SourceError, given(tmp_path, make_table(0)))
    assert text == f"source.path {tmp_path}/data: no rows; use an input with rows"


def test_a_source_without_a_number_is_refused(tmp_path: Path) -> None:
    config = given(tmp_path, pa.table({"t": ["a", "b"]}), source={"features": None})
    assert refusal(FeatureError, config) == (
        "source.features: no column to score by default "
        "(no features by default: t (text). source.features chooses others); name the features"
    )


def test_a_corrupt_file_among_good_ones_is_refused(tmp_path: Path) -> None:
    config = given(tmp_path)
    (tmp_path / "data" / "part-001.parquet").write_bytes(b"garbage")
    assert refusal(SourceError, config).startswith(f"{tmp_path}/data/part-001.parquet: cannot be read: ")


def test_files_of_different_schemas_are_refused(tmp_path: Path) -> None:
    config = given(tmp_path)
    other = tmp_path / "data" / "part-001.parquet"
    first = tmp_path / "data" / "part-000.parquet"
    pq.write_table(make_table(5).set_column(2, "y", pa.array(["a"] * 5)), other)
    assert refusal(SourceError, config) == (
        f"{other}: column y is string, in {first} it is double; use files of one schema"
    )
    pq.write_table(make_table(5).drop(["y"]), other)
    assert refusal(SourceError, config).startswith(f"{other}: column y is none, in {first} it is double")


def test_unused_columns_may_differ(tmp_path: Path) -> None:
    config = given(tmp_path)
    pq.write_table(make_table(5).drop(["n", "color"]), tmp_path / "data" / "part-001.parquet")
    assert inspect_batch(config).rows == ROWS + 5


def test_a_feature_without_any_value_is_refused(tmp_path: Path) -> None:
    table = make_table(ROWS).set_column(1, "x", pa.nulls(ROWS, pa.float64()))
    assert refusal(FeatureError, given(tmp_path, table)) == (
        "feature x: no row has a value; leave it out of source.features"
    )


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_value_is_refused(tmp_path: Path, value: float) -> None:
    values = np.arange(ROWS, dtype=np.float64)
    values[17] = value
    table = make_table(ROWS).set_column(2, "y", pa.array(values))
    assert refusal(FeatureError, given(tmp_path, table)) == (
        f"feature y: infinite values in {tmp_path}/data/part-000.parquet, {value:g} in row 17; "
        "replace them in the source, or leave the feature out of source.features"
    )


def test_a_value_too_large_for_the_detector_is_refused_with_its_file_and_row(tmp_path: Path) -> None:
    values = np.arange(200, dtype=np.float64)
    values[163] = 1e39
    table = make_table(200).set_column(2, "y", pa.array(values))
    write_files(tmp_path / "data", table, files=2, row_group=30)
    config = make_config(tmp_path, tmp_path / "data")
    assert refusal(FeatureError, config) == (
        "feature y: values too large for 32-bit floating point in "
        f"{tmp_path}/data/part-001.parquet, 1e+39 in row 63; "
        "replace them in the source, or leave the feature out of source.features"
    )
    assert inspect_batch(make_config(tmp_path, tmp_path / "data", preprocess={"scale": "robust"})).rows == 200


def test_missing_values_that_the_detector_cannot_score_are_refused(tmp_path: Path) -> None:
    table = make_table(200, missing=0.1)
    detector = {"kind": "elliptic_envelope", "params": {}}
    assert refusal(FeatureError, given(tmp_path, table, detector=detector)) == (
        "feature x: has missing values, which elliptic_envelope cannot score; "
        "set preprocess.missing, for example to median"
    )
    imputed = given(tmp_path, table, detector=detector, preprocess={"missing": "mean"})
    assert inspect_batch(imputed).rows == 200


@pytest.mark.parametrize("tolerated", [1, "1%"])
def test_rows_that_are_tolerated_are_not_refused_beforehand(tmp_path: Path, tolerated: int | str) -> None:
    values = np.arange(ROWS, dtype=np.float64)
    values[17] = np.inf
    infinite = make_table(ROWS).set_column(2, "y", pa.array(values))
    assert inspect_batch(given(tmp_path / "infinite", infinite, tolerate={"rows": tolerated})).rows == ROWS
    missing = make_table(200, missing=0.1)
    detector = {"kind": "elliptic_envelope", "params": {}}
    config = given(tmp_path / "missing", missing, tolerate={"rows": tolerated}, detector=detector)
    assert inspect_batch(config).rows == 200


def test_a_feature_without_any_value_is_refused_with_any_tolerance(tmp_path: Path) -> None:
    table = make_table(ROWS).set_column(1, "x", pa.nulls(ROWS, pa.float64()))
    assert refusal(FeatureError, given(tmp_path, table, tolerate={"rows": "100%"})) == (
        "feature x: no row has a value; leave it out of source.features"
    )


def test_an_output_of_another_name_is_refused(tmp_path: Path) -> None:
    run_job(given(tmp_path, name="first"))
    other = given(tmp_path, name="second")
    assert refusal(OutputConflict, other) == (
        f"output.path {tmp_path}/out: contains the results of 'first', this is 'second'; "
        "use another directory, or the same name"
    )


def test_an_output_with_foreign_files_is_refused(tmp_path: Path) -> None:
    config = given(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".hidden").touch()
    assert inspect_batch(config).rows == ROWS
    (tmp_path / "out" / "thesis.txt").touch()
    assert refusal(OutputConflict, config) == (
        f"output.path {tmp_path}/out: contains files that are not Siftline results; use an empty directory"
    )


def test_an_output_with_an_altered_manifest_is_refused(tmp_path: Path) -> None:
    config = given(tmp_path)
    run_job(config)
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"batch"', '"other"'))
    assert f"{manifest}: its content does not match its digest" in refusal(IntegrityError, config)


@pytest.mark.parametrize("section", ["output", "checkpoint"])
def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path, section: str) -> None:
    (tmp_path / "file").touch()
    config = given(tmp_path, **{section: {"path": str(tmp_path / "file" / "below")}})
    with pytest.raises(OutputConflict) as caught:
        inspect_batch(config)
    assert str(caught.value) == f"{tmp_path}/file/below: {tmp_path}/file is a file; use a directory"


def test_an_unwritable_directory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = given(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert refusal(StorageError, config) == (
        f"{tmp_path}/out: permission denied; make it writable for this user, or choose another path"
    )


@pytest.mark.parametrize("name", ["score", "label", "rank", "reasons"])
def test_a_column_that_the_results_add_is_refused(tmp_path: Path, name: str) -> None:
    table = make_table(ROWS).append_column(name, pa.array(np.arange(ROWS)))
    text = f"{name} is the name of a result column; rename it in the source"
    assert refusal(ConfigError, given(tmp_path, table, source={"features": [name]})) == (
        f"source.features: {text}"
    )
    assert refusal(ConfigError, given(tmp_path, table, source={"key": [name]})) == f"source.key: {text}"
    carried = given(tmp_path, table, output={"columns": [name]})
    assert refusal(ConfigError, carried) == f"output.columns: {text}"


def test_a_column_named_row_may_only_be_the_key(tmp_path: Path) -> None:
    table = make_table(ROWS).append_column("row", pa.array(np.arange(ROWS)))
    text = refusal(ConfigError, given(tmp_path, table, output={"columns": ["row"]}))
    assert text == "output.columns: row is the name of a result column; rename it in the source"
    assert inspect_batch(given(tmp_path, table, source={"key": ["row"]})).columns == ("row", "x", "y")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["x", "x"])
    text = refusal(FeatureError, given(tmp_path, table, source={"features": ["x"]}))
    assert text == "source.features: the source has several columns x; rename all but one"


def test_integers_decimals_and_booleans_are_numbers(tmp_path: Path) -> None:
    table = pa.table(
        {"i": pa.array([1, 2], pa.uint8()), "d": pa.array([Decimal("1.5"), None]), "b": [True, False]}
    )
    config = given(tmp_path, table, source={"features": None})
    assert [feature.name for feature in inspect_batch(config).features] == ["i", "d", "b"]


def saved_model(home: Path) -> str:
    features = (Feature(name="x", column="x"), Feature(name="n", column="n"))
    model = fit_model(make_table(50), features, make_config(home, "unused"))
    return str(save_model(model, home / "models")[0])


def test_a_given_model_brings_its_features(tmp_path: Path) -> None:
    config = given(tmp_path, detector={"model": saved_model(tmp_path)}, source={"features": None})
    assert [feature.name for feature in inspect_batch(config).features] == ["x", "n"]


def test_a_given_model_that_does_not_fit_the_source_is_refused(tmp_path: Path) -> None:
    path = saved_model(tmp_path)
    renamed = make_table(ROWS).rename_columns({"n": "m"})
    config = given(tmp_path, renamed, detector={"model": path})
    assert refusal(FeatureError, config).startswith("detector.model: the source has no column n; it has: ")
    text = make_table(ROWS).set_column(3, "n", pa.array(["a"] * ROWS))
    assert refusal(FeatureError, given(tmp_path, text, detector={"model": path})).startswith(
        f"detector.model {path}: its feature n is numeric, the source's a string; "
    )


def test_a_given_model_that_is_missing_is_refused(tmp_path: Path) -> None:
    config = given(tmp_path, detector={"model": str(tmp_path / "none.skops")})
    assert refusal(ModelError, config).startswith(f"{tmp_path}/none.skops: no such file")


def test_a_given_model_has_no_training_sample(tmp_path: Path) -> None:
    config = given(tmp_path, detector={"model": saved_model(tmp_path)}, threshold={"quantile": 0.9})
    assert refusal(ModelError, config) == (
        "threshold.quantile: the training sample of detector.model is not available; "
        "set threshold.contamination or threshold.score"
    )


@pytest.mark.parametrize(
    "sections", [{"source": {"key": ["id", "id"]}}, {"source": {"features": ["x", "x"]}}]
)
def test_a_column_named_twice_is_refused(tmp_path: Path, sections: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, FeatureError)):
        inspect_batch(given(tmp_path, **sections))


@pytest.mark.parametrize("text", ["x,y\n", "x,y\n1,\n2,\n"], ids=["no rows", "no value"])
def test_a_csv_without_rows_or_values_is_refused_as_such(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises((SourceError, FeatureError), match=r"no rows|no row has a value"):
        plan_batch(make_config(tmp_path, tmp_path / "x.csv"))


@pytest.mark.parametrize("features", [None, ["x", "n"]], ids=["all numeric", "named"])
def test_columns_of_csv_are_text_unless_they_are_features(tmp_path: Path, features: list[str] | None) -> None:
    (tmp_path / "x.csv").write_text("id,x,n,code\n1,1.5,2,a\n2,2.5,3,b\n")
    config = make_config(
        tmp_path,
        tmp_path / "x.csv",
        source={"key": ["id"], "features": features},
        output={"path": str(tmp_path / "out"), "columns": ["n", "code"]},
    )
    types = {field.name: field.type for field in inspect_batch(config).schema}
    assert types == {"id": pa.string(), "x": pa.float64(), "n": pa.float64(), "code": pa.string()}
