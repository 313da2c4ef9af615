"""Siftline sifts large tabular batches for anomalies.

The pipeline on Prefect is `siftline.flows.batch_detection`; `score` runs it with one call.
"""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m siftline`: files of the working directory come last, before anything else is imported.
    sys.path.append(sys.path.pop(0))

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
