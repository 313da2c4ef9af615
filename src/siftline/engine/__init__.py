"""Execution: functions on items, in this process or on a Dask cluster, with retries.

Importing it is cheap: Dask is imported when a cluster opens.
"""

from siftline.engine.adapting import Adapting
from siftline.engine.base import Answer, Executor, Session
from siftline.engine.clusters import open_executor, prepare_executor
from siftline.engine.dask import DaskExecutor
from siftline.engine.forked import ForkedExecutor
from siftline.engine.local_cluster import SCHEDULING
from siftline.engine.retries import Settled, attempt_again, delay_after, run_one, run_with_retries
from siftline.engine.serial import SerialExecutor
from siftline.engine.workers import ENVIRONMENT, prepare_workers

__all__ = [
    "ENVIRONMENT",
    "SCHEDULING",
    "Adapting",
    "Answer",
    "DaskExecutor",
    "Executor",
    "ForkedExecutor",
    "SerialExecutor",
    "Session",
    "Settled",
    "attempt_again",
    "delay_after",
    "open_executor",
    "prepare_executor",
    "prepare_workers",
    "run_one",
    "run_with_retries",
]
