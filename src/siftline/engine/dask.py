"""Execution on a Dask cluster: its client, its number of workers, and sessions on it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Any

from siftline.engine.base import R, Session, T
from siftline.engine.dask_session import DaskSession


@dataclass(frozen=True)
class DaskExecutor:
    """Runs items on a Dask cluster; `connected` returns its client, after a wait while the cluster starts.

    Attributes
    ----------
    bounds : (int, int)
        Smallest and largest number of workers.
    threads : int
        Items that a worker runs at once.
    slots : int or None
        Items that this job may run at once on a cluster that it shares.
    resize : callable or None
        Changes the number of workers of a cluster of ours, and returns it; None for a cluster of others.
    started : callable
        Returns true once `connected` returns at once.
    """

    connected: Callable[[], Any]
    bounds: tuple[int, int] = (1, 1)
    threads: int = 1
    slots: int | None = None
    resize: Callable[[int], int] | None = None
    started: Callable[[], bool] = lambda: True

    @property
    def client(self) -> Any:
        """Dask's client, connected to a scheduler with at least one worker."""
        return self.connected()

    @property
    def dashboard(self) -> str | None:
        """Address of the cluster's dashboard."""
        address: str | None = self.client.dashboard_link
        return address

    def scale(self, workers: int) -> int:
        """Ask for a number of workers, and return the number that there will be."""
        return self.bounds[0] if self.resize is None else self.resize(workers)

    def session(
        self, function: Callable[[T], R], bundle: int = 1, timeout_seconds: float | None = None
    ) -> AbstractContextManager[Session[T, R]]:
        """Open a session on the workers."""
        ours = self.resize is not None
        return closing(DaskSession(self.client, function, bundle, timeout_seconds, self.slots, ours))
