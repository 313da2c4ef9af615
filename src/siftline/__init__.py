"""Siftline sifts large tabular batches for anomalies.

The library is plain Python. The pipeline that runs it on Prefect is `flows.batch_detection`.
"""

from __future__ import annotations

from siftline.config import BatchConfig
from siftline.errors import SiftlineError
from siftline.loading import load_config
from siftline.results import Results, open_results
from siftline.types import BatchResult

__all__ = ["BatchConfig", "BatchResult", "Results", "SiftlineError", "load_config", "open_results"]
