"""Values of carried columns that a group has more often than the source."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pyarrow as pa

from siftline.jobs.findings import Overrepresented
from siftline.shown import shown
from siftline.stages.findings.columns import most_frequent, texts
from siftline.stages.findings.sample import Sampled

_MOST = 2
_TRIED = 3
_MIN_ROWS = 5
_MIN_SHARE = 0.2
_MIN_LIFT = 1.5
# By Chernoff's bound chance does this once in exp(12), 160,000 times; some hundred values are tried.
_EVIDENCE = 12.0


def overrepresented(rows: pa.Table, columns: Sequence[str], sampled: Sampled) -> tuple[Overrepresented, ...]:
    """Return the one or two most telling values of a group's rows, each of another column."""
    found = [best for name in columns if name in sampled.values for best in _best(rows, name, sampled)]
    found.sort(key=lambda one: -one[0])
    return tuple(value for _, value in found[:_MOST])


def _best(rows: pa.Table, name: str, sampled: Sampled) -> Iterator[tuple[float, Overrepresented]]:
    for value, count in most_frequent(texts(rows[name]), _TRIED):
        share, usual = count / rows.num_rows, sampled.values[name].at_most(value) / sampled.rows
        if count < _MIN_ROWS or share < max(_MIN_SHARE, _MIN_LIFT * usual):
            continue
        evidence = rows.num_rows * _divergence(share, usual)
        if evidence >= _EVIDENCE:
            lift = share / usual
            yield evidence, Overrepresented(column=shown(name), value=shown(value), share=share, lift=lift)
            return


def _divergence(share: float, usual: float) -> float:
    """Return the Kullback-Leibler divergence of two shares; the first is the larger one."""
    rest = (1 - share) * math.log((1 - share) / (1 - usual)) if share < 1 else 0.0
    return share * math.log(share / usual) + rest
