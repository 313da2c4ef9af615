"""Artifacts, written on the side: an API that does not answer holds nothing up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Generic, Self, TypeVar
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_link_artifact, create_progress_artifact, update_progress_artifact
from prefect.settings import temporary_settings

from siftline.progress import Progress
from tasks.adapters.resolve import waited

T = TypeVar("T")

_SECONDS_BETWEEN = 1.0
_SECONDS_TO_CLOSE = 5.0
_SECONDS_TO_CATCH_UP = 300.0


class ProgressArtifact:
    """Shows the chunks done on the page of the flow run, within its context, at most once a second."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self._latest = Latest("the progress artifact", self._show)

    def __enter__(self) -> Self:
        self._latest.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._latest.close()

    def __call__(self, report: object) -> None:
        """Take a report of the detection."""
        if isinstance(report, Progress) and report.stage == "detect" and report.chunks_total:
            self._latest.put(100 * report.chunks_done / report.chunks_total)

    def _show(self, percent: float) -> None:
        if self._artifact is None:
            self._artifact = waited(
                create_progress_artifact(percent, key="siftline-progress", description="Chunks scored.")
            )
        else:
            waited(update_progress_artifact(self._artifact, percent))


class Latest(Generic[T]):
    """Delivers the latest of what it is given, from a thread of its own, at most once a second.

    What cannot be delivered is tried again, unless something later is there; after closing for five minutes
    more, for which nobody waits.

    Parameters
    ----------
    what : str
        It, for the log.
    deliver : callable
        Takes a value; whatever it raises means that it is to be tried again.
    """

    def __init__(self, what: str, deliver: Callable[[T], object]) -> None:
        self._what = what
        self._deliver = deliver
        self._given: tuple[T] | None = None
        self._delivered: tuple[T] | None = None
        self._warned = False
        self._closed = threading.Event()
        # In the context of the run, whose artifacts these are.
        self._thread = threading.Thread(target=copy_context().run, args=(self._work,), daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def put(self, value: T) -> None:
        """Give a value, in place of the one before."""
        self._given = (value,)

    def close(self) -> None:
        """Wait for the last value to be delivered, but not for long; there will be no later one."""
        self._closed.set()
        self._thread.join(_SECONDS_TO_CLOSE)

    def _work(self) -> None:
        with temporary_settings({"client.max_retries": 0}):  # here is who tries again
            while not self._closed.wait(_SECONDS_BETWEEN):
                self._attempt()
            deadline = time.monotonic() + _SECONDS_TO_CATCH_UP
            while not self._attempt() and time.monotonic() < deadline:
                time.sleep(_SECONDS_BETWEEN)

    def _attempt(self) -> bool:
        """Deliver what is not delivered yet, and say whether nothing is left."""
        given = self._given
        if given is None or given is self._delivered:
            return True
        try:
            self._deliver(given[0])
        except Exception as error:  # noqa: BLE001  whatever reaching the API raises
            self._warn(error)
            return False
        self._delivered = given
        return True

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            name = type(error).__name__
            get_run_logger().warning("%s cannot be written, and is tried again: %s", self._what, name)


def write_aside(what: str, write: Callable[[], object]) -> None:
    """Write an artifact without waiting long for it; what people are shown of a job is not the job."""
    latest = Latest[None](what, lambda _: write())
    latest.put(None)
    latest.start()
    latest.close()


def link_dashboard(address: str | None) -> None:
    """Link the Dask dashboard from the page of the flow run, if there is one."""
    if address is not None:
        write_aside("the link to the Dask dashboard", lambda: _link(address))


def _link(address: str) -> None:
    waited(
        create_link_artifact(
            address,
            link_text="Dask dashboard",
            key="siftline-dask-dashboard",
            description="The workers, live.",
        )
    )
