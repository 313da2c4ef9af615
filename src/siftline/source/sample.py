"""The training sample: seeded, spread over the whole input, independent of the chunks.

Two-stage sampling: row groups are drawn from equal strata of the input, then rows from within them, so
that of a billion rows only some row groups are read.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from siftline.batch_plan import Piece, SourceFile
from siftline.source.reading import joined, read_pieces, take_rows

# Enough places to cover drift over time, and enough rows that no row group dominates.
_MIN_GROUPS = 8
_READ_PER_SAMPLED = 4
# Columns of a row group that are read at once, at least; cells, otherwise.
_COLUMNS_AT_ONCE = 32
_CELLS_AT_ONCE = 1 << 22


def draw_sample(
    files: Sequence[SourceFile],
    row_groups: Sequence[tuple[int, int, int]],
    columns: Sequence[str],
    rows: int,
    seed: int,
) -> pa.Table:
    """Draw the training sample: `rows` rows in source order; a smaller input is used whole.

    `row_groups` has (file, row group, rows) of every row group, in source order.
    """
    total = sum(size for _, _, size in row_groups)
    generator = np.random.default_rng(seed)
    drawn = row_groups if total <= rows else _draw_groups(row_groups, rows, generator)
    sizes = [size for _, _, size in drawn]
    pieces = [Piece(file, group, 0, size) for file, group, size in drawn]
    positions = None
    if total > rows:
        positions = np.sort(generator.choice(sum(sizes), size=min(rows, sum(sizes)), replace=False))
    parts = []
    # By runs of columns: of a wide input, not even one row group may fit into memory.
    width = max(_COLUMNS_AT_ONCE, _CELLS_AT_ONCE // max(1, *sizes))
    for start in range(0, len(columns), width):
        run = list(columns[start : start + width])
        batches = read_pieces(files, pieces, run)
        part = joined(batches) if positions is None else take_rows(batches, positions)
        parts += [part[name] for name in run]
    return pa.table(parts, list(columns))


def _draw_groups(
    row_groups: Sequence[tuple[int, int, int]], rows: int, generator: np.random.Generator
) -> list[tuple[int, int, int]]:
    """Draw row groups stratum by stratum, until rows and places suffice."""
    drawn: list[int] = []
    held = 0
    for group in _stratified_order(len(row_groups), generator):
        if held >= _READ_PER_SAMPLED * rows and len(drawn) >= _MIN_GROUPS:
            break
        drawn.append(group)
        held += row_groups[group][2]
    return [row_groups[group] for group in sorted(drawn)]


def _stratified_order(count: int, generator: np.random.Generator) -> list[int]:
    """Order ``range(count)`` so that every prefix is spread over the whole.

    It is a randomly shifted van der Corput sequence: each group falls into the largest remaining gap.
    """
    bits = max(count - 1, 1).bit_length()
    reversed_bits = [int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits)]
    shift = int(generator.integers(count))
    return [(i + shift) % count for i in reversed_bits if i < count]
