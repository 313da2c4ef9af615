"""Clusters: started in the background or connected to, and closed with everything they opened."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from siftline.config.clusters import (
    AddressCluster,
    Cluster,
    FactoryCluster,
    LocalCluster,
    SerialCluster,
    asked_memory,
    asked_workers,
    bounds,
)
from siftline.config.resources import ResourcesConfig
from siftline.engine.base import Executor
from siftline.engine.dask import DaskExecutor
from siftline.engine.dask_workers import WARM_UP, ask, workers_of
from siftline.engine.forked import ForkedExecutor
from siftline.engine.local_cluster import SCHEDULING, local_cluster
from siftline.engine.serial import SerialExecutor
from siftline.engine.sizing import Sized
from siftline.engine.workers import prepare_workers, quieten_dask
from siftline.errors import ClusterError
from siftline.progress import NOT_CLOSED, Incident, emit
from siftline.shown import log_line
from siftline.system.addresses import without_password
from siftline.system.imports import import_own
from siftline.system.machine import this_machine
from siftline.system.signals import hold_signals

# Of a table of twenty columns and as many thousand rows, which is scored before a cluster starts.
_SMALL_BYTES = 4 << 20
_POLL_SECONDS = 0.1
_CLOSE_SECONDS = 15.0
_LOCAL_SECONDS = 60.0
# For the other workers, after the first.
_OTHERS_SECONDS = 5.0


def prepare_executor(cluster: Cluster, source: str | None = None) -> None:
    """Start slow imports before the executor opens; fewer if one process scores the source at once."""
    if isinstance(cluster, LocalCluster):
        prepare_workers(cluster=source is None or not _is_small(source))


def _is_small(source: str) -> bool:
    path = Path(source)
    try:
        return path.is_file() and path.stat().st_size < _SMALL_BYTES
    except (OSError, ValueError):  # which the plan of the job will name
        return False


@contextmanager
def open_executor(
    cluster: Cluster,
    warm_up: Callable[[], None] | None = None,
    dashboard_after_seconds: float = 30.0,
    slots: int | None = None,
    permit: Callable[[int], int] = lambda workers: workers,
    forked: bool = False,
) -> Iterator[Executor]:
    """Open the executor of a configuration, and close it with everything it started.

    `slots` bounds the chunks at once on a scheduler that jobs share. `permit` is asked before the number of
    workers changes, and returns the number allowed. `forked` has one process do the work of a local cluster.

    A cluster of ours starts in the background. A scheduler's address is tried at once, so that a wrong one
    raises a ClusterError before any work. `warm_up` runs on every worker as soon as it is up, for imports. A
    local cluster gets its dashboard late, because importing it takes longer than a small job.
    """
    if isinstance(cluster, SerialCluster):
        yield SerialExecutor()
        return
    if isinstance(cluster, LocalCluster) and forked:
        memory = asked_memory(cluster, ResourcesConfig())
        with closing(ForkedExecutor(memory, warm_up)) as executor:
            yield executor
        return
    quieten_dask()
    if isinstance(cluster, AddressCluster):
        with _connected(cluster, warm_up) as client:
            yield DaskExecutor(lambda: client, slots=slots)
        return
    workers = bounds(asked_workers(cluster, ResourcesConfig()) or this_machine().cores)
    start = _Start(cluster, workers[0], warm_up, dashboard_after_seconds)
    threads = (cluster.threads or 1) if isinstance(cluster, LocalCluster) else 1
    resize = Sized(start.client, permit).resize
    try:
        yield DaskExecutor(start.client, workers, threads, None, resize, start.over)
    finally:
        start.close()


class _Start:
    """The start of a cluster of ours in a thread, which also closes it."""

    def __init__(
        self,
        config: LocalCluster | FactoryCluster,
        workers: int,
        warm_up: Callable[[], None] | None,
        dashboard_after_seconds: float,
    ) -> None:
        self._config = config
        self._workers = workers
        self._warm_up = warm_up
        self._dashboard_after_seconds = dashboard_after_seconds
        self._seconds = config.timeout_seconds if isinstance(config, FactoryCluster) else _LOCAL_SECONDS
        self._client: Future[Any] = Future()
        self._not_closed: Exception | None = None
        self._unwanted = threading.Event()
        # A foreign class may never return, and must not keep this process.
        self._thread = threading.Thread(target=self._run, name="siftline-cluster", daemon=True)
        self._thread.start()

    def over(self) -> bool:
        """Return true once the client is there, or an error."""
        return self._client.done()

    def client(self) -> Any:
        """Return the client, after a wait, or raise what is wrong with the cluster."""
        try:
            return self._client.result(self._seconds + _CLOSE_SECONDS)
        except TimeoutError as error:
            problem = f"the Dask cluster has not started after {self._seconds:.0f} s"
            raise ClusterError(problem, "check the cluster, then run again") from error

    def close(self) -> None:
        """Close the cluster, or what there is of it."""
        self._unwanted.set()
        self._thread.join(3 * _CLOSE_SECONDS)  # client, cluster, and what it still starts
        if self._not_closed is not None:
            emit(
                Incident(NOT_CLOSED, f"the Dask cluster did not close in order: {log_line(self._not_closed)}")
            )

    def _run(self) -> None:
        # Workers must outlive a Ctrl-C by as long as it takes to close them in order.
        hold_signals()
        try:
            with self._cluster() as (cluster, check):
                client = _client_of(cluster)
                try:
                    name = "the Dask cluster"
                    _ready(client, self._workers, self._seconds, name, self._warm_up, self._unwanted, check)
                    self._client.set_result(client)
                    self._unwanted.wait()
                finally:
                    client.close(timeout=_CLOSE_SECONDS)
        except Exception as error:  # noqa: BLE001  foreign classes close, too
            if self._client.done():
                self._not_closed = error
            else:
                self._client.set_exception(error)  # for the thread that waits

    @contextmanager
    def _cluster(self) -> Iterator[tuple[Any, Callable[[], None]]]:
        """Start a cluster, and close it; yield it, and a check of its start."""
        if isinstance(self._config, LocalCluster):
            with local_cluster(self._config, self._workers, self._dashboard_after_seconds) as starting:
                yield starting.cluster, starting.check
            return
        cluster = _start_factory(self._config, self._workers)
        try:
            yield cluster, lambda: None
        finally:
            with suppress(TimeoutError):
                cluster.close(timeout=_CLOSE_SECONDS)


def _client_of(cluster: Any) -> Any:
    from distributed import Client
    from distributed import LocalCluster as DaskLocalCluster

    if not isinstance(cluster, DaskLocalCluster):
        return Client(cluster, set_as_default=False)
    # By its address, or the client would wait for all workers, for ever.
    client = Client(cluster.scheduler_address, set_as_default=False)
    client.cluster = cluster
    return client


def _start_factory(config: FactoryCluster, workers: int) -> Any:
    import dask.config

    factory = _factory(config.factory)
    started = None
    try:
        with dask.config.set(SCHEDULING):
            started = factory(**config.kwargs.reveal())
        started.scale(workers)
    except Exception as error:  # whatever a foreign class raises
        if started is not None:
            with suppress(TimeoutError):
                started.close(timeout=_CLOSE_SECONDS)
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
        _ready(client, 1, left, f"the scheduler at {address}", warm_up, threading.Event())
        _compare_memory(client, config)
        yield client


def _compare_memory(client: Any, config: AddressCluster) -> None:
    """Warn if workers have less memory than chunks are sized for."""
    workers = workers_of(client).values()
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
    client: Any,
    workers: int,
    timeout: float,
    name: str,
    warm_up: Callable[[], None] | None,
    unwanted: threading.Event,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Wait for a first worker, and a little for the others; warm up all there are.

    Raises a ClusterError when the time is up, or the cluster is unwanted.
    """
    from distributed import fire_and_forget

    from siftline.engine.nannies import check_ends, ends_of

    started = time.monotonic()
    others: float | None = None
    while True:
        present, now = ask(client, client.scheduler.ncores), time.monotonic()
        if present:
            others = others or now + _OTHERS_SECONDS
            if len(present) >= workers or now > others:
                break
        else:
            check()
            check_ends(client.cluster, ends_of(client.cluster))
        if unwanted.wait(_POLL_SECONDS) or (others is None and now > started + timeout):
            raise ClusterError(f"{name} has no worker after {timeout:.0f} s", "start workers, then run again")
    if warm_up is not None:
        for worker in present:
            key = f"{WARM_UP}{secrets.token_hex(4)}"
            fire_and_forget(client.submit(warm_up, workers=[worker], key=key))
