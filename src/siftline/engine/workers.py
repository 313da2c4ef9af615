"""How worker processes of a local cluster come to life: forked from one that has the imports behind it.

Importing scikit-learn, skops and Dask costs seconds of CPU in every process. A fork server, which Python
has for this, imports them once, while the coordinator looks at the input; each worker is a fork of it.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver

from siftline.signals import signals_held

# One compute thread a slot. And Dask would have workers give memory back after every free, which costs a
# page fault for every temporary array: here arrays up to 32 MiB come from the heap, and 128 MiB of it stay.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 27),
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

# Imported by the fork server: everything that workers need.
PRELOAD = "siftline.stages.worker_imports"
# Elsewhere forking a process that has such libraries is not safe.
START_METHOD = "forkserver" if sys.platform == "linux" else "spawn"


def prepare_workers() -> None:
    """Start importing what workers need, in the background; a second call does nothing."""
    if START_METHOD == "forkserver":
        multiprocessing.set_forkserver_preload([PRELOAD])
        with _environment(ENVIRONMENT), signals_held():
            forkserver.ensure_running()


def preload_dask() -> None:
    """Import what Dask runs a worker with, in the process that workers are forked from."""
    import distributed.nanny
    import distributed.worker  # noqa: F401


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
