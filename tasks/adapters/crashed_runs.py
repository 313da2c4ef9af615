"""Runs that died, and that Prefect still shows as running."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed

from siftline.storage.lease import Lease
from siftline.tasks.adapters.artifacts import write_aside


def end_crashed_runs(lease: Lease) -> None:
    """Mark all earlier holders of a job that died without releasing it as crashed."""
    message = f"Its process ended without a word; run {flow_run.id} went on with the job."
    while (previous := lease.previous) is not None:
        write_aside("the end of the run before", partial(_crash, previous.run, message))
        lease.forget_previous()


def _crash(run: str, message: str) -> None:
    run_id = UUID(run)
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):  # it was on another server
        state = client.read_flow_run(run_id).state
        if state is not None and not state.is_final():
            client.set_flow_run_state(run_id, Crashed(message=message), force=True)
