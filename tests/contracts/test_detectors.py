"""The contract of every registered detector."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import siftline
from siftline.batch_plan import Feature
from siftline.config.detectors import DETECTORS, RESERVED, DetectorConfig, surely_right
from siftline.detectors.fitted import FittedModel, load_model, save_model
from siftline.detectors.kinds import changed_params, make_estimator
from siftline.errors import ModelError, RowError
from siftline.stages.training import fit_model
from siftline.types import Matrix
from tests.support import make_config

SOURCES = Path(siftline.__file__).parent
SMALL: dict[str, dict[str, Any]] = {"isolation_forest": {"n_estimators": 20}}
KINDS = pytest.mark.parametrize("kind", DETECTORS)
FEATURES = tuple(Feature(name=name, column=name) for name in ("a", "b", "c"))


def make_matrix(rows: int = 600) -> Matrix:
    """Correlated normal rows; the first ten are far away from all others."""
    generator = np.random.default_rng(1)
    mixed = generator.normal(size=(rows, 3)) @ np.array([[1, 0.5, 0], [0, 1, 0.2], [0, 0, 1]])
    mixed[:10] = generator.choice([-1.0, 1.0], (10, 3)) * generator.uniform(9, 12, (10, 3))
    return np.ascontiguousarray(mixed, dtype=np.float32)


def as_table(matrix: Matrix) -> pa.Table:
    return pa.table({name: pa.array(matrix[:, i]) for i, name in enumerate("abc")})


@pytest.fixture(scope="module", params=DETECTORS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FittedModel:
    detector = {"kind": request.param, "params": SMALL.get(request.param, {})}
    home = tmp_path_factory.mktemp("model")
    config = make_config(home, "unused", detector={**detector})
    if request.param not in SMALL:
        config = config.model_copy(update={"detector": DetectorConfig(kind=request.param)})
    return fit_model(as_table(make_matrix()), FEATURES, config)


def test_every_detector_can_be_configured() -> None:
    assert [DetectorConfig(kind=kind).kind for kind in DETECTORS] == list(DETECTORS)
    assert DetectorConfig.model_json_schema()["properties"]["kind"]["enum"] == list(DETECTORS)


@pytest.mark.parametrize("size", [1, 133, 599, 600])
def test_a_rows_score_depends_on_that_row_alone(model: FittedModel, size: int) -> None:
    matrix = make_matrix()
    whole = model.score(matrix)
    chunks = [model.score(matrix[start : start + size]) for start in range(0, len(matrix), size)]
    if DETECTORS[model.kind].exact:
        assert np.concatenate(chunks).tobytes() == whole.tobytes()
    else:
        np.testing.assert_allclose(np.concatenate(chunks), whole, rtol=1e-9, atol=1e-9)


def test_the_number_of_rows_scored_at_once_changes_nothing(model: FittedModel) -> None:
    matrix = make_matrix()
    whole, parts = model.score(matrix), model.score(matrix, rows_at_once=100)
    if DETECTORS[model.kind].exact:
        assert parts.tobytes() == whole.tobytes()
    else:
        np.testing.assert_allclose(parts, whole, rtol=1e-9, atol=1e-9)


def test_the_order_of_the_rows_does_not_matter(model: FittedModel) -> None:
    matrix = make_matrix()
    order = np.random.default_rng(2).permutation(len(matrix))
    np.testing.assert_allclose(model.score(matrix[order]), model.score(matrix)[order], rtol=1e-9, atol=1e-9)


def test_the_input_is_not_changed(model: FittedModel) -> None:
    matrix = make_matrix()
    before = matrix.tobytes()
    matrix.setflags(write=False)
    model.score(matrix)
    assert matrix.tobytes() == before


def test_scores_are_one_finite_double_a_row(model: FittedModel) -> None:
    scores = model.score(make_matrix())
    assert scores.dtype == np.float64
    assert scores.shape == (600,)
    assert np.isfinite(scores).all()


def test_higher_is_more_anomalous(model: FittedModel) -> None:
    scores = model.score(make_matrix())
    assert set(np.argsort(-scores)[:10].tolist()) == set(range(10))


def test_missing_values_do_as_declared(model: FittedModel) -> None:
    matrix = make_matrix()
    matrix[17, 1] = np.nan
    if DETECTORS[model.kind].takes_missing:
        assert np.isfinite(model.score(matrix)).all()
        return
    matrix[90, 0] = np.nan
    with pytest.raises(RowError) as caught:
        model.score(matrix)
    assert caught.value.rows == (17, 90)
    assert str(caught.value) == (
        f"a value is missing, which {model.kind} cannot score; set preprocess.missing, for example to median"
    )


def test_rows_that_cannot_be_scored_are_counted_from_the_first_row(model: FittedModel) -> None:
    if DETECTORS[model.kind].takes_missing:
        return
    matrix = make_matrix()
    matrix[[217, 290, 400], 1] = np.nan
    with pytest.raises(RowError) as caught:
        model.score(matrix, rows_at_once=100)
    # Those of the first part that has any; without them, the next call names the others.
    assert caught.value.rows == (217, 290)


def test_a_saved_model_gives_the_same_scores(model: FittedModel, tmp_path: Path) -> None:
    path, digest = save_model(model, tmp_path)
    loaded = load_model(path)
    assert path.name == f"{digest}.skops"
    assert loaded.score(make_matrix()).tobytes() == model.score(make_matrix()).tobytes()
    assert (loaded.kind, loaded.features, loaded.typical) == (model.kind, model.features, model.typical)


def test_the_same_seed_fits_the_same_detector(model: FittedModel) -> None:
    seen = np.asfortranarray(make_matrix())  # the layout of raw_matrix
    estimators = [make_estimator(model.kind, SMALL.get(model.kind, {}), 0).fit(seen) for _ in range(2)]
    scores = [replace(model, estimator=estimator).score(seen) for estimator in estimators]
    assert scores[0].tobytes() == scores[1].tobytes() == model.score(seen).tobytes()


def test_no_rows_give_no_scores(model: FittedModel) -> None:
    assert model.score(np.empty((0, 3), dtype=np.float32)).shape == (0,)


@KINDS
def test_an_unknown_parameter_is_refused_with_the_allowed_ones(kind: str) -> None:
    with pytest.raises(ModelError) as caught:
        make_estimator(kind, {"n_trees": 3}, 0)
    name = DETECTORS[kind].estimator.rpartition(".")[2]
    text = str(caught.value)
    assert text.startswith(f"detector.params.n_trees: {name} has no such parameter; allowed: ")
    allowed = text.partition("allowed: ")[2].split(", ")
    assert allowed == sorted(allowed)
    assert not set(allowed) & set(RESERVED)
    make_estimator(kind, dict.fromkeys([]), 0).set_params(**dict.fromkeys(allowed))


@KINDS
@pytest.mark.parametrize("param", ["contamination", "random_state"])
def test_a_reserved_parameter_is_refused_with_the_field_to_set(kind: str, param: str) -> None:
    with pytest.raises(ModelError) as caught:
        make_estimator(kind, {param: 0.1}, 0)
    assert str(caught.value) == f"detector.params.{param}: cannot be set here; {RESERVED[param]}"


def test_a_wrong_value_is_refused_in_scikit_learns_words() -> None:
    with pytest.raises(ModelError) as caught:
        make_estimator("isolation_forest", {"n_estimators": 0}, 0)
    text = str(caught.value)
    assert text.startswith(
        "detector.params.n_estimators: The 'n_estimators' parameter of IsolationForest must be"
    )
    assert text.endswith("Got 0 instead.; correct the value")
    assert "\n" not in text


@KINDS
def test_the_seed_goes_to_the_estimator(kind: str) -> None:
    assert make_estimator(kind, {}, 41).get_params().get("random_state", 41) == 41


VALUES = [0, 1, 7, -1, 0.0, 0.5, 1.0, 1.5, True, False, None, "auto", "other", [1], float("nan")]


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in DETECTORS for name in DETECTORS[kind].params]
)
def test_what_is_known_without_scikit_learn_is_so(kind: str, name: str) -> None:
    param = DETECTORS[kind].params[name]
    assert make_estimator(kind, {}, 0).get_params()[name] == param.default
    assert param.accepts(param.default)
    for value in VALUES:
        if surely_right(kind, {name: value}):
            make_estimator(kind, {name: value}, 0)
    assert changed_params(kind, {name: param.default}) == {}
    assert not surely_right(kind, {name: param.default, "other": 1})


def test_warnings_are_errors_here() -> None:
    with pytest.raises(UserWarning, match="a warning"):
        warnings.warn("a warning", UserWarning, stacklevel=1)


# Registers a third kind, and runs this file on it.
THIRD = """
import sys
import pytest
from siftline.config.detectors import DETECTORS, DetectorKind
DETECTORS["one_class_svm"] = DetectorKind(
    "sklearn.svm.OneClassSVM",
    exact=False,
    takes_missing=False,
    trusted=("sklearn.svm._classes.OneClassSVM",),
)
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "one_class_svm", sys.argv[1]]))
"""


@pytest.mark.slow
def test_one_entry_adds_a_detector() -> None:
    done = subprocess.run([sys.executable, "-c", THIRD, __file__], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_only_its_entry_names_a_detector() -> None:
    found = [path.name for path in SOURCES.rglob("*.py") if "elliptic_envelope" in path.read_text()]
    assert found == ["detectors.py"]
