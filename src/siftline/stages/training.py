"""Training on a worker: sample, preprocessing and detector."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa

from siftline.batch_plan import BatchPlan, Feature, batch_rows
from siftline.config.batch import BatchConfig
from siftline.detectors.fitted import FittedModel, Typical, cached_model, keep_model, save_model
from siftline.detectors.kinds import make_estimator
from siftline.detectors.preprocess import (
    learn_categories,
    make_transform,
    plain_numbers,
    raw_matrix,
    refuse_infinite,
)
from siftline.errors import FeatureError, ModelError, RowError
from siftline.source.sample import draw_sample
from siftline.stages.findings.sample import keep_features
from siftline.stages.rejects import score_around
from siftline.types import DetectorRef, Float64s, Matrix

# A robust standard deviation of normal data is its interquartile range over this.
_IQR_OF_NORMAL = 1.349


def fit_on_sample(plan: BatchPlan) -> DetectorRef:
    """Draw the sample, fit the detector on it, and save the model, on a worker."""
    sample = _sample(plan)
    pa.default_memory_pool().release_unused()  # of decoding, before the fit needs memory
    model = _fit_around(sample, plan)
    path, name = save_model(model, plan.files.model)
    keep_model(model, path, name)
    with suppress(Exception):  # or a sample is drawn for it later
        keep_features(sample, plan.features, path)
    return DetectorRef(
        kind=model.kind,
        path=str(path),
        model_digest=name,
        sample_rows=sample.num_rows,
        capped=_capped(sample, model, plan.config),
    )


def _capped(sample: pa.Table, model: FittedModel, config: BatchConfig) -> dict[str, int]:
    """Return the text features whose rarer values share a column, with the number of values."""
    if config.preprocess.categorical != "onehot":
        return {}
    columns = {feature.name: feature.column for feature in model.features}
    levels = {
        name: len(known) + (sample[columns[name]].null_count > 0) for name, known in model.categories.items()
    }
    return {name: count for name, count in levels.items() if count > config.preprocess.max_categories}


def sample_quantile(job: tuple[BatchPlan, DetectorRef]) -> float | None:
    """Return the configured quantile of the training sample's scores, on a worker."""
    plan, ref = job
    model = cached_model(ref)
    sample = _sample(plan)
    rows = batch_rows(sample.num_columns)
    scores = [_scores(model, sample.slice(start, rows)) for start in range(0, sample.num_rows, rows)]
    return float(np.nanquantile(np.concatenate(scores), plan.config.threshold.quantile or 0.0))


def _scores(model: FittedModel, rows: pa.Table) -> Float64s:
    return score_around(lambda some: model.score(model.matrix(some)), rows, 0, rows.num_rows)[0]


def _fit_around(sample: pa.Table, plan: BatchPlan) -> FittedModel:
    """Fit on the sample without rows that cannot be handled, if any are tolerated."""
    while True:
        try:
            return fit_model(sample, plan.features, plan.config)
        except RowError as error:
            if not plan.tolerated_rows or not error.rows or len(error.rows) == sample.num_rows:
                raise error.about("a row of the sample") from error
            sample = sample.take(pa.array(np.delete(np.arange(sample.num_rows), error.rows)))


def _sample(plan: BatchPlan) -> pa.Table:
    columns = list(dict.fromkeys(feature.column for feature in plan.features))
    detector = plan.config.detector
    groups = plan.chunks.row_groups()
    return draw_sample(plan.snapshot.files, groups, columns, detector.sample_rows, detector.seed)


def fit_model(sample: pa.Table, features: Sequence[Feature], config: BatchConfig) -> FittedModel:
    """Fit preprocessing and detector on a sample that has the features' columns."""
    plain = plain_numbers(features, config.preprocess)
    categories = learn_categories(sample, features)
    dtype = np.float32 if plain else np.float64
    matrix = raw_matrix(sample, features, categories, dtype)
    for column, feature in enumerate(features):
        if np.isnan(matrix[:, column]).all():
            raise FeatureError(
                f"feature {feature.name}: no row of the sample has a value",
                "leave it out of source.features, or raise detector.sample_rows",
            )
    transform = None if plain else make_transform(features, config.preprocess)
    seen = matrix
    if transform is not None:
        with np.errstate(over="ignore"):
            seen = np.asarray(transform.fit_transform(matrix), dtype=np.float32, order="C")
        refuse_infinite(seen, "a preprocessed feature")
    estimator = make_estimator(config.detector.kind, config.detector.params, config.detector.seed)
    return FittedModel(
        kind=config.detector.kind,
        features=tuple(features),
        categories=categories,
        typical=tuple(_typical(matrix[:, column], feature) for column, feature in enumerate(features)),
        transform=transform,
        estimator=_fit(estimator, seen),
    )


def _fit(estimator: Any, matrix: Matrix) -> Any:
    try:
        return estimator.fit(matrix)
    except ValueError as error:
        what = " ".join(str(error).split())
        raise ModelError(
            f"detector: {type(estimator).__name__} cannot be fitted on the sample: {what}",
            "correct detector.params, or set preprocess.missing if values are missing",
        ) from error


def _typical(values: Matrix, feature: Feature) -> Typical:
    present = values[~np.isnan(values)].astype(np.float64)
    if feature.kind == "categorical":
        codes, counts = np.unique(present, return_counts=True)
        return Typical(float(codes[np.argmax(counts)]), 0.0)
    low, middle, high = np.quantile(present, [0.25, 0.5, 0.75])
    spread = (high - low) / _IQR_OF_NORMAL or float(present.std())
    return Typical(float(middle), float(spread))
