"""Local cluster: it starts with the workers that come up, and always ends."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from siftline.config.clusters import LocalCluster
from siftline.engine.workers import ENVIRONMENT, START_METHOD, prepare_workers
from siftline.errors import ClusterError

# Dask would give a chunk that kills its worker to three healthy workers in turn, and miss a frozen worker
# for five minutes.
SCHEDULING = {"distributed.scheduler.allowed-failures": 0, "distributed.scheduler.worker-ttl": "60 s"}
# Dask would close the nanny of a worker that is down 15 s after a loss, as after a second loss. The nanny
# revives it, however often.
_KEEP_WORKERS = {"distributed.deploy.lost-worker-timeout": "1000 days"}
_CLOSE_SECONDS = 10.0
# Dask's name for the process of a worker.
_WORKER = "Dask Worker process"


@dataclass(frozen=True)
class StartingCluster:
    """A cluster, and the start of its first workers."""

    cluster: Any
    workers: Future[None]

    def check(self) -> None:
        """Raise if the start of workers has failed."""
        if self.workers.done() and (error := self.workers.exception()) is not None:
            raise _not_started(error)


@contextmanager
def local_cluster(
    config: LocalCluster, workers: int, dashboard_after_seconds: float
) -> Iterator[StartingCluster]:
    """Start a cluster here, and its workers in the background; end all of them."""
    prepare_workers()
    before = multiprocessing.active_children()
    starting = _start(config, workers)
    timer = threading.Timer(dashboard_after_seconds, _add_dashboard, [starting.cluster])
    timer.daemon = True
    timer.start()
    try:
        yield starting
    finally:
        timer.cancel()
        _end(starting.cluster, before)


def _start(config: LocalCluster, workers: int) -> StartingCluster:
    import dask.config
    from distributed import LocalCluster as DaskLocalCluster

    from siftline.engine.nannies import CountingNanny

    # For workers that come later, too.
    spawning = {"worker.multiprocessing-method": START_METHOD, "nanny.pre-spawn-environ": ENVIRONMENT}
    dask.config.set({f"distributed.{name}": value for name, value in spawning.items()} | _KEEP_WORKERS)
    try:
        with dask.config.set(SCHEDULING):
            cluster: Any = DaskLocalCluster(
                n_workers=0,  # it would wait for all of them, for ever
                threads_per_worker=config.threads or 1,
                memory_limit=config.memory_limit or "auto",
                processes=True,
                worker_class=CountingNanny,
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},  # it is added later
            )
    except (RuntimeError, OSError) as error:
        raise _not_started(error) from error

    async def start_workers() -> None:
        # As `Cluster.scale` does, which would log an error instead of raising it.
        while len(cluster.worker_spec) < workers:
            cluster.worker_spec.update(cluster.new_worker_spec())
        await cluster._correct_state()

    return StartingCluster(
        cluster, asyncio.run_coroutine_threadsafe(start_workers(), cluster.loop.asyncio_loop)
    )


def _not_started(error: BaseException) -> ClusterError:
    problem = f"the local Dask cluster does not start: {' '.join(str(error.__cause__ or error).split())}"
    return ClusterError(problem, "check the memory and the disk of this machine")


def _add_dashboard(cluster: Any) -> None:
    """Add the dashboard's pages to a local cluster."""
    from distributed.dashboard.scheduler import connect

    scheduler = cluster.scheduler
    pages = (scheduler.http_application, scheduler.http_server, scheduler)
    with suppress(RuntimeError):  # it is closed already
        cluster.loop.add_callback(connect, *pages, prefix="/")


def _end(cluster: Any, before: Collection[BaseProcess]) -> None:
    """Close a cluster in order for some seconds; kill workers started since that are left."""
    for nanny in list(cluster._created):  # those that start are nowhere else
        if nanny.status.name == "running":
            nanny.close_gracefully()  # it revives no worker any more
        if nanny.worker_address is None and nanny.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(nanny.pid, signal.SIGKILL)  # Dask would wait until it is up
    try:
        with suppress(TimeoutError):
            cluster.close(timeout=_CLOSE_SECONDS)
    finally:
        for process in multiprocessing.active_children():
            # They do not heed the signal by which Python would end them, and it would wait for ever.
            if process not in before and process.name.startswith(_WORKER):
                process.kill()
