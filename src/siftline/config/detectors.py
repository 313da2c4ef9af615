"""Detectors: their kinds, each an entry in `DETECTORS`, and their configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PositiveInt
from pydantic_core import PydanticKnownError

from siftline.config.fields import LocalPath, Section

# Parameters that users cannot set, each with what to do instead.
RESERVED = {
    "contamination": "set threshold.contamination",
    "random_state": "set detector.seed",
    "n_jobs": "set cluster.workers: chunks are scored in parallel, not trees",
    "verbose": "it has no effect here",
    "warm_start": "it has no effect here",
}


def _forest_bytes(params: Mapping[str, Any], rows: int, width: int) -> int:
    """Return the bytes of trees, and of the rows of one; parameters may be invalid."""
    trees, asked = params.get("n_estimators", 100), params.get("max_samples", "auto")
    drawn = min(256, rows)
    if isinstance(asked, (int, float)):
        drawn = min(rows, int(asked * rows) if isinstance(asked, float) else asked)
    return 160 * drawn * (trees if isinstance(trees, int) else 100) + 4 * drawn * width


def _envelope_bytes(params: Mapping[str, Any], rows: int, width: int) -> int:
    """Return the bytes of copies of all rows, and of the covariances of FastMCD."""
    return 32 * rows * width + 8 * width**2 * (10 * (rows // 300) + 60)


def _copies_bytes(params: Mapping[str, Any], rows: int, width: int) -> int:
    """Return the bytes of two copies of all rows."""
    return 16 * rows * width


@dataclass(frozen=True)
class Param:
    """A parameter as it is known without scikit-learn: its default, and what it surely accepts."""

    default: Any
    accepts: Callable[[Any], bool]


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_count_or_share(value: Any) -> bool:
    return _is_count(value) or (isinstance(value, float) and 0 < value <= 1)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True)
class DetectorKind:
    """A scikit-learn estimator whose ``score_samples`` is lower for anomalies, and its properties."""

    estimator: str  # import path
    exact: bool  # scores are bit-identical for any chunk size; through BLAS, equal within 1e-9
    takes_missing: bool  # rows with NaN can be scored
    trusted: tuple[str, ...] = ()  # types in a saved model; loading them must run no code
    params: Mapping[str, Param] = field(default_factory=dict)  # those that need no import of scikit-learn
    acceleration: str | None = None  # import path of a `siftline.detectors.kinds.Acceleration`
    # Memory of the fit beside the sample, by parameters, rows and columns.
    fit_bytes: Callable[[Mapping[str, Any], int, int], int] = _copies_bytes


DETECTORS: dict[str, DetectorKind] = {
    # Liu, Ting, Zhou: Isolation Forest, ICDM 2008.
    "isolation_forest": DetectorKind(
        "sklearn.ensemble.IsolationForest",
        exact=True,
        takes_missing=True,
        trusted=(
            "sklearn.ensemble._iforest.IsolationForest",
            "sklearn.tree._classes.ExtraTreeRegressor",
            "sklearn.tree._tree.Tree",  # a forged one can crash the process, but it runs no code
        ),
        params={
            "n_estimators": Param(100, _is_count),
            "max_samples": Param("auto", lambda value: value == "auto" or _is_count_or_share(value)),
            "max_features": Param(1.0, _is_count_or_share),
            "bootstrap": Param(False, _is_bool),
        },
        acceleration="siftline.detectors.forest",
        fit_bytes=_forest_bytes,
    ),
    # Rousseeuw, Van Driessen: A fast algorithm for the minimum covariance determinant, 1999.
    "elliptic_envelope": DetectorKind(
        "sklearn.covariance.EllipticEnvelope",
        exact=False,
        takes_missing=False,
        trusted=("sklearn.covariance._elliptic_envelope.EllipticEnvelope",),
        params={"assume_centered": Param(False, _is_bool), "store_precision": Param(True, _is_bool)},
        fit_bytes=_envelope_bytes,
    ),
}


def surely_right(kind: str, params: Mapping[str, Any]) -> bool:
    """Return True for parameters that scikit-learn accepts, as far as is known without it."""
    known = DETECTORS[kind].params
    return all(name in known and known[name].accepts(value) for name, value in params.items())


def _check_kind(kind: str) -> str:
    if kind not in DETECTORS:
        raise PydanticKnownError("literal_error", {"expected": " or ".join(map(repr, DETECTORS))})
    return kind


DetectorName = Annotated[
    str,
    AfterValidator(_check_kind),
    Field(json_schema_extra=lambda schema: schema.update(enum=list(DETECTORS))),
]


class DetectorConfig(Section):
    """The detector of anomalies."""

    kind: DetectorName = "isolation_forest"
    """Kind of detector."""
    params: dict[str, Any] = Field(default={}, examples=[{"n_estimators": 200}])
    """Parameters of the scikit-learn estimator for `kind`; scikit-learn checks them."""
    sample_rows: PositiveInt = 200_000
    """Size of the seeded sample to fit on; smaller inputs are used whole."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the sample and of the detector."""
    model: LocalPath | None = None
    """Path of a fitted model (`*.skops`) to use in place of a new one."""
