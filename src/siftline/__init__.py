"""Siftline sifts large tabular batches for anomalies.

The pipeline on Prefect is `siftline.flows.batch_detection`; `score` runs it with one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from siftline.config.batch import BatchConfig
from siftline.config.loading import load_config
from siftline.errors import SiftlineError
from siftline.jobs.results import Results, open_results
from siftline.types import BatchResult

if TYPE_CHECKING:
    from siftline.flows.score import score

__all__ = ["BatchConfig", "BatchResult", "Results", "SiftlineError", "load_config", "open_results", "score"]


def __getattr__(name: str) -> Any:
    """Import `score` on its first use: Prefect takes two seconds."""
    if name == "score":
        from siftline.flows.score import score

        return score
    raise AttributeError(f"module 'siftline' has no attribute {name!r}")
