"""Monitoring: the status of batches, live updates, metrics, and the page of `siftline serve`."""

from siftline.flows.control.statuses import batch_status, batch_statuses
from siftline.jobs.status import BatchStatus
from siftline.monitoring.watching import watch

__all__ = ["BatchStatus", "batch_status", "batch_statuses", "watch"]
