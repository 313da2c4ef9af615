"""Monitoring: the status of batches, live updates, metrics, and the page of `siftline serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from siftline.jobs.status import BatchStatus, batch_statuses

if TYPE_CHECKING:
    from siftline.flows.control.statuses import batch_status
    from siftline.monitoring.watching import watch

__all__ = ["BatchStatus", "batch_status", "batch_statuses", "watch"]


def __getattr__(name: str) -> Any:
    """Import what needs Prefect on its first use: that takes two seconds."""
    if name == "batch_status":
        from siftline.flows.control.statuses import batch_status

        return batch_status
    if name == "watch":
        from siftline.monitoring.watching import watch

        return watch
    raise AttributeError(f"module 'siftline.monitoring' has no attribute {name!r}")
