"""Calls of flows in this process, with a result even without the Prefect API."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from prefect.logging import get_logger

from siftline.errors import ApiError, SiftlineError
from siftline.flows.run.lifecycle import ENDED
from siftline.flows.server import flow_errors
from siftline.progress import NOT_CLOSED, Incident, emit
from siftline.types import BatchResult

P = ParamSpec("P")


def call_flow(flow: Callable[P, BatchResult], *args: P.args, **kwargs: P.kwargs) -> BatchResult:
    """Return a flow's result or raise its error, even after a loss of the API.

    Raises
    ------
    ApiError
        When the API was lost before the run had ended.
    """
    ENDED.set(None)
    try:
        with flow_errors():
            return flow(*args, **kwargs)
    except ApiError as lost:
        end = ENDED.get()
        if isinstance(end, SiftlineError):
            raise end from lost
        if end is None or isinstance(end, BaseException):
            raise
        text = f"the result is published, but the run could not be ended on the server: {lost.problem}"
        get_logger("siftline").warning(text)
        emit(Incident(NOT_CLOSED, text))
        return end
