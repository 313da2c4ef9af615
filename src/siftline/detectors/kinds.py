"""The detectors: scikit-learn estimators behind one small door, `Detector.score`.

To add one: give it an entry in `DETECTORS` and its kind in `siftline.config.batch.DetectorConfig`; the
contract test in ``tests/contracts`` then holds it to what the rest relies on: a row's score depends on
that row alone, higher is more anomalous, the input is not changed, missing values do as declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from siftline.detectors.forest import ForestScorer
from siftline.errors import ModelError
from siftline.signals import signals_deferred
from siftline.types import Float64s, Matrix


class Detector(Protocol):
    """What scores rows."""

    def score(self, matrix: Matrix) -> Float64s:
        """Score every row of a matrix of shape (n, d): higher is more anomalous."""


@dataclass(frozen=True)
class DetectorKind:
    """An estimator, and what Siftline may rely on.

    Parameters
    ----------
    estimator : str
        Import path of the scikit-learn estimator.
    exact : bool
        Whether scores are bit-identical for any chunk size. Those that go through BLAS are equal within
        1e-9 only.
    takes_missing : bool
        Whether rows with NaN can be scored.
    seed : str
        The parameter that takes the seed.
    reserved : mapping of str to str
        Parameters that the configuration sets elsewhere, or never: what to do instead.
    """

    estimator: str
    exact: bool
    takes_missing: bool
    seed: str
    reserved: Mapping[str, str]


_RESERVED = {
    "contamination": "set threshold.contamination",
    "random_state": "set detector.seed",
    "n_jobs": "set cluster.workers: chunks are scored in parallel, not trees",
    "verbose": "it has no effect here",
    "warm_start": "it has no effect here",
}

DETECTORS: Mapping[str, DetectorKind] = {
    # Liu, Ting, Zhou: Isolation Forest, ICDM 2008.
    "isolation_forest": DetectorKind(
        "sklearn.ensemble.IsolationForest",
        exact=True,
        takes_missing=True,
        seed="random_state",
        reserved=_RESERVED,
    ),
    # Rousseeuw, Van Driessen: A fast algorithm for the minimum covariance determinant, 1999.
    "elliptic_envelope": DetectorKind(
        "sklearn.covariance.EllipticEnvelope",
        exact=False,
        takes_missing=False,
        seed="random_state",
        reserved=_RESERVED,
    ),
}


@dataclass(frozen=True)
class SklearnDetector:
    """A fitted scikit-learn outlier estimator."""

    estimator: Any

    def score(self, matrix: Matrix) -> Float64s:
        """Score every row: the estimator's ``score_samples``, negated so that higher is more anomalous."""
        return np.asarray(-self._score_samples(matrix), dtype=np.float64)

    @cached_property
    def _score_samples(self) -> Callable[[Matrix], Float64s]:
        from sklearn.ensemble import IsolationForest

        if isinstance(self.estimator, IsolationForest):
            return ForestScorer(self.estimator).score_samples
        score_samples: Callable[[Matrix], Float64s] = self.estimator.score_samples
        return score_samples


def make_estimator(kind: str, params: Mapping[str, Any], seed: int) -> Any:
    """Return the unfitted estimator, its parameters checked by scikit-learn itself.

    Raises
    ------
    ModelError
        When a parameter is unknown, reserved, or its value not allowed.
    """
    spec = DETECTORS[kind]
    estimator = _new_estimator(kind)
    name = type(estimator).__name__
    known = sorted(set(estimator.get_params()) - set(spec.reserved))
    for param in params:
        if param in spec.reserved:
            raise ModelError(f"detector.params.{param}: not taken here", spec.reserved[param])
        if param not in known:
            problem = f"detector.params.{param}: {name} has no such parameter"
            raise ModelError(problem, f"allowed: {', '.join(known)}")
    estimator.set_params(**params, **{spec.seed: seed})
    try:
        estimator._validate_params()
    except ValueError as error:
        message = str(error)
        param = next((param for param in params if repr(param) in message), "")
        raise ModelError(f"detector.params.{param}: {message}", "correct the value") from error
    return estimator


def check_params(kind: str, params: Mapping[str, Any]) -> None:
    """Check parameters as `make_estimator` does; without any, scikit-learn need not be imported."""
    if params:
        make_estimator(kind, params, seed=0)


def changed_params(kind: str, params: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters that are not at the estimator's default, as text: what makes another job."""
    if not params:
        return {}
    defaults = _new_estimator(kind).get_params()
    return {name: repr(value) for name, value in sorted(params.items()) if value != defaults[name]}


def _new_estimator(kind: str) -> Any:
    module, _, name = DETECTORS[kind].estimator.rpartition(".")
    with signals_deferred():  # a stop amid this import gets lost
        return getattr(import_module(module), name)()
