"""The size of this machine, as a container's limits leave it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
USUAL_MEMORY = 2 << 30
_SHARE = 0.8  # of the machine, for all workers together
# Version 1 has this for "no limit", rounded to a page.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Machine:
    """Cores, and memory in bytes."""

    cores: int
    memory: int

    @property
    def usable(self) -> int:
        """Memory for all workers together."""
        return int(_SHARE * self.memory)

    def usual_memory(self, workers: int) -> int:
        """Return each worker's memory without a setting: 2 GiB, less on a small machine."""
        return min(USUAL_MEMORY, self.usable // workers)


def this_machine(root: Path = _CGROUP, own: Path = _OWN_CGROUPS) -> Machine:
    """Return the size of this machine: that of the host, or of the container if that is smaller.

    Control groups of version 2 have ``cpu.max`` and ``memory.max``, of version 1 ``cpu.cfs_quota_us`` and
    ``memory.limit_in_bytes``; the limits of all enclosing groups count.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas, limits = [float(cores)], [psutil.virtual_memory().total]
    for group in _groups(root, own, ""):
        quotas += _quota_v2(group)
        limits += _numbers(group / "memory.max")
    for group in _groups(root / "cpu", own, "cpu"):
        quotas += _quota_v1(group)
    for group in _groups(root / "memory", own, "memory"):
        limits += [limit for limit in _numbers(group / "memory.limit_in_bytes") if limit < _NO_LIMIT]
    # Half a core more is not a core: a worker on it would wait for the others.
    return Machine(max(1, math.floor(min(quotas) + 1e-9)), min(limits))


def _groups(root: Path, own: Path, controller: str) -> Iterator[Path]:
    """Yield the directories of this process's control group and those around it."""
    yield root  # a container sees its own group there, whatever its path outside
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if controller in controllers.split(",") if controller else not controllers:
            here = Path(path.lstrip("/"))
            # Of a group outside the container's view, the path begins with "..".
            yield from (root / group for group in (here, *here.parents) if ".." not in group.parts)


def _quota_v2(group: Path) -> list[float]:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (group / "cpu.max").read_text().split()
        return [int(quota) / int(period)]
    return []


def _quota_v1(group: Path) -> list[float]:
    quota, period = _numbers(group / "cpu.cfs_quota_us"), _numbers(group / "cpu.cfs_period_us")
    return [quota[0] / period[0]] if quota and period and quota[0] > 0 and period[0] > 0 else []


def _numbers(path: Path) -> list[int]:
    """Return the number in a file; none if there is no such file, or no number in it."""
    with suppress(OSError, ValueError):
        return [int(path.read_text())]
    return []
