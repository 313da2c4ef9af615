"""Who runs the chunks: this process, or a Dask cluster. The only module that knows of Dask."""

from __future__ import annotations

import itertools
import queue
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar

from siftline.config import AddressCluster, Cluster, FactoryCluster, LocalCluster, SerialCluster
from siftline.errors import ClusterError, SiftlineError
from siftline.interrupts import hold_interrupts
from siftline.workers import ENVIRONMENT, START_METHOD, prepare_workers

T = TypeVar("T")
R = TypeVar("R")

_WINDOW_PER_SLOT = 8
_MIN_WINDOW = 32
_LOST_AFTER_SECONDS = 60.0
_POLL_SECONDS = 1.0
_AGAIN = "run the same command again: finished chunks are kept"


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """What became of one item: a value or a known error. An unknown error, a bug, is raised at once."""

    item: T
    value: R | None
    error: SiftlineError | None = None

    def result(self) -> R:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


class Executor(Protocol):
    """Runs a function on items, wherever that is."""

    @property
    def dashboard(self) -> str | None:
        """Address of the cluster's dashboard, if it has one."""

    def run(self, function: Callable[[T], R], items: Iterable[T], bundle: int = 1) -> Iterator[Outcome[T, R]]:
        """Run `function` on every item and give the outcomes in order of completion.

        Items are taken as there is room for them, so that any number of them costs the same memory.
        Closing the iterator gives up what has not been started.

        Parameters
        ----------
        function : callable
            Importable on the workers.
        items : iterable
            What to run it on; small, because they travel.
        bundle : int
            Items that travel together. Tiny ones should: each trip costs a few milliseconds.

        Raises
        ------
        ClusterError
            When the workers or the scheduler are lost.
        """


class SerialExecutor:
    """Runs items one after the other, here."""

    dashboard: str | None = None

    def run(self, function: Callable[[T], R], items: Iterable[T], bundle: int = 1) -> Iterator[Outcome[T, R]]:
        """Run `function` on every item, in order."""
        for item in items:
            yield Outcome(item, *_attempt(function, item))


def _attempt(function: Callable[[T], R], item: T) -> tuple[R | None, SiftlineError | None]:
    """Bring a known error back as a value: Dask would print the traceback of a raised one on the worker."""
    try:
        return function(item), None
    except SiftlineError as error:
        return None, error


def _attempt_all(
    items: tuple[T, ...], function: Callable[[T], R]
) -> list[tuple[R | None, SiftlineError | None]]:
    return [_attempt(function, item) for item in items]


class DaskExecutor:
    """Runs items on a Dask cluster, with a bounded number of them in flight.

    Parameters
    ----------
    client : distributed.Client
        Connected to a scheduler with at least one worker.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self.dashboard: str | None = client.dashboard_link

    def run(self, function: Callable[[T], R], items: Iterable[T], bundle: int = 1) -> Iterator[Outcome[T, R]]:
        """Run `function` on every item on the workers."""
        source = iter(items)
        bundles = iter(lambda: tuple(itertools.islice(source, bundle)), ())
        name = f"{function.__name__}-{secrets.token_hex(4)}"
        keys = (f"{name}-{number}" for number in itertools.count())
        done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        in_flight: dict[str, tuple[Any, tuple[T, ...]]] = {}
        window = max(_MIN_WINDOW, _WINDOW_PER_SLOT * sum(self._client.nthreads().values()))
        try:
            while True:
                batch = dict(zip(keys, itertools.islice(bundles, window - len(in_flight)), strict=False))
                futures = self._client.map(
                    _attempt_all, list(batch.values()), function=function, key=list(batch), pure=False
                )
                for future in futures:
                    in_flight[future.key] = (future, batch[future.key])
                    future.add_done_callback(done.put)
                if not in_flight:
                    return
                yield from self._collect([in_flight.pop(one.key) for one in self._wait(done)])
        finally:
            if in_flight:
                self._client.cancel([future for future, _ in in_flight.values()], force=True)

    def _wait(self, done: queue.SimpleQueue[Any]) -> list[Any]:
        """Wait for something to be done, and take all that is."""
        lost_since = None
        while True:
            try:
                finished = [done.get(timeout=_POLL_SECONDS)]
                break
            except queue.Empty:
                lost_since = self._check_alive(lost_since)
        while True:
            try:
                finished.append(done.get_nowait())
            except queue.Empty:
                return finished

    def _check_alive(self, lost_since: float | None) -> float | None:
        """Dask would wait for workers for ever; a minute without any is enough."""
        if self._client.status not in ("running", "connecting"):
            raise ClusterError("the Dask scheduler is gone", _AGAIN)
        if self._client.scheduler_info(n_workers=-1)["workers"]:
            return None
        now = time.monotonic()
        if lost_since is not None and now - lost_since > _LOST_AFTER_SECONDS:
            raise ClusterError(
                f"the Dask cluster has had no worker for {_LOST_AFTER_SECONDS:g} s",
                f"start workers and {_AGAIN}",
            )
        return lost_since or now

    def _collect(self, finished: list[tuple[Any, tuple[T, ...]]]) -> Iterator[Outcome[T, R]]:
        good = [(future, items) for future, items in finished if future.status == "finished"]
        gathered = self._client.gather([future for future, _ in good])
        for (_, items), outcomes in zip(good, gathered, strict=True):
            for item, (value, error) in zip(items, outcomes, strict=True):
                yield Outcome(item, value, error)
        for future, items in finished:
            if future.status != "finished":
                error = self._error(future)
                yield from (Outcome(item, None, error) for item in items)

    def _error(self, future: Any) -> SiftlineError:
        from distributed import KilledWorker

        if future.status in ("cancelled", "lost"):
            return ClusterError("the Dask scheduler lost the work", _AGAIN)
        error: Exception = future.exception()
        if not isinstance(error, KilledWorker):
            raise error
        return ClusterError(
            f"the work killed its Dask worker {error.allowed_failures + 1} times, most likely for memory",
            "give workers more memory (cluster.memory_limit), or cut smaller chunks (chunking.rows)",
        )


def prepare_executor(cluster: Cluster) -> None:
    """Begin what takes time before the executor is opened; costs nothing if it never is."""
    if isinstance(cluster, LocalCluster):
        prepare_workers()


class _Starting:
    """A cluster that comes up while the caller does something else."""

    def __init__(self, start: Callable[[], tuple[Any, DaskExecutor]]) -> None:
        # Workers must outlive a Ctrl-C by as long as it takes to close them in order.
        self._thread = ThreadPoolExecutor(1, "siftline-cluster", initializer=hold_interrupts)
        self._future = self._thread.submit(start)

    @property
    def _executor(self) -> DaskExecutor:
        return self._future.result()[1]

    @property
    def dashboard(self) -> str | None:
        return self._executor.dashboard

    def run(self, function: Callable[[T], R], items: Iterable[T], bundle: int = 1) -> Iterator[Outcome[T, R]]:
        return self._executor.run(function, items, bundle)

    def close(self) -> None:
        self._thread.shutdown(wait=True)
        if self._future.exception() is None:
            cluster, executor = self._future.result()
            executor._client.close()
            if cluster is not None:
                cluster.close()


def _quieten() -> None:
    """Dask's servers tell of every connection; a pipeline wants warnings. Heeds the user's setting."""
    import dask.config

    if "logging" not in dask.config.config:
        dask.config.set({"logging": {"distributed": "warning"}})


@contextmanager
def open_executor(cluster: Cluster, warm_up: Callable[[], None] | None = None) -> Iterator[Executor]:
    """Open the executor that a configuration asks for, and close it with everything it started.

    A local cluster comes up in the background; a scheduler's address is tried at once, so that a wrong
    one is known before any work is done.

    Parameters
    ----------
    cluster : Cluster
        The section of the configuration.
    warm_up : callable, optional
        Run on every worker as soon as it is up, to have imports behind it.

    Raises
    ------
    ClusterError
        When nobody answers, or the cluster cannot be started.
    """
    if isinstance(cluster, SerialCluster):
        yield SerialExecutor()
        return
    _quieten()
    if isinstance(cluster, LocalCluster):
        starting = _Starting(lambda: _connect(_start_local(cluster), 60.0, warm_up))
    elif isinstance(cluster, FactoryCluster):
        starting = _Starting(lambda: _connect(_start_factory(cluster), cluster.timeout_seconds, warm_up))
    else:
        executor = _dial(cluster, warm_up)
        starting = _Starting(lambda: (None, executor))
    try:
        yield starting
    finally:
        starting.close()


def _start_local(config: LocalCluster) -> Any:
    import dask.config
    from dask.system import CPU_COUNT
    from distributed import LocalCluster as DaskLocalCluster

    dask.config.set({"distributed.worker.multiprocessing-method": START_METHOD})
    with dask.config.set({"distributed.nanny.pre-spawn-environ": ENVIRONMENT}):
        return DaskLocalCluster(
            n_workers=config.workers or CPU_COUNT,
            threads_per_worker=config.threads,
            memory_limit=config.memory_limit,
            processes=True,
            dashboard_address="127.0.0.1:0",
        )


def _start_factory(config: FactoryCluster) -> Any:
    from distributed.deploy.cluster import Cluster as DaskCluster

    module, _, name = config.factory.replace(":", ".").rpartition(".")
    try:
        factory = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            f"cluster.factory {config.factory}: {error}", "install it, or correct the path"
        ) from error
    if not (isinstance(factory, type) and issubclass(factory, DaskCluster)):
        raise ClusterError(
            f"cluster.factory {config.factory}: not a Dask cluster class",
            "give one, such as dask_jobqueue.SLURMCluster",
        )
    started = None
    try:
        started = factory(**config.kwargs)
        started.scale(config.workers)
    except Exception as error:  # whatever a foreign class raises
        if started is not None:
            started.close()
        raise ClusterError(
            f"cluster.factory {config.factory}: {type(error).__name__}: {error}", "correct cluster.kwargs"
        ) from error
    return started


def _connect(cluster: Any, timeout: float, warm_up: Callable[[], None] | None) -> tuple[Any, DaskExecutor]:
    from distributed import Client

    client = Client(cluster, set_as_default=False)
    try:
        return cluster, _ready(client, timeout, "the Dask cluster", warm_up)
    except SiftlineError:
        client.close()
        cluster.close()
        raise


def _dial(config: AddressCluster, warm_up: Callable[[], None] | None) -> DaskExecutor:
    from distributed import Client, Security

    security = None
    if config.tls is not None:
        tls = config.tls
        security = Security(
            require_encryption=True, tls_ca_file=tls.ca, tls_client_cert=tls.cert, tls_client_key=tls.key
        )
    started = time.monotonic()
    try:
        client = Client(
            config.address, timeout=config.timeout_seconds, security=security, set_as_default=False
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"cluster.address {config.address}: no scheduler answers there ({error})",
            "start one with `dask scheduler`, or correct the address",
        ) from error
    left = max(1.0, config.timeout_seconds - (time.monotonic() - started))
    try:
        return _ready(client, left, f"the scheduler at {config.address}", warm_up)
    except SiftlineError:
        client.close()
        raise


def _ready(client: Any, timeout: float, whose: str, warm_up: Callable[[], None] | None) -> DaskExecutor:
    from distributed import fire_and_forget

    try:
        client.wait_for_workers(1, timeout=timeout)
    except TimeoutError as error:
        raise ClusterError(
            f"{whose} has no worker after {timeout:.0f} s", "start workers, then run again"
        ) from error
    if warm_up is not None:
        for worker in client.nthreads():
            fire_and_forget(client.submit(warm_up, workers=[worker], key=f"warm-up-{secrets.token_hex(4)}"))
    return DaskExecutor(client)
