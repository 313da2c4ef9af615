"""Retries long enough to outlast an outage of the Prefect API, and their end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self, cast

import httpx
from prefect.context import SyncClientContext
from prefect.events import emit_event
from prefect.futures import PrefectFuture
from prefect.settings import get_current_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from siftline.flows.run.heartbeats import heartbeats_left_to_us
from siftline.tasks.adapters.settings import changed_settings

_RETRIES = 7  # after 2, 4, … 128 s, on the side of the run
# A run waits that long for an API that is gone; with what else its end takes, that is below two minutes.
_PATIENCE_SECONDS = 80.0
_ATTEMPT_SECONDS = 20.0
_BRIEF_SECONDS = 8.0
_PAUSE_SECONDS = 2.0
_PASSING = (408, 429, 502, 503, 504)

Send = Callable[..., httpx.Response]


class _PatientTaskRunner(ThreadPoolTaskRunner[Any]):
    """Prefect's usual task runner, and longer retries for as long as the run takes.

    Prefect enters a flow's task runner before its own heartbeats begin, and leaves it after the final state,
    wherever the run was started.
    """

    def __enter__(self) -> Self:
        self._settings = ExitStack()
        self._settings.enter_context(longer_api_retries())
        self._settings.enter_context(heartbeats_left_to_us())
        context = SyncClientContext.get()
        if context is not None:
            self._settings.enter_context(_asked_patiently(context.client._client))
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
    """Retry the API for minutes, unless the settings ask for more."""
    retries = max(get_current_settings().client.max_retries, _RETRIES)
    with changed_settings(client={"max_retries": retries}):
        yield


@contextmanager
def brief_api_requests() -> Iterator[None]:
    """Ask the API at most twice within the block."""
    with changed_settings(client={"max_retries": 1}, api={"request_timeout": _BRIEF_SECONDS}):
        yield


@contextmanager
def _asked_patiently(client: httpx.Client) -> Iterator[None]:
    """Let a client ask with patience within the block."""
    original = client.send
    client.send = PatientSend(original)  # type: ignore[method-assign]
    try:
        yield
    finally:
        client.send = original  # type: ignore[method-assign]


class PatientSend:
    """Repeats each request of this thread for `seconds`; once that failed, tries the next ones once.

    Prefect counts its attempts instead: with a silent API they take a quarter of an hour, for each request.
    """

    def __init__(self, send: Send, seconds: float = _PATIENCE_SECONDS, pause: float = _PAUSE_SECONDS) -> None:
        self._send = send
        self._seconds = seconds
        self._pause = pause
        self._thread = threading.get_ident()
        self._lost = False

    def __call__(self, request: httpx.Request, *args: Any, **kwargs: Any) -> httpx.Response:
        """Send a request."""
        if threading.get_ident() != self._thread:
            return self._send(request, *args, **kwargs)
        deadline = time.monotonic() + (0 if self._lost else self._seconds)
        while True:
            left = min(_ATTEMPT_SECONDS, max(self._pause, deadline - time.monotonic()))
            request.extensions["timeout"] = httpx.Timeout(left).as_dict()
            try:
                with changed_settings(client={"max_retries": 0}):
                    answer = self._send(request, *args, **kwargs)
            except httpx.HTTPError as error:
                if not _passing(error):
                    raise
                if time.monotonic() + self._pause >= deadline:
                    self._lost = True
                    raise
            else:
                self._lost = False
                return answer
            time.sleep(self._pause)


def _passing(error: httpx.HTTPError) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        # Prefect's client gets a new token with the next attempt.
        return error.response.status_code in _PASSING or "Invalid CSRF token" in error.response.text
    return isinstance(error, httpx.TransportError)
