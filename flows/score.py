"""Scoring of a data frame or a file with one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from siftline.flows.batch_detection import batch_detection
from siftline.flows.run.calls import call_flow
from siftline.jobs.results import Results, open_results
from siftline.system.imports import children_import_safely


def score(
    source: Any,
    *,
    key: Sequence[str] = (),
    features: Sequence[str] | None = None,
    output: Path | str = "results/frame",
    **sections: Any,
) -> Results:
    """Find the anomalies of a data frame or a file, and return the published result.

    Parameters
    ----------
    source : data frame or path
        A frame of pandas, Polars, DuckDB or pyarrow (anything with ``__arrow_c_stream__``); or a file, a
        directory or a glob.
    key : sequence of str
        Columns that identify a row. Default: ``row``, its position.
    features : sequence of str, optional
        Columns to score. Default: all numeric columns except the key.
    output : path
        Directory of the result, whose last part is the name of the batch.
    **sections
        Other sections of the configuration, such as ``threshold={"contamination": 0.001}``. By default this
        process scores; ``cluster={"kind": "local"}`` starts workers.

    Raises
    ------
    SiftlineError
        When the job fails.
    """
    path = Path(output)
    values = {
        "name": path.name,
        "source": {
            "path": str(source) if isinstance(source, Path) else source,
            "key": key,
            "features": features,
        },
        "output": {"path": str(path)},
        "cluster": {"kind": "serial"},
    }
    with children_import_safely():  # an embedded server among them
        call_flow(batch_detection, values | sections)
    return open_results(path)
