"""A flagged row's reasons name the features that make it so, with direction and size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from siftline.batch_plan import Feature
from siftline.detectors.fitted import FittedModel
from siftline.detectors.reasons import REASON, explain
from siftline.stages.training import fit_model
from tests.support import make_config

NAMES = ("a", "b", "c", "d")
FEATURES = tuple(Feature(name=name, column=name) for name in NAMES)


def near(rows: int = 500) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {name: generator.normal(10, 2, rows) for name in NAMES}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FittedModel:
    config = make_config(tmp_path_factory.mktemp("home"), "unused", detector={"params": {"n_estimators": 50}})
    return fit_model(pa.table(near()), FEATURES, config)


def reasons_of(model: FittedModel, rows: dict[str, list[Any]], **limits: int) -> list[list[dict[str, Any]]]:
    matrix = model.matrix(pa.table(rows))
    explained = explain(model, matrix, model.score(matrix), **limits)
    assert explained.type == pa.list_(REASON)
    return explained.to_pylist()


@pytest.mark.parametrize(("value", "direction"), [(40.0, "high"), (-20.0, "low")])
@pytest.mark.parametrize("name", NAMES)
def test_the_feature_that_is_far_out_comes_first(
    model: FittedModel, name: str, value: float, direction: str
) -> None:
    row = {other: [10.0] for other in NAMES} | {name: [value]}
    first = reasons_of(model, row)[0][0]
    assert (first["feature"], first["value"], first["direction"]) == (name, f"{value:.6g}", direction)
    assert first["contribution"] > 0
    assert float(first["typical"]) == pytest.approx(10, abs=0.5)
    assert first["distance"] == pytest.approx(15, abs=2.5)


def test_reasons_are_at_most_three_the_largest_first(model: FittedModel) -> None:
    (reasons,) = reasons_of(model, {"a": [40.0], "b": [-30.0], "c": [35.0], "d": [60.0]})
    assert len(reasons) == 3
    contributions = [reason["contribution"] for reason in reasons]
    assert contributions == sorted(contributions, reverse=True)


def test_a_feature_that_does_not_add_to_the_score_is_no_reason(model: FittedModel) -> None:
    (reasons,) = reasons_of(model, {"a": [40.0], "b": [10.0], "c": [10.0], "d": [10.0]})
    assert reasons[0]["feature"] == "a"
    assert all(reason["contribution"] > 0 for reason in reasons)


def test_every_row_has_a_reason(model: FittedModel) -> None:
    typical = {name: [one.value] for name, one in zip(NAMES, model.typical, strict=True)}
    (reasons,) = reasons_of(model, typical)
    assert [reason["direction"] for reason in reasons] == ["other"]


def test_two_features_that_say_the_same_are_both_named(tmp_path: Path) -> None:
    same = near()["a"]
    features = FEATURES[:2]
    model = fit_model(pa.table({"a": same, "b": same}), features, make_config(tmp_path, "unused"))
    (reasons,) = reasons_of(model, {"a": [40.0], "b": [40.0]})
    assert {reason["feature"] for reason in reasons} == {"a", "b"}


def test_no_rows_have_no_reasons(model: FittedModel) -> None:
    assert reasons_of(model, {name: np.array([], dtype=float) for name in NAMES}) == []  # type: ignore[misc]


def test_rows_are_explained_alike_alone_and_together(model: FittedModel) -> None:
    rows = {name: list(values[:40]) for name, values in near().items()}
    together = reasons_of(model, rows)
    assert reasons_of(model, rows, rows_at_once=8) == together
    assert [
        reasons_of(model, {name: [row[i]] for name, row in rows.items()})[0] for i in range(3)
    ] == together[:3]


def test_categories_and_points_on_a_circle_are_neither_high_nor_low(tmp_path: Path) -> None:
    features = (
        Feature(name="a", column="a"),
        Feature(name="color", column="color", kind="categorical"),
        Feature(name="hour", column="hour", period=24.0),
    )
    sample = pa.table({"a": near()["a"], "color": ["red"] * 450 + ["blue"] * 50, "hour": [12.0, 13.0] * 250})
    config = make_config(
        tmp_path, "unused", preprocess={"categorical": "ordinal"}, detector={"params": {"n_estimators": 100}}
    )
    model = fit_model(sample, features, config)
    rows = {"a": [10.0] * 3, "color": ["green", "blue", "red"], "hour": [12.5, 12.5, 3.0]}
    words = [
        [reason[name] for name in ("feature", "value", "typical", "direction", "distance")]
        for reason, *_ in reasons_of(model, rows)
    ]
    assert words == [
        ["color", "unknown", "red", "other", None],
        ["color", "blue", "red", "other", None],
        ["hour", "3", "12.5", "other", None],
    ]


def test_a_missing_value_has_neither_direction_nor_distance(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    model = fit_model(
        pa.table({"a": generator.normal(size=300), "b": generator.normal(size=300)}),
        FEATURES[:2],
        make_config(tmp_path, "unused"),
    )
    matrix = np.array([[np.nan, 9.0], [9.0, np.nan], [np.nan, np.nan]], dtype=np.float32)
    reasons = [reason for row in explain(model, matrix, model.score(matrix)).to_pylist() for reason in row]
    absent = [reason for reason in reasons if reason["value"] == "missing"]
    assert absent
    assert all((reason["direction"], reason["distance"]) == ("missing", None) for reason in absent)


def test_a_constant_feature_has_no_distance(tmp_path: Path) -> None:
    model = fit_model(
        pa.table({"a": near()["a"], "b": [5.0] * 500}), FEATURES[:2], make_config(tmp_path, "unused")
    )
    assert model.typical[1].spread == 0
    (reasons,) = reasons_of(model, {"a": [10.0], "b": [9.0]})
    assert all(reason["distance"] is None for reason in reasons if reason["feature"] == "b")


def wide_rows(width: int, rows: int = 60, missing: float = 0.05) -> pa.Table:
    generator = np.random.default_rng(1)
    values = generator.normal(size=(rows, width))
    values[generator.random(values.shape) < missing] = np.nan
    values[:3, :5] = 25.0
    return pa.table({f"f{column}": values[:, column] for column in range(width)})


def wide_model(table: pa.Table, home: Path, **sections: Any) -> FittedModel:
    features = tuple(Feature(name=name, column=name) for name in table.column_names)
    return fit_model(table, features, make_config(home, "unused", **sections))


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"preprocess": {"missing": "median", "scale": "robust"}},
        {"detector": {"params": {"max_features": 0.5}}},
    ],
    ids=["plain", "preprocessed", "part of the features in each tree"],
)
def test_the_reasons_of_wide_rows_are_those_of_every_pair_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sections: dict[str, Any]
) -> None:
    table = wide_rows(300)
    model = wide_model(table, tmp_path, **sections)
    matrix = model.matrix(table)
    scores = model.score(matrix)
    pruned = explain(model, matrix, scores).to_pylist()
    monkeypatch.setattr("siftline.detectors.forest.paths._MANY", 10_000)
    assert explain(model, matrix, scores).to_pylist() == pruned


@pytest.mark.parametrize("width", [3, 40, 700])
def test_the_memory_of_reasons_is_bounded_by_cells_however_wide_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    table = wide_rows(width)
    model = wide_model(table, tmp_path)
    matrix = model.matrix(table)
    scores = model.score(matrix)
    expected = explain(model, matrix, scores).to_pylist()
    scored: list[int] = []
    original = type(model._scorer).score_samples

    def counted(scorer: Any, rows: np.ndarray) -> np.ndarray:
        scored.append(rows.size)
        return original(scorer, rows)

    monkeypatch.setattr(type(model._scorer), "score_samples", counted)
    monkeypatch.setattr("siftline.batch_plan._BATCH_CELLS", 2_000)
    assert explain(model, matrix, scores).to_pylist() == expected
    assert len(scored) > 2
    assert max(scored) <= 2_000


@pytest.mark.parametrize("encoding", ["ordinal", "onehot"])
def test_a_category_that_the_sample_has_not_is_shown_as_the_row_has_it(tmp_path: Path, encoding: str) -> None:
    features = (Feature(name="a", column="a"), Feature(name="kind", column="color", kind="categorical"))
    sample = pa.table({"a": near()["a"], "color": ["red"] * 490 + ["blue"] * 10})
    config = make_config(tmp_path, "unused", preprocess={"categorical": encoding})
    model = fit_model(sample, features, config)
    rows = pa.table({"a": [10.0] * 3, "color": pa.array(["green", "", "blue"]).dictionary_encode()})
    matrix = model.matrix(rows)
    explained = explain(model, matrix, model.score(matrix), texts={"kind": rows["color"].cast(pa.string())})
    values = [
        [reason["value"] for reason in row if reason["feature"] == "kind"] for row in explained.to_pylist()
    ]
    if encoding == "ordinal":
        assert values == [["green"], [""], ["blue"]]
    assert all(value in ([], ["green"], [""], ["blue"]) for value in values)
