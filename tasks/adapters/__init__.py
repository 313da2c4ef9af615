"""Prefect behind small interfaces: checkpoints, artifacts, retries, logs."""
