"""Suspension of a run by Prefect: asked of it while it works, and carried out once it has stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Public functions suspend a run, but none says that somebody else has asked for it.
from prefect._flow_run_suspension import raise_if_flow_run_suspension_requested
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext

_reasons: ContextVar[tuple[Callable[[], bool], ...]] = ContextVar("siftline_stop_reasons", default=())


@contextmanager
def stopping_if(asked: Callable[[], bool]) -> Iterator[None]:
    """Stop the work within the block, too, once `asked` returns true."""
    token = _reasons.set((*_reasons.get(), asked))
    try:
        yield
    finally:
        _reasons.reset(token)


def stop_asked() -> bool:
    """Return whether the present run is to stop its work."""
    return suspension_asked() or any(asked() for asked in _reasons.get())


def suspension_asked() -> bool:
    """Return whether the present run is to be suspended."""
    context = FlowRunContext.get()
    return context is not None and context.flow_run_suspension_request.is_requested()


def request_suspension(state: State) -> None:
    """Take note that the server has suspended the present run, before Prefect's own observer does."""
    context = FlowRunContext.get()
    if context is not None:
        context.flow_run_suspension_request.mark_requested(state)


def suspend_if_asked() -> None:
    """Raise Prefect's signal that leaves the run suspended, if it is asked for."""
    raise_if_flow_run_suspension_requested()
