"""Fitted models: features, transform, estimator and typical values, and saving them.

They are saved with skops, never pickle: a file can only restore the types that are trusted here.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from siftline.batch_plan import BATCH_ROWS, Feature, batch_rows
from siftline.config.detectors import DETECTORS
from siftline.detectors.kinds import Scorer, make_scorer, sensitive
from siftline.detectors.preprocess import raw_matrix, refuse_infinite, rows_of
from siftline.errors import IntegrityError, ModelError, RowError, StorageUnavailable, may_pass
from siftline.storage.files import file_digest, rename, replacing
from siftline.storage.layout import Version
from siftline.types import DetectorRef, Float64s, Mask, Matrix

# Types in our models, beyond those of Python and NumPy.
_TRUSTED = [
    "numpy.dtype",
    "siftline.detectors.preprocess.cyclic",
    "siftline.preprocess.cyclic",  # in models saved by earlier versions
    "sklearn.compose._column_transformer.ColumnTransformer",
    "sklearn.impute._base.SimpleImputer",
    "sklearn.pipeline.Pipeline",
    "sklearn.preprocessing._data.MinMaxScaler",
    "sklearn.preprocessing._data.RobustScaler",
    "sklearn.preprocessing._data.StandardScaler",
    "sklearn.preprocessing._encoders.OneHotEncoder",
    "sklearn.preprocessing._encoders.OrdinalEncoder",
    "sklearn.preprocessing._function_transformer.FunctionTransformer",
    *(name for kind in DETECTORS.values() for name in kind.trusted),
]


@dataclass(frozen=True)
class Typical:
    """Median of a feature in the sample, or code of the most frequent category, and robust spread."""

    value: float
    spread: float


@dataclass(frozen=True)
class FittedModel:
    """A model that turns a table of columns into scores."""

    kind: str
    features: tuple[Feature, ...]
    categories: Mapping[str, Sequence[str]]
    typical: tuple[Typical, ...]
    transform: Any
    estimator: Any

    def matrix(self, table: pa.Table) -> Matrix:
        """Return the raw matrix of a table; see `siftline.detectors.preprocess.raw_matrix`."""
        dtype = np.float32 if self.transform is None else np.float64
        return raw_matrix(table, self.features, self.categories, dtype)

    def score(self, matrix: Matrix, rows_at_once: int = BATCH_ROWS) -> Float64s:
        """Score a raw matrix of shape (n, d), float64 of shape (n,): higher is more anomalous.

        `rows_at_once` bounds the estimator's memory; wide rows are fewer at once. A value that is missing and
        needed, or becomes infinite, raises `RowError`.
        """
        scores = np.empty(len(matrix), dtype=np.float64)
        step = batch_rows(max(matrix.shape[1], self._width), rows_at_once)
        for start in range(0, len(matrix), step):
            rows = self._transformed(matrix[start : start + step], start)
            if not DETECTORS[self.kind].takes_missing:
                self._refuse_missing(rows, start)
            scores[start : start + len(rows)] = -self._scorer.score_samples(rows)
        return scores

    def sensitive(self, matrix: Matrix) -> Mask:
        """Return a mask of the features whose change may change the score of a row, all of shape (n, d)."""
        if self._width != matrix.shape[1]:  # a feature may be several columns
            return np.ones(matrix.shape, dtype=np.bool_)
        return sensitive(self.kind, self.estimator, self._transformed(matrix))

    def _transformed(self, rows: Matrix, before: int = 0) -> Matrix:
        """Preprocess a raw matrix; the error for an infinite value counts rows from `before`."""
        if self.transform is None:
            return rows
        with np.errstate(over="ignore"):
            rows = np.asarray(self.transform.transform(rows), dtype=np.float32, order="C")
        refuse_infinite(rows, "a preprocessed feature", before)
        return rows

    @property
    def _width(self) -> int:
        """Columns after preprocessing."""
        return int(getattr(self.estimator, "n_features_in_", len(self.features)))

    @cached_property
    def _scorer(self) -> Scorer:
        return make_scorer(self.kind, self.estimator)

    def _refuse_missing(self, rows: Matrix, before: int) -> None:
        missing = np.isnan(rows).any(axis=1)
        if missing.any():
            raise RowError(
                f"a value is missing, which {self.kind} cannot score",
                "set preprocess.missing, for example to median",
                rows_of(missing, before),
            )


def save_model(model: FittedModel, directory: Path) -> tuple[Path, str]:
    """Save a model as ``<digest>.skops``, and return path and digest (SHA-256 of the file)."""
    import skops.io

    record = {
        "format_version": Version.MODEL,
        "kind": model.kind,
        # As one text or array each: skops writes a node for every value in a list.
        "features": json.dumps([feature.model_dump() for feature in model.features]),
        "categories": json.dumps({name: list(values) for name, values in model.categories.items()}),
        "typical": np.array([[typical.value, typical.spread] for typical in model.typical]),
        "transform": model.transform,
        "estimator": model.estimator,
    }
    unnamed = directory / "new.skops"
    with replacing(unnamed) as temporary:
        skops.io.dump(record, temporary)
    name = file_digest(unnamed)
    path = directory / f"{name}.skops"
    rename(unnamed, path)
    return path, name


def load_model(path: Path) -> FittedModel:
    """Load a saved model; raise `ModelError` for damage, untrusted types or another format version."""
    remedy = "give the path of a model that Siftline saved"
    if not os.path.lexists(path):  # before the imports, which take seconds
        raise ModelError(f"{path}: no such file", remedy)
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        record = skops.io.load(path, trusted=_TRUSTED)
        found = record.get("format_version") if isinstance(record, dict) else None
        if found != Version.MODEL:
            raise ModelError(f"{path}: format version {found!r}, this version reads {Version.MODEL}", remedy)
        return FittedModel(
            kind=record["kind"],
            features=tuple(Feature.model_validate(feature) for feature in _plain(record["features"])),
            categories=_plain(record["categories"]),
            typical=tuple(Typical(*pair) for pair in np.asarray(record["typical"]).tolist()),
            transform=record["transform"],
            estimator=record["estimator"],
        )
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file", remedy) from None
    except UntrustedTypesFoundException as error:
        untrusted = ", ".join(sorted(set(skops.io.get_untrusted_types(file=path)) - set(_TRUSTED)))
        raise ModelError(f"{path}: contains types that are not trusted: {untrusted}", remedy) from error
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # skops raises many types for damaged files
        if may_pass(error):
            raise _unavailable(path, error) from error
        raise ModelError(f"{path}: not a model: {type(error).__name__}", remedy) from error


def _plain(value: Any) -> Any:
    """Return a value that is saved as JSON, or as it is by earlier versions."""
    return json.loads(value) if isinstance(value, str) else value


def _unavailable(path: Path, error: OSError) -> StorageUnavailable:
    what = f"{path}: the model cannot be read just now: {error.strerror}"
    return StorageUnavailable(what, "check the storage; it is tried again")


_loading = threading.RLock()
# The latest models of this process, by path and digest.
_loaded: dict[tuple[str, str], FittedModel] = {}
_MOST_LOADED = 4


def keep_model(model: FittedModel, path: Path, digest: str) -> None:
    """Keep a saved model for `cached_model`, which then need not load it."""
    with _loading:
        while len(_loaded) >= _MOST_LOADED:
            del _loaded[next(iter(_loaded))]
        _loaded[str(path), digest] = model


def _load_by_digest(path: str, digest: str) -> FittedModel:
    try:
        found = file_digest(Path(path))
    except OSError as error:
        if may_pass(error):
            raise _unavailable(Path(path), error) from error
        raise ModelError(
            f"{path}: the model is out of reach ({error.strerror})",
            "give a checkpoint.path that every worker can reach",
        ) from error
    if found != digest:
        raise IntegrityError(f"{path}: not the model that was fitted", "run again with --fresh")
    return load_model(Path(path))


def cached_model(ref: DetectorRef) -> FittedModel:
    """Load a model once per process, for all its threads; raise `IntegrityError` if its digest differs."""
    with _loading:
        known = _loaded.get((ref.path, ref.model_digest))
        if known is None:
            known = _load_by_digest(ref.path, ref.model_digest)
            keep_model(known, Path(ref.path), ref.model_digest)
        return known
