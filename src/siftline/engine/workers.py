"""Worker processes of a local cluster: forked from a process that has finished the imports.

Importing scikit-learn, skops and Dask costs seconds of CPU in every process. Python's fork server imports
them once, while the coordinator reads the input's metadata.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing import forkserver

from siftline.system.imports import children_import_safely, environment
from siftline.system.owner import OWNER
from siftline.system.signals import signals_held

# Dask would have workers return memory after every free, at the cost of a page fault for each temporary
# array: here arrays up to 32 MiB come from the heap, and 128 MiB of it stay. One compute thread per slot.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 27),
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

PRELOAD = ("siftline.stages.cluster_imports", "siftline.stages.worker_imports")
# Elsewhere forking a process with such libraries is not safe.
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"


def prepare_workers(cluster: bool = True) -> None:
    """Start importing what workers need, in the background; a second call does nothing.

    Without `cluster`, each worker of one imports the rest itself.
    """
    if START_METHOD == "forkserver":
        multiprocessing.set_forkserver_preload(list(PRELOAD if cluster else PRELOAD[1:]))
        values = {**ENVIRONMENT, OWNER: str(os.getpid())}
        with environment(values), children_import_safely(), signals_held():
            forkserver.ensure_running()


def quieten_dask() -> None:
    """Silence Dask's log of connections and lost workers, unless the user configured it."""
    import dask.config

    if "logging" not in dask.config.config:
        parts = ("client", "core", "nanny", "scheduler", "worker", "worker.state_machine")
        quiet = {f"distributed.{part}": "critical" for part in parts}
        dask.config.set({"logging": {"distributed": "warning", **quiet}})


def preload_dask() -> None:
    """Import Dask's worker code, in the process that workers are forked from."""
    quieten_dask()  # read when distributed is imported
    import distributed.nanny
    import distributed.worker  # noqa: F401
