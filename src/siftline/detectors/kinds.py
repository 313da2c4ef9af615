"""Estimators by kind: making, importing and scoring. `siftline.config.detectors` lists the kinds."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, cast

import numpy as np

from siftline.config.detectors import DETECTORS, RESERVED
from siftline.errors import ModelError
from siftline.system.signals import signals_deferred
from siftline.types import Float64s, Mask, Matrix


class Scorer(Protocol):
    """Scores rows as scikit-learn does."""

    def score_samples(self, matrix: Matrix) -> Float64s:
        """Score a matrix of shape (n, d): lower is more anomalous."""


class Acceleration(Protocol):
    """Module that scores one kind faster than its estimator, with the same result."""

    def make_scorer(self, estimator: Any) -> Scorer:
        """Return a scorer for a fitted estimator."""

    def preload(self) -> None:
        """Load cheap things before workers are forked."""

    def prepare(self, rows: int) -> None:
        """Prepare this process for scoring that many rows."""

    def sensitive(self, estimator: Any, matrix: Matrix) -> Mask:
        """Return a mask of the features whose change may change the score of a row, all of shape (n, d)."""

    def lacking(self, rows: int) -> str | None:
        """Name an optional library that is missing and would pay off for that many rows, if any."""


def _acceleration(kind: str) -> Acceleration | None:
    path = DETECTORS[kind].acceleration
    return cast(Acceleration, import_module(path)) if path else None


def make_scorer(kind: str, estimator: Any) -> Scorer:
    """Return the fastest scorer for a fitted estimator."""
    fast = _acceleration(kind)
    scorer: Scorer = fast.make_scorer(estimator) if fast else estimator
    return scorer


def preload() -> None:
    """Import every estimator and its acceleration, before workers are forked."""
    for kind in DETECTORS:
        _estimator_class(kind)
        if fast := _acceleration(kind):
            fast.preload()


def prepare(kind: str, rows: int) -> None:
    """Import the estimator, and get ready to score that many rows."""
    _estimator_class(kind)
    if fast := _acceleration(kind):
        fast.prepare(rows)


def lacking(kind: str, rows: int) -> str | None:
    """Name an optional library that is missing and would speed up scoring that many rows, if any."""
    fast = _acceleration(kind)
    return fast.lacking(rows) if fast else None


def sensitive(kind: str, estimator: Any, matrix: Matrix) -> Mask:
    """Return a mask of the features whose change may change the score of a row, all of shape (n, d)."""
    fast = _acceleration(kind)
    return fast.sensitive(estimator, matrix) if fast else np.ones(matrix.shape, dtype=np.bool_)


def make_estimator(kind: str, params: Mapping[str, Any], seed: int) -> Any:
    """Return the unfitted estimator; raise `ModelError` if scikit-learn refuses a parameter."""
    estimator = _estimator_class(kind)()
    allowed = sorted(set(estimator.get_params()) - set(RESERVED))
    for param in params:
        if param in RESERVED:
            raise ModelError(f"detector.params.{param}: cannot be set here", RESERVED[param])
        if param not in allowed:
            problem = f"detector.params.{param}: {type(estimator).__name__} has no such parameter"
            raise ModelError(problem, f"allowed: {', '.join(allowed)}")
    estimator.set_params(**params)
    if "random_state" in estimator.get_params():
        estimator.set_params(random_state=seed)
    try:
        estimator._validate_params()
    except ValueError as error:
        message = str(error)
        param = next((param for param in params if repr(param) in message), "")
        raise ModelError(f"detector.params.{param}: {message}", "correct the value") from error
    return estimator


def changed_params(kind: str, params: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters that differ from the estimator's defaults, as text."""
    known = DETECTORS[kind].params
    if all(name in known for name in params):  # without scikit-learn
        defaults = {name: known[name].default for name in params}
    else:
        defaults = _estimator_class(kind)().get_params()
    return {name: repr(value) for name, value in sorted(params.items()) if value != defaults[name]}


def _estimator_class(kind: str) -> Any:
    module, _, name = DETECTORS[kind].estimator.rpartition(".")
    with signals_deferred():  # a stop during this import would get lost
        return getattr(import_module(module), name)
