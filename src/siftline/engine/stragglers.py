"""Stragglers: items that take far longer than their peers of the same size.

They are started a second time on an idle worker, and the first answer counts (backup tasks: Dean and
Ghemawat, MapReduce, 2004, 3.6).
"""

from __future__ import annotations

import statistics
from collections import deque

_MOST_PEERS = 200


class Pace:
    """The seconds that items take, for each unit of their size.

    An item is a straggler after `times` the median of at least `peers` others, and after `least_seconds`.
    """

    def __init__(self, least_seconds: float = 5.0, times: float = 4.0, peers: int = 3) -> None:
        self._least = least_seconds
        self._times = times
        self._peers = peers
        self._paces: deque[float] = deque(maxlen=_MOST_PEERS)

    def finished(self, seconds: float, size: int) -> None:
        """Take the time of a finished item."""
        self._paces.append(seconds / max(size, 1))

    def is_straggler(self, seconds: float, size: int) -> bool:
        """Return True if an item of a size takes far too long."""
        if seconds < self._least or len(self._paces) < self._peers:
            return False
        return seconds > self._times * statistics.median(self._paces) * max(size, 1)
