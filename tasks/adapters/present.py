"""The present flow run, as Prefect's context has it."""

from __future__ import annotations

from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext


def present_run() -> FlowRun | None:
    """Return the flow run in whose context this is called; None without one."""
    context = FlowRunContext.get()
    return context.flow_run if context is not None else None
