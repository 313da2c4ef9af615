"""The run that had a job before and did not come to an end."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Crashed

from siftline.storage.lease import Lease
from tasks.adapters.artifacts import write_aside


def end_predecessor(lease: Lease) -> None:
    """Say of the run that died with this job that it crashed, so that it doesn't stay Running for ever."""
    previous = lease.previous
    if previous is not None:
        message = f"Its process ended without a word; run {flow_run.id} went on with the job."
        write_aside("the end of the run before", lambda: _crash(UUID(previous.run), message))


def _crash(run_id: UUID, message: str) -> None:
    with get_client(sync_client=True) as client, suppress(ObjectNotFound):  # it was on another server
        state = client.read_flow_run(run_id).state
        if state is not None and not state.is_final():
            client.set_flow_run_state(run_id, Crashed(message=message), force=True)
