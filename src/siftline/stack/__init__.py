"""The services of a team on one machine: PostgreSQL, Prefect's server and worker, Dask.

Each is a process of its own, started by its own command and watched by `siftline.stack.supervision`.
"""

from siftline.stack.config import Stack
from siftline.stack.record import StackRecord, read_stack
from siftline.stack.supervision import clear, supervise

__all__ = ["Stack", "StackRecord", "clear", "read_stack", "supervise"]
