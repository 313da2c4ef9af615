"""Who runs the chunks: this process, or a Dask cluster. The only module that knows of Dask."""

from __future__ import annotations

import itertools
import math
import queue
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, Protocol, TypeVar

from siftline.config.clusters import AddressCluster, Cluster, FactoryCluster, LocalCluster, SerialCluster
from siftline.engine.workers import ENVIRONMENT, START_METHOD, prepare_workers
from siftline.errors import (
    ChunkTimeout,
    ClusterError,
    OutOfMemory,
    SiftlineError,
    WorkerLost,
    storage_error,
)
from siftline.signals import hold_signals

T = TypeVar("T")
R = TypeVar("R")

_WINDOW_PER_SLOT = 8
_MIN_WINDOW = 32
_LOST_AFTER_SECONDS = 60.0
_POLL_SECONDS = 1.0
_DASHBOARD_AFTER_SECONDS = 30.0
# Dask would give a chunk that kills its worker to three healthy ones in turn, beside chunks of theirs.
FAIL_AT_ONCE = {"distributed.scheduler.allowed-failures": 0}
# Dask looks 15 s after a worker was lost, and closes its nanny for good if it is down at that very moment,
# as it is when it was lost a second time. The nanny brings it back, however often.
_KEEP_WORKERS = {"distributed.deploy.lost-worker-timeout": "1000 days"}
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


@dataclass(frozen=True)
class Later:
    """Stands among the items for: there is none just now; ask again after an outcome, or so many seconds."""

    seconds: float


class Executor(Protocol):
    """Runs a function on items, wherever that is."""

    @property
    def dashboard(self) -> str | None:
        """Address of the cluster's dashboard, if it has one."""

    def run(
        self,
        function: Callable[[T], R],
        items: Iterable[T | Later],
        bundle: int = 1,
        timeout_seconds: float | None = None,
    ) -> Iterator[Outcome[T, R]]:
        """Run `function` on every item and give the outcomes in order of completion.

        Items are taken as there is room for them, so that any number of them costs the same memory.
        Closing the iterator gives up what has not been started.

        Parameters
        ----------
        function : callable
            Importable on the workers.
        items : iterable
            What to run it on; small, because they travel. A `Later` makes the executor wait.
        bundle : int
            Items that travel together. Tiny ones should: each trip costs a few milliseconds.
        timeout_seconds : float, optional
            How long an item may run; then its worker is restarted, and its outcome is a `ChunkTimeout`.
            What runs in this process cannot be stopped.

        Raises
        ------
        ClusterError
            When all workers or the scheduler are lost.
        """


class SerialExecutor:
    """Runs items one after the other, here."""

    dashboard: str | None = None

    def run(
        self,
        function: Callable[[T], R],
        items: Iterable[T | Later],
        bundle: int = 1,
        timeout_seconds: float | None = None,
    ) -> Iterator[Outcome[T, R]]:
        """Run `function` on every item, in order."""
        for item in items:
            if isinstance(item, Later):
                time.sleep(min(item.seconds, _POLL_SECONDS))
            else:
                yield Outcome(item, *_attempt(function, item))


def _attempt(function: Callable[[T], R], item: T) -> tuple[R | None, SiftlineError | None]:
    """Bring a known error back as a value: Dask would print the traceback of a raised one on the worker."""
    try:
        return function(item), None
    except SiftlineError as error:
        return None, error
    except MemoryError as error:
        remedy = "give workers more memory (cluster.memory_limit), or cut smaller chunks (chunking.rows)"
        return None, OutOfMemory(f"out of memory {error}".strip(), remedy)
    except OSError as error:
        return None, storage_error(error, error.filename or function.__name__)


def _attempt_all(items: tuple[T, ...], function: Callable[[T], R], topic: str) -> None:
    """Do the work of a bundle, and send the outcomes at once.

    As an event, because a result that stays on the worker until it is fetched is lost with it, and a worker
    that is frozen holds up whoever fetches from it.
    """
    from distributed import get_worker
    from distributed.protocol.pickle import dumps

    worker = get_worker()
    key = worker.get_current_task()
    worker.log_event(topic, {"key": key, "worker": worker.address})
    outcomes = [_attempt(function, item) for item in items]
    worker.log_event(topic, {"key": key, "outcomes": dumps(outcomes)})


@dataclass
class _Sent(Generic[T]):
    """Items that are on their way, and since when they are with which worker."""

    items: tuple[T, ...]
    future: Any = None
    begun: tuple[float, str] | None = None


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

    def run(
        self,
        function: Callable[[T], R],
        items: Iterable[T | Later],
        bundle: int = 1,
        timeout_seconds: float | None = None,
    ) -> Iterator[Outcome[T, R]]:
        """Run `function` on every item on the workers."""
        run = _DaskRun(self._client, function, timeout_seconds)
        try:
            yield from run.outcomes(_Bundles(items, bundle))
        finally:
            run.close()


class _Bundles(Generic[T]):
    """Items in tuples of at most `size`."""

    def __init__(self, items: Iterable[T | Later], size: int) -> None:
        self._items = iter(items)
        self._size = size
        self.later: Later | None = None

    def take(self, room: int) -> list[tuple[T, ...]]:
        """Take bundles as there are; what a `Later` said is then in `later`, until more is taken."""
        self.later = None
        taken: list[tuple[T, ...]] = []
        while len(taken) < room and self.later is None:
            bundle = tuple(itertools.islice(self._now(), self._size))
            if not bundle:
                break
            taken.append(bundle)
        return taken

    def _now(self) -> Iterator[T]:
        for item in self._items:
            if isinstance(item, Later):
                self.later = item
                return
            yield item


class _DaskRun(Generic[T, R]):
    """One call of `DaskExecutor.run`."""

    def __init__(self, client: Any, function: Callable[[T], R], timeout_seconds: float | None) -> None:
        self._client = client
        self._function = function
        self._timeout = timeout_seconds
        self._name = f"{function.__name__}-{secrets.token_hex(4)}"
        self._numbers = itertools.count()
        self._done: queue.SimpleQueue[tuple[str, bytes | None]] = queue.SimpleQueue()
        self._sent: dict[str, _Sent[T]] = {}
        self._lost_since: float | None = None
        self._window = (0, -math.inf)
        client.subscribe_topic(self._name, self._heard)

    def close(self) -> None:
        """Give up what is not done."""
        if self._sent:
            futures = [sent.future for sent in self._sent.values() if sent.future is not None]
            self._client.cancel(futures, force=True)
        if self._client.status == "running":
            self._client.unsubscribe_topic(self._name)

    def outcomes(self, bundles: _Bundles[T]) -> Iterator[Outcome[T, R]]:
        """Send bundles as there is room, and give what comes back."""
        while True:
            self._send(bundles.take(self._most() - len(self._sent)))
            wait = _POLL_SECONDS if bundles.later is None else min(_POLL_SECONDS, bundles.later.seconds)
            if self._sent:
                finished = self._wait(wait)
                # Now, because what is done while the outcomes are dealt with is not overdue.
                overdue = self._overdue()
                yield from self._collect(finished)
                yield from overdue
            elif bundles.later is not None:
                time.sleep(wait)
            else:
                return

    def _most(self) -> int:
        """How many bundles may be on their way; looked up now and then, as workers come and go."""
        most, since = self._window
        now = time.monotonic()
        if now - since >= _POLL_SECONDS:
            most = max(_MIN_WINDOW, _WINDOW_PER_SLOT * sum(self._client.nthreads().values()))
            self._window = (most, now)
        return most

    def _send(self, bundles: list[tuple[T, ...]]) -> None:
        sent = {f"{self._name}-{next(self._numbers)}": _Sent(items) for items in bundles}
        # Before they are sent, because a worker may begin at once.
        self._sent |= sent
        arguments = {"function": self._function, "topic": self._name}
        futures = self._client.map(_attempt_all, bundles, key=list(sent), pure=False, **arguments)
        for one, future in zip(sent.values(), futures, strict=True):
            one.future = future
            future.add_done_callback(lambda done: self._done.put((done.key, None)))

    def _heard(self, event: tuple[float, dict[str, Any]]) -> None:
        """Take what a worker says: that it begins with a bundle, or what came of it. In Dask's own thread."""
        message = event[1]
        sent = self._sent.get(message["key"])
        if sent is None:
            return
        if "outcomes" not in message:
            sent.begun = (time.monotonic(), message["worker"])
            return
        self._done.put((message["key"], message["outcomes"]))
        if sent.future is not None:
            # Or Dask would do the work again if it lost the worker now.
            sent.future.release()

    def _wait(self, seconds: float) -> list[tuple[_Sent[T], bytes | None]]:
        """Wait a moment for something to be done, and take all that is."""
        finished = []
        try:
            finished.append(self._done.get(timeout=seconds))
            while True:
                finished.append(self._done.get_nowait())
        except queue.Empty:
            if not finished:
                self._check_alive()
        # A bundle is done twice: once its outcomes are here, and with Dask. Or it was given up meanwhile.
        return [(self._sent.pop(key), outcomes) for key, outcomes in finished if key in self._sent]

    def _check_alive(self) -> None:
        """Dask would wait for workers for ever; a minute without any is enough."""
        if self._client.status not in ("running", "connecting"):
            raise ClusterError("the Dask scheduler is gone", _AGAIN)
        if self._client.scheduler_info(n_workers=-1)["workers"]:
            self._lost_since = None
            return
        now = time.monotonic()
        self._lost_since = self._lost_since or now
        if now - self._lost_since > _LOST_AFTER_SECONDS:
            raise ClusterError(
                f"the Dask cluster has had no worker for {_LOST_AFTER_SECONDS:g} s",
                f"start workers and {_AGAIN}",
            )

    def _collect(self, finished: list[tuple[_Sent[T], bytes | None]]) -> Iterator[Outcome[T, R]]:
        from distributed.protocol.pickle import loads

        for sent, outcomes in finished:
            if outcomes is None:
                error = self._error(sent.future)
                yield from (Outcome(item, None, error) for item in sent.items)
            else:
                for item, (value, error) in zip(sent.items, loads(outcomes), strict=True):
                    yield Outcome(item, value, error)

    def _error(self, future: Any) -> SiftlineError:
        from distributed import KilledWorker

        if future.status in ("cancelled", "lost"):
            return ClusterError("the Dask scheduler lost the work", _AGAIN)
        error: Exception = future.exception()
        if not isinstance(error, KilledWorker):
            raise error
        return WorkerLost(
            "the worker was lost while it had this chunk",
            "give workers more memory (cluster.memory_limit), or cut smaller chunks (chunking.rows)",
        )

    def _overdue(self) -> list[Outcome[T, R]]:
        """Restart the workers whose item has taken too long."""
        if self._timeout is None:
            return []
        overdue: list[Outcome[T, R]] = []
        now = time.monotonic()
        for key, sent in list(self._sent.items()):
            if sent.begun is None or now - sent.begun[0] <= self._timeout * len(sent.items):
                continue
            del self._sent[key]
            self._client.cancel([sent.future], force=True)
            error = self._timed_out(sent.begun[1])
            overdue += [Outcome(item, None, error) for item in sent.items]
        return overdue

    def _timed_out(self, worker: str) -> SiftlineError:
        known = self._client.scheduler_info(n_workers=-1)["workers"].get(worker)
        if known is not None and not known.get("nanny"):
            return ClusterError(
                f"worker {worker} hangs, and has no nanny that could restart it",
                f"end it, start workers with a nanny (Dask's default), and {_AGAIN}",
            )
        self._restart(worker)
        return ChunkTimeout(
            f"no result after {self._timeout:g} s; the worker was restarted",
            "raise chunking.timeout_seconds, or cut smaller chunks (chunking.rows)",
        )

    def _restart(self, worker: str) -> None:
        # In the background: a worker that hangs takes seconds to be killed, and others go on meanwhile.
        def restart() -> None:
            with suppress(KeyError, TimeoutError, OSError):  # it is gone already
                self._client.restart_workers([worker], timeout=30, raise_for_error=False)

        threading.Thread(target=restart, name="siftline-restart", daemon=True).start()


def prepare_executor(cluster: Cluster) -> None:
    """Begin what takes time before the executor is opened; costs nothing if it never is."""
    if isinstance(cluster, LocalCluster):
        prepare_workers()


class _Starting:
    """A cluster that comes up while the caller does something else.

    What starts it is given an event that says that it is not wanted any more.
    """

    def __init__(
        self, start: Callable[[threading.Event], tuple[Any, DaskExecutor]], dashboard: bool = False
    ) -> None:
        self._unwanted = threading.Event()
        # Workers must outlive a Ctrl-C by as long as it takes to close them in order.
        self._thread = ThreadPoolExecutor(1, "siftline-cluster", initializer=hold_signals)
        self._future = self._thread.submit(start, self._unwanted)
        self._dashboard = threading.Timer(_DASHBOARD_AFTER_SECONDS, self._add_dashboard)
        self._dashboard.daemon = True
        if dashboard:
            self._dashboard.start()

    @property
    def _executor(self) -> DaskExecutor:
        return self._future.result()[1]

    @property
    def dashboard(self) -> str | None:
        return self._executor.dashboard

    def run(
        self,
        function: Callable[[T], R],
        items: Iterable[T | Later],
        bundle: int = 1,
        timeout_seconds: float | None = None,
    ) -> Iterator[Outcome[T, R]]:
        return self._executor.run(function, items, bundle, timeout_seconds)

    def _add_dashboard(self) -> None:
        """Add its pages to a cluster of ours: the imports take longer than a small job."""
        from distributed.dashboard.scheduler import connect

        with suppress(ClusterError, RuntimeError):  # it did not start, or is closed already
            cluster, _ = self._future.result()
            scheduler = cluster.scheduler
            cluster.loop.add_callback(
                connect, scheduler.http_application, scheduler.http_server, scheduler, prefix="/"
            )

    def close(self) -> None:
        self._dashboard.cancel()
        self._unwanted.set()
        self._thread.shutdown(wait=True)
        if self._future.exception() is None:
            cluster, executor = self._future.result()
            _close(cluster, executor._client)


def _close(cluster: Any, client: Any) -> None:
    try:
        client.close()
    finally:
        if cluster is not None:
            cluster.close()


def _quieten() -> None:
    """Dask tells of every connection and lost worker; we tell of what matters. Heeds the user's setting."""
    import dask.config

    if "logging" not in dask.config.config:
        parts = ("client", "core", "nanny", "scheduler", "worker.state_machine")
        quiet = {f"distributed.{part}": "critical" for part in parts}
        dask.config.set({"logging": {"distributed": "warning", **quiet}})


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
        starting = _Starting(
            lambda unwanted: _connect(_start_local(cluster), 60.0, warm_up, unwanted), dashboard=True
        )
    elif isinstance(cluster, FactoryCluster):
        starting = _Starting(
            lambda unwanted: _connect(_start_factory(cluster), cluster.timeout_seconds, warm_up, unwanted)
        )
    else:
        executor = _dial(cluster, warm_up)
        starting = _Starting(lambda unwanted: (None, executor))
    try:
        yield starting
    finally:
        starting.close()


def _start_local(config: LocalCluster) -> Any:
    import dask.config
    from dask.system import CPU_COUNT
    from distributed import LocalCluster as DaskLocalCluster

    dask.config.set({"distributed.worker.multiprocessing-method": START_METHOD, **_KEEP_WORKERS})
    try:
        with dask.config.set({"distributed.nanny.pre-spawn-environ": ENVIRONMENT, **FAIL_AT_ONCE}):
            return DaskLocalCluster(
                n_workers=config.workers or CPU_COUNT,
                threads_per_worker=config.threads,
                memory_limit=config.memory_limit,
                processes=True,
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},  # it is added later
            )
    except (RuntimeError, OSError) as error:
        what = " ".join(str(error.__cause__ or error).split())
        raise ClusterError(
            f"the local Dask cluster does not start: {what}", "see to the memory and the disk of this machine"
        ) from error


def _start_factory(config: FactoryCluster) -> Any:
    import dask.config
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
        with dask.config.set(FAIL_AT_ONCE):
            started = factory(**config.kwargs)
        started.scale(config.workers)
    except Exception as error:  # whatever a foreign class raises
        if started is not None:
            started.close()
        raise ClusterError(
            f"cluster.factory {config.factory}: {type(error).__name__}: {error}", "correct cluster.kwargs"
        ) from error
    return started


def _connect(
    cluster: Any, timeout: float, warm_up: Callable[[], None] | None, unwanted: threading.Event
) -> tuple[Any, DaskExecutor]:
    from distributed import Client

    client = None
    try:
        client = Client(cluster, set_as_default=False)
        return cluster, _ready(client, timeout, "the Dask cluster", warm_up, unwanted)
    except BaseException:
        if client is None:
            cluster.close()
        else:
            _close(cluster, client)
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
        return _ready(client, left, f"the scheduler at {config.address}", warm_up, threading.Event())
    except SiftlineError:
        client.close()
        raise


def _ready(
    client: Any, timeout: float, whose: str, warm_up: Callable[[], None] | None, unwanted: threading.Event
) -> DaskExecutor:
    from distributed import fire_and_forget

    give_up = time.monotonic() + timeout
    while True:
        try:
            left = give_up - time.monotonic()
            client.wait_for_workers(1, timeout=min(_POLL_SECONDS, max(left, 0.1)))  # 0 would be for ever
            break
        except TimeoutError as error:
            if unwanted.is_set() or time.monotonic() >= give_up:
                raise ClusterError(
                    f"{whose} has no worker after {timeout:.0f} s", "start workers, then run again"
                ) from error
    if warm_up is not None:
        for worker in client.nthreads():
            fire_and_forget(client.submit(warm_up, workers=[worker], key=f"warm-up-{secrets.token_hex(4)}"))
    return DaskExecutor(client)
