"""`score_samples` of an isolation forest: bit-identical, and faster once kernels are compiled."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from siftline.detectors.forest.compilation import KERNELS, Kernels
from siftline.detectors.forest.program import TREES, compile_forest
from siftline.detectors.forest.ranks import rank_tables
from siftline.types import Float32s, Float64s, Matrix

_CHECKED_ROWS = 256
_CACHE_LINE = 64
# With more features scikit-learn is as fast: ranking a value costs more than the few nodes that look at it.
_WIDEST = 1_000


class ForestScorer:
    """Scorer of a fitted ``sklearn.ensemble.IsolationForest``, for any number of threads."""

    def __init__(self, forest: Any, kernels: Kernels = KERNELS) -> None:
        self._forest = forest
        self._kernels = kernels
        self._compiling = threading.Lock()
        self._compiled: CompiledForest | None = None
        self._refused = getattr(forest, "n_features_in_", 0) > _WIDEST

    def score_samples(self, matrix: Matrix) -> Float64s:
        """Score every row; the result equals the forest's own ``score_samples`` to the last bit.

        Anything but a float matrix of shape (n, d) goes to scikit-learn, which converts or refuses it.
        """
        compiled = self._compiled_forest() if self._is_matrix(matrix) else None
        if compiled is not None:
            return compiled.score_samples(matrix)
        started = time.thread_time()
        scores: Float64s = self._forest.score_samples(matrix)
        if not self._refused:
            self._kernels.pay_rent(time.thread_time() - started)
        return scores

    def _is_matrix(self, matrix: object) -> bool:
        return (
            isinstance(matrix, np.ndarray)
            and matrix.dtype in (np.float32, np.float64)
            and matrix.ndim == 2
            and matrix.shape[0] > 0
            and matrix.shape[1] == self._forest.n_features_in_
        )

    def _compiled_forest(self) -> CompiledForest | None:
        kernels = None if self._refused else self._kernels.find()
        if kernels is None:
            return None
        with self._compiling:
            if self._compiled is None and not self._refused:
                try:
                    compiled = CompiledForest(self._forest, kernels)
                    compiled.check()
                    self._compiled = compiled
                except Exception as error:  # noqa: BLE001  # a forest's inside is private to scikit-learn
                    self._refused = True
                    self._kernels.warn_slower(error)
            return self._compiled


class CompiledForest:
    """A compiled forest; `kernels` is the module. A forest that cannot be compiled raises `ValueError`."""

    def __init__(self, forest: Any, kernels: Any) -> None:
        from sklearn.ensemble import IsolationForest
        from sklearn.ensemble._iforest import _average_path_length

        if type(forest) is not IsolationForest:
            raise ValueError(f"{type(forest).__name__} is not scikit-learn's IsolationForest")
        self._forest = forest
        self._kernels = kernels
        self._program, self._thresholds = compile_forest(forest)
        self._tables = rank_tables(self._thresholds)
        self._normal_depth = len(forest.estimators_) * _average_path_length([forest._max_samples]).item()

    def score_samples(self, matrix: Matrix) -> Float64s:
        """Score every row of a float matrix."""
        depths = np.zeros(len(matrix))
        rows = np.require(matrix, np.float32, "A")
        self._kernels.add_depths(rows, self._tables, self._program, self._scratch(), depths)
        # As in scikit-learn: a forest of single rows has no depth, and a score of 1.
        share = depths / self._normal_depth if self._normal_depth else np.ones_like(depths)
        scores: Float64s = -(2**-share)
        return scores

    def check(self) -> None:
        """Compare with scikit-learn on rows around the thresholds, with and without missing values.

        A score that differs in a bit raises `ValueError`.
        """
        rows = self._rows_around_thresholds()
        for matrix in (rows, np.where(np.random.default_rng(1).random(rows.shape) < 0.1, np.nan, rows)):
            if self.score_samples(matrix).tobytes() != self._forest.score_samples(matrix).tobytes():
                raise ValueError("the compiled forest scores differently")

    def _rows_around_thresholds(self) -> Float32s:
        generator = np.random.default_rng(0)
        known = [np.append(found, np.float32(0)) for found in self._thresholds]
        rows = np.column_stack([generator.choice(values, _CHECKED_ROWS) for values in known])
        towards = generator.choice(np.array([-np.inf, 0, np.inf], dtype=np.float32), rows.shape)
        with np.errstate(over="ignore"):
            return np.where(towards == 0, rows, np.nextafter(rows, towards))

    def _scratch(self) -> Any:
        block = self._kernels.BLOCK
        planes, slots = 2 * int(self._program.planes[-1]), self._program.slots + TREES
        return self._kernels.Scratch(
            values=_aligned((block,), np.float32),
            ranks=_aligned((block,), np.int32),
            planes=_aligned((planes, block), np.uint8),
            slots=_aligned((slots, block), np.uint8),
        )


def _aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
    """Return an array whose rows each begin on a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _CACHE_LINE, dtype=np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)
