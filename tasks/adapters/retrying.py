"""Retries of a whole step, by Prefect."""

from __future__ import annotations

from typing import Any, ParamSpec, TypeVar

from prefect import State, Task
from prefect.client.schemas.objects import TaskRun

from siftline.config.batch import RetriesConfig
from siftline.engine import delay_after
from siftline.errors import InputError, ValidationFailed

P = ParamSpec("P")
R = TypeVar("R")


def retried(step: Task[P, R], retries: RetriesConfig | None) -> Task[P, R]:
    """Return a task with retries, except for errors that no retry can mend."""
    if retries is None:
        return step
    delays = [delay_after(retries, attempt) for attempt in range(1, retries.attempts)]
    return step.with_options(
        retries=len(delays), retry_delay_seconds=delays, retry_condition_fn=_may_get_better
    )


def _may_get_better(task: Task[..., Any], run: TaskRun, state: State) -> bool:
    return not isinstance(state.data, (InputError, ValidationFailed))
