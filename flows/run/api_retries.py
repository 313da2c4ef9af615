"""Longer retries, with which a run outlasts an outage of the Prefect API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self, cast

from prefect.events import emit_event
from prefect.futures import PrefectFuture
from prefect.settings import get_current_settings, temporary_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

_RETRIES = 7  # after 2, 4, … 128 s: 4 minutes, where Prefect's own 5 make one
_HEARTBEAT_SECONDS = 30


class _PatientTaskRunner(ThreadPoolTaskRunner[Any]):
    """Prefect's usual task runner, and longer retries for as long as the run takes.

    Prefect enters a flow's task runner before the first heartbeat of a run, and leaves it after the final
    state, wherever the run was started.
    """

    def __enter__(self) -> Self:
        self._settings = ExitStack()
        self._settings.enter_context(longer_api_retries())
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._settings.close()
        # With its next event Prefect repeats those that an outage held up: the states of the tasks.
        with suppress(Exception):
            emit_event("siftline.run.ended", {"prefect.resource.id": "siftline"})


# Flows are typed for runners of any kind of future, which Prefect's own are not.
PatientTaskRunner: Callable[[], TaskRunner[PrefectFuture[Any]]] = cast(Any, _PatientTaskRunner)


@contextmanager
def longer_api_retries() -> Iterator[None]:
    """Retry the API for minutes and send a heartbeat twice a minute, unless the settings ask for more."""
    settings = get_current_settings()
    frequency = settings.flows.heartbeat_frequency
    longer = {
        "client.max_retries": max(settings.client.max_retries, _RETRIES),
        "flows.heartbeat_frequency": frequency and min(frequency, _HEARTBEAT_SECONDS),
    }
    with temporary_settings(longer):
        yield
