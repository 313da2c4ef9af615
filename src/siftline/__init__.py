"""Siftline sifts large tabular batches for anomalies.

The pipeline on Prefect is `siftline.flows.batch_detection`; `score` runs it with one call.
"""

import sys

if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # `python -m siftline`: files of the working directory come last, before anything else is imported.
    sys.path.append(sys.path.pop(0))

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from siftline.config.batch import BatchConfig
    from siftline.config.loading import load_config
    from siftline.errors import SiftlineError
    from siftline.flows.score import score
    from siftline.jobs.results import Results, open_results
    from siftline.types import BatchResult

__all__ = ["BatchConfig", "BatchResult", "Results", "SiftlineError", "load_config", "open_results", "score"]

_PLACES = {
    "BatchConfig": "config.batch",
    "BatchResult": "types",
    "Results": "jobs.results",
    "SiftlineError": "errors",
    "load_config": "config.loading",
    "open_results": "jobs.results",
    "score": "flows.score",
}


def __getattr__(name: str) -> Any:
    """Import a name on its first use: pyarrow takes a quarter of a second, Prefect two."""
    if name not in _PLACES:
        raise AttributeError(f"module 'siftline' has no attribute {name!r}")
    return getattr(import_module(f"siftline.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
