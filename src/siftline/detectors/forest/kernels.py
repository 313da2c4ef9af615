"""Loops that score a forest. Importing this module compiles them, or loads them from the cache.

They release the GIL, start no threads and share nothing, so that any number of threads can run them, and
a process that has loaded them can be forked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
import numpy.typing as npt
from numba import types

from siftline.detectors.forest.program import OP, PLANE, TREES, Program
from siftline.detectors.forest.ranks import BUCKETS, RankTables
from siftline.types import Float32s, Float64s

F = TypeVar("F", bound=Callable[..., Any])

BLOCK = 4096  # rows at once: all their data fits into the cache of a core

Bytes = npt.NDArray[np.uint8]
_OPTIONS = {"nogil": True, "error_model": "numpy"}


class Scratch(NamedTuple):
    """Memory of a call, for one block of rows; see `Program` for planes and slots."""

    values: Float32s  # of shape (BLOCK,), as ranks: one feature of the rows
    ranks: npt.NDArray[np.int32]
    planes: Bytes  # of shape (…, BLOCK), as slots
    slots: Bytes


def _array(kind: Any, dimensions: int = 1) -> Any:
    return types.Array(kind, dimensions, "C")


_INT64S, _FLOAT32S, _FLOAT64S = map(_array, (types.int64, types.float32, types.float64))
_PROGRAM = types.NamedTuple(
    (_INT64S, _array(numba.from_dtype(OP)), _INT64S, _array(types.float64, 2), types.int64), Program
)
_RANK_TABLES = types.NamedTuple(
    (_FLOAT32S, _FLOAT32S, _array(types.int32, 2), _INT64S, _INT64S, _FLOAT32S), RankTables
)
_SCRATCH = types.NamedTuple(
    (_FLOAT32S, _array(types.int32), _array(types.uint8, 2), _array(types.uint8, 2)), Scratch
)
_MATRIX = types.Array(types.float32, 2, "A", readonly=True)  # of any layout, writable or not


def _inlined(function: F) -> F:
    compiled: F = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)
    return compiled


def _compiled(*arguments: Any) -> Callable[[F], F]:
    """Compile a function immediately, for arguments of these types."""
    signature = types.void(*arguments)

    def compile_now(function: F) -> F:
        compiled: F
        try:
            compiled = numba.njit(signature, cache=True, **_OPTIONS)(function)
        except Exception:  # noqa: BLE001  # the cache is unreachable, full or damaged; otherwise this raises again
            compiled = numba.njit(signature, **_OPTIONS)(function)
        return compiled

    return compile_now


@_inlined
def _rank(
    matrix: Float32s, first: int, rows: int, feature: int, tables: RankTables, scratch: Scratch
) -> bool:
    """Write the ranks of a feature to `scratch.ranks`; return True if a value is missing."""
    values, ranks = scratch.values, scratch.ranks
    low, scale, firsts = tables.lows[feature], tables.scales[feature], tables.firsts[feature]
    thresholds = tables.thresholds[tables.offsets[feature] : tables.offsets[feature + 1]]
    missing = False
    for row in range(rows):
        values[row] = matrix[first + row, feature]
    for row in range(rows):
        value = values[row]
        missing |= value != value
        position = (value - low) * scale
        position = position if position > np.float32(0) else np.float32(0)
        position = position if position < np.float32(BUCKETS - 1) else np.float32(BUCKETS - 1)
        ranks[row] = np.int32(position)
    # An unsigned index needs no check for negative values.
    for row in range(rows):
        ranks[row] = firsts[np.uint32(ranks[row])]
    for step in range(tables.steps[feature] - 1, -1, -1):
        ahead = (1 << step) - 1
        for row in range(rows):
            rank = ranks[row]
            ranks[row] = np.int32(
                rank + (np.int32(values[row] > thresholds[np.uint32(rank + ahead)]) << step)
            )
    return missing


@_inlined
def _fill_planes(first: int, last: int, scratch: Scratch) -> None:
    """Clip the ranks of a feature to bytes, for each plane."""
    ranks = scratch.ranks
    below = np.int32(0)
    for plane in range(first, last):
        out = scratch.planes[plane]
        for row in range(BLOCK):
            rank = np.int32(ranks[row] - below)
            rank = rank if rank > np.int32(0) else np.int32(0)
            rank = rank if rank < np.int32(PLANE) else np.int32(PLANE)
            out[row] = np.uint8(rank)
        below = np.int32(below + PLANE)


@_inlined
def _place_missing(matrix: Float32s, first: int, rows: int, starts: Any, planes: Bytes) -> None:
    """Place missing values right of all thresholds, and left of them in the copies of the planes."""
    features = matrix.shape[1]
    copies = starts[features]
    for plane in range(copies):
        for row in range(BLOCK):
            planes[copies + plane, row] = planes[plane, row]
    for feature in range(features):
        for row in range(rows):
            value = matrix[first + row, feature]
            if value != value:
                for plane in range(starts[feature], starts[feature + 1]):
                    planes[plane, row] = PLANE
                    planes[copies + plane, row] = 0


@_inlined
def _run(program: Program, tree: int, missing: bool, scratch: Scratch) -> None:
    """Run the operations of one tree on a block."""
    for number in range(program.starts[tree], program.starts[tree + 1]):
        op = program.ops[number]
        out = scratch.slots[op.out]
        ranks = scratch.planes[op.plane_if_missing if missing else op.plane]
        # Bytes, both read before the choice: LLVM makes a blend of that, not a branch or a wider type.
        rank, left, right = op.rank, op.left, op.right
        if op.kind == 0:
            for row in range(BLOCK):
                out[row] = left if ranks[row] <= rank else right
        elif op.kind == 1:
            rights = scratch.slots[right]
            for row in range(BLOCK):
                other = rights[row]
                out[row] = left if ranks[row] <= rank else other
        elif op.kind == 2:
            lefts = scratch.slots[left]
            for row in range(BLOCK):
                one = lefts[row]
                out[row] = one if ranks[row] <= rank else right
        else:
            lefts, rights = scratch.slots[left], scratch.slots[right]
            for row in range(BLOCK):
                one, other = lefts[row], rights[row]
                out[row] = one if ranks[row] <= rank else other


@_compiled(_MATRIX, _RANK_TABLES, _PROGRAM, _SCRATCH, _FLOAT64S)
def add_depths(
    matrix: Float32s, tables: RankTables, program: Program, scratch: Scratch, depths: Float64s
) -> None:
    """Add the depth in each tree, in order, to `depths`, for a matrix of shape (rows, features)."""
    rows, features = matrix.shape
    results = scratch.slots[program.slots :]
    for first in range(0, rows, BLOCK):
        n = min(BLOCK, rows - first)
        missing = False
        for feature in range(features):
            missing |= _rank(matrix, first, n, feature, tables, scratch)
            _fill_planes(program.planes[feature], program.planes[feature + 1], scratch)
        if missing:
            _place_missing(matrix, first, n, program.planes, scratch.planes)
        out = depths[first : first + n]
        for begin in range(0, len(program.leaves), TREES):
            for tree in range(TREES):
                _run(program, begin + tree, missing, scratch)
            for row in range(n):
                depth = out[row]
                for tree in range(TREES):
                    depth += program.leaves[begin + tree, results[tree, row]]
                out[row] = depth
