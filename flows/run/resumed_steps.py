"""The user's own steps in a job resumed from its checkpoint.

A checkpoint is data: who can write there must not choose what is imported. So these steps come from the
server: from the run that failed, or the pipeline's deployment. Without them there, they are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from siftline.errors import ConfigError
from siftline.flows.server import TAG, find_deployment
from siftline.jobs.record import read_job
from siftline.pipelines.assignment import Assignment, assignment_of
from siftline.progress import Incident, emit
from siftline.storage.lease import last_holder


def with_steps_of_server(assignment: Assignment, job: Path) -> Assignment:
    """Return an assignment with the user's own steps as the server has them, or without."""
    own = {step.uses for step in assignment.steps if step.own}
    if not own:
        return assignment
    name = assignment.config.name
    with get_client(sync_client=True) as client:
        for known in _known(client, name, job):
            if known.config.name == name and own <= {step.uses for step in known.steps}:
                return assignment.model_copy(update={"steps": known.steps})
    text = (
        f"{', '.join(sorted(own))}: the checkpoint names them, and neither a run nor a pipeline {name} on "
        f"the server does; apply the pipeline, and then: siftline pipelines run {name}"
    )
    get_run_logger().warning("steps left out: %s", text)
    emit(Incident("steps left out", text))
    standard = tuple(step for step in assignment.steps if not step.own)
    return assignment.model_copy(update={"steps": standard})


def _known(client: SyncPrefectClient, pipeline: str, job: Path) -> Iterator[Assignment]:
    """Yield the assignments of the job's last run and of the pipeline's deployment on the server."""
    holder = last_holder(job)[0]
    for parameters in (
        _of_run(client, holder.run if holder is not None else read_job(job).run),
        _of_deployment(client, pipeline),
    ):
        try:
            yield assignment_of(parameters)
        except ConfigError:  # a recovery, or nothing there
            continue


def _of_run(client: SyncPrefectClient, run: str | None) -> dict[str, Any]:
    try:
        return client.read_flow_run(UUID(run)).parameters if run is not None else {}
    except (ObjectNotFound, ValueError):
        return {}


def _of_deployment(client: SyncPrefectClient, pipeline: str) -> dict[str, Any]:
    found = find_deployment(client, pipeline)
    return found.parameters if found is not None and TAG in found.tags else {}
