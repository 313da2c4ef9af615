"""Monitoring of the present run: its live record in the checkpoint, and its events on the server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from prefect import get_run_logger

from siftline.errors import LeaseLost
from siftline.jobs.live import LiveRecord, live_record
from siftline.jobs.monitor import Monitor
from siftline.progress import listening
from siftline.shown import log_line
from siftline.storage.lease import Lease
from siftline.tasks.adapters.run_events import RunEvents

T = TypeVar("T")


@contextmanager
def monitored(monitor: Monitor, lease: Lease, seconds: float = 1.0) -> Iterator[None]:
    """Write the record of the run and send its events within the block, every few `seconds` and at its end.

    A failure to do so is logged once, and without consequences for the run.
    """
    over, publisher = threading.Event(), _Publisher(monitor, lease)

    def work() -> None:
        while not over.wait(seconds):
            publisher.publish()

    thread = threading.Thread(target=copy_context().run, args=(work,), name="monitor", daemon=True)
    with listening(monitor):
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            publisher.publish(ended=True)


class _Publisher:
    def __init__(self, monitor: Monitor, lease: Lease) -> None:
        self._lease = lease
        self._monitor = monitor
        self._events = RunEvents(monitor)
        self._logger = get_run_logger()
        self._failed: set[str] = set()

    def publish(self, ended: bool = False) -> None:
        record = self._attempt("a record of it", partial(self._monitor.record, ended))
        if record is not None:
            self._attempt("its live record", partial(self._write, record))
            self._attempt("its events", partial(self._send, record))

    def _attempt(self, what: str, call: Callable[[], T]) -> T | None:
        try:
            with suppress(LeaseLost):  # the run finds out by itself
                return call()
        except Exception as error:  # noqa: BLE001  whatever a disk or an API raises
            if what not in self._failed:
                self._failed.add(what)
                self._logger.warning("the run goes on without %s: %s", what, log_line(error))
        return None

    def _write(self, record: LiveRecord) -> None:
        directory = self._lease.directory
        if record.rows.total and directory is not None:  # else the run found its job published
            self._lease.check()
            live_record(directory).write(record, durable=False)

    def _send(self, record: LiveRecord) -> None:
        directory = self._lease.directory
        self._events.send(record, directory.name if directory is not None else None)
