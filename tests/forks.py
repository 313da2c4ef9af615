"""A job done by the library alone, in children that are forked where the imports are done."""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, NoReturn, Self
from unittest.mock import patch

from siftline.batch_plan import BatchPlan
from siftline.config.batch import BatchConfig
from siftline.engine import SerialExecutor
from siftline.engine.workers import ENVIRONMENT
from siftline.jobs.checkpoint import CheckpointStore
from siftline.jobs.results import Manifest
from siftline.stages.combine import combine_results
from siftline.stages.detect import detect_chunks
from siftline.stages.fit import fit_detector
from siftline.stages.plan import plan_batch
from siftline.stages.publish import publish_results, published_already
from siftline.stages.validate import validate_results
from siftline.storage.lease import Lease
from siftline.storage.lease_file import Holder
from tests.support import store_of


@dataclass(frozen=True)
class Done:
    """Result of a run."""

    plan: BatchPlan
    manifest: Manifest
    computed: int
    previous: Holder | None


def do(config: BatchConfig, store: CheckpointStore | None = None) -> Done:
    """Do what is left of a job, as a run does."""
    store = store or store_of(config)
    executor = SerialExecutor()
    with Lease("a run") as lease:
        plan = plan_batch(config, lease=lease)
        done = published_already(plan)
        if done is not None:
            return Done(plan, done, 0, lease.previous)
        detector = fit_detector(plan, executor)
        receipts = detect_chunks(plan, detector, executor, store, lease)
        combined = combine_results(plan, detector, receipts, executor)
        validation = validate_results(plan, receipts, combined)
        manifest = publish_results(plan, detector, receipts, combined, validation, lease=lease)
        return Done(plan, manifest, receipts.computed, lease.previous)


class Forks:
    """Children that are forked, in no time, from a process that has the imports behind it and no threads.

    As a context, which ends that process.
    """

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._parent = context.Process(target=_fork_on_request, args=(theirs,), daemon=True)
        with patch.dict(os.environ, ENVIRONMENT):  # BLAS shall have no threads either
            self._parent.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.send(None)
        self._parent.join()
        self._connection.close()

    def start(self, function: Callable[..., None], *arguments: Any) -> int:
        """Have a child call an importable function, and return the child's process id."""
        self._connection.send((function, arguments))
        pid = self._connection.recv()
        assert isinstance(pid, int)
        return pid

    def wait(self, pid: int) -> int:
        """Wait for the end of a child: 0, 1 after an error, what it exited with, or minus its signal."""
        self._connection.send((None, (pid,)))
        status = self._connection.recv()
        assert isinstance(status, int)
        return status


def _fork_on_request(connection: Connection) -> None:
    for name in ("pyarrow.dataset", "skops.io", "sklearn.ensemble"):  # which are imported when needed
        import_module(name)
    while (request := connection.recv()) is not None:
        function, arguments = request
        if function is None:
            connection.send(os.waitstatus_to_exitcode(os.waitpid(arguments[0], 0)[1]))
            continue
        pid = os.fork()
        if pid == 0:
            _end_as(function, arguments)
        connection.send(pid)


def _end_as(function: Callable[..., None], arguments: tuple[Any, ...]) -> NoReturn:
    status = 1
    try:
        function(*arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001  of this process it is the end, of its parent it must not be
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
