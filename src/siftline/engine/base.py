"""The seam between stages and whatever runs their functions: executors, sessions, answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from siftline.progress import Incident, WorkerUsage, emit

T = TypeVar("T")
R = TypeVar("R")

# Between two reports of the workers' usage.
USAGE_SECONDS = 1.0


Began = Literal["not", "beside others", "alone"]


@dataclass(frozen=True)
class Answer(Generic[T, R]):
    """Result of one attempt at an item: value or error, and its seconds, if known.

    `began` says whether a lost worker had begun the item at all, and whether only that one.
    """

    item: T
    value: R | None
    error: Exception | None = None
    seconds: float | None = None
    began: Began = "beside others"


def name_of(item: object, function: Callable[..., object]) -> str:
    """Name an item by its own text, or its function: contents may be long or secret."""
    author = getattr(type(item).__str__, "__module__", None) or "builtins"
    own = isinstance(item, int | str) or author.partition(".")[0] not in ("builtins", "pydantic")
    return str(item) if own else function.__name__.replace("_", " ")


def report_incident(kind: str, item: object, function: Callable[..., object], text: str) -> None:
    """Emit an incident of an item."""
    emit(Incident(kind, f"{name_of(item, function)}: {text}", getattr(item, "number", None)))


class Session(Protocol[T, R]):
    """Submits items for one function and collects the answers."""

    @property
    def room(self) -> int:
        """Number of items that may be submitted now; at least one when none is in flight."""

    def submit(self, items: tuple[T, ...]) -> None:
        """Send items, at most as many as there is room for."""

    def wait(self, seconds: float) -> list[Answer[T, R]]:
        """Return the answers that have arrived; wait at most `seconds` for the first.

        Raises a ClusterError when all workers or the scheduler are lost.
        """

    def usage(self) -> tuple[WorkerUsage, ...]:
        """Return the last known usage of the workers."""

    @property
    def late(self) -> int:
        """Number of items that take far longer than their peers, and wait for an idle worker."""

    def narrow(self, window: int, busy: int) -> None:
        """Bound the items in flight: for each slot, and for each worker if `busy` is not 0."""


class Executor(Protocol):
    """Runs functions on items, in this process or on a cluster."""

    @property
    def dashboard(self) -> str | None:
        """Address of the cluster's dashboard, if it has one."""

    @property
    def bounds(self) -> tuple[int, int]:
        """Smallest and largest number of workers; equal if it does not change."""

    @property
    def threads(self) -> int:
        """Items that a worker runs at once."""

    def scale(self, workers: int) -> int:
        """Ask for a number of workers, and return the number that there will be."""

    def session(
        self, function: Callable[[T], R], bundle: int = 1, timeout_seconds: float | None = None
    ) -> AbstractContextManager[Session[T, R]]:
        """Open a session for a function, importable on the workers; leaving it cancels what is in flight.

        `bundle` small items travel together, because each trip costs milliseconds. On a cluster, the worker
        of an item that exceeds its time restarts, and the answer is a `ChunkTimeout`.
        """
