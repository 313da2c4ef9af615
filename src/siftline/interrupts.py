"""Ctrl-C on a terminal goes to every process of the command; only the command itself should act on it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


def hold_interrupts() -> None:
    """Keep SIGINT from this thread, and from every process and thread that it starts.

    A blocked signal stays blocked across fork and exec, whatever handlers a program sets; those processes
    are closed in order, when the command is.
    """
    # Python starts this process with the first child, and unblocks the signal when it has.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Hold SIGINT for a while; one that comes meanwhile is acted on afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    hold_interrupts()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
