"""Nannies of a local cluster: Dask's own, with a count of their worker's ends."""

from __future__ import annotations

from typing import Any

from distributed import Nanny

from siftline.engine.attempt import MORE_MEMORY
from siftline.errors import ClusterError

# Of each worker, with nothing begun in between.
_MOST_ENDS = 4


class CountingNanny(Nanny):
    """A nanny that counts the ends of its worker."""

    ends = 0

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        self.ends += 1
        super()._on_worker_exit_sync(exitcode)  # type: ignore[no-untyped-call]


def ends_of(cluster: Any) -> int:
    """Return how often workers of a cluster have ended; 0 for a cluster of others."""
    return sum(getattr(nanny, "ends", 0) for nanny in getattr(cluster, "workers", {}).values())


def check_ends(cluster: Any, ends: int) -> None:
    """Raise if workers keep ending without work: nannies would revive them for ever."""
    if ends > _MOST_ENDS * max(1, len(getattr(cluster, "workers", ()))):
        raise ClusterError(f"workers end as soon as they have started, {ends} times by now", MORE_MEMORY)
