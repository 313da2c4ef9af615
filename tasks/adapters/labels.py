"""Labels of runs beside Prefect's own states: tags, attributes of spans, and events for automations."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from opentelemetry import trace
from prefect import Flow, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import RelatedResource, emit_event

from siftline.tasks.adapters.artifacts import write_aside
from siftline.tasks.adapters.aside import aside
from siftline.tasks.adapters.present import present_run
from siftline.types import RunLabel

_PREFIX = "siftline:"


def label_run(label: RunLabel, message: str) -> None:
    """Tag the present run with a label, and emit the event of that name."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    run = context.flow_run
    aside("the run has no event", lambda: emit_run_event(label, message, context.flow, run), None)
    write_aside("the tag", lambda: _set_label(run.id, {f"{_PREFIX}{label}"}))


def tag_task(step: str, job_id: str | None = None) -> None:
    """Tag the present task run with its step, and its span with step and job where spans are recorded.

    For tags of the task itself, Prefect would ask the API for slots, and a run waits for no API.
    """
    context = TaskRunContext.get()
    if context is not None and step not in context.task_run.tags:
        context.task_run.tags.append(step)
    span = trace.get_current_span()
    if span.is_recording():
        span.set_attribute("siftline.step", step)
        if job_id is not None:
            span.set_attribute("siftline.job_id", job_id)


def forget_label() -> None:
    """Take off the label with which the present run ended before, if it is retried."""
    run = present_run()
    if run is not None and any(tag.startswith(_PREFIX) for tag in run.tags):
        write_aside("the tags", lambda: _set_label(run.id, set()))


def emit_run_event(label: RunLabel, message: str, flow: Flow[..., Any] | None, run: FlowRun) -> None:
    """Emit `siftline.job.<label>` about a run."""
    # The automations find the run by the resource, and the flow among the related ones.
    flow_resource = {
        "prefect.resource.id": f"prefect.flow.{run.flow_id}",
        "prefect.resource.role": "flow",
        "prefect.resource.name": flow.name if flow is not None else "",
    }
    emit_event(
        f"siftline.job.{label}",
        {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name},
        related=[RelatedResource(flow_resource)],
        payload={"message": message},
    )


def _set_label(run: UUID, label: set[str]) -> None:
    """Replace the label of a run; its other tags may have changed since it began."""
    with get_client(sync_client=True) as client:
        others = {tag for tag in client.read_flow_run(run).tags if not tag.startswith(_PREFIX)}
        client.update_flow_run(run, tags=sorted(others | label))
