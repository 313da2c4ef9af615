"""End of fork servers and their forks with their owner, whatever ended it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from types import FrameType

# Names the owner to the fork server.
OWNER = "SIFTLINE_OWNER"
_LOOK_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1


def end_with_owner() -> None:
    """End this fork server soon after its owner, and its forks with it; elsewhere, do nothing.

    Python's fork server notices the end only after its imports, and when its forks have ended too: one that
    is frozen, or deep in a library, would keep it.
    """
    if not any("multiprocessing.forkserver" in argument for argument in sys.orig_argv):
        return
    server = os.getpid()
    # It may have ended before this.
    owner = int(os.environ.get(OWNER, os.getppid()))

    def look(number: int, frame: FrameType | None) -> None:
        if os.getpid() == server and os.getppid() != owner:
            os._exit(1)

    def end_with_server() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(1)

    # A timer, which forks do not inherit; with a thread, forking would not be safe.
    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 0.01, _LOOK_SECONDS)
    os.register_at_fork(after_in_child=end_with_server)
