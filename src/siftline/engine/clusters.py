"""Clusters: started in the background or connected to, and closed with everything they opened."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from siftline.addresses import without_password
from siftline.config.clusters import (
    AddressCluster,
    Cluster,
    FactoryCluster,
    LocalCluster,
    SerialCluster,
    WorkerRange,
    asked_memory,
    asked_workers,
    bounds,
)
from siftline.config.resources import ResourcesConfig
from siftline.engine.base import Executor
from siftline.engine.dask import DaskExecutor
from siftline.engine.serial import SerialExecutor
from siftline.engine.workers import ENVIRONMENT, START_METHOD, prepare_workers, quieten_dask
from siftline.errors import ClusterError
from siftline.imports import import_own
from siftline.machine import this_machine
from siftline.progress import Incident, emit
from siftline.signals import hold_signals

# Dask would give a chunk that kills its worker to three healthy workers in turn.
FAIL_AT_ONCE = {"distributed.scheduler.allowed-failures": 0}
# Dask would close the nanny of a worker that is down 15 s after a loss, as after a second loss. The nanny
# revives it, however often.
_KEEP_WORKERS = {"distributed.deploy.lost-worker-timeout": "1000 days"}


def prepare_executor(cluster: Cluster) -> None:
    """Start slow imports before the executor opens."""
    if isinstance(cluster, LocalCluster):
        prepare_workers()


@contextmanager
def open_executor(
    cluster: Cluster,
    warm_up: Callable[[], None] | None = None,
    dashboard_after_seconds: float = 30.0,
    slots: int | None = None,
    permit: Callable[[int], int] = lambda workers: workers,
) -> Iterator[Executor]:
    """Open the executor of a configuration, and close it with everything it started.

    `slots` bounds the chunks at once on a scheduler that jobs share. `permit` is asked before the number of
    workers changes, and returns the number allowed.

    A cluster of ours starts in the background. A scheduler's address is tried at once, so that a wrong one
    raises a ClusterError before any work. `warm_up` runs on every worker as soon as it is up, for imports. A
    local cluster gets its dashboard late, because importing it takes longer than a small job.
    """
    if isinstance(cluster, SerialCluster):
        yield SerialExecutor()
        return
    quieten_dask()
    if isinstance(cluster, AddressCluster):
        with _connected(cluster, warm_up) as client:
            yield DaskExecutor(lambda: client, slots=slots)
        return
    unwanted = threading.Event()
    # Workers must outlive a Ctrl-C by as long as it takes to close them in order.
    thread = ThreadPoolExecutor(1, "siftline-cluster", initializer=hold_signals)
    starting = thread.submit(_start, cluster, warm_up, dashboard_after_seconds, unwanted)
    sized = _Sized(lambda: starting.result()[0], permit)
    threads = (cluster.threads or 1) if isinstance(cluster, LocalCluster) else 1
    try:
        yield DaskExecutor(
            lambda: starting.result()[0], bounds(_workers(cluster)), threads, resize=sized.resize
        )
    finally:
        unwanted.set()
        thread.shutdown(wait=True)
        if starting.exception() is None:
            starting.result()[1].close()


def _start(
    config: LocalCluster | FactoryCluster,
    warm_up: Callable[[], None] | None,
    dashboard_after_seconds: float,
    unwanted: threading.Event,
) -> tuple[Any, ExitStack]:
    """Start a cluster; return its client, and the stack that closes both."""
    from distributed import Client

    with ExitStack() as stack:
        if isinstance(config, LocalCluster):
            timeout, cluster = 60.0, _start_local(config)
            stack.callback(cluster.close)
            timer = threading.Timer(dashboard_after_seconds, _add_dashboard, [cluster])
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
        else:
            timeout, cluster = config.timeout_seconds, _start_factory(config)
            stack.callback(cluster.close)
        client = Client(cluster, set_as_default=False)
        stack.callback(client.close)
        _ready(client, timeout, "the Dask cluster", warm_up, unwanted)
        return client, stack.pop_all()


def _workers(cluster: LocalCluster | FactoryCluster) -> int | WorkerRange:
    return asked_workers(cluster, ResourcesConfig()) or this_machine().cores


@dataclass
class _Sized:
    """Changes the number of workers of a cluster of ours."""

    connected: Callable[[], Any]
    permit: Callable[[int], int]

    def resize(self, workers: int) -> int:
        """Scale to more workers as far as it is permitted, or to fewer as far as some are idle."""
        client = self.connected()
        present = client.nthreads()
        # Workers that are still starting count, too.
        planned = max(len(present), len(getattr(client.cluster, "worker_spec", ())))
        if workers >= planned:
            allowed = max(planned, self.permit(workers))
            client.cluster.scale(allowed)
            return allowed
        leaving = _idle(client, present)[: planned - workers]
        if leaving:
            _retire(client, leaving, planned - len(leaving))
            self.permit(planned - len(leaving))
        return planned - len(leaving)


def _idle(client: Any, threads: dict[str, int]) -> list[str]:
    """Return the idle workers; none while a chunk waits at a busy one, because it may move any moment."""
    processing = client.processing()
    chunks = {worker: len(processing.get(worker, ())) for worker in threads}
    if any(chunks[worker] > threads[worker] for worker in threads):
        return []
    return [worker for worker in threads if not chunks[worker]]


def _retire(client: Any, leaving: list[str], left: int) -> None:
    """Close idle workers of a cluster of ours."""
    if not hasattr(client.cluster, "scale_down"):
        client.cluster.scale(left)
        return
    known = client.scheduler_info(n_workers=-1)["workers"]
    names = [known[worker]["name"] for worker in leaving if worker in known]
    client.cluster.sync(client.cluster.scale_down, names)


def _start_local(config: LocalCluster) -> Any:
    import dask.config
    from distributed import LocalCluster as DaskLocalCluster

    # For workers that come later, too.
    spawning = {"worker.multiprocessing-method": START_METHOD, "nanny.pre-spawn-environ": ENVIRONMENT}
    dask.config.set({f"distributed.{name}": value for name, value in spawning.items()} | _KEEP_WORKERS)
    try:
        with dask.config.set(FAIL_AT_ONCE):
            return DaskLocalCluster(
                n_workers=bounds(_workers(config))[0],
                threads_per_worker=config.threads or 1,
                memory_limit=config.memory_limit or "auto",
                processes=True,
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},  # it is added later
            )
    except (RuntimeError, OSError) as error:
        problem = f"the local Dask cluster does not start: {' '.join(str(error.__cause__ or error).split())}"
        raise ClusterError(problem, "check the memory and the disk of this machine") from error


def _add_dashboard(cluster: Any) -> None:
    """Add the dashboard's pages to a local cluster."""
    from distributed.dashboard.scheduler import connect

    scheduler = cluster.scheduler
    pages = (scheduler.http_application, scheduler.http_server, scheduler)
    with suppress(RuntimeError):  # it is closed already
        cluster.loop.add_callback(connect, *pages, prefix="/")


def _start_factory(config: FactoryCluster) -> Any:
    import dask.config

    factory = _factory(config.factory)
    started = None
    try:
        with dask.config.set(FAIL_AT_ONCE):
            started = factory(**config.kwargs.reveal())
        started.scale(bounds(_workers(config))[0])
    except Exception as error:  # whatever a foreign class raises
        if started is not None:
            started.close()
        problem = f"cluster.factory {config.factory}: {type(error).__name__}: {error}"
        raise ClusterError(problem, "correct cluster.kwargs") from error
    return started


def _factory(path: str) -> Any:
    from distributed.deploy.cluster import Cluster as DaskCluster

    module, _, name = path.replace(":", ".").rpartition(".")
    try:
        factory = import_own(f"{module}:{name}")
    except (ImportError, AttributeError) as error:
        raise ClusterError(f"cluster.factory {path}: {error}", "install it, or correct the path") from error
    if not (isinstance(factory, type) and issubclass(factory, DaskCluster)):
        problem = f"cluster.factory {path}: not a Dask cluster class"
        raise ClusterError(problem, "give one, such as dask_jobqueue.SLURMCluster")
    return factory


@contextmanager
def _connected(config: AddressCluster, warm_up: Callable[[], None] | None) -> Iterator[Any]:
    """Connect a client to a running scheduler."""
    from distributed import Client, Security

    tls, address = config.tls, without_password(config.address)
    security = tls and Security(
        require_encryption=True, tls_ca_file=tls.ca, tls_client_cert=tls.cert, tls_client_key=tls.key
    )
    started = time.monotonic()
    try:
        client = Client(
            config.address, timeout=config.timeout_seconds, security=security, set_as_default=False
        )
    except (OSError, TimeoutError, ValueError) as error:
        reason = str(error).replace(config.address, address)
        problem = f"cluster.address {address}: no scheduler answers there ({reason})"
        raise ClusterError(problem, "start one with `dask scheduler`, or correct the address") from error
    with closing(client):
        left = max(1.0, config.timeout_seconds - (time.monotonic() - started))
        _ready(client, left, f"the scheduler at {address}", warm_up, threading.Event())
        _compare_memory(client, config)
        yield client


def _compare_memory(client: Any, config: AddressCluster) -> None:
    """Warn if workers have less memory than chunks are sized for."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    least = min((worker["memory_limit"] for worker in workers if worker["memory_limit"]), default=None)
    wanted = asked_memory(config, ResourcesConfig())
    if least is not None and wanted is not None and least < wanted:
        emit(
            Incident(
                "less memory",
                f"a worker at {without_password(config.address)} has {least >> 20:,} MiB, and "
                f"cluster.memory_limit says {wanted >> 20:,} MiB: set it to what the workers have",
            )
        )


def _ready(
    client: Any, timeout: float, name: str, warm_up: Callable[[], None] | None, unwanted: threading.Event
) -> None:
    """Wait for a first worker, until the cluster is unwanted or the time is up; warm up all there are."""
    from distributed import fire_and_forget

    give_up = time.monotonic() + timeout
    while True:
        left = give_up - time.monotonic()
        try:
            client.wait_for_workers(1, timeout=min(1.0, max(left, 0.1)))  # 0 would be for ever
            break
        except TimeoutError as error:
            if unwanted.is_set() or time.monotonic() >= give_up:
                problem = f"{name} has no worker after {timeout:.0f} s"
                raise ClusterError(problem, "start workers, then run again") from error
    if warm_up is not None:
        for worker in client.nthreads():
            fire_and_forget(client.submit(warm_up, workers=[worker], key=f"warm-up-{secrets.token_hex(4)}"))
