"""Signals that end a run: who gets them, and how work is brought to an orderly stop.

Ctrl-C on a terminal goes to every process of the command, and Prefect's workers end a run by a signal to all
of its processes; only the run's own process should act on it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

GRACE_SECONDS = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def hold_signals(signals: Iterable[signal.Signals] = _SIGNALS) -> None:
    """Keep signals from this thread, and from every process and thread that it starts.

    A blocked signal stays blocked across fork and exec, whatever handlers a program sets; those processes
    are closed in order, when the command is.
    """
    # Python starts this process with the first child, and unblocks the signals when it has.
    resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)


@contextmanager
def signals_held(signals: Iterable[signal.Signals] = _SIGNALS) -> Iterator[None]:
    """Hold signals for a while; one that comes meanwhile is acted on afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    hold_signals(signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Act on signals afterwards: for imports, in which the exception that a handler raises may get lost.

    Unlike a blocked signal, one that another thread gets is deferred as well.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, lambda got, frame: noted.append(got))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if noted:
            signal.raise_signal(noted[0])


class Stop:
    """Whether work is to stop: nothing is begun any more, and what runs has a grace period.

    Attributes
    ----------
    signal : int or None
        The signal that asked for it.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self._grace = grace_seconds
        self._deadline: float | None = None
        self.signal: int | None = None

    def request(self, number: int | None = None) -> None:
        """Ask for it."""
        self._deadline = time.monotonic() + self._grace
        self.signal = number

    @property
    def requested(self) -> bool:
        """Whether it was asked for."""
        return self._deadline is not None

    @property
    def overdue(self) -> bool:
        """Whether the grace period is over."""
        return self._deadline is not None and time.monotonic() >= self._deadline


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Let the first SIGINT or SIGTERM ask for a stop; a second one is acted on as before.

    Outside the main thread, where Python cannot handle signals, nothing ever asks.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def ask(number: int, frame: FrameType | None) -> None:
        for own, handler in before.items():
            signal.signal(own, handler)
        stop.request(number)

    for number in _SIGNALS:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
