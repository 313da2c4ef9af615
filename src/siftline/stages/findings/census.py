"""Census of groups: how many anomalies have the same strongest reasons, counted in bounded memory.

A reason is a code, the number of its feature times 4 plus the number of its direction. A group is a pair of
codes, in ascending order: the two strongest reasons of a row, or the same one twice if it has no second.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from siftline.types import Float64s, Ints

DIRECTIONS = ("high", "low", "missing", "other")
# A second reason that contributes less than this share of the first is none: it would scatter the groups.
_SECOND = 0.25
_STRIDE = 1 << 31


@dataclass(frozen=True)
class RowReasons:
    """Reasons of rows, flat, and the places of the one or two strongest of each row, of shape (n, 2)."""

    flat: pa.StructArray
    codes: Ints
    strongest: Ints

    @property
    def groups(self) -> Ints:
        """Group of each row."""
        low, high = np.sort(self.codes[self.strongest]).T
        groups: Ints = low * _STRIDE + high
        return groups

    def of(self, rows: Ints) -> RowReasons:
        """Return the reasons of some rows."""
        return replace(self, strongest=self.strongest[rows])


@dataclass(frozen=True)
class Census:
    """Groups in ascending order: their rows, and the highest score with its row, the first of equal ones."""

    groups: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    rows: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    scores: Float64s = field(default_factory=lambda: np.empty(0))
    worst: Ints = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def plus(self, other: Census) -> Census:
        """Return the census of both."""
        return _condensed(
            np.concatenate([self.groups, other.groups]),
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.scores, other.scores]),
            np.concatenate([self.worst, other.worst]),
        )

    def largest(self, least: int, most: int) -> Census:
        """Return at most `most` groups of at least `least` rows, the largest first."""
        order = np.lexsort((self.groups, -self.rows))
        chosen = order[self.rows[order] >= least][:most]
        return Census(self.groups[chosen], self.rows[chosen], self.scores[chosen], self.worst[chosen])


def row_reasons(column: pa.ChunkedArray, features: pa.Array) -> RowReasons:
    """Return the reasons of rows as codes; every row has at least one."""
    flat = pa.concat_arrays([part.flatten() for part in column.chunks])
    lengths = np.asarray(pc.list_value_length(column))
    codes = 4 * _places(flat.field("feature"), features)
    codes += _places(flat.field("direction"), pa.array(DIRECTIONS))
    first = np.cumsum(lengths) - lengths
    following = first + (lengths > 1)
    contributions = np.asarray(flat.field("contribution"))
    second = np.where(contributions[following] >= _SECOND * contributions[first], following, first)
    return RowReasons(flat, codes, np.column_stack([first, second]))


def count_groups(groups: Ints, scores: Float64s, first_row: int) -> Census:
    """Count the groups of consecutive rows, at least one, all of shape (n,)."""
    rows = np.arange(first_row, first_row + len(groups))
    return _condensed(groups, np.ones(len(groups), dtype=np.int64), scores, rows)


def _places(values: pa.Array, known: pa.Array) -> Ints:
    return np.asarray(pc.index_in(values, value_set=known)).astype(np.int64)


def _condensed(groups: Ints, rows: Ints, scores: Float64s, places: Ints) -> Census:
    order = np.lexsort((places, -scores, groups))
    groups = groups[order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    best = order[starts]
    return Census(groups[starts], np.add.reduceat(rows[order], starts), scores[best], places[best])
