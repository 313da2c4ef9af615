"""Monitoring of the present run: its live record in the checkpoint, and its events on the server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context

from siftline.errors import LeaseLost, StorageError
from siftline.jobs.live import LiveRecord, live_record
from siftline.jobs.monitor import Monitor
from siftline.progress import listening
from siftline.storage.lease import Lease
from siftline.tasks.adapters.run_events import RunEvents


@contextmanager
def monitored(monitor: Monitor, lease: Lease, seconds: float = 1.0) -> Iterator[None]:
    """Write the record of the run and send its events within the block, every few `seconds` and at its end.

    A failure to do so is without consequences for the run.
    """
    over, events = threading.Event(), RunEvents(monitor)

    def publish(record: LiveRecord) -> None:
        if record.rows.total and lease.directory is not None:  # else the run found its job published
            with suppress(StorageError, LeaseLost):
                lease.check()
                live_record(lease.directory).write(record, durable=False)
        events.send(record, lease.directory.name if lease.directory is not None else None)

    def work() -> None:
        while not over.wait(seconds):
            publish(monitor.record())

    thread = threading.Thread(target=copy_context().run, args=(work,), name="monitor", daemon=True)
    with listening(monitor):
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            publish(monitor.record(ended=True))
