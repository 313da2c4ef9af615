"""The board: all jobs as last read from storage, for many listeners at the cost of one reader."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from siftline.errors import SiftlineError
from siftline.jobs.status import BatchStatus

Read = Callable[[], Iterable[BatchStatus]]
# Reading takes at most this share of the time, however many jobs there are.
_LOAD = 0.1


class Crowded(Exception):
    """As many listeners as the board has places for."""


@dataclass(frozen=True)
class Posted:
    """The status of a job, its JSON, and the digest of that."""

    status: BatchStatus
    json: str
    digest: str

    @classmethod
    def of(cls, status: BatchStatus) -> Posted:
        """Return a status, ready to be sent."""
        text = status.model_dump_json()
        return cls(status, text, _digest([text]))


@dataclass(frozen=True)
class Reading:
    """All jobs as read at one time, by id, the newest first; the problem, if they could not be read."""

    jobs: Mapping[str, Posted] = field(default_factory=dict)
    problem: str | None = None

    @property
    def digest(self) -> str:
        """Digest of all of it."""
        return _digest([*(posted.digest for posted in self.jobs.values()), self.problem or ""])


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


class Board:
    """Reads the jobs when asked, and every `seconds` as long as there are listeners, in a thread.

    A listener that is slow misses readings, and gets the latest next: nothing is queued for it.
    """

    def __init__(self, read: Read, seconds: float = 1.0, places: int = 200) -> None:
        self._read = read
        self._seconds = seconds
        self._places = places
        self._listeners = 0
        self._reading = Reading()
        self._stale_at = 0.0
        self._reads = asyncio.Lock()
        self._news = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None
        self._closed = False

    async def current(self) -> Reading:
        """Return the jobs, read `seconds` ago at most."""
        async with self._reads:
            began = time.monotonic()
            if began >= self._stale_at:
                self._post(await asyncio.to_thread(self._take))
                ended = time.monotonic()
                self._stale_at = ended + max(self._seconds, (ended - began) / _LOAD)
        return self._reading

    def _take(self) -> Reading:
        try:
            found = [status for status in self._read() if status.job_id is not None]
        except SiftlineError as error:
            return Reading(self._reading.jobs, str(error))
        found.sort(key=lambda status: status.started.timestamp() if status.started else 0.0, reverse=True)
        return Reading({status.job_id: Posted.of(status) for status in found if status.job_id})

    def _post(self, reading: Reading) -> None:
        if reading != self._reading:
            self._reading = reading
            self._wake()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places for listeners, or raise `Crowded`."""
        if self._listeners >= self._places:
            raise Crowded
        self._listeners += 1
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners and self._poller is not None:
                self._poller.cancel()
                self._poller = None

    async def _poll(self) -> None:
        try:
            while True:
                await self.current()
                await asyncio.sleep(max(0.0, self._stale_at - time.monotonic()))
        finally:
            self._wake()

    async def readings(self) -> AsyncIterator[Reading]:
        """Yield the present reading and each later one that differs, until the board is closed."""
        seen = None
        await self.current()
        while not self._closed:
            if self._reading is not seen:
                seen = self._reading
                yield seen
            elif self._poller is not None and self._poller.done():
                self._poller.result()
            else:
                await self._news.wait()

    def close(self) -> None:
        """End all readings."""
        self._closed = True
        self._wake()
