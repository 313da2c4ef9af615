"""The most anomalous rows of a result, with their reasons in words."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from siftline.config.template_variables import TopRow
from siftline.errors import SiftlineError
from siftline.jobs.results import Results, open_results
from siftline.types import BatchResult


def top_rows(results: Results, count: int) -> tuple[TopRow, ...]:
    """Return the `count` most anomalous rows with their reasons, highest score first."""
    top = results.top(count)
    shown = {*results.manifest.features, "score", "rank", "reasons"}
    carried = [name for name in top.column_names if name not in shown]
    return tuple(
        TopRow(
            rank=row["rank"],
            score=row["score"],
            identity={name: row[name] for name in carried},
            reasons=tuple(_reason(reason) for reason in row["reasons"]),
        )
        for row in top.to_pylist()
    )


def top_of(result: BatchResult, count: int) -> tuple[TopRow, ...]:
    """Return the top rows of a run's result; none if it is unreadable or was replaced by another job."""
    try:
        results = open_results(result.output)
        return top_rows(results, count) if results.manifest.job_id == result.job_id else ()
    except (SiftlineError, OSError, pa.ArrowException):
        return ()


def _reason(reason: dict[str, Any]) -> str:
    how = f"typical {reason['typical']}"
    if reason["distance"] is not None:
        how += f", {reason['distance']:.1f} σ {'above' if reason['direction'] == 'high' else 'below'}"
    return f"{reason['feature']} {reason['value']} ({how})"
