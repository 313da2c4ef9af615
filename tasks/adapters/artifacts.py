"""Artifacts, written on the side: an API that does not answer holds nothing up."""

from __future__ import annotations

import atexit
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Generic, Self, TypeVar
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_progress_artifact, update_progress_artifact

from siftline.progress import Progress
from siftline.tasks.adapters.resolve import resolve
from siftline.tasks.adapters.settings import changed_settings

T = TypeVar("T")


@dataclass(frozen=True)
class Pace:
    """Seconds between deliveries, of waiting for the last one, and of trying it afterwards."""

    between: float = 1.0
    waiting: float = 5.0
    afterwards: float = 300.0


PACE = Pace()


class Latest(Generic[T]):
    """Delivers the latest value from a thread of its own, within a context, and names it `what` in the log.

    A failed delivery is tried again, unless a later value is there; after the context for a while in the
    background.
    """

    def __init__(self, what: str, deliver: Callable[[T], object], pace: Pace = PACE) -> None:
        self._what = what
        self._deliver = deliver
        self._pace = pace
        self._given: tuple[T] | None = None
        self._delivered: tuple[T] | None = None
        self._warned = False
        self._closed = threading.Event()
        # In the context of the run, whose artifacts these are.
        self.thread = threading.Thread(target=copy_context().run, args=(self._work,), daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        self.thread.join(self._pace.waiting)
        if self.thread.is_alive():  # a process may end as soon as the API answers
            atexit.register(self.thread.join, self._pace.waiting)

    def put(self, value: T) -> None:
        """Give a value, in place of the one before."""
        self._given = (value,)

    def _work(self) -> None:
        with changed_settings(client={"max_retries": 0}):  # retries happen here
            self._attempt()
            while not self._closed.wait(self._pace.between):
                self._attempt()
            deadline = time.monotonic() + self._pace.afterwards
            while not self._attempt() and time.monotonic() < deadline:
                time.sleep(self._pace.between)

    def _attempt(self) -> bool:
        """Deliver the latest value, and return true if nothing is left."""
        given = self._given
        if given is None or given is self._delivered:
            return True
        try:
            self._deliver(given[0])
        except Exception as error:  # noqa: BLE001  whatever reaching the API raises
            if not self._warned:
                self._warned = True
                name = type(error).__name__
                get_run_logger().warning("%s cannot be written, and is tried again: %s", self._what, name)
            return False
        self._delivered = given
        return True


class ProgressArtifact(Latest[float]):
    """Shows the share of chunks done on the page of the flow run."""

    def __init__(self, pipeline: str, pace: Pace = PACE) -> None:
        super().__init__("the progress artifact", self._show, pace)
        self._key = artifact_key("progress", pipeline)
        self._artifact: UUID | None = None

    def __call__(self, report: object) -> None:
        """Take a report of the detection."""
        if isinstance(report, Progress) and report.stage == "detect" and report.chunks_total:
            self.put(100 * report.chunks_done / report.chunks_total)

    def _show(self, percent: float) -> None:
        if self._artifact is None:
            self._artifact = resolve(
                create_progress_artifact(percent, key=self._key, description="Chunks scored.")
            )
        else:
            resolve(update_progress_artifact(self._artifact, percent))


def artifact_key(kind: str, pipeline: str) -> str:
    """Return the key of an artifact: Prefect takes lower-case letters, digits and dashes."""
    return f"siftline-{kind}-{re.sub(r'[^a-z0-9]+', '-', pipeline.lower()).strip('-')}"


@contextmanager
def written_beside(what: str, write: Callable[[], object], pace: Pace = PACE) -> Iterator[None]:
    """Write an artifact beside the block, without a long wait at its end: artifacts are not the job."""
    artifact = Latest[None](what, lambda _: write(), pace)
    artifact.put(None)
    with artifact:
        yield


def write_aside(what: str, write: Callable[[], object], pace: Pace = PACE) -> None:
    """Write an artifact without a long wait."""
    with written_beside(what, write, pace):
        pass


def link_dashboard(address: str | None, pipeline: str) -> None:
    """Link the Dask dashboard, if there is one, from the page of the flow run."""
    if address is not None:
        key = artifact_key("dask-dashboard", pipeline)
        link = partial(create_link_artifact, address, "Dask dashboard", key)
        write_aside("the link to the Dask dashboard", lambda: resolve(link("Live Dask dashboard.")))
