"""Compilation of a forest into a straight-line program over bytes; see `siftline.detectors.forest`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from siftline.types import Float32s, Float64s, Ints

LEAVES = 256  # distinct leaf values of a tree, numbered by a byte
PLANE = 255  # thresholds of a feature ranked by a byte
TREES = 8  # trees whose leaf values are added in one pass

# out = left if the row's rank in the plane <= rank else right, for a block of rows. Bit 1 of the kind is set
# if `left` is a slot and not a leaf class, bit 0 likewise for `right`. For a block with missing values each
# plane has a copy in which they go left.
OP = np.dtype(
    [
        ("plane", np.int32),
        ("plane_if_missing", np.int32),
        ("kind", np.uint8),
        ("out", np.uint8),
        ("rank", np.uint8),
        ("left", np.uint8),
        ("right", np.uint8),
    ]
)


class Program(NamedTuple):
    """A forest as operations on bytes; tree ``t`` has its result in slot ``slots + t % TREES``."""

    planes: Ints  # of shape (features + 1,): first plane of each feature, and the number of planes
    ops: npt.NDArray[np.void]  # of OP: the operations of all trees, children before parents
    starts: Ints  # of shape (trees + 1,): first operation of each tree
    leaves: Float64s  # of shape (trees, 256): depth that each leaf class adds to a row
    slots: int  # number of simultaneous intermediate results


@dataclass(frozen=True)
class _Tree:
    """A tree, node by node."""

    left: list[int]
    right: list[int]
    feature: list[int]
    threshold: Float32s
    missing_left: list[bool]
    values: list[float]
    classes: list[int]  # leaf class of a node if all leaves below have the same value, else -1
    slots: list[int]  # number of slots needed to compute the node


def compile_forest(forest: Any) -> tuple[Program, list[Float32s]]:
    """Compile a fitted ``sklearn.ensemble.IsolationForest``.

    Returns the program, and the distinct thresholds of every feature, ascending, by which values are ranked.
    A tree with more leaf values than a byte can number raises `ValueError`.
    """
    trees = [_prune(*parts) for parts in _parts(forest)]
    thresholds = _thresholds(trees, forest.n_features_in_)
    planes = np.cumsum([0, *(-(-len(found) // PLANE) for found in thresholds)])
    slots = max(tree.slots[0] for tree in trees)
    ops: list[tuple[int, ...]] = []
    starts = [0]
    # Trees of 0.0 fill the last pass: they change no bit of a sum, which is never -0.0.
    leaves = np.zeros((-(-len(trees) // TREES) * TREES, LEAVES))
    for number, tree in enumerate(trees):
        if tree.classes[0] < 0:
            leaves[number, : len(tree.values)] = tree.values
            ops += _Emitter(tree, thresholds, planes).program(slots + number % TREES)
        else:
            leaves[number] = tree.values[tree.classes[0]]  # for any content of its slot
        starts.append(len(ops))
    starts += [len(ops)] * (len(leaves) - len(trees))
    return Program(planes, np.array(ops, dtype=OP), np.array(starts), leaves, slots), thresholds


def _parts(forest: Any) -> list[tuple[Any, Ints, Float64s]]:
    """Return each tree with its features and its nodes' depths, as scikit-learn computes them."""
    return [
        (estimator.tree_, np.asarray(features), (path + below) - 1.0)
        for estimator, features, path, below in zip(
            forest.estimators_,
            forest.estimators_features_,
            forest._decision_path_lengths,
            forest._average_path_length_per_tree,
            strict=True,
        )
    ]


def _prune(tree: Any, features: Ints, depths: Float64s) -> _Tree:
    left, right = tree.children_left.tolist(), tree.children_right.tolist()
    numbers: dict[float, int] = {}
    classes, slots = [-1] * len(left), [0] * len(left)
    for node in reversed(range(len(left))):  # children have higher numbers than their parents
        if left[node] < 0:
            classes[node] = numbers.setdefault(float(depths[node]), len(numbers))
        elif classes[left[node]] == classes[right[node]] >= 0:
            classes[node] = classes[left[node]]
        else:
            # The result needs its own slot: sharing an operand's would prevent vectorisation.
            more, less = sorted((slots[left[node]], slots[right[node]]), reverse=True)
            slots[node] = max(more, less + 1 if less else 0, 1 + bool(more) + bool(less))
    if len(numbers) > LEAVES:
        raise ValueError(f"a tree has {len(numbers)} leaf values, more than {LEAVES}")
    return _Tree(
        left=left,
        right=right,
        feature=features[np.maximum(tree.feature, 0)].tolist(),
        threshold=floored(tree.threshold),
        missing_left=tree.missing_go_to_left.astype(bool).tolist(),
        values=list(numbers),
        classes=classes,
        slots=slots,
    )


def floored(thresholds: Float64s) -> Float32s:
    """Round down to float32; ``value <= threshold`` stays the same for all float32 values."""
    with np.errstate(over="ignore"):
        rounded = thresholds.astype(np.float32)
    above = rounded > thresholds
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    return rounded


def _thresholds(trees: list[_Tree], features: int) -> list[Float32s]:
    inner = [np.array(tree.classes) < 0 for tree in trees]
    feature = np.concatenate([np.array(tree.feature)[kept] for tree, kept in zip(trees, inner, strict=True)])
    threshold = np.concatenate([tree.threshold[kept] for tree, kept in zip(trees, inner, strict=True)])
    return [np.unique(threshold[feature == number]) for number in range(features)]


class _Emitter:
    """Writer of the operations of one tree, with as few slots as possible."""

    def __init__(self, tree: _Tree, thresholds: list[Float32s], planes: Ints) -> None:
        self._tree = tree
        self._planes = planes.tolist()
        self._ranks = np.zeros(len(tree.feature), dtype=np.int64)
        for feature in set(tree.feature):
            nodes = np.flatnonzero(np.array(tree.feature) == feature)
            self._ranks[nodes] = thresholds[feature].searchsorted(tree.threshold[nodes])
        self._free = list(range(tree.slots[0]))
        self._ops: list[tuple[int, ...]] = []

    def program(self, result: int) -> list[tuple[int, ...]]:
        """Return the operations; the last one stores the leaf classes in the slot `result`."""
        self._emit(0, result)
        return self._ops

    def _emit(self, node: int, result: int | None = None) -> int:
        """Write the operations of a node, and return its slot."""
        tree = self._tree
        left, right = tree.left[node], tree.right[node]
        where = {child: tree.classes[child] for child in (left, right)}
        inner = [child for child, leaf in where.items() if leaf < 0]
        # The child that needs more slots first (Sethi, Ullman: The generation of optimal code, 1970).
        for child in sorted(inner, key=tree.slots.__getitem__, reverse=True):
            where[child] = self._emit(child)
        out = self._free.pop() if result is None else result
        self._free += [where[child] for child in inner]
        page, rank = divmod(int(self._ranks[node]), PLANE)
        plane = self._planes[tree.feature[node]] + page
        plane_if_missing = plane + (self._planes[-1] if tree.missing_left[node] else 0)
        kind = 2 * (left in inner) + (right in inner)
        self._ops.append((plane, plane_if_missing, kind, out, rank, where[left], where[right]))
        return out
