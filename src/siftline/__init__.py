"""Siftline sifts large tabular batches for anomalies.

The library is plain Python. The pipeline that runs it on Prefect is `siftline.flows.batch_detection`.
"""

from __future__ import annotations

from siftline.config.batch import BatchConfig
from siftline.config.loading import load_config
from siftline.errors import SiftlineError
from siftline.jobs.results import Results, open_results
from siftline.types import BatchResult

__all__ = ["BatchConfig", "BatchResult", "Results", "SiftlineError", "load_config", "open_results"]
