"""Signals that end a run: which processes get them, and how work is brought to an orderly stop.

Ctrl-C on a terminal goes to every process of the command, and Prefect's workers end a run by a signal to all
of its processes; only the run's own process should act on it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

from siftline.system.imports import children_import_safely

GRACE_SECONDS = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def hold_signals(signals: Iterable[signal.Signals] = _SIGNALS) -> None:
    """Keep signals from this thread, and from every process and thread that it starts.

    A blocked signal stays blocked across fork and exec, whatever handlers a program sets.
    """
    # Python starts this process with the first child, and unblocks the signals when it has.
    with children_import_safely():
        resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)


@contextmanager
def signals_held(signals: Iterable[signal.Signals] = _SIGNALS) -> Iterator[None]:
    """Hold signals within the block; one that comes meanwhile is acted on afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    hold_signals(signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def signals_handled(
    handle: Callable[[int], None], signals: Iterable[signal.Signals] = _SIGNALS, once: bool = False
) -> Iterator[None]:
    """Handle signals within the block, or only the first one.

    Does nothing outside the main thread, where Python cannot handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signals}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def take(number: int, frame: FrameType | None) -> None:
        if once:
            restore()
        handle(number)

    for number in before:
        signal.signal(number, take)
    try:
        yield
    finally:
        restore()


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Act on signals after the block, which an exception would tear: an import, or the taking of a lease.

    Unlike a blocked signal, one that another thread gets is deferred as well.
    """
    noted: list[int] = []
    try:
        with signals_handled(noted.append):
            yield
    finally:
        if noted:
            signal.raise_signal(noted[0])


class Stop:
    """A request to stop, perhaps by a `signal`: nothing new begins, and running work has a grace period.

    It is also requested once `asked` returns true.
    """

    def __init__(
        self, grace_seconds: float = GRACE_SECONDS, asked: Callable[[], bool] = lambda: False
    ) -> None:
        self._grace = grace_seconds
        self._asked = asked
        self._deadline: float | None = None
        self.signal: int | None = None

    def request(self, number: int | None = None) -> None:
        """Request the stop."""
        self._deadline = time.monotonic() + self._grace
        self.signal = number

    @property
    def requested(self) -> bool:
        """True once the stop is requested."""
        if self._deadline is None and self._asked():
            self.request()
        return self._deadline is not None

    @property
    def overdue(self) -> bool:
        """True once the grace period is over."""
        return self._deadline is not None and time.monotonic() >= self._deadline


@contextmanager
def stop_on_signal(asked: Callable[[], bool] = lambda: False) -> Iterator[Stop]:
    """Let the first SIGINT or SIGTERM request a stop, or `asked`; a second signal is acted on as before."""
    stop = Stop(asked=asked)
    with signals_handled(stop.request, once=True):
        yield stop
