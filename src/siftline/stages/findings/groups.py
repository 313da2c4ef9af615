"""Groups of anomalies with the same strongest reasons, the largest first.

All anomalies are counted. Medians and shares come from a part of them, evenly spread over the ranks, if
there are too many to hold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siftline.jobs.findings import FeatureFindings, Group
from siftline.stages.findings.census import DIRECTIONS, Census, count_groups, row_reasons
from siftline.stages.findings.columns import numbers, quantiles
from siftline.stages.findings.description import Compared, describe
from siftline.types import Ints

_MOST_GROUPS = 12
_MIN_SHARE = 0.01
# Of so few anomalies, one may be a group.
_FEW = 20
_MOST_FEATURES = 1_000
_HELD_ROWS = 1 << 15
_HELD_CELLS = 1 << 22
_COUNTED = (*(f"reasons.list.element.{name}" for name in ("feature", "direction", "contribution")), "score")


@dataclass(frozen=True)
class Grouped:
    """Groups, the number of anomalies beyond them, and the features among the anomalies."""

    groups: tuple[Group, ...]
    others: int
    features: tuple[FeatureFindings, ...]


def group_anomalies(path: Path, compared: Compared) -> Grouped:
    """Group the anomalies of a table, and describe the groups."""
    names = pa.array([feature.name for feature in compared.features])
    with pq.ParquetFile(path) as file:
        total = file.metadata.num_rows
        if not total:
            return Grouped((), 0, compared.sampled.features)
        step = -(-total // min(_HELD_ROWS, _HELD_CELLS // len(compared.columns)))
        if step == 1:
            table, places = file.read(list(compared.columns), use_threads=False), np.arange(total)
        census, explained = _count([(0, table)] if step == 1 else _row_groups(file, _COUNTED), names)
        least = 1 if total < _FEW else max(2, math.ceil(_MIN_SHARE * total))
        chosen = census.largest(least, _MOST_GROUPS)
        if step > 1:
            table, places = _hold(file, compared.columns, step, chosen.worst)
    reasons = row_reasons(table["reasons"], names)
    membership = reasons.groups
    shown = table.select([*compared.identity, "score", "rank"])
    groups = []
    for group, rows, worst in zip(chosen.groups, chosen.rows.tolist(), chosen.worst, strict=True):
        own = np.flatnonzero(membership == group)
        place = int(np.searchsorted(places[own], worst))
        held = shown.take(pa.array(own))
        groups.append(describe(held, reasons.of(own), place, rows, rows / total, compared))
    features = _among_anomalies(compared, table, explained)
    return Grouped(tuple(groups), total - int(chosen.rows.sum()), features)


def _count(tables: Iterable[tuple[int, pa.Table]], names: pa.Array) -> tuple[Census, Ints]:
    """Count the rows of every group, and those that have a feature among their reasons."""
    census = Census()
    explained = np.zeros(len(names), dtype=np.int64)
    for first, table in tables:
        reasons = row_reasons(table["reasons"], names)
        census = census.plus(count_groups(reasons.groups, table["score"].to_numpy(), first))
        explained += np.bincount(reasons.codes // len(DIRECTIONS), minlength=len(names))
    return census, explained


def _hold(file: pq.ParquetFile, columns: Sequence[str], step: int, worst: Ints) -> tuple[pa.Table, Ints]:
    """Return every n-th row and the worst ones, and their places."""
    tables, places = [], []
    for first, table in _row_groups(file, columns):
        rows = np.arange(first, first + table.num_rows)
        wanted = np.flatnonzero((rows % step == 0) | np.isin(rows, worst))
        tables.append(table.take(pa.array(wanted)))
        places.append(rows[wanted])
    return pa.concat_tables(tables), np.concatenate(places)


def _row_groups(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
    """Read row groups that have rows, with the place of their first."""
    first = 0
    for number in range(file.num_row_groups):
        table = file.read_row_group(number, columns=list(columns), use_threads=False)
        if table.num_rows:
            yield first, table
        first += table.num_rows


def _among_anomalies(compared: Compared, table: pa.Table, explained: Ints) -> tuple[FeatureFindings, ...]:
    """Add the anomalies to the features of the sample, if there is one; of very many, only to reasons."""
    found = []
    everything = len(compared.features) <= _MOST_FEATURES
    for one, feature, rows in zip(
        compared.sampled.features, compared.features, explained.tolist(), strict=False
    ):
        if not everything and not rows:
            continue
        middle: tuple[float, ...] = ()
        if feature.kind != "categorical":
            middle = quantiles(numbers(table, feature), (0.25, 0.5, 0.75))
        found.append(one.model_copy(update={"anomalies": middle, "reasons": rows}))
    return tuple(found)
