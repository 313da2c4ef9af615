"""Retries of whole steps, by Prefect."""

from __future__ import annotations

from typing import Any, ParamSpec, TypedDict, TypeVar

from prefect import State, Task
from prefect.client.schemas.objects import TaskRun

from siftline.config.batch import RetriesConfig
from siftline.engine import delay_after
from siftline.errors import SiftlineError

P = ParamSpec("P")
R = TypeVar("R")


class Retries(TypedDict):
    """Arguments of a task about its retries."""

    retries: int
    retry_delay_seconds: list[float]
    retry_condition_fn: Any


def _passes(task: Task[..., Any], run: TaskRun, state: State) -> bool:
    """Return whether the fault of a task may be gone in a moment."""
    error = state.data
    return error.fault == "transient" if isinstance(error, SiftlineError) else isinstance(error, OSError)


def _retries(config: RetriesConfig) -> Retries:
    delays = [delay_after(config, attempt) for attempt in range(1, config.attempts)]
    return Retries(retries=len(delays), retry_delay_seconds=delays, retry_condition_fn=_passes)


RETRIES = _retries(RetriesConfig(jitter=0))
"""Two retries: of the tasks that touch storage or the API, unless the pipeline's step sets others."""


def retried(step: Task[P, R], retries: RetriesConfig | None) -> Task[P, R]:
    """Return a task with the retries of a pipeline's step, if it sets any."""
    return step if retries is None else step.with_options(**_retries(retries))
