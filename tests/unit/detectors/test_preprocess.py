"""From columns to the matrix that a detector sees."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from siftline.batch_plan import Feature
from siftline.config.batch import PreprocessConfig
from siftline.detectors.preprocess import cyclic, learn_categories, make_transform, plain_numbers, raw_matrix
from siftline.errors import FeatureError, ModelError, RowError
from siftline.stages.training import fit_model
from tests.support import make_config, make_table, run_job, write_files

X = Feature(name="x", column="x")
COLOR = Feature(name="color", column="color", kind="categorical")


def matrix_of(column: pa.Array, feature: Feature = X, dtype: Any = np.float64, **known: Any) -> list[float]:
    table = pa.table({feature.column: column})
    return raw_matrix(table, [feature], known.get("categories", {}), dtype)[:, 0].tolist()


@pytest.mark.parametrize(
    ("column", "numbers"),
    [
        (pa.array([1, 2], pa.int8()), [1, 2]),
        (pa.array([2**53, 2], pa.uint64()), [2.0**53, 2]),
        (pa.array([1.5, 2.5], pa.float32()), [1.5, 2.5]),
        (pa.array([True, False]), [1, 0]),
        (pa.array([Decimal("1.25"), Decimal("-3")]), [1.25, -3]),
    ],
    ids=str,
)
def test_numbers_of_any_type_are_themselves(column: pa.Array, numbers: list[float]) -> None:
    assert matrix_of(column) == numbers


@pytest.mark.parametrize("kind", [pa.int32(), pa.float64(), pa.bool_()], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_missing_value_is_nan(kind: pa.DataType, dtype: Any) -> None:
    values = matrix_of(pa.array([None, 1, None]).cast(kind), dtype=dtype)
    assert [np.isnan(value) for value in values] == [True, False, True]


def test_a_category_is_its_place_among_those_of_the_sample() -> None:
    sample = pa.table({"color": ["red", "blue", None, "red"]})
    categories = learn_categories(sample, [COLOR])
    assert categories == {"color": ["blue", "red"]}
    seen = matrix_of(pa.array(["red", "green", None, "blue"]), COLOR, categories=categories)
    np.testing.assert_equal(seen, [1.0, -1.0, np.nan, 0.0])


def test_a_dictionary_column_is_text() -> None:
    column = pa.array(["b", "a", None]).dictionary_encode()
    assert learn_categories(pa.table({"color": column}), [COLOR]) == {"color": ["a", "b"]}
    np.testing.assert_equal(matrix_of(column, COLOR, categories={"color": ["a", "b"]}), [1, 0, np.nan])


@pytest.mark.parametrize(
    ("part", "value"), [("minute", 34), ("hour", 12), ("day_of_week", 6), ("day", 1), ("month", 3)]
)
def test_a_part_of_the_time_is_a_number(part: str, value: float) -> None:
    at = Feature(name="at.part", column="at", kind="time_part", time_part=part, period=1.0)
    moment = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)
    np.testing.assert_equal(matrix_of(pa.array([moment, None]), at), [value, np.nan])


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(np.inf, np.float64), (-np.inf, np.float32), (1e39, np.float32), (-1e300, np.float32)],
)
def test_a_value_that_cannot_be_scored_tells_its_row(value: float, dtype: Any) -> None:
    table = pa.table({"x": [0.0, 1.0, value, np.nan, value]})
    with pytest.raises(RowError) as caught:
        raw_matrix(table, [X], {}, dtype)
    assert caught.value.rows == (2, 4)
    assert str(caught.value) == (
        "feature x is infinite, or too large for 32-bit floating point; "
        "replace such values in the source, or leave the feature out of source.features"
    )


def test_the_rows_are_counted_over_the_pieces_of_a_column() -> None:
    table = pa.table({"x": pa.chunked_array([[0.0, 1.0], [], [np.inf, 3.0], [-np.inf]])})
    with pytest.raises(RowError) as caught:
        raw_matrix(table, [X], {}, np.float64)
    assert caught.value.rows == (2, 4)


def test_a_circle_has_no_edge() -> None:
    points = cyclic(np.array([[0.0], [6.0], [12.0], [24.0]]), 24.0)
    np.testing.assert_allclose(points, [[0, 1], [1, 0], [0, -1], [0, 1]], atol=1e-12)


@pytest.mark.parametrize(
    ("preprocess", "feature", "plain"),
    [
        ({}, X, True),
        ({"scale": "robust"}, X, False),
        ({"missing": "mean"}, X, False),
        ({}, COLOR, False),
        ({}, X.model_copy(update={"period": 24.0}), False),
    ],
)
def test_numbers_go_as_they_are_unless_something_is_asked_for(
    preprocess: dict[str, Any], feature: Feature, plain: bool
) -> None:
    assert plain_numbers([feature], PreprocessConfig(**preprocess)) is plain


@pytest.mark.parametrize(
    ("name", "scaler"), [("standard", StandardScaler), ("robust", RobustScaler), ("minmax", MinMaxScaler)]
)
def test_scaling_is_scikit_learns_own(name: Any, scaler: Any) -> None:
    values = np.random.default_rng(0).normal(3, 7, (50, 1))
    transform = make_transform([X], PreprocessConfig(scale=name))
    np.testing.assert_array_equal(transform.fit_transform(values), scaler().fit_transform(values))


def test_missing_numbers_are_filled_in_from_the_sample() -> None:
    values = np.array([[1.0], [np.nan], [2.0], [9.0]])
    transform = make_transform([X], PreprocessConfig(missing="median")).fit(values)
    assert transform.transform(np.array([[np.nan], [5.0]])).ravel().tolist() == [2.0, 5.0]


def test_an_unknown_category_is_none_of_the_known_ones() -> None:
    codes = np.array([[0.0], [1.0], [1.0]])
    onehot = make_transform([COLOR], PreprocessConfig(categorical="onehot")).fit(codes)
    assert onehot.transform(np.array([[1.0], [-1.0]])).tolist() == [[0, 1], [0, 0]]
    ordinal = make_transform([COLOR], PreprocessConfig(categorical="ordinal")).fit(codes)
    assert ordinal.transform(np.array([[1.0], [-1.0]])).tolist() == [[1], [-1]]


def test_a_feature_without_a_value_in_the_sample_is_refused(tmp_path: Path) -> None:
    sample = pa.table({"x": pa.nulls(5, pa.float64())})
    with pytest.raises(FeatureError) as caught:
        fit_model(sample, [X], make_config(tmp_path, "unused"))
    assert str(caught.value) == (
        "feature x: no row of the sample has a value; "
        "leave it out of source.features, or raise detector.sample_rows"
    )


def test_a_sample_that_the_estimator_refuses_is_a_model_error(tmp_path: Path) -> None:
    config = make_config(tmp_path, "unused", detector={"kind": "elliptic_envelope", "params": {}})
    with pytest.raises(
        ModelError, match="detector: EllipticEnvelope cannot be fitted on the sample: "
    ) as caught:
        fit_model(pa.table({"x": [1.0, None, 3.0]}), [X], config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a__b", "remainder", "n_jobs"])
def test_a_feature_may_have_any_name(tmp_path: Path, name: str) -> None:
    table = make_table(50).rename_columns({"x": name})
    config = make_config(tmp_path, "unused", source={"features": [name]}, preprocess={"missing": "median"})
    features = [Feature(name=name, column=name)]
    assert fit_model(table, features, config).matrix(table).shape == (50, 1)


def test_a_value_too_large_after_preprocessing_names_its_row(tmp_path: Path) -> None:
    values = make_table(200)["x"].to_numpy().copy()
    values[150] = 1e300
    data = write_files(tmp_path / "data", make_table(200).set_column(1, "x", pa.array(values)))
    config = make_config(
        tmp_path, data, preprocess={"missing": "median"}, detector={"sample_rows": 20, "seed": 3}
    )
    with pytest.raises(RowError) as caught:
        run_job(config)
    (rejects,) = Path(config.checkpoint.path).glob("jobs/*/failed-*/*.parquet")
    assert str(caught.value) == (
        "row 150: a preprocessed feature is infinite, or too large for 32-bit floating point "
        f"(1 row so far cannot be scored, none is tolerated; see {rejects}); "
        "correct the values, leave the feature out of source.features, or raise tolerate.rows"
    )


def test_a_value_too_large_after_preprocessing_is_counted_from_the_first_row(tmp_path: Path) -> None:
    model = fit_model(make_table(200), [X], make_config(tmp_path, "unused", preprocess={"missing": "median"}))
    values = np.zeros((200, 1))
    values[[3, 150], 0] = [-1e300, 1e300]
    with pytest.raises(RowError) as caught:
        model.score(values[100:], rows_at_once=100)
    assert caught.value.rows == (50,)
    with pytest.raises(RowError) as caught:
        model.score(np.concatenate([np.zeros((100, 1)), values[100:]]), rows_at_once=100)
    assert caught.value.rows == (150,)


@pytest.mark.parametrize("missing", ["keep", "mean", "median", "most_frequent"])
@pytest.mark.parametrize("scale", ["none", "standard", "robust", "minmax"])
def test_features_preprocessed_together_come_out_as_alone(missing: Any, scale: Any) -> None:
    generator = np.random.default_rng(0)
    values = np.asfortranarray(generator.lognormal(3, 4, (503, 300)))
    values[generator.random(values.shape) < 0.1] = np.nan
    features = [Feature(name=f"f{column}", column=f"f{column}") for column in range(300)]
    preprocess = PreprocessConfig(missing=missing, scale=scale)
    together = make_transform(features, preprocess)
    found = together.fit_transform(values)
    alone = [
        make_transform([feature], preprocess).fit(values[:, [column]])
        for column, feature in enumerate(features)
    ]
    assert len(together.transformers_) < 4
    for column in (0, 255, 256, 299):
        one = alone[column].transform(values[:, [column]])
        assert found[:, [column]].tobytes() == one.tobytes()
    assert together.transform(values[:9]).tobytes() == found[:9].tobytes()


def levels(number: int, rows: int = 2_000) -> pa.Table:
    """The values v0, v1, … of which the first are the most frequent."""
    generator = np.random.default_rng(0)
    drawn = np.append(np.arange(number), np.minimum(generator.geometric(0.05, rows) - 1, number - 1))
    return pa.table({"color": [f"v{level}" for level in drawn]})


def encoded(table: pa.Table, rows: list[str | None], home: Path, **preprocess: Any) -> np.ndarray:
    config = make_config(home, "unused", preprocess={"categorical": "onehot", **preprocess})
    model = fit_model(table, [COLOR], config)
    return np.asarray(
        model.transform.transform(model.matrix(pa.table({"color": pa.array(rows, pa.string())})))
    )


def test_the_most_frequent_values_get_a_column_each_and_the_others_share_one(tmp_path: Path) -> None:
    found = encoded(levels(300), ["v0", "v3", "v250", "v299", "new", None], tmp_path, max_categories=10)
    assert found.shape == (6, 11)
    assert found.sum(axis=1).tolist() == [1] * 6
    shared = found[2]
    assert not (found[0] == shared).all()
    assert not (found[1] == shared).all()
    assert (found[3:] == shared).all()


@pytest.mark.parametrize(("number", "columns"), [(2, 2), (99, 99), (100, 100), (101, 101), (5_000, 101)])
def test_a_feature_of_few_values_is_encoded_as_without_a_limit(
    tmp_path: Path, number: int, columns: int
) -> None:
    table = levels(number)
    found = encoded(table, ["v0", "v1", "new"], tmp_path)
    assert found.shape == (3, columns)
    if number <= 100:
        assert (found == encoded(table, ["v0", "v1", "new"], tmp_path, max_categories=10**6)).all()
        assert found[2].sum() == 0
