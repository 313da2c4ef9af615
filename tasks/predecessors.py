"""The run that had a job before and did not come to an end."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Crashed

from siftline.lease import Lease
from tasks.progress import best_effort


def end_predecessor(lease: Lease) -> None:
    """Say of the run that died with this job that it crashed, so that it doesn't stay Running for ever."""
    previous = lease.previous
    if previous is None:
        return
    with best_effort("the end of the run before"):
        run_id = UUID(previous.run)
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(run_id).state
            if state is not None and not state.is_final():
                message = f"Its process ended without a word; run {flow_run.id} went on with the job."
                client.set_flow_run_state(run_id, Crashed(message=message), force=True)
