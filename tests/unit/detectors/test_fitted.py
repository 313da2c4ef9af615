"""A model file gives back the model, or is refused."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import skops.io

from siftline.detectors.fitted import FittedModel, cached_model, keep_model, load_model, save_model
from siftline.errors import IntegrityError, ModelError, StorageUnavailable
from siftline.stages.training import fit_model
from siftline.types import DetectorRef
from tests.support import FEATURES, make_config, make_table

TABLE = make_table(200, missing=0.1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FittedModel:
    preprocess = {"missing": "mean", "scale": "standard", "categorical": "onehot"}
    config = make_config(tmp_path_factory.mktemp("home"), "unused", preprocess=preprocess)
    return fit_model(TABLE, FEATURES, config)


@pytest.fixture
def saved(model: FittedModel, tmp_path: Path) -> tuple[Path, str]:
    return save_model(model, tmp_path / "model")


def test_a_model_with_its_preprocessing_comes_back(model: FittedModel, saved: tuple[Path, str]) -> None:
    loaded = load_model(saved[0])
    assert loaded.score(loaded.matrix(TABLE)).tobytes() == model.score(model.matrix(TABLE)).tobytes()
    assert (loaded.features, loaded.categories, loaded.typical) == (
        model.features,
        model.categories,
        model.typical,
    )


def test_a_model_is_named_by_its_digest_and_alone(saved: tuple[Path, str]) -> None:
    path, digest = saved
    assert path.name == f"{digest}.skops"
    assert list(path.parent.iterdir()) == [path]


class Touches:
    """Does something when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(pickle.dumps(Touches(str(tmp_path / "made"))))
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: not a model: ")
    assert not (tmp_path / "made").exists()


class Foreign:
    """A type that no model of ours holds."""

    def __init__(self) -> None:
        self.value = 1


def test_types_that_are_not_trusted_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump({"format_version": 1, "estimator": Foreign()}, path)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"{path}: contains types that are not trusted: {__name__}.Foreign; "
        "give the path of a model that Siftline saved"
    )


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 garbage"])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path}: not a model: ")
    assert str(caught.value).endswith("; give the path of a model that Siftline saved")


def test_a_torn_model_is_refused(saved: tuple[Path, str]) -> None:
    content = saved[0].read_bytes()
    saved[0].write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="not a model"):
        load_model(saved[0])


def test_a_missing_model_and_a_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "none.skops")
    assert str(caught.value) == (
        f"{tmp_path}/none.skops: no such file; give the path of a model that Siftline saved"
    )
    with pytest.raises(ModelError, match="not a model: IsADirectoryError"):
        load_model(tmp_path)


@pytest.mark.parametrize("record", [[1, 2], {"format_version": 2}, {"estimator": None}])
def test_another_format_version_is_refused(tmp_path: Path, record: object) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump(record, path)
    with pytest.raises(ModelError, match=r"format version (None|2), this version reads 1"):
        load_model(path)


def test_a_record_without_its_fields_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.skops"
    skops.io.dump({"format_version": 1, "kind": "isolation_forest"}, path)
    with pytest.raises(ModelError):
        load_model(path)


def ref_of(path: Path, digest: str) -> DetectorRef:
    return DetectorRef(kind="isolation_forest", path=str(path), model_digest=digest, sample_rows=1)


def test_a_model_is_loaded_once_in_a_process(saved: tuple[Path, str]) -> None:
    assert cached_model(ref_of(*saved)) is cached_model(ref_of(*saved))


def test_a_model_is_not_loaded_where_it_was_fitted(
    model: FittedModel, saved: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.detectors.fitted._loaded", known := {})
    keep_model(model, *saved)
    assert cached_model(ref_of(*saved)) is model
    for number in range(4):
        keep_model(model, Path(f"other-{number}"), "0" * 64)
    assert len(known) == 4
    assert cached_model(ref_of(*saved)) is not model


def test_a_model_that_does_not_match_its_digest_is_refused(saved: tuple[Path, str]) -> None:
    path, digest = saved
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(IntegrityError) as caught:
        cached_model(ref_of(path, digest))
    assert str(caught.value) == f"{path}: not the model that was fitted; run again with --fresh"


def test_a_model_that_cannot_be_reached_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises((ModelError, IntegrityError)):
        cached_model(ref_of(tmp_path / "none.skops", "0" * 64))


def test_a_model_that_cannot_be_read_just_now_is_no_fault_of_the_job(
    saved: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("siftline.detectors.fitted.file_digest", unread)
    with pytest.raises(StorageUnavailable) as caught:
        cached_model(ref_of(saved[0], "1" * 64))
    assert str(caught.value) == (
        f"{saved[0]}: the model cannot be read just now: Input/output error; "
        "check the storage; it is tried again"
    )

    monkeypatch.setattr("skops.io.load", lambda path, trusted: unread(path))
    with pytest.raises(StorageUnavailable):
        load_model(saved[0])


def test_only_the_columns_of_the_features_are_needed(model: FittedModel) -> None:
    only = TABLE.select(["x", "n", "color", "at"])
    np.testing.assert_array_equal(model.matrix(only), model.matrix(TABLE))


def test_a_matrix_is_float32_only_where_the_detector_sees_it(model: FittedModel, tmp_path: Path) -> None:
    plain = fit_model(pa.table({"x": np.arange(9.0)}), FEATURES[:1], make_config(tmp_path, "unused"))
    assert plain.matrix(TABLE).dtype == np.float32
    assert model.matrix(TABLE).dtype == np.float64


def test_a_model_of_an_earlier_version_comes_back(model: FittedModel, tmp_path: Path) -> None:
    """It has features, categories and typical values as lists."""
    record = {
        "format_version": 1,
        "kind": model.kind,
        "features": [feature.model_dump() for feature in model.features],
        "categories": {name: list(values) for name, values in model.categories.items()},
        "typical": [[typical.value, typical.spread] for typical in model.typical],
        "transform": model.transform,
        "estimator": model.estimator,
    }
    skops.io.dump(record, tmp_path / "old.skops")
    loaded = load_model(tmp_path / "old.skops")
    assert (loaded.features, loaded.categories, loaded.typical) == (
        model.features,
        model.categories,
        model.typical,
    )
    assert loaded.score(loaded.matrix(TABLE)).tobytes() == model.score(model.matrix(TABLE)).tobytes()
