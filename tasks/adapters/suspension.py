"""Suspension of a run by Prefect: asked of it while it works, and carried out once it has stopped."""

from __future__ import annotations

# Public functions suspend a run, but none says that somebody else has asked for it.
from prefect._flow_run_suspension import raise_if_flow_run_suspension_requested
from prefect.context import FlowRunContext


def suspension_asked() -> bool:
    """Return whether the present run is to be suspended."""
    context = FlowRunContext.get()
    return context is not None and context.flow_run_suspension_request.is_requested()


def suspend_if_asked() -> None:
    """Raise Prefect's signal that leaves the run suspended, if it is asked for."""
    raise_if_flow_run_suspension_requested()
