"""Monitoring: the status of batches, live updates, metrics, and the page of `siftline serve`."""
