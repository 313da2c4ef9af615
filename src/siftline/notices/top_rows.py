"""A result in words: its largest groups, and its most anomalous rows with their reasons."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

from siftline.config.template_variables import TopRow
from siftline.errors import SiftlineError
from siftline.jobs.results import Results, open_results
from siftline.jobs.texts import cell, reason_text, table_rows
from siftline.shown import shown
from siftline.types import BatchResult

T = TypeVar("T")


def top_rows(results: Results, count: int) -> tuple[TopRow, ...]:
    """Return the `count` most anomalous rows with their reasons, highest score first."""
    top = results.top(count)
    others = {*results.manifest.features, "score", "rank", "reasons"}
    carried = [name for name in top.column_names if name not in others]
    return tuple(
        TopRow(
            rank=row["rank"],
            score=row["score"],
            identity={shown(name): cell(row[name]) for name in carried},
            reasons=tuple(reason_text(reason) for reason in row["reasons"] or ()),
        )
        for row in table_rows(top)
    )


def group_sentences(results: Results, count: int) -> tuple[str, ...]:
    """Return the `count` largest groups of anomalies in words; none if they are not known."""
    findings = results.findings
    return tuple(group.sentence for group in findings.groups[:count]) if findings is not None else ()


def top_of(result: BatchResult, count: int) -> tuple[TopRow, ...]:
    """Return the top rows of a run's result; none if it is unreadable or was replaced by another job."""
    return _of(result, lambda results: top_rows(results, count))


def groups_of(result: BatchResult, count: int) -> tuple[str, ...]:
    """Return the largest groups of a run's result in words; none if it is unreadable or was replaced."""
    return _of(result, lambda results: group_sentences(results, count))


def cautions_of(result: BatchResult) -> tuple[str, ...]:
    """Return the cautions of a run's result; none if it is unreadable or was replaced."""
    return _of(result, lambda results: results.manifest.cautions)


def _of(result: BatchResult, find: Callable[[Results], tuple[T, ...]]) -> tuple[T, ...]:
    try:
        results = open_results(result.output)
        return find(results) if results.manifest.job_id == result.job_id else ()
    except (SiftlineError, OSError, pa.ArrowException):
        return ()
