"""Heartbeats of a run: without them an automation marks it as crashed.

Prefect's own thread sleeps a second at a time, and every run would wait for it at its end.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context

import prefect
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.events import emit_event
from prefect.settings import get_current_settings

from siftline.tasks.adapters.settings import changed_settings

_MOST_SECONDS = 30
_END_SECONDS = 2.0
_seconds: ContextVar[int | None] = ContextVar("seconds", default=None)


@contextmanager
def heartbeats_left_to_us() -> Iterator[None]:
    """Let Prefect send no heartbeats of runs that begin within the block; `heartbeats` sends them."""
    frequency = get_current_settings().flows.heartbeat_frequency
    before = _seconds.set(frequency and min(frequency, _MOST_SECONDS))
    try:
        with changed_settings(flows={"heartbeat_frequency": None}):
            yield
    finally:
        _seconds.reset(before)


@contextmanager
def heartbeats() -> Iterator[None]:
    """Send heartbeats of the present run within the block, unless the user's settings turn them off."""
    context, seconds = FlowRunContext.get(), _seconds.get()
    if context is None or context.flow_run is None or context.flow is None or seconds is None:
        yield
        return
    run, name, ended = context.flow_run, context.flow.name, threading.Event()

    def beat() -> None:
        while True:
            with suppress(Exception):  # the next one may arrive
                _send(run, name)
            if ended.wait(seconds):
                return

    thread = threading.Thread(target=copy_context().run, args=(beat,), name="siftline-heart", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_END_SECONDS)


def _send(run: FlowRun, flow: str) -> None:
    """Emit a heartbeat as Prefect does."""
    related = [
        {
            "prefect.resource.id": f"prefect.flow.{run.flow_id}",
            "prefect.resource.role": "flow",
            "prefect.resource.name": flow,
        }
    ]
    if run.deployment_id is not None:
        deployment = f"prefect.deployment.{run.deployment_id}"
        related.append({"prefect.resource.id": deployment, "prefect.resource.role": "deployment"})
    related += [
        {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
        for tag in sorted(run.tags)
    ]
    resource = {
        "prefect.resource.id": f"prefect.flow-run.{run.id}",
        "prefect.resource.name": run.name,
        "prefect.version": prefect.__version__,
    }
    emit_event("prefect.flow-run.heartbeat", resource, related=related)
