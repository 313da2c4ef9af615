"""Preprocessing: from a table of columns to the matrix for the detector.

Two steps. The *raw matrix* has one number per feature: Arrow computes it column by column (category codes
for text, parts of timestamps). The *transform*, fitted on the sample, consists of scikit-learn's own
transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from siftline.batch_plan import Feature
from siftline.config.batch import PreprocessConfig
from siftline.errors import RowError
from siftline.types import Matrix

_STEP_COLUMNS = 256
# Code of a category that the sample does not have.
UNKNOWN = -1.0
TIME_PERIODS = {"minute": 60.0, "hour": 24.0, "day_of_week": 7.0, "day": 31.0, "month": 12.0}
DATE_PARTS = ("day_of_week", "day", "month")


def is_numeric(kind: pa.DataType) -> bool:
    """Return True if an Arrow type is numeric or boolean."""
    checks = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(check(kind) for check in checks)


def is_categorical(kind: pa.DataType) -> bool:
    """Return True if an Arrow type is text."""
    if pa.types.is_dictionary(kind):
        return is_categorical(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def plain_numbers(features: Sequence[Feature], preprocess: PreprocessConfig) -> bool:
    """Return True if the raw matrix needs no transform."""
    return (
        preprocess.missing == "keep"
        and preprocess.scale == "none"
        and all(feature.kind == "numeric" and feature.period is None for feature in features)
    )


def learn_categories(table: pa.Table, features: Sequence[Feature]) -> dict[str, list[str]]:
    """Return the sorted categories of each categorical feature in the sample."""
    return {
        feature.name: sorted(
            value for value in pc.unique(as_text(table[feature.column])).to_pylist() if value is not None
        )
        for feature in features
        if feature.kind == "categorical"
    }


def raw_matrix(
    table: pa.Table,
    features: Sequence[Feature],
    categories: Mapping[str, Sequence[str]],
    dtype: type[np.float32] | type[np.float64],
) -> Matrix:
    """Return one number per row and feature, column-major, of shape (n, d); missing values are NaN.

    The code of a category is its position among the known `categories`, -1 if unknown. `dtype` is float32
    without a transform, float64 before one. A value that is infinite in it raises `RowError` with the rows.
    """
    matrix: Matrix = np.empty((table.num_rows, len(features)), dtype=dtype, order="F")
    with np.errstate(over="ignore"):
        for column, feature in enumerate(features):
            start = 0
            for part in _numbers(table[feature.column], feature, categories).chunks:
                matrix[start : start + len(part), column] = part.to_numpy(zero_copy_only=False)
                start += len(part)
            refuse_infinite(matrix[:, column : column + 1], f"feature {feature.name}")
    return matrix


def _numbers(
    column: pa.ChunkedArray, feature: Feature, categories: Mapping[str, Sequence[str]]
) -> pa.ChunkedArray:
    if feature.kind == "categorical":
        text = as_text(column)
        codes = pc.index_in(text, value_set=pa.array(categories[feature.name], pa.string()))
        return pc.if_else(pc.is_null(text), None, pc.fill_null(codes.cast(pa.float64()), UNKNOWN))
    if feature.kind == "time_part":
        return getattr(pc, str(feature.time_part))(column).cast(pa.float64())
    # Via float64 even to float32, as in scikit-learn for an array of mixed types.
    return column if pa.types.is_floating(column.type) else column.cast(pa.float64(), safe=False)


def as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a categorical column as plain text."""
    return column.cast(pa.string())


def refuse_infinite(values: Matrix, what: str, before: int = 0) -> None:
    """Raise `RowError` for infinite values of shape (n, d), whose scores would be meaningless.

    `what` names the values in the message; the error has all their rows, counted from `before`.
    """
    infinite = np.isinf(values)
    if infinite.any():
        raise RowError(
            f"{what} is infinite, or too large for 32-bit floating point",
            "replace such values in the source, or leave the feature out of source.features",
            rows_of(infinite.any(axis=1), before),
        )


def rows_of(bad: Any, before: int = 0) -> tuple[int, ...]:
    """Return the positions at which a mask of shape (n,) is true, for a `RowError`."""
    return tuple((np.flatnonzero(bad) + before).tolist())


def cyclic(values: Matrix, period: float) -> Matrix:
    """Place values of shape (n, 1), in the unit of `period`, on a circle: sine and cosine, of shape (n, 2).

    From scikit-learn's "Time-related feature engineering".
    """
    angle = np.asarray(values, dtype=np.float64) * (2 * np.pi / period)
    return np.hstack([np.sin(angle), np.cos(angle)])


def capped(name: str, levels: str, most: int) -> str:
    """Say that the rarer of a feature's values share a column."""
    return (
        f"feature {name} has {levels} values: the {most:,} most frequent get a column each, "
        "the others share one (preprocess.max_categories)"
    )


def make_transform(features: Sequence[Feature], preprocess: PreprocessConfig) -> Any:
    """Compose scikit-learn's transformers into one (unfitted) ``ColumnTransformer`` over the raw matrix.

    Neighbours that are treated alike share a step: thousands of steps take minutes, wide ones much memory.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline

    steps = []
    for _, run in groupby(range(len(features)), key=lambda column: _treatment(features[column], column)):
        columns = list(run)
        feature = features[columns[0]]
        chain = [*_impute(feature, preprocess), *_encode(feature, preprocess)]
        # Not the feature's own name: scikit-learn reserves some.
        name = f"feature{columns[0]}"
        steps.append((name, make_pipeline(*chain) if chain else "passthrough", columns))
    return ColumnTransformer(steps, sparse_threshold=0)


def _treatment(feature: Feature, column: int) -> tuple[Any, ...]:
    """Return what features must share to be preprocessed together; a cyclic one goes alone."""
    return (feature.kind, column // _STEP_COLUMNS) if feature.period is None else ("cyclic", column)


def _impute(feature: Feature, preprocess: PreprocessConfig) -> list[Any]:
    from sklearn.impute import SimpleImputer

    if preprocess.missing == "keep" or feature.kind == "categorical":
        return []
    return [SimpleImputer(strategy=preprocess.missing)]


def _encode(feature: Feature, preprocess: PreprocessConfig) -> list[Any]:
    from sklearn.preprocessing import (
        FunctionTransformer,
        MinMaxScaler,
        OneHotEncoder,
        OrdinalEncoder,
        RobustScaler,
        StandardScaler,
    )

    if feature.kind == "categorical":
        if preprocess.categorical == "onehot":
            return [
                OneHotEncoder(
                    max_categories=preprocess.max_categories + 1,  # with the one for all others
                    handle_unknown="infrequent_if_exist",
                    sparse_output=False,
                )
            ]
        return [OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)]
    if feature.period is not None:
        return [FunctionTransformer(cyclic, kw_args={"period": feature.period})]
    scalers = {"standard": StandardScaler, "robust": RobustScaler, "minmax": MinMaxScaler}
    return [scalers[preprocess.scale]()] if preprocess.scale != "none" else []
