"""Execution: functions on items, in this process or on a Dask cluster, with retries."""
